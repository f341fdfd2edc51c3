/* User memory as translated code reaches it: random accesses of ring 3 against a model, while pages are remapped, protected and
 * invalidated in every way, in several address spaces with and without PCIDs. The pages lie where mistakes would be made: at the
 * edges of 4 GiB and of 512 GiB, of the canonical half, and next to each other, with operands that cross from one to the next
 * and bases far away. Programs are written by ring 3 into pages that it also has as data. SDM vol. 3 §4.10, vol. 1 §3.3.7. */
#include "windows.h"

#define SPACES 4
#define PAGES 12
#define FRAMES 6 /* of physical memory */
#define ROUNDS 60000
#define CR4_PCIDE 0x20000ul
#define NO_FLUSH (1ul << 63)
#define FAR 0x40000000ul

static const u64 at[PAGES] = {0xfffff000, 0x100000000, 0x100001000, 0x7ffffff000, 0x8000000000, 0x8000001000, 0x555555555000,
                              0x555555556000, 0x7fffffffd000, 0x7fffffffe000, 0x7ffffffff000, 0x20000000000};

/* As do_read; RCX is the address less FAR. Each has 8 bytes at RBX. */
CODE(64, do_push, "lea 8(%rbx), %rsp; push %rax; int3");
CODE(64, do_pop, "mov %rbx, %rsp; pop %rax; int3");
CODE(64, do_far, "mov 0x40000000(%rcx), %rax; int3");
CODE(64, do_far_write, "mov %rax, 0x40000000(%rcx); int3");
CODE(64, do_index, "mov $0x8000000, %edx; mov (%rcx, %rdx, 8), %rax; int3");
/* An index that is known to be small, by each instruction that tells; and some that look like it. */
CODE(64, do_small, "mov %rbx, %rcx; sub $0x7fff8, %rcx; mov $0xffff, %edx; mov (%rcx, %rdx, 8), %rax; int3");
CODE(64, do_small_write, "lea -0x5007fff8(%rbx), %rcx; or $-1, %rdx; movzwl %dx, %edx; mov %rax, 0x50000000(%rcx, %rdx, 8); int3");
CODE(64, do_small_twice, "lea -0x3fc(%rbx), %rcx; or $-1, %rdx; and $0xff, %edx; mov (%rcx, %rdx, 4), %eax; mov %edx, %esi; and %rsi, %rdx; "
                         "mov 4(%rcx, %rsi, 4), %edi; shl $32, %rdi; or %rdi, %rax; lea (%rcx), %rcx; mov (%rcx, %rdx, 4), %rdi; sub %rdi, %rax; add %rdi, %rax; int3");
CODE(64, do_small_shift, "lea -0x7fff8(%rbx), %rcx; or $-1, %rdx; shr $16, %edx; mov %rax, %r9; mov %r9, (%rcx, %rdx, 8); xor %edx, %edx; mov (%rbx, %rdx, 2), %rax; int3");
CODE(64, do_small_lock, "lea -0xffff(%rbx), %rcx; mov $0xffff, %r10d; lock add %rax, (%rcx, %r10); int3");
CODE(64, do_not_small_bit, "mov $0x10000000000, %rdi; mov %rbx, %rcx; sub %rdi, %rcx; xor %edx, %edx; bts $40, %rdx; mov (%rcx, %rdx), %rax; int3");
CODE(64, do_not_small_half, "mov $0x1000000ff00, %rdx; mov %rbx, %rcx; mov $0x100000000ff, %rdi; sub %rdi, %rcx; movzbw %dh, %dx; mov (%rcx, %rdx), %rax; int3");
CODE(64, do_not_small_sign, "mov $0x400000000, %rcx; add %rbx, %rcx; mov $1, %edx; mov $-0x80000000, %rdx; mov %rax, (%rcx, %rdx, 8); int3");
CODE(64, do_not_small_sum, "mov $0x18000000000, %rdi; mov %rbx, %rcx; sub %rdi, %rcx; mov $0xc000, %edx; shl $25, %rdx; mov (%rcx, %rdx), %rax; int3");
CODE(64, do_flags, "mov %rax, %rdx; sub %rdx, %rdx; stc; mov (%rbx), %rax; adc $0, %rdx; sub %rdx, %rax; inc %rax; int3");
CODE(64, do_twice, "mov %rax, (%rbx); mov (%rbx), %rdx; lea 8(%rbx), %rbx; mov -8(%rbx), %rax; sub %rdx, %rax; add %rdx, %rax; int3");
CODE(64, do_r12, "mov %rax, %r12; mov %r12, (%rbx); mov (%rbx), %r13; mov %r13, %rax; int3");
CODE(64, do_fs, "mov %fs:(%rcx), %rax; int3");
CODE(64, do_call, "lea 8(%rbx), %rsp; lea 1f(%rip), %rdx; call *%rdx; 1: mov %rdx, %rax; int3");
CODE(64, do_cmpxchg, "mov %rax, %rdx; mov $0x1234567, %eax; lock cmpxchg %rdx, (%rbx); int3");
/* Prefetches never fault, and leave everything as it was. */
CODE(64, do_prefetch, "prefetchnta (%rbx); prefetcht0 0x40000000(%rcx); mov $0x8000000, %edx; stc; prefetcht1 (%rcx, %rdx, 8); mov (%rbx), %rax;"
                      "prefetcht2 -64(%rbx); prefetcht0 %fs:(%rcx); sbb $-1, %rax; int3");
