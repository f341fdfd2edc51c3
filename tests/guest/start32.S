/* Entry of the 32-bit bare-metal guests: PVH hands over in 32-bit protected mode, flat, paging off, and they stay there.
 * Also the exception entries, and enter_now, which starts test code with any registers. The frame is struct frame of
 * guest32.h; its offsets are known in both places. */
    .section .note.pvh, "a"
    .long 4, 4, 18          /* XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .long start32

    .section .text.start, "ax"
    .code32
    .globl start32
start32:
    cli
    mov $boot_stack_top, %esp
    lgdt gdt_pointer
    ljmp $0x08, $1f
1:  mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    call guest_start
2:  hlt
    jmp 2b

    /* Exception and interrupt entries: vector and error code (0 where the processor pushes none) into a common frame. */
    .macro vector n
    .balign 16
vector_\n:
    .if !(\n == 8 || (\n >= 10 && \n <= 14) || \n == 17 || \n == 21)
    pushl $0
    .endif
    pushl $\n
    jmp common
    .endm

    .altmacro
    .set n, 0
    .macro vector_expand n
    vector \n
    .endm
    .rept 256
    vector_expand %n
    .set n, n + 1
    .endr

    /* The stack may be any ring-0 segment of the GDT: finds where it is, and goes on on a flat one. */
common:
    pusha
    push %ds
    push %es
    push %fs
    push %gs
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    cld
    mov %esp, %ebx
    mov %ss, %esi
    mov %esp, %eax
    lar %esi, %ecx
    test $0x400000, %ecx
    jnz 1f
    movzwl %ax, %eax        /* a 16-bit stack */
1:  mov %esi, %ecx
    and $~7, %ecx
    mov gdt+2(%ecx), %edx
    and $0xffffff, %edx
    add %edx, %eax
    movzbl gdt+7(%ecx), %edx
    shl $24, %edx
    add %edx, %eax          /* linear address of the frame */
    cmp $0x10, %esi
    je 2f
    mov $0x10, %ecx
    mov %ecx, %ss
    mov $alien_stack_top, %esp
2:  push %esi
    push %ebx
    push %eax
    call guest_interrupt
    mov %esi, %ss
    mov %ebx, %esp
    pop %gs
    pop %fs
    pop %es
    pop %ds
    popa
    add $8, %esp
    iret

    /* void enter_now(void *frame) */
    .globl enter_now
enter_now:
    mov 4(%esp), %ecx
    testl $0x20000, 64(%ecx)
    jnz 1f
    testl $3, 60(%ecx)
    jnz 1f
    lss 68(%ecx), %esp      /* ring 0: IRET takes no stack */
    pushl 64(%ecx)
    pushl 60(%ecx)
    pushl 56(%ecx)
    pushl 12(%ecx)
    mov 0(%ecx), %gs
    mov 4(%ecx), %fs
    mov 8(%ecx), %es
    mov 16(%ecx), %edi
    mov 20(%ecx), %esi
    mov 24(%ecx), %ebp
    mov 32(%ecx), %ebx
    mov 36(%ecx), %edx
    mov 44(%ecx), %eax
    mov 40(%ecx), %ecx
    pop %ds
    iret
1:  mov %ecx, %esp
    pop %gs
    pop %fs
    pop %es
    pop %ds
    popa
    add $8, %esp
    iret

    .section .rodata
    .globl vector_table
vector_table:
    .altmacro
    .macro vector_entry n
    .long vector_\n
    .endm
    .set n, 0
    .rept 256
    vector_entry %n
    .set n, n + 1
    .endr

    .data
    .balign 16
    .globl gdt, gdt_end, gdt_pointer
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff    /* 08 code */
    .quad 0x00cf93000000ffff    /* 10 data */
    .quad 0x00009b000000ffff    /* 18 16-bit code, 64 KiB */
    .quad 0x000093000000ffff    /* 20 16-bit data, 64 KiB */
    .quad 0x00cffb000000ffff    /* 28 user code */
    .quad 0x00cff3000000ffff    /* 30 user data */
    .quad 0                     /* 38 TSS */
    .fill 32, 8, 0              /* 40… for tests */
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt

    .bss
    .balign 16
    .space 65536
boot_stack_top:
    .space 8192
alien_stack_top:
    .section .note.GNU-stack, "", @progbits
