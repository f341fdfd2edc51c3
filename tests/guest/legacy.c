/* Segmentation in 32-bit and 16-bit protected mode: limits of all kinds, types, null selectors, 16-bit stacks,
 * conforming code, call gates with and without a change of privilege, far returns and IRET in both sizes, selectors'
 * instructions, and the instructions that 64-bit mode no longer has. SDM vol. 3 ch. 5, vol. 2. */
#include "guest32.h"

enum { DATA_SEL = 0x40, CODE_SEL = 0x48, GATE_SEL = 0x50, STACK1_SEL = 0x58, CODE1_SEL = 0x60,
       LDT_SEL = 0x70 };

static u8 area[0x20000] __attribute__((aligned(4096)));

CODE(32, end, "int3");
CODE(32, read_byte, "mov %fs:(%ebx), %al; int3");
CODE(32, read_word, "mov %fs:(%ebx), %ax; int3");
CODE(32, read_dword, "mov %fs:(%ebx), %eax; int3");
CODE(32, write_byte, "mov %al, %fs:(%ebx); int3");
CODE(32, write_cs, "mov %al, %cs:(%ebx); int3");
CODE(32, read_cs, "mov %cs:(%ebx), %al; int3");
CODE(32, push_one, "push %eax; int3");
CODE(32, push_word, "pushw %ax; int3");
CODE(32, pop_one, "pop %eax; int3");
CODE(32, load_fs, "mov %ax, %fs; mov %fs, %ecx; int3");
CODE(32, load_ss, "mov %ax, %ss; int3");
CODE(32, use_null, "xor %eax, %eax; mov %ax, %fs; mov %fs:0, %al; int3");
CODE(32, far_call, "lcall *(%esi); int3");
CODE(32, far_jump, "ljmp *(%esi); int3");
CODE(32, callee, "mov %cs, %ecx; mov %esp, %ebp; mov %ss, %edx; int3");
CODE(32, callee_ret, "mov %cs, %ecx; mov 8(%esp), %eax; mov 12(%esp), %edx; mov 16(%esp), %edi; lret $12");
CODE(32, callee_ret0, "lret");
CODE(16, callee16, "mov %cs, %cx; mov %sp, %bp; addr32 mov 4(%esp), %ax; lretw $2");
CODE(32, far_return, "lret; int3");
CODE(32, irets, "iret; int3");
CODE(16, iretw16, "iretw; int3");
CODE(32, pushas, "pusha; mov (%esp), %ebx; popa; int3");
CODE(32, enters, "enter $8, $3; mov %esp, %ecx; leave; int3");
CODE(16, enter16, "enter $8, $2; mov %sp, %cx; leave; int3");
CODE(32, bounds, "bound %eax, (%esi); int3");
CODE(32, into, "mov $0x7fffffff, %eax; inc %eax; into; int3");
CODE(32, les_lss, "les (%esi), %eax; lgs (%esi), %ecx; int3");
CODE(32, decimal,
     "mov $0x79, %al; add $0x35, %al; daa; mov %al, %bl; mov $0x0035, %ax; add $0x39, %al; aaa; mov %eax, %ecx;"
     "mov $63, %al; aam; mov %eax, %edx; aad; int3");
CODE(32, salc, "stc; .byte 0xd6; int3");
CODE(32, stos16, "addr16 rep stosb; int3");
CODE(32, movs_down, "std; rep movsl; cld; int3");
CODE(32, selectors, "lar %eax, %ecx; setz %dl; lsl %eax, %esi; setz %dh; verr %ax; setz %bl; verw %ax; setz %bh; int3");
CODE(32, arpls, "arpl %ax, %bx; setz %cl; int3");
CODE(32, arpl_memory, "arpl %ax, %fs:(%ebx); setz %cl; int3");
CODE(32, enter_narrow, "enter $16, $2; int3");
CODE(16, in16,
     "mov $0x12345678, %eax; add $1, %ax; push %ax; pushl %eax; call 1f; jmp 2f; 1: ret; 2: pop %ecx; pop %dx; int3");
CODE(32, unaligned, "mov 1(%esi), %eax; int3");
CODE(32, short_loop, "xor %eax, %eax; 1: inc %eax; addr16 loop 1b; int3");

static void expect(const char *name, const struct frame *f, int vector, u32 error)
{
    int got = enter(f);

    check(got == vector && caught.error == error, "%s: vector %d error %x (expected %d, %x)", name, got, caught.error,
          vector, error);
}

