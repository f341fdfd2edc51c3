/* The kept state of every device of the PC: complete, restored as saved, and harmless when the stream lies. */
#include "machine/pci.h"
#include "pc_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { DEVICES_MAX = 40, POKES = 3000, LIES = 300 };
#define SECOND 1000000000ull

static struct machine *m;

/* One part of the machine's state: a device's own, or the PCI part of a device. */
struct part {
    const char *id;
    const struct state_table *table;
    void *state;
    u8 *stream;
    size_t len;
};

static struct part part[2 * DEVICES_MAX];
static int part_count;

static void part_add(const char *id, const struct state_table *table, void *state)
{
    struct part *p = &part[part_count++];

    *p = (struct part){.id = id, .table = table, .state = state, .stream = malloc(state_stream_size(table))};
}

static struct pci_device *pci_of(const struct device *dev)
{
    for (int slot = 0; slot < 32; slot++)
        for (int function = 0; function < 8; function++) {
            struct pci_device *d = pci_device_at(m, slot, function);

            if (d && &d->dev == dev)
                return d;
        }
    return NULL;
}

static void parts_find(void)
{
    part_count = 0;
    for (struct device *dev = m->devices; dev; dev = dev->next) {
        struct pci_device *pci = pci_of(dev);

        if (pci)
            part_add(dev->id, &pci_state_table, &pci->ps);
        if (dev->type->state.fields)
            part_add(dev->id, &dev->type->state, device_state(dev));
    }
}

static void parts_save(void)
{
    for (struct part *p = part; p < part + part_count; p++)
        p->len = state_save(p->table, p->state, p->stream);
}

/* As a restore would: everything first, then PCI, then the devices. */
static void devices_loaded(void)
{
    for (struct device *dev = m->devices; dev; dev = dev->next)
        if (pci_of(dev))
            pci_device_loaded(pci_of(dev));
    for (struct device *dev = m->devices; dev; dev = dev->next)
        if (dev->type->loaded)
            dev->type->loaded(dev);
}

/* What guests do to ports, and what they should not. */
static void poke(unsigned seed)
{
    static const u16 ports[] = {0x20, 0x21, 0x40,  0x43,  0x60,  0x61,  0x64,  0x70,  0x71,  0xa0,  0xa1,
                                0xb2, 0x3f8, 0x3f9, 0x3fb, 0x3fc, 0x4d0, 0x600, 0x602, 0xcf8, 0xcfc, 0xc000};

    srandom(seed);
    for (int i = 0; i < POKES; i++) {
        u16 port = (u16)(ports[(size_t)random() % ARRAY_SIZE(ports)] + random() % 2);

        if (random() % 3)
            pio_write(m, port, 1 << random() % 3, (u64)random());
        else
            mmio_write(m, (random() % 2 ? 0xfed00000 : 0xfec00000) + (u64)random() % 0x200 * 4, 4, (u64)random());
        if (i % 64 == 0)
            fixture_time(m, machine_now(m) + 1000000);
    }
    pc_fixture_tasks(m);
}

static int setup(void **unused)
{
    m = pc_fixture(MIB(8), 2);
    devices_reset(m);
    m->boot(m, m->boot_ctx);
    parts_find();
    return 0;
}

static int teardown(void **unused)
{
    for (struct part *p = part; p < part + part_count; p++)
        free(p->stream);
    pc_fixture_free(m);
    return 0;
}

static void tables_cover_the_state(void **unused)
{
    for (struct part *p = part; p < part + part_count; p++) {
        if (state_covered(p->table) != p->table->size)
            print_error("%s\n", p->id);
        assert_int_equal(state_covered(p->table), p->table->size);
    }
    for (struct device *dev = m->devices; dev; dev = dev->next)
        assert_true(dev->type->state_offset + dev->type->state.size <= dev->type->size);
}

static void identifiers_are_unique(void **unused)
{
    for (struct device *a = m->devices; a; a = a->next)
        for (struct device *b = a->next; b; b = b->next)
            assert_string_not_equal(a->id, b->id);
}

static void round_trip(void **unused)
{
    for (unsigned seed = 1; seed <= 8; seed++) {
        static u8 again[131072];

        poke(seed);
        parts_save();
        devices_reset(m);
        poke(seed + 100);
        for (struct part *p = part; p < part + part_count; p++)
            assert_int_equal(state_load(p->table, p->state, p->stream, p->len), 0);
        devices_loaded();
        for (struct part *p = part; p < part + part_count; p++) {
            assert_true(p->len <= sizeof(again));
            assert_int_equal(state_save(p->table, p->state, again), p->len);
            if (memcmp(again, p->stream, p->len))
                print_error("%s, seed %u\n", p->id, seed);
            assert_memory_equal(again, p->stream, p->len);
        }
    }
}

/* Values that no device wrote. Whatever loads must leave a machine that goes on: the sanitizers, asserts and the test's
 * time limit watch. */
static void lying_streams(void **unused)
{
    poke(1);
    parts_save();
    srandom(2);
    for (int lie = 0; lie < LIES; lie++) {
        struct part *p = &part[random() % part_count];
        u8 *copy = malloc(p->len);

        memcpy(copy, p->stream, p->len);
        for (long flips = 1 + random() % 40; flips; flips--)
            copy[(size_t)random() % p->len] = (u8)(random() % 3 ? random() : 0xff);
        if (lie % 4 == 0) { /* all values, names intact */
            const u8 *shape = p->stream;
            size_t at = 4;

            memcpy(copy, shape, p->len);
            for (const struct state_field *f = p->table->fields; f->name; f++) {
                at += 1 + strlen(f->name) + 5;
                for (size_t i = 0; i < (size_t)f->size * f->count; i++)
                    copy[at + i] = f->kind == STATE_BOOL ? (u8)(random() % 2) : (u8)random();
                at += (size_t)f->size * f->count;
            }
        }
        if (!state_load(p->table, p->state, copy, p->len))
            devices_loaded();
        fixture_time(m, machine_now(m) + SECOND / 1000);
        pc_fixture_tasks(m);
        poke((unsigned)lie);
        free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(tables_cover_the_state, setup, teardown),
        cmocka_unit_test_setup_teardown(identifiers_are_unique, setup, teardown),
        cmocka_unit_test_setup_teardown(round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(lying_streams, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
