/* The interpreter's side of a test case: see guest.h.
 *
 * Faults are caught where the interpreter raises them. INT3, INTO and the like deliver through the guest's IDT, whose gates lead to
 * handlers that only halt: what they pushed on the stack of ring 0 says what the program was. Gates have Linux' privileges: programs
 * may call 3 and 4. */
#include "guest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/cpuid.h"
#include "cpu/engine.h"
#include "cpu/interp.h"
#include "cpu/tlb.h"
#include "cpu/vector_op.h"
#include "cpu/xstate.h"

/* Physical addresses of what is in guest RAM. */
#define GPA_SYSTEM 0x10000 /* shown at SYSTEM_VA */
#define GPA_TABLES 0x20000
#define GPA_CODE REAL_CODE_AT
#define GPA_DATA REAL_DATA_AT
#define RAM_SIZE KIB(384)

/* System pages: descriptor tables, TSS and the stack of ring 0. */
#define SYSTEM_VA 0xfff00000ull
#define SYSTEM_SIZE 0x4000u
#define GDT_AT 0x000
#define LDT_AT 0x100
#define TSS_AT 0x200
#define TSS_SIZE 0x68
#define IDT_AT 0x1000
#define STACK_AT 0x3000 /* its end */
#define HANDLERS_AT 0x3000
#define GDT_ENTRIES 16
#define STEPS_MAX 80 /* a REP that is interrupted goes on */

enum { GDT_KERNEL_CODE = 2, GDT_KERNEL_DATA, GDT_CODE32, GDT_DATA, GDT_CODE64, GDT_TSS = 8, GDT_LDT = 10, GDT_CPU_NUMBER = 15 };

struct insn_guest {
    struct insn_guest_config config;
    struct clock clock;
    struct timer_queue timers;
    struct guest_memory *mem;
    struct vcpu_group *group;
    struct vcpu *vcpu;
    u8 *system, *code, *data;
    u8 *untouched; /* all of RAM as it was at first; real mode's, where nothing is protected */
};

/* ---- a bus with nothing on it ---- */

static u64 bus_read(void *ctx, u64 addr, int size)
{
    return ~0ull;
}
static u64 bus_pio_read(void *ctx, u16 port, int size)
{
    return ~0ull;
}
static void bus_write(void *ctx, u64 addr, int size, u64 val)
{
}
static void bus_pio_write(void *ctx, u16 port, int size, u64 val)
{
}
static int bus_ack(void *ctx)
{
    return -1;
}
static void bus_eoi(void *ctx, u8 vector)
{
}
static void bus_shutdown(void *ctx)
{
}

/* ---- page tables: PML4 and PDPT, page directories for the first and the fourth GiB, one page table for each area ---- */

#define TABLE(n) (GPA_TABLES + (n)*0x1000u)
enum { T_PML4, T_PDPT, T_PD0, T_PD3, T_DATA, T_CODE, T_SYSTEM, T_LOW };
enum { PTE_P = 1, PTE_W = 2, PTE_U = 4, PTE_AD = 0x60 };
#define PTE_NX (1ull << 63)

static u64 *entry(struct insn_guest *g, int table, u64 n)
{
    return (u64 *)(g->mem->backing + TABLE(table)) + (n & 511);
}

static void map_area(struct insn_guest *g, int table, u64 va, u64 gpa, u64 size, u64 bits)
{
    *entry(g, va >> 30 ? T_PD3 : T_PD0, va >> 21) = TABLE(table) | PTE_P | PTE_W | PTE_U;
    for (u64 n = 0; n < size; n += PAGE_SIZE)
        *entry(g, table, (va + n) >> 12) = (gpa + n) | bits | PTE_P | PTE_AD;
}

