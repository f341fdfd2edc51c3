/* ACPI tables but for the DSDT's body: see acpi.h. ACPI 6.4 §5.2; the HPET table is from the IA-PC HPET specification
 * 1.0a §3.2.4.
 *
 * Tables lie one after the other in one buffer and are copied to the guest at the end; a table is known by its offset
 * there. Left out: general-purpose events (the board has no hot plug), MCFG (configuration mechanism #1 only), sleep
 * states but S5. */
#include "firmware/acpi.h"
#include "firmware/byte_buffer.h"
#include "firmware/dsdt.h"

#include <errno.h>
#include <string.h>

enum { HEADER_CHECKSUM = 9, HEADER_LENGTH = 4 }; /* offsets in a table */
enum { FADT_REVISION = 6, MADT_REVISION = 5, DSDT_REVISION = 2, HPET_REVISION = 1, RSDT_REVISION = 1 };
enum { SPACE_MEMORY, SPACE_IO };                                   /* address spaces of a generic address structure */
enum { ACCESS_UNDEFINED, ACCESS_BYTE, ACCESS_WORD, ACCESS_DWORD }; /* and its access sizes */
enum { LEGACY_DEVICES = 1 << 0, HAS_8042 = 1 << 1, VGA_NOT_PRESENT = 1 << 2 }; /* FADT: IA-PC boot architecture flags */

/* FADT: fixed feature flags */
enum {
    WBINVD = 1 << 0,
    PROC_C1 = 1 << 2,
    SLP_BUTTON_ABSENT = 1 << 5,
    RESET_REG_SUP = 1 << 10,
};

enum { NO_C2_LATENCY = 0xffff, NO_C3_LATENCY = 0xffff, CMOS_CENTURY = 0x32, PM_PROFILE_DESKTOP = 1 };
enum { PM1_EVT_LEN = 4, PM1_CNT_LEN = 2, PM_TMR_LEN = 4, PM1_CNT_OFFSET = 4, PM_TMR_OFFSET = 8 };

/* MADT entries */
enum {
    MADT_LOCAL_APIC = 0,
    MADT_IO_APIC = 1,
    MADT_INTERRUPT_OVERRIDE = 2,
    MADT_LOCAL_APIC_NMI = 4,
    MADT_LOCAL_X2APIC = 9,
    MADT_LOCAL_X2APIC_NMI = 10,
};

enum { MADT_PCAT_COMPAT = 1, MADT_ENABLED = 1, APIC_ID_X2APIC = 255 };
enum { INTI_CONFORMS = 0, INTI_LEVEL_HIGH = 1 | 3 << 2 }; /* polarity in bits 1:0, trigger mode in bits 3:2 */
enum { FACS_SIZE = 64, RSDP_SIZE = 36, RSDP_V1_SIZE = 20 };

struct tables {
    struct byte_buffer out;
    u64 base; /* gpa of the buffer's first byte */
    const struct acpi_config *config;
};

static u32 gpa_of(const struct tables *t, size_t offset)
{
    return (u32)(t->base + offset);
}

static size_t table_begin(struct tables *t, const char *signature, u8 revision)
{
    struct byte_buffer *b = &t->out;
    size_t start;

    bytes_align(b, 16);
    start = b->len;
    bytes_append(b, signature, 4);
    bytes_put32(b, 0); /* length: table_end */
    bytes_put8(b, revision);
    bytes_put8(b, 0); /* checksum: table_end */
    bytes_append(b, "SKERRY", 6);
    bytes_append(b, "SKERRYPC", 8);
    bytes_put32(b, 1);
    bytes_append(b, "SKRY", 4);
    bytes_put32(b, 1);
    return start;
}

static void table_end(struct tables *t, size_t start)
{
    struct byte_buffer *b = &t->out;

    if (b->failed)
        return;
    bytes_patch32(b, start + HEADER_LENGTH, (u32)(b->len - start));
    b->data[start + HEADER_CHECKSUM] = bytes_checksum(b->data + start, b->len - start);
}

