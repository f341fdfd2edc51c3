/* Intel PIIX4 (82371AB) function 3, power management: see piix4_pm.h. Data sheet 290562 ch. 7 and 11; ACPI 6.4 §4.8.
 *
 * There is no SMM: a write to the SMI command port does what the firmware's handler would do. Of the sleep states
 * S3 (suspend to RAM) and S5 (soft off) exist; the clock's alarm, if enabled, and the power button end S3. SMBus, throttling and the general-purpose events are left out and read as 0. */
#include "dev/piix4_pm.h"
#include "base/trace.h"
#include "machine/machine.h"

#define PM_TIMER_HZ 3579545ull
#define PM_TIMER_MASK 0xffffffu
#define PM_TIMER_HALF (1ull << 23) /* TMR_STS is set whenever bit 23 changes */

enum { /* PM1 status and enable */
    TMR_STS = 0x0001, GBL_STS = 0x0020, PWRBTN_STS = 0x0100, RTC_STS = 0x0400, WAK_STS = 0x8000,
    PM1_STS_BITS = TMR_STS | 0x10 | GBL_STS | PWRBTN_STS | RTC_STS | 0x0800 | WAK_STS,
    PM1_EN_BITS = TMR_STS | GBL_STS | PWRBTN_STS | RTC_STS,
};
enum { /* PM1 control */
    SCI_EN = 0x0001, SLP_TYP_SHIFT = 10, SLP_TYP = 7 << SLP_TYP_SHIFT, SLP_EN = 0x2000,
    PM1_CNT_BITS = SCI_EN | 0x0002 | SLP_TYP,
};
enum { SLP_TYP_SOFT_OFF = 0, SLP_TYP_SUSPEND_TO_RAM = 1 };

struct piix4_pm_state {
    u64 tmr_next; /* timer count, unbounded, at which TMR_STS is set next */
    u16 pm1_sts, pm1_en, pm1_cnt;
    u8 apmc, apms; /* SMI command and status ports */
    bool rtc_in;   /* level of the real-time clock's interrupt */
    u8 pad[7];
};

struct piix4_pm {
    struct pci_device pci;
    struct piix4_pm_state s;
    struct irq sci;
    struct timer overflow; /* armed while TMR_EN waits for TMR_STS */
    u16 mapped_at;         /* of the PM block; 0: not mapped */
};

static const struct state_field piix4_pm_fields[] = {
    STATE(struct piix4_pm_state, tmr_next), STATE(struct piix4_pm_state, pm1_sts), STATE(struct piix4_pm_state, pm1_en),
    STATE(struct piix4_pm_state, pm1_cnt),  STATE(struct piix4_pm_state, apmc),    STATE(struct piix4_pm_state, apms),
    STATE(struct piix4_pm_state, rtc_in),   STATE_ARRAY(struct piix4_pm_state, pad), STATE_END};

static struct piix4_pm *pm_of(struct device *dev)
{
    return container_of(dev, struct piix4_pm, pci.dev);
}

static u64 tmr_count(const struct piix4_pm *p)
{
    return (u64)((u128)machine_now(p->pci.dev.machine) * PM_TIMER_HZ / 1000000000);
}

/* The first moment at which the timer has counted that far. A restored state may name any count. */
static u64 tmr_time(u64 count)
{
    u128 ns = ((u128)count * 1000000000 + PM_TIMER_HZ - 1) / PM_TIMER_HZ;

    return ns < TIMER_NEVER ? (u64)ns : TIMER_NEVER;
}

static void tmr_sts_update(struct piix4_pm *p)
{
    u64 count = tmr_count(p);

    if (count < p->s.tmr_next)
        return;
    p->s.pm1_sts |= TMR_STS;
    p->s.tmr_next = (count / PM_TIMER_HALF + 1) * PM_TIMER_HALF;
}

