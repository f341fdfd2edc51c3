/* One vCPU with flat RAM, for tests of the engine's parts: functions are called directly, and what they raise is
 * caught.
 *
 * RAM lies at 0 and starts with the tables below. `cpu_flat32` is protected mode at CPL 0 with flat segments,
 * `cpu_long64` 64-bit mode with memory mapped as it is. */
#ifndef TESTS_CPU_FIXTURE_H
#define TESTS_CPU_FIXTURE_H
#include "cpu/descriptor.h"
#include "cpu/exception.h"

#define FIXTURE_RAM MIB(4)
#define GDT_AT 0x1000u
#define IDT_AT 0x2000u
#define TSS_AT 0x3000u
#define TSS2_AT 0x3800u
#define LDT_AT 0x4000u
#define PAGES_AT 0x10000u /* page tables of 64-bit mode */
#define STACK0_AT 0x20000u /* tops of stacks */
#define STACK3_AT 0x30000u
#define IST1_AT 0x40000u

/* Selectors in the GDT that every mode starts with. */
enum {
    SEL_CODE0 = 0x08, SEL_DATA0 = 0x10, SEL_CODE3 = 0x1b, SEL_DATA3 = 0x23, SEL_TSS = 0x28, SEL_TSS2 = 0x38,
    SEL_LDT = 0x40, SEL_CODE0_16 = 0x50, SEL_DATA0_16 = 0x58, SEL_CONFORMING = 0x60,
    SEL_GATE = 0x68 /* and 0x70 in long mode */, SEL_CODE64 = 0x78, SEL_CODE64_3 = 0x83, SEL_FREE = 0x88,
};
#define GDT_LIMIT 0xff

enum { /* access bytes */
    ACCESS_CODE = 0x9a, ACCESS_DATA = 0x92, ACCESS_DPL3 = 0x60, ACCESS_TSS16 = 0x81, ACCESS_TSS32 = 0x89,
    ACCESS_LDT = 0x82, ACCESS_CALL16 = 0x84, ACCESS_CALL32 = 0x8c, ACCESS_INTR32 = 0x8e, ACCESS_TRAP32 = 0x8f,
    ACCESS_TASK_GATE = 0x85, ACCESS_INTR16 = 0x86,
};

struct cpu_fixture {
    struct vcpu_group *group;
    struct vcpu *c;
    struct guest_memory *mem;
    struct clock clock;
    struct timer_queue timers;
    int shutdowns;
};

/* With the named CPU model, the default one for "", on the interpreter or another engine. */
void cpu_fixture_create(struct cpu_fixture *f, int cpus, const char *model);
void cpu_fixture_create_with(struct cpu_fixture *f, int cpus, const char *model, enum cpu_engine engine);
void cpu_fixture_free(struct cpu_fixture *f);

void cpu_flat32(struct cpu_fixture *f);
void cpu_long64(struct cpu_fixture *f);

/* Moves to CPL 3 of the current mode: flat segments, the stack at STACK3_AT. */
void cpu_user(struct cpu_fixture *f);

/* To V86 mode: CS = SS = DS = ES = FS = GS = 0x100, SP = 0x800, the given IOPL. */
void cpu_v86(struct cpu_fixture *f, int iopl);

void descriptor_put(struct cpu_fixture *f, u16 sel, u32 base, u32 limit, u8 access, u8 flags); /* flags: G, D, L, AVL */
void gate_put(struct cpu_fixture *f, u64 at, u16 sel, u64 offset, u8 access, u8 params);
void idt_put(struct cpu_fixture *f, int vector, u16 sel, u64 offset, u8 access); /* as wide as the mode's */

u64 ram_get(struct cpu_fixture *f, u64 at, int size);
void ram_put(struct cpu_fixture *f, u64 at, int size, u64 val);
u8 access_byte(struct cpu_fixture *f, u16 sel); /* of the descriptor in memory */

/* Runs the statement; the vector that it raised (and fixture_error its error code), or -1. */
#define CAUGHT(c, statement)                                        \
    ({                                                              \
        int vector_;                                                \
        if (__builtin_setjmp((c)->fault_jump)) {                    \
            vector_ = (c)->fault_vector;                            \
        } else {                                                    \
            statement;                                              \
            vector_ = -1;                                           \
        }                                                           \
        vector_;                                                    \
    })

/* Asserts that the statement raises vector with error code. */
#define assert_raises(c, vector, error, statement)                  \
    do {                                                            \
        assert_int_equal(CAUGHT(c, statement), vector);             \
        assert_int_equal((c)->fault_error, error);                  \
        (c)->delivering = -1;                                       \
    } while (0)
#define assert_no_fault(c, statement) assert_int_equal(CAUGHT(c, statement), -1)

/* Decodes and runs the instruction at CS:RIP with delivery of what it raises. */
void cpu_step(struct cpu_fixture *f);

/* Puts code at linear address `at`, points RIP there, and steps once. */
void cpu_run_bytes(struct cpu_fixture *f, u32 at, const void *bytes, u32 len);

#endif
