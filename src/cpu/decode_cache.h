/* Decoded instructions in the interpreter's form, by the bytes up to their displacement: the same come again and again, with other
 * displacements and immediates.
 *
 * For legacy encodings of 32-bit and 64-bit code, with addresses of that size; whatever else there is is decoded each time. */
#ifndef CPU_DECODE_CACHE_H
#define CPU_DECODE_CACHE_H
#include "cpu/insn.h"

struct decode_cache;

struct decode_cache *decode_cache_create(void); /* NULL: out of memory */
void decode_cache_free(struct decode_cache *k); /* NULL is fine */

/* The instruction at bytes[0..15) into *ret, for code of `code_size`; false: it is to be decoded. */
bool decode_cache_find(const struct decode_cache *k, const u8 *bytes, int code_size, struct insn *ret);

/* Keeps what was decoded from the 15 bytes of `src`, if it is of a kind that is kept, and what was chosen for it the same for all displacements
 * and immediates. */
void decode_cache_keep(struct decode_cache *k, const struct insn_source *src, const struct insn *i);

#endif
