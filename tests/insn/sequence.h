/* A sequence of instructions as a test case: pieces that are laid out in the code pages, with what refers to other pieces filled in, and
 * the state that it starts from. Pieces can be left out, moved and changed, and the sequence be laid out anew: for the generator, for
 * faults put into operands, and for shrinking. */
#ifndef TESTS_INSN_SEQUENCE_H
#define TESTS_INSN_SEQUENCE_H
#include "insn_case.h"

#define PIECES_MAX 520

enum piece_fix {
    FIX_NONE,
    FIX_REL8,    /* the field is a displacement to the piece `target` */
    FIX_REL16,
    FIX_REL32,
    FIX_ADDRESS, /* 32 bits: the address of that piece, and `plus` bytes */
    FIX_ADDRESS16,
    FIX_DATA,    /* 32 bits: the RIP-relative displacement of the address `plus` */
};

/* What makes an instruction of 32-bit code the same in 16-bit code. */
enum piece_lead { LEAD_66 = 1, LEAD_67 = 2, LEAD_BOTH = 3 };

/* One instruction. */
struct piece {
    u8 bytes[INSN_MAX];
    u8 len;
    u8 fix, fix_at;  /* enum piece_fix, and where the field is */
    s16 target;      /* number of a piece; the sequence's count or more: its end */
    u32 plus;
    bool joined;     /* it has to be right behind the piece before */
    u16 place;       /* where in the code pages it has to be, with a jump to there; 0: behind the piece before */
    u8 operand_at;   /* the 32-bit displacement or immediate that aims a memory operand at `operand`; 0: none can be aimed */
    bool operand_narrow; /* it has 16 bits */
    u8 operand_size;
    u8 lead;         /* prefixes that go before the bytes, of enum piece_lead; none after sequence_lead() */
    u32 operand;
};

struct sequence {
    struct insn_case c; /* state and data; its instruction does not count */
    int count;
    struct piece piece[PIECES_MAX];
    u16 at[PIECES_MAX + 1]; /* of pieces in the code pages, and of the end; from sequence_layout() */
    u8 code[CODE_SIZE];
    bool smc;           /* may change its own code */
};

/* Puts the prefixes where pieces have `lead`. */
void sequence_lead(struct sequence *q);

/* Fills in code, at, and the references. The first piece is where c.s.rip says. False: the pieces do not fit, or a jump does not reach. */
bool sequence_layout(struct sequence *q);

/* Aims the memory operand of piece n at another address. */
void sequence_aim(struct sequence *q, int n, u32 address);

/* Takes out piece n; jumps to it go to the next. */
void sequence_drop(struct sequence *q, int n);

#endif
