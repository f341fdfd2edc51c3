/* Hot loops of several blocks, joined by jumps that are nearly always taken, and what happens late in them: ways out and detours from each
 * block, once and from then on, faults, stores into a block that comes later, single-stepping that begins in the middle; and timer
 * interrupts all through. Each loop is run in ring 0 and ring 3, at several addresses.
 *
 * The measure is the same run, instruction by instruction under the trap flag. The state at its end must be the same: registers, flags, memory,
 * x87 and vector registers, the frame of the fault. And the state at every interrupt must be one that it went through. SDM vol. 3 §17.3.1.4. */
#include "loops.h"
#include "random.h"

#define ARITH 0xcd5ul /* the direction flag is one of them here */
#define FLAG_TF 0x100ul
#define FLAG_IF 0x200ul
#define SVR 0xf0
#define EOI 0xb0
#define LVT_TIMER 0x320
#define INITIAL 0x380
#define DIVIDE 0x3e0
#define VECTOR 0x62

/* Below 4 GiB, so that 32-bit code reaches it. */
#define WAYS_AT 0x40000000ul
#define FROM_AT 0x40010000ul
#define TO_AT 0x40020000ul
#define STACK_AT 0x40030000ul
#define CODE_AT 0x40100000ul
#define PAGES 4 /* of each */
#define IN_PAGE 512
#define ROUNDS 300
#define ROUNDS_QUICK 40
#define ROUNDS_LASTING 1100 /* of which the first 1000 go the other way */
#define PLACES 8
#define STEPS_MAX 48000
#define STEPS 32 /* after which single-stepping ends */
#define INTERRUPTS 12 /* in each loop, at least … */
#define PATIENCE 20000000000ul /* … in so many nanoseconds */

static bool quick; /* where each way into a block takes a hundred times as long */

/* ---- memory ---- */

static u64 *ways, *from, *to; /* as ring 0 has them at other addresses */
static u8 *code_page;
static u64 code; /* where the loop is now */

static void map(u64 at, const u8 *page, u64 rights)
{
    for (u64 n = 0; n < PAGES; n++)
        *pte_of(at + n * 4096) = ((u64)page + n * 4096) | PTE_P | PTE_U | rights;
}

static void *pages_alloc(void)
{
    void *first = page_alloc();

    for (int n = 1; n < PAGES; n++)
        page_alloc();
    return first;
}

static void map_data(void)
{
    map(WAYS_AT, (u8 *)ways, PTE_W);
    map(FROM_AT, (u8 *)from, PTE_W);
    map(TO_AT, (u8 *)to, PTE_W);
    write_cr3(read_cr3());
}

/* Where its copies begin: in its page, the last across the page's end. */
static u64 place(const struct loop *l, u32 n)
{
    u64 len = (u64)(l->end - l->code);

    return CODE_AT + (n == PLACES - 1 ? 4096 - len / 2 : n * (len + 3));
}

/* What it has overwritten, or another copy, is made good. */
static void put(const struct loop *l, u64 at)
{
    u8 *p = code_page + (at - CODE_AT);

    code = at;
    for (u64 n = 0; n < (u64)(l->end - l->code); n++)
        if (p[n] != l->code[n])
            p[n] = l->code[n];
}

/* ---- what happens, and what came of it ---- */

struct plan {
    enum event event;
    int ring;
    u64 rounds, at, first; /* the round in which it happens; which word the first round has */
    u64 regs[15]; /* at the start */
};

struct outcome {
    struct frame f;
    u64 state, cr2, sum;
    u8 extended[512] __attribute__((aligned(16)));
};

/* Copies at other addresses have the same. */
static u64 relative(u64 v)
{
    return v - code < 0x1000 ? v - code + 0xc0de00000000 : v;
}

static u64 mixed(u64 sum, u64 v)
{
    return (sum ^ v ^ sum >> 29) * 0x9e3779b97f4a7c15;
}

static u64 state_of(const struct frame *f)
{
    u64 sum = f->rflags & ARITH;

    for (int n = 0; n < 14; n++)
        sum = mixed(sum, (&f->r15)[n]);
    return mixed(mixed(mixed(sum, relative(f->rax)), relative(f->rip)), f->rsp);
}

static void prepare(const struct loop *l, const struct plan *p)
{
    u64 k = p->first + p->at, scratch = TO_AT + PAGES * 4096 - 8;

    for (u64 n = p->first; n < p->first + p->rounds; n++) {
        ways[n] = n == k || (n > k && events[p->event].lasts) ? events[p->event].way : USUAL;
        from[n] = l->patches ? scratch : n == k && p->event == DIVIDES ? 0 : (n * 0x9e3779b9 >> 7 & 0xffff) | 1;
        to[n] = n;
    }
    if (p->event == PATCHES)
        from[k] = code + (u64)(patched - patches);
}