/* To be called after any change of status, enable or control. */
static void sci_update(struct piix4_pm *p)
{
    u16 events = p->s.pm1_sts & p->s.pm1_en & PM1_EN_BITS;

    if (p->s.pm1_en & ~p->s.pm1_sts & TMR_STS)
        timer_set(&p->overflow, tmr_time(p->s.tmr_next));
    else
        timer_cancel(&p->overflow);
    irq_set(&p->sci, events && p->s.pm1_cnt & SCI_EN);
    if (p->s.pm1_sts & ((p->s.pm1_en & RTC_STS) | PWRBTN_STS))
        machine_wake(p->pci.dev.machine);
}

static void overflowed(void *ctx)
{
    struct piix4_pm *p = ctx;

    tmr_sts_update(p);
    sci_update(p);
}

static void sleep_enter(struct piix4_pm *p, int type)
{
    trace(ACPI, "piix4_pm: sleep type %d", type);
    if (type == SLP_TYP_SOFT_OFF)
        machine_stop(p->pci.dev.machine, MACHINE_POWER_OFF, 0, NULL);
    else if (type == SLP_TYP_SUSPEND_TO_RAM)
        machine_sleep(p->pci.dev.machine); /* an event that is there already ends it at once: sci_update follows */
    else
        trace(GUEST, "piix4_pm: sleep type %d, which the firmware does not offer", type);
}

static void pm1_cnt_write(struct piix4_pm *p, u16 val, u16 mask)
{
    p->s.pm1_cnt = (u16)((p->s.pm1_cnt & ~mask) | (val & mask)) & PM1_CNT_BITS;
    if (val & mask & SLP_EN)
        sleep_enter(p, (p->s.pm1_cnt & SLP_TYP) >> SLP_TYP_SHIFT);
}

/* One 16-bit register, of which the guest wrote the bytes in `mask`. */
static void pm_register_write(struct piix4_pm *p, int offset, u16 val, u16 mask)
{
    trace(ACPI, "piix4_pm: register 0x%02x mask 0x%04x = 0x%04x", offset, mask, val & mask);
    switch (offset) {
    case PM1A_STS:
        tmr_sts_update(p);
        p->s.pm1_sts &= (u16)~(val & mask);
        break;
    case PM1A_EN: p->s.pm1_en = (u16)((p->s.pm1_en & ~mask) | (val & mask)) & PM1_EN_BITS; break;
    case PM1A_CNT: pm1_cnt_write(p, val, mask); break;
    }
    sci_update(p);
}

static void pm_block_write(struct device *dev, u64 offset, int size, u64 val)
{
    struct piix4_pm *p = pm_of(dev);
    u64 bytes = size == 4 ? UINT32_MAX : size == 2 ? UINT16_MAX : UINT8_MAX;
    int base = (int)(offset & ~3ull), shift = 8 * (int)(offset & 3);

    val <<= shift;
    bytes <<= shift;
    for (int half = 0; half < 2; half++, val >>= 16, bytes >>= 16)
        if ((u16)bytes)
            pm_register_write(p, base + 2 * half, (u16)val, (u16)bytes);
}

static u32 pm_dword(struct piix4_pm *p, int offset)
{
    switch (offset) {
    case PM1A_STS: tmr_sts_update(p); return p->s.pm1_sts | (u32)p->s.pm1_en << 16;
    case PM1A_CNT: return p->s.pm1_cnt;
    case PM_TMR: return tmr_count(p) & PM_TIMER_MASK;
    default: return 0;
    }
}

static u64 pm_block_read(struct device *dev, u64 offset, int size)
{
    return pm_dword(pm_of(dev), (int)(offset & ~3ull)) >> (8 * (offset & 3));
}

static const struct io_ops pm_block_ops = {pm_block_read, pm_block_write, 1, 4};

static u64 smi_port_read(struct device *dev, u64 offset, int size)
{
    struct piix4_pm *p = pm_of(dev);

    return offset ? p->s.apms : p->s.apmc;
}

static void smi_port_write(struct device *dev, u64 offset, int size, u64 val)
{
    struct piix4_pm *p = pm_of(dev);

    if (offset) {
        p->s.apms = (u8)val;
        return;
    }
    trace(ACPI, "piix4_pm: SMI command 0x%02x", (u8)val);
    p->s.apmc = (u8)val;
    if (val == PM_ACPI_ENABLE)
        p->s.pm1_cnt |= SCI_EN;
    else if (val == PM_ACPI_DISABLE)
        p->s.pm1_cnt &= (u16)~SCI_EN;
    sci_update(p);
}

