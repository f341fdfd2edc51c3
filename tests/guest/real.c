/* Real mode, entered from protected mode and left again for each test: segments, limits, "unreal" mode, interrupts, far
 * transfers, the stack, strings with 16- and 32-bit addresses, the old arithmetic. SDM vol. 3 ch. 20, vol. 2. */
#include "guest32.h"

#define LOW 0x6000
#define CODE_AT 0x10000 /* segment 0x1000 */
#define DATA_AT 0x30000
#define STACK_AT 0x20000

/* At REAL_REGS, for real32.S. */
struct real_regs {
    u32 eax, ecx, edx, ebx, esp;
    u16 ss, pad;
    u32 esi, edi, eip, eflags;
    u16 es, cs, pad2, ds, fs, gs;
    u32 vector, pad3, ebp;
};
#define R ((volatile struct real_regs *)0x5000)
_Static_assert(offsetof(struct real_regs, ds) == 46 && offsetof(struct real_regs, ebp) == 60, "as in real32.S");

extern u8 real_low[], real_low_end[], real_stubs[];
void real_run(void);

static u8 *const data = (u8 *)DATA_AT;
static u16 *const stack = (u16 *)STACK_AT;

static void real_setup(void)
{
    copy((void *)LOW, real_low, (u32)(real_low_end - real_low));
    for (u32 v = 0; v < 256; v++)
        ((volatile u32 *)0)[v] = LOW + (u32)(real_stubs - real_low) + v * 8;
}

static void prepare(const u8 *code, const u8 *end)
{
    copy((void *)CODE_AT, code, (u32)(end - code));
    fill((void *)R, 0, sizeof(*R));
    R->cs = CODE_AT >> 4;
    R->ss = STACK_AT >> 4;
    R->esp = 0x8000;
    R->ds = R->es = R->gs = DATA_AT >> 4;
    R->eflags = 2;
}

/* Runs it as prepared; true if it ended by vector `vector` at offset `at`. */
static bool ends(u32 vector, u32 at)
{
    real_run();
    if ((u16)R->vector == vector && (u16)R->eip == at)
        return true;
    print("     vector %u at %x:%x flags %x\n", (u16)R->vector, R->cs, R->eip, R->eflags);
    return false;
}

#define RUN(code, vector, at, ...) check(ends(vector, at), #code __VA_ARGS__)
#define SIZE(code) ((u32)(code##_end - code))
#define PREPARE(code) prepare(code, code##_end)
/* Prepares, runs to the INT3 at the end. */
#define WHOLE(code)                                                                                                    \
    do {                                                                                                               \
        PREPARE(code);                                                                                                 \
        RUN(code, 3, SIZE(code));                                                                                      \
    } while (0)

CODE(16, nothing, "int3");
CODE(16, word_at_end, "mov $0xffff, %bx; mov (%bx), %ax; int3");
CODE(16, word_fits, "mov $0xfffe, %bx; mov (%bx), %ax; int3");
CODE(16, beyond_32, "mov $0x10000, %ebx; mov (%ebx), %al; int3");
CODE(16, stack_split, "mov $1, %sp; push %ax; int3");
CODE(16, bp_split, "mov $0xffff, %bp; mov (%bp), %ax; int3");
CODE(16, high_memory, "mov $0xffff, %ax; mov %ax, %ds; mov 0x10, %bx; mov %ax, %es; int3");
CODE(16, unreal,
     "mov $0x200000, %ebx; mov %fs:(%ebx), %eax; mov $0x3000, %cx; mov %cx, %fs; mov %fs:(%ebx), %edx; int3");
CODE(16, interrupts, "int $0x60; inc %bx; int3");
CODE(16, far_call,
     "push %cs; push $1f - far_call; lcall $0x1000, $2f - far_call; 1: int3; 2: pop %ax; pop %dx; inc %bx;"
     "push %dx; push %ax; lret $2");
