/* A vCPU's life: creation, reset, sleeping and waking, the run loop around the engine, and the group that shares a machine.
 *
 * Reset values: SDM vol. 3 table 9-1. Waking: whoever has news for a vCPU sets bits in `attention` and, if the vCPU sleeps,
 * signals its condition; the vCPU clears a bit before it looks at what the bit announces, so no news is lost. */
#include "cpu/vcpu.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/trace.h"
#include "cpu/access.h"
#include "cpu/cpuid.h"
#include "cpu/debug_points.h"
#include "cpu/engine.h"
#include "cpu/event.h"
#include "cpu/insn_trace.h"
#include "cpu/jit_jumps.h"
#include "cpu/jit_profile.h"
#include "cpu/interp.h"
#include "cpu/lapic.h"
#include "cpu/msr.h"
#include "cpu/tlb.h"
#include "cpu/vcpu_state.h"
#include "cpu/vcpu_trace.h"
#include "cpu/vector.h"
#include "cpu/world.h"
#include "cpu/xstate.h"

#define FIELD(f) STATE(struct vcpu_state, f)
#define FIELDS(f) STATE_ARRAY(struct vcpu_state, f)

static const struct state_field vcpu_state_fields[] = {
    FIELDS(gpr), FIELD(rflags), FIELDS(seg_base), FIELDS(seg_limit), FIELDS(seg_sel), FIELDS(seg_attr),
    FIELD(gdtr_base), FIELD(idtr_base), FIELD(gdtr_limit), FIELD(idtr_limit), FIELD(cpl), FIELD(activity),
    FIELD(nmi_blocked), FIELD(int_shadow), FIELD(debug_shadow), FIELD(nmi_pending), FIELD(init_pending),
    FIELD(sipi_vector), FIELD(sipi_pending), FIELD(bsp), FIELD(ferr), FIELDS(pad), FIELD(pending_db),
    FIELD(cr0), FIELD(cr2), FIELD(cr3), FIELD(cr4), FIELD(efer), FIELD(xcr0), FIELD(xss), FIELDS(pdpte), FIELDS(dr),
    FIELD(msr_star), FIELD(msr_lstar), FIELD(msr_cstar), FIELD(msr_sfmask), FIELD(msr_kernel_gs_base),
    FIELD(msr_sysenter_cs), FIELD(msr_sysenter_esp), FIELD(msr_sysenter_eip), FIELD(msr_tsc_adjust), FIELD(msr_tsc_aux),
    FIELD(msr_pat), FIELD(msr_misc_enable), FIELD(msr_spec_ctrl), FIELD(msr_apic_base), FIELD(msr_tsc_deadline),
    FIELD(msr_feature_control), FIELD(msr_bios_sign_id), FIELD(msr_debugctl), FIELD(msr_mcg_status),
    FIELD(msr_mtrr_def_type), FIELDS(msr_mtrr_fixed), FIELDS(msr_mtrr_base), FIELDS(msr_mtrr_mask), FIELD(tsc_offset),
    FIELD(fip), FIELD(fdp), FIELD(fcs), FIELD(fds), FIELD(fop), FIELD(pad2), FIELD(pkru), FIELD(pkrs), FIELDS(xsave), STATE_END};

const struct state_table vcpu_state_table = STATE_TABLE(struct vcpu_state, vcpu_state_fields, 1);

static void mode_update_segments(struct vcpu *c)
{
    u32 check = 0;

    if (likely(code64(c))) {
        c->lin_base[SEG_ES] = c->lin_base[SEG_CS] = c->lin_base[SEG_SS] = c->lin_base[SEG_DS] = 0;
        c->lin_base[SEG_FS] = c->s.seg_base[SEG_FS];
        c->lin_base[SEG_GS] = c->s.seg_base[SEG_GS];
        c->seg_check = 0;
        return;
    }
    for (int seg = 0; seg < 6; seg++) {
        c->lin_base[seg] = c->s.seg_base[seg];
        /* flat, present, writable, growing upwards: nothing to check */
        if (c->s.seg_limit[seg] != 0xffffffff || !(c->s.seg_attr[seg] & SEG_P) ||
            (c->s.seg_attr[seg] & (SEG_CODE | SEG_E | SEG_W)) != SEG_W)
            check |= 1u << seg;
    }
    c->seg_check = check;
}

