/* What kernels do all the time, so often that a translator makes code of its own of it: second bytes of registers, bits
 * anywhere in memory, PUSH of memory and of flags, SWAPGS, FSGSBASE, STAC and CLAC, RDPKRU, CLI and STI. Each runs ROUNDS times with other
 * values, and against the same done in another way. SDM vol. 2; vol. 3 §6.8. */
#include "guest.h"

#define ROUNDS 300u
#define ARITH 0x8d5ul
#define FLAG_IF 0x200ul
#define FLAG_AC 0x40000ul
#define FLAG_DF 0x400ul
#define CR4_PKE 0x400000ul
#define CR4_FSGSBASE 0x10000ul
#define CR4_SMAP 0x200000ul
#define MSR_GS_BASE 0xc0000101u
#define MSR_KERNEL_GS_BASE 0xc0000102u
#define EOI 0xb0
#define ICR 0x300
#define ICR_SELF 0x40000u
#define VECTOR 0x61
#define USER_VA 0x40000000000ul
enum { EBX = 1, ECX = 2 };

static u64 state = 20261121;

static u64 next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* A line only for what does not hold. */
static void same(const char *name, u64 got, u64 want)
{
    if (got != want)
        check(false, "%s: %lx (expected %lx)", name, got, want);
}

/* ---- second bytes ---- */

struct regs {
    u64 ax, bx, flags;
};

static u64 with_second(u64 reg, u64 byte) { return (reg & ~0xff00ul) | (byte & 0xff) << 8; }
static u64 with_first(u64 reg, u64 byte) { return (reg & ~0xfful) | (byte & 0xff); }

/* `insn` on registers a and b, with CF as given; and its results. */
#define RUN(insn, a, b, r)                                                                                                           \
    asm volatile("test %[cf], %[cf]\nbt $0, %[cf]\n" insn "\npushfq\npop %[f]"                                                                        \
                 : "=a"((r).ax), "=b"((r).bx), [f] "=r"((r).flags)                                                               \
                 : "0"(a), "1"(b), [cf] "r"(carry)                                                                               \
                 : "cc", "memory")

