/* Random instructions of programs, on the host's CPU and on the interpreter: everything that a program can see must agree. See
 * docs/CPU.md, "How it is checked".
 *
 * usage: test_insn [option]...
 *   --bits LIST       kinds of code: 64, 32, 16 (with commas); 64,32,16 if not given
 *   --count N         cases of each kind; 100000 if not given
 *   --seed S          of the random numbers; the time if not given
 *   --only LIST       just these mnemonics
 *   --case N          just case N of the seed, and what it was in the end
 *   --fixed FILE      the cases of a file instead of random ones
 *   --show            names each case, with the exception that it ended in (-1: none)
 *   --coverage        prints the table of mnemonics
 *   --explained FILE  fails unless each mnemonic was tried or is explained in FILE
 *   --failures N      how many failures to report before giving up; 10 if not given */
#include "case_text.h"
#include "coverage.h"
#include "generate.h"
#include "machines.h"
#include "shrink.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define EXIT_SKIP 77

static struct {
    u64 count, seed, failures_max;
    long long one; /* -1: all */
    const char *bits, *only, *fixed, *explained;
    bool table, show;
} options = {.count = 100000, .failures_max = 10, .one = -1, .bits = "64,32,16"};

static u64 failures;

static bool fails(void *ctx, const struct insn_case *c)
{
    struct decoded d;

    case_decode(c, &d);
    return machines_try(c, &d, NULL).differences;
}

static void report(struct insn_case *c)
{
    struct decoded d;

    case_decode(c, &d);
    shrink(c, machines_components(), fails, NULL);
    case_decode(c, &d);
    case_print_assembly(stdout, c, &d);
    printf("\n");
    machines_try(c, &d, stdout);
    case_print(stdout, c, machines_components());
    fflush(stdout);
}

/* One case; counts it. */
static void check(struct insn_case *c, const struct decoded *d, const char *what, u64 number)
{
    struct trial t = machines_try(c, d, NULL);

    coverage_note(c, d, &t);
    if (options.show) {
        case_print_assembly(stdout, c, d);
        printf("; vector %d\n", t.vector);
    }
    if (!t.differences)
        return;
    failures++;
    printf("%d-bit %s %llu of seed %llu differs: ", c->code_size * 8, what, (unsigned long long)number,
           (unsigned long long)options.seed);
    report(c);
}

static void show(struct insn_case *c, const struct decoded *d)
{
    case_print_assembly(stdout, c, d);
    printf("\n");
    case_print(stdout, c, machines_components());
}

static int run_random(int bits, struct err *e)
{
    static struct generator g;
    static struct insn_case c;
    struct decoded d;
    int r = generator_setup(&g, bits / 8, options.seed, machines_components(), options.only, e);

    if (r)
        return r;
    for (u64 n = 0; n < options.count && failures < options.failures_max; n++) {
        generate(&g, options.one >= 0 ? (u64)options.one : n, &c, &d);
        if (options.one >= 0)
            show(&c, &d);
        check(&c, &d, "case", options.one >= 0 ? (u64)options.one : n);
        if (options.one >= 0)
            break;
    }
    generator_free(&g);
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
    static struct insn_case c;
    static char line[65536];
    FILE *f = fopen(options.fixed, "r");
    int r = 0;

    if (!f)
        return err_set(e, -errno, "%s: %s", options.fixed, strerror(errno));
    for (u64 n = 1; !r && fgets(line, sizeof(line), f); n++) {
        struct decoded d;

        if (line[0] == '#' || line[0] == '\n')
            continue;
        r = case_parse(line, machines_components(), &c, e);
        case_decode(&c, &d);
        if (!r)
            check(&c, &d, "line", n);
    }
    fclose(f);
    return r;
}

static void summary(void)
{
    printf("%llu cases of %d mnemonics compared with the host, %llu differ (seed %llu)\n",
           (unsigned long long)coverage_compared(), coverage_mnemonics(), (unsigned long long)failures,
           (unsigned long long)options.seed);
    if (options.table)
        coverage_print(stdout);
    if (options.explained && coverage_unexplained(options.explained, stdout))
        failures++;
}

static bool parse(int argc, char **argv)
{
    static const struct option longs[] = {
        {"bits", 1, NULL, 'b'},     {"count", 1, NULL, 'n'}, {"seed", 1, NULL, 's'},      {"only", 1, NULL, 'o'},
        {"case", 1, NULL, 'c'},     {"fixed", 1, NULL, 'f'}, {"coverage", 0, NULL, 't'},  {"explained", 1, NULL, 'e'},
        {"failures", 1, NULL, 'm'}, {"show", 0, NULL, 'v'},  {0}};
    int o;

    options.seed = (u64)time(NULL) * 1000003 ^ (u64)getpid();
    while ((o = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        switch (o) {
        case 'b': options.bits = optarg; break;
        case 'n': options.count = strtoull(optarg, NULL, 0); break;
        case 's': options.seed = strtoull(optarg, NULL, 0); break;
        case 'o': options.only = optarg; break;
        case 'c': options.one = atoll(optarg); break;
        case 'f': options.fixed = optarg; break;
        case 'v': options.show = true; break;
        case 't': options.table = true; break;
        case 'e': options.explained = optarg; break;
        case 'm': options.failures_max = strtoull(optarg, NULL, 0); break;
        default: return false;
        }
    }
    return optind == argc;
}

int main(int argc, char **argv)
{
    struct err e;
    int r;

    if (!parse(argc, argv)) {
        fprintf(stderr, "usage: see the head of tests/insn/test_insn.c\n");
        return 2;
    }
    r = machines_setup(&e);
    if (r) {
        fprintf(stderr, "skipped: %s\n", e.text);
        return EXIT_SKIP;
    }
    printf("seed %llu\n", (unsigned long long)options.seed);
    fflush(stdout);
    r = options.fixed ? run_fixed(&e) : run_all_random(&e);
    if (r) {
        fprintf(stderr, "%s\n", e.text);
        return 2;
    }
    summary();
    return failures ? 1 : 0;
}
