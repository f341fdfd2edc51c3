/* Addresses and segments of test cases: see layout.h. Descriptors: SDM vol. 3 §3.4.5. */
#include "layout.h"

#define TO_OFFSET(offset) ((u32)(DATA_VA - (offset)))

const struct layout_segment layout_ldt[LDT_COUNT] = {
    [LDT_CODE16] = {.base = (u32)CODE_VA, .limit = 0xffff, .contents = 2},
    [LDT_DATA16] = {.base = TO_OFFSET(0x4000), .limit = 0xffff},
    [LDT_STACK32] = {.base = TO_OFFSET(0x4000), .limit = 0xffff, .big = true},
    [LDT_DATA_READONLY] = {.base = TO_OFFSET(0x4000), .limit = 0xffff, .no_write = true},
    [LDT_CODE32] = {.base = (u32)CODE_VA, .limit = CODE_SIZE - 1, .contents = 2, .big = true},
    [LDT_EXPAND_DOWN] = {.base = (u32)DATA_VA, .limit = 0x17ff, .contents = 1},
    [LDT_EXPAND_DOWN32] = {.base = (u32)DATA_VA, .limit = 0x17ff, .contents = 1, .big = true},
    [LDT_DATA_SHORT] = {.base = (u32)DATA_VA, .limit = 0x17f9, .big = true},
    [LDT_DATA_BASE] = {.base = (u32)DATA_VA + 0x810, .limit = 0xfffff, .big = true, .pages = true},
    [LDT_DATA_TOP] = {.base = TO_OFFSET(0xf000), .limit = 0xffff},
    [LDT_ABSENT] = {.base = 0, .limit = 0xfffff, .big = true, .pages = true, .absent = true},
    [LDT_CODE_CONFORMING] = {.limit = 0xfffff, .contents = 3, .big = true, .pages = true, .absent = true},
    [LDT_CODE_EXECUTE] = {.limit = 0xfffff, .contents = 2, .big = true, .pages = true, .no_write = true},
    [LDT_CODE16_INSIDE] = {.base = (u32)CODE_VA + 0x230, .limit = 0x19a7, .contents = 2},
    [LDT_CODE32_INSIDE] = {.base = (u32)CODE_VA + 0x1d1, .limit = 0x1b52, .contents = 2, .big = true},
};

u64 layout_descriptor(const struct layout_segment *s)
{
    /* accessed, DPL 3, not a system segment */
    u64 attr = 0x70 | (u64)s->contents << 2 | (s->no_write ? 0 : 2) | 1 | (s->absent ? 0 : 0x80);

    return (s->limit & 0xffff) | (u64)(s->base & 0xffffff) << 16 | attr << 40 | (u64)(s->limit >> 16 & 15) << 48 |
           (u64)s->big << 54 | (u64)s->pages << 55 | (u64)(s->base >> 24) << 56;
}

u64 layout_base(u16 sel)
{
    return sel & 4 && sel >> 3 < LDT_COUNT ? layout_ldt[sel >> 3].base : 0;
}

u16 layout_selector(u64 random)
{
    static const u16 gdt[] = {0,    3,    0x08, 0x10, 0x13, 0x18, SEL_CODE32, SEL_DATA, 0x28,   0x29,
                              0x20, 0x40, 0x48, 0x50, 0x58, 0x63, SEL_CODE64, 0x38,     0x83, 0xfffb};

    if (random & 0x300) /* any RPL now and then; sometimes behind the table's end */
        return (u16)((random % (LDT_CHOSEN + 1)) << 3 | 4 | (random & 0xc00 ? 3 : random >> 12 & 3));
    return gdt[(random >> 16) % ARRAY_SIZE(gdt)];
}
