/* Intel PIIX3 (82371SB) function 0, the PCI-to-ISA bridge: see piix3_isa.h. Data sheet 290550, §2.2 and §2.4.
 *
 * Left out: the X-bus chip selects, DMA and ISA timing registers, which read as 0: the chips behind them answer
 * always. */
#include "dev/piix3_isa.h"
#include "base/trace.h"
#include "dev/i440fx_host.h"
#include "machine/machine.h"

#include <string.h>

enum { PIRQRC_DISABLED = 0x80, PIRQRC_IRQ = 0x0f };
enum { RCR_SYSTEM_RESET = 0x02, RCR_RESET_CPU = 0x04 };
#define PIRQ_ALLOWED 0xdef8u /* ISA interrupts 3–7, 9–12, 14 and 15 */

struct piix3_isa_state {
    bool pirq_level[4]; /* as the PCI bus drives them */
    u16 driven;         /* bit n: isa_irq[n] is driven high */
    u8 reset_control;
    u8 pad;
};

struct piix3_isa {
    struct pci_device pci;
    struct piix3_isa_state s;
    struct irq isa_irq[16];
};

static const struct state_field piix3_isa_fields[] = {
    STATE_ARRAY(struct piix3_isa_state, pirq_level), STATE(struct piix3_isa_state, driven),
    STATE(struct piix3_isa_state, reset_control), STATE(struct piix3_isa_state, pad), STATE_END};

static u16 isa_levels(const struct piix3_isa *p)
{
    u16 levels = 0;

    for (int i = 0; i < 4; i++) {
        u8 route = p->pci.ps.config[PIIX3_PIRQRCA + i];

        if (p->s.pirq_level[i] && !(route & PIRQRC_DISABLED))
            levels |= (u16)(1u << (route & PIRQRC_IRQ));
    }
    return levels & PIRQ_ALLOWED;
}

static void isa_update(struct piix3_isa *p)
{
    u16 levels = isa_levels(p), changed = levels ^ p->s.driven;

    p->s.driven = levels;
    for (int n = 0; n < 16; n++)
        if (changed >> n & 1)
            irq_set(&p->isa_irq[n], levels >> n & 1);
}

static void pirq_set(void *ctx, int pin, bool level)
{
    struct piix3_isa *p = ctx;

    p->s.pirq_level[pin] = level;
    isa_update(p);
}

static void config_written(struct pci_device *pci, int offset, int size)
{
    isa_update(container_of(pci, struct piix3_isa, pci));
}

static u64 reset_control_read(struct device *dev, u64 offset, int size)
{
    return container_of(dev, struct piix3_isa, pci.dev)->s.reset_control;
}

/* The rising edge of bit 2 resets. The soft reset (bit 1 clear) would only INIT the processor on the chip; here it
 * resets everything too, which is what those who use it want. */
static void reset_control_write(struct device *dev, u64 offset, int size, u64 val)
{
    struct piix3_isa *p = container_of(dev, struct piix3_isa, pci.dev);
    bool edge = val & RCR_RESET_CPU && !(p->s.reset_control & RCR_RESET_CPU);

    p->s.reset_control = val & (RCR_SYSTEM_RESET | RCR_RESET_CPU);
    if (!edge)
        return;
    trace(PCI, "piix3_isa: reset through the reset control register");
    machine_reset(dev->machine, MACHINE_RESET);
}

static const struct io_ops reset_control_ops = {reset_control_read, reset_control_write, 1, 1};

static void piix3_isa_reset(struct device *dev)
{
    struct piix3_isa *p = container_of(dev, struct piix3_isa, pci.dev);

    pci_device_reset(&p->pci);
    for (int i = 0; i < 4; i++)
        pci_config_set8(&p->pci, PIIX3_PIRQRCA + i, PIRQRC_DISABLED);
    p->s.reset_control = 0;
    isa_update(p);
}

const struct device_type piix3_isa_type = {
    .name = "piix3_isa",
    .size = sizeof(struct piix3_isa),
    .state_offset = offsetof(struct piix3_isa, s),
    .state = STATE_TABLE(struct piix3_isa_state, piix3_isa_fields, 1),
    .reset = piix3_isa_reset,
};

struct device *piix3_isa_create(struct machine *m, int slot, u16 reset_port, const struct irq isa_irq[16])
{
    struct pci_device *pci = pci_device_add(m, &piix3_isa_type, slot, 0);
    struct piix3_isa *p = container_of(pci, struct piix3_isa, pci);
    struct irq pirq[4];

    pci_identity_set(pci, 0x8086, 0x7000, 0x060100, 0, 0, 0, false);
    pci_config_set8(pci, PCI_HEADER_TYPE, 0x80); /* more functions follow */
    memset(&pci->writable[PIIX3_PIRQRCA], PIRQRC_DISABLED | PIRQRC_IRQ, 4);
    pci->config_written = config_written;
    memcpy(p->isa_irq, isa_irq, sizeof(p->isa_irq));
    for (int i = 0; i < 4; i++)
        pirq[i] = (struct irq){.set = pirq_set, .ctx = p, .pin = i};
    pci_bus_route_intx(m, i440fx_host_route, pirq);
    pio_map(m, reset_port, 1, &pci->dev, &reset_control_ops);
    return &pci->dev;
}