/* An access through FS, which is DATA_SEL with this limit, type and size. */
static void limit(const char *name, u32 lim, u8 access, u8 flags, const u8 *code, u32 at, int vector)
{
    struct frame f = frame_at(code, 0);

    f.fs = gdt_set(DATA_SEL, (u32)area, lim, access, flags);
    f.ebx = at;
    expect(name, &f, vector, 0);
}

static void limits(void)
{
    limit("byte limit: last byte", 0xfff, 0x93, 4, read_byte, 0xfff, 3);
    limit("byte limit: beyond", 0xfff, 0x93, 4, read_byte, 0x1000, 13);
    limit("byte limit: word across", 0xfff, 0x93, 4, read_word, 0xfff, 13);
    limit("byte limit: dword that ends with it", 0xfff, 0x93, 4, read_dword, 0xffc, 3);
    limit("byte limit: dword across", 0xfff, 0x93, 4, read_dword, 0xffd, 13);
    limit("limit 0: one byte", 0, 0x93, 4, read_byte, 0, 3);
    limit("limit 0: a word", 0, 0x93, 4, read_word, 0, 13);
    limit("page limit 0: last byte", 0, 0x93, 12, read_byte, 0xfff, 3);
    limit("page limit 0: beyond", 0, 0x93, 12, read_byte, 0x1000, 13);
    limit("dword that wraps at 4 GiB", 0xffff, 0x93, 4, read_dword, 0xfffffffe, 13);
    limit("expand-down: below", 0xfff, 0x97, 4, read_byte, 0xfff, 13);
    limit("expand-down: just above", 0xfff, 0x97, 4, read_byte, 0x1000, 3);
    limit("expand-down: word across", 0xfff, 0x97, 4, read_word, 0xfff, 13);
    limit("expand-down, 16 bits: last byte", 0xfff, 0x97, 0, read_byte, 0xffff, 3);
    limit("expand-down, 16 bits: word across the top", 0xfff, 0x97, 0, read_word, 0xffff, 13);
    limit("expand-down, 16 bits: beyond", 0xfff, 0x97, 0, read_byte, 0x10000, 13);
    limit("expand-down, 32 bits: beyond 64 KiB", 0xfff, 0x97, 4, read_byte, 0x10000, 3);
    limit("expand-down, pages: below", 0, 0x97, 12, read_byte, 0xfff, 13);
    limit("expand-down, pages: above", 0, 0x97, 12, read_byte, 0x1000, 3);
    limit("expand-down, limit FFFFF pages: nothing", 0xfffff, 0x97, 12, read_byte, 0x5000, 13);
    limit("read-only data: read", 0xfff, 0x91, 4, read_byte, 0, 3);
    limit("read-only data: write", 0xfff, 0x91, 4, write_byte, 0, 13);
    limit("readable code as data: read", 0xfff, 0x9b, 4, read_byte, 0, 3);
    limit("readable code as data: write", 0xfff, 0x9b, 4, write_byte, 0, 13);
    check(gdt[DATA_SEL / 8] >> 40 & 1, "the accessed bit is set");
    limit("accessed bit", 0xfff, 0x92, 4, read_byte, 0, 3);
    check(gdt[DATA_SEL / 8] >> 40 & 1, "loading sets the accessed bit");
}

static void code_segments(void)
{
    struct frame f = frame_at(write_cs, 0);

    f.ebx = (u32)area;
    expect("write through CS", &f, 13, 0);
    f = frame_at(read_cs, 0);
    f.ebx = (u32)area;
    expect("read through CS", &f, 3, 0);
    f.cs = gdt_set(CODE_SEL, 0, 0xfffff, 0x99, 12);
    expect("read through an execute-only CS", &f, 13, 0);
    f = frame_at(end, 0);
    f.cs = gdt_set(CODE_SEL, (u32)end, 0, 0x9b, 4);
    f.eip = 0;
    expect("code up to the limit", &f, 3, 0);
    f.cs = gdt_set(CODE_SEL, (u32)push_one, 0, 0x9b, 4);
    check(enter(&f) == 13 && caught.eip == 1, "running beyond the limit of CS: #GP at %x", caught.eip);
    f.cs = gdt_set(CODE_SEL, (u32)into, 2, 0x9b, 4);
    check(enter(&f) == 13 && caught.eip == 0, "an instruction across the limit of CS: #GP at %x", caught.eip);
}