CODE(64, do_only_prefetch, "prefetchnta (%rbx); prefetcht0 0x40000000(%rcx); prefetcht1 -0x1000; prefetcht2 (%rbx, %rax, 8); prefetcht0 1f(%rip); 1: int3");
/* The stack there: RSP is loaded, moved far, exchanged, or comes from RBP. */
CODE(64, do_rsp, "mov %rbx, %rsp; mov (%rsp), %rax; int3");
CODE(64, do_rsp_far, "mov %rcx, %rsp; mov 0x40000000(%rsp), %rax; int3");
CODE(64, do_rsp_add, "mov %rcx, %rsp; add $0x40000008, %rsp; push %rax; int3");
CODE(64, do_rsp_index, "lea -0x7f0(%rbx), %rsp; mov $0xfe, %edx; mov (%rsp, %rdx, 8), %rax; int3");
CODE(64, do_leave, "mov %rbx, %rbp; leave; lea -8(%rsp), %rbx; mov %rbp, %rax; int3");
CODE(64, do_leave_flags, "mov %rbx, %rbp; xor %edx, %edx; stc; leave; sbb $0, %rdx; lea 1(%rbp, %rdx), %rax; int3");
CODE(64, do_xchg_rsp, "xchg %rbx, %rsp; mov %rax, (%rsp); xchg %rbx, %rsp; lea 8(%rbx), %rsp; pushq -8(%rsp); int3");
CODE(64, do_align, "lea 15(%rbx), %rsp; and $-8, %rsp; sub $8, %rsp; mov %rbx, %rsp; pop %rax; int3");
/* RSP walks 16 GiB away by small steps, and back; or comes from so far. */
CODE(64, do_walk, "mov %rbx, %rsp; mov $0x40000, %edx; 1: lea 0x10000(%rsp), %rsp; dec %edx; jne 1b;"
                  "mov $0x40000, %edx; 2: add $-0x10000, %rsp; dec %edx; jne 2b; pop %rax; int3");
CODE(64, do_walk_up, "mov %rbx, %rsp; mov $0x400000000, %rdx; sub %rdx, %rsp; mov $0x40000, %edx;"
                     "1: lea 0x10000(%rsp), %rsp; dec %edx; jne 1b; mov (%rsp), %rax; int3");
CODE(64, do_walk_down, "mov %rbx, %rsp; mov $0x400000000, %rdx; add %rdx, %rsp; mov $0x40000, %edx;"
                       "1: sub $0x10000, %rsp; dec %edx; jne 1b; mov (%rsp), %rax; int3");

/* At constant addresses: of the program, of the kernel's half, and the last that is the user's. */
CODE(64, do_static, "mov 0x200000, %rax; mov 0x200000, %edx; xor %eax, %edx; int3");
CODE(64, do_static_high, "mov -0x1000, %rax; int3");
CODE(64, do_static_edge, "mov 0x7ffffffc, %rax; int3");