static void tables_setup(struct insn_guest *g)
{
    u64 bits = g->config.legacy ? PTE_P : PTE_P | PTE_W | PTE_U; /* the PDPTEs of PAE paging have no rights */

    *entry(g, T_PML4, 0) = TABLE(T_PDPT) | PTE_P | PTE_W | PTE_U;
    *entry(g, T_PDPT, 0) = TABLE(T_PD0) | bits;
    *entry(g, T_PDPT, 3) = TABLE(T_PD3) | bits;
    map_area(g, T_DATA, DATA_VA, GPA_DATA, DATA_WRITABLE, PTE_W | PTE_U | PTE_NX);
    map_area(g, T_DATA, DATA_VA + DATA_WRITABLE, GPA_DATA + DATA_WRITABLE, DATA_SIZE - DATA_WRITABLE, PTE_U | PTE_NX);
    map_area(g, T_CODE, CODE_VA, GPA_CODE, CODE_SIZE, PTE_U | (g->config.code_writable ? PTE_W : 0));
    map_area(g, T_SYSTEM, SYSTEM_VA, GPA_SYSTEM, SYSTEM_SIZE, PTE_W);
    if (g->config.mode == GUEST_V86) {
        map_area(g, T_LOW, GPA_CODE, GPA_CODE, CODE_SIZE, PTE_U | PTE_W);
        map_area(g, T_LOW, GPA_DATA, GPA_DATA, DATA_WRITABLE, PTE_U | PTE_W);
    }
}

/* ---- descriptor tables ---- */

static u64 *gdt(struct insn_guest *g)
{
    return (u64 *)(g->system + GDT_AT);
}

/* A system descriptor; in long mode it has two entries. */
static void system_descriptor(struct insn_guest *g, int n, u32 at, u32 size, u64 type)
{
    u64 base = SYSTEM_VA + at;

    gdt(g)[n] = (size - 1) | (base & 0xffffff) << 16 | (0x80 | type) << 40 | (base >> 24 & 0xff) << 56;
    gdt(g)[n + 1] = base >> 32;
}

static void gdt_setup(struct insn_guest *g)
{
    gdt(g)[GDT_KERNEL_CODE] = g->config.legacy ? 0x00cf9b000000ffff : 0x00af9b000000ffff;
    gdt(g)[GDT_KERNEL_DATA] = 0x00cf93000000ffff;
    gdt(g)[1] = 0x00cf9b000000ffff; /* Linux' 32-bit segment of ring 0 */
    gdt(g)[GDT_CODE32] = 0x00cffb000000ffff;
    gdt(g)[GDT_DATA] = 0x00cff3000000ffff;
    gdt(g)[GDT_CODE64] = 0x00affb000000ffff;
    system_descriptor(g, GDT_TSS, TSS_AT, TSS_SIZE, 11);
    system_descriptor(g, GDT_LDT, LDT_AT, LDT_COUNT * 8, 2);
    for (int n = 0; n < LDT_COUNT; n++)
        ((u64 *)(g->system + LDT_AT))[n] = layout_descriptor(&layout_ldt[n]);
}

void guest_set_cpu_number_limit(struct insn_guest *g, u32 limit)
{
    /* read-only, expand-down, accessed: Linux' choice */
    gdt(g)[GDT_CPU_NUMBER] = (limit & 0xffff) | 0x0040f50000000000 | (u64)(limit >> 16 & 15) << 48;
}

static void idt_setup(struct insn_guest *g)
{
    u32 size = g->config.legacy ? 8 : 16;

    for (u32 n = 0; n < 256; n++) {
        u64 *gate = (u64 *)(g->system + IDT_AT + n * size), to = SYSTEM_VA + HANDLERS_AT + n;
        u64 dpl = n == EXC_BP || n == EXC_OF ? 3 : 0;

        gate[0] = (to & 0xffff) | (u64)GDT_KERNEL_CODE << 19 | (0x8e | dpl << 5) << 40 | (to >> 16 & 0xffff) << 48;
        if (!g->config.legacy)
            gate[1] = to >> 32;
    }
}

/* Real mode's table of vectors, and the same handlers. */
static void vectors_setup(struct insn_guest *g)
{
    for (u32 n = 0; n < 256; n++)
        ((u32 *)(g->system + IDT_AT))[n] = (GPA_SYSTEM + HANDLERS_AT) >> 4 << 16 | n;
}

