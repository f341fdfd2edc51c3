/* Disassembly of guest blocks by Zydis: see dump.h. */
#include "cpu/dump.h"

#include "base/trace.h"
#include "cpu/decode.h"
#include "cpu/xstate.h"

static void dump_line(struct vcpu *c, u64 lin, const u8 *bytes, const ZydisDecodedInstruction *zi,
                      const ZydisDecodedOperand *op, const ZydisFormatter *f)
{
    char text[128], hex[15 * 3 + 1] = "";

    for (int n = 0; n < zi->length; n++) {
        hex[n * 3] = "0123456789abcdef"[bytes[n] >> 4];
        hex[n * 3 + 1] = "0123456789abcdef"[bytes[n] & 15];
        hex[n * 3 + 2] = ' ';
        hex[n * 3 + 3] = 0;
    }
    ZydisFormatterFormatInstruction(f, zi, op, zi->operand_count_visible, text, sizeof(text), lin, NULL);
    trace_print(TRACE_CPU, "  %016llx  %-30s %s", (unsigned long long)lin, hex, text);
}

void dump_guest_code(struct vcpu *c, u64 lin, const u8 *bytes, u32 len)
{
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    ZydisDecodedInstruction zi;
    ZydisFormatter f;

    ext_save(c);
    ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
    trace_print(TRACE_CPU, "vcpu %d: block of %u bytes, %d-bit, CPL %d", c->index, len, c->code_size * 8, c->s.cpl);
    for (u32 at = 0; at < len; at += zi.length) {
        if (ZYAN_FAILED(ZydisDecoderDecodeFull(decoder_for(c->code_size), bytes + at, len - at, &zi, op)))
            return; /* an illegal one ends its block */
        dump_line(c, lin + at, bytes + at, &zi, op, &f);
    }
}