void vcpu_mode_update(struct vcpu *c)
{
    u16 cs = c->s.seg_attr[SEG_CS];

    c->code_size = long_mode(c) && cs & SEG_L ? 8 : cs & SEG_DB ? 4 : 2;
    c->lin_mask = code64(c) ? ~0ull : 0xffffffff;
    c->stack_mask = code64(c) ? ~0ull : c->s.seg_attr[SEG_SS] & SEG_DB ? 0xffffffff : 0xffff;
    c->mmu_index = (u8)mmu_set_for(c, c->s.cpl);
    mode_update_segments(c);
    c->fetch_key = c->tlb->fetch_generation << 8 | (c->s.cpl == 3) << 4 | c->code_size;
}

static void segments_reset(struct vcpu *c)
{
    for (int seg = 0; seg < SEG_COUNT; seg++) {
        c->s.seg_sel[seg] = 0;
        c->s.seg_base[seg] = 0;
        c->s.seg_limit[seg] = 0xffff;
        c->s.seg_attr[seg] = SEG_P | SEG_S | SEG_W | SEG_A;
    }
    c->s.seg_sel[SEG_CS] = 0xf000;
    c->s.seg_base[SEG_CS] = 0xffff0000;
    c->s.seg_attr[SEG_CS] = SEG_P | SEG_S | SEG_CODE | SEG_R | SEG_A;
    c->s.seg_attr[SEG_LDTR] = SEG_P | 2;
    c->s.seg_attr[SEG_TR] = SEG_P | 11;
}

/* What INIT and RESET have in common. */
static void registers_reset(struct vcpu *c)
{
    bool bsp = c->s.bsp;

    memset(c->s.gpr, 0, sizeof(c->s.gpr));
    c->s.gpr[RDX] = c->group->model->signature;
    c->s.gpr[RIP] = 0xfff0;
    flags_set(c, 0);
    segments_reset(c);
    c->s.gdtr_base = c->s.idtr_base = 0;
    c->s.gdtr_limit = c->s.idtr_limit = 0xffff;
    c->s.cpl = 0;
    c->s.activity = bsp ? VCPU_ACTIVE : VCPU_WAIT_SIPI;
    c->s.nmi_blocked = c->s.int_shadow = c->s.debug_shadow = false;
    c->s.pending_db = 0;
    c->s.ferr = false;
    c->s.cr0 = CR0_CD | CR0_NW | CR0_ET;
    c->s.cr2 = c->s.cr3 = c->s.cr4 = c->s.efer = 0;
    memset(c->s.dr, 0, sizeof(c->s.dr));
    c->s.dr[6] = 0xffff0ff0;
    c->s.dr[7] = 0x400;
    c->delivering = -1;
}

static void msrs_reset(struct vcpu *c)
{
    c->s.msr_star = c->s.msr_lstar = c->s.msr_cstar = c->s.msr_sfmask = c->s.msr_kernel_gs_base = 0;
    c->s.msr_sysenter_cs = c->s.msr_sysenter_esp = c->s.msr_sysenter_eip = 0;
    c->s.msr_tsc_adjust = c->s.msr_tsc_aux = c->s.msr_spec_ctrl = c->s.msr_tsc_deadline = 0;
    c->s.pkrs = 0;
    c->s.msr_feature_control = 1; /* locked, VMX and SGX off */
    c->s.msr_bios_sign_id = c->s.msr_debugctl = c->s.msr_mcg_status = 0;
    c->s.msr_pat = 0x0007040600070406;
    c->s.msr_misc_enable = 1; /* fast strings */
    c->s.msr_mtrr_def_type = 0;
    memset(c->s.msr_mtrr_fixed, 0, sizeof(c->s.msr_mtrr_fixed));
    memset(c->s.msr_mtrr_base, 0, sizeof(c->s.msr_mtrr_base));
    memset(c->s.msr_mtrr_mask, 0, sizeof(c->s.msr_mtrr_mask));
    c->s.tsc_offset = -(s64)tsc_ticks(c->group, clock_now(c->group->config.clock));
    c->s.xcr0 = 1;
    c->s.xss = 0;
    c->s.pkru = 0;
}

static void engine_state_fetch(struct vcpu *c)
{
    if (c->group->engine->state_fetch)
        c->group->engine->state_fetch(c);
}