CODE(16, far_call32,
     "lcalll $0x1000, $1f - far_call32; int3; 1: mov %sp, %bp; mov (%bp), %eax; mov 4(%bp), %edx; lretl");
CODE(16, far_jump_mem, "movw $1f - far_jump_mem, 0; movw $0x1000, 2; ljmp *0; int3; 1: mov $0x5a, %al; int3");
CODE(16, pushas, "pusha; mov %sp, %bp; mov 6(%bp), %ax; push %ax; pop %ax; popa; int3");
CODE(16, pushads, "pushal; mov %esp, %ebx; popal; int3");
CODE(16, push_sp, "push %sp; pop %ax; push %cs; pop %ds; pushl %gs; pop %ecx; int3");
CODE(16, pushfd_popfd, "pushl $0x247ed7; popfl; pushfl; pop %eax; pushl $2; popfl; int3");
CODE(16, iopl_flags, "push $0x7002; popf; pushf; pop %ax; int3");
CODE(16, enters, "mov $0x1111, %bp; enter $0x10, $0; mov %bp, %ax; leave; int3");
CODE(16, enter_nested,
     "mov $0x7f00, %bp; movw $0xaaaa, -2(%bp); movw $0xbbbb, -4(%bp); enter $6, $3; mov %sp, %ax; int3");
CODE(16, bound_in, "movw $5, 0; movw $9, 2; mov $9, %ax; bound %ax, 0; mov $5, %ax; bound %ax, 0; int3");
CODE(16, bound_out, "movw $5, 0; movw $9, 2; mov $10, %ax; bound %ax, 0; int3");
CODE(16, bound_neg, "movw $-5, 0; movw $9, 2; mov $-6, %ax; bound %ax, 0; int3");
CODE(16, into, "mov $0x7f, %al; inc %al; into; int3");
CODE(16, no_into, "xor %al, %al; into; int3");
CODE(16, les_lfs, "movw $0x1234, 0; movw $0x4321, 2; les 0, %bx; lfs 0, %cx; int3");
CODE(16, lss_shadow, "movw $0x6000, 0; movw $0x2000, 2; lss 0, %sp; push %ax; int3");
CODE(16, stos_wrap, "mov $0xfff8, %di; mov $16, %cx; mov $0x77, %al; rep stosb; int3");
CODE(16, stosw_edge, "mov $0xffff, %di; mov $1, %cx; rep stosw; int3");
CODE(16, movs_back, "std; mov $0x20, %si; mov $0x24, %di; mov $0x10, %cx; rep movsb; cld; int3");
CODE(16, movs_seg,
     "mov $0x1000, %ax; mov %ax, %fs; xor %si, %si; mov $0x100, %di; mov $4, %cx; rep movsb %fs:(%si), %es:(%di);"
     "int3");
CODE(16, cmps_count, "mov $0x100, %si; mov $0x200, %di; mov $8, %cx; repe cmpsb; int3");
CODE(16, scas_count, "mov $0x100, %di; mov $0x10005, %ecx; mov $3, %al; repne scasb; int3");
CODE(16, stos_addr32, "mov $0x400, %edi; mov $4, %ecx; mov $0x88, %al; addr32 rep stosb; int3");
CODE(16, loops, "mov $0x10003, %ecx; xor %ax, %ax; 1: inc %ax; loop 1b; xor %bx, %bx; mov $3, %ecx; 2: inc %bx;"
                "addr32 loop 2b; int3");
CODE(16, jcxzs, "mov $0x10000, %ecx; jcxz 1f; int3; 1: jecxz 2f; mov $1, %al; int3; 2: mov $2, %al; int3");
CODE(16, decimal,
     "mov $0x79, %al; add $0x35, %al; daa; mov %al, %bl; mov $0x35, %al; sub $0x47, %al; das; mov %al, %bh;"
     "mov $0x0035, %ax; add $0x39, %al; aaa; mov %ax, %cx; mov $63, %al; aam; mov %ax, %dx; mov $0x0307, %ax;"
     "aad; int3");