static void loads(void)
{
    struct frame f = frame_at(load_fs, 0);

    f.eax = 3;
    expect("null selector with RPL 3 into FS", &f, 3, 0);
    check(caught.ecx == 3, "keeps its RPL: %x", caught.ecx);
    f.eax = 0x7ff8;
    expect("FS beyond the GDT", &f, 13, 0x7ff8);
    f.eax = TSS_SEL;
    expect("FS of a TSS", &f, 13, TSS_SEL);
    f.eax = gdt_set(DATA_SEL, 0, 0xfffff, 0x99, 12);
    expect("FS of execute-only code", &f, 13, DATA_SEL);
    f.eax = gdt_set(DATA_SEL, 0, 0xfffff, 0x13, 12);
    expect("FS not present", &f, 11, DATA_SEL);
    f = frame_at(load_ss, 0);
    expect("null SS", &f, 13, 0);
    f.eax = DATA_SEL;
    expect("SS not present", &f, 12, DATA_SEL);
    f.eax = CODE32;
    expect("SS of code", &f, 13, CODE32);
    f.eax = gdt_set(DATA_SEL, 0, 0xfffff, 0x91, 12);
    expect("SS of read-only data", &f, 13, DATA_SEL);
    f.eax = USER_DATA;
    expect("SS of ring 3", &f, 13, USER_DATA & ~3);
    f = frame_at(use_null, 0);
    expect("access through a null selector", &f, 13, 0);
    f = frame_at(load_fs, 3);
    f.eax = DATA32;
    expect("ring 3: FS of DPL 0", &f, 13, DATA32);
    f.eax = gdt_set(DATA_SEL, 0, 0xfffff, 0x9f, 12);
    expect("ring 3: FS of conforming code of DPL 0", &f, 3, 0);
}

static void stacks(void)
{
    struct frame f = frame_at(push_one, 0);

    f.ss = gdt_set(DATA_SEL, 0, 0xffff, 0x93, 0);
    f.esp = 0x12340000;
    f.eax = 0xdeadbeef;
    expect("push at SP 0 of a 16-bit stack", &f, 3, 0);
    check(caught.esp == 0x1234fffc && *(volatile u32 *)0xfffc == 0xdeadbeef, "wraps in SP alone: %x", caught.esp);
    f = frame_at(push_one, 3);
    f.ss = gdt_set(DATA_SEL, (u32)area, 0xffff, 0xf3, 0);
    f.esp = 2;
    expect("push across the top of a 16-bit stack", &f, 12, 0);
    f = frame_at(pop_one, 3);
    f.ss = DATA_SEL | 3;
    f.esp = 0xfffe;
    expect("pop across the top", &f, 12, 0);
    f = frame_at(push_word, 3);
    f.ss = DATA_SEL | 3;
    f.esp = 2;
    expect("push of a word to SP 0", &f, 3, 0);
    f = frame_at(push_one, 3);
    f.ss = gdt_set(DATA_SEL, (u32)area, 0xfff, 0xf7, 4);
    f.esp = 0x1004;
    expect("expand-down stack: push that fits", &f, 3, 0);
    f.esp = 0x1003;
    expect("expand-down stack: push across", &f, 12, 0);
    check(caught.esp == 0x1003, "a faulting push leaves ESP alone");
}

static struct {
    u32 offset;
    u16 sel;
} __attribute__((packed)) target;

static struct frame transfer(const u8 *code, int ring, u32 offset, u16 sel)
{
    struct frame f = frame_at(code, ring);

    target.offset = offset;
    target.sel = sel;
    f.esi = (u32)&target;
    return f;
}

