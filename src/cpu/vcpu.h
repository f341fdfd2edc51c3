/* Virtual x86 CPUs: the boundary between the engines and the rest of the machine.
 *
 * A vcpu_group is all vCPUs of one machine with what they share: memory, clock, CPUID model, the way to ports and memory-
 * mapped I/O (callbacks that machine/ supplies), and the APIC bus. Each vCPU runs in a thread of its own, inside
 * vcpu_run(). See docs/CPU.md. */
#ifndef CPU_VCPU_H
#define CPU_VCPU_H
#include "base/err.h"
#include "base/timer.h"
#include "base/types.h"
#include "mem/guest_memory.h"

#define VCPUS_MAX 16

enum cpu_engine { CPU_ENGINE_AUTO, CPU_ENGINE_INTERP, CPU_ENGINE_JIT, CPU_ENGINE_KVM, CPU_ENGINE_LOCKSTEP };

enum cpu_windows { CPU_WINDOWS_AUTO, CPU_WINDOWS_OFF, CPU_WINDOWS_ALWAYS }; /* see cpu/window.h; auto: of busy address spaces */

struct cpu_model_name {
    char text[256]; /* "host", "x86-64-v3,-x2apic", …; empty: the best that the host can back; see cpu_model_switches.h */
};

struct vcpu;
struct vcpu_group;

/* What the engines need from the machine. Called from vCPU threads with no lock held. */
struct vcpu_bus {
    void *ctx;
    u64 (*pio_read)(void *ctx, u16 port, int size);
    void (*pio_write)(void *ctx, u16 port, int size, u64 val);
    u64 (*mmio_read)(void *ctx, u64 gpa, int size);
    void (*mmio_write)(void *ctx, u64 gpa, int size, u64 val);
    int (*extint_ack)(void *ctx);           /* INTA cycle to the PIC: the vector */
    void (*eoi)(void *ctx, u8 vector);      /* EOI of a level-triggered interrupt, broadcast to I/O APICs */
    void (*shutdown)(void *ctx);            /* triple fault: the machine resets or ends */
    void (*ferr)(void *ctx, bool level);    /* FERR#: an x87 error with CR0.NE clear; NULL: not connected */
};

struct insn_trace_config;
struct jit_profile_config;

/* Makes what is rare in the translator happen all the time, for finding its faults: bits, by the names that --stress takes. */
enum vcpu_stress {
    STRESS_HOT = 1,   /* code is translated when it is first met */
    STRESS_FLUSH = 2, /* all translations are forgotten every few blocks */
    STRESS_EVICT = 4, /* there is room for a few blocks only */
    STRESS_SMC = 8,   /* code lines count as overwritten every few blocks */
    STRESS_RENAME = 16, /* all blocks choose which guest registers are in the host's */
};

struct vcpu_group_config {
    int count; /* 1 to VCPUS_MAX */
    enum cpu_engine engine;
    enum cpu_windows windows;
    struct cpu_model_name model;
    struct guest_memory *mem;
    const struct clock *clock;
    struct timer_queue *timers;
    struct vcpu_bus bus;
    const struct insn_trace_config *insn_trace; /* of cpu/insn_trace.h; NULL: none */
    u32 stress; /* enum vcpu_stress */
    const struct jit_profile_config *profile;   /* of cpu/jit_profile.h; NULL: none */
};

/* Whether a CPU model of that name can be had here; nothing is made. */
int vcpu_model_check(const struct cpu_model_name *name, struct err *e);
int vcpu_group_create(const struct vcpu_group_config *config, struct vcpu_group **ret, struct err *e);
void vcpu_group_free(struct vcpu_group *g); /* no vCPU thread may be left; NULL is fine */
struct vcpu *vcpu_get(struct vcpu_group *g, int index);
int vcpu_count(const struct vcpu_group *g);

/* Runs vCPU `c` in the calling thread until vcpu_group_stop(). Sleeps while the guest halts or waits for SIPI. */
void vcpu_run(struct vcpu *c);

/* Makes every vcpu_run return soon, from any thread, and lets the next vcpu_run calls run again after vcpu_group_resume.
 * Does not wait: the caller joins or counts the threads. */
void vcpu_group_stop(struct vcpu_group *g);
void vcpu_group_resume(struct vcpu_group *g);

/* To power-on state (SDM vol. 3 table 9-1): vCPU 0 at the reset vector, the others waiting for SIPI. No vCPU may run. */
void vcpu_group_reset(struct vcpu_group *g);

/* Registers for loaders, before the vCPU runs. */
struct vcpu_boot_segment {
    u16 sel;
    u16 attr; /* as in cpu/segment.h */
    u32 limit;
    u64 base;
};
struct vcpu_boot_regs {
    u64 rip, rsp, rax, rbx, rsi, rdi, rflags;
    u64 cr0, cr3, cr4, efer;
    struct vcpu_boot_segment cs, data, tr; /* `data` goes to DS, ES, SS, FS and GS */
    u64 gdt_base;
    u16 gdt_limit;
};
void vcpu_boot(struct vcpu *c, const struct vcpu_boot_regs *regs);

/* The level of the PIC's INTR wire, which reaches LINT0 of vCPU 0 (and its INTR pin while the APIC is disabled). */
void vcpu_group_intr(struct vcpu_group *g, bool level);

/* The level of IGNNE#: with CR0.NE clear, x87 instructions do not wait for errors to be seen to. Any thread. */
void vcpu_group_ignne(struct vcpu_group *g, bool level);

/* The A20 gate: while it is closed (`open` false) address bit 20 is 0 in all physical addresses of the processors. Open at
 * first. Takes hold at each vCPU's next block, in the calling one before its next instruction. Any thread. */
void vcpu_group_a20(struct vcpu_group *g, bool open);

/* One message on the APIC bus: from I/O APICs, MSIs and ICR writes. SDM vol. 3 §11.6, §11.11. */
enum apic_delivery { APIC_FIXED, APIC_LOWEST, APIC_SMI, APIC_RESERVED, APIC_NMI, APIC_INIT, APIC_STARTUP, APIC_EXTINT };
struct apic_message {
    u32 dest;
    u8 vector;
    u8 delivery; /* enum apic_delivery */
    bool logical;
    bool wide; /* from an x2APIC: dest has 32 bits, and 0xff is an id like others */
    bool level_triggered;
    bool deassert; /* INIT level de-assert */
};
void apic_bus_send(struct vcpu_group *g, const struct apic_message *msg); /* any thread */

/* Lets `fn` run while every other vCPU stands between two instructions. From a vCPU thread or any other, not nested. */
void vcpu_group_exclusive(struct vcpu_group *g, struct vcpu *self, void (*fn)(void *ctx), void *ctx);

/* After the guest-physical map changed (within vcpu_group_exclusive, or with no vCPU running): forget all translations. */
void vcpu_group_flush(struct vcpu_group *g);

/* Name of the model in use and of the engine, for messages. */
const char *vcpu_group_model(const struct vcpu_group *g);
const char *vcpu_group_engine(const struct vcpu_group *g);

/* Why the engine was chosen, where CPU_ENGINE_AUTO left the choice; else empty. */
const char *vcpu_group_engine_reason(const struct vcpu_group *g);

/* Instructions retired by all vCPUs so far. Approximate while they run. */
u64 vcpu_group_retired(const struct vcpu_group *g);

/* Calls fn(ctx, name, description) for each model name that --cpu-model takes. */
void cpu_models_list(void (*fn)(void *ctx, const char *name, const char *what), void *ctx);

#endif