CODE(64, do_read_behind, "mov (%rbx), %rax; int3"); /* which has not seen so much yet as do_read */
/* Loops: RBX and RDI walk, RCX counts, RAX adds up. */
CODE(64, do_sum, "1: add (%rbx), %rax; add $8, %rbx; dec %rcx; jne 1b; int3");
CODE(64, do_sum_prefetch, "1: prefetcht0 0x200(%rbx); prefetchnta (%rdi, %rcx, 8); add (%rbx), %rax; add $8, %rbx; dec %rcx; jne 1b; int3");
CODE(64, do_sum_down, "1: add -0x1000(%rbx), %rax; lea -8(%rbx), %rbx; sub $1, %rcx; jne 1b; int3");
CODE(64, do_copy, "1: mov (%rbx), %rdx; add %rdx, %rax; mov %rdx, 0x100(%rdi); add $8, %rbx; add $8, %rdi; dec %rcx; jne 1b; int3");
/* The same with an index: it moves, or the base does; beside another operand of each kind, and static data. */
CODE(64, do_sum_index, "1: add (%rbx, %rdi, 8), %rax; lea (%rax), %rdx; add $1, %rdi; dec %rcx; jne 1b; int3");
CODE(64, do_sum_index_down, "1: add 0x70000000(%rbx, %rdi, 8), %rax; sub $1, %rdi; sub $1, %rcx; jne 1b; int3");
CODE(64, do_sum_base, "1: add -0x70000000(%rbx, %rdi, 4), %rax; add $8, %rbx; dec %rcx; jne 1b; int3");
CODE(64, do_sum_index_rip, "1: add (%rbx, %rdi, 8), %rax; add 2f(%rip), %rax; sub 2f(%rip), %rax; add $1, %rdi; sub $1, %rcx; jne 1b; int3; 2: .quad 77");
CODE(64, do_sum_index_static, "1: add (%rbx, %rdi, 8), %rax; mov 0x200000(, %rcx, 8), %rdx; mov 0x200000, %rdx; add $1, %rdi; sub $1, %rcx; jne 1b; int3");
CODE(64, do_sum_four, "1: add (%rbx, %rdi, 8), %rax; mov 0x200000(, %rcx, 8), %rdx; mov 0x200000, %rdx; add 2f(%rip), %rax; sub 2f(%rip), %rax; add $1, %rdi; sub $1, %rcx; jne 1b; "
     "int3; 2: .quad 77");
CODE(64, do_sum_stride, "1: add (%rbx), %rax; add %rdi, %rbx; sub $1, %rcx; jne 1b; int3");
/* By an index of 16 bits, which goes on from its largest to its smallest; and a base that is held beside it. */
CODE(64, do_sum_small, "1: movzwl %di, %edx; add (%rbx, %rdx, 8), %rax; lea 1(%rdi), %rdi; sub $1, %rcx; jne 1b; int3");
CODE(64, do_sum_small_two, "1: mov %edi, %edx; and $0xffff, %edx; add 8(%rbx, %rdx, 8), %rax; add (%rbx, %rdx, 8), %r8; add $1, %rdi; sub $1, %rcx; jne 1b; int3");
/* By registers that have no host register everywhere, and one base twice. */
CODE(64, do_sum_renamed, "1: mov (%rbx), %r9; mov %r9, %r10; add (%rbx), %r10; sub %r9, %r10; add %r10, %rax; add %rdi, %rbx; sub $1, %rcx; jne 1b; int3");
/* Sums with end-around carry, which only DEC and LEA leave alone: with what one operand needs held, and what three need. */
CODE(64, do_sum_carry, "clc; jmp 1f; 1: adc (%rbx), %rax; lea 8(%rbx), %rbx; dec %rcx; jne 1b; int3");
CODE(64, do_sum_carry_static, "clc; jmp 1f; 1: adc (%rbx, %rdi, 8), %rax; mov 0x200000(, %rcx, 8), %rdx; mov 0x200000, %rdx; lea 1(%rdi), %rdi; dec %rcx; "
     "jne 1b; int3");
