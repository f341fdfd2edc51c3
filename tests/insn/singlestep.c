/* SingleStepTests' vectors, recorded from an 8086 and an 80286, on the interpreter: registers, defined flags and memory after
 * one instruction in real mode. The vectors are not part of this project; they come as files NAME.MOO.gz.
 *
 * What those processors did otherwise is no failure; singlestep_rules.c says by rule what that is.
 *
 * usage: singlestep [-v COUNT] FILE…     prints COUNT differences of each file (3), and figures by processor and rule */
#include "cpu/exception.h"
#include "cpu/interp.h"
#include "moo.h"
#include "singlestep_rules.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RAM_SIZE MIB(16)
#define REAL_DATA (SEG_P | SEG_S | SEG_W | SEG_A)
#define FLAGS_SEEN 0x0fff /* above them: ones on the 8086, zeros on the 80286 in real mode, IOPL and NT since */

struct figures {
    u64 tests, same, by_rule[OLD_RULES]; /* those that differ by no rule are OLD_SAME's */
};

static struct vcpu_group *group;
static struct guest_memory *mem;
static struct clock machine_clock;
static struct timer_queue timers;
static int verbose = 3;
static bool i8086; /* or else 80286 */

static u64 read_ones(void *ctx, u16 port, int size)
{
    return ~0ull;
}
static void write_nothing(void *ctx, u16 port, int size, u64 val)
{
}
static u64 mmio_ones(void *ctx, u64 gpa, int size)
{
    return ~0ull;
}
static void mmio_nothing(void *ctx, u64 gpa, int size, u64 val)
{
}
static int no_extint(void *ctx)
{
    return -1;
}
static void no_eoi(void *ctx, u8 vector)
{
}
static void no_shutdown(void *ctx)
{
}
static void no_earlier(void *ctx, u64 deadline)
{
}

/* The 8086's twenty address lines: what lies above 1 MiB is the bottom again. */
static int memory_create(struct err *e)
{
    int r = guest_memory_create(RAM_SIZE, &mem, e);

    if (r)
        return r;
    if (!i8086)
        return guest_memory_map(mem, 0, RAM_SIZE, 0, false);
    r = guest_memory_map(mem, 0, MIB(1), 0, false);
    return r ? r : guest_memory_map(mem, MIB(1), KIB(64), 0, false);
}

static int machine_start(struct err *e)
{
    struct vcpu_group_config config = {.count = 1, .engine = CPU_ENGINE_INTERP, .model = {"486"}};
    int r = memory_create(e);

    if (r)
        return r;
    clock_init(&machine_clock);
    timer_queue_init(&timers, &machine_clock, no_earlier, NULL);
    config.mem = mem;
    config.clock = &machine_clock;
    config.timers = &timers;
    config.bus = (struct vcpu_bus){NULL, read_ones, write_nothing, mmio_ones, mmio_nothing, no_extint, no_eoi, no_shutdown, NULL};
    return vcpu_group_create(&config, &group, e);
}

static void machine_end(void)
{
    vcpu_group_free(group);
    timer_queue_free(&timers);
    guest_memory_free(mem);
}

static const u8 gpr_of[MOO_REGS] = {
    [MOO_AX] = RAX, [MOO_BX] = RBX, [MOO_CX] = RCX, [MOO_DX] = RDX, [MOO_SP] = RSP, [MOO_BP] = RBP, [MOO_SI] = RSI,
    [MOO_DI] = RDI, [MOO_IP] = RIP};
static const u8 seg_of[MOO_REGS] = {[MOO_CS] = SEG_CS, [MOO_SS] = SEG_SS, [MOO_DS] = SEG_DS, [MOO_ES] = SEG_ES};

static bool is_segment(int reg)
{
    return reg >= MOO_CS && reg <= MOO_ES;
}

static void registers_set(struct vcpu *c, const u16 reg[MOO_REGS])
{
    for (int n = 0; n < MOO_FLAGS; n++) {
        int seg = seg_of[n];

        if (!is_segment(n)) {
            c->s.gpr[gpr_of[n]] = reg[n];
            continue;
        }
        c->s.seg_sel[seg] = reg[n];
        c->s.seg_base[seg] = reg[n] * 16u;
        c->s.seg_limit[seg] = 0xffff;
        c->s.seg_attr[seg] = REAL_DATA;
    }
    c->s.idtr_limit = 0x3ff;
    c->s.int_shadow = c->s.debug_shadow = false;
    c->s.pending_db = 0;
    c->s.activity = VCPU_ACTIVE;
    c->delivering = -1;
    flags_set(c, (reg[MOO_FLAGS] & FLAGS_SEEN & ~(u32)FLAG_TF) | FLAG_1);
    c->attention = 0;
    vcpu_mode_update(c);
}