CODE(16, aam_zero, "mov $63, %al; aam $0; int3");
CODE(16, xlats, "mov $0x80, %bx; mov $5, %al; movb $0x99, 0x85; xlat; int3");
CODE(16, div_zero, "xor %cx, %cx; mov $5, %ax; div %cx; int3");
CODE(16, undefined, "ud2");
CODE(16, no_sldt, "sldt %ax");
CODE(16, no_lar, "lar %ax, %bx");
CODE(16, no_arpl, "arpl %ax, %bx");
CODE(16, no_ltr, "ltr %ax");
CODE(16, no_lldt, "lldt %ax");
CODE(16, no_verr, "verr %ax");
CODE(16, smsw_clts, "smsw %ax; clts; mov %cr0, %ebx; int3");
CODE(16, hlt_step, "mov $1, %al; mov $2, %al; int3");
CODE(16, single_step, "pushf; pop %ax; or $0x100, %ax; push %ax; popf; nop; nop; int3");
CODE(16, address_wrap, "mov $0xfff0, %bx; mov $0x20, %si; mov (%bx,%si), %al; int3");
CODE(16, sp_zero, "xor %sp, %sp; push %ax; pop %bx; mov %sp, %cx; int3");
CODE(16, ss_limit_call, "mov $1, %sp; call 1f; 1: int3");

CODE(16, a20, "in $0x92, %al; and $0xfd, %al; out %al, $0x92; mov 0x10, %bx; mov %es:0x10, %cx; movw $0x5678, 0x10;"
              "or $2, %al; out %al, $0x92; mov 0x10, %dx; int3");
CODE(16, short_ivt, "lidt 0; int $0x60; int3");
CODE(16, rep_none, "xor %cx, %cx; mov $0xffff, %si; mov $0xffff, %di; rep movsw; rep stosw; repe cmpsw; repne scasw;"
                   "rep lodsw; int3");
CODE(16, lock_good, "lock incw 0; lock; xchg %ax, 2; lock btsw $3, 4; int3");
CODE(16, lock_register, "lock; inc %ax");
CODE(16, lock_move, "lock; mov %ax, 0");
CODE(16, lock_compare, "lock; cmpw $1, 0");
CODE(16, lock_bit_test, "lock; bt %ax, 0");
CODE(16, lea_register, ".byte 0x8d, 0xc0");
CODE(16, les_register, ".byte 0xc4, 0xc0");
CODE(16, mov_cs, ".byte 0x8e, 0xc8");
CODE(16, mov_seg6, ".byte 0x8c, 0xf0");
CODE(16, group_4, ".byte 0xfe, 0xd0");
CODE(16, group_5, ".byte 0xff, 0xf8");
CODE(16, far_call_register, ".byte 0xff, 0xd8");
CODE(16, bound_register, ".byte 0x62, 0xc0");
CODE(16, pop_reserved, ".byte 0x8f, 0x0e, 0, 0");
CODE(16, mov_reserved, ".byte 0xc6, 0x0e, 0, 0, 0");
CODE(16, long_insn, ".byte 0x26,0x26,0x26,0x26,0x26,0x26,0x26,0x26,0x26,0x26,0x26,0x26,0x26,0x26,0x26,0x90");
CODE(16, div_low, "mov $0x8000, %ax; cwd; mov $-1, %bx; idiv %bx; int3");
CODE(16, div_lowest, "mov $0x8000, %ax; cwd; mov $1, %bx; idiv %bx; int3");
CODE(16, div_byte, "mov $-0x8000, %ax; mov $-1, %bl; idiv %bl");
CODE(16, div_byte_low, "mov $-128, %ax; mov $1, %bl; idiv %bl; int3");
CODE(16, div_32, "mov $0x80000000, %eax; cdq; mov $-1, %ebx; idiv %ebx");
CODE(16, xlat_override, "movb $0x77, %es:0x15; mov $0x10, %bx; mov $5, %al; .byte 0x26; xlat; mov $0xffff, %bx;"
                        "mov $2, %al; .byte 0x26; xlat; int3");
