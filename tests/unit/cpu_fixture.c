/* See cpu_fixture.h. */
#include "cpu_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "cpu/interp.h"

static u64 no_pio_read(void *ctx, u16 port, int size)
{
    return ~0ull;
}

static void no_pio_write(void *ctx, u16 port, int size, u64 val)
{
}

static u64 no_mmio_read(void *ctx, u64 gpa, int size)
{
    return ~0ull;
}

static void no_mmio_write(void *ctx, u64 gpa, int size, u64 val)
{
}

static int no_extint(void *ctx)
{
    return -1;
}

static void no_eoi(void *ctx, u8 vector)
{
}

static void shutdown_count(void *ctx)
{
    ((struct cpu_fixture *)ctx)->shutdowns++;
}

static void no_earlier(void *ctx, u64 deadline)
{
}

void cpu_fixture_create(struct cpu_fixture *f, int cpus, const char *model)
{
    cpu_fixture_create_with(f, cpus, model, CPU_ENGINE_INTERP);
}

void cpu_fixture_create_with(struct cpu_fixture *f, int cpus, const char *model, enum cpu_engine engine)
{
    struct vcpu_group_config config = {.count = cpus, .engine = engine};
    struct err e;

    memset(f, 0, sizeof(*f));
    assert_int_equal(guest_memory_create(FIXTURE_RAM, &f->mem, &e), 0);
    assert_int_equal(guest_memory_map(f->mem, 0, FIXTURE_RAM, 0, false), 0);
    clock_init(&f->clock);
    timer_queue_init(&f->timers, &f->clock, no_earlier, NULL);
    config.mem = f->mem;
    config.clock = &f->clock;
    config.timers = &f->timers;
    snprintf(config.model.text, sizeof(config.model.text), "%s", model);
    config.bus =
        (struct vcpu_bus){f, no_pio_read, no_pio_write, no_mmio_read, no_mmio_write, no_extint, no_eoi, shutdown_count, NULL};
    assert_int_equal(vcpu_group_create(&config, &f->group, &e), 0);
    f->c = vcpu_get(f->group, 0);
}

void cpu_fixture_free(struct cpu_fixture *f)
{
    vcpu_group_free(f->group);
    timer_queue_free(&f->timers);
    guest_memory_free(f->mem);
}

u64 ram_get(struct cpu_fixture *f, u64 at, int size)
{
    u64 val = 0;

    assert_int_equal(guest_memory_read(f->mem, at, &val, (u64)size), 0);
    return val;
}

void ram_put(struct cpu_fixture *f, u64 at, int size, u64 val)
{
    assert_int_equal(guest_memory_write(f->mem, at, &val, (u64)size), 0);
}

void descriptor_put(struct cpu_fixture *f, u16 sel, u32 base, u32 limit, u8 access, u8 flags)
{
    u32 shown = flags & 8 ? limit >> 12 : limit;
    u64 raw = (shown & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)access << 40 | (u64)(shown >> 16 & 15) << 48 |
              (u64)(flags & 15) << 52 | (u64)(base >> 24) << 56;

    ram_put(f, GDT_AT + (sel & ~7u), 8, raw);
}

void gate_put(struct cpu_fixture *f, u64 at, u16 sel, u64 offset, u8 access, u8 params)
{
    ram_put(f, at, 8,
            (offset & 0xffff) | (u64)sel << 16 | (u64)params << 32 | (u64)access << 40 | (offset & 0xffff0000) << 32);
}

void idt_put(struct cpu_fixture *f, int vector, u16 sel, u64 offset, u8 access)
{
    u32 size = long_mode(f->c) ? 16 : 8;

    gate_put(f, IDT_AT + (u32)vector * size, sel, offset, access, 0);
    if (size == 16)
        ram_put(f, IDT_AT + (u32)vector * size + 8, 8, offset >> 32);
}

u8 access_byte(struct cpu_fixture *f, u16 sel)
{
    return (u8)ram_get(f, GDT_AT + (sel & ~7u) + 5, 1);
}

