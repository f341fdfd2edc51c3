/* The translator's counters as lines of --trace jit: see jit_counters.h. */
#include "cpu/jit_counters.h"

#include "base/trace.h"
#include "cpu/jit_cache.h"
#include "cpu/jit_emit.h"

#define SLOW_PRINTED 24 /* mnemonics, the most frequent first */

static_assert(JIT_KINDS <= JIT_COUNTED_KINDS, "a counter for each kind");

static const char *const kind_names[JIT_KINDS] = {
    [JIT_SAME] = "the same", [JIT_NOTHING] = "without effect", [JIT_LEA] = "LEA", [JIT_PUSH] = "PUSH", [JIT_POP] = "POP",
    [JIT_LEAVE] = "LEAVE", [JIT_MOFFS] = "MOV with an absolute address", [JIT_BIT_MEMORY] = "BT and its like, bit in memory",
    [JIT_SYSTEM] = "a kernel's", [JIT_STRING] = "REP MOVS and STOS", [JIT_SELECTOR] = "selectors",
    [JIT_ELEMENT] = "LODS, STOS, MOVS, XLAT", [JIT_JMP] = "JMP", [JIT_SET_AC] = "STAC and CLAC", [JIT_LOOP] = "LOOP and JCXZ", [JIT_JCC] = "Jcc",
    [JIT_CALL] = "CALL", [JIT_JMP_INDIRECT] = "JMP indirect", [JIT_CALL_INDIRECT] = "CALL indirect", [JIT_RET] = "RET",
    [JIT_INTERPRET] = "left to the interpreter", [JIT_LEAVE_BLOCK] = "left to the interpreter at a block's end",
};

static const char *const left_names[JIT_BLOCKS_LEFT] = {
    [JIT_BLOCK_RARE] = "rare", [JIT_BLOCK_MODE] = "behind the end of the code segment", [JIT_BLOCK_CROSSING] = "across pages",
    [JIT_BLOCK_DEVICE] = "outside RAM",
};

void jit_count_block(struct jit_counters *n, const struct jit_emit *e)
{
    n->blocks++;
    n->hot_bytes += e->hot.len;
    n->cold_bytes += e->cold.len;
    n->guest_bytes += e->b->bytes;
    for (int i = 0; i < e->count; i++) {
        n->insns[e->insn[i].kind]++;
        n->vector += e->insn[i].vector && !e->insn[i].x87;
        n->x87 += e->insn[i].x87;
        n->shared += e->insn[i].shared;
    }
}

typedef unsigned long long count; /* as printf has it */

static u64 sum(const u64 *counts, int n)
{
    u64 all = 0;

    while (n--)
        all += counts[n];
    return all;
}

static void translated_trace(int vcpu, const struct jit_counters *n)
{
    trace(JIT, "vcpu %d: %llu blocks translated: %llu instructions in %llu bytes to %llu hot and %llu cold bytes of host code",
          vcpu, (count)n->blocks, (count)sum(n->insns, JIT_KINDS), (count)n->guest_bytes, (count)n->hot_bytes,
          (count)n->cold_bytes);
    for (int kind = 0; kind < JIT_KINDS; kind++)
        trace(JIT, "vcpu %d:   %12llu %s", vcpu, (count)n->insns[kind], kind_names[kind]);
    trace(JIT, "vcpu %d:   %12llu of these vector, %llu x87; %llu with a TLB check that others use too", vcpu, (count)n->vector,
          (count)n->x87, (count)n->shared);
}

static void left_trace(int vcpu, const struct jit_counters *n)
{
    trace(JIT, "vcpu %d: %llu blocks interpreted", vcpu, (count)sum(n->interpreted, JIT_BLOCKS_LEFT));
    for (int why = 0; why < JIT_BLOCKS_LEFT; why++)
        trace(JIT, "vcpu %d:   %12llu %s", vcpu, (count)n->interpreted[why], left_names[why]);
}

/* The mnemonic with the most below `limit`, or with as many and a higher number than `last`; 0: none. */
static int most_frequent(const struct jit_counters *n, u64 limit, int last)
{
    u64 most = 0;
    int ret = 0;

    for (int m = 1; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++) {
        u64 times = sum(n->slow[m], 2);

        if (times > most && (times < limit || (times == limit && m > last))) {
            most = times;
            ret = m;
        }
    }
    return ret;
}

static void slow_trace(int vcpu, const struct jit_counters *n)
{
    u64 limit = UINT64_MAX, refused = 0, left = 0;

    for (int m = 0; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++) {
        refused += n->slow[m][JIT_SITE_INSN];
        left += n->slow[m][JIT_SITE_LEFT];
    }
    trace(JIT, "vcpu %d: of these by the interpreter's handlers: %llu for their access or a fault, %llu not translated", vcpu,
          (count)refused, (count)left);
    for (int i = 0, m = 0; i < SLOW_PRINTED; i++) {
        m = most_frequent(n, limit, m);
        if (!m)
            return;
        limit = sum(n->slow[m], 2);
        trace(JIT, "vcpu %d:   %12llu %12llu %s", vcpu, (count)n->slow[m][JIT_SITE_INSN], (count)n->slow[m][JIT_SITE_LEFT],
              ZydisMnemonicGetString((ZydisMnemonic)m));
    }
}

void jit_counters_trace(const struct vcpu *c)
{
    const struct jit_counters *n = &c->jit->counters;

    if (!trace_on(JIT))
        return;
    translated_trace(c->index, n);
    left_trace(c->index, n);
    trace(JIT, "vcpu %d: %llu instructions retired, %llu of them in translated code", c->index, (count)c->retired,
          (count)n->retired);
    slow_trace(c->index, n);
    trace(JIT, "vcpu %d: %llu entries, %llu not by the jump table, and %llu that were found without; %llu flushes, %llu jump table clearings", c->index,
          (count)n->entered, (count)n->looked_up, (count)n->found_before, (count)n->flushes, (count)n->jump_clears);
    trace(JIT, "vcpu %d: %llu blocks revised", c->index, (count)n->revised);
}