/* The page that the round comes to is not there, or read-only. */
static void take_page(enum event event, bool back)
{
    u64 at = event == NO_WAYS ? WAYS_AT : event == NO_FROM ? FROM_AT : TO_AT;

    if (events[event].vector != 14)
        return;
    if (!back)
        *pte_of(at + 4096) &= event == TO_READ_ONLY ? ~PTE_W : ~PTE_P;
    else
        map_data();
    invlpg(at + 4096);
}

static struct frame start_of(const struct loop *l, const struct plan *p)
{
    struct frame f = frame_at((void *)code, p->ring);

    if (l->narrow)
        f.cs = p->ring ? 0x33 : 0x18;
    for (int n = 0; n < 15; n++)
        (&f.r15)[n] = p->regs[n];
    f.rsp = STACK_AT + PAGES * 4096 - 256;
    return f;
}

static void run(const struct loop *l, const struct plan *p, u64 flags, struct outcome *ret)
{
    struct frame f = start_of(l, p);

    f.rflags |= flags;
    prepare(l, p);
    take_page(p->event, false);
    asm volatile("fninit; fldz; pxor %xmm0, %xmm0; pxor %xmm1, %xmm1; pxor %xmm2, %xmm2; pxor %xmm3, %xmm3");
    enter(&f);
    asm volatile("fxsave64 %0" : "=m"(ret->extended));
    take_page(p->event, true);
    ret->f = caught;
    ret->state = state_of(&caught);
    ret->cr2 = caught.vector == 14 ? caught_cr2 : 0;
    ret->sum = 0;
    for (u64 n = p->first; n < p->first + p->rounds; n++)
        ret->sum = mixed(ret->sum, to[n]);
    *(u64 *)(ret->extended + 8) = relative(*(u64 *)(ret->extended + 8)); /* the x87's instruction pointer */
}

/* ---- the states that it goes through ---- */

static u64 steps[STEPS_MAX];
static u32 step_count, stepped, interrupts, astray, astray_steps;
static bool recording;
static int last_step = -1, steps_left;

static int step_find(u64 state)
{
    for (u32 n = 0; n < step_count; n++)
        if (steps[n] == state)
            return (int)n;
    return -1;
}

static void step_add(u64 state)
{
    if (step_count < STEPS_MAX)
        steps[step_count++] = state;
}

/* Each step leads to the next state; after some the loop goes on at its own speed. */
static void on_step(struct frame *f)
{
    u64 state = state_of(f);

    if (recording) {
        step_add(state);
        return;
    }
    if (last_step < 0) {
        steps_left = STEPS;
        last_step = step_find(state);
    } else {
        last_step++;
    }
    stepped++;
    astray_steps += last_step < 0 || last_step >= (int)step_count || steps[last_step] != state;
    if (!--steps_left) {
        f->rflags &= ~FLAG_TF;
        last_step = -1;
    }
}

static void timer_start(void)
{
    lapic_write(INITIAL, (10000 + random32() % 100000) * (quick ? 30 : 1));
}

/* In one of four, single-stepping begins. */
static void on_timer(struct frame *f)
{
    int at = step_find(state_of(f));

    interrupts += at > 0;
    if (at < 0 && !astray++)
        print("an interrupt at %lx of the loop, %lu rounds left, flags %lx\n", f->rip - code, f->rcx, f->rflags);
    if (at >= 0 && !(f->rflags & FLAG_TF) && random32() % 4 == 0) {
        f->rflags |= FLAG_TF;
        last_step = at;
        steps_left = STEPS;
    }
    lapic_write(EOI, 0);
    timer_start();
}

/* ---- one against the other ---- */

static bool same_extended(const struct outcome *a, const struct outcome *b)
{
    for (int n = 0; n < 416; n++)
        if (a->extended[n] != b->extended[n])
            return false;
    return true;
}

