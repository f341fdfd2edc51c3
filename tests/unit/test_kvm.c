/* The KVM engine beside the interpreter: guests that begin under one and go on under the other, moved by the state
 * tables, end as those that never moved; stops, exclusive sections and resets; states that the kernel refuses. Exit
 * status 77 (skipped) where there is no usable /dev/kvm. */
#include "cpu/engine.h"
#include "cpu/lapic.h"
#include "cpu/msr.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#define RAM_SIZE MIB(1)
#define CODE_AT 0x1000
#define IDT_AT 0x2000
#define PAGES_AT 0x4000 /* three pages: PML4, PDPT with a 1 GiB page's worth of 2 MiB pages below it */
#define DATA_AT 0x20000
#define STACK_AT 0x18000
#define PHASES 6

enum { PORT_PHASE = 0xf4 };

/* Each ends a phase with OUT, in which the machine stops, and goes on to the next. Relative jumps only: they are
 * copied. */
extern const u8 compute64[], compute64_end[], interrupts32[], interrupts32_end[], real16[], real16_end[], forever64[],
    forever64_end[];
asm(".pushsection .rodata\n"
    ".code64\n"
    "compute64:\n"
    "    fninit\n"
    "compute64_again:\n"
    "    mov $500, %ecx\n"
    "1:  imul %rbp, %rax\n"
    "    add $12345, %rax\n"
    "    rol $13, %rax\n"
    "    mov %rax, %rdx\n"
    "    shr $50, %rdx\n"
    "    mov %rax, (%rsi,%rdx,2)\n"
    "    adc (%rsi,%rdx), %rbx\n"
    "    push %rax\n"
    "    pop %r8\n"
    "    xor %r8, %r9\n"
    "    bswap %r9\n"
    "    lea (%r9,%rdx,4), %r10\n"
    "    dec %ecx\n"
    "    jnz 1b\n"
    "    mov %rax, %r11\n"
    "    movq %rax, %xmm3\n"
    "    paddq %xmm3, %xmm4\n"
    "    mulps %xmm4, %xmm5\n"
    "    push $3\n"
    "    fildll (%rsp)\n" /* one more on the x87 stack a phase */
    "    pop %r12\n"
    "    mov $0xc0000082, %ecx\n" /* LSTAR, KERNEL_GS_BASE, SYSENTER_EIP, PAT */
    "    mov %r11d, %eax\n"
    "    xor %edx, %edx\n"
    "    wrmsr\n"
    "    mov $0xc0000102, %ecx\n"
    "    wrmsr\n"
    "    mov $0x176, %ecx\n"
    "    wrmsr\n"
    "    mov $0xc0000101, %ecx\n" /* GS.base */
    "    wrmsr\n"
    "    mov %r11, %cr2\n"
    "    mov %r11, %dr0\n"
    "    mov %r11, %rax\n"
    "    cmp $1, %rax\n"
    "    out %al, $0xf4\n"
    "    jmp compute64_again\n"
    "compute64_end:\n"
    "forever64:\n"
    "1:  incq (%rsi)\n"
    "    jmp 1b\n"
    "forever64_end:\n"
    ".code32\n"
    "interrupts32:\n" /* EBX: interrupts so far. A request waits in the IRR over a phase's end, another in the ISR */
    "    mov $0xfee00000, %edi\n"
    "    movl $0x1ff, 0xf0(%edi)\n"
    "1:  cli\n"
    "    movl $0x40051, 0x300(%edi)\n" /* IPI to itself, vector 51 */
    "    out %al, $0xf4\n"
    "2:  sti\n"
    "    hlt\n"
    "    cmp $0, %edx\n"
    "    je 2b\n"
    "    xor %edx, %edx\n"
    "    out %al, $0xf4\n"
    "    movl $0, 0xb0(%edi)\n" /* EOI */
    "    jmp 1b\n"
    ".org interrupts32 + 0x100\n" /* the handler */
    "    inc %ebx\n"
    "    mov $1, %edx\n"
    "    iret\n"
    "interrupts32_end:\n"
    ".code16\n"
    "real16:\n"
    "    mov $400, %cx\n"
    "1:  imul %bp, %ax\n"
    "    add $77, %ax\n"
    "    mov %ax, %di\n"
    "    and $0xffe, %di\n"
    "    mov %ax, %es:(%di)\n"
    "    adc %ax, %bx\n"
    "    push %bx\n"
    "    pop %dx\n"
    "    loop 1b\n"
    "    mov %es, %dx\n"
    "    inc %dx\n"
    "    mov %dx, %es\n"
    "    cmp $1, %ax\n"
    "    out %al, $0xf4\n"
    "    jmp real16\n"
    "real16_end:\n"
    ".code64\n"
    ".popsection");

