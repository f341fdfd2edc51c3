/* Intel 82093AA I/O APIC: index and data registers, 24 redirection entries, remote IRR, and the ICH's EOI register.
 *
 * An edge at a masked pin is lost, as the data sheet says. A level-triggered request goes out while the pin is
 * asserted, unmasked, and no earlier request of the pin waits for its EOI (remote IRR). Left out: the arbitration id
 * (reads as the APIC id), and messages being held back: the APIC bus here always accepts. */
#include "dev/ioapic_82093aa.h"
#include "base/trace.h"

enum { IOREGSEL = 0x00, IOWIN = 0x10, IOEOI = 0x40, IOAPIC_SIZE = 0x1000 };
enum { IOAPICID = 0, IOAPICVER = 1, IOAPICARB = 2, IOREDTBL = 0x10 };
enum {
    RED_VECTOR = 0xff, RED_DELIVERY_SHIFT = 8, RED_LOGICAL = 0x800, RED_REMOTE_IRR = 0x4000, RED_LEVEL = 0x8000,
    RED_MASKED = 0x10000, RED_READ_ONLY = 0x5000, RED_LOW_BITS = 0x1ffff,
};
enum { RED_DEST_SHIFT = 56, DELIVER_FIXED = 0, DELIVER_LOWEST = 1 };
#define VERSION 0x20u
#define ID_MASK 0x0f000000u

struct ioapic_82093aa_state {
    u64 redirection[IOAPIC_PINS];
    u32 id;     /* in bits 27:24 */
    u32 input;  /* levels of the pins */
    u8 index;   /* IOREGSEL */
    u8 pad[7];
};

struct ioapic_82093aa {
    struct device dev;
    struct ioapic_82093aa_state s;
    u32 reset_id;
};

static const struct state_field ioapic_82093aa_fields[] = {
    STATE_ARRAY(struct ioapic_82093aa_state, redirection), STATE(struct ioapic_82093aa_state, id),
    STATE(struct ioapic_82093aa_state, input), STATE(struct ioapic_82093aa_state, index),
    STATE_ARRAY(struct ioapic_82093aa_state, pad), STATE_END};

/* Trigger mode means something for fixed and lowest priority only; the other delivery modes are edges. */
static bool level_triggered(u64 entry)
{
    return entry & RED_LEVEL && (entry >> RED_DELIVERY_SHIFT & 7) <= DELIVER_LOWEST;
}

static void send(struct ioapic_82093aa *a, int pin)
{
    u64 entry = a->s.redirection[pin];
    u8 delivery = entry >> RED_DELIVERY_SHIFT & 7;

    trace(IOAPIC, "pin %d: vector 0x%02x to %s %u, delivery %d%s", pin, (int)(entry & RED_VECTOR),
          entry & RED_LOGICAL ? "logical" : "physical", (unsigned)(entry >> RED_DEST_SHIFT), delivery,
          level_triggered(entry) ? ", level" : "");
    if (level_triggered(entry))
        a->s.redirection[pin] |= RED_REMOTE_IRR;
    machine_apic_send(a->dev.machine, (u32)(entry >> RED_DEST_SHIFT), entry & RED_VECTOR, delivery, entry & RED_LOGICAL,
                      level_triggered(entry));
}

/* Sends what a level-triggered pin still asks for. */
static void level_check(struct ioapic_82093aa *a, int pin)
{
    u64 entry = a->s.redirection[pin];

    if (a->s.input >> pin & 1 && level_triggered(entry) && !(entry & (RED_MASKED | RED_REMOTE_IRR)))
        send(a, pin);
}

void ioapic_82093aa_set(void *ioapic, int pin, bool level)
{
    struct ioapic_82093aa *a = ioapic;
    bool before;

    assert(pin >= 0 && pin < IOAPIC_PINS);
    before = a->s.input >> pin & 1;
    a->s.input = (a->s.input & ~(u32)BIT(pin)) | (u32)level << pin;
    if (level_triggered(a->s.redirection[pin]))
        level_check(a, pin);
    else if (level && !before && !(a->s.redirection[pin] & RED_MASKED))
        send(a, pin);
}