static void vcpu_reset(struct vcpu *c)
{
    engine_state_fetch(c);
    c->s.bsp = c->index == 0;
    registers_reset(c);
    c->s.nmi_pending = 0;
    c->s.init_pending = c->s.sipi_pending = false;
    msrs_reset(c);
    ext_reset(c, false);
    lapic_reset(c, false);
    c->attention = 0;
    tlb_flush(c);
    c->group->engine->flush(c);
    vcpu_mode_update(c);
}

void vcpu_init_signal(struct vcpu *c)
{
    vcpu_trace(c, CPU, "vcpu %d: INIT", c->index);
    engine_state_fetch(c);
    registers_reset(c);
    ext_reset(c, true);
    lapic_reset(c, true);
    tlb_flush(c);
    vcpu_mode_update(c);
}

void vcpu_startup(struct vcpu *c, u8 vector)
{
    vcpu_trace(c, CPU, "vcpu %d: SIPI vector %#x", c->index, vector);
    engine_state_fetch(c);
    c->s.seg_sel[SEG_CS] = (u16)(vector << 8);
    c->s.seg_base[SEG_CS] = (u64)vector << 12;
    c->s.gpr[RIP] = 0;
    c->s.activity = VCPU_ACTIVE;
    vcpu_mode_update(c);
}

void vcpu_group_reset(struct vcpu_group *g)
{
    for (int i = 0; i < g->count; i++)
        vcpu_reset(g->vcpu[i]);
}

static void boot_segment(struct vcpu *c, int seg, const struct vcpu_boot_segment *from)
{
    c->s.seg_sel[seg] = from->sel;
    c->s.seg_attr[seg] = from->attr;
    c->s.seg_limit[seg] = from->limit;
    c->s.seg_base[seg] = from->base;
}

void vcpu_boot(struct vcpu *c, const struct vcpu_boot_regs *r)
{
    static const int data_segments[] = {SEG_DS, SEG_ES, SEG_SS, SEG_FS, SEG_GS};

    engine_state_fetch(c);
    memset(c->s.gpr, 0, sizeof(c->s.gpr));
    c->s.gpr[RIP] = r->rip;
    c->s.gpr[RSP] = r->rsp;
    c->s.gpr[RAX] = r->rax;
    c->s.gpr[RBX] = r->rbx;
    c->s.gpr[RSI] = r->rsi;
    c->s.gpr[RDI] = r->rdi;
    flags_set(c, r->rflags);
    c->s.cr0 = r->cr0;
    c->s.cr3 = r->cr3;
    c->s.cr4 = r->cr4;
    c->s.efer = r->efer;
    boot_segment(c, SEG_CS, &r->cs);
    boot_segment(c, SEG_TR, &r->tr);
    for (size_t i = 0; i < ARRAY_SIZE(data_segments); i++)
        boot_segment(c, data_segments[i], &r->data);
    c->s.gdtr_base = r->gdt_base;
    c->s.gdtr_limit = r->gdt_limit;
    c->s.activity = VCPU_ACTIVE;
    tlb_flush(c);
    vcpu_mode_update(c);
}

void vcpu_state_sync(struct vcpu *c)
{
    engine_state_fetch(c);
    c->s.rflags = flags_get(c);
    ext_save(c);
}

void vcpu_state_changed(struct vcpu *c)
{
    flags_set(c, c->s.rflags);
    tlb_flush(c);
    vcpu_mode_update(c);
    lapic_loaded(c);
    /* the run loop finds out for itself what there is to do */
    __atomic_or_fetch(&c->attention, ATTN_EVENT | ATTN_STEP, __ATOMIC_SEQ_CST);
}

void vcpu_attend(struct vcpu *c, u32 bits)
{
    __atomic_or_fetch(&c->attention, bits, __ATOMIC_SEQ_CST);
    if (c->group->engine->kick)
        c->group->engine->kick(c);
    if (!__atomic_load_n(&c->waiting, __ATOMIC_SEQ_CST))
        return;
    pthread_mutex_lock(&c->wait_lock);
    pthread_cond_signal(&c->wait_cond);
    pthread_mutex_unlock(&c->wait_lock);
}