static void tss_setup(struct insn_guest *g)
{
    u64 stack = SYSTEM_VA + STACK_AT;
    u16 io_map = TSS_SIZE;

    memcpy(g->system + TSS_AT + 4, &stack, 8);
    if (g->config.legacy)
        g->system[TSS_AT + 8] = GDT_KERNEL_DATA * 8;
    memcpy(g->system + TSS_AT + 102, &io_map, 2);
}

/* ---- lifecycle ---- */

static int machine_create(struct insn_guest *g, struct err *e)
{
    struct vcpu_group_config config = {.count = 1, .engine = g->config.engine, .stress = g->config.stress,
                                       .windows = g->config.windows ? CPU_WINDOWS_ALWAYS : CPU_WINDOWS_OFF,
                                       .clock = &g->clock, .timers = &g->timers};
    int r;

    strcpy(config.model.text, "host");
    config.bus =
        (struct vcpu_bus){NULL, bus_pio_read, bus_pio_write, bus_read, bus_write, bus_ack, bus_eoi, bus_shutdown, NULL};
    clock_init(&g->clock);
    timer_queue_init(&g->timers, &g->clock, NULL, NULL);
    r = guest_memory_create(RAM_SIZE, &g->mem, e);
    if (r)
        return r;
    guest_memory_map(g->mem, 0, RAM_SIZE, 0, false);
    config.mem = g->mem;
    return vcpu_group_create(&config, &g->group, e);
}

static int untouched_keep(struct insn_guest *g, struct err *e)
{
    g->untouched = malloc(RAM_SIZE);
    if (!g->untouched)
        return err_set(e, -ENOMEM, "out of memory");
    memcpy(g->untouched, g->mem->backing, RAM_SIZE);
    return 0;
}

int guest_create(const struct insn_guest_config *config, struct insn_guest **ret, struct err *e)
{
    struct insn_guest *g = calloc(1, sizeof(*g));
    int r;

    if (!g)
        return err_set(e, -ENOMEM, "out of memory");
    g->config = *config;
    r = machine_create(g, e);
    if (r)
        return r;
    g->vcpu = vcpu_get(g->group, 0);
    g->system = g->mem->backing + GPA_SYSTEM;
    g->code = g->mem->backing + GPA_CODE;
    g->data = g->mem->backing + GPA_DATA;
    tables_setup(g);
    gdt_setup(g);
    if (g->config.mode == GUEST_REAL)
        vectors_setup(g);
    else
        idt_setup(g);
    tss_setup(g);
    memset(g->code, 0xcc, CODE_SIZE);
    memset(g->system + HANDLERS_AT, 0xf4, SYSTEM_SIZE - HANDLERS_AT);
    *ret = g;
    return g->config.mode == GUEST_REAL ? untouched_keep(g, e) : 0;
}

struct vcpu *guest_vcpu(struct insn_guest *g)
{
    return g->vcpu;
}

bool guest_shows(struct insn_guest *g, const struct insn_case *c, const struct decoded *d)
{
    struct insn_source src = {.zi = &d->zi, .op = d->op, .bytes = c->bytes, .code_size = c->code_size};
    const struct vector_isa *isa = vector_isa_find(&src);

    return !isa || vector_isa_shown(g->vcpu, isa, &src);
}

/* ---- a case's state into the vCPU ---- */

static u64 descriptor_of(struct insn_guest *g, u16 sel)
{
    u32 n = sel >> 3;

    if (sel & 4)
        return n < LDT_COUNT ? ((u64 *)(g->system + LDT_AT))[n] : 0;
    return n < GDT_ENTRIES ? gdt(g)[n] : 0;
}

static void segment_set_from(struct vcpu_state *s, int seg, u16 sel, u64 raw)
{
    u32 limit = (u32)((raw & 0xffff) | (raw >> 32 & 0xf0000));

    s->seg_sel[seg] = sel;
    s->seg_base[seg] = (u32)((raw >> 16 & 0xffffff) | (raw >> 56) << 24);
    s->seg_attr[seg] = (u16)(raw >> 40 & 0xf0ff);
    s->seg_limit[seg] = s->seg_attr[seg] & SEG_G ? limit << 12 | 0xfff : limit;
}