CODE(32, do_read32, "mov $0x2b, %eax; mov %eax, %ds; mov %eax, %es; jmp 1f; 1: mov (%ebx), %eax; int3");

enum kind { READ, WRITE, ADD, CMPXCHG, CALL };
static const struct {
    const u8 *code;
    enum kind kind;
} accesses[] = {{do_read, READ}, {do_write, WRITE}, {do_add, ADD}, {do_push, WRITE}, {do_pop, READ}, {do_far, READ},
                {do_far_write, WRITE}, {do_index, READ}, {do_flags, READ}, {do_twice, WRITE}, {do_r12, WRITE}, {do_fs, READ},
                {do_call, CALL}, {do_cmpxchg, CMPXCHG}, {do_rsp, READ}, {do_rsp_far, READ}, {do_rsp_add, WRITE},
                {do_small, READ}, {do_small_write, WRITE}, {do_small_twice, READ}, {do_small_shift, WRITE}, {do_small_lock, ADD},
                {do_not_small_bit, READ}, {do_not_small_half, READ}, {do_not_small_sign, WRITE}, {do_not_small_sum, READ},
                {do_rsp_index, READ}, {do_prefetch, READ}, {do_leave, READ}, {do_leave_flags, READ}, {do_xchg_rsp, WRITE}, {do_align, READ}};
#define ACCESSES (sizeof(accesses) / sizeof(accesses[0]))

static u64 *pte[SPACES][PAGES], root[SPACES];
static u8 *frame[FRAMES];
static int current;
static bool pcids, stale[SPACES]; /* entries changed that are only dropped when the space is loaded without NO_FLUSH */
static int faults, successes, loops;

/* Spaces share the program's own tables and have their own for the pages tested. */
static void space_make(int s)
{
    u64 *top = page_alloc(), *low = page_alloc();

    for (int n = 0; n < 512; n++)
        top[n] = n == 0 ? pml4[0] : 0;
    for (int n = 0; n < 512; n++)
        low[n] = n < 3 ? ((u64 *)(pml4[0] & ~0xffful))[n] : 0;
    top[0] = (u64)low | PTE_P | PTE_W | PTE_U;
    root[s] = (u64)top;
    for (int n = 0; n < PAGES; n++) {
        u64 *t = table_entry(top, at[n] >> 39 & 511);

        if (at[n] >> 30 == 3) { /* the fourth GiB has devices too: its table is the program's, copied */
            u64 *devices = (u64 *)(((u64 *)(pml4[0] & ~0xffful))[3] & ~0xffful), *own = page_alloc();

            for (int k = 0; k < 512; k++)
                own[k] = k < 511 ? devices[k] : 0;
            t[3] = (u64)own | PTE_P | PTE_W | PTE_U;
        }
        t = table_entry(t, at[n] >> 30 & 511);
        t = table_entry(t, at[n] >> 21 & 511);
        pte[s][n] = &t[at[n] >> 12 & 511];
    }
}

static void load(int s, bool keep)
{
    current = s;
    write_cr3(root[s] | (pcids ? (u64)s + 1 : 0) | (pcids && keep && !stale[s] ? NO_FLUSH : 0));
    if (!pcids || !keep)
        stale[s] = false;
}

static struct {
    u64 pcid, address;
} operand;

static void invalidate(int s, u64 va)
{
    if (s == current && one_in(2)) {
        invlpg(va);
    } else if (pcids && feature(7, 0, 1, 10)) {
        operand.pcid = (u64)s + 1;
        operand.address = va;
        asm volatile("invpcid %0, %1" : : "m"(operand), "r"(one_in(4) ? 1ul : 0ul) : "memory");
    } else if (s == current) {
        load(s, false);
    } else {
        stale[s] = true;
    }
}