static void generic_address(struct byte_buffer *b, u8 space, u8 bits, u8 access, u64 addr)
{
    bytes_put8(b, space);
    bytes_put8(b, bits);
    bytes_put8(b, 0); /* bit offset */
    bytes_put8(b, access);
    bytes_put64(b, addr);
}

static void generic_address_none(struct byte_buffer *b)
{
    bytes_append(b, NULL, 12);
}

static size_t facs_append(struct tables *t)
{
    struct byte_buffer *b = &t->out;
    size_t start;

    bytes_align(b, FACS_SIZE);
    start = b->len;
    bytes_append(b, "FACS", 4);
    bytes_put32(b, FACS_SIZE);
    bytes_append(b, NULL, 24); /* hardware signature, waking vectors (the guest writes them), lock, flags */
    bytes_put8(b, 2);          /* version */
    bytes_append(b, NULL, start + FACS_SIZE - b->len);
    return start;
}

static size_t dsdt_table(struct tables *t)
{
    size_t start = table_begin(t, "DSDT", DSDT_REVISION);

    dsdt_append(&t->out, t->config);
    table_end(t, start);
    return start;
}

/* From PM1a_EVT_BLK up to the flags: the 32-bit port numbers that every operating system understands. */
static void fadt_blocks(struct byte_buffer *b, const struct acpi_config *config)
{
    bytes_put32(b, config->pm_base);
    bytes_put32(b, 0); /* PM1b_EVT_BLK */
    bytes_put32(b, (u32)config->pm_base + PM1_CNT_OFFSET);
    bytes_put32(b, 0); /* PM1b_CNT_BLK */
    bytes_put32(b, 0); /* PM2_CNT_BLK */
    bytes_put32(b, (u32)config->pm_base + PM_TMR_OFFSET);
    bytes_append(b, NULL, 8); /* GPE0_BLK, GPE1_BLK */
    bytes_put8(b, PM1_EVT_LEN);
    bytes_put8(b, PM1_CNT_LEN);
    bytes_put8(b, 0); /* PM2_CNT_LEN */
    bytes_put8(b, PM_TMR_LEN);
    bytes_append(b, NULL, 4); /* GPE0_BLK_LEN, GPE1_BLK_LEN, GPE1_BASE, CST_CNT */
    bytes_put16(b, NO_C2_LATENCY);
    bytes_put16(b, NO_C3_LATENCY);
    bytes_append(b, NULL, 8); /* FLUSH_SIZE, FLUSH_STRIDE, DUTY_OFFSET, DUTY_WIDTH, DAY_ALRM, MON_ALRM */
    bytes_put8(b, CMOS_CENTURY);
}

/* The same blocks once more as generic addresses. */
static void fadt_extended_blocks(struct byte_buffer *b, const struct acpi_config *config)
{
    generic_address(b, SPACE_IO, 8 * PM1_EVT_LEN, ACCESS_WORD, config->pm_base);
    generic_address_none(b); /* X_PM1b_EVT_BLK */
    generic_address(b, SPACE_IO, 8 * PM1_CNT_LEN, ACCESS_WORD, (u64)config->pm_base + PM1_CNT_OFFSET);
    generic_address_none(b); /* X_PM1b_CNT_BLK */
    generic_address_none(b); /* X_PM2_CNT_BLK */
    generic_address(b, SPACE_IO, 8 * PM_TMR_LEN, ACCESS_DWORD, (u64)config->pm_base + PM_TMR_OFFSET);
    generic_address_none(b); /* X_GPE0_BLK */
    generic_address_none(b); /* X_GPE1_BLK */
    generic_address_none(b); /* SLEEP_CONTROL_REG */
    generic_address_none(b); /* SLEEP_STATUS_REG */
}

