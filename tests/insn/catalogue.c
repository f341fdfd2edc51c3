/* Tries all encodings: see catalogue.h. SDM vol. 2 §2.1 (legacy and REX), §2.3 (VEX), §2.7 (EVEX). */
#include "catalogue.h"

#include <stdlib.h>
#include <string.h>

#include "cpu/decode.h"

#define REX_W 0x48
#define TAIL 8       /* bytes behind ModRM that any instruction may want */
#define FORMS_MAX 64 /* mnemonics that share an opcode */

enum { MOD_MEMORY, MOD_REGISTER };

/* The encodings that differ in their ModRM byte only: each mnemonic among them is kept once with memory and once without. */
struct family {
    struct catalogue *c;
    const ZydisDecoder *decoder;
    struct insn_template t;
    u16 seen[FORMS_MAX];
    u32 seen_count;
};

static bool seen(struct family *f, u16 mnemonic, bool memory)
{
    u16 key = (u16)(mnemonic << 1 | memory);

    for (u32 n = 0; n < f->seen_count; n++)
        if (f->seen[n] == key)
            return true;
    if (f->seen_count < FORMS_MAX)
        f->seen[f->seen_count++] = key;
    return false;
}

static void keep(struct catalogue *c, const struct insn_template *t)
{
    if (c->count == c->room) {
        c->room = c->room ? c->room * 2 : 16384;
        c->of = realloc(c->of, c->room * sizeof(*c->of));
        assert(c->of);
    }
    c->of[c->count++] = *t;
}

/* Tries f->t with `modrm`. True when the instruction has no ModRM byte, so that others need not be tried. */
static bool try_modrm(struct family *f, u8 modrm)
{
    u8 bytes[sizeof(f->t.bytes) + TAIL + 1];
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    ZydisDecodedInstruction zi;
    struct insn_template t = f->t;
    bool memory = modrm < 0xc0;

    memset(bytes, 0, sizeof(bytes));
    memcpy(bytes, t.bytes, t.len);
    bytes[t.len] = modrm;
    bytes[t.len + 1] = 0x18; /* a SIB byte with an index, as VSIB needs it */
    if (ZYAN_FAILED(ZydisDecoderDecodeFull(f->decoder, bytes, sizeof(bytes), &zi, op)))
        return false;
    if (zi.raw.prefix_count != t.prefixes + t.rex || (t.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY) != (zi.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY))
        return true; /* the opcode is a prefix, or LES or BOUND */
    t.mnemonic = (u16)zi.mnemonic;
    t.encoding = (u8)zi.encoding;
    t.memory = memory;
    if (zi.attributes & ZYDIS_ATTRIB_HAS_MODRM) {
        t.modrm = t.len;
        t.bytes[t.len++] = modrm;
    }
    if (!seen(f, t.mnemonic, memory))
        keep(f->c, &t);
    return !t.modrm;
}

/* rm: register numbers to try in register forms; memory forms use one that every address size has, and VSIB. */
static void try_family(struct family *f, int rm_count, int memory_rm)
{
    f->seen_count = 0;
    for (int reg = 0; reg < 8; reg++) {
        for (int rm = 0; rm < rm_count; rm++)
            if (try_modrm(f, (u8)(0xc0 | reg << 3 | rm)))
                return;
        if (try_modrm(f, (u8)(reg << 3 | memory_rm)))
            return;
    }
}

static void put(struct insn_template *t, u8 byte)
{
    t->bytes[t->len++] = byte;
}

static void start(struct family *f, u8 prefix, bool address_size, ZydisInstructionEncoding encoding)
{
    f->t = (struct insn_template){.encoding = (u8)encoding};
    if (address_size)
        put(&f->t, 0x67);
    if (prefix)
        put(&f->t, prefix);
    f->t.prefixes = f->t.len;
}

