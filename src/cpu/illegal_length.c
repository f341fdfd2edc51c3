/* Lengths of undefined opcodes: see illegal_length.h. SDM vol. 2 §2.1 and appendix A for the maps; that undefined opcodes have a ModRM byte and
 * an immediate like their neighbours is what processors do. */
#include "cpu/illegal_length.h"

enum { MAP_ONE_BYTE, MAP_0F, MAP_0F38, MAP_0F3A, MAP_NONE };

struct length {
    const u8 *bytes;
    int at, avail, code_size;
    int opsize, addrsize;
    bool wide;
    int map;
    u8 opcode;
};

/* The next byte, 0 when it is not there: `at` grows all the same. */
static u8 next(struct length *l)
{
    int at = l->at++;

    return at < l->avail ? l->bytes[at] : 0;
}

static bool legacy_prefix(struct length *l, u8 byte)
{
    switch (byte) {
    case 0x66: l->opsize = l->code_size == 2 ? 4 : 2; return true;
    case 0x67: l->addrsize = l->code_size == 4 ? 2 : 4; return true;
    case 0x26: case 0x2e: case 0x36: case 0x3e: case 0x64: case 0x65: case 0xf0: case 0xf2: case 0xf3: return true;
    default: return false;
    }
}

/* Skips prefixes and returns the first byte behind them. */
static u8 skip_prefixes(struct length *l)
{
    for (;;) {
        u8 byte = next(l);

        if (legacy_prefix(l, byte)) {
            l->wide = false;
        } else if (l->code_size == 8 && (byte & 0xf0) == 0x40) {
            l->wide = byte & 8;
        } else {
            return byte;
        }
        if (l->at > l->avail)
            return 0;
    }
}

/* The payload byte behind C4 or 62 that makes a processor stop at once. */
static bool payload_illegal(u8 payload)
{
    return payload >= 0xc0 ? !(payload & 3) : !(payload & 0xc7);
}

/* For the length just two bits of the map count. With neither set processors stop early too, but not always at the same place. */
static int vector_map(u8 payload)
{
    static const u8 maps[4] = {MAP_NONE, MAP_0F, MAP_0F38, MAP_0F3A};

    return maps[payload & 3];
}

/* C4, C5 and 62 are LES, LDS and BOUND outside 64-bit mode if what follows would be a memory operand's ModRM byte. */
static bool is_vector_prefix(const struct length *l, u8 byte)
{
    return (byte == 0xc4 || byte == 0xc5 || byte == 0x62) &&
           (l->code_size == 8 || (l->at < l->avail && l->bytes[l->at] >= 0xc0));
}

static void find_opcode(struct length *l)
{
    u8 byte = skip_prefixes(l);

    l->map = MAP_ONE_BYTE;
    l->opcode = byte;
    if (is_vector_prefix(l, byte)) {
        u8 payload = next(l);

        l->map = byte == 0xc5 ? MAP_0F : vector_map(payload);
        l->opsize = l->code_size == 2 ? 2 : 4; /* a 66 prefix in front does not count */
        l->at += byte == 0xc5 ? 0 : byte == 0xc4 ? 1 : 2;
        l->opcode = next(l);
    } else if (byte == 0x0f) {
        l->opcode = next(l);
        l->map = l->opcode >> 3 != 7 ? MAP_0F : l->opcode & 2 ? MAP_0F3A : MAP_0F38; /* 39 and 3B to 3F would be more maps */
        if (l->map != MAP_0F)
            l->opcode = next(l);
    }
}

static bool one_byte_modrm(u8 op)
{
    if (op < 0x40)
        return !(op & 4);
    return (op >= 0x62 && op <= 0x63) || op == 0x69 || op == 0x6b || (op & 0xf0) == 0x80 || op == 0xc0 || op == 0xc1 ||
           (op >= 0xc4 && op <= 0xc7) || (op >= 0xd0 && op <= 0xd3) || op >> 3 == 0x1b || (op & 0xf6) == 0xf6;
}

static bool two_byte_modrm(u8 op)
{
    if (op >= 0x04 && op <= 0x0c)
        return false;
    return op != 0x0e && op != 0x0f && (op & 0xfc) != 0x24 && (op & 0xf0) != 0x30 && op != 0x77 && (op & 0xf0) != 0x80 && op != 0xa0 && op != 0xa1 && op != 0xa2 &&
           op != 0xa8 && op != 0xa9 && op != 0xaa && op >> 3 != 0x19;
}

