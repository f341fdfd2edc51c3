/* Disassembly of guest blocks by Zydis: see dump.h. */
#include "cpu/dump.h"

#include "cpu/decode.h"
#include "cpu/xstate.h"

void dump_line(int indent, u64 address, const u8 *bytes, int len, const char *text, const char *note)
{
    char hex[15 * 3 + 1] = "";

    for (int n = 0; n < len; n++) {
        hex[n * 3] = "0123456789abcdef"[bytes[n] >> 4];
        hex[n * 3 + 1] = "0123456789abcdef"[bytes[n] & 15];
        hex[n * 3 + 2] = ' ';
        hex[n * 3 + 3] = 0;
    }
    dump_print("%*s%016llx  %-30s %s%s%s\n", indent, "", (unsigned long long)address, hex, text, *note ? "   ; " : "", note);
}

void dump_text(const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *op, u64 address, char *text)
{
    ZydisFormatter f;

    ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
    ZydisFormatterFormatInstruction(&f, zi, op, zi->operand_count_visible, text, DUMP_TEXT, address, NULL);
}

void dump_guest_code(struct vcpu *c, u64 lin, const u8 *bytes, u32 len)
{
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    ZydisDecodedInstruction zi;
    char text[DUMP_TEXT];

    ext_save(c);
    dump_begin();
    dump_print("vcpu %d: block of %u bytes, %d-bit, CPL %d\n", c->index, len, c->code_size * 8, c->s.cpl);
    for (u32 at = 0; at < len; at += zi.length) {
        if (ZYAN_FAILED(ZydisDecoderDecodeFull(decoder_for(c->code_size), bytes + at, len - at, &zi, op)))
            break; /* an illegal one ends its block */
        dump_text(&zi, op, lin + at, text);
        dump_line(2, lin + at, bytes + at, zi.length, text, "");
    }
    dump_end();
}
