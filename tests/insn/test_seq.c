/* Random sequences of instructions, three ways: on the host's CPU, on the interpreter, on the translator, which translates what it meets at once.
 * Everything that a program can see must agree. See docs/CPU.md, "How it is checked".
 *
 * usage: test_seq [option]...
 *   --bits LIST     kinds of code: 64, 32, 16 (with commas); all if not given
 *   --count N       sequences of each kind; 20000 if not given
 *   --seed S        of the random numbers; the time if not given
 *   --smc           sequences that change their own code
 *   --faults        each memory operand of each sequence in turn is made to fault, in several ways
 *   --stress LIST   the translator under stress: flush, evict, smc, rename (with commas), as --stress of skerry run
 *   --windows       the translator reaches all user memory through windows, if there is room for them
 *   --mode MODE     v86, real: 16-bit code in virtual-8086 or real mode, the interpreter against the translator
 *   --case N        just sequence N of the seed, which is shown
 *   --fixed FILE    the sequences of a file instead of random ones
 *   --failures N    how many failures to report before giving up; 5 if not given */
#include "generate.h"
#include "random.h"
#include "seq_generate.h"
#include "seq_machines.h"
#include "seq_shrink.h"
#include "seq_text.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define EXIT_SKIP 77
#define STACK_DEPTH 5 /* words between the stack pointer and the edge, at most */
#define VARIATIONS 2 /* other states for each sequence */

static struct {
    u64 count, seed, failures_max;
    long long one; /* -1: all */
    const char *bits, *fixed, *stress, *mode;
    bool smc, faults, windows;
} options = {.count = 20000, .failures_max = 5, .one = -1, .bits = "64,32,16"};

static u64 failures, sequences, runs, ended;

static bool fails(void *ctx, const struct sequence *q)
{
    return seq_try(q, *(bool *)ctx, NULL).differences;
}

static void report(struct sequence *q, bool legacy)
{
    if (options.one >= 0) /* shrinking what hangs takes long */
        seq_try(q, legacy, stdout);
    sequence_shrink(q, seq_components(), fails, &legacy);
    sequence_print_assembly(stdout, q);
    seq_try(q, legacy, stdout);
    sequence_print(stdout, q, seq_components());
    fflush(stdout);
}

/* One run; counts it. */
static void check(const struct sequence *q, bool legacy, u64 number)
{
    static struct sequence copy;
    struct seq_trial t = seq_try(q, legacy, NULL);

    runs += t.vector != INSN_ASTRAY;
    ended += t.ended;
    if (!t.differences)
        return;
    failures++;
    printf("%d-bit %ssequence %llu of seed %llu differs:\n", q->c.code_size * 8, legacy ? "legacy " : "", (unsigned long long)number,
           (unsigned long long)options.seed);
    copy = *q;
    report(&copy, legacy);
}

/* The stack near all edges, so that each of the first pushes or pops in turn is the one that faults. */
static void check_stack_faults(struct sequence *q, bool legacy, u64 number)
{
    static const u32 edges[] = {0, DATA_WRITABLE, DATA_SIZE};
    u64 before = q->c.s.gpr[RSP];
    u32 word = q->c.code_size;

    for (size_t n = 0; n < ARRAY_SIZE(edges); n++)
        for (u32 words = 0; words < STACK_DEPTH; words++) {
            q->c.s.gpr[RSP] = DATA_VA + edges[n] + (edges[n] == DATA_SIZE ? -(u64)words : words) * word - seq_stack_base(&q->c);
            if (q->c.code_size != 8)
                q->c.s.gpr[RSP] &= 0xffffffff;
            check(q, legacy, number);
        }
    q->c.s.gpr[RSP] = before;
}

/* Every memory operand that can be aimed, at places where it faults: absent, half absent, read-only, half read-only. */
static void check_faults(const struct sequence *q, bool legacy, u64 number)
{
    static struct sequence copy;

    for (int n = 0; n < q->count; n++) {
        u32 size = q->piece[n].operand_size;
        const u32 targets[] = {(u32)(DATA_VA + DATA_SIZE + 64), (u32)(DATA_VA - size / 2), (u32)(DATA_VA + DATA_WRITABLE + 64),
                               (u32)(DATA_VA + DATA_WRITABLE - (size + 1) / 2)};

        if (!q->piece[n].operand_at)
            continue;
        for (size_t m = 0; m < ARRAY_SIZE(targets); m++) {
            copy = *q;
            sequence_aim(&copy, n, targets[m]);
            if (sequence_layout(&copy))
                check(&copy, legacy, number);
        }
    }
}

static void check_all(struct sequence *q, struct rng *r, u64 number)
{
    bool legacy = q->c.code_size != 8 && number & 1;
    struct insn_case before = q->c;

    sequences++;
    if (one_in(r, 8))
        seq_forget_pages();
    check(q, legacy, number);
    for (int n = 0; n < VARIATIONS; n++) {
        q->c = before;
        seq_vary_state(q, r);
        check(q, legacy, number);
    }
    q->c = before;
    if (options.faults) {
        check_faults(q, legacy, number);
        check_stack_faults(q, legacy, number);
    }
}

static int run_random(int bits, struct err *e)
{
    static struct seq_generator s;
    static struct sequence q;
    int r = seq_generator_setup(&s, bits / 8, options.seed, seq_components(), seq_guest(), e);

    if (r)
        return r;
    s.smc = options.smc;
    s.real = options.mode;
    for (u64 n = 0; n < options.count && failures < options.failures_max; n++) {
        u64 number = options.one >= 0 ? (u64)options.one : n;
        struct rng rest;

        seq_generate(&s, number, &q, &rest);
        if (options.one >= 0)
            sequence_print_assembly(stdout, &q);
        check_all(&q, &rest, number);
        if (options.one >= 0)
            break;
    }
    seq_generator_free(&s);
    return 0;
}