/* An instruction with second bytes, and the same with the bytes brought to the first and back. */
#define SECOND(insn, form)                                                                                                           \
    static void second_##insn(void)                                                                                                \
    {                                                                                                                              \
        for (u32 n = 0; n < ROUNDS; n++) {                                                                                         \
            u64 a = next(), b = next(), carry = n & 1;                                                                             \
            struct regs got, want;                                                                                                 \
                                                                                                                                   \
            RUN(form("%%ah", "%%bh"), a, b, got);                                                                                  \
            RUN(form("%%al", "%%bl"), a >> 8, b >> 8, want);                                                                       \
            same(#insn " BH, AH", got.ax, with_second(a, want.ax));                                                                \
            same(#insn " BH, AH: target", got.bx, with_second(b, want.bx));                                                        \
            same(#insn " BH, AH: flags", got.flags & ARITH, want.flags & ARITH);                                                   \
            RUN(form("%%al", "%%bh"), a, b, got);                                                                                  \
            RUN(form("%%al", "%%bl"), a, b >> 8, want);                                                                            \
            same(#insn " BH, AL", got.ax, with_first(a, want.ax));                                                                 \
            same(#insn " BH, AL: target", got.bx, with_second(b, want.bx));                                                        \
            same(#insn " BH, AL: flags", got.flags & ARITH, want.flags & ARITH);                                                   \
            RUN(form("%%ah", "%%bl"), a, b, got);                                                                                  \
            RUN(form("%%al", "%%bl"), a >> 8, b, want);                                                                            \
            same(#insn " BL, AH", got.ax, with_second(a, want.ax));                                                                \
            same(#insn " BL, AH: target", got.bx, with_first(b, want.bx));                                                         \
            same(#insn " BL, AH: flags", got.flags & ARITH, want.flags & ARITH);                                                   \
            RUN(form("%%al", "%%ah"), a, b, got); /* of one register */                                                            \
            RUN(form("%%al", "%%bl"), a, a >> 8, want);                                                                            \
            same(#insn " AH, AL", got.ax, with_second(with_first(a, want.ax), want.bx));                                           \
            same(#insn " AH, AL: flags", got.flags & ARITH, want.flags & ARITH);                                                   \
        }                                                                                                                          \
    }

#define ADD_(from, to) "addb " from ", " to
#define ADC_(from, to) "adcb " from ", " to
#define SBB_(from, to) "sbbb " from ", " to
#define XOR_(from, to) "xorb " from ", " to
#define CMP_(from, to) "cmpb " from ", " to
#define TEST_(from, to) "testb " from ", " to
#define MOV_(from, to) "movb " from ", " to
#define XCHG_(from, to) "xchgb " from ", " to
#define XADD_(from, to) "xaddb " from ", " to
SECOND(ADD, ADD_)
SECOND(ADC, ADC_)
SECOND(SBB, SBB_)
SECOND(XOR, XOR_)
SECOND(CMP, CMP_)
SECOND(TEST, TEST_)
SECOND(MOV, MOV_)
SECOND(XCHG, XCHG_)
SECOND(XADD, XADD_)

static void second_others(void)
{
    for (u32 n = 0; n < ROUNDS; n++) {
        u64 a = next(), b = next(), carry = n & 1, wide, other;
        struct regs got;

        RUN("movzbl %%ah, %%ebx", a, b, got);
        same("MOVZX EBX, AH", got.bx, a >> 8 & 0xff);
        RUN("movsbl %%ah, %%eax", a, b, got);
        same("MOVSX EAX, AH", got.ax, (u32)(int8_t)(a >> 8));
        RUN("testb $0x40, %%bh\n setnz %%ah", a, b, got);
        same("TEST BH, 40; SETNZ AH", got.ax, with_second(a, b >> 14 & 1));
        RUN("andb $0xfd, %%ah\n incb %%bh", a, b, got);
        same("AND AH, FD", got.ax, with_second(a, a >> 8 & 0xfd));
        same("INC BH", got.bx, with_second(b, (b >> 8) + 1));
        same("INC BH: CF of AND", got.flags & 1, 0);
        RUN("movb $0x5a, %%ah\n shrb $3, %%bh", a, b, got);
        same("MOV AH, 5A", got.ax, with_second(a, 0x5a));
        same("SHR BH, 3", got.bx, with_second(b, (b >> 8 & 0xff) >> 3));
        asm volatile("movq %2, %0\n movb %%ah, %0\n addb %0, %%bh\n movq %0, %1" /* TEST's flags again, behind a store */
                     : "+m"(wide), "=r"(other), "+r"(carry), "+a"(a), "+b"(b) : : "cc");
        same("MOV [], AH; ADD BH, []", wide & 0xff, a >> 8 & 0xff);
        asm volatile("cmpb $0x10, %%ah\n movq %2, %0\n setb %b1" : "=m"(wide), "=&q"(carry) : "r"(b), "a"(a) : "cc");
        same("CMP AH, 10; MOV; SETB", carry & 1, (a >> 8 & 0xff) < 0x10);
    }
}

/* ---- bits in memory ---- */

static u64 bits[64];

static void bits_anywhere(void)
{
    for (u32 n = 0; n < ROUNDS; n++) {
        long bit = (long)(next() % 4096) - 2048;
        u64 *word = bits + 32 + (bit >> 6), mask = 1ul << (bit & 63);
        u8 before = !!(*word & mask), cf = 0;
        u64 zf = next(), after;

        asm volatile("test %[z], %[z]\n btsq %[n], %[m]\n setc %[c]\n setz %b[z]"
                     : [c] "=&q"(cf), [z] "+&q"(zf), [m] "+m"(bits[32]) : [n] "r"(bit) : "cc", "memory");
        same("BTS: CF", cf, before);
        same("BTS: ZF", zf & 0xff, 0);
        same("BTS", !!(*word & mask), 1);
        asm volatile("btl %[n], %[m]\n setc %[c]" : [c] "=q"(cf) : [n] "r"((int)bit), [m] "m"(bits[32]) : "cc", "memory");
        same("BT, 32 bits", cf, 1);
        asm volatile("movq %[n], %%r13\n lock btcq %%r13, %[m]\n setc %[c]"
                     : [c] "=q"(cf), [m] "+m"(bits[32]) : [n] "r"(bit) : "cc", "memory", "r13");
        same("LOCK BTC: CF", cf, 1);
        same("LOCK BTC", !!(*word & mask), 0);
        asm volatile("btrl %[n], %[m]\n setc %[c]" : [c] "=q"(cf), [m] "+m"(bits[32]) : [n] "r"((int)bit) : "cc", "memory");
        same("BTR, 32 bits", cf, 0);
        after = *word;
        *word = after ^ mask;
    }
}

/* ---- strings ---- */

static u8 *text; /* three pages */
static void *user_page;

/* REP MOVS and REP STOS of `size` bytes an element, n of them; RCX, RSI and RDI afterwards, and what they left. */
#define STRING(insn, size, type)                                                                                                     \
    static void string_##insn(void)                                                                                                \
    {                                                                                                                              \
        for (u32 n = 0; n < ROUNDS; n++) {                                                                                         \
            u64 count = next() % (n % 8 ? 20 : 6000 / size), from = next() % 4096, to = next() % 4096, value = next();              \
            u64 rcx = count, rsi = (u64)text + from, rdi = (u64)text + to, carry = n & 1, cf;                                      \
            static u8 want[0x3000];                                                                                                \
                                                                                                                                   \
            for (u32 m = 0; m < 0x3000; m += 8)                                                                                    \
                *(u64 *)(want + m) = *(u64 *)(text + m);                                                                           \
            for (u32 m = 0; m < count; m++)                                                                                        \
                *(type *)(want + to + m * size) = #insn[0] == 'm' ? *(type *)(want + from + m * size) : (type)value;               \
            asm volatile("bt $0, %[carry]\n rep " #insn "\n setc %b[cf]"                                                           \
                         : "+c"(rcx), "+S"(rsi), "+D"(rdi), [cf] "=&r"(cf) : "a"(value), [carry] "r"(carry) : "cc", "memory");     \
            same("REP " #insn ": RCX", rcx, 0);                                                                                    \
            same("REP " #insn ": RDI", rdi, (u64)text + to + count * size);                                                        \
            same("REP " #insn ": RSI", rsi, (u64)text + from + (#insn[0] == 'm' ? count * size : 0));                              \
            same("REP " #insn ": CF", cf & 1, carry);                                                                              \
            for (u32 m = 0; m < 0x3000; m += 8)                                                                                    \
                same("REP " #insn, *(u64 *)(text + m), *(u64 *)(want + m));                                                        \
        }                                                                                                                          \
    }
STRING(movsb, 1, u8)
STRING(movsw, 2, u16)
STRING(movsl, 4, u32)
STRING(movsq, 8, u64)
STRING(stosb, 1, u8)
STRING(stosw, 2, u16)
STRING(stosl, 4, u32)
STRING(stosq, 8, u64)

/* Downwards, and into a page that is not there: what was done stays done. */
static void string_rest(void *arg)
{
    u64 *regs = arg;

    asm volatile("rep stosb" : "+c"(regs[0]), "+D"(regs[1]) : "a"(7) : "memory");
}

static void strings(void)
{
    static void (*const all[])(void) = {string_movsb, string_movsw, string_movsl, string_movsq,
                                        string_stosb, string_stosw, string_stosl, string_stosq};

    user_page = page_alloc();
    text = page_alloc();
    page_alloc();
    page_alloc(); /* they follow each other */
    for (u32 n = 0; n < 0x3000; n++)
        text[n] = (u8)next();
    for (u32 n = 0; n < sizeof(all) / sizeof(*all); n++)
        all[n]();
    for (u32 n = 0; n < ROUNDS; n++) {
        u64 regs[2] = {20, (u64)text + 100};

        asm volatile("std\n rep stosb\n cld" : "+c"(regs[0]), "+D"(regs[1]) : "a"(5) : "memory");
        same("REP STOSB downwards", regs[1], (u64)text + 80);
        *pte_of(USER_VA) = (u64)user_page | PTE_P | PTE_W;
        *pte_of(USER_VA + 4096) = 0;
        regs[0] = 20;
        regs[1] = USER_VA + 4096 - n % 30;
        same("REP STOSB into nothing", (u64)catch_fault(string_rest, regs), n % 30 < 20 ? 14 : (u64)-1);
        if (n % 30 < 20) {
            same("REP STOSB into nothing: RDI", caught.rdi, USER_VA + 4096);
            same("REP STOSB into nothing: RCX", caught.rcx, 20 - n % 30);
        }
    }
}

/* ---- stack ---- */

static void pushes(void)
{
    for (u32 n = 0; n < ROUNDS; n++) {
        u64 in = next(), out, rsp, a = next(), pushed, flags;

        asm volatile("pushq %[in]\n pop %[out]" : [out] "=r"(out) : [in] "m"(in));
        same("PUSH []", out, in);
        asm volatile("push %[in]\n pushq (%%rsp)\n pop %[out]\n mov %%rsp, %[sp]\n pop %[in]\n sub %%rsp, %[sp]"
                     : [out] "=&r"(out), [sp] "=&r"(rsp), [in] "+r"(in));
        same("PUSH [RSP]", out, in);
        same("PUSH [RSP]: RSP", rsp, (u64)-8);
        asm volatile("addb %b[a], %b[a]\n pushfq\n pop %[p]\n lahf\n seto %%al\n" : [p] "=&r"(pushed), "=&a"(flags) : [a] "r"(a) : "cc");
        same("PUSHF: arithmetic flags", pushed & ARITH, (flags >> 8 & 0xd5) | (flags & 1) << 11);
        same("PUSHF: the others", pushed & ~ARITH, 2);
    }
}

/* ---- GS and FS ---- */

static u64 swapped(void)
{
    u64 in_gs, in_gs_again;

    asm volatile("swapgs\n mov %%gs:0, %0\n swapgs\n mov %%gs:0, %1" : "=&r"(in_gs), "=&r"(in_gs_again));
    return in_gs << 32 | in_gs_again;
}

static void bases(void)
{
    static u64 one = 1, two = 2;

    wrmsr(MSR_GS_BASE, (u64)&one);
    wrmsr(MSR_KERNEL_GS_BASE, (u64)&two);
    for (u32 n = 0; n < ROUNDS; n++) {
        same("SWAPGS twice", swapped(), 2ul << 32 | 1);
        asm volatile("swapgs");
        same("SWAPGS: IA32_GS_BASE", rdmsr(MSR_GS_BASE), (u64)&two);
        same("SWAPGS: IA32_KERNEL_GS_BASE", rdmsr(MSR_KERNEL_GS_BASE), (u64)&one);
        asm volatile("swapgs");
    }
}

static void do_wrgsbase(void *arg) { asm volatile("wrgsbase %0" : : "r"(arg)); }
static void do_rdfsbase(void *arg) { u64 v; asm volatile("rdfsbase %0" : "=r"(v)); }

static void fsgsbase(void)
{
    if (!feature(7, 0, EBX, 0))
        return;
    for (u32 n = 0; n < ROUNDS; n++) {
        u64 base = n & 1 ? next() >> 17 : ~(next() >> 17), got, low;

        write_cr4(read_cr4() | CR4_FSGSBASE);
        asm volatile("wrfsbase %2\n rdfsbase %0\n mov %0, %%r14\n wrgsbase %%r14\n rdgsbase %%r15d\n mov %%r15, %1"
                     : "=&r"(got), "=&r"(low) : "r"(base) : "r14", "r15");
        same("RDFSBASE", got, base);
        same("RDGSBASE of 32 bits", low, (u32)base);
        same("WRGSBASE: IA32_GS_BASE", rdmsr(MSR_GS_BASE), base);
        same("WRGSBASE of no address", (u64)catch_fault(do_wrgsbase, (void *)((base & ~(3ul << 47)) | 1ul << 47)), 13);
        same("WRGSBASE of no address changes nothing", rdmsr(MSR_GS_BASE), base);
        write_cr4(read_cr4() & ~CR4_FSGSBASE);
        same("RDFSBASE without CR4.FSGSBASE", (u64)catch_fault(do_rdfsbase, 0), 6);
    }
}

/* ---- SMAP ---- */

static void user_read(void *arg) { (void)*(volatile u8 *)USER_VA; }
static void user_read_stac(void *arg) { asm volatile("stac\n movb %0, %%al\n clac" : : "m"(*(u8 *)USER_VA) : "al"); }
static void user_read_clac(void *arg) { asm volatile("stac\n clac\n movb %0, %%al" : : "m"(*(u8 *)USER_VA) : "al"); }

/* In a page of its own, so that it is reached otherwise than what is near. */
CODE(64, read_far, ".balign 4096\n movb (%rdi), %al\n ret\n .balign 4096");

static void far_stac(void *arg)
{
    asm volatile("stac\n outb %%al, $0x80\n call read_far\n clac" : : "D"(USER_VA) : "rax", "memory");
}
static void far_clac(void *arg)
{
    asm volatile("stac\n outb %%al, $0x80\n clac\n call read_far" : : "D"(USER_VA) : "rax", "memory");
}
static void far_stac_again(void *arg)
{
    asm volatile("outb %%al, $0x80\n stac\n call read_far\n clac" : : "D"(USER_VA) : "rax", "memory");
}

static u64 flags_now(void)
{
    u64 flags;

    asm volatile("pushfq\n pop %0" : "=r"(flags));
    return flags;
}

static void smap(void)
{
    if (!feature(7, 0, EBX, 20))
        return;
    *pte_of(USER_VA) = (u64)page_alloc() | PTE_P | PTE_W | PTE_U;
    for (u32 n = 0; n < ROUNDS; n++) {
        bool on = n % 3;

        write_cr4(on ? read_cr4() | CR4_SMAP : read_cr4() & ~CR4_SMAP);
        same("a user's page", (u64)catch_fault(user_read, 0), on ? 14 : (u64)-1);
        same("a user's page after STAC", (u64)catch_fault(user_read_stac, 0), (u64)-1);
        same("a user's page after CLAC", (u64)catch_fault(user_read_clac, 0), on ? 14 : (u64)-1);
        same("elsewhere after STAC", (u64)catch_fault(far_stac, 0), (u64)-1);
        same("elsewhere after STAC, again", (u64)catch_fault(far_stac_again, 0), (u64)-1);
        same("elsewhere after CLAC", (u64)catch_fault(far_clac, 0), on ? 14 : (u64)-1);
        asm volatile("stac");
        same("STAC", flags_now() & FLAG_AC, FLAG_AC);
        asm volatile("stac\n clac");
        same("CLAC", flags_now() & FLAG_AC, 0);
    }
    write_cr4(read_cr4() & ~CR4_SMAP);
}

/* ---- protection keys, direction ---- */

static void do_rdpkru(void *arg) { asm volatile("rdpkru" : : "c"(arg) : "rax", "rdx"); }

static void pkru(void)
{
    if (!feature(7, 0, ECX, 3))
        return;
    for (u32 n = 0; n < ROUNDS; n++) {
        u64 value = (u32)next(), a = next(), d = next(), zf;

        write_cr4(read_cr4() | CR4_PKE);
        asm volatile("wrpkru" : : "a"(value), "c"(0), "d"(0));
        asm volatile("cmp %[v], %[v]\n rdpkru\n setz %b[z]" : "=a"(a), "=d"(d), [z] "=r"(zf) : "c"(0), [v] "r"(value), "0"(a), "1"(d) : "cc");
        same("RDPKRU", a, value);
        same("RDPKRU: RDX", d, 0);
        same("RDPKRU: ZF", zf & 1, 1);
        same("RDPKRU with ECX 1", (u64)catch_fault(do_rdpkru, (void *)1), 13);
        asm volatile("wrpkru" : : "a"(0), "c"(0), "d"(0));
        write_cr4(read_cr4() & ~CR4_PKE);
        same("RDPKRU without CR4.PKE", (u64)catch_fault(do_rdpkru, 0), 6);
    }
}

static void direction(void)
{
    for (u32 n = 0; n < ROUNDS; n++) {
        u64 down, up, zf;

        asm volatile("cmp %%rsp, %%rsp\n std\n pushfq\n cld\n setz %b2\n pop %0\n pushfq\n pop %1" : "=r"(down), "=r"(up), "=r"(zf) : : "cc", "memory");
        same("STD", down & FLAG_DF, FLAG_DF);
        same("CLD", up & FLAG_DF, 0);
        same("CLD: ZF", zf & 1, 1);
    }
}

/* ---- interrupts ---- */

static volatile u32 count;
static volatile u64 where;

static void on_vector(struct frame *f)
{
    count++;
    where = f->rip;
    lapic_write(EOI, 0);
}

static void interrupt_myself(void) { lapic_write(ICR, ICR_SELF | VECTOR); }

extern u8 window_end[];
static __attribute__((noinline)) u64 window(void)
{
    u64 flags;

    asm volatile("sti\n nop\n window_end: pushfq\n cli\n pop %0" : "=r"(flags) : : "memory");
    return flags;
}

/* An interrupt that waits comes in the shortest of windows, behind the instruction behind STI; CLI shuts it again. */
static void windows(void)
{
    on_interrupt(VECTOR, on_vector);
    for (u32 n = 0; n < ROUNDS; n++) {
        u64 flags;

        count = 0;
        same("IF in the window", window() & FLAG_IF, FLAG_IF);
        same("IF behind it", flags_now() & FLAG_IF, 0);
        same("interrupts from nowhere", count, 0);
        interrupt_myself();
        for (u32 m = 0; m < n % 4; m++)
            asm volatile("cli\n nop" : : : "memory");
        same("interrupts behind CLI", count, 0);
        window();
        same("interrupts in the window", count, 1);
        same("where", where, (u64)window_end);
        interrupt_myself();
        asm volatile("sti\n nop\n sti\n cli" : : : "memory");
        same("STI, NOP, STI, CLI: interrupts", count, 2);
        interrupt_myself();
        asm volatile("pushfq\n orq $0x200, (%%rsp)\n popfq\n pushfq\n cli\n pop %0" : "=r"(flags) : : "memory");
        same("POPF that sets IF: interrupts", count, 3);
        same("POPF that sets IF: flags", flags & FLAG_IF, FLAG_IF);
    }
}

void guest_main(void)
{
    static void (*const seconds[])(void) = {second_ADD, second_ADC, second_SBB, second_XOR, second_CMP, second_TEST,
                                            second_MOV, second_XCHG, second_XADD, second_others};

    for (u32 n = 0; n < sizeof(seconds) / sizeof(*seconds); n++)
        seconds[n]();
    strings();
    bits_anywhere();
    pushes();
    bases();
    fsgsbase();
    smap();
    pkru();
    direction();
    pic_disable();
    lapic_write(0xf0, 0x1ff);
    windows();
    check(true, "%u rounds", ROUNDS);
}
