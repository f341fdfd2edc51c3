/* ACPI as an operating system meets it: the tables from the root pointer on, and the fixed hardware that they name:
 * the SCI, the power management timer, event and control registers, the SMI command port, the sleep type that does not
 * exist, S5. ACPI 6.4 §4.8, §5.2. */
#include "chips.h"

enum { EOI = 0xb0 };
enum { GBL = 0x20, PWRBTN = 0x100, RTC = 0x400, SCI_EN = 1, SLP_EN = 0x2000 };

struct header {
    char signature[4];
    u32 length;
    u8 revision, checksum;
    u8 rest[26];
} __attribute__((packed));

static u8 *rsdp, *fadt, *madt, *hpet_table;
static u16 event, control, timer, smi;
static u8 acpi_on, acpi_off, sci;

static bool sums_to_zero(const u8 *p, u32 len)
{
    u8 sum = 0;

    while (len--)
        sum += *p++;
    return !sum;
}

static bool is(const void *p, const char *text)
{
    for (const char *t = text; *t; t++)
        if (((const char *)p)[t - text] != *t)
            return false;
    return true;
}

static u16 at16(const u8 *p) { return *(const u16 *)p; }
static u32 at32(const u8 *p) { return *(const u32 *)p; }
static u64 at64(const u8 *p) { return *(const u64 *)p; }

static void table_seen(u8 *t)
{
    const struct header *h = (void *)t;

    check(sums_to_zero(t, h->length) && h->length >= 36, "a table, %u bytes, signature %x", h->length, at32(t));
    if (is(t, "FACP"))
        fadt = t;
    if (is(t, "APIC"))
        madt = t;
    if (is(t, "HPET"))
        hpet_table = t;
}

static void tables(void)
{
    u8 *root;

    for (u8 *p = (u8 *)0xe0000; p < (u8 *)0x100000 && !rsdp; p += 16)
        if (is(p, "RSD PTR ") && sums_to_zero(p, 20))
            rsdp = p;
    check(rsdp && sums_to_zero(rsdp, 36), "root pointer at %lx", (u64)rsdp);
    if (!rsdp)
        return;
    root = rsdp[15] >= 2 ? (u8 *)at64(rsdp + 24) : (u8 *)(u64)at32(rsdp + 16);
    check(is(root, rsdp[15] >= 2 ? "XSDT" : "RSDT"), "root table at %lx", (u64)root);
    table_seen(root);
    for (u32 n = 36; n < at32(root + 4); n += rsdp[15] >= 2 ? 8 : 4)
        table_seen(rsdp[15] >= 2 ? (u8 *)at64(root + n) : (u8 *)(u64)at32(root + n));
    check(fadt && madt && hpet_table, "FADT, MADT, HPET");
    if (fadt)
        table_seen((u8 *)(u64)at32(fadt + 40)); /* DSDT */
}

static void fixed_hardware(void)
{
    sci = (u8)at16(fadt + 46);
    smi = (u16)at32(fadt + 48);
    acpi_on = fadt[52];
    acpi_off = fadt[53];
    event = (u16)at32(fadt + 56);
    control = (u16)at32(fadt + 64);
    timer = (u16)at32(fadt + 76);
    check(event == pm_base() && control == pm_base() + 4 && timer == pm_base() + 8, "blocks at %x %x %x", event,
          control, timer);
    check(fadt[88] == 4 && fadt[89] == 2 && fadt[91] == 4, "their sizes");
    check(hpet_table && at64(hpet_table + 44) == HPET && at32(hpet_table + 36) == (u32)*(volatile u64 *)HPET,
          "the HPET's address and id: %lx %x", at64(hpet_table + 44), at32(hpet_table + 36));
}

/* Counts entries of a kind. */
static int madt_entries(u8 kind)
{
    int n = 0;

    for (u8 *e = madt + 44; e < madt + at32(madt + 4); e += e[1]) {
        if (e[1] < 2)
            return -1;
        n += e[0] == kind && (kind != 0 || e[4] & 1);
    }
    return n;
}

static void interrupts(void)
{
    bool pit = false, sci_level = false;

    check(at32(madt + 36) == 0xfee00000 && madt_entries(0) == 2 && madt_entries(1) == 1, "%d processors, %d I/O APICs",
          madt_entries(0), madt_entries(1));
    for (u8 *e = madt + 44; e < madt + at32(madt + 4) && e[1] >= 2; e += e[1]) {
        if (e[0] == 2 && e[3] == 0)
            pit = at32(e + 4) == 2;
        if (e[0] == 2 && e[3] == sci)
            sci_level = at32(e + 4) == sci && (at16(e + 8) & 0xc) == 0xc;
    }
    check(pit && sci_level, "the PIT is at pin 2, the SCI is a level");
}