static void direct_transfers(void)
{
    struct frame f = transfer(far_call, 3, (u32)callee, gdt_set(CODE_SEL, 0, 0xfffff, 0x9e, 12));

    expect("ring 3 calls conforming code of DPL 0", &f, 3, 0);
    check(caught.ecx == (CODE_SEL | 3) && caught.cs == (CODE_SEL | 3) && caught.ss == USER_DATA,
          "and stays in ring 3: CS %x", caught.ecx);
    f = transfer(far_call, 3, (u32)callee, gdt_set(CODE_SEL, 0, 0xfffff, 0x9b, 12));
    expect("ring 3 calls code of DPL 0", &f, 13, CODE_SEL);
    f = transfer(far_call, 0, (u32)callee, USER_CODE & ~3);
    expect("ring 0 calls code of DPL 3", &f, 13, USER_CODE & ~3);
    f = transfer(far_jump, 0, (u32)callee, CODE32 | 3);
    expect("JMP with RPL above CPL", &f, 13, CODE32);
    f = transfer(far_jump, 0, (u32)callee, gdt_set(CODE_SEL, 0, 0xfffff, 0x1b, 12));
    expect("JMP to code not present", &f, 11, CODE_SEL);
    f = transfer(far_jump, 0, (u32)callee, 0);
    expect("JMP to a null selector", &f, 13, 0);
    f = transfer(far_jump, 0, (u32)callee, DATA32);
    expect("JMP to data", &f, 13, DATA32);
    f = transfer(far_jump, 0, 0x1000, gdt_set(CODE_SEL, 0, 0xfff, 0x9b, 4));
    expect("JMP beyond the limit", &f, 13, 0);
    f = transfer(far_call, 0, (u32)callee_ret0, CODE32);
    expect("far call and return", &f, 3, 0);
    check(caught.eip == (u32)far_call_end && caught.esp == f.esp, "back behind the call");
}

static void gate_target(u16 sel, u8 access, u8 params, u16 code, const void *entry)
{
    gdt[sel / 8] = gate(code, (u32)entry, access, params);
}

static void call_gates(void)
{
    struct frame f = transfer(far_call, 3, 0x12345678, GATE_SEL);
    u32 *params = (u32 *)f.esp, *s;

    gate_target(GATE_SEL, 0xec, 3, CODE32, callee);
    params[0] = 0x11;
    params[1] = 0x22;
    params[2] = 0x33;
    expect("call gate from ring 3 to ring 0", &f, 3, 0);
    check(caught.ecx == CODE32 && caught.cs == CODE32, "in ring 0: CS %x", caught.ecx);
    s = (u32 *)caught.ebp;
    check(s[0] == (u32)far_call_end - 1 && (u16)s[1] == USER_CODE && s[2] == 0x11 && s[3] == 0x22 && s[4] == 0x33 &&
              s[5] == f.esp && (u16)s[6] == USER_DATA, "return address, parameters, old stack");
    check((u32)&s[7] == tss.esp0 && caught.edx == tss.ss0, "on the stack of the TSS");
    gate_target(GATE_SEL, 0xec, 3, CODE32, callee_ret);
    f.fs = gdt_set(DATA_SEL, 0, 0xfffff, 0xf3, 12);
    f.gs = DATA_SEL | 3;
    expect("and back by RET 12", &f, 3, 0);
    check(caught.eax == 0x11 && caught.edx == 0x22 && caught.edi == 0x33 && caught.cs == USER_CODE &&
              caught.esp == f.esp + 12,
          "parameters seen and released on both stacks: %x", caught.esp - f.esp);
    check(caught.fs == (DATA_SEL | 3) && caught.ds == USER_DATA, "data segments of ring 3 survive");
    gate_target(GATE_SEL, 0x8c, 3, CODE32, callee);
    expect("gate of DPL 0 from ring 3", &f, 13, GATE_SEL);
    gate_target(GATE_SEL, 0x6c, 3, CODE32, callee);
    expect("gate not present", &f, 11, GATE_SEL);
    gate_target(GATE_SEL, 0xec, 0, DATA32, callee);
    expect("gate to data", &f, 13, DATA32);
    gate_target(GATE_SEL, 0xec, 0, 0, callee);
    expect("gate to nothing", &f, 13, 0);
    f = transfer(far_jump, 3, 0, GATE_SEL | 3);
    gate_target(GATE_SEL, 0xec, 0, CODE32, callee);
    expect("JMP through a gate to ring 0", &f, 13, CODE32);
    gate_target(GATE_SEL, 0xec, 0, gdt_set(CODE_SEL, 0, 0xfffff, 0x9e, 12), callee);
    expect("JMP through a gate to conforming code", &f, 3, 0);
    check(caught.cs == (CODE_SEL | 3), "in ring 3: CS %x", caught.cs);
    f = transfer(far_call, 0, 0, GATE_SEL);
    gate_target(GATE_SEL, 0x8c, 4, CODE32, callee);
    expect("gate without a change of privilege", &f, 3, 0);
    check(caught.ebp == f.esp - 8, "copies no parameters");
    gate_target(GATE_SEL, 0x8c, 0, USER_CODE & ~3, callee);
    expect("gate outwards", &f, 13, USER_CODE & ~3);
}

