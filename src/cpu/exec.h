/* Handlers of general-purpose instructions, by group: each file exec_*.c supplies choosers, decode.c asks choose_general. */
#ifndef CPU_EXEC_H
#define CPU_EXEC_H
#include "cpu/decode.h"
#include "cpu/insn.h"

/* The chooser for a general-purpose mnemonic, or NULL: it is of the vector or system kind. */
insn_choose_fn *choose_general(ZydisMnemonic m);

insn_choose_fn choose_alu;      /* ADD OR ADC SBB AND SUB XOR CMP TEST INC DEC NEG NOT */
insn_choose_fn choose_muldiv;   /* MUL IMUL DIV IDIV MULX */
insn_choose_fn choose_shift;    /* SHL SHR SAR ROL ROR RCL RCR SHLD SHRD */
insn_choose_fn choose_bit;      /* BT BTS BTR BTC BSF BSR TZCNT LZCNT POPCNT CRC32, BMI1, BMI2, ADX */
insn_choose_fn choose_mov;      /* MOV MOVZX MOVSX MOVSXD LEA XCHG CMOVcc SETcc BSWAP MOVBE XLAT MOVNTI */
insn_choose_fn choose_convert;  /* CBW CWDE CDQE CWD CDQ CQO */
insn_choose_fn choose_branch;   /* near JMP CALL RET, Jcc, LOOP, JCXZ */
insn_choose_fn choose_stack;    /* PUSH POP PUSHA POPA PUSHF POPF ENTER LEAVE */
insn_choose_fn choose_string;   /* MOVS CMPS STOS LODS SCAS INS OUTS */
insn_choose_fn choose_flags;    /* CLC STC CMC CLD STD CLI STI LAHF SAHF SALC */
insn_choose_fn choose_bcd;      /* AAA AAS AAM AAD DAA DAS, BOUND */
insn_choose_fn choose_io;       /* IN OUT */
insn_choose_fn choose_atomic;   /* CMPXCHG CMPXCHG8B CMPXCHG16B XADD */
insn_choose_fn choose_nop;      /* NOP, hints, prefetches, fences */

/* Index of an operand size in handler tables: 1, 2, 4, 8 bytes to 0, 1, 2, 3. */
static inline int size_index(int size)
{
    return size == 8 ? 3 : size >> 1;
}

/* A condition code against the arithmetic flags in cc: SDM vol. 1 appendix B. */
static inline bool condition(const struct vcpu *c, u8 cond)
{
    u16 cc = c->cc;
    bool sf_ne_of = (cc >> 15 & 1) != (cc & 1), yes;

    switch (cond >> 1) {
    case 0: yes = cc & 1; break;                          /* O */
    case 1: yes = cc & FLAG_CF << 8; break;               /* B */
    case 2: yes = cc & FLAG_ZF << 8; break;               /* Z */
    case 3: yes = cc & (FLAG_CF | FLAG_ZF) << 8; break;   /* BE */
    case 4: yes = cc & FLAG_SF << 8; break;               /* S */
    case 5: yes = cc & FLAG_PF << 8; break;               /* P */
    case 6: yes = sf_ne_of; break;                        /* L */
    default: yes = sf_ne_of || cc & FLAG_ZF << 8; break;  /* LE */
    }
    return yes != (cond & 1);
}

#endif
