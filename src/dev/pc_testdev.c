/* QEMU's pc-testdev, for test guests, as hw/misc/pc-testdev.c of QEMU lays it out:
 *   0xE0–0xE3      a dword that ports of every width read and write
 *   0xE4–0xE7      "flush": takes a guest-physical address whose host mapping the monitor is to drop and make anew
 *   0xE8–0xEB      the same dword as at 0xE0, but a byte at a time
 *   0x2000–0x2017  a write drives interrupt line n to the written level
 *   0xFF000000     64 KiB that behave like RAM, but are reached through the MMIO path
 *
 * Flush does nothing here: guest RAM stays mapped for the machine's life, so there is nothing that could be stale. */
#include "dev/pc_testdev.h"

#include <string.h>

enum { PORT_DATA = 0xe0, PORT_FLUSH = 0xe4, PORT_BYTES = 0xe8, PORT_LINES = 0x2000, MEMORY_SIZE = 0x10000 };
#define MEMORY 0xff000000ull

struct pc_testdev_state {
    u8 data[4];
    u8 memory[MEMORY_SIZE];
};

struct pc_testdev {
    struct device dev;
    struct pc_testdev_state s;
    struct irq line[PC_TESTDEV_LINES];
};

static const struct state_field pc_testdev_fields[] = {
    STATE_ARRAY(struct pc_testdev_state, data), STATE_ARRAY(struct pc_testdev_state, memory), STATE_END};

static struct pc_testdev *testdev(struct device *dev)
{
    return container_of(dev, struct pc_testdev, dev);
}

/* The bus keeps offset + size within the range. */
static u64 bytes_read(const u8 *from, int size)
{
    u64 val = 0;

    memcpy(&val, from, (size_t)size);
    return val;
}

static u64 data_read(struct device *dev, u64 offset, int size)
{
    return bytes_read(testdev(dev)->s.data + offset, size);
}

static void data_write(struct device *dev, u64 offset, int size, u64 val)
{
    memcpy(testdev(dev)->s.data + offset, &val, (size_t)size);
}

static u64 memory_read(struct device *dev, u64 offset, int size)
{
    return bytes_read(testdev(dev)->s.memory + offset, size);
}

static void memory_write(struct device *dev, u64 offset, int size, u64 val)
{
    memcpy(testdev(dev)->s.memory + offset, &val, (size_t)size);
}

static u64 nothing_read(struct device *dev, u64 offset, int size)
{
    return 0;
}

static void flush_write(struct device *dev, u64 offset, int size, u64 val)
{
}

static void line_write(struct device *dev, u64 offset, int size, u64 val)
{
    irq_set(&testdev(dev)->line[offset], val != 0);
}

static const struct io_ops data_ops = {data_read, data_write, 1, 4}, byte_ops = {data_read, data_write, 1, 1},
                           flush_ops = {nothing_read, flush_write, 1, 4}, line_ops = {nothing_read, line_write, 1, 1},
                           memory_ops = {memory_read, memory_write, 1, 8};

static void pc_testdev_reset(struct device *dev)
{
    memset(&testdev(dev)->s, 0, sizeof(testdev(dev)->s));
}

static const struct device_type pc_testdev_type = {
    .name = "pc_testdev",
    .size = sizeof(struct pc_testdev),
    .state_offset = offsetof(struct pc_testdev, s),
    .state = STATE_TABLE(struct pc_testdev_state, pc_testdev_fields, 1),
    .reset = pc_testdev_reset,
};

struct device *pc_testdev_create(struct machine *m, const struct irq lines[PC_TESTDEV_LINES])
{
    struct device *dev = device_add(m, &pc_testdev_type);

    memcpy(testdev(dev)->line, lines, sizeof(testdev(dev)->line));
    pio_map(m, PORT_DATA, 4, dev, &data_ops);
    pio_map(m, PORT_FLUSH, 4, dev, &flush_ops);
    pio_map(m, PORT_BYTES, 4, dev, &byte_ops);
    pio_map(m, PORT_LINES, PC_TESTDEV_LINES, dev, &line_ops);
    mmio_map(m, MEMORY, MEMORY_SIZE, dev, &memory_ops);
    return dev;
}