static void bad_stacks(void)
{
    struct frame f = transfer(far_call, 3, 0, GATE_SEL);
    u32 ss0 = tss.ss0;

    gate_target(GATE_SEL, 0xec, 0, gdt_set(CODE1_SEL, 0, 0xfffff, 0xbb, 12) & ~3, callee); /* ring 1 */
    tss.ss1 = gdt_set(STACK1_SEL, (u32)area, 0xffff, 0xb3, 4);
    tss.esp1 = 0x8000;
    expect("call gate to ring 1", &f, 3, 0);
    check(caught.cs == (CODE1_SEL | 1) && caught.ss == (STACK1_SEL | 1) && caught.esp == 0x8000 - 16,
          "CS %x SS %x ESP %x", caught.cs, caught.ss, caught.esp);
    tss.ss1 = STACK1_SEL;
    expect("stack with the wrong RPL", &f, 10, STACK1_SEL);
    tss.ss1 = 0;
    expect("null stack", &f, 10, 0);
    tss.ss1 = 0x7ff9;
    expect("stack beyond the GDT", &f, 10, 0x7ff8);
    tss.ss1 = gdt_set(STACK1_SEL, (u32)area, 0xffff, 0x33, 4);
    expect("stack not present", &f, 12, STACK1_SEL);
    tss.ss1 = gdt_set(STACK1_SEL, (u32)area, 0xffff, 0xb3, 4);
    tss.esp1 = 8;
    expect("stack too small", &f, 12, STACK1_SEL);
    check(caught.cs == USER_CODE && tss.ss0 == ss0, "the fault is the caller's");
}

static void gates16(void)
{
    struct frame f = transfer(far_call, 3, 0, GATE_SEL);

    gdt_set(CODE_SEL, (u32)callee16, 0xffff, 0x9b, 0);
    gate_target(GATE_SEL, 0xe4, 1, CODE_SEL, 0);
    f.cs = gdt_set(CODE1_SEL, (u32)far_call, 0xffff, 0xfb, 4);
    f.eip = 0;
    f.ss = gdt_set(STACK1_SEL, (u32)area, 0xffff, 0xf3, 0);
    f.esp = 0x8000;
    *(u16 *)(area + 0x8000) = 0x4242;
    expect("16-bit call gate to ring 0 and back", &f, 3, 0);
    check((u16)caught.eax == 0x4242 && (u16)caught.esp == 0x8002 && (u16)caught.ecx == CODE_SEL,
          "with one word copied: %x SP %x", (u16)caught.eax, caught.esp);
}

static void returns(void)
{
    struct frame f = frame_at(far_return, 0);
    u32 *s = (u32 *)(f.esp -= 32);

    s[0] = (u32)end;
    s[1] = USER_CODE;
    s[2] = 0x5000;
    s[3] = USER_DATA;
    f.fs = DATA32;
    f.gs = USER_DATA;
    expect("RET to ring 3", &f, 3, 0);
    check(caught.cs == USER_CODE && caught.esp == 0x5000 && caught.fs == 0 && caught.ds == 0 && caught.gs == USER_DATA,
          "data segments of DPL 0 become null");
    s[1] = USER_CODE & ~3;
    expect("RET with RPL 0 to DPL 3", &f, 13, USER_CODE & ~3);
    s[1] = USER_CODE;
    s[3] = DATA32;
    expect("RET with a stack of ring 0", &f, 13, DATA32);
    s[3] = 0;
    expect("RET with a null stack", &f, 13, 0);
    s[1] = 0;
    expect("RET to a null selector", &f, 13, 0);
    f = frame_at(far_return, 3);
    s = (u32 *)f.esp;
    s[0] = (u32)end;
    s[1] = CODE32;
    expect("RET inwards", &f, 13, CODE32);
    f = frame_at(irets, 0);
    s = (u32 *)(f.esp -= 32);
    s[0] = (u32)end;
    s[1] = USER_CODE;
    s[2] = 0x247ed7 & ~0x4100;
    s[3] = 0x5000;
    s[4] = USER_DATA;
    expect("IRET to ring 3", &f, 3, 0);
    check((caught.eflags & 0x243ed7) == (0x243ed7 & ~0x100), "with its flags: %x", caught.eflags);
    f.fs = 3;
    f.gs = 1;
    f.es = 2;
    expect("IRET to ring 3 with null selectors", &f, 3, 0);
    check(!caught.fs && !caught.gs && !caught.es, "which lose their RPL: FS %x GS %x ES %x", caught.fs, caught.gs, caught.es);
    f = frame_at(irets, 3);
    s = (u32 *)f.esp;
    s[0] = (u32)end;
    s[1] = USER_CODE;
    s[2] = 0x3202;
    expect("IRET in ring 3", &f, 3, 0);
    check((caught.eflags & 0x3200) == 0, "changes neither IF nor IOPL: %x", caught.eflags);
    f = frame_at(iretw16, 0);
    f.cs = gdt_set(CODE_SEL, (u32)iretw16, 0xffff, 0x9b, 0);
    f.eip = 0;
    *(u16 *)(f.esp) = 1 + (iretw16[0] == 0x66);
    *(u16 *)(f.esp + 2) = CODE_SEL;
    *(u16 *)(f.esp + 4) = 2;
    expect("16-bit IRET in 16-bit code", &f, 3, 0);
    check(caught.esp == f.esp + 6, "three words popped");
}

