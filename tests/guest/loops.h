/* The loops of the guest `loops`, and what may happen in them.
 *
 * RBX walks over the ways of each round, RSI over what it reads, RDI over what it writes; RCX counts down. A way of 1 is the usual one:
 * each loop has three blocks that go on by a jump then. Other ways leave by INT3, or change RBP and come back, or set the trap flag and come
 * back: all of them in code behind the loop. */
#ifndef LOOPS_H
#define LOOPS_H
#include "guest.h"

#define USUAL 1
#define LEAVE(block) (10 + (block))
#define DETOUR(block) (20 + (block))
#define STEP(block) (30 + (block))
#define WAY(block, on) "cmpq $1, (%rbx); jbe " on "; jmp 4" block "f;"
#define RARE(block, way, rsp)                                                                                          \
    "cmpl $1" block ", " way "; jne 8f; int3;"                                                                         \
    "8: cmpl $2" block ", " way "; jne 8f; add $0x1234, %ebp;"                                                         \
    "8: cmpl $3" block ", " way "; jne 8f; pushf; orl $0x100, " rsp "; popf; 8:"
#define COLD(block, on) "4" block ": " RARE(block, "(%rbx)", "(%rsp)") "jmp " on ";"
#define COLD_KEEPING_CARRY(block, on) "4" block ": setc %r9b;" RARE(block, "(%rbx)", "(%rsp)") "bt $0, %r9; jmp " on ";"
#define NEXT "add $8, %rsi; add $8, %rdi; add $8, %rbx;"

CODE(64, forward,
     "1: mov (%rbx), %rax; add %rax, %r8; cmp $1, %rax; jbe 2f; jmp 41f;"
     "2: mov (%rsi), %r13; xor %edx, %edx; lea (%r8), %rax; div %r13; add %rdx, %r14;" WAY("2", "3f")
     "3: add %r14, (%rdi); sbb $0, %r8;" WAY("3", "4f")
     "4:" NEXT "dec %rcx; jne 1b; int3;" COLD("1", "2b") COLD("2", "3b") COLD("3", "4b"));
/* Blocks in another order than they run in; the jump back goes forward. */
CODE(64, scattered,
     "jmp 1f;"
     "4:" NEXT "sub $1, %rcx; jne 1f; int3;"
     "3: add %r14, (%rdi); rol $5, %r8;" WAY("3", "4b")
     "2: mov (%rsi), %r13; xor %edx, %edx; mov %r8, %rax; div %r13; add %rdx, %r14;" WAY("2", "3b")
     "1: add (%rbx), %r8;" WAY("1", "2b")
     COLD("1", "2b") COLD("2", "3b") COLD("3", "4b"));
/* The last block leaves by its jump, and goes on with the first, which is behind it. */
CODE(64, behind,
     "jmp 1f;"
     "4:" NEXT "dec %rcx; je 9f;"
     "1: xor (%rbx), %r8;" WAY("1", "2f")
     "2: mov (%rsi), %rax; mul %r8; add %rdx, %r14;" WAY("2", "3f")
     "3: sub %r14, (%rdi);" WAY("3", "4b")
     "9: int3;" COLD("1", "2b") COLD("2", "3b") COLD("3", "4b"));
/* Nothing but a JMP leads back. */
CODE(64, by_jmp,
     "1: add (%rbx), %r8; jo 9f;" WAY("1", "2f")
     "2: mov (%rsi), %rax; add %rax, %r14;" WAY("2", "3f")
     "3: mov %r14, (%rdi); test %rcx, %rcx; js 9f;" WAY("3", "4f")
     "4:" NEXT "dec %rcx; je 9f; jmp 1b;"
     "9: int3;" COLD("1", "2b") COLD("2", "3b") COLD("3", "4b"));
CODE(64, counted,
     "1: add (%rbx), %r8;" WAY("1", "2f")
     "2: mov (%rsi), %r13; add %r13, %r14; jrcxz 9f;" WAY("2", "3f")
     "3: adc %r14, (%rdi);" WAY("3", "4f")
     "4:" NEXT "loop 1b; 9: int3;" COLD("1", "2b") COLD("2", "3b") COLD("3", "4b"));
/* The carry goes from each block to the next, and from the last to the first. What it writes has the base of what it reads. */
CODE(64, carry,
     "1: inc %r12; adc (%rsi), %r8; mov (%rbx), %rax; dec %rax; je 2f; jmp 41f;"
     "2: adc %r8, %r14; mov (%rbx), %rax; dec %rax; je 3f; jmp 42f;"
     "3: adc %r14, 0x10000(%rsi); mov (%rbx), %rax; dec %rax; je 4f; jmp 43f;"
     "4: lea 8(%rsi), %rsi; lea 8(%rbx), %rbx; dec %rcx; jne 1b; int3;"
     COLD_KEEPING_CARRY("1", "2b") COLD_KEEPING_CARRY("2", "3b") COLD_KEEPING_CARRY("3", "4b"));
