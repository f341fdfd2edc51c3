/* Entry of the bare-metal guests: PVH hands over in 32-bit protected mode, flat, paging off; leaves for long mode with the
 * first 4 GiB mapped one to one by 2 MiB pages, writable, supervisor. Application processors come through the trampoline, which
 * guest.c copies below 1 MiB. */
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
    mov %ebx, start_info
    mov $pml4, %eax
    mov %eax, %cr3
    call enter_long_mode
    ljmp $0x08, $start64

    /* long mode on, with the tables in CR3; still in 32-bit code */
enter_long_mode:
    mov %cr4, %eax
    or $0x620, %eax         /* PAE, OSFXSR, OSXMMEXCPT */
    mov %eax, %cr4
    mov $0xc0000080, %ecx
    rdmsr
    or $0x901, %eax         /* SCE, LME, NXE */
    wrmsr
    mov %cr0, %eax
    and $~0x4, %eax         /* EM */
    or $0x80010022, %eax    /* PG, WP, NE, MP */
    mov %eax, %cr0
    lgdt gdt_pointer
    ret

    .code64
start64:
    call segments_load
    mov $boot_stack_top, %rsp
    xor %ebp, %ebp
    call guest_start
1:  hlt
    jmp 1b

segments_load:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    ret

    /* Copied to AP_PAGE; runs there in real mode with CS = AP_PAGE >> 4. */
    .code16
    .globl ap_trampoline, ap_trampoline_end
ap_trampoline:
    cli
    xor %ax, %ax
    mov %ax, %ds
    lgdtl (AP_PAGE + ap_gdt_pointer - ap_trampoline)
    mov %cr0, %eax
    or $1, %eax
    mov %eax, %cr0
    ljmpl $0x18, $ap_start32
ap_gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt
ap_trampoline_end:

    .code32
ap_start32:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $ap_boot_stack_top, %esp
    mov $pml4, %eax
    mov %eax, %cr3
    call enter_long_mode
    ljmp $0x08, $ap_start64

    .code64
ap_start64:
    call segments_load
    mov ap_stack, %rsp
    call ap_main
1:  hlt
    jmp 1b

    /* Exception and interrupt entries: vector and error code (0 where the processor pushes none) into a common frame. */
    .macro vector n
    .globl vector_\n
    .balign 16
vector_\n:
    .if !(\n == 8 || (\n >= 10 && \n <= 14) || \n == 17 || \n == 21)
    push $0
    .endif
    push $\n
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

common:
    push %rax
    push %rcx
    push %rdx
    push %rbx
    push %rbp
    push %rsi
    push %rdi
    push %r8
    push %r9
    push %r10
    push %r11
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, %rdi
    cld
    call guest_interrupt
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rdi
    pop %rsi
    pop %rbp
    pop %rbx
    pop %rdx
    pop %rcx
    pop %rax
    add $16, %rsp
    iretq

    /* void enter_now(void *frame): goes on with all registers of the frame */
    .globl enter_now
enter_now:
    mov %rdi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rdi
    pop %rsi
    pop %rbp
    pop %rbx
    pop %rdx
    pop %rcx
    pop %rax
    add $16, %rsp
    iretq

    .section .rodata
    .globl vector_table
vector_table:
    .altmacro
    .macro vector_entry n
    .quad vector_\n
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
    .quad 0x00af9b000000ffff    /* 08 64-bit code */
    .quad 0x00cf93000000ffff    /* 10 data */
    .quad 0x00cf9b000000ffff    /* 18 32-bit code */
    .quad 0x00affb000000ffff    /* 20 64-bit user code */
    .quad 0x00cff3000000ffff    /* 28 user data */
    .quad 0x00cffb000000ffff    /* 30 32-bit user code */
    .quad 0x008f9b000000ffff    /* 38 16-bit code, 4 GiB limit */
    .quad 0x00009b000000ffff    /* 40 16-bit code, 64 KiB */
    .quad 0x000093000000ffff    /* 48 16-bit data, 64 KiB */
    .quad 0, 0                  /* 50 TSS of the boot CPU */
    .fill 16, 8, 0              /* 60… for tests */
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt
    .globl start_info, ap_stack
start_info:
    .long 0, 0
ap_stack:
    .quad 0

    .balign 4096
    .globl pml4
pml4:
    .quad pdpt + 7
    .fill 511, 8, 0
pdpt:
    .quad pd + 7, pd + 0x1007, pd + 0x2007, pd + 0x3007
    .fill 508, 8, 0
    .globl pd
pd:
    .set page, 0
    .rept 2048
    .quad page + 0x83
    .set page, page + 0x200000
    .endr

    .bss
    .balign 16
    .space 65536
boot_stack_top:
    .space 4096
ap_boot_stack_top:
    .section .note.GNU-stack, "", @progbits
