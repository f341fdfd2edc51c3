/* MSI-X of a PCI device, the virtio random number generator, whose queue interrupts whenever it is asked for bytes:
 * entry and function masks and their pending bits, what a message's address and data mean, accesses of the table in
 * all sizes; and its pin instead, while MSI-X is off: level, remote IRR, interrupt disable and status bits. PCI 3.0
 * §6.8, §6.2; SDM vol. 3 §11.11; virtio 1.1 §4.1, §2.6. */
#include "guest.h"

#define IOAPIC 0xfec00000ul
#define VIRTIO_RNG 0x10441af4u
enum { CAP_VENDOR = 9, CAP_MSIX = 0x11, COMMON_CFG = 1, NOTIFY_CFG = 2, ISR_CFG = 3 };
enum {
    COMMAND = 4,
    COMMAND_MASTER = 4,
    COMMAND_NO_INTX = 0x400,
    STATUS_INTX = 0x80000,
    MSIX_ON = 1u << 31,
    MSIX_MASK = 1u << 30
};
enum { EOI = 0xb0, VECTOR = 0x71, QUEUE_SIZE = 8 };

static u32 slot, msix_cap;
static volatile u8 *common, *isr;
static volatile u16 *notify;
static volatile u32 *table, *pba;
static volatile int count, last, nmis;

static u32 config_read(u32 reg)
{
    outl(0xcf8, 0x80000000u | slot << 11 | (reg & 0xfc));
    return inl(0xcfc);
}

static void config_write(u32 reg, u32 val)
{
    outl(0xcf8, 0x80000000u | slot << 11 | (reg & 0xfc));
    outl(0xcfc, val);
}

static volatile u8 *bar_address(u32 bar)
{
    u64 low = config_read(0x10 + bar * 4), high = (low & 6) == 4 ? config_read(0x14 + bar * 4) : 0;

    return (volatile u8 *)((low & ~15ul) | high << 32);
}

static void capability(u32 cap)
{
    u32 head = config_read(cap);
    volatile u8 *at;

    if ((head & 0xff) == CAP_MSIX) {
        msix_cap = cap;
        table = (volatile u32 *)(bar_address(config_read(cap + 4) & 7) + (config_read(cap + 4) & ~7u));
        pba = (volatile u32 *)(bar_address(config_read(cap + 8) & 7) + (config_read(cap + 8) & ~7u));
    }
    if ((head & 0xff) != CAP_VENDOR)
        return;
    at = bar_address(config_read(cap + 4) & 0xff) + config_read(cap + 8);
    switch (head >> 24) {
    case COMMON_CFG: common = at; break;
    case NOTIFY_CFG: notify = (volatile u16 *)at; break;
    case ISR_CFG: isr = at; break;
    }
}

static bool device_find(void)
{
    for (slot = 0; slot < 32; slot++) {
        if (config_read(0) != VIRTIO_RNG)
            continue;
        config_write(COMMAND, 6);
        for (u32 cap = config_read(0x34) & 0xff; cap; cap = config_read(cap) >> 8 & 0xff)
            capability(cap);
        return common && notify && isr && table;
    }
    return false;
}

/* One split virtqueue; a request is one descriptor of 16 bytes to fill. */
static struct {
    u64 addr;
    u32 len;
    u16 flags, next;
} *desc;
static volatile struct {
    u16 flags, idx, ring[QUEUE_SIZE];
} *avail;
static volatile struct {
    u16 flags, idx;
} *used;

static u16 common16(u32 at) { return *(volatile u16 *)(common + at); }
static void common_set16(u32 at, u16 v) { *(volatile u16 *)(common + at) = v; }
static void common_set64(u32 at, u64 v)
{
    *(volatile u32 *)(common + at) = (u32)v;
    *(volatile u32 *)(common + at + 4) = (u32)(v >> 32);
}

static void device_start(u16 vector)
{
    common[20] = 0;
    common[20] = 3;
    *(volatile u32 *)(common + 8) = 1;
    *(volatile u32 *)(common + 12) = 1; /* VIRTIO_F_VERSION_1 */
    common[20] = 11;
    desc = page_alloc();
    avail = page_alloc();
    used = page_alloc();
    desc[0].addr = (u64)page_alloc();
    desc[0].len = 16;
    desc[0].flags = 2;
    common_set16(22, 0);
    common_set16(24, QUEUE_SIZE);
    common_set16(26, vector);
    common_set64(32, (u64)desc);
    common_set64(40, (u64)avail);
    common_set64(48, (u64)used);
    common_set16(28, 1);
    common[20] = 15;
}

