/* The boot vCPU as boot protocols want it: see boot_entry.h. Linux Documentation/arch/x86/boot.rst "64-bit boot
 * protocol", Xen docs/misc/pvh.pandoc, Multiboot Specification §3.2. All of them ask for flat segments and interrupts
 * off, and expect the local APIC as a PC's firmware leaves it. */
#include "machine/boot_entry.h"
#include "cpu/lapic.h"
#include "cpu/msr.h"
#include "cpu/vcpu_state.h"
#include "machine/machine.h"

enum { FLAT_CODE32 = SEG_G | SEG_DB | SEG_P | SEG_S | SEG_CODE | SEG_R | SEG_A,
       FLAT_CODE64 = SEG_G | SEG_L | SEG_P | SEG_S | SEG_CODE | SEG_R | SEG_A,
       FLAT_DATA = SEG_G | SEG_DB | SEG_P | SEG_S | SEG_W | SEG_A,
       REAL_CODE = SEG_P | SEG_S | SEG_CODE | SEG_R | SEG_A,
       REAL_DATA = SEG_P | SEG_S | SEG_W | SEG_A,
       BUSY_TSS = SEG_P | 0x0b };

static const struct vcpu_boot_segment empty_tss = {.attr = BUSY_TSS, .limit = 0x67};

static struct vcpu_boot_segment flat(u16 sel, u16 attr)
{
    return (struct vcpu_boot_segment){.sel = sel, .attr = attr, .limit = UINT32_MAX};
}

static void firmware_cpus_setup(struct machine *m)
{
    lapic_virtual_wire(vcpu_get(m->cpus, 0));
    for (int n = 0; n < vcpu_count(m->cpus); n++)
        mtrr_firmware_setup(vcpu_get(m->cpus, n));
}

static void real_mode_enter(struct machine *m, const struct boot_entry *entry)
{
    struct vcpu_boot_regs regs = {
        .rip = entry->rip,
        .rsp = entry->rsp,
        .rflags = 2,
        .cr0 = CR0_ET,
        .cs = {.sel = entry->code_sel, .attr = REAL_CODE, .limit = 0xffff, .base = (u64)entry->code_sel << 4},
        .data = {.attr = REAL_DATA, .limit = 0xffff},
        .tr = {.attr = BUSY_TSS, .limit = 0xffff},
    };

    vcpu_boot(vcpu_get(m->cpus, 0), &regs);
}

void machine_boot_enter(struct machine *m, const struct boot_entry *entry)
{
    bool long_mode = entry->mode == BOOT_LONG64;
    struct vcpu_boot_regs regs = {
        .rip = entry->rip, .rsp = entry->rsp, .rax = entry->rax, .rbx = entry->rbx,
        .rsi = entry->rsi, .rdi = entry->rdi,
        .rflags = 2,
        .cr0 = CR0_PE | CR0_ET | (long_mode ? CR0_PG : 0),
        .cr3 = long_mode ? entry->cr3 : 0,
        .cr4 = long_mode ? CR4_PAE : 0,
        .efer = long_mode ? EFER_LME | EFER_LMA : 0,
        .cs = flat(entry->code_sel, long_mode ? FLAT_CODE64 : FLAT_CODE32),
        .data = flat(entry->data_sel, FLAT_DATA),
        .tr = empty_tss,
        .gdt_base = entry->gdt_base,
        .gdt_limit = entry->gdt_limit,
    };

    if (entry->mode == BOOT_RESET)
        return;
    firmware_cpus_setup(m);
    if (entry->mode == BOOT_REAL16)
        real_mode_enter(m, entry);
    else
        vcpu_boot(vcpu_get(m->cpus, 0), &regs);
}