static void plan_make(const struct loop *l, struct plan *p, enum event event, int ring)
{
    bool lasting = events[event].lasts;
    u64 mask = l->narrow ? 0xffffffff : ~0ul;

    *p = (struct plan){.event = event, .ring = ring, .rounds = quick ? ROUNDS_QUICK : lasting ? ROUNDS_LASTING : ROUNDS};
    p->at = lasting && !quick ? 1000 : p->rounds / 2 + random32() % (p->rounds / 3);
    p->first = events[event].vector == 14 ? IN_PAGE - p->at : random32() % 100;
    for (int n = 0; n < 15; n++)
        p->regs[n] = ((u64)random32() << 32 | random32()) & mask;
    p->regs[3] = 0; /* R12 and R13, indexes */
    p->regs[2] = 1;
    p->regs[8] = TO_AT + p->first * 8; /* RDI, RSI, RBX, RCX */
    p->regs[9] = FROM_AT + p->first * 8;
    p->regs[11] = WAYS_AT + p->first * 8;
    p->regs[13] = p->rounds;
}

/* By single steps: every state to `steps`. */
static void record(const struct loop *l, const struct plan *p, struct outcome *ret)
{
    struct frame f;

    put(l, place(l, 0));
    f = start_of(l, p);
    step_count = 0;
    step_add(state_of(&f));
    recording = true;
    run(l, p, FLAG_TF, ret);
    recording = false;
    must(ret->f.vector == events[p->event].vector && ret->f.rcx == (events[p->event].ends ? p->rounds - p->at : 0) && step_count < STEPS_MAX,
         "%s, event %d, ring %d: %u steps, vector %lu at %lx, %lu rounds left of %lu", l->name, p->event, p->ring, step_count, ret->f.vector,
         ret->f.rip - code, ret->f.rcx, p->rounds);
}

/* At full speed. */
static void compare(const struct loop *l, const struct plan *p, u32 where, const struct outcome *want)
{
    static struct outcome got;

    put(l, place(l, where));
    last_step = -1;
    run(l, p, FLAG_IF, &got);
    must(got.f.vector == want->f.vector && got.f.error == want->f.error && got.cr2 == want->cr2, "%s, event %d, ring %d, place %u: vector %lu, "
         "error %lx, CR2 %lx", l->name, p->event, p->ring, where, got.f.vector, got.f.error, got.cr2);
    must(got.state == want->state, "%s, event %d, ring %d, place %u: at %lx, flags %lx, %lu rounds left of %lu", l->name, p->event, p->ring, where,
         got.f.rip - code, got.f.rflags, got.f.rcx, p->rounds);
    must(got.sum == want->sum, "%s, event %d, ring %d, place %u: memory", l->name, p->event, p->ring, where);
    must(same_extended(&got, want), "%s, event %d, ring %d, place %u: x87 and vector registers", l->name, p->event, p->ring, where);
}

static void try(const struct loop *l, enum event event, int ring)
{
    static struct outcome want;
    struct plan p;
    u32 before = interrupts;

    plan_make(l, &p, event, ring);
    record(l, &p, &want);
    for (u32 n = 0; n < PLACES * (quick ? 1 : 2); n++)
        compare(l, &p, n % PLACES, &want);
    if (event != TO_ITS_END)
        return;
    for (u64 start = rdtsc(); interrupts - before < INTERRUPTS && rdtsc() - start < PATIENCE;)
        compare(l, &p, random32() % PLACES, &want);
    must(interrupts - before >= INTERRUPTS, "%s, ring %d: %u interrupts", l->name, ring, interrupts - before);
}

static void try_all(const struct loop *l)
{
    code_page = pages_alloc();
    map(CODE_AT, code_page, PTE_W);
    write_cr3(read_cr3());
    interrupts = stepped = astray = astray_steps = 0;
    for (int ring = 0; ring <= 3; ring += 3)
        for (enum event event = 0; event < EVENTS; event++)
            if (!(l->without >> event & 1) && (event != PATCHES || l->patches) && (!quick || random32() % 4 == 0))
                try(l, event, ring);
    check(!astray && !astray_steps, "%s: %u interrupts, %u of them in states that it does not have; %u steps, %u elsewhere", l->name, interrupts,
          astray, stepped, astray_steps);
}

void guest_main(void)
{
    random_start();
    quick = command_line_is("quick");
    ways = pages_alloc();
    from = pages_alloc();
    to = pages_alloc();
    map_data();
    map(STACK_AT, pages_alloc(), PTE_W);
    asm volatile("mov %0, %%ds" : : "r"(0x2b)); /* for 32-bit code; IRET would take another away */
    on_interrupt(1, on_step);
    on_interrupt(VECTOR, on_timer);
    lapic_write(SVR, 0x1ff);
    lapic_write(DIVIDE, 0xb);
    lapic_write(LVT_TIMER, VECTOR);
    timer_start();
    for (u32 n = 0; n < LOOPS; n++)
        try_all(&loops[n]);
}