void ioapic_82093aa_eoi(struct device *dev, u8 vector)
{
    struct ioapic_82093aa *a = container_of(dev, struct ioapic_82093aa, dev);

    for (int pin = 0; pin < IOAPIC_PINS; pin++) {
        u64 *entry = &a->s.redirection[pin];

        if ((*entry & RED_VECTOR) != vector || !(*entry & RED_REMOTE_IRR))
            continue;
        *entry &= ~(u64)RED_REMOTE_IRR;
        level_check(a, pin);
    }
}

/* Remote IRR exists for level-triggered entries only: systems without the EOI register clear it by a switch to edge
 * and back. */
static void redirection_write(struct ioapic_82093aa *a, int reg, u32 val)
{
    int pin = reg / 2;
    u64 *entry = &a->s.redirection[pin];

    if (reg & 1)
        *entry = (*entry & UINT32_MAX) | (u64)(val & 0xff000000u) << 32;
    else
        *entry = (*entry & (~(u64)RED_LOW_BITS | RED_READ_ONLY)) | (val & RED_LOW_BITS & ~(u32)RED_READ_ONLY);
    if (!level_triggered(*entry))
        *entry &= ~(u64)RED_REMOTE_IRR;
    trace(IOAPIC, "pin %d: redirection 0x%016llx", pin, (unsigned long long)*entry);
    level_check(a, pin);
}

static u32 register_read(const struct ioapic_82093aa *a)
{
    u8 index = a->s.index;

    switch (index) {
    case IOAPICID: case IOAPICARB: return a->s.id;
    case IOAPICVER: return (IOAPIC_PINS - 1) << 16 | VERSION;
    }
    if (index < IOREDTBL || index >= IOREDTBL + 2 * IOAPIC_PINS)
        return 0;
    return (u32)(a->s.redirection[(index - IOREDTBL) / 2] >> (index & 1 ? 32 : 0));
}

static void register_write(struct ioapic_82093aa *a, u32 val)
{
    u8 index = a->s.index;

    if (index == IOAPICID)
        a->s.id = val & ID_MASK;
    else if (index >= IOREDTBL && index < IOREDTBL + 2 * IOAPIC_PINS)
        redirection_write(a, index - IOREDTBL, val);
    else
        trace(GUEST, "ioapic: write of 0x%x to register 0x%x", val, index);
}

static u64 ioapic_82093aa_read(struct device *dev, u64 offset, int size)
{
    struct ioapic_82093aa *a = container_of(dev, struct ioapic_82093aa, dev);

    switch (offset) {
    case IOREGSEL: return a->s.index;
    case IOWIN: return register_read(a);
    default: return 0;
    }
}

static void ioapic_82093aa_write(struct device *dev, u64 offset, int size, u64 val)
{
    struct ioapic_82093aa *a = container_of(dev, struct ioapic_82093aa, dev);

    if (offset == IOREGSEL)
        a->s.index = (u8)val;
    else if (offset == IOWIN && size == 4)
        register_write(a, (u32)val);
    else if (offset == IOEOI)
        ioapic_82093aa_eoi(dev, (u8)val);
}

static const struct io_ops ioapic_82093aa_ops = {ioapic_82093aa_read, ioapic_82093aa_write, 1, 4};

static void ioapic_82093aa_reset(struct device *dev)
{
    struct ioapic_82093aa *a = container_of(dev, struct ioapic_82093aa, dev);

    for (int pin = 0; pin < IOAPIC_PINS; pin++)
        a->s.redirection[pin] = RED_MASKED;
    a->s.id = a->reset_id;
    a->s.input = 0; /* the devices behind the pins reset too */
    a->s.index = 0;
}

static const struct device_type ioapic_82093aa_type = {
    .name = "ioapic_82093aa",
    .size = sizeof(struct ioapic_82093aa),
    .state_offset = offsetof(struct ioapic_82093aa, s),
    .state = STATE_TABLE(struct ioapic_82093aa_state, ioapic_82093aa_fields, 1),
    .reset = ioapic_82093aa_reset,
};

struct device *ioapic_82093aa_create(struct machine *m, u64 gpa, u8 id)
{
    struct device *dev = device_add(m, &ioapic_82093aa_type);
    struct ioapic_82093aa *a = container_of(dev, struct ioapic_82093aa, dev);

    a->reset_id = (u32)id << 24 & ID_MASK;
    mmio_map(m, gpa, IOAPIC_SIZE, dev, &ioapic_82093aa_ops);
    ioapic_82093aa_reset(dev);
    return dev;
}