/* A new frame, new rights, or a cleared dirty flag, as a kernel that copies on write or swaps. */
static void change(void)
{
    int s = one_in(2) ? current : (int)(random32() % SPACES), n = (int)(random32() % PAGES);
    u64 e = (u64)frame[random32() % FRAMES] | PTE_U | (one_in(8) ? 0 : PTE_P) | (one_in(3) ? 0 : PTE_W);

    if (one_in(3))
        e = (*pte[s][n] & ~(u64)(one_in(2) ? PTE_W : PTE_D)) | PTE_U;
    if (one_in(10))
        e &= ~(u64)PTE_U;
    *pte[s][n] = e;
    invalidate(s, at[n]);
}

static int page_of(u64 va)
{
    for (int n = 0; n < PAGES; n++)
        if (at[n] == (va & ~0xffful))
            return n;
    return -1;
}

/* Where a byte is for such an access, or NULL. */
static u8 *byte_at(u64 va, bool write)
{
    int n = page_of(va);
    u64 e = n < 0 ? 0 : *pte[current][n], want = PTE_P | PTE_U | (write ? PTE_W : 0);

    return (e & want) == want ? (u8 *)(e & 0xffffffff000ul) + (va & 0xfff) : 0;
}

static u64 value_at(u64 va)
{
    u64 v = 0;

    for (int n = 0; n < 8; n++)
        v |= (u64)*byte_at(va + n, false) << n * 8;
    return v;
}

static bool allowed(u64 va, bool write)
{
    for (int n = 0; n < 8; n++)
        if (!byte_at(va + n, write))
            return false;
    return true;
}

static void access_random(void)
{
    u64 va = at[random32() % PAGES] + (one_in(3) ? 0xff9 + random32() % 7 : random32() % 512 * 8);
    int k = (int)(random32() % ACCESSES), vector, n = page_of(va);
    enum kind kind = accesses[k].kind;
    bool good = allowed(va, kind != READ);
    u64 before = allowed(va, false) ? value_at(va) : 0, after;
    struct frame f = frame_at(accesses[k].code, 3);

    if (va + 8 > 0x800000000000)
        return;
    f.rbx = va;
    f.rcx = va - FAR;
    f.rax = one_in(3) && kind == CMPXCHG ? before : ((u64)random32() << 32 | random32());
    if (kind == CMPXCHG && good && one_in(2)) {
        for (int b = 0; b < 8; b++)
            *byte_at(va + b, true) = (u8)(0x1234567ul >> b * 8);
        before = 0x1234567;
    }
    vector = enter(&f);
    if (!good) {
        faults++;
        must(vector == 14, "access %d at %lx: vector %d, not a page fault; entry %lx", k, va, vector, *pte[current][n]);
        must(allowed(va, false) ? value_at(va) == before : true, "access %d at %lx: faulted and wrote", k, va);
        return;
    }
    successes++;
    must(vector == 3, "access %d at %lx: vector %d error %lx cr2 %lx; entry %lx", k, va, vector, caught.error, caught_cr2,
          *pte[current][n]);
    after = value_at(va);
    if (kind == READ)
        must(caught.rax == before && after == before, "access %d at %lx: %lx, not %lx", k, va, caught.rax, before);
    else if (kind == WRITE)
        must(after == f.rax && caught.rax == f.rax, "access %d at %lx: wrote %lx, not %lx", k, va, after, f.rax);
    else if (kind == ADD)
        must(after == before + f.rax, "access %d at %lx: added to %lx", k, va, after);
    else if (kind == CALL)
        must(after == caught.rax && caught.rsp == va, "access %d at %lx: pushed %lx", k, va, after);
    else
        must(after == (before == 0x1234567 ? f.rax : before), "access %d at %lx: exchanged %lx", k, va, after);
    must(*pte[current][n] & PTE_A, "access %d at %lx: not accessed", k, va);
    must(kind == READ || kind == CMPXCHG || *pte[current][n] & PTE_D, "access %d at %lx: not dirty", k, va);
}

static void program_random(void)
{
    int n = (int)(random32() % PAGES);
    u64 va = at[n] + random32() % 64 * 8;

    if (allowed(va, true))
        programs_at(va, 4);
}

