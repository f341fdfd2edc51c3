/* From instruction bytes to struct insn, by Zydis. */
#ifndef CPU_DECODE_H
#define CPU_DECODE_H
#include "cpu/insn.h"

/* Decodes one instruction at bytes[0..avail) for code of `code_size` (2, 4, 8). Returns its length, or 0 when it needs more
 * bytes than there are. An illegal one gets a handler that raises #UD; one over 15 bytes, #GP(0). May save live extended registers (calls Zydis). */
int decode_insn(struct vcpu *c, const u8 *bytes, int avail, int code_size, struct insn *ret);

/* Once, before any decoding. */
void decode_setup(void);

/* The Zydis decoder for code of a size in bytes. */
const ZydisDecoder *decoder_for(int code_size);

/* Byte offset in gpr[] of a general register, of RIP, or of the zero register for any other. */
extern const u8 register_offsets[ZYDIS_REGISTER_MAX_VALUE + 1];
static inline u8 register_offset(ZydisRegister r)
{
    return register_offsets[r];
}

/* A general register of any size. */
static inline bool is_general(ZydisRegister r)
{
    return r >= ZYDIS_REGISTER_AL && r <= ZYDIS_REGISTER_R15;
}

/* The segment override of an instruction, or DS. */
u8 string_segment(const ZydisDecodedInstruction *zi);

#endif
