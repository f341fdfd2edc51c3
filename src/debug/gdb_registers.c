/* The register file as packets, and its description for gdb: feature names, register names and types as in the gdb manual,
 * "Standard Target Features". */
#include "debug/gdb_session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const feature_names[DEBUG_FEATURES] = {
    [DEBUG_CORE] = "org.gnu.gdb.i386.core",         [DEBUG_SSE] = "org.gnu.gdb.i386.sse",
    [DEBUG_SEGMENTS] = "org.gnu.gdb.i386.segments", [DEBUG_AVX] = "org.gnu.gdb.i386.avx",
    [DEBUG_AVX512] = "org.gnu.gdb.i386.avx512",     [DEBUG_PKEYS] = "org.gnu.gdb.i386.pkeys",
    [DEBUG_SYSTEM] = "org.skerry.x86.system",
};

struct bit_name {
    const char *name;
    u8 first, last;
};

static const struct bit_name eflags_bits[] = {
    {"CF", 0, 0}, {"", 1, 1}, {"PF", 2, 2}, {"AF", 4, 4}, {"ZF", 6, 6}, {"SF", 7, 7}, {"TF", 8, 8}, {"IF", 9, 9}, {"DF", 10, 10},
    {"OF", 11, 11}, {"IOPL", 12, 13}, {"NT", 14, 14}, {"RF", 16, 16}, {"VM", 17, 17}, {"AC", 18, 18}, {"VIF", 19, 19},
    {"VIP", 20, 20}, {"ID", 21, 21}, {0}};
static const struct bit_name mxcsr_bits[] = {
    {"IE", 0, 0}, {"DE", 1, 1}, {"ZE", 2, 2}, {"OE", 3, 3}, {"UE", 4, 4}, {"PE", 5, 5}, {"DAZ", 6, 6}, {"IM", 7, 7},
    {"DM", 8, 8}, {"ZM", 9, 9}, {"OM", 10, 10}, {"UM", 11, 11}, {"PM", 12, 12}, {"RC", 13, 14}, {"FZ", 15, 15}, {0}};
static const struct bit_name cr0_bits[] = {
    {"PE", 0, 0}, {"MP", 1, 1}, {"EM", 2, 2}, {"TS", 3, 3}, {"ET", 4, 4}, {"NE", 5, 5}, {"WP", 16, 16}, {"AM", 18, 18},
    {"NW", 29, 29}, {"CD", 30, 30}, {"PG", 31, 31}, {0}};
static const struct bit_name cr4_bits[] = {
    {"VME", 0, 0}, {"PVI", 1, 1}, {"TSD", 2, 2}, {"DE", 3, 3}, {"PSE", 4, 4}, {"PAE", 5, 5}, {"MCE", 6, 6}, {"PGE", 7, 7},
    {"PCE", 8, 8}, {"OSFXSR", 9, 9}, {"OSXMMEXCPT", 10, 10}, {"UMIP", 11, 11}, {"LA57", 12, 12}, {"FSGSBASE", 16, 16},
    {"PCIDE", 17, 17}, {"OSXSAVE", 18, 18}, {"SMEP", 20, 20}, {"SMAP", 21, 21}, {"PKE", 22, 22}, {0}};
static const struct bit_name efer_bits[] = {{"SCE", 0, 0}, {"LME", 8, 8}, {"LMA", 10, 10}, {"NXE", 11, 11}, {0}};

static const struct {
    const char *id;
    const struct bit_name *bits;
    u8 type; /* enum debug_type */
} flag_types[] = {
    {"i386_eflags", eflags_bits, DEBUG_EFLAGS}, {"i386_mxcsr", mxcsr_bits, DEBUG_MXCSR}, {"x86_cr0", cr0_bits, DEBUG_CR0},
    {"x86_cr4", cr4_bits, DEBUG_CR4},           {"x86_efer", efer_bits, DEBUG_EFER},
};

/* The views of a 128-bit register. */
static const struct {
    const char *id, *element, *field;
    int count;
} vectors[] = {
    {"v4f", "ieee_single", "v4_float", 4}, {"v2d", "ieee_double", "v2_double", 2}, {"v16i8", "int8", "v16_int8", 16},
    {"v8i16", "int16", "v8_int16", 8},     {"v4i32", "int32", "v4_int32", 4},      {"v2i64", "int64", "v2_int64", 2},
};

