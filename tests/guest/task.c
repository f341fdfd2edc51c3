/* Hardware task switches: by JMP, CALL, task gates and IRET, between 32-bit and 16-bit TSSs; busy bits, back links,
 * NT, the debug trap of a task, what is raised for bad TSSs and bad contents, double faults through a task gate. SDM
 * vol. 3 ch. 7.
 *
 * The main task runs on the TSS of the library. Task B stores what it finds and goes back. The fault task stands
 * behind task gates for #TS, #NP, #SS and #DF: it notes the error code, and jumps to the main task. */
#include "guest32.h"

enum {
    B_SEL = 0x40,
    C_SEL = 0x48,
    GATE_SEL = 0x50,
    FAULT_SEL = 0x58,
    ABSENT_SEL = 0x60,
    SHORT_SEL = 0x68,
    C_CODE = 0x70,
    LDT_SEL = 0x78,
    ABSENT_DATA = 0x80,
    ABSENT_CODE = 0x88,
    RING3_TSS = 0x90
};
#define NT 0x4000u
#define BUSY 2

struct tss16 {
    u16 link, sp0, ss0, sp1, ss1, sp2, ss2, ip, flags, ax, cx, dx, bx, sp, bp, si, di, es, cs, ss, ds, ldt;
};

/* What task B saw. */
u32 b_tr, b_cr0, b_flags, b_eax, b_ebx, b_esp, b_es, b_runs, b_by_iret;
u32 f_error, f_runs, f_esp, f_vector_seen;
u32 c_tr, c_flags, c_regs;
extern u8 b_task[], f_task[], g_task[], h_task[];

asm(".code32\n"
    "b_task: mov %eax, b_eax; mov %ebx, b_ebx; mov %esp, b_esp; mov %es, b_es\n"
    "str b_tr; mov %cr0, %eax; mov %eax, b_cr0; pushf; pop b_flags; clts; incl b_runs\n"
    "cmpl $0, b_by_iret; je 1f; iret; jmp b_task\n"
    "1: ljmp $0x38, $0; jmp b_task\n"
    "f_task: mov %esp, f_esp; pop f_error; incl f_runs; clts; ljmp $0x38, $0; jmp f_task\n"
    /* returns to the main task with 0 in the saved EAX */
    "g_task: mov %esp, f_esp; pop f_error; incl f_runs; clts; movl $0, tss + 40; iret; jmp g_task\n"
    /* goes on in the main task where its saved ESI says, with a good SS; the jump needs it available */
    "h_task: pop f_error; incl f_runs; clts; mov tss + 64, %eax; mov %eax, tss + 32; movl $0x10, tss + 80\n"
    "andb $0xfd, gdt + 0x3d; ljmp $0x38, $0; jmp h_task\n");

CODE(16, c_code, "addr32 mov %ax, c_regs; addr32 str c_tr; pushf; addr32 popw c_flags; clts; iret; jmp c_code");

static struct tss32 b_tss, f_tss;
static struct tss16 c_tss;
static u8 b_stack[4096] __attribute__((aligned(16))), f_stack[4096] __attribute__((aligned(16)));

static bool busy(u16 sel)
{
    return gdt[sel / 8] >> 40 & BUSY;
}

static void busy_set(u16 sel, bool yes)
{
    gdt[sel / 8] = (gdt[sel / 8] & ~((u64)BUSY << 40)) | (u64)(yes ? BUSY : 0) << 40;
}

static void task32(struct tss32 *t, const void *code, u8 *stack_top)
{
    fill(t, 0, offsetof(struct tss32, map));
    t->eip = (u32)code;
    t->eflags = 2;
    t->esp = (u32)stack_top;
    t->cs = CODE32;
    t->ss = t->ds = t->es = DATA32;
    t->eax = 0xaaaa1111;
    t->ebx = 0xbbbb2222;
    t->iomap = sizeof(*t);
}