static int run_all_random(struct err *e)
{
    for (const char *p = options.bits; *p; p += strcspn(p, ","), p += *p == ',') {
        int bits = atoi(p), r;

        if (bits != 64 && bits != 32 && bits != 16)
            return err_set(e, -EINVAL, "--bits takes 64, 32 and 16");
        r = run_random(bits, e);
        if (r)
            return r;
    }
    return 0;
}

static int run_fixed(struct err *e)
{
    static struct sequence q;
    static char line[65536];
    FILE *f = fopen(options.fixed, "r");
    int r = 0;

    if (!f)
        return err_set(e, -errno, "%s: %s", options.fixed, strerror(errno));
    for (u64 n = 1; !r && fgets(line, sizeof(line), f); n++) {
        if (line[0] == '#' || line[0] == '\n')
            continue;
        r = sequence_parse(line, seq_components(), &q, e);
        if (r)
            break;
        sequences++;
        check(&q, false, n);
        if (q.c.code_size != 8)
            check(&q, true, n);
    }
    fclose(f);
    return r;
}

static bool stress_parse(const char *list, u32 *ret)
{
    static const struct { const char *name; u32 bit; } kinds[] = {{"flush", STRESS_FLUSH}, {"evict", STRESS_EVICT}, {"smc", STRESS_SMC},
                                                             {"rename", STRESS_RENAME}};

    for (const char *p = list; p && *p; p += strcspn(p, ","), p += *p == ',') {
        size_t n = 0;

        while (n < ARRAY_SIZE(kinds) && (strlen(kinds[n].name) != strcspn(p, ",") || strncmp(p, kinds[n].name, strcspn(p, ","))))
            n++;
        if (n == ARRAY_SIZE(kinds))
            return false;
        *ret |= kinds[n].bit;
    }
    return true;
}

static bool parse(int argc, char **argv)
{
    static const struct option longs[] = {{"bits", 1, NULL, 'b'},   {"count", 1, NULL, 'n'},  {"seed", 1, NULL, 's'},
                                          {"smc", 0, NULL, 'x'},    {"faults", 0, NULL, 'f'}, {"stress", 1, NULL, 'S'},
                                          {"windows", 0, NULL, 'w'}, {"mode", 1, NULL, 'M'}, {"case", 1, NULL, 'c'},   {"fixed", 1, NULL, 'F'},  {"failures", 1, NULL, 'm'}, {0}};
    int o;

    options.seed = (u64)time(NULL) * 1000003 ^ (u64)getpid();
    while ((o = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        switch (o) {
        case 'b': options.bits = optarg; break;
        case 'n': options.count = strtoull(optarg, NULL, 0); break;
        case 's': options.seed = strtoull(optarg, NULL, 0); break;
        case 'x': options.smc = true; break;
        case 'f': options.faults = true; break;
        case 'w': options.windows = true; break;
        case 'S': options.stress = optarg; break;
        case 'M':
            options.mode = optarg;
            options.bits = "16";
            break;
        case 'c': options.one = atoll(optarg); break;
        case 'F': options.fixed = optarg; break;
        case 'm': options.failures_max = strtoull(optarg, NULL, 0); break;
        default: return false;
        }
    }
    return optind == argc;
}

static bool mode_parse(enum insn_guest_mode *ret)
{
    *ret = !options.mode ? GUEST_PROTECTED : strcmp(options.mode, "v86") ? GUEST_REAL : GUEST_V86;
    return *ret != GUEST_REAL || !strcmp(options.mode, "real");
}

static void summary(void)
{
    struct seq_translated t = seq_translated();

    printf("%llu sequences in %llu runs compared with the %s, %llu runs to the end of the sequence, %llu differ (seed %llu)\n",
           (unsigned long long)sequences, (unsigned long long)runs, options.mode ? "interpreter" : "host", (unsigned long long)ended, (unsigned long long)failures,
           (unsigned long long)options.seed);
    printf("translator: %llu blocks translated, %llu instructions in them, %llu of these by the interpreter's handlers; %llu other blocks\n",
           (unsigned long long)t.blocks, (unsigned long long)t.insns, (unsigned long long)t.slow, (unsigned long long)t.interpreted);
    if (!t.insns || t.rare) {
        printf("%llu blocks were not translated when they were first met\n", (unsigned long long)t.rare);
        failures++;
    }
}

int main(int argc, char **argv)
{
    struct err e;
    enum insn_guest_mode mode;
    u32 stress = 0;
    int r;

    if (!parse(argc, argv) || !stress_parse(options.stress, &stress) || !mode_parse(&mode)) {
        fprintf(stderr, "usage: see the head of tests/insn/test_seq.c\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* what is shown is shown before a crash */
    r = seq_machines_setup(stress, options.windows, mode, &e);
    if (r) {
        fprintf(stderr, "skipped: %s\n", e.text);
        return EXIT_SKIP;
    }
    printf("seed %llu\n", (unsigned long long)options.seed);
    r = options.fixed ? run_fixed(&e) : run_all_random(&e);
    if (r) {
        fprintf(stderr, "%s\n", e.text);
        return 2;
    }
    summary();
    return failures ? 1 : 0;
}