struct guest {
    struct vcpu_group *group;
    struct vcpu *c;
    struct guest_memory *mem;
    int phases, shutdowns;
};

static struct clock test_clock;
static struct timer_queue timers;

static u64 read_ones(void *ctx, u16 port, int size)
{
    return ~0ull;
}

static u64 mmio_ones(void *ctx, u64 gpa, int size)
{
    return ~0ull;
}

static void phase_ends(void *ctx, u16 port, int size, u64 val)
{
    struct guest *g = ctx;

    if (port != PORT_PHASE)
        return;
    g->phases++;
    vcpu_group_stop(g->group);
}

static void mmio_write(void *ctx, u64 gpa, int size, u64 val)
{
}

static int no_extint(void *ctx)
{
    return -1;
}

static void no_eoi(void *ctx, u8 vector)
{
}

static void count_shutdown(void *ctx)
{
    ((struct guest *)ctx)->shutdowns++;
    vcpu_group_stop(((struct guest *)ctx)->group);
}

static void no_deadline(void *ctx, u64 deadline)
{
}

static int guest_try(struct guest *g, enum cpu_engine engine, struct err *e)
{
    struct vcpu_group_config config = {
        .count = 1, .engine = engine, .model = {"x86-64"}, .clock = &test_clock, .timers = &timers};

    memset(g, 0, sizeof(*g));
    assert_int_equal(guest_memory_create(RAM_SIZE, &g->mem, e), 0);
    assert_int_equal(guest_memory_map(g->mem, 0, RAM_SIZE, 0, false), 0);
    config.mem = g->mem;
    config.bus = (struct vcpu_bus){.ctx = g,
                                   .pio_read = read_ones,
                                   .pio_write = phase_ends,
                                   .mmio_read = mmio_ones,
                                   .mmio_write = mmio_write,
                                   .extint_ack = no_extint,
                                   .eoi = no_eoi,
                                   .shutdown = count_shutdown};
    if (vcpu_group_create(&config, &g->group, e))
        return e->code;
    g->c = vcpu_get(g->group, 0);
    return 0;
}

static void guest_create(struct guest *g, enum cpu_engine engine)
{
    struct err e;

    if (guest_try(g, engine, &e))
        fail_msg("%s", e.text);
}

static void guest_free(struct guest *g)
{
    vcpu_group_free(g->group);
    guest_memory_free(g->mem);
}

static void put64(struct guest *g, u64 at, u64 val)
{
    assert_int_equal(guest_memory_write(g->mem, at, &val, 8), 0);
}

static u64 get64(struct guest *g, u64 at)
{
    u64 val = 0;

    assert_int_equal(guest_memory_read(g->mem, at, &val, 8), 0);
    return val;
}

static const struct vcpu_boot_segment data_segment = {
    .sel = 0x10, .attr = SEG_P | SEG_S | SEG_W | SEG_A | SEG_DB | SEG_G, .limit = 0xffffffff};
static const struct vcpu_boot_segment task_segment = {.sel = 0x18, .attr = SEG_P | 11, .limit = 0x67, .base = 0x3000};

