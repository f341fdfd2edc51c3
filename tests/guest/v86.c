/* Virtual-8086 mode under a 32-bit ring 0: what IOPL 0 forbids and IOPL 3 allows, the I/O permission map, segments,
 * faults out to ring 0 and back by IRET. SDM vol. 3 ch. 20. */
#include "guest32.h"

#define CODE_AT 0x10000 /* segment 0x1000 */
#define VM 0x20000u
#define IF 0x200u
#define IOPL3 0x3000u
#define NT 0x4000u
#define RF 0x10000u

CODE(16, only_end, "int3");
CODE(16, do_cli, "cli; int3");
CODE(16, do_sti, "sti; int3");
CODE(16, do_pushf, "pushf; pop %ax; int3");
CODE(16, do_pushfd, "pushfl; pop %eax; int3");
CODE(16, do_popf, "push $0x7fd7; popf; int3");
CODE(16, do_popfd, "pushl $0x003f7fd7; popfl; int3");
CODE(16, do_int, "int $0x40; int3");
CODE(16, do_into, "mov $0x7f, %al; inc %al; into; int3");
CODE(16, do_int1, ".byte 0xf1");
CODE(16, do_iret, "pushf; push %cs; push $1f - do_iret; iret; int3; 1: inc %bx; int3");
CODE(16, do_iret_plain, "iret; int3");
CODE(16, do_hlt, "hlt");
CODE(16, do_lgdt, "lgdt 0; int3");
CODE(16, do_mov_cr, "mov %cr0, %eax; int3");
CODE(16, do_smsw, "smsw %ax; int3");
CODE(16, do_sldt, "sldt %ax; int3");
CODE(16, do_arpl, "arpl %ax, %bx; int3");
CODE(16, do_lar, "lar %ax, %bx; int3");
CODE(16, do_in8, "inb %dx, %al; int3");
CODE(16, do_in16, "inw %dx, %ax; int3");
CODE(16, do_in32, "inl %dx, %eax; int3");
CODE(16, do_outsb, "mov $1, %cx; rep outsb; int3");
CODE(16, do_segments, "mov $0x2345, %ax; mov %ax, %ds; mov %ds:0x10, %bx; mov $0x3456, %ax; mov %ax, %fs;"
                      "mov %fs:0x20, %cx; int3");
CODE(16, do_beyond, "mov $0xffff, %bx; mov (%bx), %ax; int3");
CODE(16, do_beyond32, "mov $0x10000, %ebx; mov (%ebx), %al; int3");
CODE(16, do_push_wrap, "mov $0, %sp; push %ax; int3");
CODE(16, do_push_split, "mov $1, %sp; push %ax; int3");
CODE(16, do_far, "lcall $0x1000, $1f - do_far; int3; 1: mov $0x77, %al; lret");
CODE(16, do_ud, "ud2");
CODE(16, do_div, "xor %cx, %cx; div %cx");

static struct frame v86(const u8 *code, const u8 *end, u32 eflags)
{
    copy((void *)CODE_AT, code, (u32)(end - code));
    return (struct frame){.cs = CODE_AT >> 4, .eip = 0, .eflags = eflags | VM | 2, .ss = 0x2000, .esp = 0x8000,
                          .v86_ds = 0x3000, .v86_es = 0x3000, .v86_fs = 0x3000, .v86_gs = 0x3000};
}

static int run(const u8 *code, const u8 *end, u32 eflags)
{
    struct frame f = v86(code, end, eflags);

    return enter(&f);
}

static void expect(const char *name, int got, u32 with, int vector, u32 at)
{
    check(got == vector && caught.eip == at && caught.error == 0 && caught.eflags & VM,
          "%s with IOPL %d: vector %d at %x error %x (expected %d at %x)", name, with >> 12 & 3, got, caught.eip,
          caught.error, vector, at);
}
#define EXPECT(code, with, vector, at) expect(#code, run(code, code##_end, with), with, vector, (u32)(at))