static void sixteen_bit_code(void)
{
    struct frame f = frame_at(in16, 0);

    f.cs = gdt_set(CODE_SEL, (u32)in16, 0xffff, 0x9b, 0);
    f.eip = 0;
    expect("16-bit code on a 32-bit stack", &f, 3, 0);
    check(caught.ecx == 0x12345679 && (u16)caught.edx == 0x5679 && caught.esp == f.esp, "operand sizes");
    f.cs = gdt_set(CODE_SEL, (u32)enter16, 0xffff, 0x9b, 0);
    f.ebp = (f.esp & 0xffff0000) | 0x1234; /* ENTER changes BP alone, LEAVE moves all of EBP to ESP */
    expect("16-bit ENTER on a 32-bit stack", &f, 3, 0);
    check(caught.esp == f.esp && (u16)caught.ebp == 0x1234, "and LEAVE: %x", caught.esp - f.esp);
}

static void old_instructions(void)
{
    static int pair[2] = {-5, 9};
    struct frame f = frame_at(pushas, 3);

    f.edi = 0x77;
    f.ebp = 0x66;
    expect("PUSHA, POPA", &f, 3, 0);
    check(caught.ebx == 0 && caught.edi == 0x77 && caught.ebp == 0x66 && caught.esp == f.esp, "registers are back");
    check(*(u32 *)(f.esp - 20) == f.esp, "PUSHA stored the old ESP");
    f = frame_at(enters, 3);
    f.ebp = (u32)area + 0x100;
    *(u32 *)(area + 0xfc) = 0x1111;
    *(u32 *)(area + 0xf8) = 0x2222;
    expect("ENTER of level 3", &f, 3, 0);
    check(caught.ecx == f.esp - 16 - 8 && *(u32 *)(f.esp - 8) == 0x1111 && *(u32 *)(f.esp - 12) == 0x2222 &&
              *(u32 *)(f.esp - 16) == f.esp - 4 && caught.ebp == f.ebp, "display copied");
    f = frame_at(bounds, 0);
    f.esi = (u32)pair;
    f.eax = (u32)-5;
    expect("BOUND at the lower bound", &f, 3, 0);
    f.eax = 10;
    expect("BOUND above", &f, 5, 0);
    check(caught.eip == (u32)bounds, "#BR points at it");
    f = frame_at(into, 3);
    expect("INTO from ring 3 through a gate of DPL 0", &f, 13, 4 * 8 + 2);
    idt[4] |= (u64)0x60 << 40;
    expect("INTO", &f, 4, 0);
    f = transfer(les_lss, 0, 0xabcd, DATA32);
    expect("LES, LGS", &f, 3, 0);
    check(caught.es == DATA32 && caught.gs == DATA32 && caught.eax == 0xabcd && caught.ecx == 0xabcd,
          "pointers loaded");
    f = transfer(les_lss, 0, 0xabcd, 0x7ff8);
    expect("LES of a bad selector", &f, 13, 0x7ff8);
    check(caught.eax == 0 && caught.es == DATA32, "changes nothing");
    f = frame_at(decimal, 0);
    expect("DAA, AAA, AAM, AAD", &f, 3, 0);
    check((u8)caught.ebx == 0x14 && (u16)caught.ecx == 0x0104 && (u16)caught.edx == 0x0603 && (u16)caught.eax == 63,
          "%x %x %x %x", (u8)caught.ebx, (u16)caught.ecx, (u16)caught.edx, (u16)caught.eax);
    f = frame_at(salc, 0);
    expect("SALC", &f, 3, 0);
    check((u8)caught.eax == 0xff, "AL is CF");
    f = frame_at(short_loop, 0);
    f.ecx = 0x10003;
    expect("LOOP with 16-bit addresses", &f, 3, 0);
    check(caught.eax == 3 && caught.ecx == 0x10000, "counts CX: %x", caught.ecx);
}