static void window(void) { asm volatile("sti; nop; nop; nop; nop; cli" : : : "memory"); }

/* Asks for bytes and waits for them; what interrupt comes of it has then come. */
static bool request(void)
{
    u16 want = (u16)(used->idx + 1);

    avail->idx++;
    *notify = 0;
    for (u64 t0 = rdtsc(); used->idx != want;)
        if (rdtsc() - t0 > 5000000000ul)
            return false;
    for (u64 t0 = rdtsc(); rdtsc() - t0 < 200000;) /* the interrupt follows the used index */
        window();
    return true;
}

static void on_any(struct frame *f)
{
    count++;
    last = (int)f->vector;
    lapic_write(EOI, 0);
}

static void on_nmi(struct frame *f) { nmis++; }

static void entry(u64 address, u32 data, bool masked)
{
    table[3] = 1;
    table[0] = (u32)address;
    table[1] = (u32)(address >> 32);
    table[2] = data;
    table[3] = masked;
}

static void expect(const char *name, int messages, int vector)
{
    bool done;

    count = last = 0;
    done = request();
    check(done && count == messages && (!messages || last == vector), "%s: %d, vector %x (expected %d, %x)%s", name,
          count, last, messages, vector, done ? "" : ": no answer");
}

static void msix_control(u32 bits)
{
    config_write(msix_cap, (config_read(msix_cap) & ~(MSIX_ON | MSIX_MASK)) | bits);
}

static void masks(void)
{
    entry(0xfee00000, VECTOR, false);
    expect("one message", 1, VECTOR);
    entry(0xfee00000, VECTOR, true);
    expect("masked", 0, 0);
    check(pba[0] & 1, "its pending bit is set");
    expect("masked, a second time", 0, 0);
    count = 0;
    table[3] = 0;
    window();
    check(count == 1 && last == VECTOR && !(pba[0] & 1), "unmasked, one message comes: %d, pending %x", count, pba[0]);
    window();
    check(count == 1, "only one");
    msix_control(MSIX_ON | MSIX_MASK);
    expect("function masked", 0, 0);
    check(pba[0] & 1, "pending");
    entry(0xfee00000, VECTOR + 1, false);
    count = 0;
    msix_control(MSIX_ON);
    window();
    check(count == 1 && last == VECTOR + 1, "unmasked, the message is the entry's of now: %d, vector %x", count, last);
    table[3] = 1;
    expect("masked again", 0, 0);
    msix_control(MSIX_ON | MSIX_MASK);
    count = 0;
    table[3] = 0;
    window();
    check(count == 0 && pba[0] & 1, "unmasking the entry under the function mask sends nothing");
    msix_control(MSIX_ON);
    window();
    check(count == 1, "until that goes too");
}

static void messages(void)
{
    entry(0xfee01000, VECTOR, false);
    expect("to processor 1, which is not there", 0, 0);
    entry(0xfeeff000, VECTOR, false);
    expect("broadcast", 1, VECTOR);
    lapic_write(0xd0, 1 << 24);
    entry(0xfee0100c, VECTOR, false);
    expect("logical, redirection hint", 1, VECTOR);
    entry(0xfee0100c, VECTOR | 0x100, false);
    expect("lowest priority", 1, VECTOR);
    entry(0xfee0200c, VECTOR, false);
    expect("logical, to nobody", 0, 0);
    nmis = 0;
    entry(0xfee00000, VECTOR | 0x400, false);
    expect("delivery mode NMI", 0, 0);
    check(nmis == 1, "an NMI: %d", nmis);
    entry(0xfee00000, VECTOR | 0xc000, false);
    expect("level, asserted", 1, VECTOR);
    lapic_write(0x280, 0);
    entry(0xfee00000, 9, false);
    expect("an illegal vector", 0, 0);
    lapic_write(0x280, 0);
    check(lapic_read(0x280) == 0x40, "the APIC notes it: ESR %x", lapic_read(0x280));
    entry(0xfed00000, VECTOR, false);
    expect("an address that is no APIC's", 0, 0);
    common_set16(26, 0xffff);
    check(common16(26) == 0xffff, "no vector for the queue");
    entry(0xfee00000, VECTOR, false);
    expect("then none comes", 0, 0);
    check(!(pba[0] & 1), "nor waits");
    device_start(0);
}