static void try_legacy(struct family *f, bool wide, u8 prefix, bool address_size)
{
    static const u8 maps[4][2] = {{0, 0}, {0x0f, 0}, {0x0f, 0x38}, {0x0f, 0x3a}};

    for (int map = 0; map < 4; map++) {
        for (u32 opcode = 0; opcode < 256; opcode++) {
            start(f, prefix, address_size, ZYDIS_INSTRUCTION_ENCODING_LEGACY);
            f->t.rex = wide;
            if (wide)
                put(&f->t, REX_W);
            for (int n = 0; n < 2 && maps[map][n]; n++)
                put(&f->t, maps[map][n]);
            put(&f->t, (u8)opcode);
            try_family(f, 8, address_size ? 4 : 7);
        }
    }
}

static const u8 vvvv_choices[] = {15, 10}; /* none, and a mask register that is neither index nor destination */

static void try_vex(struct family *f, bool wide, bool address_size)
{
    for (u32 n = 0; n < 3 * 256 * 4 * 2 * ARRAY_SIZE(vvvv_choices); n++) {
        u32 opcode = n & 255, map = 1 + (n >> 8) % 3, rest = (n >> 8) / 3, pp = rest & 3, l = rest >> 2 & 1;

        start(f, 0, address_size, ZYDIS_INSTRUCTION_ENCODING_VEX);
        put(&f->t, 0xc4);
        put(&f->t, (u8)(0xe0 | map));
        put(&f->t, (u8)(wide << 7 | vvvv_choices[rest >> 3] << 3 | l << 2 | pp));
        put(&f->t, (u8)opcode);
        try_family(f, 1, 4);
    }
}

static void try_evex(struct family *f, bool wide, bool address_size)
{
    static const u8 maps[5] = {1, 2, 3, 5, 6};

    for (u32 n = 0; n < 5 * 256 * 4 * 3 * 2; n++) {
        u32 opcode = n & 255, map = maps[(n >> 8) % 5], rest = (n >> 8) / 5, pp = rest & 3, l = (rest >> 2) % 3, k = (rest >> 2) / 3;

        start(f, 0, address_size, ZYDIS_INSTRUCTION_ENCODING_EVEX);
        put(&f->t, 0x62);
        put(&f->t, (u8)(0xf0 | map));
        put(&f->t, (u8)(wide << 7 | 0x7c | pp));
        put(&f->t, (u8)(l << 5 | 8 | k));
        put(&f->t, (u8)opcode);
        try_family(f, 1, 4);
    }
}

static int by_mnemonic(const void *a, const void *b)
{
    const struct insn_template *s = a, *t = b;

    return s->mnemonic - t->mnemonic;
}

static void sort(struct catalogue *c)
{
    u32 n = 0;

    qsort(c->of, c->count, sizeof(*c->of), by_mnemonic);
    for (u32 m = 0; m <= ZYDIS_MNEMONIC_MAX_VALUE + 1; m++) {
        c->first[m] = n;
        while (n < c->count && c->of[n].mnemonic == m)
            n++;
        if (n > c->first[m])
            c->mnemonics[c->mnemonic_count++] = (u16)m;
    }
}

struct catalogue *catalogue_create(int code_size)
{
    static const u8 prefixes[] = {0, 0x66, 0xf2, 0xf3};
    struct catalogue *c = calloc(1, sizeof(*c));
    struct family f = {.c = c, .decoder = decoder_for(code_size)};

    assert(c);
    for (int wide = 0; wide < 2; wide++) {
        for (size_t n = 0; n < ARRAY_SIZE(prefixes) && (code_size == 8 || !wide); n++)
            try_legacy(&f, wide, prefixes[n], false);
        try_vex(&f, wide, code_size == 2); /* VSIB has no 16-bit addresses */
        try_evex(&f, wide, code_size == 2);
    }
    sort(c);
    return c;
}

void catalogue_free(struct catalogue *c)
{
    if (c)
        free(c->of);
    free(c);
}
