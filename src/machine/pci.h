/* PCI: one bus 0, configuration space, base address registers, INTx, MSI-X. PCI Local Bus 3.0.
 *
 * A PCI device's struct starts with `struct pci_device pci` (whose first member is the struct device). The bus handles
 * the standard header, BAR sizing and mapping, the MSI-X capability and its table; the device supplies I/O handlers. */
#ifndef MACHINE_PCI_H
#define MACHINE_PCI_H
#include "machine/device.h"
#include "machine/io_bus.h"
#include "machine/irq.h"

#define PCI_CONFIG_SIZE 256
#define PCI_BARS 6
#define PCI_MSIX_MAX 64 /* vectors a device can have here */

enum { /* configuration registers, PCI 3.0 §6.1 */
    PCI_VENDOR_ID = 0x00, PCI_DEVICE_ID = 0x02, PCI_COMMAND = 0x04, PCI_STATUS = 0x06, PCI_REVISION_ID = 0x08,
    PCI_CLASS_PROG = 0x09, PCI_CLASS_DEVICE = 0x0a, PCI_HEADER_TYPE = 0x0e, PCI_BAR0 = 0x10,
    PCI_SUBSYSTEM_VENDOR_ID = 0x2c, PCI_SUBSYSTEM_ID = 0x2e, PCI_ROM_ADDRESS = 0x30, PCI_CAPABILITY_LIST = 0x34,
    PCI_INTERRUPT_LINE = 0x3c, PCI_INTERRUPT_PIN = 0x3d,
};
enum { PCI_COMMAND_IO = 1, PCI_COMMAND_MEMORY = 2, PCI_COMMAND_MASTER = 4, PCI_COMMAND_INTX_DISABLE = 0x400 };
enum { PCI_STATUS_INTERRUPT = 0x08, PCI_STATUS_CAPABILITIES = 0x10 };

/* The state that every PCI device keeps; saved under the device's own id with the suffix ".pci". */
struct pci_state {
    u8 config[PCI_CONFIG_SIZE];
    u32 msix_table[PCI_MSIX_MAX * 4]; /* address low, address high, data, vector control */
    u32 msix_pending[PCI_MSIX_MAX / 32];
    bool intx_level;
    u8 pad[3];
};

struct pci_bar {
    u64 size;     /* power of two; 0: none */
    bool io;      /* ports rather than memory */
    bool is64;    /* takes this register and the next */
    const struct io_ops *ops;
    u64 mapped_at; /* where it is mapped now, while `mapped` */
    bool mapped;
};

struct pci_device {
    struct device dev;
    struct pci_state ps;
    u8 slot, function;
    u8 writable[PCI_CONFIG_SIZE];      /* which bits of each configuration byte the guest can write */
    u8 write1_clear[PCI_CONFIG_SIZE];  /* which bits a written 1 clears */
    struct pci_bar bar[PCI_BARS];
    int msix_bar, msix_count, msix_cap; /* msix_count 0: no MSI-X */
    u32 msix_table_offset, msix_pba_offset;
    u16 capability_end;      /* first free byte for the next capability */
    struct pci_device *next; /* on the bus */
    /* before a configuration read, so that a register can show what is behind it; may be NULL */
    void (*config_reading)(struct pci_device *pci, int offset, int size);
    /* after a configuration write that the bus has already stored; may be NULL */
    void (*config_written)(struct pci_device *pci, int offset, int size);
};

extern const struct state_table pci_state_table; /* describes struct pci_state */

/* Creates bus 0 of `m` with the configuration mechanism #1 ports 0xCF8/0xCFC. */
struct pci_bus *pci_bus_create(struct machine *m);

/* The device at a place on bus 0, or NULL. */
struct pci_device *pci_device_at(struct machine *m, int slot, int function);

/* The four PIRQ wires INTA#…INTD# reach through the host bridge: `route` maps (slot, pin 0..3) to a wire that is
 * driven with the OR of all devices on it. */
void pci_bus_route_intx(struct machine *m, int (*route)(int slot, int pin), const struct irq wire[4]);

/* Allocates a device and puts it in the first free slot (slot -1) or the given slot and function. The caller then
 * fills in the header with pci_config_set*, BARs and capabilities before the guest runs. */
struct pci_device *pci_device_add(struct machine *m, const struct device_type *type, int slot, int function);

void pci_config_set8(struct pci_device *d, int offset, u8 val);   /* read-only for the guest unless made writable */
void pci_config_set16(struct pci_device *d, int offset, u16 val);
void pci_config_set32(struct pci_device *d, int offset, u32 val);

/* vendor, device, class (24 bits: class, subclass, prog-if), revision, subsystem ids, and INTA# when `intx`. */
void pci_identity_set(struct pci_device *d, u16 vendor, u16 device, u32 class_code, u8 revision, u16 subsystem_vendor,
                      u16 subsystem, bool intx);

void pci_bar_memory(struct pci_device *d, int bar, u64 size, bool is64, const struct io_ops *ops);
void pci_bar_io(struct pci_device *d, int bar, u32 size, const struct io_ops *ops);

/* Appends a capability of `len` bytes (id and next pointer included), returns its offset. Bodies start zeroed,
 * read-only. */
int pci_capability_add(struct pci_device *d, u8 id, int len);

/* MSI-X with `count` vectors (1 to PCI_MSIX_MAX) in memory BAR `bar`, which exists already: table (16 bytes a vector)
 * at table_offset, pending bits at pba_offset. The bus answers those two places itself; the BAR's own handlers get
 * the rest. */
void pci_msix_add(struct pci_device *d, int bar, int count, u32 table_offset, u32 pba_offset);
bool pci_msix_enabled(const struct pci_device *d);

/* Sends a vector's message, or makes it pending while masked or without bus mastership. No effect when MSI-X is off
 * or there is no such vector. */
void pci_msix_raise(struct pci_device *d, int vector);

void pci_intx_set(struct pci_device *d, bool level); /* INTA#; the wire stays idle while INTX_DISABLE or MSI-X is on */

/* Whether the guest lets the device reach memory (bus master enable). */
bool pci_dma_allowed(const struct pci_device *d);

/* Gives every BAR an address and every INTx pin a line, and enables decoding, as a firmware would; for direct kernel
 * boots. Memory BARs come from [mmio_base, mmio_end), ports from [io_base, io_end). */
void pci_assign_resources(struct machine *m, u64 mmio_base, u64 mmio_end, u32 io_base, u32 io_end,
                          u8 (*line)(int slot, int pin));

/* The header to its power-on state: every bit that the guest can write is 0, BARs unmapped, MSI-X off, INTx idle.
 * Device reset handlers of PCI devices call it first and then put their own registers' other values in place. */
void pci_device_reset(struct pci_device *d);

/* After the states of all devices were restored, and before any type's loaded(): maps BARs. */
void pci_device_loaded(struct pci_device *d);

#endif