static void vector_types(FILE *out)
{
    for (size_t n = 0; n < ARRAY_SIZE(vectors); n++)
        fprintf(out, "<vector id=\"%s\" type=\"%s\" count=\"%d\"/>\n", vectors[n].id, vectors[n].element, vectors[n].count);
    fprintf(out, "<union id=\"vec128\">\n");
    for (size_t n = 0; n < ARRAY_SIZE(vectors); n++)
        fprintf(out, "<field name=\"%s\" type=\"%s\"/>\n", vectors[n].field, vectors[n].id);
    fprintf(out, "<field name=\"uint128\" type=\"uint128\"/>\n</union>\n");
}

/* The size of the first register of this type in the feature; 0: it has none. */
static int type_bytes(const struct gdb_session *s, int feature, int type)
{
    for (int n = 0; n < s->reg_count; n++)
        if (s->reg[n].feature == feature && s->reg[n].type == type)
            return s->reg[n].bytes;
    return 0;
}

/* Types are a feature's own. */
static void types(const struct gdb_session *s, int feature, FILE *out)
{
    if (type_bytes(s, feature, DEBUG_VEC128))
        vector_types(out);
    if (type_bytes(s, feature, DEBUG_VEC256))
        fprintf(out, "<vector id=\"v2ui128\" type=\"uint128\" count=\"2\"/>\n");
    for (size_t n = 0; n < ARRAY_SIZE(flag_types); n++) {
        int bytes = type_bytes(s, feature, flag_types[n].type);

        if (!bytes)
            continue;
        fprintf(out, "<flags id=\"%s\" size=\"%d\">\n", flag_types[n].id, bytes);
        for (const struct bit_name *b = flag_types[n].bits; b->name; b++)
            fprintf(out, "<field name=\"%s\" start=\"%d\" end=\"%d\"/>\n", b->name, b->first, b->last);
        fprintf(out, "</flags>\n");
    }
}

static const char *int_type(int bytes)
{
    switch (bytes) {
    case 4: return "int32";
    case 8: return "int64";
    default: return "uint128";
    }
}

static const char *type_name(const struct debug_register *r)
{
    switch (r->type) {
    case DEBUG_CODE_PTR: return "code_ptr";
    case DEBUG_DATA_PTR: return "data_ptr";
    case DEBUG_FLOAT: return "i387_ext";
    case DEBUG_VEC128: return "vec128";
    case DEBUG_VEC256: return "v2ui128";
    }
    for (size_t n = 0; n < ARRAY_SIZE(flag_types); n++)
        if (flag_types[n].type == r->type)
            return flag_types[n].id;
    return int_type(r->bytes);
}

static void feature(const struct gdb_session *s, int feature, FILE *out)
{
    bool open = false;

    for (int n = 0; n < s->reg_count; n++) {
        const struct debug_register *r = &s->reg[n];

        if (r->feature != feature)
            continue;
        if (!open) {
            fprintf(out, "<feature name=\"%s\">\n", feature_names[feature]);
            types(s, feature, out);
            open = true;
        }
        fprintf(out, "<reg name=\"%s\" bitsize=\"%d\" type=\"%s\" regnum=\"%d\"%s/>\n", r->name, r->bytes * 8, type_name(r),
                n, feature == DEBUG_SYSTEM ? " group=\"system\"" : "");
    }
    if (open)
        fprintf(out, "</feature>\n");
}

char *gdb_description_create(const struct gdb_session *s)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    if (!out)
        return NULL;
    fprintf(out, "<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n<target version=\"1.0\">\n");
    fprintf(out, "<architecture>%s</architecture>\n", s->arch == DEBUG_X86_64 ? "i386:x86-64" : "i386");
    for (int n = 0; n < DEBUG_FEATURES; n++)
        feature(s, n, out);
    fprintf(out, "</target>\n");
    if (!fclose(out))
        return text;
    free(text);
    return NULL;
}

