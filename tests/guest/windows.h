/* What the guests that reach user memory through windows share: accesses of ring 3, programs that it writes and runs, page tables,
 * and how an address space becomes busy. */
#ifndef WINDOWS_H
#define WINDOWS_H
#include "random.h"

/* RBX is the address, RAX the operand and the result. */
CODE(64, do_read, "mov (%rbx), %rax; int3");
CODE(64, do_write, "mov %rax, (%rbx); int3");
CODE(64, do_add, "lock add %rax, (%rbx); int3");
CODE(64, do_busy, "1: .rept 14; add $1, %eax; .endr; dec %rcx; jne 1b; int3");

/* The table that the entry leads to, made if there is none. */
static u64 *table_entry(u64 *table, u64 index)
{
    if (!(table[index] & PTE_P))
        table[index] = (u64)page_alloc() | PTE_P | PTE_W | PTE_U;
    return (u64 *)(table[index] & ~0xffful);
}

/* Where only busy address spaces are given windows, the current one is busy now. */
static void be_busy(void)
{
    struct frame f = frame_at(do_busy, 3);

    f.rcx = 2000000;
    must(enter(&f) == 3, "busy: vector %lu", caught.vector);
}

/* Ring 3 writes `mov eax, value; int3` to va, where it may, and runs it there; so many times: from the second on code is overwritten. */
static void programs_at(u64 va, int times)
{
    for (int n = 0; n < times; n++) {
        u32 value = random32();
        struct frame f = frame_at(do_write, 3);

        f.rbx = va;
        f.rax = 0xb8 | (u64)value << 8 | 0xccul << 40;
        must(enter(&f) == 3, "a program at %lx cannot be written: vector %lu", va, caught.vector);
        f = frame_at((void *)va, 3);
        must(enter(&f) == 3 && (u32)caught.rax == value, "the program at %lx: %lx, not %x", va, caught.rax, value);
    }
}

#endif