static void load_64(struct guest *g, const u8 *code, const u8 *end)
{
    const struct vcpu_boot_regs regs = {
        .rip = CODE_AT,
        .rsp = STACK_AT,
        .rsi = DATA_AT,
        .rflags = 2,
        .cr0 = CR0_PG | CR0_NE | CR0_ET | CR0_PE,
        .cr3 = PAGES_AT,
        .cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT,
        .efer = EFER_LME | EFER_LMA,
        .cs = {.sel = 8, .attr = SEG_P | SEG_S | SEG_CODE | SEG_R | SEG_A | SEG_L | SEG_G, .limit = 0xffffffff},
        .data = data_segment,
        .tr = task_segment,
    };

    put64(g, PAGES_AT, (PAGES_AT + 0x1000) | 3);
    put64(g, PAGES_AT + 0x1000, (PAGES_AT + 0x2000) | 3);
    put64(g, PAGES_AT + 0x2000, 0x83);
    assert_int_equal(guest_memory_write(g->mem, CODE_AT, code, (u64)(end - code)), 0);
    vcpu_boot(g->c, &regs);
    g->c->s.gpr[RBP] = 6364136223846793005;
}

static void load_compute(struct guest *g)
{
    load_64(g, compute64, compute64_end);
}

static void load_interrupts(struct guest *g)
{
    const struct vcpu_boot_regs regs = {
        .rip = CODE_AT,
        .rsp = STACK_AT,
        .rflags = 2,
        .cr0 = CR0_NE | CR0_ET | CR0_PE,
        .cs = {.sel = 8, .attr = SEG_P | SEG_S | SEG_CODE | SEG_R | SEG_A | SEG_DB | SEG_G, .limit = 0xffffffff},
        .data = data_segment,
        .tr = task_segment,
        .gdt_base = 0x3800,
        .gdt_limit = 0x17,
    };

    put64(g, 0x3808, 0x00cf9b000000ffff);
    put64(g, 0x3810, 0x00cf93000000ffff);
    put64(g, IDT_AT + 0x51 * 8, (CODE_AT + 0x100) | 8 << 16 | 0x8e0000000000);
    assert_int_equal(guest_memory_write(g->mem, CODE_AT, interrupts32, (u64)(interrupts32_end - interrupts32)), 0);
    vcpu_boot(g->c, &regs);
    g->c->s.idtr_base = IDT_AT;
    g->c->s.idtr_limit = 0x7ff;
}

static void load_real(struct guest *g)
{
    struct vcpu_boot_segment data = {
        .sel = DATA_AT >> 4, .base = DATA_AT, .limit = 0xffff, .attr = SEG_P | SEG_S | SEG_W | SEG_A};
    struct vcpu_boot_regs regs = {
        .rip = CODE_AT, .rsp = 0x8000, .rflags = 2, .cr0 = CR0_ET, .data = data, .tr = task_segment};

    regs.cs = (struct vcpu_boot_segment){.limit = 0xffff, .attr = SEG_P | SEG_S | SEG_W | SEG_A | SEG_CODE};
    assert_int_equal(guest_memory_write(g->mem, CODE_AT, real16, (u64)(real16_end - real16)), 0);
    vcpu_boot(g->c, &regs);
    g->c->s.gpr[RBP] = 31421;
}

static void run_phase(struct guest *g)
{
    int before = g->phases;

    vcpu_group_resume(g->group);
    vcpu_run(g->c);
    assert_int_equal(g->shutdowns, 0);
    assert_int_equal(g->phases, before + 1);
}

/* By streams, as a snapshot would. */
static void state_move(const struct state_table *t, const void *from, void *to)
{
    u8 *stream = malloc(state_stream_size(t));
    size_t len = state_save(t, from, stream);

    assert_int_equal(state_load(t, to, stream, len), 0);
    free(stream);
}

static void guest_move(struct guest *from, struct guest *to)
{
    state_move(&vcpu_state_table, &from->c->s, &to->c->s);
    state_move(&lapic_state_table, lapic_state(from->c), lapic_state(to->c));
    vcpu_state_changed(to->c);
    memcpy(to->mem->backing, from->mem->backing, RAM_SIZE);
}

/* What may differ between engines: the clocks that the TSC follows; what a null segment's hidden part holds; the
 * pointers of the last x87 instruction, which move with whoever executed it. */