/* A loop from one mapped page on, perhaps to where it faults: then every register is as that round found it. */
static void loop_random(void)
{
    static const u8 *const codes[] = {do_sum, do_sum_down, do_copy, do_sum_prefetch};
    int k = (int)(random32() % 4);
    u64 from = at[random32() % PAGES] + random32() % 512 * 8, to = at[random32() % PAGES] + random32() % 512 * 8;
    struct frame f = frame_at(codes[k], 3);
    u64 sum = 0, left = 1 + random32() % 900;
    int fault;

    f.rbx = k == 1 ? from + 0x1000 : from;
    f.rdi = to - 0x100;
    f.rcx = left;
    f.rax = 0;
    if (k == 2 && from - to + 0x4000 < 0x8000)
        return; /* what is read may be what was written */
    for (int n = 0; n < PAGES; n++) /* in two places */
        for (int m = 0; k == 2 && m < PAGES; m++)
            if (n != m && (*pte[current][n] ^ *pte[current][m]) >> 12 << 28 == 0)
                return;
    for (; left && allowed(from, false) && (k != 2 || allowed(to, true)); left--) {
        sum += value_at(from);
        from += k == 1 ? -8 : 8;
        to += 8;
    }
    fault = !left ? 3 : (allowed(from, false) ? to : from) >> 47 ? 13 : 14;
    must(enter(&f) == fault, "loop %d: vector %lu, %lu rounds left", k, caught.vector, left);
    must(caught.rcx == left && (caught.rax == sum || (k == 2 && left)) && caught.rbx == (k == 1 ? from + 0x1000 : from),
         "loop %d: %lu rounds left, not %lu; at %lx, not %lx; %lx, not %lx", k, caught.rcx, left, caught.rbx, from, caught.rax, sum);
    loops++;
}

/* The same where each round needs the carry of the last. */
static void loop_carry_random(void)
{
    bool index = one_in(2);
    u64 from = at[random32() % PAGES] + random32() % 512 * 8, sum = 0, left = 1 + random32() % 900, carry = 0;
    struct frame f = frame_at(index ? do_sum_carry_static : do_sum_carry, 3);
    int fault;

    f.rdi = 5;
    f.rbx = index ? from - 40 : from;
    f.rcx = left;
    f.rax = 0;
    for (; left && allowed(from, false); left--, from += 8)
        carry = __builtin_add_overflow(sum, carry, &sum) | __builtin_add_overflow(sum, value_at(from), &sum);
    fault = !left ? 3 : from >> 47 ? 13 : 14;
    must(enter(&f) == fault, "loop with carry: vector %lu, %lu rounds left", caught.vector, left);
    must(caught.rcx == left && caught.rax == sum && (caught.rflags & 1) == carry, "loop with carry: %lu rounds left, not %lu; %lx, not %lx; flags %lx",
         caught.rcx, left, caught.rax, sum, caught.rflags);
    loops++;
}

/* The same by a base and an index of any size, whose sum is where it is. */
static void loop_indexed_random(void)
{
    static const struct {
        const u8 *code;
        long index_moves, base_moves, scale, disp;
    } all[] = {{do_sum_index, 1, 0, 8, 0}, {do_sum_index_down, -1, 0, 8, 0x70000000}, {do_sum_base, 0, 8, 4, -0x70000000},
               {do_sum_index_rip, 1, 0, 8, 0}, {do_sum_index_static, 1, 0, 8, 0}, {do_sum_four, 1, 0, 8, 0}, {do_sum_stride, 0, 8, 0, 0},
               {do_sum_renamed, 0, 8, 0, 0}};
    int k = (int)(random32() % (sizeof(all) / sizeof(all[0])));
    u64 from = at[random32() % PAGES] + random32() % 512 * 8, left = 1 + random32() % 900, sum = 0;
    u64 index = one_in(2) ? random32() % 1000 : (u64)random32() << 32 | random32();
    struct frame f = frame_at(all[k].code, 3);
    long step = all[k].index_moves * all[k].scale + all[k].base_moves;
    int fault;

    f.rdi = all[k].scale ? index : 8;
    f.rbx = from - index * (u64)all[k].scale - (u64)all[k].disp;
    f.rcx = left;
    f.rax = 0;
    for (; left && allowed(from, false); left--, from += (u64)step)
        sum += value_at(from);
    index += (u64)all[k].index_moves * (f.rcx - left);
    fault = !left ? 3 : from >> 47 ? 13 : 14;
    must(enter(&f) == fault, "indexed loop %d: vector %lu, %lu rounds left", k, caught.vector, left);
    must(caught.rcx == left && caught.rax == sum && caught.rbx == from - index * (u64)all[k].scale - (u64)all[k].disp &&
         (!all[k].scale || caught.rdi == index), "indexed loop %d at %lx: %lu rounds left, not %lu; %lx, not %lx", k, from, caught.rcx, left,
         caught.rax, sum);
    loops++;
}