static void gdt_fill(struct cpu_fixture *f)
{
    descriptor_put(f, SEL_CODE0, 0, 0xffffffff, ACCESS_CODE, 0xc);
    descriptor_put(f, SEL_DATA0, 0, 0xffffffff, ACCESS_DATA, 0xc);
    descriptor_put(f, SEL_CODE3, 0, 0xffffffff, ACCESS_CODE | ACCESS_DPL3, 0xc);
    descriptor_put(f, SEL_DATA3, 0, 0xffffffff, ACCESS_DATA | ACCESS_DPL3, 0xc);
    descriptor_put(f, SEL_TSS, TSS_AT, 0x67, ACCESS_TSS32, 0);
    descriptor_put(f, SEL_TSS2, TSS2_AT, 0x67, ACCESS_TSS32, 0);
    descriptor_put(f, SEL_LDT, LDT_AT, 0x1f, ACCESS_LDT, 0);
    descriptor_put(f, SEL_CODE0_16, 0, 0xffff, ACCESS_CODE, 0);
    descriptor_put(f, SEL_DATA0_16, 0, 0xffff, ACCESS_DATA, 0);
    descriptor_put(f, SEL_CONFORMING, 0, 0xffffffff, ACCESS_CODE | 4, 0xc);
    descriptor_put(f, SEL_CODE64, 0, 0xffffffff, ACCESS_CODE, 0xa);
    descriptor_put(f, SEL_CODE64_3, 0, 0xffffffff, ACCESS_CODE | ACCESS_DPL3, 0xa);
}

static void segment_put(struct cpu_fixture *f, int seg, u16 sel)
{
    struct descriptor d;

    descriptor_parse(&d, ram_get(f, GDT_AT + (sel & ~7u), 8));
    d.attr |= SEG_A;
    segment_set(f->c, seg, sel, &d);
}

static void segments_put(struct cpu_fixture *f, u16 code, u16 data)
{
    static const int data_segs[] = {SEG_ES, SEG_SS, SEG_DS, SEG_FS, SEG_GS};

    segment_put(f, SEG_CS, code);
    for (int n = 0; n < 5; n++)
        segment_put(f, data_segs[n], data);
    f->c->s.cpl = code & 3;
    vcpu_mode_update(f->c);
}

static void tables_put(struct cpu_fixture *f)
{
    struct vcpu *c = f->c;

    c->s.gdtr_base = GDT_AT;
    c->s.gdtr_limit = GDT_LIMIT;
    c->s.idtr_base = IDT_AT;
    c->s.idtr_limit = 0xfff;
    descriptor_set_busy(c, GDT_AT + SEL_TSS, true);
    segment_put(f, SEG_TR, SEL_TSS);
    c->s.seg_attr[SEG_TR] |= SYS_TSS_BUSY_BIT;
}

void cpu_flat32(struct cpu_fixture *f)
{
    struct vcpu *c = f->c;

    vcpu_group_reset(f->group);
    gdt_fill(f);
    c->s.cr0 = CR0_PE | CR0_ET | CR0_NE;
    segments_put(f, SEL_CODE0, SEL_DATA0);
    tables_put(f);
    ram_put(f, TSS_AT + 4, 4, STACK0_AT);
    ram_put(f, TSS_AT + 8, 4, SEL_DATA0);
    c->s.gpr[RSP] = STACK0_AT - 0x1000;
    c->s.gpr[RIP] = 0x8000;
    vcpu_mode_update(c);
}

void cpu_long64(struct cpu_fixture *f)
{
    struct vcpu *c = f->c;

    cpu_flat32(f);
    ram_put(f, PAGES_AT, 8, (PAGES_AT + 0x1000) | 7);
    ram_put(f, PAGES_AT + 0x1000, 8, (PAGES_AT + 0x2000) | 7);
    for (u32 n = 0; n < 2; n++)
        ram_put(f, PAGES_AT + 0x2000 + n * 8, 8, n * MIB(2) | 0x87);
    c->s.cr4 = CR4_PAE;
    c->s.cr3 = PAGES_AT;
    c->s.cr0 |= CR0_PG;
    c->s.efer = EFER_LME | EFER_LMA | EFER_SCE;
    ram_put(f, TSS_AT + 4, 8, STACK0_AT);
    ram_put(f, TSS_AT + 0x24, 8, IST1_AT);
    segments_put(f, SEL_CODE64, SEL_DATA0);
    tlb_flush(c);
    vcpu_mode_update(c);
}

void cpu_user(struct cpu_fixture *f)
{
    segments_put(f, long_mode(f->c) ? SEL_CODE64_3 : SEL_CODE3, SEL_DATA3);
    f->c->s.gpr[RSP] = STACK3_AT;
}

void cpu_v86(struct cpu_fixture *f, int iopl)
{
    struct vcpu *c = f->c;

    c->s.cpl = 3;
    flags_load(c, FLAG_VM | (u64)iopl << 12 | FLAG_IF);
    for (int seg = 0; seg < 6; seg++)
        segment_load_real(c, seg, 0x100);
    c->s.gpr[RSP] = 0x800;
}

void cpu_step(struct cpu_fixture *f)
{
    interp_step(f->c);
}

void cpu_run_bytes(struct cpu_fixture *f, u32 at, const void *bytes, u32 len)
{
    assert_int_equal(guest_memory_write(f->mem, at, bytes, len), 0);
    f->c->s.gpr[RIP] = at - f->c->lin_base[SEG_CS];
    interp_flush(f->c);
    cpu_step(f);
}