static void forgive(struct vcpu_state *s)
{
    s->tsc_offset = 0;
    s->fip = s->fdp = 0;
    s->fcs = s->fds = s->fop = 0;
    memset((u8 *)s->xsave + 6, 0, 18);
    memset((u8 *)s->xsave + 28, 0, 4); /* MXCSR_MASK: 0 until the host saved there once */
    for (int seg = 0; seg < SEG_COUNT; seg++)
        if (!(s->seg_attr[seg] & SEG_P)) {
            s->seg_base[seg] = 0;
            s->seg_limit[seg] = 0;
        }
}

static void assert_same(struct guest *a, struct guest *b, int phase)
{
    static struct vcpu_state sa, sb;
    const struct state_field *differs;

    sa = a->c->s;
    sb = b->c->s;
    forgive(&sa);
    forgive(&sb);
    differs = state_differs(&vcpu_state_table, &sa, &sb);
    if (differs)
        fail_msg("after phase %d '%s' differs: rip %llx and %llx", phase, differs->name,
                 (unsigned long long)sa.gpr[RIP], (unsigned long long)sb.gpr[RIP]);
    differs = state_differs(&lapic_state_table, lapic_state(a->c), lapic_state(b->c));
    if (differs)
        fail_msg("after phase %d the local APIC's '%s' differs", phase, differs->name);
    for (u64 at = 0; at < RAM_SIZE; at += 8)
        if (get64(a, at) != get64(b, at))
            fail_msg("after phase %d memory differs at %llx", phase, (unsigned long long)at);
}

/* One guest stays under the interpreter, the other changes engines with every phase. */
static void moved_and_not(void (*load)(struct guest *g), bool kvm_first)
{
    struct guest stays, moves[2];

    guest_create(&stays, CPU_ENGINE_INTERP);
    guest_create(&moves[0], kvm_first ? CPU_ENGINE_KVM : CPU_ENGINE_INTERP);
    guest_create(&moves[1], kvm_first ? CPU_ENGINE_INTERP : CPU_ENGINE_KVM);
    load(&stays);
    load(&moves[0]);
    for (int phase = 0; phase < PHASES; phase++) {
        run_phase(&stays);
        run_phase(&moves[phase & 1]);
        assert_same(&stays, &moves[phase & 1], phase);
        guest_move(&moves[phase & 1], &moves[!(phase & 1)]);
    }
    guest_free(&stays);
    guest_free(&moves[0]);
    guest_free(&moves[1]);
}

static void compute_moves(void **unused)
{
    moved_and_not(load_compute, false);
    moved_and_not(load_compute, true);
}

static void interrupts_move(void **unused)
{
    moved_and_not(load_interrupts, false);
    moved_and_not(load_interrupts, true);
}

static void real_mode_moves(void **unused)
{
    moved_and_not(load_real, false);
    moved_and_not(load_real, true);
}

static void *run_thread(void *vcpu)
{
    vcpu_run(vcpu);
    return NULL;
}

static void wait_for_change(struct guest *g, u64 before)
{
    const struct timespec ms = {.tv_nsec = 1000000};

    for (int n = 0; n < 10000 && get64(g, DATA_AT) == before; n++)
        nanosleep(&ms, NULL);
    assert_int_not_equal(get64(g, DATA_AT), before);
}

static void stands_still(void *ctx)
{
    const struct timespec ms = {.tv_nsec = 5000000};
    struct guest *g = ctx;
    u64 before = get64(g, DATA_AT);

    nanosleep(&ms, NULL);
    assert_int_equal(get64(g, DATA_AT), before);
}