/* The same by a JMP, behind a store, and with registers that compilers use least. */
CODE(64, stored,
     "1: inc %r12; adc (%rbx), %r9; mov (%rbx), %rax; dec %rax; je 2f; jmp 41f;"
     "2: adc (%rsi), %r10; adc %r9, %r10; mov (%rbx), %rax; dec %rax; je 3f; jmp 42f;"
     "3: adc %r10, %r9; adc %r9, %r11; mov (%rbx), %rax; dec %rax; je 4f; jmp 43f;"
     "4: lea 8(%rsi), %rsi; lea 8(%rdi), %rdi; lea 8(%rbx), %rbx; dec %rcx; je 9f; mov %r10, -8(%rdi); jmp 1b;"
     "9: int3;" COLD_KEEPING_CARRY("1", "2b") COLD_KEEPING_CARRY("2", "3b") COLD_KEEPING_CARRY("3", "4b"));
/* What it reads are addresses to write to: perhaps that of `patched`, in the same loop. */
CODE(64, patches,
     "1: mov (%rsi), %rax; movb $7, (%rax); add (%rbx), %r8;" WAY("1", "2f")
     "2: rol $3, %r14;" WAY("2", "3f")
     "3: .byte 0x49, 0x83, 0xc6; patched: .byte 1; mov %r14, (%rdi);" WAY("3", "4f") /* add $1, %r14 */
     "4:" NEXT "dec %rcx; jne 1b; int3;" COLD("1", "2b") COLD("2", "3b") COLD("3", "4b"));
CODE(64, vectors,
     "1: movq (%rbx), %xmm2; paddq %xmm2, %xmm3;" WAY("1", "2f")
     "2: movq (%rsi), %xmm1; paddq %xmm1, %xmm0;" WAY("2", "3f")
     "3: movq %xmm0, (%rdi);" WAY("3", "4f")
     "4:" NEXT "dec %rcx; jne 1b; int3;" COLD("1", "2b") COLD("2", "3b") COLD("3", "4b"));
CODE(64, x87,
     "1: fildq (%rbx); faddp;" WAY("1", "2f")
     "2: fildq (%rsi); faddp;" WAY("2", "3f")
     "3: fstl (%rdi);" WAY("3", "4f")
     "4:" NEXT "dec %rcx; jne 1b; int3;" COLD("1", "2b") COLD("2", "3b") COLD("3", "4b"));
/* By registers that compilers use least. */
CODE(64, registers,
     "1: mov (%rbx), %r9; add %r9, %r10; add (%rsi), %r11;" WAY("1", "2f")
     "2: xor %r11, %r15; xor %edx, %edx; mov %r15, %rax; divq (%rsi); add %rdx, %r10;" WAY("2", "3f")
     "3: mov %r10, (%rdi); mov %r15, %r9; sub %r9, %r11;" WAY("3", "4f")
     "4:" NEXT "dec %rcx; jne 1b; int3;" COLD("1", "2b") COLD("2", "3b") COLD("3", "4b"));
CODE(64, stack,
     "1: push %r8; add (%rbx), %r8;" WAY("1", "2f")
     "2: pushq (%rsi); add %r8, (%rsp);" WAY("2", "3f")
     "3: popq (%rdi); pop %r14; add %r14, %r8;" WAY("3", "4f")
     "4:" NEXT "dec %rcx; jne 1b; int3;" COLD("1", "2b") COLD("2", "3b") COLD("3", "4b"));
/* Operands of each kind that a loop can hold: static data, an index that moves, a base that moves, beside an index or not. R12 is 0, R13 1. */
CODE(64, held,
     "1: add 5f(%rip), %r8; add (%rsi, %r12, 8), %r8;" WAY("1", "2f")
     "2: add (%rbx), %r14;" WAY("2", "3f")
     "3: xor %r14, %r8;" WAY("3", "4f")
     "4: add $1, %r12; add $8, %rbx; dec %rcx; jne 1b; int3;"
     COLD("1", "2b") COLD("2", "3b") COLD("3", "4b") "5: .quad 77");
CODE(64, indexed,
     "1: add (%rsi, %r12, 8), %r8;" WAY("1", "2f")
     "2: xor -8(%rbx, %r13, 8), %r14;" WAY("2", "3f")
     "3: add %r14, %r8;" WAY("3", "4f")
     "4: inc %r12; add $8, %rbx; dec %rcx; jne 1b; int3;" COLD("1", "2b") COLD("2", "3b") COLD("3", "4b"));
