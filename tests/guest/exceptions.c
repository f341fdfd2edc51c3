/* Exceptions in long mode: vectors, error codes, the pushed RIP, ring changes, IST, double fault. SDM vol. 3 ch. 6. */
#include "guest.h"

static void do_ud(void *arg) { asm volatile("ud2"); }
static void do_int3(void *arg) { asm volatile("int3"); }
static void do_icebp(void *arg) { asm volatile(".byte 0xf1"); }
static void do_div(void *arg) { asm volatile("div %%ecx" : : "a"(1), "d"(0), "c"(0)); }
static void do_div_overflow(void *arg) { asm volatile("div %%ecx" : : "a"(0), "d"(5), "c"(5)); }
static void do_idiv_min(void *arg) { asm volatile("cdq; idiv %%ecx" : : "a"(0x80000000), "c"(-1) : "edx"); }
static void do_gp_noncanonical(void *arg) { (void)*(volatile u8 *)0x800000000000ul; }
static void do_ss_noncanonical(void *arg)
{
    asm volatile("mov %%rsp, %%rbx; mov %0, %%rsp; push %%rax; mov %%rbx, %%rsp" : : "r"(0x8000000000000000) : "rbx");
}
static void do_pf_read(void *arg) { (void)*(volatile u8 *)arg; }
static void do_pf_write(void *arg) { *(volatile u8 *)arg = 1; }
static void do_jump(void *arg) { ((void (*)(void))arg)(); }
static void do_load_sel(void *arg) { asm volatile("mov %0, %%es" : : "r"((u16)(u64)arg)); }
static void do_int(void *arg) { asm volatile("int $0x90"); }
static void do_cli(void *arg) { asm volatile("cli"); }
static void do_hlt(void *arg) { asm volatile("hlt"); }
static void do_in(void *arg) { inb(0x61); }
static void do_rdmsr_bad(void *arg) { rdmsr(0x12345678); }
static void do_nothing(void *arg) { }
static void do_mov_cr(void *arg) { read_cr0(); }
static void do_lock_bad(void *arg) { asm volatile(".byte 0xf0, 0x89, 0xc0"); }
static void do_too_long(void *arg) { asm volatile(".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90"); }

static void expect(const char *name, void (*fn)(void *), void *arg, int vector, u64 error)
{
    int got = catch_fault(fn, arg);

    check(got == vector && (vector < 0 || caught.error == error), "%s: vector %d error %lx (expected %d, %lx)", name, got,
          got < 0 ? 0 : caught.error, vector, error);
}

static void expect_user(const char *name, void (*fn)(void *), void *arg, int vector, u64 error)
{
    int got = catch_fault_user(fn, arg);

    check(got == vector && (vector < 0 || (caught.error == error && (caught.cs & 3) == 3)),
          "user %s: vector %d error %lx (expected %d, %lx)", name, got, got < 0 ? 0 : caught.error, vector, error);
}

static u64 entered_on;
static void note_stack(struct frame *f)
{
    entered_on = (u64)f;
}

static void ist_test(void)
{
    u8 *stack = page_alloc();

    tss.ist[2] = (u64)stack + 4096;
    idt_set(0x90, (void *)vector_table[0x90], 0x8e, 3);
    on_interrupt(0x90, note_stack);
    asm volatile("int $0x90");
    check(entered_on > (u64)stack && entered_on < (u64)stack + 4096, "IST 3 switches the stack");
    idt_set(0x90, (void *)vector_table[0x90], 0x8e, 0);
    on_interrupt(0x90, 0);
}

static void double_fault_test(void)
{
    u8 *stack = page_alloc();

    /* a not-present #PF gate turns the page fault into #DF */
    tss.ist[0] = (u64)stack + 4096;
    idt_set(8, (void *)vector_table[8], 0x8e, 1);
    idt_set(14, (void *)vector_table[14], 0x0e, 0);
    expect("page fault without a gate", do_pf_read, (void *)0x100000000, 8, 0);
    idt_set(14, (void *)vector_table[14], 0x8e, 0);
    idt_set(8, (void *)vector_table[8], 0x8e, 0);
}

void guest_main(void)
{
    expect("ud2", do_ud, 0, 6, 0);
    check(*(u8 *)caught.rip == 0x0f, "#UD points at the instruction");
    check(caught.rflags & 0x10000, "a fault pushes RF");
    expect("int3", do_int3, 0, 3, 0);
    check(*(u8 *)(caught.rip - 1) == 0xcc, "#BP points behind the instruction");
    expect("icebp", do_icebp, 0, 1, 0);
    expect("div by zero", do_div, 0, 0, 0);
    expect("div overflow", do_div_overflow, 0, 0, 0);
    expect("idiv of the smallest by -1", do_idiv_min, 0, 0, 0);
    expect("non-canonical load", do_gp_noncanonical, 0, 13, 0);
    tss.ist[1] = (u64)page_alloc() + 4096; /* the handler cannot use the bad stack */
    idt_set(12, (void *)vector_table[12], 0x8e, 2);
    expect("non-canonical push", do_ss_noncanonical, 0, 12, 0);
    idt_set(12, (void *)vector_table[12], 0x8e, 0);
    expect("read of a missing page", do_pf_read, (void *)0x123456789000, 14, 0);
    check(caught_cr2 == 0x123456789000, "CR2 %lx", caught_cr2);
    expect("write to a missing page", do_pf_write, (void *)0x123456789008, 14, 2);
    expect("fetch from a missing page", do_jump, (void *)0x123456789000, 14, 0x10);
    check(caught.rip == 0x123456789000, "RIP of a fetch fault %lx", caught.rip);
    expect("selector beyond the GDT", do_load_sel, (void *)0xfff8, 13, 0xfff8);
    asm volatile("lldt %w0" : : "r"(0));
    expect("LDT selector without an LDT", do_load_sel, (void *)0x14, 13, 0x14);
    expect("code segment not readable is fine as ES", do_load_sel, (void *)0x8, -1, 0);
    expect("system segment as ES", do_load_sel, (void *)0x50, 13, 0x50);
    expect("unknown MSR", do_rdmsr_bad, 0, 13, 0);
    expect("LOCK on a register", do_lock_bad, 0, 6, 0);
    expect("16 bytes of instruction", do_too_long, 0, 13, 0);
    ist_test();
    user_text_allow(true);
    expect_user("nothing", do_nothing, 0, -1, 0);
    expect_user("cli", do_cli, 0, 13, 0);
    expect_user("hlt", do_hlt, 0, 13, 0);
    expect_user("in", do_in, 0, 13, 0);
    expect_user("mov from CR0", do_mov_cr, 0, 13, 0);
    expect_user("int through a ring-0 gate", do_int, 0, 13, 0x90 * 8 + 2);
    expect_user("ud2", do_ud, 0, 6, 0);
    expect_user("read of a supervisor page", do_pf_read, (void *)0x100000, 14, 5);
    expect_user("write of a supervisor page", do_pf_write, (void *)0x100000, 14, 7);
    expect_user("read of a missing page", do_pf_read, (void *)0x123456789000, 14, 4);
    expect_user("ring-0 data selector", do_load_sel, (void *)0x10, 13, 0x10);
    double_fault_test();
}