static void table_accesses(void)
{
    table[3] = ~0u;
    check(table[3] == 1, "vector control has one bit: %x", table[3]);
    table[0] = ~0u;
    check(table[0] == ~3u, "addresses are doublewords': %x", table[0]);
    *(volatile u64 *)table = 0x12345678fee00000;
    check(table[0] == 0xfee00000 && table[1] == 0x12345678 && *(volatile u64 *)table == 0x12345678fee00000,
          "quadwords: %x %x", table[0], table[1]);
    pba[0] = ~0u;
    check(!pba[0], "pending bits are read-only");
    config_write(msix_cap, config_read(msix_cap) ^ 0x07ff0000);
    check((config_read(msix_cap) >> 16 & 0x7ff) < 0x7ff, "the table's size is too: %x", config_read(msix_cap));
}

static void ioapic_write(u32 reg, u32 v)
{
    *(volatile u32 *)IOAPIC = reg;
    *(volatile u32 *)(IOAPIC + 16) = v;
}
static u32 ioapic_read(u32 reg)
{
    *(volatile u32 *)IOAPIC = reg;
    return *(volatile u32 *)(IOAPIC + 16);
}

static u8 isr_seen;
static void on_pin(struct frame *f)
{
    count++;
    last = (int)f->vector;
    isr_seen = *isr; /* reading takes the request back */
    lapic_write(EOI, 0);
}

static void pin(void)
{
    u32 line = config_read(0x3c) & 0xff;

    check((config_read(0x3c) >> 8 & 0xff) == 1 && line >= 3 && line < 16, "pin A, line %u", line);
    msix_control(0);
    on_interrupt(VECTOR, on_pin);
    ioapic_write(0x11 + line * 2, 0);
    ioapic_write(0x10 + line * 2, 0xa000 | VECTOR);
    *isr;
    expect("MSI-X off: the pin", 1, VECTOR);
    check(isr_seen == 1 && !(config_read(COMMAND) & STATUS_INTX), "its cause: %x, and gone with the read", isr_seen);
    check(!(ioapic_read(0x10 + line * 2) & 0x4000), "remote IRR is clear");
    ioapic_write(0x10 + line * 2, 0x1a000 | VECTOR);
    expect("the pin masked at the I/O APIC", 0, 0);
    check(config_read(COMMAND) & STATUS_INTX, "the status bit shows it");
    config_write(COMMAND, 6 | COMMAND_NO_INTX);
    check(config_read(COMMAND) & STATUS_INTX, "interrupt disable leaves the status bit");
    ioapic_write(0x10 + line * 2, 0xa000 | VECTOR);
    count = 0;
    window();
    check(count == 0, "but lets nothing out: %d", count);
    config_write(COMMAND, 6);
    window();
    check(count == 1, "enabled again, it comes: %d", count);
    ioapic_write(0x10 + line * 2, 0x10000);
    on_interrupt(VECTOR, on_any);
    msix_control(MSIX_ON);
    entry(0xfee00000, VECTOR, false);
    expect("MSI-X on again", 1, VECTOR);
    check(!(config_read(COMMAND) & STATUS_INTX), "and no pin");
}

void guest_main(void)
{
    for (int v = 0x20; v < 0xff; v++)
        on_interrupt(v, on_any);
    on_interrupt(2, on_nmi);
    lapic_write(0xf0, 0x1ff);
    check(device_find(), "a virtio random number generator, device %u", slot);
    if (!table)
        return;
    check(!(config_read(msix_cap) & MSIX_ON) && table[3] & 1, "MSI-X starts off and masked");
    msix_control(MSIX_ON);
    device_start(0);
    check(common16(26) == 0, "the queue has vector 0");
    masks();
    messages();
    table_accesses();
    pin();
}
