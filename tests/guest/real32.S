/* real_run: from 32-bit protected mode through 16-bit protected mode into real mode, there to code with the registers that
 * lie at REAL_REGS, and back with the registers at the first interrupt. Needs the low part copied to LOW (real_setup in
 * real.c) and vectors that lead to its stubs. The offsets are those of struct real_regs. */
    .set LOW, 0x6000
    .set REGS, 0x5000

    .text
    .code32
    .globl real_run
real_run:
    pusha
    pushf
    mov %esp, saved_esp
    sidt saved_idt
    lidt real_idt
    ljmp $0x18, $LOW

real_back:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov saved_esp, %esp
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    lidt saved_idt
    popf
    popa
    ret

    .code16
    .globl real_low, real_low_end, real_stubs
real_low:
    mov $0x20, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov %ax, %gs
    mov $0x10, %ax          /* FS keeps its 4 GiB limit: "unreal" mode */
    mov %ax, %fs
    mov %cr0, %eax
    and $~1, %eax
    mov %eax, %cr0
    ljmp $0, $(LOW + in_real - real_low)
in_real:
    xor %ax, %ax
    mov %ax, %ds
    lss REGS+16, %esp       /* SS follows at 20 */
    pushw REGS+36
    pushw REGS+42
    pushw REGS+32
    mov REGS+4, %ecx
    mov REGS+8, %edx
    mov REGS+12, %ebx
    mov REGS+24, %esi
    mov REGS+28, %edi
    mov REGS+60, %ebp
    mov REGS+40, %es
    mov REGS+48, %fs
    mov REGS+50, %gs
    mov REGS+0, %eax
    mov REGS+46, %ds
    iretw

    .balign 8
real_stubs:
    .set n, 0
    .rept 256
    .balign 8
    pushw $n
    jmp real_exit
    .set n, n + 1
    .endr
    .balign 8
real_exit:
    mov %eax, %cs:REGS+0
    mov %ecx, %cs:REGS+4
    mov %edx, %cs:REGS+8
    mov %ebx, %cs:REGS+12
    mov %ebp, %cs:REGS+60
    mov %esi, %cs:REGS+24
    mov %edi, %cs:REGS+28
    mov %es, %cs:REGS+40
    mov %ds, %cs:REGS+46
    mov %fs, %cs:REGS+48
    mov %gs, %cs:REGS+50
    mov %ss, %cs:REGS+20
    popw %cs:REGS+52
    popw %cs:REGS+32
    popw %cs:REGS+42
    popw %cs:REGS+36
    mov %esp, %cs:REGS+16
    cli
    mov %cr0, %eax
    or $1, %eax
    mov %eax, %cr0
    ljmpl $0x08, $real_back
real_low_end:

    .data
    .balign 4
saved_esp:
    .long 0
    .word 0
saved_idt:
    .word 0
    .long 0
    .word 0
real_idt:
    .word 0x3ff
    .long 0
    .section .note.GNU-stack, "", @progbits