static void fadt_flags(struct byte_buffer *b, const struct acpi_config *config)
{
    bytes_put16(b, LEGACY_DEVICES | HAS_8042 | (config->vga ? 0 : VGA_NOT_PRESENT));
    bytes_put8(b, 0);
    bytes_put32(b, WBINVD | PROC_C1 | SLP_BUTTON_ABSENT | RESET_REG_SUP);
    generic_address(b, SPACE_IO, 8, ACCESS_BYTE, config->reset_port);
    bytes_put8(b, config->reset_value);
    bytes_append(b, NULL, 3); /* ARM_BOOT_ARCH, minor version */
}

static size_t fadt_append(struct tables *t, size_t facs, size_t dsdt)
{
    struct byte_buffer *b = &t->out;
    size_t start = table_begin(t, "FACP", FADT_REVISION);

    bytes_put32(b, gpa_of(t, facs));
    bytes_put32(b, gpa_of(t, dsdt));
    bytes_put8(b, 0);
    bytes_put8(b, PM_PROFILE_DESKTOP);
    bytes_put16(b, t->config->sci_irq);
    bytes_append(b, NULL, 8); /* SMI_CMD, ACPI_ENABLE, ACPI_DISABLE, S4BIOS_REQ, PSTATE_CNT */
    fadt_blocks(b, t->config);
    fadt_flags(b, t->config);
    bytes_put64(b, 0); /* X_FIRMWARE_CTRL: only one of the two may be set */
    bytes_put64(b, gpa_of(t, dsdt));
    fadt_extended_blocks(b, t->config);
    bytes_append(b, "SKERRY\0", 8); /* hypervisor vendor */
    table_end(t, start);
    return start;
}

/* Ids that one byte cannot hold (255 is the broadcast id) need an x2APIC entry. */
static void madt_processor(struct byte_buffer *b, u32 id)
{
    if (id < APIC_ID_X2APIC) {
        bytes_put8(b, MADT_LOCAL_APIC);
        bytes_put8(b, 8);
        bytes_put8(b, (u8)id); /* processor UID */
        bytes_put8(b, (u8)id);
        bytes_put32(b, MADT_ENABLED);
        return;
    }
    bytes_put8(b, MADT_LOCAL_X2APIC);
    bytes_put8(b, 16);
    bytes_put16(b, 0);
    bytes_put32(b, id);
    bytes_put32(b, MADT_ENABLED);
    bytes_put32(b, id); /* processor UID */
}

static void madt_io_apic(struct byte_buffer *b, u8 id, u32 addr)
{
    bytes_put8(b, MADT_IO_APIC);
    bytes_put8(b, 12);
    bytes_put8(b, id);
    bytes_put8(b, 0);
    bytes_put32(b, addr);
    bytes_put32(b, 0); /* first GSI */
}

static void madt_override(struct byte_buffer *b, u8 irq, u32 gsi, u16 flags)
{
    bytes_put8(b, MADT_INTERRUPT_OVERRIDE);
    bytes_put8(b, 10);
    bytes_put8(b, 0); /* bus: ISA */
    bytes_put8(b, irq);
    bytes_put32(b, gsi);
    bytes_put16(b, flags);
}

/* NMI at LINT1 of all processors. */
static void madt_nmi(struct byte_buffer *b, int cpu_count)
{
    bytes_put8(b, MADT_LOCAL_APIC_NMI);
    bytes_put8(b, 6);
    bytes_put8(b, 0xff);
    bytes_put16(b, INTI_CONFORMS);
    bytes_put8(b, 1);
    if (cpu_count <= APIC_ID_X2APIC)
        return;
    bytes_put8(b, MADT_LOCAL_X2APIC_NMI);
    bytes_put8(b, 12);
    bytes_put16(b, INTI_CONFORMS);
    bytes_put32(b, UINT32_MAX);
    bytes_put8(b, 1);
    bytes_append(b, NULL, 3);
}

