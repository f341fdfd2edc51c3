/* Coverage by mnemonic: see coverage.h. */
#include "coverage.h"

#include <string.h>
#include <strings.h>

#define MNEMONICS (ZYDIS_MNEMONIC_MAX_VALUE + 1)
#define EXPLANATIONS_MAX 512

enum { MODES = 3 }; /* 16, 32, 64 bits */

static struct {
    u32 tried[MODES], done, faulted, refused, guest_only; /* refused: #UD on the host */
    u16 isa_ext;
    bool absent; /* the CPU model lacks its CPUID feature */
} counts[MNEMONICS];

struct explanation {
    char name[40];
    bool used;
};

static u64 compared, undecodable;

void coverage_note(const struct insn_case *c, const struct decoded *d, const struct trial *t)
{
    u32 m = d->zi.mnemonic;

    compared += t->class == INSN_COMPARE && t->vector != INSN_ASTRAY;
    if (!d->valid) {
        undecodable++;
        return;
    }
    counts[m].isa_ext = (u16)d->zi.meta.isa_ext;
    counts[m].absent = !machines_show(c, d);
    counts[m].tried[c->code_size == 8 ? 2 : c->code_size == 4]++;
    if (t->class != INSN_COMPARE)
        counts[m].guest_only++;
    else if (t->vector == INSN_DONE)
        counts[m].done++;
    else if (t->vector == EXC_UD)
        counts[m].refused++;
    else if (case_code_at(c) + INSN_MAX <= CODE_SIZE) /* where it may be its fetch that faults it says nothing */
        counts[m].faulted++;
}

u64 coverage_compared(void)
{
    return compared;
}

int coverage_mnemonics(void)
{
    int n = 0;

    for (u32 m = 1; m < MNEMONICS; m++)
        n += counts[m].done + counts[m].faulted > 0;
    return n;
}

static const char *ext_name(u32 m)
{
    const char *name = ZydisISAExtGetString(counts[m].isa_ext);

    return name && counts[m].isa_ext ? name : "-";
}

void coverage_print(FILE *out)
{
    fprintf(out, "%-18s %-14s %8s %8s %8s %9s %8s %8s %10s\n", "mnemonic", "extension", "64", "32", "16", "completed",
            "faulted", "#UD", "guest only");
    for (u32 m = 1; m < MNEMONICS; m++)
        fprintf(out, "%-18s %-14s %8u %8u %8u %9u %8u %8u %10u\n", ZydisMnemonicGetString((ZydisMnemonic)m), ext_name(m),
                counts[m].tried[2], counts[m].tried[1], counts[m].tried[0], counts[m].done, counts[m].faulted,
                counts[m].refused, counts[m].guest_only);
    fprintf(out, "%-18s %llu\n", "(no instruction)", (unsigned long long)undecodable);
}

/* ---- explanations ---- */

/* -1: cannot be read. */
static int read_explanations(const char *file, struct explanation *x)
{
    FILE *f = fopen(file, "r");
    char line[4096], *save, *word;
    int n = 0;

    if (!f)
        return -1;
    while (fgets(line, sizeof(line), f)) {
        if (line[0] == '#' || !strchr(line, ':'))
            continue;
        *strchr(line, ':') = 0;
        for (word = strtok_r(line, " ", &save); word && n < EXPLANATIONS_MAX; word = strtok_r(NULL, " ", &save))
            snprintf(x[n++].name, sizeof(x->name), "%s", word);
    }
    fclose(f);
    return n;
}

static bool explained(u32 m, struct explanation *x, int count)
{
    bool found = false;

    for (int n = 0; n < count; n++) {
        bool by_ext = x[n].name[0] == '@';
        const char *name = by_ext ? ext_name(m) : ZydisMnemonicGetString((ZydisMnemonic)m);

        if (!strcasecmp(x[n].name + by_ext, name))
            found = x[n].used = true;
    }
    return found;
}

int coverage_unexplained(const char *file, FILE *out)
{
    static struct explanation x[EXPLANATIONS_MAX];
    int n = read_explanations(file, x), bad = 0;

    if (n < 0)
        return n;
    for (u32 m = 1; m < MNEMONICS; m++) {
        bool tried = counts[m].done || counts[m].faulted || counts[m].guest_only || counts[m].refused;

        if (explained(m, x, n) || counts[m].done || counts[m].guest_only || counts[m].faulted)
            continue;
        if (counts[m].refused && counts[m].absent)
            continue;
        fprintf(out, "%s (%s) was %s\n", ZydisMnemonicGetString((ZydisMnemonic)m), ext_name(m),
                tried ? "always an invalid opcode" : "never tried");
        bad++;
    }
    for (int k = 0; k < n; k++)
        if (!x[k].used) {
            fprintf(out, "%s: %s explains nothing\n", file, x[k].name);
            bad++;
        }
    return bad;
}