static void strings(void)
{
    struct frame f = frame_at(stos16, 0);

    fill(area, 0, sizeof(area));
    f.es = gdt_set(DATA_SEL, (u32)area, 0xfffff, 0x93, 12);
    f.edi = 0x5555fffc;
    f.ecx = 0x66660008;
    f.eax = 0x99;
    expect("STOSB with 16-bit addresses", &f, 3, 0);
    check(area[0xfffb] == 0 && area[0xfffc] == 0x99 && area[3] == 0x99 && area[4] == 0 && area[0x10000] == 0 &&
              caught.edi == 0x55550004 && caught.ecx == 0x66660000,
          "DI and CX alone count: %x %x", caught.edi, caught.ecx);
    f = frame_at(movs_down, 0);
    for (u32 n = 0; n < 64; n++)
        ((u32 *)area)[n] = n;
    f.esi = (u32)&((u32 *)area)[10];
    f.edi = (u32)&((u32 *)area)[12];
    f.ecx = 8;
    expect("MOVSD downwards over itself", &f, 3, 0);
    check(((u32 *)area)[12] == 10 && ((u32 *)area)[5] == 3 && ((u32 *)area)[4] == 4 &&
              caught.esi == (u32) & ((u32 *)area)[2],
          "copied");
    f = frame_at(stos16, 0);
    f.es = gdt_set(DATA_SEL, (u32)area, 0x103, 0x93, 4);
    f.edi = 0x100;
    f.ecx = 8;
    expect("STOSB runs into the limit", &f, 13, 0);
    check((u16)caught.edi == 0x104 && (u16)caught.ecx == 4 && caught.eip == (u32)stos16, "after four bytes");
    f.ecx = 0;
    f.edi = 0x5000;
    expect("count 0 beyond the limit", &f, 3, 0);
}

static void queries(const char *name, u16 sel, u32 lar, u32 lsl, u32 bits)
{
    struct frame f = frame_at(selectors, 3);
    u32 got;

    f.eax = sel;
    expect(name, &f, 3, 0);
    got = (caught.edx & 1) | (caught.edx >> 8 & 1) << 1 | (caught.ebx & 1) << 2 | (caught.ebx >> 8 & 1) << 3;
    check(got == bits && (!(bits & 1) || caught.ecx == lar) && (!(bits & 2) || caught.esi == lsl),
          "LAR LSL VERR VERW: %x, %x %x", got, caught.ecx, caught.esi);
}

static void selector_instructions(void)
{
    struct frame f = frame_at(arpls, 3);

    queries("user data", USER_DATA, 0xcff300, 0xffffffff, 15);
    queries("user code", USER_CODE, 0xcffb00, 0xffffffff, 7);
    queries("kernel data", DATA32, 0, 0, 0);
    queries("null", 0, 0, 0, 0);
    queries("conforming code of DPL 0", gdt_set(DATA_SEL, 0, 0x1234, 0x9f, 4), 0x409f00, 0x1234, 7);
    queries("execute-only code of DPL 3", gdt_set(DATA_SEL, 0, 0x1234, 0xf9, 4), 0x40f900, 0x1234, 3);
    queries("not present data of DPL 3", gdt_set(DATA_SEL, 0, 5, 0x73, 12), 0xc07300, 0x5fff, 15);
    queries("TSS of DPL 3", gdt_set(DATA_SEL, 0, 0x67, 0xe9, 0), 0x00e900, 0x67, 3);
    gdt[DATA_SEL / 8] = gate(CODE32, 0, 0xec, 0);
    queries("call gate of DPL 3", DATA_SEL | 3, 0x00ec00, 0, 1);
    gdt[DATA_SEL / 8] = gate(CODE32, 0, 0xee, 0);
    queries("interrupt gate", DATA_SEL | 3, 0, 0, 0);
    f.eax = 3;
    f.ebx = 0x10;
    expect("ARPL raises", &f, 3, 0);
    check((u16)caught.ebx == 0x13 && (u8)caught.ecx == 1, "RPL %x", caught.ebx);
    f.eax = 1;
    f.ebx = 0x12;
    expect("ARPL leaves", &f, 3, 0);
    check((u16)caught.ebx == 0x12 && !(u8)caught.ecx, "RPL %x", caught.ebx);
}