static void timer_counts(void)
{
    u32 a = inl(timer), b, back = 0;

    for (int n = 0; n < 1000; n++) {
        b = inl(timer);
        back += ((b - a) & 0xffffff) > 0x800000;
        a = b;
    }
    check(!back && !(a >> 24), "24 bits that never go back: %x", a);
    check(at32(fadt + 112) >> 8 & 1 ? true : !(inl(timer) >> 24), "TMR_VAL_EXT is as wide as shown");
    outl(timer, 0);
    check(inl(timer) || inl(timer), "it is read-only");
    a = inl(timer) & 0xff;
    b = inb(timer);
    check(((b - a) & 0xff) < 0x80, "its low byte by itself");
}

static volatile int scis;
static void on_sci(struct frame *f)
{
    scis++;
    outw((u16)(event + 2), 0); /* masks: no event any more */
    lapic_write(EOI, 0);
}

static u8 rtc_get(u8 reg) { outb(0x70, reg); return inb(0x71); }
static void rtc_set(u8 reg, u8 v) { outb(0x70, reg); outb(0x71, v); }

/* The periodic interrupt of the clock sets RTC_STS. */
static void rtc_event(void)
{
    rtc_get(0xc);
    rtc_set(0xb, rtc_get(0xb) | 0x40);
    for (u32 start = pm_timer(); pm_since(start) < PM_MS(3000) && !(inw(event) & RTC);) /* a busy host is late */
        ;
    rtc_set(0xb, rtc_get(0xb) & ~0x40);
    rtc_get(0xc);
}

static void events(void)
{
    if (!smi) { /* the tables say that ACPI is always on; the board's port is there all the same */
        check(inw(control) & SCI_EN, "no SMI command port in the FADT: SCI_EN is set");
        smi = 0xb2;
        acpi_on = 0xf1;
        acpi_off = 0xf0;
    }
    outb(smi, acpi_off);
    check(!(inw(control) & SCI_EN), "ACPI off by the SMI command port: %x", inw(control));
    outw(event, 0xffff);
    rtc_event();
    check(inw(event) & RTC, "the clock's interrupt sets RTC_STS: %x", inw(event));
    outw(event, 0);
    check(inw(event) & RTC, "a zero does not clear it");
    outw(event, (u16)~RTC);
    check(inw(event) & RTC, "nor do ones elsewhere");
    outb((u16)(event + 1), RTC >> 8);
    check(!(inw(event) & RTC), "a one does, in a byte too");
    route(sci, 0x59 | 0x8000, 0);
    rtc_event();
    outw((u16)(event + 2), RTC);
    check(inw((u16)(event + 2)) == RTC, "enable register %x", inw((u16)(event + 2)));
    window();
    check(scis == 0, "without SCI_EN there is no SCI");
    outb(smi, acpi_on);
    check(inw(control) & SCI_EN, "ACPI on: %x", inw(control));
    window();
    check(scis == 1, "then it comes: %d", scis);
    window();
    check(scis == 1, "and ends with its enable bit");
    outw((u16)(event + 2), RTC);
    window();
    check(scis == 2, "enabled, the status still stands: %d", scis);
    outw(event, RTC);
    outw((u16)(event + 2), RTC);
    window();
    check(scis == 2, "cleared, no more: %d", scis);
    outw((u16)(event + 2), 0xffff);
    check(!(inw((u16)(event + 2)) & ~(RTC | PWRBTN | GBL | 0x201)), "enable bits that exist: %x",
          inw((u16)(event + 2)));
    outw((u16)(event + 2), 0);
    check(inl(event) >> 16 == 0 && (inl(event) & 0xffff) == inw(event), "both registers at once: %x", inl(event));
    route(sci, 0x10000, 0);
}

static void sleeping(void)
{
    u16 was = inw(control);

    outw(control, (u16)(was | 3 << 10 | SLP_EN));
    check(!(inw(control) & SLP_EN), "a sleep type that is not offered: it goes on, SLP_EN reads as 0: %x",
          inw(control));
    check((inw(control) & 7 << 10) == 3 << 10, "SLP_TYP is kept");
    outw(control, was);
    outw(event, 0x8000);
    check(!(inw(event) & 0x8000), "WAK_STS clears: %x", inw(event));
}

void guest_main(void)
{
    on_interrupt(0x59, on_sci);
    lapic_write(0xf0, 0x1ff);
    lapic_write(0x350, 0x10000);
    tables();
    if (!fadt || !madt)
        return;
    fixed_hardware();
    interrupts();
    timer_counts();
    events();
    sleeping();
    if (!all_held())
        finish();
    outw(control, (u16)(0 << 10 | SLP_EN)); /* S5 as the DSDT names it */
    for (;;)
        asm volatile("hlt");
}