static void setup(void)
{
    task32(&b_tss, b_task, b_stack + 4000);
    task32(&f_tss, f_task, f_stack + 4000);
    gdt_set(B_SEL, (u32)&b_tss, 103, 0x89, 0);
    gdt_set(FAULT_SEL, (u32)&f_tss, 103, 0x89, 0);
    gdt_set(C_SEL, (u32)&c_tss, 0x2b, 0x81, 0);
    gdt_set(ABSENT_SEL, (u32)&b_tss, 103, 0x09, 0);
    gdt_set(SHORT_SEL, (u32)&b_tss, 102, 0x89, 0);
    gdt_set(RING3_TSS, (u32)&b_tss, 103, 0xe9, 0);
    gdt[GATE_SEL / 8] = gate(B_SEL, 0, 0x85, 0);
    gdt_set(ABSENT_DATA, 0, 0xfffff, 0x13, 12);
    gdt_set(ABSENT_CODE, 0, 0xfffff, 0x1b, 12);
    b_by_iret = 0;
}

static void jump_b(void *arg) { asm volatile("ljmp $0x40, $0" : : : "memory"); }
static void call_b(void *arg) { asm volatile("lcall $0x40, $0" : : : "memory"); }
static void call_c(void *arg) { asm volatile("lcall $0x48, $0" : : : "memory"); }
static void call_gate(void *arg) { asm volatile("lcall $0x50, $0" : : : "memory"); }
static void jump_absent(void *arg) { asm volatile("ljmp $0x60, $0" : : : "memory"); }
static void jump_short(void *arg) { asm volatile("ljmp $0x68, $0" : : : "memory"); }
static void jump_self(void *arg) { asm volatile("ljmp $0x38, $0" : : : "memory"); }
static void do_int(void *arg) { asm volatile("int $0x40" : : : "memory"); }
static void iret_nt(void *arg) { asm volatile("pushf; orl $0x4000, (%%esp); popf; iret" : : : "memory"); }

static void expect(const char *name, void (*fn)(void *), int vector, u32 error)
{
    int got = catch_fault(fn, 0);

    check(got == vector && (vector < 0 || caught.error == error), "%s: vector %d error %x (expected %d, %x)", name, got,
          got < 0 ? 0 : caught.error, vector, error);
}

static void jumps(void)
{
    setup();
    tss.esp = 0;
    expect("JMP to a task and back", jump_b, -1, 0);
    check(b_runs == 1 && b_tr == B_SEL && b_cr0 & 8, "the task ran with its TR, TS set");
    check(!(b_flags & NT) && b_eax == 0xaaaa1111 && b_ebx == 0xbbbb2222 && b_esp == (u32)b_stack + 4000 &&
              b_es == DATA32,
          "with the registers of its TSS");
    check(busy(TSS_SEL) && !busy(B_SEL), "busy bits after coming back by JMP");
    check(read_cr0() & 8 && tss.esp && tss.cs == CODE32 && tss.ss == DATA32,
          "the old task's registers were saved, TS set");
    asm volatile("clts");
    expect("again: it goes on behind its JMP", jump_b, -1, 0);
    check(b_runs == 2, "the task ran again");
    asm volatile("clts");
}

static void calls(void)
{
    setup();
    b_by_iret = 1;
    b_runs = 0;
    expect("CALL to a task, IRET back", call_b, -1, 0);
    check(b_runs == 1 && b_flags & NT && b_tss.link == TSS_SEL, "NT set, back link %x", b_tss.link);
    check(!(b_tss.eflags & NT), "NT cleared in the TSS that IRET left: %x", b_tss.eflags);
    check(busy(TSS_SEL) && !busy(B_SEL), "busy bits after IRET");
    expect("CALL through a task gate", call_gate, -1, 0);
    check(b_runs == 2 && b_flags & NT, "the task ran");
    idt[0x40] = gate(B_SEL, 0, 0x85, 0);
    expect("INT n through a task gate", do_int, -1, 0);
    check(b_runs == 3 && b_flags & NT, "the task ran");
    asm volatile("clts");
}

static void sixteen_bits(void)
{
    setup();
    fill(&c_tss, 0, sizeof(c_tss));
    gdt_set(C_CODE, (u32)c_code, 0xffff, 0x9a, 0);
    c_tss.flags = 2;
    c_tss.cs = C_CODE;
    c_tss.ds = c_tss.es = c_tss.ss = DATA32;
    c_tss.sp = 0x7000;
    c_tss.ax = 0x1234;
    gdt_set(C_CODE + 8, 0, 0xffff, 0x92, 0);
    c_tss.ss = C_CODE + 8;
    expect("CALL to a 16-bit task, IRET back", call_c, -1, 0);
    check(c_tr == C_SEL && c_flags & NT && (u16)c_regs == 0x1234, "it ran: TR %x flags %x AX %x", c_tr, c_flags,
          c_regs);
    check(c_tss.link == TSS_SEL && !(c_tss.flags & NT) && !busy(C_SEL), "link and NT of a 16-bit TSS");
    gdt_set(C_SEL, (u32)&c_tss, 0x2a, 0x81, 0);
    expect("16-bit TSS one byte too short", call_c, 10, C_SEL);
    gdt_set(LDT_SEL, 0, 0, 0, 0);
    asm volatile("clts");
}

