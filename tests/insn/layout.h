/* Where a test case's code and data are, in this process and in the guest alike, and which segments there are. */
#ifndef TESTS_INSN_LAYOUT_H
#define TESTS_INSN_LAYOUT_H
#include "base/types.h"

/* Code: two pages, readable and executable, filled with INT3 around the instruction; nothing behind them. */
#define CODE_VA 0x20000000ull
#define CODE_SIZE 0x2000u

/* Data: three writable pages and a read-only one, none executable; nothing around them. */
#define DATA_VA 0x10000000ull
#define DATA_WRITABLE 0x3000u
#define DATA_SIZE 0x4000u

/* Segments in the LDT. Bases put the data pages into the middle or at the edges of 64 KiB. */
enum layout_ldt {
    LDT_CODE16,         /* base CODE_VA, 64 KiB */
    LDT_DATA16,         /* the data pages at offset 0x4000; as a stack, SP counts */
    LDT_STACK32,        /* the same, but ESP counts */
    LDT_DATA_READONLY,  /* the same as LDT_DATA16 */
    LDT_CODE32,         /* base CODE_VA, two pages */
    LDT_EXPAND_DOWN,    /* base DATA_VA, offsets from 0x1800 to 0xFFFF */
    LDT_EXPAND_DOWN32,  /* base DATA_VA, offsets from 0x1800 to 4 GiB */
    LDT_DATA_SHORT,     /* base DATA_VA, ends with byte 0x17F9 */
    LDT_DATA_BASE,      /* base DATA_VA + 0x810, 4 GiB that wrap around */
    LDT_DATA_TOP,       /* the data pages at offset 0xF000: they run over the end of 64 KiB */
    LDT_ABSENT,         /* not present */
    LDT_CODE_CONFORMING,/* flat, 32-bit; not present: Linux lets programs have no other */
    LDT_CODE_EXECUTE,   /* flat, 32-bit, not readable */
    LDT_CODE16_INSIDE,  /* begins and ends in the middle of code pages; layout_selector() names none from here */
    LDT_CODE32_INSIDE,
    LDT_COUNT
};
struct layout_segment {
    u32 base, limit;    /* limit as in the descriptor */
    u8 contents;        /* 0 data, 1 expand-down data, 2 code, 3 conforming code: as modify_ldt(2) has it */
    bool big, pages, no_write, absent; /* no_write: read-only data, execute-only code */
};
extern const struct layout_segment layout_ldt[LDT_COUNT];
#define LDT_CHOSEN LDT_CODE16_INSIDE
#define LDT_SELECTOR(n) ((u16)((n) << 3 | 7))

/* In real and virtual-8086 mode segments are as above, with 64 KiB, until a selector is loaded: these have their bases where code and data are
 * physically, and in virtual-8086 mode linearly a second time. */
#define REAL_CODE_AT 0x30000u
#define REAL_DATA_AT 0x40000u
#define REAL_DATA ((u16)((REAL_DATA_AT - 0x4000) >> 4)) /* offsets as in LDT_DATA16 */

/* Linux' flat segments in the GDT. */
#define SEL_CODE32 0x23
#define SEL_DATA 0x2b
#define SEL_CODE64 0x33
#define SEL_CPU_NUMBER 0x7b /* its limit is the number of the CPU */

/* The descriptor of a segment as it is in the table. */
u64 layout_descriptor(const struct layout_segment *s);

/* The base of the segment that `sel` names, as a program at the host sees it; 0 where it is none of ours. */
u64 layout_base(u16 sel);

/* A selector worth loading, asking about, or jumping to: legal and illegal ones. `random` chooses. */
u16 layout_selector(u64 random);

#endif
