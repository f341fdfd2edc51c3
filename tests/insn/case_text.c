/* Writing and reading cases: see case_text.h. */
#include "case_text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "generate.h"

#define LINE_MAX_LEN 65536

/* The fields that have names. */
static const struct {
    const char *name;
    u32 offset, size;
} fields[] = {
#define FIELD(name, f) {name, offsetof(struct insn_state, f), sizeof(((struct insn_state *)0)->f)}
    FIELD("rax", gpr[RAX]), FIELD("rcx", gpr[RCX]), FIELD("rdx", gpr[RDX]), FIELD("rbx", gpr[RBX]), FIELD("rsp", gpr[RSP]),
    FIELD("rbp", gpr[RBP]), FIELD("rsi", gpr[RSI]), FIELD("rdi", gpr[RDI]), FIELD("r8", gpr[R8]), FIELD("r9", gpr[R9]),
    FIELD("r10", gpr[R10]), FIELD("r11", gpr[R11]), FIELD("r12", gpr[R12]), FIELD("r13", gpr[R13]), FIELD("r14", gpr[R14]),
    FIELD("r15", gpr[R15]), FIELD("rip", rip), FIELD("flags", flags), FIELD("es", sel[SEG_ES]), FIELD("cs", sel[SEG_CS]),
    FIELD("ss", sel[SEG_SS]), FIELD("ds", sel[SEG_DS]), FIELD("fs", sel[SEG_FS]), FIELD("gs", sel[SEG_GS]),
    FIELD("fsbase", fs_base), FIELD("gsbase", gs_base),
#undef FIELD
};

static struct insn_case *plain_of(const struct insn_case *c, u64 components)
{
    struct insn_case *plain = aligned_alloc(64, sizeof(*plain));

    assert(plain);
    plain_case(c->code_size, components, plain);
    return plain;
}

/* Runs of bytes that differ, as PREFIX ADDRESS=BYTES. */
static void print_bytes(FILE *out, const char *format, u64 address, const u8 *p, const u8 *plain, u32 size)
{
    for (u32 n = 0; n < size; n++) {
        if (p[n] == plain[n])
            continue;
        fprintf(out, format, (unsigned long long)address + n);
        for (; n < size && p[n] != plain[n]; n++)
            fprintf(out, "%02x", p[n]);
    }
}

void case_print_state(FILE *out, const struct insn_case *c, u64 components)
{
    struct insn_case *plain = plain_of(c, components);

    fprintf(out, " ;");
    for (size_t n = 0; n < ARRAY_SIZE(fields); n++) {
        u64 val = 0, before = 0;

        memcpy(&val, (const u8 *)&c->s + fields[n].offset, fields[n].size);
        memcpy(&before, (const u8 *)&plain->s + fields[n].offset, fields[n].size);
        if (val != before)
            fprintf(out, " %s=%llx", fields[n].name, (unsigned long long)val);
    }
    print_bytes(out, " mem:%llx=", DATA_VA, c->data, plain->data, DATA_WRITABLE);
    print_bytes(out, " x:%llu=", 0, c->s.xsave, plain->s.xsave, XSAVE_AREA_SIZE);
    fprintf(out, "\n");
    free(plain);
}

void case_print(FILE *out, const struct insn_case *c, u64 components)
{
    fprintf(out, "%d", c->code_size * 8);
    for (int n = 0; n < c->len; n++)
        fprintf(out, " %02x", c->bytes[n]);
    case_print_state(out, c, components);
}

void case_print_assembly(FILE *out, const struct insn_case *c, const struct decoded *d)
{
    char text[128] = "no instruction";
    ZydisFormatter f;

    ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
    if (d->valid)
        ZydisFormatterFormatInstruction(&f, &d->zi, d->op, d->zi.operand_count_visible, text, sizeof(text), c->s.rip, NULL);
    fprintf(out, "%d-bit: %s", c->code_size * 8, text);
}

/* ---- reading ---- */

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Pairs of digits into to[0..room); how many bytes, or -1. */
static int parse_bytes(const char *p, u8 *to, u64 room)
{
    int n = 0;

    for (; *p; p += 2, n++) {
        int hi = hex_digit(p[0]), lo = hi < 0 ? -1 : hex_digit(p[1]);

        if (lo < 0 || (u64)n >= room)
            return -1;
        to[n] = (u8)(hi << 4 | lo);
    }
    return n;
}

static bool parse_area(const char *word, struct insn_case *c)
{
    bool memory = !strncmp(word, "mem:", 4);
    char *end;
    u64 at = strtoull(word + (memory ? 4 : 2), &end, memory ? 16 : 10) - (memory ? DATA_VA : 0);
    u64 size = memory ? DATA_WRITABLE : XSAVE_AREA_SIZE;

    return *end == '=' && at < size && parse_bytes(end + 1, (memory ? c->data : c->s.xsave) + at, size - at) > 0;
}

static bool parse_field(const char *word, struct insn_case *c)
{
    size_t len = strcspn(word, "=");

    if (!strncmp(word, "mem:", 4) || !strncmp(word, "x:", 2))
        return parse_area(word, c);
    for (size_t n = 0; n < ARRAY_SIZE(fields); n++) {
        u64 val;

        if (strlen(fields[n].name) != len || strncmp(fields[n].name, word, len) || word[len] != '=')
            continue;
        val = strtoull(word + len + 1, NULL, 16);
        memcpy((u8 *)&c->s + fields[n].offset, &val, fields[n].size);
        return true;
    }
    return false;
}

static bool parse_byte(const char *word, struct insn_case *c)
{
    return c->len < INSN_MAX && parse_bytes(word, c->bytes + c->len, 1) == 1 && ++c->len;
}

int case_parse(const char *line, u64 components, struct insn_case *c, struct err *e)
{
    char buffer[LINE_MAX_LEN], *save, *word;
    bool state = false;
    int bits;

    snprintf(buffer, sizeof(buffer), "%.*s", (int)strcspn(line, "#\n"), line);
    word = strtok_r(buffer, " ", &save);
    bits = word ? atoi(word) : 0;
    if (bits != 16 && bits != 32 && bits != 64)
        return err_set(e, -EINVAL, "a case starts with 16, 32 or 64, not with '%s'", word ? word : "");
    plain_case(bits / 8, components, c);
    while ((word = strtok_r(NULL, " ", &save))) {
        if (!strcmp(word, ";"))
            state = true;
        else if (!(state ? parse_field(word, c) : parse_byte(word, c)))
            return err_set(e, -EINVAL, "a case cannot have '%s'", word);
    }
    return 0;
}