static const struct io_ops smi_port_ops = {smi_port_read, smi_port_write, 1, 1};

/* The PM block goes where PMBASE says, while PMREGMISC lets it. */
static void pm_block_place(struct piix4_pm *p)
{
    const u8 *config = p->pci.ps.config;
    struct machine *m = p->pci.dev.machine;
    u16 at = (u16)(config[PIIX4_PMBASE + 1] << 8 | (config[PIIX4_PMBASE] & 0xc0));

    if (!(config[PIIX4_PMREGMISC] & 1))
        at = 0;
    if (at == p->mapped_at)
        return;
    if (p->mapped_at)
        pio_unmap(m, p->mapped_at, PM_BLOCK_SIZE, &p->pci.dev);
    if (at)
        pio_map(m, at, PM_BLOCK_SIZE, &p->pci.dev, &pm_block_ops);
    p->mapped_at = at;
}

static void config_written(struct pci_device *pci, int offset, int size)
{
    pm_block_place(container_of(pci, struct piix4_pm, pci));
}

void piix4_pm_power_button(struct device *pm)
{
    struct piix4_pm *p = pm_of(pm);

    trace(ACPI, "piix4_pm: power button");
    p->s.pm1_sts |= PWRBTN_STS;
    sci_update(p);
}

/* The data sheet: set by the assertion of IRQ8. Clearing it while the clock still asserts does not set it again. */
void piix4_pm_rtc_set(void *pm, int pin, bool level)
{
    struct piix4_pm *p = pm;

    if (level && !p->s.rtc_in)
        p->s.pm1_sts |= RTC_STS;
    p->s.rtc_in = level;
    sci_update(p);
}

/* What woke the machine stays to be seen: PM1 status and enable are in the power well that S3 keeps. */
static void piix4_pm_reset(struct device *dev)
{
    struct piix4_pm *p = pm_of(dev);
    bool waking = machine_waking(dev->machine);
    u16 sts = p->s.pm1_sts, en = p->s.pm1_en;

    pci_device_reset(&p->pci);
    p->s = (struct piix4_pm_state){.tmr_next = (tmr_count(p) / PM_TIMER_HALF + 1) * PM_TIMER_HALF,
                                   .pm1_sts = waking ? sts | WAK_STS : 0,
                                   .pm1_en = waking ? en : 0};
    pm_block_place(p);
    sci_update(p);
}

static void piix4_pm_loaded(struct device *dev)
{
    struct piix4_pm *p = pm_of(dev);

    pm_block_place(p);
    sci_update(p);
}

const struct device_type piix4_pm_type = {
    .name = "piix4_pm",
    .size = sizeof(struct piix4_pm),
    .state_offset = offsetof(struct piix4_pm, s),
    .state = STATE_TABLE(struct piix4_pm_state, piix4_pm_fields, 1),
    .reset = piix4_pm_reset,
    .loaded = piix4_pm_loaded,
};

struct device *piix4_pm_create(struct machine *m, int slot, int function, u16 smi_cmd, const struct irq *sci)
{
    struct pci_device *pci = pci_device_add(m, &piix4_pm_type, slot, function);
    struct piix4_pm *p = container_of(pci, struct piix4_pm, pci);

    pci_identity_set(pci, 0x8086, 0x7113, 0x068000, 3, 0, 0, false);
    pci_config_set8(pci, PIIX4_PMBASE, 1); /* an I/O address */
    pci->writable[PIIX4_PMBASE] = 0xc0;
    pci->writable[PIIX4_PMBASE + 1] = 0xff;
    pci->writable[PIIX4_PMREGMISC] = 1;
    pci->config_written = config_written;
    p->sci = *sci;
    timer_init(&p->overflow, &m->timers, overflowed, p);
    pio_map(m, smi_cmd, 2, &pci->dev, &smi_port_ops);
    return &pci->dev;
}
