/* Host, interpreter and translator: see seq_machines.h. */
#include "seq_machines.h"

#include <signal.h>
#include <string.h>
#include <sys/time.h>

#include "compare.h"
#include "cpu/cpuid.h"
#include "cpu/jit_cache.h"
#include "native.h"

#define STEPS_MAX 600
#define HANG_SECONDS 4 /* of CPU time: then the translator is taken to loop */

enum { INTERPRETER, TRANSLATOR, ENGINES };
static struct insn_guest *guests[ENGINES][2]; /* long mode; legacy */
static struct insn_guest *under_way;
static u64 runs, runs_at_tick;
static bool with_host; /* else the interpreter's steps are the measure */
static u64 retired; /* instructions of the last run */

/* What one machine made of a sequence. */
struct end {
    struct insn_outcome o;
    u8 code[CODE_SIZE];
};
static struct end host, ours;

static void on_tick(int sig)
{
    if (under_way && runs == runs_at_tick)
        guest_interrupt(under_way);
    runs_at_tick = runs;
}

static void watch(void)
{
    struct itimerval tick = {{HANG_SECONDS, 0}, {HANG_SECONDS, 0}};
    struct sigaction sa = {.sa_handler = on_tick, .sa_flags = SA_RESTART | SA_ONSTACK};

    sigaction(SIGVTALRM, &sa, NULL);
    setitimer(ITIMER_VIRTUAL, &tick, NULL);
}

int seq_machines_setup(u32 stress, bool windows, enum insn_guest_mode mode, struct err *e)
{
    static const enum cpu_engine engines[] = {CPU_ENGINE_INTERP, CPU_ENGINE_JIT};
    int r = 0;

    for (int n = 0; n < 2 * ENGINES && !r; n++) {
        struct insn_guest_config config = {.mode = mode, .legacy = n & 1 || mode != GUEST_PROTECTED, .engine = engines[n / 2], .stress = stress | STRESS_HOT,
                                           .windows = windows, .code_writable = true};

        r = guest_create(&config, &guests[n / 2][n & 1], e);
    }
    watch();
    with_host = mode == GUEST_PROTECTED;
    if (r || !with_host)
        return r;
    r = native_setup(e);
    if (!r)
        r = native_code_writable(e);
    for (int n = 0; n < 2 * ENGINES && !r; n++)
        guest_set_cpu_number_limit(guests[n / 2][n & 1], native_segment_limit(SEL_CPU_NUMBER));
    return r;
}

u64 seq_components(void)
{
    return guest_vcpu(guests[INTERPRETER][0])->group->model->xcr0_mask & 0xe7;
}

struct insn_guest *seq_guest(void)
{
    return guests[INTERPRETER][0];
}

void seq_forget_pages(void)
{
    for (int n = 0; n < 2 * ENGINES; n++)
        guest_forget_pages(guests[n / 2][n & 1]);
}

static void run(int engine, bool legacy, const struct sequence *q, u32 steps)
{
    struct insn_guest *g = guests[engine][legacy];
    u64 before = guest_vcpu(g)->retired;

    runs++;
    under_way = g;
    guest_run_code(g, &q->c, q->code, steps, &ours.o, ours.code);
    under_way = NULL;
    retired = guest_vcpu(g)->retired - before;
}

/* The instruction that ended the sequence stands for it where the comparison asks what was executed. */
static void last_insn(const struct sequence *q, const struct end *end, struct insn_case *c, struct decoded *d)
{
    u64 at;

    *c = q->c;
    c->s.rip = end->o.s.rip;
    c->s.flags |= end->o.s.flags & FLAG_NT; /* from POPF */
    c->len = INSN_MAX;
    memset(c->bytes, 0xcc, INSN_MAX);
    at = case_code_at(c);
    if (at < CODE_SIZE)
        memcpy(c->bytes, end->code + at, MIN(CODE_SIZE - at, (u64)INSN_MAX));
    case_decode(c, d);
}

static int compare_code(FILE *out)
{
    u32 n = 0;

    if (!memcmp(host.code, ours.code, CODE_SIZE))
        return 0;
    while (host.code[n] == ours.code[n])
        n++;
    if (out)
        fprintf(out, "  code    host %02x  ours %02x at %#llx\n", host.code[n], ours.code[n], (unsigned long long)CODE_VA + n);
    return 1;
}

