/* A vCPU for tests of single instructions: see vector_machine.h. */
#include "vector_machine.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "cpu/decode.h"
#include "cpu/exception.h"
#include "cpu/tlb.h"
#include "cpu/vector.h"
#include "cpu/world.h"
#include "cpu/xstate.h"

#define RAM_SIZE MIB(1)
#define PAGE_TABLES 0x1000 /* gpa: PML4, directory pointers, directory, table */
#define ARENA_GPA 0x80000

const enum arena_right arena_rights[ARENA_PAGES] = {
    ARENA_WRITE, ARENA_WRITE, ARENA_WRITE, ARENA_NONE, ARENA_WRITE, ARENA_READ, ARENA_WRITE, ARENA_NONE};

static struct clock test_clock;
static struct timer_queue test_timers;
static struct guest_memory *test_memory;

static u64 port_read(void *ctx, u16 port, int size) { return ~0ull; }
static void port_write(void *ctx, u16 port, int size, u64 val) { }
static u64 device_read(void *ctx, u64 gpa, int size) { return ~0ull; }
static void device_write(void *ctx, u64 gpa, int size, u64 val) { }
static int no_interrupt(void *ctx) { return -1; }
static void no_eoi(void *ctx, u8 vector) { }
static void no_shutdown(void *ctx) { }
static void no_deadline(void *ctx, u64 deadline) { }

static void entry_put(u64 gpa, u64 val)
{
    if (guest_memory_write(test_memory, gpa, &val, sizeof(val)))
        abort();
}

/* User pages; accessed and dirty from the start, as the process' are. */
static void page_tables_build(void)
{
    entry_put(PAGE_TABLES, (PAGE_TABLES + 0x1000) | 7);
    entry_put(PAGE_TABLES + 0x1000, (PAGE_TABLES + 0x2000) | 7);
    entry_put(PAGE_TABLES + 0x2000 + (ARENA >> 21) * 8, (PAGE_TABLES + 0x3000) | 7);
    for (u64 n = 0; n < ARENA_PAGES; n++) {
        u64 rights = arena_rights[n] == ARENA_NONE ? 0 : arena_rights[n] == ARENA_READ ? 0x65 : 0x67;

        entry_put(PAGE_TABLES + 0x3000 + ((ARENA >> 12 & 511) + n) * 8, (ARENA_GPA + n * 4096) | rights);
    }
}

static void arena_protect(struct vector_machine *m)
{
    static const int prot[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE};

    for (u64 n = 0; n < ARENA_PAGES; n++)
        if (mprotect(m->native + n * 4096, 4096, prot[arena_rights[n]]))
            abort();
}

void vector_machine_create(struct vector_machine *m)
{
    struct vcpu_group_config config = {
        .count = 1, .engine = CPU_ENGINE_INTERP, .model = {"host"}, .clock = &test_clock, .timers = &test_timers,
        .bus = {NULL, port_read, port_write, device_read, device_write, no_interrupt, no_eoi, no_shutdown, NULL}};
    struct err e = {0};

    clock_init(&test_clock);
    timer_queue_init(&test_timers, &test_clock, no_deadline, NULL);
    if (guest_memory_create(RAM_SIZE, &test_memory, &e) || guest_memory_map(test_memory, 0, RAM_SIZE, 0, false))
        abort();
    config.mem = test_memory;
    if (vcpu_group_create(&config, &m->group, &e))
        abort();
    m->vcpu = vcpu_get(m->group, 0);
    world_enter(m->vcpu);
    m->guest = guest_memory_ptr(test_memory, ARENA_GPA, ARENA_SIZE, true);
    m->native = mmap((void *)ARENA, ARENA_SIZE, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_POPULATE, -1, 0);
    if (m->native != (void *)ARENA)
        abort();
    page_tables_build();
    arena_protect(m);
}

void vector_machine_free(struct vector_machine *m)
{
    world_leave(m->vcpu);
    vcpu_group_free(m->group);
    guest_memory_free(test_memory);
    timer_queue_free(&test_timers);
    munmap(m->native, ARENA_SIZE);
}

void arena_fill(struct vector_machine *m, const u8 *from)
{
    for (u64 n = 0; n < ARENA_PAGES; n++)
        if (arena_rights[n] == ARENA_WRITE) {
            memcpy(m->native + n * 4096, from + n * 4096, 4096);
            memcpy(m->guest + n * 4096, from + n * 4096, 4096);
        }
}

const u8 *arena_difference(const struct vector_machine *m)
{
    for (u64 n = 0; n < ARENA_SIZE; n += 8)
        if (arena_rights[n / 4096] != ARENA_NONE && memcmp(m->native + n, m->guest + n, 8))
            return m->native + n;
    return NULL;
}

void vector_machine_mode(struct vector_machine *m, int code_size)
{
    struct vcpu_boot_segment data = {.sel = 0x2b, .attr = SEG_P | SEG_S | SEG_W | SEG_A | SEG_DB | SEG_G | SEG_DPL,
                                     .limit = 0xffffffff};
    struct vcpu_boot_segment cs = {.sel = 0x33, .attr = SEG_P | SEG_S | SEG_CODE | SEG_R | SEG_A | SEG_G | SEG_DPL,
                                   .limit = 0xffffffff};
    struct vcpu_boot_regs regs = {
        .cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG, .cr3 = PAGE_TABLES, .efer = EFER_LME | EFER_LMA,
        .cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE};

    if (code_size == 2) { /* unreal: flat limits, so that the arena is in reach */
        regs.cr0 = CR0_ET | CR0_MP | CR0_NE;
        regs.efer = 0;
        data.attr = SEG_P | SEG_S | SEG_W | SEG_A;
        cs.attr = SEG_P | SEG_S | SEG_CODE | SEG_R | SEG_A;
        cs.sel = 0x123;
        cs.base = 0x1230;
    } else {
        cs.attr |= code_size == 8 ? SEG_L : SEG_DB;
    }
    regs.cs = cs;
    regs.data = data;
    vcpu_boot(m->vcpu, &regs);
    m->vcpu->s.cpl = code_size == 2 ? 0 : 3;
    m->vcpu->s.xcr0 = ext_host_components();
    vcpu_mode_update(m->vcpu);
}

/* Not inlined: its locals must not be live across the jump. */
static __attribute__((noinline)) bool execute(struct vcpu *c, const struct insn *i)
{
    if (__builtin_setjmp(c->fault_jump))
        return false;
    c->insn = i;
    if (i->ends_block)
        c->s.gpr[RIP] += i->len;
    i->fn(c, i);
    return true;
}

int vector_machine_run(struct vector_machine *m, const u8 *bytes, u64 rip, int *decoded_len)
{
    static struct insn i;
    struct vcpu *c = m->vcpu;
    bool done;

    c->s.gpr[RIP] = rip;
    vector_make_room(c);
    decode_insn(c, bytes, 15, c->code_size, &i);
    insn_place(&i, 0);
    if (decoded_len)
        *decoded_len = i.len;
    done = execute(c, &i);
    ext_save(c);
    c->insn = NULL;
    c->s.gpr[RIP] = done ? rip + i.len : rip;
    m->vector = done ? -1 : c->fault_vector;
    return m->vector;
}