/* The same by an index that goes on from its largest to its smallest. */
static void loop_small_random(void)
{
    bool two = one_in(2);
    u64 to = at[random32() % PAGES] + random32() % 512 * 8, index = (u64)random32() << 32 | random32(), base = to - (index & 0xffff) * 8;
    u64 left = 1 + random32() % 900, sum = 0, other = 0;
    struct frame f = frame_at(two ? do_sum_small_two : do_sum_small, 3);
    int fault;

    f.rdi = index;
    f.rdx = ~index; /* which the loop does not look at */
    f.rbx = base;
    f.rcx = left;
    f.rax = f.r8 = 0;
    for (; left; left--, index++) {
        to = base + (index & 0xffff) * 8;
        if (!allowed(to, false) || (two && !allowed(to + 8, false)))
            break;
        sum += value_at(two ? to + 8 : to);
        other += value_at(to);
    }
    if (two && left && allowed(to + 8, false))
        sum += value_at(to + 8);
    to = two && left && !allowed(to + 8, false) ? to + 8 : to;
    fault = !left ? 3 : to >> 47 ? 13 : 14;
    must(enter(&f) == fault, "loop by a small index: vector %lu, not %d, %lu rounds left", caught.vector, fault, left);
    must(caught.rcx == left && caught.rax == sum && caught.rdi == index && (!two || caught.r8 == other), "loop by a small index at %lx: %lu rounds left, not %lu; %lx, not %lx", to,
         caught.rcx, left, caught.rax, sum);
    loops++;
}

static void rounds(int count)
{
    for (int n = 0; n < count; n++) {
        if (one_in(6))
            change();
        if (one_in(20))
            load((int)(random32() % SPACES), one_in(2));
        if (one_in(40))
            program_random();
        if (one_in(10))
            loop_random();
        if (one_in(10))
            loop_indexed_random();
        if (one_in(10))
            loop_small_random();
        if (one_in(20))
            loop_carry_random();
        access_random();
    }
}

static void walk(void)
{
    static const u8 *const codes[] = {do_walk, do_walk_up, do_walk_down};

    for (int n = 0; n < PAGES * 3; n++) {
        u64 va = at[n % PAGES] + 8;
        bool good = allowed(va, false);
        struct frame f = frame_at(codes[n / PAGES], 3);
        u64 before = good ? value_at(va) : 0;

        f.rbx = va;
        must(enter(&f) == (good ? 3 : 14), "walk %d to %lx: vector %lu", n / PAGES, va, caught.vector);
        must(!good || caught.rax == before, "walk %d to %lx: %lx, not %lx", n / PAGES, va, caught.rax, before);
    }
}

/* Whose faults are the stack's. */
static bool by_stack(const u8 *code)
{
    static const u8 *const codes[] = {do_push, do_pop, do_call, do_rsp, do_rsp_far, do_rsp_add, do_rsp_index, do_leave, do_leave_flags,
                                      do_xchg_rsp, do_align};

    for (unsigned n = 0; n < sizeof(codes) / sizeof(codes[0]); n++)
        if (codes[n] == code)
            return true;
    return false;
}