CODE(16, pusha_split, "mov $15, %sp; pusha");
CODE(16, pusha_wrap, "mov $8, %sp; pusha; mov %sp, %ax; int3");
CODE(16, popa_split, "mov $0xfff5, %sp; popa");
CODE(16, enter_split, "mov $1, %bp; enter $0, $2");
CODE(16, ret_beyond, "pushl $0x12345; .byte 0x66; ret");
CODE(16, jump_beyond, "mov $0x10000, %eax; jmp *%eax");
CODE(16, far_beyond, "ljmpl $0x1000, $0x10000");
CODE(16, iret_beyond, "pushfl; pushl %cs; pushl $0x10000; iretl");
CODE(16, esp_high, "mov $0x12340002, %esp; pushl %eax; int3");
CODE(16, lods_override, "movw $0x1357, %es:0x20; mov $0x20, %si; lodsw %es:(%si), %ax; int3");

static void a20_gate(void)
{
    volatile u32 *ivt = (volatile u32 *)0, saved = ivt[0];

    PREPARE(a20);
    R->ds = R->es = 0xffff;
    *(volatile u16 *)0x100000 = 0x4321;
    RUN(a20, 3, SIZE(a20), ": the A20 gate closed and opened");
    check((u16)R->ebx == (u16)saved && (u16)R->ecx == (u16)saved, "closed, FFFF:0010 is address 0: %x", (u16)R->ebx);
    check((u16)ivt[0] == 0x5678 && (u16)R->edx == 0x4321, "also for writes; open again it is 1 MiB: %x", (u16)R->edx);
    ivt[0] = saved;
}

static void table_limits(void)
{
    struct {
        u16 limit;
        u32 base;
    } __attribute__((packed)) idt = {0x60 * 4 + 2, 0};

    PREPARE(short_ivt);
    copy(data, &idt, 6);
    RUN(short_ivt, 13, 5, ": INT of a vector beyond IDTR's limit: #GP");
    idt.limit++;
    copy(data, &idt, 6);
    PREPARE(short_ivt);
    RUN(short_ivt, 0x60, 7, ": the limit's last vector");
    idt.base = 0x100000; /* a copy of the table at 1 MiB, where INT 60h leads to INT 61h's stub */
    copy((void *)0x100000, (void *)0, 0x400);
    ((volatile u32 *)0x100000)[0x60] = ((volatile u32 *)0)[0x61];
    copy(data, &idt, 6);
    PREPARE(short_ivt);
    RUN(short_ivt, 0x61, 7, ": the table may lie anywhere");
    idt.base = 0;
    idt.limit = 8 * 4 + 3; /* #GP itself has no vector: #DF, which has */
    copy(data, &idt, 6);
    PREPARE(short_ivt);
    RUN(short_ivt, 8, 5, ": #GP beyond the limit too: #DF");
}

static void at_ends(const char *name, const u8 *code, const u8 *end, u32 vector, u32 at)
{
    prepare(code, end);
    check(ends(vector, at), "%s: vector %u", name, vector);
}
#define AT(code, vector, at) at_ends(#code, code, code##_end, vector, at)

static void limits(void)
{
    AT(pusha_split, 12, 3);
    check((u16)R->esp == 15, "SP as before: %x", (u16)R->esp);
    AT(popa_split, 12, 3);
    AT(enter_split, 12, 3);
    check((u16)R->esp == 0x8000 && (u16)R->ebp == 1, "SP and BP as before: %x %x", (u16)R->esp, (u16)R->ebp);
    AT(ret_beyond, 13, 6);
    check((u16)R->esp == 0x8000 - 4, "RET that faults pops nothing: %x", (u16)R->esp);
    AT(jump_beyond, 13, 6);
    AT(far_beyond, 13, 0);
    AT(iret_beyond, 13, 10);
    AT(long_insn, 13, 0);
    WHOLE(pusha_wrap);
    check((u16)R->eax == 0xfff8, "PUSHA wraps between two words: %x", (u16)R->eax);
    PREPARE(esp_high);
    RUN(esp_high, 12, 6, ": a doubleword across SP 0");
    check(R->esp == 0x12340002, "ESP as before: %x", R->esp);
}