static void segments_set(struct insn_guest *g, const struct insn_case *c)
{
    struct vcpu_state *s = &g->vcpu->s;

    for (int seg = 0; seg < 6; seg++)
        segment_set_from(s, seg, c->s.sel[seg], descriptor_of(g, c->s.sel[seg]));
    if (c->code_size == 8) {
        s->seg_base[SEG_FS] = c->s.fs_base;
        s->seg_base[SEG_GS] = c->s.gs_base;
    }
    segment_set_from(s, SEG_TR, GDT_TSS * 8, gdt(g)[GDT_TSS]);
    segment_set_from(s, SEG_LDTR, GDT_LDT * 8, gdt(g)[GDT_LDT]);
    s->gdtr_base = SYSTEM_VA + GDT_AT;
    s->gdtr_limit = GDT_ENTRIES * 8 - 1;
    s->idtr_base = SYSTEM_VA + IDT_AT;
    s->idtr_limit = g->config.legacy ? 0x7ff : 0xfff;
}

/* The segments of real and virtual-8086 mode, with bases as in protected mode. */
static void segments_real(struct insn_guest *g)
{
    struct vcpu_state *s = &g->vcpu->s;
    bool v86 = g->config.mode == GUEST_V86;

    for (int seg = 0; seg < 6; seg++) {
        s->seg_limit[seg] = 0xffff;
        s->seg_attr[seg] = SEG_P | SEG_S | SEG_W | SEG_A | (v86 ? SEG_DPL : 0);
        if (!v86)
            s->seg_base[seg] = (u32)(s->seg_base[seg] + (seg == SEG_CS ? GPA_CODE - CODE_VA : GPA_DATA - DATA_VA));
    }
    if (v86)
        return;
    s->idtr_base = GPA_SYSTEM + IDT_AT;
    s->idtr_limit = 0x3ff;
}

static void control_set(struct insn_guest *g)
{
    struct vcpu_state *s = &g->vcpu->s;

    s->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
    s->cr4 = (CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | CR4_FSGSBASE | CR4_UMIP | CR4_SMEP) &
             g->group->model->cr4_mask;
    s->efer = EFER_NXE | EFER_SCE | (g->config.legacy ? 0 : EFER_LME | EFER_LMA);
    s->cr3 = g->config.legacy ? TABLE(T_PDPT) : TABLE(T_PML4);
    for (u64 n = 0; n < 4; n++)
        s->pdpte[n] = *entry(g, T_PDPT, n);
    s->xcr0 = g->group->model->xcr0_mask;
    s->cpl = 3;
    s->activity = VCPU_ACTIVE;
    s->int_shadow = s->debug_shadow = false;
    s->pending_db = 0;
    s->pkru = 0;
    if (g->config.mode == GUEST_REAL) {
        s->cr0 &= ~(u64)(CR0_PE | CR0_PG);
        s->cpl = 0;
    }
}

static void pointers_set(struct vcpu_state *s, const u8 *xsave)
{
    memcpy(&s->fop, xsave + 6, 2);
    memcpy(&s->fip, xsave + 8, 8);
    memcpy(&s->fdp, xsave + 16, 8);
    s->fcs = s->fds = 0;
}

static void case_load(struct insn_guest *g, const struct insn_case *c)
{
    struct vcpu *v = g->vcpu;

    ext_save(v);
    control_set(g);
    segments_set(g, c);
    if (g->config.mode != GUEST_PROTECTED)
        segments_real(g);
    memcpy(v->s.gpr, c->s.gpr, sizeof(c->s.gpr));
    v->s.gpr[RIP] = c->s.rip;
    flags_set(v, c->s.flags);
    if (g->config.mode == GUEST_V86) /* with and without the right to change IF */
        v->s.rflags |= FLAG_VM | (c->s.gpr[RAX] & 1 ? FLAG_IOPL : 0);
    memcpy(v->s.xsave, c->s.xsave, XSAVE_AREA_SIZE);
    pointers_set(&v->s, c->s.xsave);
    v->attention &= ATTN_CODE;
    if (c->s.flags & FLAG_TF)
        v->attention |= ATTN_STEP;
    v->delivering = -1;
    vcpu_mode_update(v);
}