/* Addresses that look like mapped ones but for their upper bits, and operands that end beyond the canonical half. */
static void not_canonical(void)
{
    static const u64 wrong[] = {0x800000000000, 0xffff800000000000, 0x1000000000000, 0x8000000000000000, 0xffff000000000000,
                                0x0001800000000000, 0x7fff800000000000};

    load(0, false);
    for (int n = 0; n < PAGES; n++)
        *pte[0][n] = (u64)frame[0] | PTE_P | PTE_W | PTE_U;
    load(0, false);
    for (int n = 0; n < PAGES; n++)
        for (unsigned w = 0; w < sizeof(wrong) / sizeof(wrong[0]); w++)
            for (unsigned k = 0; k < ACCESSES; k++) {
                struct frame f = frame_at(accesses[k].code, 3);
                u64 va = at[n] + wrong[w];
                bool canonical = (u64)((long)(va << 16) >> 16) == va;
                bool stack = by_stack(accesses[k].code);
                int vector;

                f.rbx = va;
                f.rcx = va - FAR;
                vector = enter(&f);
                f.rip = (u64)do_only_prefetch;
                must(enter(&f) == 3, "prefetches at %lx: vector %lu", va, caught.vector);
                if (canonical)
                    must(vector == 14 || (vector == 3 && page_of(va) >= 0), "access %d at %lx: vector %d", k, va, vector);
                else
                    must(vector == (stack ? 12 : 13), "access %d at %lx: vector %d", k, va, vector);
            }
    for (int n = 1; n < 8; n++) {
        struct frame f = frame_at(do_read, 3);

        f.rbx = 0x800000000000 - n;
        must(enter(&f) == 13, "an operand from %lx: vector %lu", f.rbx, caught.vector);
    }
}

/* Operands of 32-bit code that reach behind 4 GiB go on at 0, whatever is mapped there; those of 64-bit code do not. */
static void behind_4g(void)
{
    struct frame f64 = frame_at(do_read_behind, 3), f32 = frame_at(do_read32, 3);

    f32.cs = 0x33;
    for (int n = 0; n < 50; n++) {
        load(0, false);
        f64.rbx = 0xffffffff - (u64)n % 7;
        must( enter(&f64) == 3, "64-bit code reads across 4 GiB: vector %lu", caught.vector);
        f64.rbx = 0x100001000;
        must(enter(&f64) == 3, "64-bit code behind: vector %lu", caught.vector);
        f32.rbx = 0xffffff00;
        must(enter(&f32) == 3, "32-bit code below: vector %lu", caught.vector);
        f32.rbx = 0xfffffffe;
        must(enter(&f32) == 14 && caught_cr2 == 0, "32-bit code wraps around: vector %lu, %lx", caught.vector, caught_cr2);
    }
}

static void constant_addresses(void)
{
    struct frame f = frame_at(do_static, 3), high = frame_at(do_static_high, 3), edge = frame_at(do_static_edge, 3);

    for (int n = 0; n < 50; n++) {
        load(n % SPACES, false);
        must(enter(&f) == 3 && caught.rax == *(u64 *)0x200000 && !caught.rdx, "static data: vector %lu, %lx", caught.vector, caught.rax);
        must(enter(&high) == 14 && caught_cr2 == 0xfffffffffffff000, "the kernel's half: vector %lu, %lx", caught.vector, caught_cr2);
        must(enter(&edge) == 14 && caught_cr2 == 0x7ffffffc, "the edge of 2 GiB: vector %lu, %lx", caught.vector, caught_cr2);
    }
}

void guest_main(void)
{
    bool has_pcid = feature(1, 0, 2, 17);

    random_start();
    wrmsr(0xc0000100, FAR); /* FS.base */
    user_text_allow(true);
    for (int n = 0; n < FRAMES; n++)
        frame[n] = page_alloc();
    for (int s = 0; s < SPACES; s++)
        space_make(s);
    for (int again = 0; again < 2; again++) {
        load(0, false);
        if (again && !has_pcid)
            break;
        pcids = again;
        write_cr4((read_cr4() & ~CR4_PCIDE) | (pcids ? CR4_PCIDE : 0));
        for (int busy = 0; busy < 2; busy++) {
            load(busy, true);
            be_busy();
        }
        rounds(ROUNDS);
        walk();
    }
    print("%d accesses, %d faults, %d loops\n", successes, faults, loops);
    check(successes > ROUNDS / 4 && faults > ROUNDS / 8, "accesses and faults");
    not_canonical();
    behind_4g();
    constant_addresses();
    write_cr3((u64)pml4);
}
