/* Decoded instructions, kept: see decode_cache.h.
 *
 * The bytes of an instruction that come before its displacement, its head, say what follows and how long it is. What follows cannot be
 * mistaken for a part of the head: of two heads neither is the start of the other. That the tables here are right about an
 * opcode is checked when it is kept. */
#include "cpu/decode_cache.h"

#include <sys/mman.h>

#include "cpu/exec.h"

#define ENTRIES 2048u /* a power of two */

struct head {
    u64 bytes; /* the first in the lowest byte */
    int len;
    bool modrm;
};

struct entry {
    u64 head;
    struct insn insn;
    u8 code_size; /* 0: none */
    u8 disp_at, disp_size; /* bytes; size 0: it has none */
    u8 imm_at, imm_size;
    bool imm_signed;
};
static_assert(sizeof(struct entry) == 64, "a line of the host's cache");

struct decode_cache {
    struct entry entry[ENTRIES];
};

struct decode_cache *decode_cache_create(void)
{
    void *p = mmap(NULL, sizeof(struct decode_cache), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

void decode_cache_free(struct decode_cache *k)
{
    if (k)
        munmap(k, sizeof(*k));
}

/* ---- heads ---- */

enum { PLAIN, MODRM, PREFIX, OTHER }; /* what follows an opcode: nothing or an immediate; ModRM; it is none; left to Zydis */

#define P PLAIN
#define M MODRM
#define X PREFIX
#define O OTHER
static const u8 one_byte[256] = {
    M, M, M, M, P, P, P, P, M, M, M, M, P, P, P, O, /* 00 */
    M, M, M, M, P, P, P, P, M, M, M, M, P, P, P, P,
    M, M, M, M, P, P, X, P, M, M, M, M, P, P, X, P,
    M, M, M, M, P, P, X, P, M, M, M, M, P, P, X, P,
    P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, /* 40 */
    P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, P,
    P, P, O, M, X, X, X, X, P, M, P, M, P, P, P, P,
    P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, P,
    M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, O, /* 80 */
    P, P, P, P, P, P, P, P, P, P, O, P, P, P, P, P,
    O, O, O, O, P, P, P, P, P, P, P, P, P, P, P, P,
    P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, P,
    M, M, P, P, O, O, M, M, O, P, P, P, P, P, P, P, /* C0 */
    M, M, M, M, P, P, P, P, M, M, M, M, M, M, M, M,
    P, P, P, P, P, P, P, P, P, P, O, P, P, P, P, P,
    X, P, X, X, P, P, M, M, P, P, P, P, P, P, M, M,
};
static const u8 two_byte[256] = {
    M, M, M, M, P, P, P, P, P, P, P, P, P, M, P, O, /* 0F 00 */
    M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,
    O, O, O, O, O, O, O, O, M, M, M, M, M, M, M, M,
    P, P, P, P, P, P, P, P, O, P, O, P, P, P, P, P,
    M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, /* 0F 40 */
    M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,
    M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,
    M, M, M, M, M, M, M, P, M, M, M, M, M, M, M, M,
    P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, /* 0F 80 */
    M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,
    P, P, P, M, M, M, P, P, P, P, P, M, M, M, M, M,
    M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,
    M, M, M, M, M, M, M, M, P, P, P, P, P, P, P, P, /* 0F C0 */
    M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,
    M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,
    M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,
};
#undef P
#undef M
#undef X
#undef O

/* What follows the opcode that begins at bytes[*n], which ends at *n then. */
static int opcode_kind(const u8 *bytes, int *n)
{
    u8 byte = bytes[(*n)++];

    if (byte != 0x0f)
        return one_byte[byte];
    byte = bytes[(*n)++];
    if (byte == 0x38 || byte == 0x3a) {
        ++*n;
        return MODRM;
    }
    return two_byte[byte];
}

/* Of 15 bytes. False: Zydis has to look at them. */
static bool head_of(const u8 *bytes, int code_size, struct head *ret)
{
    int n = 0, kind;

    for (; one_byte[bytes[n]] == PREFIX; n++)
        if (n == 4 || (bytes[n] == 0x67 && code_size != 8))
            return false;
    n += code_size == 8 && (bytes[n] & 0xf0) == 0x40;
    kind = opcode_kind(bytes, &n);
    if (kind > MODRM)
        return false;
    ret->modrm = kind == MODRM;
    if (ret->modrm) {
        u8 modrm = bytes[n++];

        n += modrm < 0xc0 && (modrm & 7) == 4; /* SIB */
    }
    if (n > 8)
        return false;
    ret->len = n;
    ret->bytes = *(const u64_any *)bytes & ~0ull >> (64 - n * 8);
    return true;
}

/* ---- entries ---- */

static u32 place_of(u64 head)
{
    return head * 0x9e3779b97f4a7c15ull >> 40 & (ENTRIES - 1);
}

static u64 value_at(const u8 *bytes, int size, bool is_signed)
{
    switch (size) {
    case 1: return is_signed ? (u64)(s8)*bytes : *bytes;
    case 2: return is_signed ? (u64)(s16)*(const u16_any *)bytes : *(const u16_any *)bytes;
    case 4: return is_signed ? (u64)(s32)*(const u32_any *)bytes : *(const u32_any *)bytes;
    default: return *(const u64_any *)bytes;
    }
}

bool decode_cache_find(const struct decode_cache *k, const u8 *bytes, int code_size, struct insn *ret)
{
    const struct entry *t;
    struct head h;

    if (code_size == 2 || !head_of(bytes, code_size, &h))
        return false;
    t = &k->entry[place_of(h.bytes)];
    if (t->head != h.bytes || t->code_size != code_size)
        return false;
    *ret = t->insn;
    if (t->disp_size)
        ret->disp = (s32)value_at(bytes + t->disp_at, t->disp_size, true);
    if (t->imm_size)
        ret->imm = value_at(bytes + t->imm_at, t->imm_size, t->imm_signed);
    return true;
}

/* Whether the head is what Zydis found before displacement and immediate, and those are what decode_cache_find() can replace. */
static bool head_right(const struct head *h, const ZydisDecodedInstruction *zi)
{
    bool modrm = zi->attributes & ZYDIS_ATTRIB_HAS_MODRM;
    int len = h->len + (zi->raw.disp.size + zi->raw.imm[0].size) / 8;

    return zi->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && modrm == h->modrm && zi->length == len && !zi->raw.imm[1].size &&
           (!modrm || h->len == (zi->raw.sib.offset ? zi->raw.sib.offset : zi->raw.modrm.offset) + 1) &&
           (zi->raw.disp.size == 0 || zi->raw.disp.size == 8 || zi->raw.disp.size == 32);
}

/* Whether the handler goes by nothing but the head: those of shifts have forms of their own for some counts, vector instructions
 * their immediate in a stub. */
static bool chosen_by_head(const ZydisDecodedInstruction *zi, const struct insn *i)
{
    insn_choose_fn *group = choose_general(zi->mnemonic);

    return group && !i->aux && !(group == choose_shift && zi->raw.imm[0].size);
}

static bool has_pointer(const struct insn_source *src)
{
    for (int n = 0; n < src->zi->operand_count; n++)
        if (src->op[n].type == ZYDIS_OPERAND_TYPE_POINTER)
            return true;
    return false;
}

void decode_cache_keep(struct decode_cache *k, const struct insn_source *src, const struct insn *i)
{
    const ZydisDecodedInstruction *zi = src->zi;
    struct head h;

    if (src->code_size == 2 || !head_of(src->bytes, src->code_size, &h) || !head_right(&h, zi) || !chosen_by_head(zi, i) || has_pointer(src))
        return;
    k->entry[place_of(h.bytes)] = (struct entry){.head = h.bytes, .insn = *i, .code_size = (u8)src->code_size,
                                                 .disp_at = zi->raw.disp.offset, .disp_size = zi->raw.disp.size / 8,
                                                 .imm_at = zi->raw.imm[0].offset, .imm_size = zi->raw.imm[0].size / 8,
                                                 .imm_signed = zi->raw.imm[0].is_signed};
}