static void entry_and_exit(void)
{
    struct frame f = v86(only_end, only_end_end, 0);

    f.v86_ds = 0x1111;
    f.v86_es = 0x2222;
    f.v86_fs = 0x3333;
    f.v86_gs = 0x4444;
    f.eax = 0x12345678;
    check(enter(&f) == 3, "into V86 mode and out by INT3");
    check(caught.cs == 0x1000 && caught.eip == 1 && caught.ss == 0x2000 && caught.esp == 0x8000, "CS:IP SS:SP pushed");
    check((u16)caught.v86_ds == 0x1111 && (u16)caught.v86_es == 0x2222 && (u16)caught.v86_fs == 0x3333 &&
              (u16)caught.v86_gs == 0x4444, "data segments pushed");
    check(caught.ds == 0 && caught.es == 0 && caught.fs == 0 && caught.gs == 0, "and null in the handler");
    check(caught.eflags & VM && caught.eax == 0x12345678, "VM set in the pushed flags");
    f.eip = 0x10000;
    check(enter(&f) == 13 && !(caught.eflags & VM), "IRET to V86 with EIP beyond 64 KiB: #GP in ring 0");
}

static void sensitive(void)
{
    EXPECT(do_cli, 0, 13, 0);
    EXPECT(do_cli, IOPL3, 3, 2);
    EXPECT(do_sti, 0, 13, 0);
    EXPECT(do_pushf, 0, 13, 0);
    EXPECT(do_popf, 0, 13, 3);
    EXPECT(do_popfd, 0, 13, 6);
    EXPECT(do_int, 0, 13, 0);
    EXPECT(do_iret_plain, 0, 13, 0);
    EXPECT(do_pushf, 0x2000, 13, 0);
    EXPECT(do_pushf, IOPL3, 3, 3);
    check((u16)caught.eax == 0x3002, "PUSHF shows IOPL 3: %x", caught.eax);
    EXPECT(do_pushfd, IOPL3, 3, 5);
    check(!(caught.eax & (VM | RF)), "PUSHFD hides VM and RF: %x", caught.eax);
    EXPECT(do_iret, IOPL3, 3, 9);
    EXPECT(do_into, 0, 4, 5);
    EXPECT(do_int1, 0, 1, 1);
    EXPECT(do_hlt, IOPL3, 13, 0);
    EXPECT(do_lgdt, IOPL3, 13, 0);
    EXPECT(do_mov_cr, IOPL3, 13, 0);
    EXPECT(do_smsw, 0, 3, 4);
    EXPECT(do_sldt, IOPL3, 6, 0);
    EXPECT(do_arpl, IOPL3, 6, 0);
    EXPECT(do_lar, IOPL3, 6, 0);
    EXPECT(do_ud, 0, 6, 0);
    EXPECT(do_div, 0, 0, 2);
}

static void flags(void)
{
    EXPECT(do_popf, IOPL3, 3, 5);
    check((caught.eflags & 0x7ed7) == 0x7ed7, "POPF with IOPL 3 sets all it names: %x", caught.eflags);
    check(caught.eflags & VM, "POPF cannot leave V86 mode");
}

static void popf_iopl(void)
{
    static const u8 clear[] = {0x6a, 0x02, 0x9d, 0xcc}; /* push 2; popf; int3 */

    check(run(clear, clear + 4, IOPL3 | IF) == 3 && (caught.eflags & (IOPL3 | IF)) == IOPL3,
          "POPF clears IF, not IOPL: %x", caught.eflags);
}

/* INT n with IOPL 3 goes through the gate, which must lead to ring 0. */
static void int_gate(void)
{
    u64 saved = idt[0x40];

    idt[0x40] = gate(CODE32, vector_table[0x40], 0xee, 0);
    EXPECT(do_int, IOPL3, 0x40, 2);
    idt[0x40] = gate(CODE32, vector_table[0x40], 0x8e, 0);
    check(run(do_int, do_int_end, IOPL3) == 13 && caught.error == 0x40 * 8 + 2 && caught.eip == 0,
          "INT n through a gate of DPL 0: #GP(%x)", caught.error);
    gdt_set(GDT_FREE, 0, 0xfffff, 0x9e, 12); /* conforming */
    idt[0x40] = gate(GDT_FREE, vector_table[0x40], 0xee, 0);
    check(run(do_int, do_int_end, IOPL3) == 13 && caught.error == GDT_FREE,
          "INT n into a conforming segment: #GP(%x)", caught.error);
    idt[0x40] = saved;
}