/* ARPL demands a writable segment, whether or not it writes. */
static void arpl_in_memory(void)
{
    struct frame f = frame_at(arpl_memory, 0);

    *(u16 *)area = 0x10;
    f.fs = gdt_set(DATA_SEL, (u32)area, 0xfff, 0x93, 4);
    f.eax = 3;
    expect("ARPL of memory raises", &f, 3, 0);
    check(*(u16 *)area == 0x13 && (u8)caught.ecx == 1, "RPL %x", *(u16 *)area);
    expect("ARPL of memory leaves", &f, 3, 0);
    check(*(u16 *)area == 0x13 && (u8)caught.ecx == 0, "RPL %x", *(u16 *)area);
    f.fs = gdt_set(DATA_SEL, (u32)area, 0xfff, 0x91, 4);
    expect("ARPL of read-only memory that stays the same", &f, 3, 0); /* today's processors; the 80286 refuses */
    *(u16 *)area = 0x10;
    expect("ARPL of read-only memory that would change", &f, 13, 0);
}

/* 32-bit ENTER on a 16-bit stack: the frame's address is a difference of all 32 bits. */
static void enter_on_narrow_stack(void)
{
    struct frame f = frame_at(enter_narrow, 0);

    f.ss = gdt_set(DATA_SEL, (u32)area, 0x1ffff, 0x93, 0);
    f.esp = 0x30100;
    f.ebp = 0x1ffe0;
    fill(area, 0, 0x200);
    expect("32-bit ENTER on a 16-bit stack", &f, 3, 0);
    check(caught.ebp == 0x300fc && *(u32 *)(area + 0xfc) == 0x1ffe0 && *(u32 *)(area + 0xf4) == 0x300fc &&
              (u16)caught.esp == 0xe4, "frame at %x, SP %x", caught.ebp, (u16)caught.esp);
    f.esp = 0x30000;
    expect("32-bit ENTER at SP 0", &f, 3, 0);
    check(caught.ebp == 0x2fffc && *(u32 *)(area + 0xfffc) == 0x1ffe0, "frame at %x", caught.ebp);
}

static void ldt(void)
{
    static u64 table[4];
    struct frame f = frame_at(load_fs, 0);

    table[1] = descriptor((u32)area, 0xfff, 0x93, 4);
    gdt_set(LDT_SEL, (u32)table, 15, 0x82, 0);
    asm volatile("lldt %w0" : : "r"(LDT_SEL));
    f.eax = 0xc;
    expect("FS of the LDT", &f, 3, 0);
    f.eax = 0x14;
    expect("FS beyond the LDT", &f, 13, 0x14);
    asm volatile("lldt %w0" : : "r"(0));
    f.eax = 0xc;
    expect("FS of no LDT", &f, 13, 0xc);
}

static void alignment(void)
{
    struct frame f = frame_at(unaligned, 3);

    write_cr0(read_cr0() | 1 << 18);
    f.esi = (u32)area;
    f.eflags = 0x40002;
    expect("unaligned in ring 3 with AC and AM", &f, 17, 0);
    f.eflags = 2;
    expect("without AC", &f, 3, 0);
    f = frame_at(unaligned, 0);
    f.esi = (u32)area;
    f.eflags = 0x40002;
    expect("in ring 0", &f, 3, 0);
    write_cr0(read_cr0() & ~(1u << 18));
}

void guest_main(void)
{
    limits();
    code_segments();
    loads();
    stacks();
    direct_transfers();
    call_gates();
    bad_stacks();
    gates16();
    returns();
    sixteen_bit_code();
    old_instructions();
    strings();
    selector_instructions();
    arpl_in_memory();
    enter_on_narrow_stack();
    ldt();
    alignment();
}