/* Blocks and jumps of both kinds by the dozen. */
CODE(64, many,
     "1: mov (%rbx), %rax; jmp 5f;"
     "3: add (%rsi), %r14;" WAY("3", "6f")
     "5: add %rax, %r8;" WAY("1", "2f")
     "7: rol $7, %r8; jmp 4f;"
     "2: xor (%rsi), %r13; cmp %rsp, %rdi; ja 9f;" WAY("2", "3b")
     "4:" NEXT "cmp %rsp, %rsi; jae 9f; dec %rcx; jne 1b; int3;"
     "6: test %rcx, %rcx; js 9f; add %r13, (%rdi); cmp %rbx, %rdi; jne 7b;"
     "9: int3;" COLD("1", "2b") COLD("2", "3b") COLD("3", "6b"));

/* The same in 32-bit code. */
#define WAY32(block, on) "cmpl $1, (%ebx); jbe " on "; jmp 4" block "f;"
#define COLD32(block, on) "4" block ": " RARE(block, "(%ebx)", "(%esp)") "jmp " on ";"
CODE(32, forward32,
     "1: mov (%ebx), %eax; add %eax, %ebp;" WAY32("1", "2f")
     "2: xor %edx, %edx; mov %ebp, %eax; divl (%esi); add %edx, %ebp;" WAY32("2", "3f")
     "3: add %ebp, (%edi); sbb $0, %ebp;" WAY32("3", "4f")
     "4: add $8, %esi; add $8, %edi; add $8, %ebx; dec %ecx; jne 1b; int3;" COLD32("1", "2b") COLD32("2", "3b") COLD32("3", "4b"));

enum event {
    TO_ITS_END, LEAVES_1, LEAVES_2, LEAVES_3, DETOUR_1, DETOUR_2, DETOUR_3, TURNS_1, TURNS_2, TURNS_3, STEPS_1, STEPS_2, STEPS_3,
    NO_WAYS, NO_FROM, NO_TO, TO_READ_ONLY, DIVIDES, PATCHES, EVENTS
};
static const struct {
    u8 way, vector; /* of the round in which it happens; how the loop ends */
    bool ends, lasts; /* in that round; in all rounds from there on */
} events[EVENTS] = {
    [TO_ITS_END] = {USUAL, 3, 0, 0},
    [LEAVES_1] = {LEAVE(1), 3, 1, 0}, [LEAVES_2] = {LEAVE(2), 3, 1, 0}, [LEAVES_3] = {LEAVE(3), 3, 1, 0},
    [DETOUR_1] = {DETOUR(1), 3, 0, 0}, [DETOUR_2] = {DETOUR(2), 3, 0, 0}, [DETOUR_3] = {DETOUR(3), 3, 0, 0},
    [TURNS_1] = {DETOUR(1), 3, 0, 1}, [TURNS_2] = {DETOUR(2), 3, 0, 1}, [TURNS_3] = {DETOUR(3), 3, 0, 1},
    [STEPS_1] = {STEP(1), 3, 0, 0}, [STEPS_2] = {STEP(2), 3, 0, 0}, [STEPS_3] = {STEP(3), 3, 0, 0},
    [NO_WAYS] = {USUAL, 14, 1, 0}, [NO_FROM] = {USUAL, 14, 1, 0}, [NO_TO] = {USUAL, 14, 1, 0}, [TO_READ_ONLY] = {USUAL, 14, 1, 0},
    [DIVIDES] = {USUAL, 0, 1, 0}, [PATCHES] = {USUAL, 3, 0, 0},
};
#define NO_DIVISION (1u << DIVIDES)
#define NO_STORES (1u << NO_TO | 1u << TO_READ_ONLY)
extern u8 patched[];
static const struct loop {
    const char *name;
    const u8 *code, *end;
    u32 without; /* the events that it does not know */
    bool patches, narrow;
} loops[] = {
    {"forward", forward, forward_end, 0, 0, 0}, {"scattered", scattered, scattered_end, 0, 0, 0},
    {"behind", behind, behind_end, NO_DIVISION, 0, 0}, {"JMP", by_jmp, by_jmp_end, NO_DIVISION, 0, 0},
    {"LOOP", counted, counted_end, NO_DIVISION, 0, 0}, {"carry", carry, carry_end, NO_DIVISION, 0, 0},
    {"patches", patches, patches_end, NO_DIVISION, 1, 0}, {"vectors", vectors, vectors_end, NO_DIVISION, 0, 0},
    {"x87", x87, x87_end, NO_DIVISION, 0, 0}, {"registers", registers, registers_end, 0, 0, 0},
    {"stack", stack, stack_end, NO_DIVISION, 0, 0}, {"held", held, held_end, NO_DIVISION | NO_STORES, 0, 0},
    {"indexed", indexed, indexed_end, NO_DIVISION | NO_STORES, 0, 0}, {"stored", stored, stored_end, NO_DIVISION | NO_STORES, 0, 0},
    {"many", many, many_end, NO_DIVISION, 0, 0}, {"32-bit", forward32, forward32_end, 0, 0, 1},
};
#define LOOPS (sizeof(loops) / sizeof(loops[0]))

#endif
