/* The instruction trace: see insn_trace.h. */
#include "cpu/insn_trace.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/debug.h"
#include "cpu/debug_regs.h"
#include "cpu/decode.h"
#include "cpu/xstate.h"

#define REGISTERS_MAX 256
#define LINE_MAX 8192 /* an instruction that loads all registers, XRSTOR, fits */

struct vcpu_trace {
    u64 count, lin, rip; /* of the instruction under way */
    u16 cs;
    int code_size;
    bool wanted;
    bool primed;  /* the registers' first values are known */
    bool entered; /* an event was delivered since */
    u8 bytes[15];
    u64 len; /* how many of them could be read */
    u8 value[REGISTERS_MAX][DEBUG_REGISTER_BYTES_MAX];
    u64 xsave[XSAVE_AREA_SIZE / 8]; /* while it is the same, no vector register needs a look */
};

struct insn_trace {
    struct insn_trace_config config;
    int reg_count;
    struct debug_register reg[REGISTERS_MAX];
    ZydisFormatter formatter;
    struct vcpu_trace vcpu[VCPUS_MAX];
};

struct line {
    char text[LINE_MAX];
    size_t len;
    int changes;
};

int insn_trace_create(struct vcpu_group *g, const struct insn_trace_config *config, struct insn_trace **ret, struct err *e)
{
    enum debug_arch arch = debug_model_arch(g);
    struct insn_trace *t;

    if (!config)
        return 0;
    t = calloc(1, sizeof(*t));
    if (!t)
        return err_set(e, -ENOMEM, "instruction trace: out of memory");
    t->config = *config;
    while (t->reg_count < REGISTERS_MAX && debug_register_get(g, arch, t->reg_count, &t->reg[t->reg_count]))
        t->reg_count++;
    ZydisFormatterInit(&t->formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    *ret = t;
    return 0;
}

void insn_trace_free(struct insn_trace *t)
{
    free(t);
}

/* Behind the window there is nothing left to trace. */
static bool behind(const struct insn_trace *t, u64 count)
{
    return t->config.count && count >= t->config.from && count - t->config.from >= t->config.count;
}

bool insn_trace_steps(const struct vcpu *c)
{
    return c->group->insn_trace && !behind(c->group->insn_trace, c->retired);
}

static void line_add(struct line *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void line_add(struct line *l, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(l->text + l->len, sizeof(l->text) - l->len, fmt, ap);
    va_end(ap);
    l->len = MIN(l->len + (size_t)n, sizeof(l->text) - 1);
}

static void line_write(struct insn_trace *t, struct line *l)
{
    l->text[l->len++] = '\n';
    fwrite(l->text, 1, l->len, t->config.out);
}

/* Reads a register, and says whether it differs from what it was at the last look. */
static bool register_changed(struct vcpu *c, int n)
{
    struct insn_trace *t = c->group->insn_trace;
    u8 now[DEBUG_REGISTER_BYTES_MAX], *was = t->vcpu[c->index].value[n];

    debug_register_read(c, &t->reg[n], now);
    if (!memcmp(now, was, t->reg[n].bytes))
        return false;
    memcpy(was, now, t->reg[n].bytes);
    return true;
}

static bool vector_register(const struct debug_register *r)
{
    return r->type == DEBUG_FLOAT || r->feature == DEBUG_SSE || r->feature == DEBUG_AVX || r->feature == DEBUG_AVX512;
}

/* Calls changed() for each register that differs from what it was at the last look. */
static void registers_look(struct vcpu *c, void (*changed)(void *ctx, const struct debug_register *r, const u8 *value), void *ctx)
{
    struct insn_trace *t = c->group->insn_trace;
    struct vcpu_trace *v = &t->vcpu[c->index];
    bool same = !memcmp(v->xsave, c->s.xsave, sizeof(v->xsave));

    memcpy(v->xsave, c->s.xsave, sizeof(v->xsave));
    for (int n = 0; n < t->reg_count; n++)
        if (!(same && vector_register(&t->reg[n])) && register_changed(c, n))
            changed(ctx, &t->reg[n], v->value[n]);
    v->primed = true;
    v->entered = false;
}

static void change_ignore(void *ctx, const struct debug_register *r, const u8 *value)
{
}

static void line_begin(struct line *l, const struct vcpu *c, u64 count)
{
    l->len = 0;
    l->changes = 0;
    line_add(l, "%d %llu ", c->index, (unsigned long long)count);
}

/* Values are numbers, so most significant digits first, without leading zeros. */
static void change_add(void *ctx, const struct debug_register *r, const u8 *value)
{
    struct line *l = ctx;
    int top = r->bytes - 1;

    if (r->type == DEBUG_CODE_PTR)
        return;
    while (top && !value[top])
        top--;
    line_add(l, "%s %s=%x", l->changes++ ? "" : " ;", r->name, value[top]);
    while (top--)
        line_add(l, "%02x", value[top]);
}

/* What the delivery of an event changed. */
static void entered_write(struct vcpu *c)
{
    struct vcpu_trace *v = &c->group->insn_trace->vcpu[c->index];
    struct line l;

    line_begin(&l, c, v->count);
    line_add(&l, "event entered %04x:%llx", v->cs, (unsigned long long)v->rip);
    registers_look(c, change_add, &l);
    line_write(c->group->insn_trace, &l);
}

void insn_trace_begin(struct vcpu *c)
{
    struct insn_trace *t = c->group->insn_trace;
    struct vcpu_trace *v = &t->vcpu[c->index];

    v->wanted = c->retired >= t->config.from && !behind(t, c->retired);
    if (!v->wanted)
        return;
    ext_save(c);
    v->count = c->retired;
    v->lin = debug_next_linear(c);
    v->rip = c->s.gpr[RIP];
    v->cs = c->s.seg_sel[SEG_CS];
    v->code_size = c->code_size;
    v->len = debug_read(c, v->lin, v->bytes, sizeof(v->bytes));
    if (t->config.regs && !v->primed)
        registers_look(c, change_ignore, NULL);
    else if (t->config.regs && v->entered)
        entered_write(c);
}

static void insn_add(struct insn_trace *t, const struct vcpu_trace *v, struct line *l)
{
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    ZydisDecodedInstruction zi;
    char text[128] = "?", hex[31] = "";

    if (ZYAN_SUCCESS(ZydisDecoderDecodeFull(decoder_for(v->code_size), v->bytes, v->len, &zi, op))) {
        ZydisFormatterFormatInstruction(&t->formatter, &zi, op, zi.operand_count_visible, text, sizeof(text), v->rip, NULL);
        for (int n = 0; n < zi.length; n++)
            snprintf(hex + 2 * n, 3, "%02x", v->bytes[n]);
    }
    line_add(l, "%04x:%llx %-16s %s", v->cs, (unsigned long long)v->rip, hex, text);
}

void insn_trace_end(struct vcpu *c)
{
    struct insn_trace *t = c->group->insn_trace;
    struct vcpu_trace *v = &t->vcpu[c->index];
    struct line l;

    if (!v->wanted)
        return;
    ext_save(c);
    line_begin(&l, c, v->count);
    insn_add(t, v, &l);
    if (t->config.regs)
        registers_look(c, change_add, &l);
    line_write(t, &l);
}

void insn_trace_event(struct vcpu *c, const char *kind, int vector, bool has_error, u32 error)
{
    struct insn_trace *t = c->group->insn_trace;
    struct line l;

    t->vcpu[c->index].entered = true;
    if (c->retired < t->config.from || behind(t, c->retired))
        return;
    ext_save(c);
    line_begin(&l, c, c->retired);
    line_add(&l, "event %s %x", kind, vector);
    if (has_error)
        line_add(&l, " %x", error);
    line_write(t, &l);
}