static void refusals(void)
{
    struct frame f = frame_at(jump_b, 3);

    setup();
    expect("JMP to the current task, busy", jump_self, 13, TSS_SEL);
    busy_set(B_SEL, true);
    expect("CALL of a busy task", call_b, 13, B_SEL);
    expect("task gate to a busy task", call_gate, 13, B_SEL);
    busy_set(B_SEL, false);
    expect("TSS not present", jump_absent, 11, ABSENT_SEL);
    expect("TSS too short", jump_short, 10, SHORT_SEL);
    gdt[GATE_SEL / 8] = gate(B_SEL, 0, 0x05, 0);
    expect("task gate not present", call_gate, 11, GATE_SEL);
    gdt[GATE_SEL / 8] = gate(DATA32, 0, 0x85, 0);
    expect("task gate to a data segment", call_gate, 13, DATA32);
    gdt[GATE_SEL / 8] = gate(0, 0, 0x85, 0);
    expect("task gate to nothing", call_gate, 13, 0);
    check(enter(&f) == 13 && caught.error == B_SEL && caught.cs == USER_CODE, "ring 3 may not jump to a TSS of DPL 0");
    tss.link = 0;
    expect("IRET with NT, null link", iret_nt, 10, 0);
    tss.link = B_SEL;
    expect("IRET with NT to a task that is not busy", iret_nt, 10, B_SEL);
    tss.link = DATA32;
    expect("IRET with NT to a data segment", iret_nt, 10, DATA32);
    idt[0x40] = gate(ABSENT_SEL, 0, 0x85, 0);
    expect("INT n through a task gate to an absent TSS", do_int, 11, ABSENT_SEL);
}

/* Ring 3 may go through a gate of DPL 3, and the TSS's own DPL does not count. */
static void from_ring3(void)
{
    struct frame f = frame_at(call_gate, 3);
    u64 saved = gdt[TSS_SEL / 8];

    setup();
    b_by_iret = 1;
    b_runs = 0;
    gdt[GATE_SEL / 8] = gate(B_SEL, 0, 0xe5, 0);
    *(u32 *)f.esp = (u32)f.esp + 0x40; /* call_gate returns into nothing good: to an INT3 on the stack */
    *(u32 *)(f.esp + 0x40) = 0xcccccccc;
    check(enter(&f) == 3 && b_runs == 1, "ring 3 calls a task through a gate of DPL 3: %d runs", (int)b_runs);
    gdt[TSS_SEL / 8] = saved;
    asm volatile("clts");
}

/* A bad content of the new task is found there: the fault goes to the fault task, whose link names the new one. */
static void bad_contents(const char *name, u32 *field, u32 value, int vector, u32 error)
{
    u32 saved = *field;
    u64 gates[3];

    for (int n = 0; n < 3; n++) {
        gates[n] = idt[10 + n];
        idt[10 + n] = gate(10 + n == vector ? FAULT_SEL : ABSENT_SEL, 0, 0x85, 0);
    }
    *field = value;
    f_runs = 0;
    jump_b(0);
    check(f_runs == 1 && f_error == error && f_tss.link == B_SEL, "%s: vector %d, error %x link %x (expected %x)", name,
          vector, f_error, f_tss.link, error);
    *field = saved;
    for (int n = 0; n < 3; n++)
        idt[10 + n] = gates[n];
    busy_set(B_SEL, false);
    task32(&b_tss, b_task, b_stack + 4000);
    asm volatile("clts");
}