static void undefined_forms(void)
{
    AT(lock_register, 6, 0);
    AT(lock_move, 6, 0);
    AT(lock_compare, 6, 0);
    AT(lock_bit_test, 6, 0);
    AT(lea_register, 6, 0);
    AT(les_register, 6, 0);
    AT(mov_cs, 6, 0);
    AT(mov_seg6, 6, 0);
    AT(group_4, 6, 0);
    AT(group_5, 6, 0);
    AT(far_call_register, 6, 0);
    AT(bound_register, 6, 0);
    AT(pop_reserved, 6, 0);
    AT(mov_reserved, 6, 0);
    PREPARE(lock_good);
    data[0] = 0x0f;
    data[1] = data[3] = data[4] = data[5] = 0;
    data[2] = 0x42;
    RUN(lock_good, 3, SIZE(lock_good), ": LOCK where it may be");
    check(data[0] == 0x10 && (u8)R->eax == 0x42 && data[4] == 8, "done");
}

static void divisions(void)
{
    AT(div_low, 0, 7);
    AT(div_byte, 0, 5);
    AT(div_32, 0, 14);
    WHOLE(div_lowest);
    check((u16)R->eax == 0x8000, "the lowest quotient is one: %x", (u16)R->eax);
    WHOLE(div_byte_low);
    check((u16)R->eax == 0x0080, "of bytes too: %x", (u16)R->eax);
}

static void more_strings(void)
{
    PREPARE(rep_none);
    RUN(rep_none, 3, SIZE(rep_none), ": count 0 touches nothing, not even at the segment's end");
    check((u16)R->esi == 0xffff && (u16)R->edi == 0xffff, "and moves nothing");
    WHOLE(lods_override);
    check((u16)R->eax == 0x1357, "LODS with an override: %x", (u16)R->eax);
    data[1] = 0x66;
    WHOLE(xlat_override);
    check((u8)R->eax == 0x66, "XLAT wraps at 64 KiB: %x", (u8)R->eax);
}

static void basics(void)
{
    WHOLE(nothing);
    check(R->cs == 0x1000 && R->ss == 0x2000 && R->esp == 0x8000, "CS:IP and SS:SP at the interrupt");
    PREPARE(word_at_end);
    RUN(word_at_end, 13, 3);
    WHOLE(word_fits);
    PREPARE(beyond_32);
    RUN(beyond_32, 13, 6);
    PREPARE(bp_split);
    RUN(bp_split, 12, 3);
    *(volatile u16 *)0x100000 = 0x1234;
    WHOLE(high_memory);
    check((u16)R->ebx == 0x1234, "FFFF:0010 is 1 MiB: %x", (u16)R->ebx);
    data[0x10] = 0x42;
    WHOLE(address_wrap);
    check((u8)R->eax == 0x42, "16-bit addresses wrap");
    PREPARE(single_step);
    RUN(single_step, 1, 8, ": a trap after the instruction that follows POPF");
}

static void unreal_mode(void)
{
    static volatile u32 *const far = (volatile u32 *)0x200000;
    u32 there = *far;

    PREPARE(unreal);
    R->fs = 0;
    RUN(unreal, 3, SIZE(unreal), ": limits survive from protected mode, and loads in real mode");
    check(R->eax == there && R->edx == *(volatile u32 *)0x230000, "data beyond 64 KiB: %x", R->eax);
}