static void io_map(void)
{
    struct frame f = v86(do_in8, do_in8_end, 0);

    f.edx = 0x61;
    check(enter(&f) == 13 && caught.eip == 0, "IN with the port's bit set: #GP");
    tss.map[0x61 / 8] &= (u8)~(1 << (0x61 & 7));
    check(enter(&f) == 3, "IN with the port's bit clear");
    f.eflags |= IOPL3;
    f.edx = 0x62;
    check(enter(&f) == 13, "IOPL 3 does not help in V86 mode");
    f = v86(do_in16, do_in16_end, 0);
    f.edx = 0x61;
    check(enter(&f) == 13, "IN of a word: both bits count");
    tss.map[0x62 / 8] &= (u8)~(1 << (0x62 & 7));
    check(enter(&f) == 3, "IN of a word, both clear");
    f = v86(do_in32, do_in32_end, 0);
    f.edx = 0x65;
    tss.map[0x60 / 8] = 0x1f;
    tss.map[0x68 / 8] = 0xff;
    check(enter(&f) == 13, "IN of a doubleword across map bytes: #GP");
    tss.map[0x68 / 8] = 0xfe;
    check(enter(&f) == 3, "and allowed");
    f = v86(do_in8, do_in8_end, 0);
    f.edx = 0xffff;
    tss.map[8191] = 0x7f;
    check(enter(&f) == 3, "port FFFF");
    tss.iomap = sizeof(tss) - 2;
    f.edx = 8;
    check(enter(&f) == 13, "map cut off by the limit: #GP");
    tss.iomap = offsetof(struct tss32, map);
    f = v86(do_outsb, do_outsb_end, 0);
    f.edx = 0xed;
    check(enter(&f) == 13 && (u16)caught.ecx == 1 && caught.eip == 3, "OUTS without permission: #GP, CX kept");
    fill(tss.map, 0xff, sizeof(tss.map));
}

static void memory(void)
{
    *(volatile u16 *)0x23460 = 0xbeef;
    *(volatile u16 *)0x34580 = 0xcafe;
    EXPECT(do_segments, 0, 3, do_segments_end - do_segments);
    check((u16)caught.ebx == 0xbeef && (u16)caught.ecx == 0xcafe, "segment loads are shifts");
    EXPECT(do_beyond, 0, 13, 3);
    EXPECT(do_beyond32, 0, 13, 6);
    EXPECT(do_push_wrap, 0, 3, 5);
    check((u16)caught.esp == 0xfffe, "PUSH at SP 0 wraps: %x", caught.esp);
    EXPECT(do_push_split, 0, 12, 3);
    EXPECT(do_far, 0, 3, 6);
    check((u8)caught.eax == 0x77, "far call within V86 mode");
}

/* A monitor's round: emulate CLI for the task, and go back. */
static int emulated;
static void monitor(struct frame *f)
{
    if (emulated++ < 3 && f->eflags & VM) {
        f->eip++;
        f->v86_gs = 0x5555;
    }
}

static void round_trips(void)
{
    static const u8 code[] = {0xfa, 0xfb, 0xf4, 0x8c, 0xe8, 0xcc}; /* cli; sti; hlt; mov %gs, %ax; int3 */

    on_interrupt(13, monitor);
    check(run(code, code + sizeof(code), 0) == 3 && emulated == 3 && (u16)caught.eax == 0x5555,
          "three faults emulated by ring 0, IRET back each time");
    on_interrupt(13, 0);
}

static void single_step(void)
{
    int got = run(only_end, only_end_end, 0x100);

    check(got == 3, "INT3 with TF: the breakpoint, VM %d", !!(caught.eflags & VM));
    got = run(do_smsw, do_smsw_end, 0x100);
    check(got == 1 && caught.eip == 3 && caught.eflags & 0x100, "TF single-steps in V86 mode: %d at %x", got,
          caught.eip);
}

void guest_main(void)
{
    idt[4] = gate(CODE32, vector_table[4], 0xee, 0);
    entry_and_exit();
    sensitive();
    flags();
    popf_iopl();
    int_gate();
    io_map();
    memory();
    round_trips();
    single_step();
}