/* Sleeps until somebody has news. The guest halts, or waits for SIPI. */
static void vcpu_sleep(struct vcpu *c)
{
    ext_save(c);
    pthread_mutex_lock(&c->wait_lock);
    __atomic_store_n(&c->waiting, true, __ATOMIC_SEQ_CST);
    while (!__atomic_load_n(&c->attention, __ATOMIC_SEQ_CST))
        pthread_cond_wait(&c->wait_cond, &c->wait_lock);
    __atomic_store_n(&c->waiting, false, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&c->wait_lock);
}

/* A debugger steps it or has points set, or instructions are traced: the interpreter's work, whatever the engine. */
static void vcpu_run_debugged(struct vcpu *c)
{
    engine_state_fetch(c);
    if (c->debug.resume == DEBUG_RUN) {
        interp_engine.run(c);
        return;
    }
    interp_step_debug(c, c->group->step_events);
    debug_stopped(c, DEBUG_STEPPED, 0, 0);
}

/* One stretch of guest code, until the engine returns. */
static void vcpu_run_active(struct vcpu *c)
{
    world_enter(c);
    if (unlikely(debug_active(c)))
        vcpu_run_debugged(c);
    else
        c->group->engine->run(c);
    ext_save(c);
    world_leave(c);
}

/* False: the debugger holds it, or it has stopped for the debugger. */
static bool vcpu_turn(struct vcpu *c)
{
    if (unlikely(c->debug.resume == DEBUG_HOLD))
        return false;
    if (c->s.activity != VCPU_ACTIVE && !vcpu_wakes(c))
        vcpu_sleep(c);
    else
        vcpu_run_active(c);
    if (likely(!c->debug.stop.reason))
        return true;
    c->group->debug_stopped(c->group->debug_ctx);
    return false;
}

void vcpu_run(struct vcpu *c)
{
    tsc_clock_check(&c->group->tsc_clock, c->group->config.clock);
    if (unlikely(insn_trace_steps(c)))
        __atomic_or_fetch(&c->attention, ATTN_STEP, __ATOMIC_SEQ_CST);
    while (!__atomic_load_n(&c->group->stopping, __ATOMIC_SEQ_CST)) {
        __atomic_and_fetch(&c->attention, ~(u32)(ATTN_STOP | ATTN_EXCLUSIVE), __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&c->group->stopping, __ATOMIC_SEQ_CST))
            break;
        if (!vcpu_turn(c))
            break;
    }
    vcpu_state_sync(c);
}

void vcpu_group_stop(struct vcpu_group *g)
{
    __atomic_store_n(&g->stopping, true, __ATOMIC_SEQ_CST);
    for (int i = 0; i < g->count; i++)
        vcpu_attend(g->vcpu[i], ATTN_STOP);
}

void vcpu_group_resume(struct vcpu_group *g)
{
    __atomic_store_n(&g->stopping, false, __ATOMIC_SEQ_CST);
}

void vcpu_group_flush(struct vcpu_group *g)
{
    for (int i = 0; i < g->count; i++)
        vcpu_attend(g->vcpu[i], ATTN_FLUSH);
}

void vcpu_group_a20(struct vcpu_group *g, bool open)
{
    if (__atomic_exchange_n(&g->a20_closed, !open, __ATOMIC_SEQ_CST) == open)
        vcpu_group_flush(g);
}

void vcpu_group_intr(struct vcpu_group *g, bool level)
{
    __atomic_store_n(&g->intr_level, level, __ATOMIC_SEQ_CST);
    lapic_lint(g->vcpu[0], 0, level);
    if (level)
        vcpu_attend(g->vcpu[0], ATTN_EVENT);
}

/* Where a vCPU lives: with what generated code reaches by a displacement. */
struct vcpu_home {
    u8 below[VCPU_BELOW];
    _Alignas(64) struct vcpu vcpu;
    _Alignas(64) struct tlb tlb;
    _Alignas(64) struct jit_cell cells[JIT_CELLS];
    void *memory; /* where it was allocated */
};

static struct vcpu *home_create(void)
{
    u64 align = _Alignof(struct vcpu_home);
    u8 *memory = calloc(1, sizeof(struct vcpu_home) + align); /* of this size it comes as zero pages, made when touched */
    struct vcpu_home *home = (struct vcpu_home *)ALIGN_UP((u64)memory, align);

    if (!memory)
        return NULL;
    home->memory = memory;
    home->vcpu.tlb = &home->tlb;
    home->vcpu.cells = home->cells;
    return &home->vcpu;
}