static void registers_get(struct vcpu *c, u16 reg[MOO_REGS])
{
    for (int n = 0; n < MOO_FLAGS; n++)
        reg[n] = is_segment(n) ? c->s.seg_sel[seg_of[n]] : (u16)c->s.gpr[gpr_of[n]];
    reg[MOO_FLAGS] = (u16)flags_get(c);
}

/* Comes back through the jump for a fault during delivery. */
static __attribute__((noinline)) void fault_deliver(struct vcpu *c)
{
    __builtin_setjmp(c->fault_jump);
    if (c->s.activity == VCPU_ACTIVE)
        exception_handle_fault(c);
}

static void try(struct vcpu *c, const struct moo_test *t, struct new_result *r)
{
    for (int n = 0; n < t->before.ram_count; n++)
        guest_memory_write(mem, t->before.ram[n].addr, &t->before.ram[n].val, 1);
    registers_set(c, t->before.reg);
    r->vector = interp_try(c);
}

static void run(struct vcpu *c, const struct old_insn *i, struct moo_test *t, struct new_result *r)
{
    try(c, t, r);
    if (r->vector == EXC_UD && !i8086 && old_lock_drop(i, t))
        try(c, t, r);
    if (r->vector == EXC_SS && !i8086) /* which has no stack fault in real mode */
        c->fault_vector = EXC_GP;
    if (r->vector >= 0)
        fault_deliver(c);
    registers_get(c, r->reg);
}

/* Everything back to zero: what is not at the end was written where the test says nothing. */
static void memory_clear(const struct moo_test *t)
{
    u8 zero = 0;

    for (int n = 0; n < t->before.ram_count; n++)
        guest_memory_write(mem, t->before.ram[n].addr, &zero, 1);
    for (int n = 0; n < t->after.ram_count; n++)
        guest_memory_write(mem, t->after.ram[n].addr, &zero, 1);
}

/* The same after a test whose writes are not those that it names. */
static void memory_reset(void)
{
    memset(mem->backing, 0, RAM_SIZE);
    guest_memory_written(mem, mem->backing, RAM_SIZE);
}

static u8 memory_byte(u32 addr)
{
    u8 val = 0;

    guest_memory_read(mem, addr, &val, 1);
    return val;
}

/* FLAGS pushed by an interrupt: defined bits alone count. */
static u8 pushed_mask(u32 addr, const u32 flags_at[2], u16 undefined)
{
    u16 seen = FLAGS_SEEN & ~undefined;

    return addr == flags_at[0] ? (u8)seen : addr == flags_at[1] ? (u8)(seen >> 8) : 0xff;
}

static void pushed_flags_find(const struct old_insn *i, const struct moo_test *t, bool pushed, u32 ret[2])
{
    u16 ss = t->after.reg[MOO_SS], sp = t->after.reg[MOO_SP];

    pushed |= t->has_exception || (i->opcode >= 0xcc && i->opcode <= 0xce);
    ret[0] = ret[1] = ~0u;
    if (!pushed && i->opcode != 0x9c)
        return;
    for (u32 n = 0; n < 2; n++)
        ret[n] = old_address(ss, sp + (pushed ? 4u : 0) + n, i8086);
}

static bool memory_agrees(const struct old_insn *i, const struct moo_test *t, int vector, u16 undefined, bool print)
{
    u32 flags_at[2];
    bool agrees = true;

    pushed_flags_find(i, t, vector >= 0, flags_at);

    for (int n = 0; n < t->after.ram_count; n++) {
        u32 addr = t->after.ram[n].addr;
        u8 wanted = t->after.ram[n].val, got = memory_byte(addr);

        if (!((wanted ^ got) & pushed_mask(addr, flags_at, undefined)))
            continue;
        agrees = false;
        if (print)
            printf("    [%x] = %02x, wanted %02x\n", addr, got, wanted);
    }
    return agrees;
}

