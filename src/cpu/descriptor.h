/* Segment descriptors in the GDT and LDT, and stacks that a transfer of control is about to use: what segment.c,
 * far_transfer.c, exception.c and task_switch.c share. SDM vol. 3 §3.4, §3.5, §5, §8.2. */
#ifndef CPU_DESCRIPTOR_H
#define CPU_DESCRIPTOR_H
#include "cpu/access.h"

/* Types of system descriptors (SEG_S clear): SDM vol. 3 table 3-2. In IA-32e mode the 32-bit types mean 64-bit ones. */
enum {
    SYS_TSS16 = 1, SYS_LDT = 2, SYS_TSS16_BUSY = 3, SYS_CALL16 = 4, SYS_TASK_GATE = 5, SYS_INTR16 = 6, SYS_TRAP16 = 7,
    SYS_TSS32 = 9, SYS_TSS32_BUSY = 11, SYS_CALL32 = 12, SYS_INTR32 = 14, SYS_TRAP32 = 15,
    SYS_TSS_BUSY_BIT = 2,
};

/* A descriptor as it was read, and taken apart. */
struct descriptor {
    u64 gva;   /* where its eight bytes are */
    u64 raw;
    u64 base;  /* with the upper half, after descriptor_read_upper */
    u32 limit; /* in bytes, granularity applied */
    u16 attr;  /* SEG_* */
    u16 sel;   /* what named it */
};

/* A gate: a call gate in the GDT or LDT, or any gate in the IDT. */
struct gate {
    u64 offset;
    u16 sel;
    int size;   /* of the operands that it pushes: 2, 4, 8 */
    int params; /* call gates: operands to copy; in the IDT of IA-32e mode bits 2:0 are the IST */
};

static inline bool selector_null(u16 sel)
{
    return !(sel & ~3);
}
/* The error code that blames a selector; callers add EXT. */
static inline u32 selector_error(u16 sel)
{
    return sel & 0xfffcu;
}
static inline int attr_dpl(u16 attr)
{
    return attr >> SEG_DPL_SHIFT & 3;
}
static inline int attr_type(u16 attr)
{
    return attr & SEG_TYPE;
}
static inline bool attr_is_code(u16 attr)
{
    return (attr & (SEG_S | SEG_CODE)) == (SEG_S | SEG_CODE);
}
static inline bool attr_is_conforming(u16 attr)
{
    return attr_is_code(attr) && attr & SEG_C;
}
static inline bool attr_is_writable_data(u16 attr)
{
    return (attr & (SEG_S | SEG_CODE | SEG_W)) == (SEG_S | SEG_W);
}
static inline bool attr_is_readable(u16 attr)
{
    return attr & SEG_S && (!(attr & SEG_CODE) || attr & SEG_R);
}
static inline bool canonical(u64 gva)
{
    return (u64)((s64)(gva << 16) >> 16) == gva;
}

/* Takes a raw descriptor apart. */
void descriptor_parse(struct descriptor *d, u64 raw);

/* Reads the eight bytes that `sel` names. False: they lie outside the table, or there is no LDT. Raises #PF. */
bool descriptor_read(struct vcpu *c, u16 sel, struct descriptor *d);

/* In IA-32e mode system descriptors have 16 bytes: reads the upper half of the base. False: it lies outside the
 * table, or its type field is not zero. Outside IA-32e mode it does nothing. */
bool descriptor_read_upper(struct vcpu *c, struct descriptor *d);

/* Sets the accessed bit in the table and in d, by a locked operation, if it is clear. Raises #PF before any change. */
void descriptor_set_accessed(struct vcpu *c, struct descriptor *d);

/* Sets or clears the busy bit of a TSS descriptor in the table, by a locked operation. */
void descriptor_set_busy(struct vcpu *c, u64 gva, bool busy);

/* Takes a call gate's eight bytes (d->raw), or those of an IDT gate, apart; the upper offset of 16-byte gates is
 * separate. */
void gate_parse(const struct descriptor *d, struct gate *g);

/* Whether [offset, offset+size) lies within a segment: expand-down counts from the limit upwards. */
bool segment_covers(u16 attr, u32 limit, u64 offset, u32 size);

/* Checks a code segment as the target of a transfer in IA-32e mode: a segment cannot be 64-bit and 32-bit at once. */
bool code_size_valid(const struct vcpu *c, u16 attr);

/* Whether a transfer may go to `offset` in the code segment d; a 64-bit segment has no limit, but canonical
 * addresses. */
bool code_offset_valid(const struct vcpu *c, const struct descriptor *d, u64 offset);

/* Puts a checked descriptor into a register's hidden part. vcpu_mode_update is the caller's. */
void segment_set(struct vcpu *c, int seg, u16 sel, const struct descriptor *d);

/* Makes a register unusable; the selector becomes `sel` (a null one). */
void segment_set_null(struct vcpu *c, int seg, u16 sel);

/* CS becomes d with `cpl` as RPL and as current privilege; RIP becomes offset. vcpu_mode_update is the caller's. */
void code_enter(struct vcpu *c, const struct descriptor *d, int cpl, u64 offset);

/* A stack that values are about to be pushed on, with what the checks need: the current one, or one from a TSS. */
struct stack {
    u64 base, mask; /* mask: all ones for 64-bit mode */
    u64 sp;
    u32 limit;
    u16 attr;
    u16 sel;
    bool flat;  /* 64-bit mode: no limits, but canonical addresses */
    int mmu;    /* TLB set of its accesses */
    u32 error;  /* of #SS, should a push not fit */
};

/* The stack that SS:RSP names now, accessed at the current privilege. */
void stack_current(const struct vcpu *c, struct stack *t, u32 error);

/* Checks that `count` pushes of `size` bytes will succeed; raises #SS(t->error), #PF. */
void stack_reserve(struct vcpu *c, const struct stack *t, int count, int size);

/* Pushes; after stack_reserve it cannot fault. */
void stack_put(struct vcpu *c, struct stack *t, int size, u64 val);

/* The stack for privilege `cpl` that the TSS names, outside IA-32e mode, checked: null, table, privileges, type,
 * presence. Raises #TS and #SS with `ext` in their error codes. d becomes the descriptor of its segment. SDM vol. 3
 * §5.8.5. */
void stack_from_tss(struct vcpu *c, int cpl, u32 ext, struct stack *t, struct descriptor *d);

/* In IA-32e mode: RSP0 to RSP2 (slots 0 to 2) or IST1 to IST7 (slots 4 to 10) of the TSS. Raises #TS; #SS(ext) when
 * it is not canonical. */
u64 stack_pointer_from_tss64(struct vcpu *c, int slot, u32 ext);

#endif