static void home_free(struct vcpu *c)
{
    struct vcpu_home *home = (struct vcpu_home *)((u8 *)c - offsetof(struct vcpu_home, vcpu));

    free(home->memory);
}

static int vcpu_create(struct vcpu_group *g, int index, struct err *e)
{
    struct vcpu *c = home_create();
    int r;

    if (!c)
        return err_set(e, -ENOMEM, "vCPU %d: out of memory", index);
    g->vcpu[index] = c;
    c->group = g;
    c->index = index;
    c->apic_id = (u32)index;
    pthread_mutex_init(&c->wait_lock, NULL);
    pthread_cond_init(&c->wait_cond, NULL);
    tlb_init(c);
    r = interp_create(c, e);
    if (!r)
        r = lapic_create(c, e);
    if (!r && g->engine->vcpu_create)
        r = g->engine->vcpu_create(c, e);
    return r;
}

static void vcpu_free(struct vcpu *c)
{
    if (!c)
        return;
    if (c->group->engine->vcpu_free)
        c->group->engine->vcpu_free(c);
    lapic_free(c);
    interp_free(c);
    pthread_cond_destroy(&c->wait_cond);
    pthread_mutex_destroy(&c->wait_lock);
    home_free(c);
}

int vcpu_model_check(const struct cpu_model_name *name, struct err *e)
{
    struct cpu_model *model = NULL;
    int r = ext_setup(e);

    if (!r)
        r = cpu_model_create(name, NULL, &model, e);
    cpu_model_free(model);
    return r;
}

static int model_create(struct vcpu_group *g, struct err *e)
{
    struct cpu_model_limit limit;
    int r;

    if (!g->engine->model_limit)
        return cpu_model_create(&g->config.model, NULL, &g->model, e);
    r = g->engine->model_limit(&limit, e);
    return r ? r : cpu_model_create(&g->config.model, &limit, &g->model, e);
}

int vcpu_group_create(const struct vcpu_group_config *config, struct vcpu_group **ret, struct err *e)
{
    struct vcpu_group *g;
    int r = ext_setup(e);

    if (r)
        return r;
    g = calloc(1, sizeof(*g));
    if (!g)
        return err_set(e, -ENOMEM, "vCPUs: out of memory");
    g->config = *config;
    r = engine_choose(g, e);
    if (r) {
        free(g);
        return r;
    }
    g->tsc_khz = TSC_KHZ_DEFAULT;
    g->count = config->count;
    tsc_clock_init(&g->tsc_clock);
    world_init(g);
    r = model_create(g, e);
    if (!r)
        r = vector_setup(g, e);
    if (!r && g->engine->group_create)
        r = g->engine->group_create(g, e);
    for (int i = 0; !r && i < config->count; i++)
        r = vcpu_create(g, i, e);
    if (!r)
        r = insn_trace_create(g, config->insn_trace, &g->insn_trace, e);
    if (!r)
        r = jit_profile_create(config->profile, &g->profile, e);
    if (r) {
        vcpu_group_free(g);
        return r;
    }
    vcpu_group_reset(g);
    *ret = g;
    return 0;
}

void vcpu_group_free(struct vcpu_group *g)
{
    if (!g)
        return;
    for (int i = 0; i < g->count; i++)
        vcpu_free(g->vcpu[i]);
    if (g->engine->group_free)
        g->engine->group_free(g);
    free(g->points);
    insn_trace_free(g->insn_trace);
    jit_profile_free(g->profile);
    vector_free(g);
    cpu_model_free(g->model);
    world_destroy(g);
    tsc_clock_free(&g->tsc_clock);
    free(g);
}

struct vcpu *vcpu_get(struct vcpu_group *g, int index)
{
    return g->vcpu[index];
}

int vcpu_count(const struct vcpu_group *g)
{
    return g->count;
}

const char *vcpu_group_model(const struct vcpu_group *g)
{
    return g->model->name;
}

const char *vcpu_group_engine(const struct vcpu_group *g)
{
    return g->engine->name;
}

const char *vcpu_group_engine_reason(const struct vcpu_group *g)
{
    return g->engine_reason;
}

u64 vcpu_group_retired(const struct vcpu_group *g)
{
    u64 n = 0;

    for (int i = 0; i < g->count; i++)
        n += __atomic_load_n(&g->vcpu[i]->retired, __ATOMIC_RELAXED);
    return n;
}
