/* Every instruction that Zydis can decode in one code size: found by trying all encodings, sorted by mnemonic. */
#ifndef TESTS_INSN_CATALOGUE_H
#define TESTS_INSN_CATALOGUE_H
#include "base/types.h"

#include <Zydis/Zydis.h>

/* An encoding up to and with its ModRM byte; what follows is free. */
struct insn_template {
    u16 mnemonic; /* ZydisMnemonic */
    u8 encoding;  /* ZydisInstructionEncoding */
    u8 bytes[9];
    u8 len;
    u8 prefixes;  /* how many legacy prefixes come first; a REX or VEX or EVEX prefix is right behind them */
    u8 modrm;     /* where the ModRM byte is; 0: there is none */
    bool rex, memory;
};

struct catalogue {
    struct insn_template *of; /* sorted by mnemonic */
    u32 count, room;
    u32 first[ZYDIS_MNEMONIC_MAX_VALUE + 2]; /* of[first[m]] to of[first[m + 1] - 1] are those of mnemonic m */
    u16 mnemonics[ZYDIS_MNEMONIC_MAX_VALUE + 1]; /* those with templates */
    u32 mnemonic_count;
};

/* For code of `code_size` bytes: 2, 4, 8. Takes a fraction of a second. */
struct catalogue *catalogue_create(int code_size);
void catalogue_free(struct catalogue *c); /* NULL is fine */

#endif