/* ---- and back ---- */

static void case_store(struct vcpu *v, struct insn_state *s)
{
    vcpu_state_sync(v);
    memcpy(s->gpr, v->s.gpr, sizeof(s->gpr));
    s->rip = v->s.gpr[RIP];
    s->flags = flags_get(v);
    for (int seg = 0; seg < 6; seg++)
        s->sel[seg] = v->s.seg_sel[seg];
    s->fs_base = v->s.seg_base[SEG_FS];
    s->gs_base = v->s.seg_base[SEG_GS];
    memcpy(s->xsave, v->s.xsave, XSAVE_AREA_SIZE);
    memcpy(s->xsave + 6, &v->s.fop, 2);
    memcpy(s->xsave + 8, &v->s.fip, 8);
    memcpy(s->xsave + 16, &v->s.fdp, 8);
}

static bool pushes_error(int vector)
{
    return vector == EXC_DF || vector == EXC_AC || (vector >= EXC_TS && vector <= EXC_PF);
}

/* The handler has halted, the frame is on the program's stack. */
static void undo_real(struct insn_guest *g, struct insn_outcome *o)
{
    u64 at = (g->vcpu->lin_base[SEG_SS] + (g->vcpu->s.gpr[RSP] & g->vcpu->stack_mask)) & 0xffffffff;
    u16 frame[3] = {0};

    o->vector = (int)g->vcpu->s.gpr[RIP] - 1;
    if (at < RAM_SIZE - sizeof(frame))
        memcpy(frame, g->mem->backing + at, sizeof(frame));
    o->s.rip = frame[0];
    o->s.sel[SEG_CS] = frame[1];
    o->s.flags = frame[2];
}

/* Ring 0 was entered, and may have halted: the program is what the frame on its stack says. */
static void undo_delivery(struct insn_guest *g, struct insn_outcome *o)
{
    u32 word = g->config.legacy ? 4 : 8;
    const u8 *at = g->system + (g->vcpu->s.gpr[RSP] - SYSTEM_VA);
    u64 frame[9] = {0};

    o->vector = (int)(g->vcpu->s.gpr[RIP] - SYSTEM_VA - HANDLERS_AT) - (g->vcpu->s.activity == VCPU_HALTED);
    if (pushes_error(o->vector)) {
        memcpy(&o->error, at, word);
        at += word;
    }
    for (int n = 0; n < (g->config.mode == GUEST_V86 ? 9 : 5); n++)
        memcpy(&frame[n], at + (u32)n * word, word);
    o->s.rip = frame[0];
    o->s.sel[SEG_CS] = (u16)frame[1];
    o->s.flags = frame[2];
    o->s.gpr[RSP] = frame[3];
    o->s.sel[SEG_SS] = (u16)frame[4];
    if (g->config.mode != GUEST_V86)
        return;
    o->s.sel[SEG_ES] = (u16)frame[5];
    o->s.sel[SEG_DS] = (u16)frame[6];
    o->s.sel[SEG_FS] = (u16)frame[7];
    o->s.sel[SEG_GS] = (u16)frame[8];
}

static u64 code_offset(const struct vcpu *v)
{
    return ((v->lin_base[SEG_CS] + v->s.gpr[RIP]) & v->lin_mask) - CODE_VA;
}

/* How the instruction ended, once control has moved. */
static int where_to(struct vcpu *v, const struct insn_case *c, u64 start)
{
    u64 at = code_offset(v);

    if (!v->s.cpl)
        return INSN_DONE;
    if (at >= CODE_SIZE)
        return interp_try(v); /* the host has gone on to the fault at the target */
    return at - start < c->len ? INSN_ASTRAY : INSN_DONE;
}