static void stops_and_resets(void **unused)
{
    struct guest g;
    pthread_t thread;

    guest_create(&g, CPU_ENGINE_KVM);
    for (int round = 0; round < 3; round++) {
        u64 before = get64(&g, DATA_AT);

        load_64(&g, forever64, forever64_end);
        vcpu_group_resume(g.group);
        assert_int_equal(pthread_create(&thread, NULL, run_thread, g.c), 0);
        wait_for_change(&g, before);
        for (int n = 0; n < 5; n++)
            vcpu_group_exclusive(g.group, NULL, stands_still, &g);
        wait_for_change(&g, get64(&g, DATA_AT));
        vcpu_group_stop(g.group);
        pthread_join(thread, NULL);
        assert_in_range(g.c->s.gpr[RIP], CODE_AT, CODE_AT + 8);
        vcpu_group_reset(g.group);
        assert_int_equal(g.c->s.gpr[RIP], 0xfff0);
    }
    guest_free(&g);
}

/* RAM that appears while the vCPU runs, and goes again. */
static void map_more(void *ctx)
{
    struct guest *g = ctx;

    assert_int_equal(guest_memory_map(g->mem, MIB(1), PAGE_SIZE, DATA_AT, false), 0);
    vcpu_group_flush(g->group);
}

static void map_less(void *ctx)
{
    struct guest *g = ctx;

    guest_memory_unmap(g->mem, MIB(1));
    vcpu_group_flush(g->group);
}

static void map_changes(void **unused)
{
    struct guest g;
    pthread_t thread;

    guest_create(&g, CPU_ENGINE_KVM);
    load_64(&g, forever64, forever64_end);
    g.c->s.gpr[RSI] = MIB(1);
    vcpu_group_resume(g.group);
    assert_int_equal(pthread_create(&thread, NULL, run_thread, g.c), 0);
    vcpu_group_exclusive(g.group, NULL, map_more, &g);
    wait_for_change(&g, 0);
    vcpu_group_exclusive(g.group, NULL, map_less, &g);
    vcpu_group_exclusive(g.group, NULL, stands_still, &g);
    wait_for_change(&g, get64(&g, DATA_AT) - 1); /* it must not have ended */
    stands_still(&g);
    vcpu_group_stop(g.group);
    pthread_join(thread, NULL);
    guest_free(&g);
}

/* Streams with others are refused: base/state.h. */
static void bools_true(u8 *s)
{
    for (const struct state_field *f = vcpu_state_table.fields; f->name; f++)
        for (u32 n = 0; f->kind == STATE_BOOL && n < f->count; n++)
            s[f->offset + n] &= 1;
}

/* Whatever a snapshot holds, the machine must stay ours: it may shut down, or run what it likes. */
static void hostile_states(void **unused)
{
    unsigned seed = (unsigned)time(NULL);
    struct guest g;

    print_message("seed %u\n", seed);
    srand(seed);
    guest_create(&g, CPU_ENGINE_KVM);
    for (int round = 0; round < 200; round++) {
        u8 *s = (u8 *)&g.c->s;
        pthread_t thread;
        const struct timespec ms = {.tv_nsec = 1000000};

        vcpu_group_reset(g.group);
        load_compute(&g);
        for (int n = rand() % 8; n >= 0; n--)
            s[(size_t)rand() % offsetof(struct vcpu_state, xsave)] = (u8)rand();
        bools_true(s);
        g.c->s.activity = VCPU_ACTIVE;
        g.c->s.cpl &= 3;
        vcpu_state_changed(g.c);
        vcpu_group_resume(g.group);
        assert_int_equal(pthread_create(&thread, NULL, run_thread, g.c), 0);
        nanosleep(&ms, NULL);
        vcpu_group_stop(g.group);
        pthread_join(thread, NULL);
    }
    guest_free(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compute_moves),    cmocka_unit_test(interrupts_move), cmocka_unit_test(real_mode_moves),
        cmocka_unit_test(stops_and_resets), cmocka_unit_test(map_changes),     cmocka_unit_test(hostile_states),
    };
    struct guest g;
    struct err e;

    clock_init(&test_clock);
    clock_start(&test_clock);
    timer_queue_init(&timers, &test_clock, no_deadline, NULL);
    if (guest_try(&g, CPU_ENGINE_KVM, &e)) {
        printf("skipped: %s\n", e.text);
        return 77;
    }
    guest_free(&g);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