static void faults_inside(void)
{
    setup();
    gdt_set(LDT_SEL, 0, 0, 0x12, 0);
    bad_contents("null CS", &b_tss.cs, 0, 10, 0);
    bad_contents("CS of data", &b_tss.cs, DATA32, 10, DATA32);
    bad_contents("CS beyond the GDT", &b_tss.cs, 0x7ff8, 10, 0x7ff8);
    bad_contents("CS not present", &b_tss.cs, ABSENT_CODE, 11, ABSENT_CODE);
    bad_contents("CS with RPL unlike DPL", &b_tss.cs, CODE32 | 3, 10, CODE32);
    bad_contents("null SS", &b_tss.ss, 0, 10, 0);
    bad_contents("SS of code", &b_tss.ss, CODE32, 10, CODE32);
    bad_contents("SS not present", &b_tss.ss, ABSENT_DATA, 12, ABSENT_DATA);
    bad_contents("SS with RPL 3", &b_tss.ss, DATA32 | 3, 10, DATA32);
    bad_contents("DS not present", &b_tss.ds, ABSENT_DATA, 11, ABSENT_DATA);
    bad_contents("ES beyond the GDT", &b_tss.es, 0x7ff8, 10, 0x7ff8);
    bad_contents("FS of a TSS", &b_tss.fs, TSS_SEL, 10, TSS_SEL);
    bad_contents("LDT that is none", &b_tss.ldt, DATA32, 10, DATA32);
    bad_contents("LDT in the LDT", &b_tss.ldt, 0x44, 10, 0x44);
}

static void gp_by_task(void)
{
    u64 saved = idt[13];
    u32 resumed;

    setup();
    task32(&f_tss, g_task, f_stack + 4000);
    idt[13] = gate(FAULT_SEL, 0, 0x85, 0);
    f_runs = 0;
    asm volatile("mov %1, %%fs; mov %%eax, %0" : "=r"(resumed) : "a"(0x7ff8) : "memory");
    idt[13] = saved;
    check(f_runs == 1 && f_error == 0x7ff8 && resumed == 0 && f_esp == (u32)f_stack + 3996,
          "#GP through a task gate: error %x, restarted by IRET", f_error);
    check(f_tss.link == TSS_SEL && tss.eflags & 0x10000, "its link, and RF in the flags saved: %x", tss.eflags);
    asm volatile("clts");
}

/* A push beyond the stack segment's limit in ring 0: #SS has no stack either, so a double fault. */
static void double_fault(void)
{
    u64 saved = idt[8];
    u32 keep;

    setup();
    gdt_set(ABSENT_DATA, 0, 0xfff, 0x93, 4);
    idt[8] = gate(FAULT_SEL, 0, 0x85, 0);
    task32(&f_tss, h_task, f_stack + 4000);
    f_runs = 0;
    f_error = 0x55;
    asm volatile("mov %%esp, %%edi\n\t"
                 "mov %%ss, %0\n\t"
                 "movl $1f, %%esi\n\t"
                 "mov %1, %%ss\n\t"
                 "push %%eax\n"
                 "1: mov %0, %%ss; mov %%edi, %%esp"
                 : "=&b"(keep) : "a"(ABSENT_DATA) : "esi", "edi", "memory");
    idt[8] = saved;
    check(f_runs == 1 && f_error == 0 && f_tss.link == TSS_SEL, "double fault through a task gate: error %x", f_error);
    asm volatile("clts");
}

static u32 bt_dr6, bt_eip;
static void on_debug(struct frame *f)
{
    asm volatile("mov %%dr6, %0" : "=r"(bt_dr6));
    bt_eip = f->eip;
    asm volatile("mov %0, %%dr6" : : "r"(0));
}

static void debug_trap(void)
{
    setup();
    b_tss.trap = 1;
    on_interrupt(1, on_debug);
    expect("task with its T bit", jump_b, -1, 0);
    check(bt_dr6 & 0x8000 && bt_eip == (u32)b_task, "debug trap before its first instruction: DR6 %x at %x", bt_dr6,
          bt_eip);
    on_interrupt(1, 0);
    asm volatile("clts");
}

static void privileged_tr(void)
{
    u16 tr;

    asm volatile("str %0" : "=r"(tr));
    check(tr == TSS_SEL && busy(TSS_SEL), "in the main task at the end");
}

void guest_main(void)
{
    jumps();
    calls();
    sixteen_bits();
    refusals();
    from_ring3();
    faults_inside();
    gp_by_task();
    debug_trap();
    double_fault();
    privileged_tr();
}