void gdb_registers_setup(struct gdb_session *s)
{
    while (debug_register_get(s->cpus, s->arch, s->reg_count, &s->reg[s->reg_count])) {
        s->reg_count++;
        assert(s->reg_count < GDB_REGISTERS_MAX);
    }
}

static const struct debug_register *pc_register(const struct gdb_session *s)
{
    for (int n = 0; n < s->reg_count; n++)
        if (s->reg[n].type == DEBUG_CODE_PTR)
            return &s->reg[n];
    assert(!"no instruction pointer");
    return NULL;
}

static u64 code_base(const struct gdb_session *s, struct vcpu *c)
{
    u8 bytes[DEBUG_REGISTER_BYTES_MAX] = {0};
    u64 rip;

    debug_register_read(c, pc_register(s), bytes);
    memcpy(&rip, bytes, 8);
    return s->linear_pc ? debug_next_linear(c) - rip : 0;
}

static void register_get(const struct gdb_session *s, struct vcpu *c, const struct debug_register *r, u8 *out)
{
    u64 pc = 0;

    debug_register_read(c, r, out);
    if (r->type != DEBUG_CODE_PTR || !s->linear_pc)
        return;
    pc = debug_next_linear(c);
    memcpy(out, &pc, r->bytes);
}

static bool register_set(const struct gdb_session *s, struct vcpu *c, const struct debug_register *r, const u8 *in)
{
    u64 pc = 0;

    if (r->type != DEBUG_CODE_PTR || !s->linear_pc)
        return debug_register_write(c, r, in);
    memcpy(&pc, in, r->bytes);
    pc -= code_base(s, c);
    return debug_register_write(c, r, (const u8 *)&pc);
}

u64 gdb_pc(const struct gdb_session *s, int cpu)
{
    u8 bytes[DEBUG_REGISTER_BYTES_MAX] = {0};
    u64 pc;

    register_get(s, vcpu_get(s->cpus, cpu), pc_register(s), bytes);
    memcpy(&pc, bytes, 8);
    return pc;
}

bool gdb_pc_set(struct gdb_session *s, int cpu, u64 pc)
{
    return register_set(s, vcpu_get(s->cpus, cpu), pc_register(s), (const u8 *)&pc);
}

void gdb_registers_read(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r)
{
    u8 bytes[DEBUG_REGISTER_BYTES_MAX];

    for (int n = 0; n < s->reg_count; n++) {
        register_get(s, gdb_general(s), &s->reg[n], bytes);
        reply_hex(r, bytes, s->reg[n].bytes);
    }
}

/* Registers that stay as they are, are not written: a read-only one is in every such packet. */
void gdb_registers_write(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r)
{
    u8 now[DEBUG_REGISTER_BYTES_MAX], wanted[DEBUG_REGISTER_BYTES_MAX];
    bool ok = true;

    for (int n = 0; n < s->reg_count && p->at < p->end && ok; n++) {
        ok = scan_bytes(p, wanted, s->reg[n].bytes);
        register_get(s, gdb_general(s), &s->reg[n], now);
        if (ok && memcmp(now, wanted, s->reg[n].bytes))
            ok = register_set(s, gdb_general(s), &s->reg[n], wanted);
    }
    reply_text(r, ok && p->at == p->end ? "OK" : GDB_ERROR_ARGUMENT);
}

void gdb_register_read(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r)
{
    u8 bytes[DEBUG_REGISTER_BYTES_MAX];
    u64 n;

    if (!scan_number(p, &n) || n >= (u64)s->reg_count) {
        reply_text(r, GDB_ERROR_ARGUMENT);
        return;
    }
    register_get(s, gdb_general(s), &s->reg[n], bytes);
    reply_hex(r, bytes, s->reg[n].bytes);
}

void gdb_register_write(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r)
{
    u8 bytes[DEBUG_REGISTER_BYTES_MAX];
    u64 n;
    bool ok = scan_number(p, &n) && n < (u64)s->reg_count && scan_char(p, '=') && scan_bytes(p, bytes, s->reg[n].bytes) &&
              register_set(s, gdb_general(s), &s->reg[n], bytes);

    reply_text(r, ok ? "OK" : GDB_ERROR_ARGUMENT);
}