static void transfers(void)
{
    volatile u32 *ivt = (volatile u32 *)0;
    u32 saved = ivt[0x60];

    copy((void *)0x10800, (u8[]){0x9c, 0x58, 0xcf}, 3); /* pushf; pop %ax; iret */
    ivt[0x60] = 0x10000800;
    PREPARE(interrupts);
    R->eflags = 0x242;
    RUN(interrupts, 3, SIZE(interrupts), ": INT n and IRET");
    check((u16)R->ebx == 1 && !(R->eax & 0x200) && R->eflags & 0x200, "IF clear in the handler, restored by IRET");
    ivt[0x60] = saved;
    PREPARE(far_call);
    RUN(far_call, 3, 10);
    PREPARE(far_call32);
    RUN(far_call32, 3, 9);
    check(R->eax == 8 && (u16)R->edx == 0x1000, "a 32-bit far call pushes doublewords");
    PREPARE(far_jump_mem);
    RUN(far_jump_mem, 3, SIZE(far_jump_mem));
    check((u8)R->eax == 0x5a, "far jump through memory");
    PREPARE(nothing);
    copy((void *)(CODE_AT + 0xfff0), (u8[]){0xeb, 0x20}, 2);
    fill((void *)(CODE_AT + 0x12), 0xcc, 1);
    R->eip = 0xfff0;
    check(ends(3, 0x13), "a near jump wraps at 64 KiB");
}

static void stacks(void)
{
    PREPARE(pushas);
    R->esp = 0x55558000;
    R->ebp = 0x99;
    RUN(pushas, 3, SIZE(pushas));
    check(stack[(0x8000 - 2 * 5) / 2] == 0x8000 && (u16)R->ebp == 0x99 && R->esp == 0x55558000,
          "PUSHA stores the old SP, the stack's upper half is left alone: %x", R->esp);
    WHOLE(pushads);
    check(*(u32 *)((u8 *)stack + 0x8000 - 20) == 0x8000, "PUSHAD stores the old ESP");
    WHOLE(push_sp);
    check((u16)R->eax == 0x8000 && R->ds == 0x1000, "PUSH SP stores the old SP");
    WHOLE(pushfd_popfd);
    check((R->eax & 0x47ed7) == 0x47ed7, "POPFD sets AC, NT, IOPL and the rest: %x", R->eax);
    WHOLE(iopl_flags);
    check((u16)R->eax == 0x7002, "IOPL and NT can be set in real mode: %x", (u16)R->eax);
    WHOLE(enters);
    check((u16)R->eax == 0x7ffe && (u16)R->ebp == 0x1111 && R->esp == 0x8000, "ENTER and LEAVE");
    WHOLE(enter_nested);
    check((u16)R->eax == 0x8000 - 8 - 6 && stack[0x7ffc / 2] == 0xaaaa && stack[0x7ffa / 2] == 0xbbbb &&
              stack[0x7ff8 / 2] == 0x7ffe, "ENTER of level 3 copies two frame pointers");
    WHOLE(sp_zero);
    check((u16)R->ecx == 0, "SP wraps from 0 to FFFE and back");
    WHOLE(lss_shadow);
}

static void bounds(void)
{
    WHOLE(bound_in);
    PREPARE(bound_out);
    RUN(bound_out, 5, 15, ": the fault points at BOUND");
    PREPARE(bound_neg);
    RUN(bound_neg, 5, 15);
    PREPARE(into);
    RUN(into, 4, 5, ": the trap points behind INTO");
    WHOLE(no_into);
    WHOLE(les_lfs);
    check(R->es == 0x4321 && (u16)R->ebx == 0x1234 && R->fs == 0x4321 && (u16)R->ecx == 0x1234, "LES and LFS");
}