static int run(struct vcpu *v, const struct insn_case *c)
{
    u64 start = code_offset(v);

    for (int n = 0; n < STEPS_MAX; n++) {
        int vector = interp_try(v);

        if (vector >= 0)
            return vector;
        if (!v->s.cpl || v->s.gpr[RIP] != c->s.rip || v->s.seg_sel[SEG_CS] != c->s.sel[SEG_CS])
            return where_to(v, c, start);
    }
    return INSN_ASTRAY;
}

static void code_put(struct insn_guest *g, const struct insn_case *c, bool clear)
{
    u64 at = case_code_at(c), len = MIN(c->len, CODE_SIZE - at);

    if (clear)
        memset(g->code + at, 0xcc, len);
    else
        memcpy(g->code + at, c->bytes, len);
    guest_memory_written(g->mem, g->code + at, len);
}

void guest_run(struct insn_guest *g, const struct insn_case *c, struct insn_outcome *ret)
{
    struct vcpu *v = g->vcpu;

    code_put(g, c, false);
    memcpy(g->data, c->data, DATA_SIZE);
    case_load(g, c);
    ret->vector = run(v, c);
    case_store(v, &ret->s);
    ret->error = v->fault_has_error ? v->fault_error : 0;
    ret->address = v->s.cr2;
    if (!v->s.cpl)
        undo_delivery(g, ret);
    memcpy(ret->data, g->data, DATA_WRITABLE);
    code_put(g, c, true);
}

/* ---- sequences ---- */

static void touched_restore(struct insn_guest *g)
{
    for (u64 at = 0; at < RAM_SIZE; at += PAGE_SIZE) {
        u8 *page = g->mem->backing + at;

        if ((at >= GPA_CODE && at < GPA_CODE + CODE_SIZE) || !memcmp(page, g->untouched + at, PAGE_SIZE))
            continue;
        memcpy(page, g->untouched + at, PAGE_SIZE);
        guest_memory_written(g->mem, page, PAGE_SIZE);
    }
}

static void sequence_put(struct insn_guest *g, const u8 *code)
{
    if (g->untouched)
        touched_restore(g);
    if (!memcmp(g->code, code, CODE_SIZE))
        return;
    memcpy(g->code, code, CODE_SIZE);
    guest_memory_written(g->mem, g->code, CODE_SIZE);
}

/* Else it has not ended, or has entered ring 0 by SYSCALL, or has halted by itself. */
static bool in_handler(const struct insn_guest *g)
{
    const struct vcpu *v = g->vcpu;

    if (g->config.mode == GUEST_REAL)
        return v->s.activity == VCPU_HALTED && v->s.seg_base[SEG_CS] == GPA_SYSTEM + HANDLERS_AT && v->s.gpr[RIP] <= 256;
    return !v->s.cpl && v->s.gpr[RIP] - (SYSTEM_VA + HANDLERS_AT) <= 256;
}

static void run_steps(struct vcpu *v, u32 steps)
{
    for (u32 n = 0; n < steps && (v->s.cpl || !protected_mode(v)) && v->s.activity == VCPU_ACTIVE; n++)
        interp_step(v);
}

void guest_run_code(struct insn_guest *g, const struct insn_case *c, const u8 *code, u32 steps, struct insn_outcome *ret, u8 *ret_code)
{
    struct vcpu *v = g->vcpu;

    sequence_put(g, code);
    memcpy(g->data, c->data, DATA_SIZE);
    case_load(g, c);
    if (steps)
        run_steps(v, steps);
    else
        g->group->engine->run(v);
    case_store(v, &ret->s);
    ret->address = v->s.cr2;
    ret->vector = INSN_ASTRAY;
    ret->error = 0;
    if (in_handler(g))
        (g->config.mode == GUEST_REAL ? undo_real : undo_delivery)(g, ret);
    memcpy(ret->data, g->data, DATA_WRITABLE);
    memcpy(ret_code, g->code, CODE_SIZE);
}

void guest_interrupt(struct insn_guest *g)
{
    __atomic_or_fetch(&g->vcpu->attention, ATTN_STOP, __ATOMIC_SEQ_CST);
    if (g->group->engine->kick)
        g->group->engine->kick(g->vcpu);
}

void guest_forget_pages(struct insn_guest *g)
{
    tlb_flush(g->vcpu);
}