static bool registers_agree(const struct moo_test *t, const struct new_result *r, u16 undefined, bool print)
{
    static const char names[MOO_REGS][6] = {"AX", "BX", "CX", "DX", "CS", "SS", "DS", "ES", "SP", "BP", "SI", "DI", "IP", "FLAGS"};
    bool agree = true;

    for (int n = 0; n < MOO_REGS; n++) {
        u16 mask = n == MOO_FLAGS ? FLAGS_SEEN & ~undefined : 0xffff;

        if (!((r->reg[n] ^ t->after.reg[n]) & mask))
            continue;
        agree = false;
        if (print)
            printf("    %s = %04x, wanted %04x (was %04x)\n", names[n], r->reg[n], t->after.reg[n], t->before.reg[n]);
    }
    return agree;
}

static bool agrees(const struct old_insn *i, const struct moo_test *t, const struct new_result *r, bool print)
{
    u16 undefined = old_flags_undefined(i, t);

    return registers_agree(t, r, undefined, print) & memory_agrees(i, t, r->vector, undefined, print);
}

static void difference_print(const struct old_insn *i, const struct moo_test *t, const struct new_result *r)
{
    printf("  %u: %s:", t->index, t->name);
    for (int n = 0; n < t->len; n++)
        printf(" %02x", t->bytes[n]);
    printf(", vector %d\n", r->vector);
    agrees(i, t, r, true);
}

static void test_run(struct moo_test *t, struct figures *f, int *shown)
{
    struct vcpu *c = vcpu_get(group, 0);
    struct new_result r;
    struct old_insn i;
    enum old_rule rule;

    old_insn_decode(t, &i);
    old_test_translate(&i, t, i8086);
    run(c, &i, t, &r);
    if (!i8086 && i.opcode != 0xf4)
        t->after.reg[MOO_IP]--; /* it went on to the HLT behind, or at the handler */
    old_result_translate(&i, t, i8086, r.vector);
    f->tests++;
    if (agrees(&i, t, &r, false)) {
        f->same++;
        memory_clear(t);
        return;
    }
    rule = old_rule_find(&i, t, i8086, &r);
    f->by_rule[rule]++;
    if (!rule && (*shown)++ < verbose)
        difference_print(&i, t, &r);
    memory_reset();
}

static bool memory_is_clear(void)
{
    u64 size = RAM_SIZE;

    for (u64 n = 0; n < size; n += 8)
        if (*(u64 *)(mem->backing + n))
            return false;
    return true;
}

static void figures_print(const char *name, const struct figures *f)
{
    printf("%s: %llu tests, %llu the same", name, (unsigned long long)f->tests, (unsigned long long)f->same);
    printf(", %llu different\n", (unsigned long long)f->by_rule[OLD_SAME]);
    for (int n = 1; n < OLD_RULES; n++)
        if (f->by_rule[n])
            printf("  %llu by rule: %s\n", (unsigned long long)f->by_rule[n], old_rule_text[n]);
}

static void figures_add(struct figures *sum, const struct figures *f)
{
    sum->tests += f->tests;
    sum->same += f->same;
    for (int n = 0; n < OLD_RULES; n++)
        sum->by_rule[n] += f->by_rule[n];
}

static int file_run(const char *path, struct figures *sum, struct err *e)
{
    struct figures f = {0};
    struct moo_test t;
    struct moo *m;
    int shown = 0, r = moo_open(path, &m, e);

    if (r)
        return r;
    i8086 = !strcmp(moo_processor(m), "8086");
    r = machine_start(e);
    while (!r && moo_next(m, &t))
        test_run(&t, &f, &shown);
    if (!r && moo_broken(m))
        r = err_set(e, -1, "'%s': broken", path);
    moo_close(m);
    if (r)
        return r;
    if (!memory_is_clear()) {
        printf("%s: memory written that no test names\n", path);
        f.by_rule[OLD_SAME]++;
    }
    if (f.by_rule[OLD_SAME])
        figures_print(path, &f);
    figures_add(&sum[!i8086], &f);
    machine_end();
    return 0;
}

int main(int argc, char **argv)
{
    struct figures sum[2] = {{0}};
    int first = 1;
    struct err e;

    if (argc > 2 && !strcmp(argv[1], "-v")) {
        verbose = atoi(argv[2]);
        first = 3;
    }
    for (int n = first; n < argc; n++)
        if (file_run(argv[n], sum, &e)) {
            fprintf(stderr, "singlestep: %s\n", e.text);
            return 2;
        }
    for (int n = 0; n < 2; n++)
        if (sum[n].tests)
            figures_print(n ? "80286" : "8086", &sum[n]);
    return sum[0].by_rule[OLD_SAME] || sum[1].by_rule[OLD_SAME];
}
