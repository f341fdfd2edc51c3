/* QEMU's pci-testdev, for test guests: docs/specs/pci-testdev of QEMU.
 *
 * BAR 0 (memory) and BAR 1 (ports) each begin with a header about the test selected: its number (written to select
 * one), the width of the write to make, the offset and the value to write, and how many such writes have come. The
 * three tests of a BAR differ, in QEMU, by whether a write reaches its device model or an eventfd; here all writes take
 * the same way, and only the last test insists on the value. A BAR without a selected test reads as zeros. */
#include "dev/pci_testdev.h"

#include <string.h>

enum { VENDOR_REDHAT = 0x1b36, DEVICE_TESTDEV = 5, CLASS_OTHER = 0x00ff00 };
enum { MEMORY_SIZE = 4096, PORTS_SIZE = 256, TESTS = 3, NONE = 0xff };
enum { TEST_DATAMATCH = 2 };
#define MATCH 0xfau

enum testdev_space { SPACE_MEMORY, SPACE_PORTS };

struct pci_testdev_state {
    u32 count;
    u8 test;  /* number, or NONE */
    u8 space; /* enum testdev_space: whose test it is */
    u8 pad[2];
};

struct pci_testdev {
    struct pci_device pci;
    struct pci_testdev_state s;
};

/* What the guest finds at a BAR's start. */
struct testdev_header {
    u8 test, width, pad[2];
    u32 offset, data, count;
    char name[32];
};

static const struct state_field pci_testdev_fields[] = {
    STATE(struct pci_testdev_state, count), STATE(struct pci_testdev_state, test),
    STATE(struct pci_testdev_state, space), STATE_ARRAY(struct pci_testdev_state, pad), STATE_END};

static struct pci_testdev *testdev(struct device *dev)
{
    return container_of(dev, struct pci_testdev, pci.dev);
}

/* Each test has a byte in the upper half of its BAR. */
static u32 target_offset(enum testdev_space space, u8 test)
{
    return (space == SPACE_MEMORY ? MEMORY_SIZE : PORTS_SIZE) / 2u + test;
}

static struct testdev_header header_of(const struct pci_testdev *t, enum testdev_space space)
{
    static const char *const names[2][TESTS] = {
        {"mmio-no-eventfd", "mmio-wildcard-eventfd", "mmio-datamatch-eventfd"},
        {"portio-no-eventfd", "portio-wildcard-eventfd", "portio-datamatch-eventfd"}};
    struct testdev_header h = {.test = t->s.test, .width = 1, .data = MATCH, .count = t->s.count};

    h.offset = target_offset(space, t->s.test);
    strcpy(h.name, names[space][t->s.test]);
    return h;
}

static u64 header_read(struct device *dev, enum testdev_space space, u64 offset)
{
    const struct pci_testdev *t = testdev(dev);
    struct testdev_header h;

    if (t->s.test >= TESTS || t->s.space != space || offset >= sizeof(h))
        return 0;
    h = header_of(t, space);
    return ((const u8 *)&h)[offset];
}

static void test_select(struct pci_testdev *t, enum testdev_space space, u64 test)
{
    t->s = (struct pci_testdev_state){.test = test < TESTS ? (u8)test : NONE, .space = (u8)space};
}

static void bar_write(struct device *dev, enum testdev_space space, u64 offset, u64 val)
{
    struct pci_testdev *t = testdev(dev);

    if (offset == offsetof(struct testdev_header, test))
        test_select(t, space, val);
    else if (t->s.test < TESTS && t->s.space == space && offset == target_offset(space, t->s.test) &&
             (t->s.test != TEST_DATAMATCH || val == MATCH))
        t->s.count++;
}

static u64 memory_read(struct device *dev, u64 offset, int size)
{
    return header_read(dev, SPACE_MEMORY, offset);
}

static void memory_write(struct device *dev, u64 offset, int size, u64 val)
{
    bar_write(dev, SPACE_MEMORY, offset, val);
}

static u64 ports_read(struct device *dev, u64 offset, int size)
{
    return header_read(dev, SPACE_PORTS, offset);
}

static void ports_write(struct device *dev, u64 offset, int size, u64 val)
{
    bar_write(dev, SPACE_PORTS, offset, val);
}

static const struct io_ops memory_ops = {memory_read, memory_write, 1, 1}, ports_ops = {ports_read, ports_write, 1, 1};

static void pci_testdev_reset(struct device *dev)
{
    pci_device_reset(&testdev(dev)->pci);
    testdev(dev)->s = (struct pci_testdev_state){.test = NONE};
}

static const struct device_type pci_testdev_type = {
    .name = "pci_testdev",
    .size = sizeof(struct pci_testdev),
    .state_offset = offsetof(struct pci_testdev, s),
    .state = STATE_TABLE(struct pci_testdev_state, pci_testdev_fields, 1),
    .reset = pci_testdev_reset,
};

struct device *pci_testdev_create(struct machine *m)
{
    struct pci_device *pci = pci_device_add(m, &pci_testdev_type, -1, 0);

    pci_identity_set(pci, VENDOR_REDHAT, DEVICE_TESTDEV, CLASS_OTHER, 0, VENDOR_REDHAT, 0x1100, false);
    pci_bar_memory(pci, 0, MEMORY_SIZE, false, &memory_ops);
    pci_bar_io(pci, 1, PORTS_SIZE, &ports_ops);
    return &pci->dev;
}