static void strings(void)
{
    fill(data, 0, 0x10000);
    WHOLE(stos_wrap);
    check(data[0xfff7] == 0 && data[0xfff8] == 0x77 && data[0xffff] == 0x77 && data[0] == 0x77 && data[7] == 0x77 &&
              data[8] == 0 && (u16)R->edi == 8 && ((u8 *)data)[0x10000] != 0x77, "REP STOSB wraps at 64 KiB");
    PREPARE(stosw_edge);
    RUN(stosw_edge, 13, 6);
    check((u16)R->ecx == 1 && (u16)R->edi == 0xffff, "a string fault leaves the registers at the element");
    for (int n = 0; n < 0x40; n++)
        data[n] = (u8)n;
    WHOLE(movs_back);
    check(data[0x24] == 0x20 && data[0x15] == 0x11 && (u16)R->esi == 0x10 && (u16)R->edi == 0x14,
          "REP MOVSB downwards");
    WHOLE(movs_seg);
    check(same(data + 0x100, movs_seg, 4), "MOVSB with a segment override");
    copy(data + 0x100, "abcdefgh", 8);
    copy(data + 0x200, "abcdXfgh", 8);
    WHOLE(cmps_count);
    check((u16)R->ecx == 3 && (u16)R->esi == 0x105 && !(R->eflags & 0x40), "REPE CMPSB stops behind the difference");
    copy(data + 0x100, "\1\2\3\4", 4);
    WHOLE(scas_count);
    check(R->ecx == 0x10002 && (u16)R->edi == 0x103 && R->eflags & 0x40, "REPNE SCASB counts in CX alone: %x", R->ecx);
    WHOLE(stos_addr32);
    check(data[0x3ff] == 0 && data[0x400] == 0x88 && data[0x403] == 0x88 && data[0x404] == 0 && R->ecx == 0,
          "string instructions with 32-bit addresses");
    WHOLE(loops);
    check((u16)R->eax == 3 && R->ecx == 0 && (u16)R->ebx == 3, "LOOP counts CX, or ECX with 32-bit addresses: %x",
          R->ecx);
    PREPARE(jcxzs);
    RUN(jcxzs, 3, 15);
    check((u8)R->eax == 1, "JCXZ looks at CX, JECXZ at ECX");
}

static void arithmetic(void)
{
    WHOLE(decimal);
    check((u8)R->ebx == 0x14 && (u8)(R->ebx >> 8) == 0x88, "DAA, DAS: %x", (u16)R->ebx);
    check((u16)R->ecx == 0x0104 && (u16)R->edx == 0x0603 && (u16)R->eax == 37, "AAA %x AAM %x AAD %x", (u16)R->ecx,
          (u16)R->edx, (u16)R->eax);
    PREPARE(aam_zero);
    RUN(aam_zero, 0, 2);
    WHOLE(xlats);
    check((u8)R->eax == 0x99, "XLAT");
    PREPARE(div_zero);
    RUN(div_zero, 0, 5);
}

static void protected_only(void)
{
    PREPARE(undefined);
    RUN(undefined, 6, 0);
    PREPARE(no_sldt);
    RUN(no_sldt, 6, 0);
    PREPARE(no_lar);
    RUN(no_lar, 6, 0);
    PREPARE(no_arpl);
    RUN(no_arpl, 6, 0);
    PREPARE(no_ltr);
    RUN(no_ltr, 6, 0);
    PREPARE(no_lldt);
    RUN(no_lldt, 6, 0);
    PREPARE(no_verr);
    RUN(no_verr, 6, 0);
    WHOLE(smsw_clts);
    check(!(R->eax & 1) && !(R->ebx & 8), "PE is clear");
}

static void round_trips(void)
{
    PREPARE(nothing);
    for (int n = 0; n < 100; n++) {
        R->eip = 0;
        real_run();
    }
    check(R->vector == 3 && (u16)R->eip == 1, "a hundred more round trips");
}

void guest_main(void)
{
    real_setup();
    basics();
    unreal_mode();
    transfers();
    stacks();
    bounds();
    strings();
    arithmetic();
    protected_only();
    a20_gate();
    table_limits();
    limits();
    undefined_forms();
    divisions();
    more_strings();
    round_trips();
}