static int compare_ends(const struct sequence *q, bool legacy, const char *who, FILE *out)
{
    static struct insn_case c;
    struct decoded d;
    struct comparison k = {.c = &c, .d = &d, .host = &host.o, .ours = &ours.o, .components = seq_components(), .legacy = legacy};
    int differences;

    if (ours.o.vector == INSN_ASTRAY) {
        if (out)
            fprintf(out, " %s:\n  does not end\n", who);
        return 1;
    }
    last_insn(q, &host, &c, &d);
    if (incomparable(&k)) /* where one faulted and the other went on, their code may differ as all else may */
        return 0;
    differences = compare(&k, NULL) + compare_code(NULL);
    if (out && differences) {
        fprintf(out, " %s:\n", who);
        compare(&k, out);
        compare_code(out);
    }
    return differences;
}

static bool at_end(const struct sequence *q)
{
    struct insn_case c = {.s = {.rip = host.o.s.rip - 1}};

    memcpy(c.s.sel, q->c.s.sel, sizeof(c.s.sel));
    return host.o.vector == EXC_BP && case_code_at(&c) == q->at[q->count];
}

/* Control went into the middle of an instruction, and found there what would call the host's kernel, or have it make something up. */
static bool calls_kernel(const struct sequence *q)
{
    static struct insn_case c;
    struct decoded d;

    if (ours.o.vector != EXC_GP && ours.o.vector != EXC_UD)
        return false;
    last_insn(q, &ours, &c, &d);
    return insn_classify(&c, &d) != INSN_COMPARE;
}

/* An instruction at that place of the code that the host left behind, for one of what processors do not agree on, as RDTSC. */
static bool tells_own_values(const struct sequence *q, u32 at)
{
    static struct insn_case c;
    struct decoded d;

    c = q->c;
    c.len = (int)MIN(CODE_SIZE - at, (u32)INSN_MAX);
    memcpy(c.bytes, host.code + at, (size_t)c.len);
    case_decode(&c, &d);
    return d.valid && insn_own_values(&d);
}

/* Whether the sequence has by its own writes become one that cannot be compared. */
static bool became_incomparable(const struct sequence *q)
{
    for (u32 n = 0; n < CODE_SIZE; n++)
        if (host.code[n] != q->code[n])
            for (u32 back = 0; back <= MIN(n, 2u); back++)
                if (tells_own_values(q, n - back))
                    return true;
    return false;
}

static int compare_retired(u64 want, const char *who, FILE *out)
{
    if (retired == want)
        return 0;
    if (out)
        fprintf(out, " %s:\n  counts %llu instructions, the interpreter %llu\n", who, (unsigned long long)retired,
                (unsigned long long)want);
    return 1;
}

/* The interpreter goes first, step by step: it can tell that a sequence would not end, or would enter the kernel, which the host should not try. */
struct seq_trial seq_try(const struct sequence *q, bool legacy, FILE *out)
{
    static const struct { const char *name; int engine; } others[] = {
        {"interpreter, in blocks", INTERPRETER}, {"translator", TRANSLATOR}, {"translator, again", TRANSLATOR}};
    struct seq_trial t = {.vector = INSN_ASTRAY};
    u64 want = 0;

    run(INTERPRETER, legacy, q, STEPS_MAX);
    if (ours.o.vector == INSN_ASTRAY || (with_host && calls_kernel(q)))
        return t;
    if (with_host)
        native_run_code(&q->c, q->code, &host.o, host.code);
    else
        host = ours;
    if (host.o.vector == INSN_ASTRAY || (with_host && became_incomparable(q)))
        return t;
    t.vector = host.o.vector;
    t.ended = at_end(q);
    if (with_host)
        t.differences = compare_ends(q, legacy, "interpreter, step by step", out);
    for (size_t n = 0; n < ARRAY_SIZE(others); n++) {
        run(others[n].engine, legacy, q, 0);
        t.differences += compare_ends(q, legacy, others[n].name, out);
        want = n ? want : retired;
        t.differences += compare_retired(want, others[n].name, out);
    }
    return t;
}

static void translated_add(struct seq_translated *t, const struct jit_counters *n)
{
    t->blocks += n->blocks;
    t->insns += n->retired;
    for (int m = 0; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++)
        t->slow += n->slow[m][JIT_SITE_INSN] + n->slow[m][JIT_SITE_LEFT];
    t->rare += n->interpreted[JIT_BLOCK_RARE];
    t->interpreted += n->interpreted[JIT_BLOCK_MODE] + n->interpreted[JIT_BLOCK_CROSSING] + n->interpreted[JIT_BLOCK_DEVICE];
}

struct seq_translated seq_translated(void)
{
    struct seq_translated t = {0};

    for (int n = 0; n < 2; n++)
        translated_add(&t, &guest_vcpu(guests[TRANSLATOR][n])->jit->counters);
    return t;
}