/* ISA interrupts are edge-triggered unless an override says so: for the SCI, and the PCI wires on ISA inputs. */
static void madt_level_overrides(struct byte_buffer *b, const struct acpi_config *config)
{
    u32 level = 1u << config->sci_irq;

    for (int i = 0; i < 4; i++)
        if (config->pci_irq[i] < 16)
            level |= 1u << config->pci_irq[i];
    for (u8 irq = 0; irq < 16; irq++)
        if (level & 1u << irq)
            madt_override(b, irq, irq, INTI_LEVEL_HIGH);
}

static size_t madt_append(struct tables *t)
{
    struct byte_buffer *b = &t->out;
    size_t start = table_begin(t, "APIC", MADT_REVISION);

    bytes_put32(b, t->config->lapic_base);
    bytes_put32(b, MADT_PCAT_COMPAT);
    for (int i = 0; i < t->config->cpu_count; i++)
        madt_processor(b, (u32)i);
    madt_io_apic(b, t->config->ioapic_id, t->config->ioapic_base);
    madt_override(b, 0, 2, INTI_CONFORMS); /* the PIT is on input 2 */
    madt_level_overrides(b, t->config);
    madt_nmi(b, t->config->cpu_count);
    table_end(t, start);
    return start;
}

static size_t hpet_append(struct tables *t)
{
    struct byte_buffer *b = &t->out;
    size_t start = table_begin(t, "HPET", HPET_REVISION);

    bytes_put32(b, t->config->hpet_block_id);
    generic_address(b, SPACE_MEMORY, 64, ACCESS_UNDEFINED, t->config->hpet_base);
    bytes_put8(b, 0);     /* HPET number */
    bytes_put16(b, 0x80); /* the least number of ticks between periodic interrupts */
    bytes_put8(b, 0);     /* page protection: none */
    table_end(t, start);
    return start;
}

/* RSDT (4-byte pointers) or XSDT (8). */
static size_t root_append(struct tables *t, const char *signature, size_t pointer, const size_t *table, int count)
{
    size_t start = table_begin(t, signature, RSDT_REVISION);

    for (int i = 0; i < count; i++) {
        u64 gpa = gpa_of(t, table[i]);

        bytes_append(&t->out, &gpa, pointer);
    }
    table_end(t, start);
    return start;
}

static int rsdp_write(struct guest_memory *mem, u64 gpa, u32 rsdt, u64 xsdt)
{
    u8 rsdp[RSDP_SIZE] = "RSD PTR \0SKERRY\2";
    u32 len = RSDP_SIZE;

    memcpy(rsdp + 16, &rsdt, sizeof(rsdt));
    memcpy(rsdp + 20, &len, sizeof(len));
    memcpy(rsdp + 24, &xsdt, sizeof(xsdt));
    rsdp[8] = bytes_checksum(rsdp, RSDP_V1_SIZE);
    rsdp[32] = bytes_checksum(rsdp, RSDP_SIZE);
    return guest_memory_write(mem, gpa, rsdp, sizeof(rsdp));
}

int acpi_build(struct guest_memory *mem, const struct acpi_config *config, u64 base, u64 size, u64 rsdp_gpa)
{
    struct tables t = {.base = base, .config = config};
    size_t facs = facs_append(&t), dsdt = dsdt_table(&t), table[3], rsdt, xsdt;
    int count = 0, r;

    assert(!(base & (FACS_SIZE - 1)) && base + size <= GIB(4) && !(rsdp_gpa & 15) && config->sci_irq < 16);
    table[count++] = fadt_append(&t, facs, dsdt);
    table[count++] = madt_append(&t);
    if (config->hpet_base)
        table[count++] = hpet_append(&t);
    rsdt = root_append(&t, "RSDT", 4, table, count);
    xsdt = root_append(&t, "XSDT", 8, table, count);
    if (t.out.failed)
        r = -ENOMEM;
    else if (t.out.len > size)
        r = -ENOSPC;
    else
        r = guest_memory_write(mem, base, t.out.data, t.out.len);
    if (!r)
        r = rsdp_write(mem, rsdp_gpa, gpa_of(&t, rsdt), gpa_of(&t, xsdt));
    bytes_free(&t.out);
    return r;
}