static bool has_modrm(const struct length *l)
{
    if (l->map == MAP_ONE_BYTE)
        return one_byte_modrm(l->opcode);
    return l->map == MAP_0F ? two_byte_modrm(l->opcode) : true;
}

/* Skips what an operand in memory has behind ModRM; returns ModRM. */
static u8 skip_modrm(struct length *l)
{
    u8 modrm = next(l), mod = modrm >> 6, rm = modrm & 7;

    if (mod == 3)
        return modrm;
    if (l->addrsize == 2) {
        l->at += mod == 1 ? 1 : mod == 2 || rm == 6 ? 2 : 0;
        return modrm;
    }
    if (rm == 4)
        rm = next(l) & 7;
    l->at += mod == 1 ? 1 : mod == 2 || rm == 5 ? 4 : 0;
    return modrm;
}

static int one_byte_immediate(const struct length *l, u8 modrm)
{
    int z = l->opsize == 2 && !l->wide ? 2 : 4;
    u8 op = l->opcode;

    if (op < 0x40)
        return (op & 7) == 4 ? 1 : (op & 7) == 5 ? z : 0;
    switch (op) {
    case 0x6a: case 0x6b: case 0x80: case 0x82: case 0x83: case 0xa8: case 0xc0: case 0xc1: case 0xc6: case 0xcd:
    case 0xd4: case 0xd5: case 0xeb: return 1;
    case 0x68: case 0x69: case 0x81: case 0xa9: case 0xc7: case 0xe8: case 0xe9: return z;
    case 0xa0: case 0xa1: case 0xa2: case 0xa3: return l->addrsize;
    case 0xc2: case 0xca: return 2;
    case 0xc8: return 3;
    case 0x9a: case 0xea: return z + 2;
    case 0xf6: return modrm & 0x30 ? 0 : 1;
    case 0xf7: return modrm & 0x30 ? 0 : z;
    default: break;
    }
    if (op >> 3 == 0x17) /* MOV to a register */
        return l->wide ? 8 : z;
    return (op & 0xf0) == 0x70 || op >> 3 == 0x16 || op >> 3 == 0x1c ? 1 : 0;
}

static int two_byte_immediate(const struct length *l)
{
    switch (l->opcode) {
    case 0x70: case 0x71: case 0x72: case 0x73: case 0xa4: case 0xac: case 0xba: case 0xc2: case 0xc4:
    case 0xc5: case 0xc6: return 1;
    default: return (l->opcode & 0xf0) != 0x80 ? 0 : l->opsize == 2 && l->code_size != 8 ? 2 : 4;
    }
}

static struct length start(const u8 *bytes, int avail, int code_size)
{
    return (struct length){.bytes = bytes, .avail = avail, .code_size = code_size,
                           .opsize = code_size == 2 ? 2 : 4, .addrsize = code_size};
}

int illegal_length(const u8 *bytes, int avail, int code_size)
{
    struct length l = start(bytes, avail, code_size);
    u8 modrm = 0;

    find_opcode(&l);
    if (l.map == MAP_NONE || l.at > avail)
        return l.map == MAP_NONE ? MIN(l.at, avail) : l.at;
    if (l.map == MAP_0F && l.opcode >> 2 == 8) /* MOV to and from CRn and DRn: whatever mod is, it means a register */
        return l.at + 1;
    if (has_modrm(&l))
        modrm = skip_modrm(&l);
    if (l.map == MAP_ONE_BYTE)
        return l.at + one_byte_immediate(&l, modrm);
    return l.at + (l.map == MAP_0F ? two_byte_immediate(&l) : l.map == MAP_0F3A);
}

bool illegal_at_once(const u8 *bytes, int avail, int code_size)
{
    struct length l = start(bytes, avail, code_size);
    u8 byte = skip_prefixes(&l);

    if (byte == 0x0f && l.at < avail)
        return bytes[l.at] == 0x0f; /* 3DNow! */
    if (byte == 0x8f && l.at < avail)
        return bytes[l.at] & 0x38; /* XOP, or nothing */
    if (!is_vector_prefix(&l, byte) || byte == 0xc5 || l.at >= avail)
        return false;
    return payload_illegal(bytes[l.at]);
}
