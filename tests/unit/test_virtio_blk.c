/* Virtio block against a disk in memory that answers when the test says so: requests, limits, resets with requests in flight. */
#include "dev/virtio_blk.h"
#include "dev/virtio_pci.h"
#include "disk/disk.h"
#include "virtio_driver.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { SECTORS = 256, CAPACITY = SECTORS * 512, HELD_MAX = 200 };
enum { IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, WRITE_ZEROES = 13 };
enum { OK = 0, IOERR = 1, UNSUPP = 2, UNTOUCHED = 0xee };
enum { F_RO = 5, F_FLUSH = 9, F_CONFIG_WCE = 11, F_DISCARD = 13 };

/* ---- the disk ---- */

struct disk {
    u8 data[CAPACITY];
    bool readonly, hold; /* hold: requests wait for release */
    int error;
    struct disk_request *held[HELD_MAX];
    int held_count, count[DISK_WRITE_ZEROES + 1];
};

static struct disk disk;

u64 disk_size(const struct disk *unused)
{
    return CAPACITY;
}

bool disk_readonly(const struct disk *d)
{
    return d->readonly;
}

static void perform(struct disk_request *r)
{
    u8 *at = disk.data + r->offset;

    assert_true(r->offset + r->length <= CAPACITY);
    disk.count[r->op]++;
    for (int i = 0; !disk.error && i < r->iov_count; i++) {
        memcpy(r->op == DISK_READ ? r->iov[i].iov_base : at, r->op == DISK_READ ? at : r->iov[i].iov_base,
               r->iov[i].iov_len);
        at += r->iov[i].iov_len;
    }
    if (r->op == DISK_WRITE_ZEROES || r->op == DISK_DISCARD)
        memset(at, 0, r->length);
    r->done(r, disk.error);
}

void disk_submit(struct disk *d, struct disk_request *r)
{
    if (!d->hold) {
        perform(r);
        return;
    }
    assert_true(d->held_count < HELD_MAX);
    d->held[d->held_count++] = r;
}

static void release(void)
{
    struct disk_request *held[HELD_MAX];
    int count = disk.held_count;

    memcpy(held, disk.held, sizeof(held));
    disk.held_count = 0;
    while (count) /* the other way round: the order is the disk's own */
        perform(held[--count]);
}

void disk_drain(struct disk *d)
{
    while (d->held_count)
        release();
}

/* ---- the guest ---- */

static struct machine *m;
static struct irq_probe intx;
static struct device *dev;
static struct driver d;

static int setup_with(bool readonly)
{
    memset(&disk, 0, sizeof(disk));
    for (int i = 0; i < CAPACITY; i++)
        disk.data[i] = (u8)(i / 512 + i % 512);
    disk.readonly = readonly;
    m = driver_machine(2, &intx);
    dev = virtio_blk_create(m, &disk, "a serial number of more than 20 bytes");
    driver_find(&d, m, dev);
    return 0;
}

static int setup(void **unused)
{
    return setup_with(false);
}

static int setup_readonly(void **unused)
{
    return setup_with(true);
}

static int teardown(void **unused)
{
    fixture_free(m);
    return 0;
}

struct request {
    u64 header, data, status;
    u16 head;
};

/* `data` bytes in two buffers; the status byte has one of its own. */
static struct request submit_on(int queue, u32 type, u64 sector, const void *out, u32 data)
{
    struct request r = {driver_alloc(&d, 16), driver_alloc(&d, MAX(data, 1u)), driver_alloc(&d, 1), 0};
    bool in = type == IN || type == GET_ID;
    struct buffer b[4] = {{r.header, 16, false}};
    int n = 1;

    memcpy(driver_ptr(&d, r.header), &type, 4);
    memcpy(driver_ptr(&d, r.header + 8), &sector, 8);
    *(u8 *)driver_ptr(&d, r.status) = UNTOUCHED;
    if (out)
        memcpy(driver_ptr(&d, r.data), out, data);
    if (data > 1) {
        b[n++] = (struct buffer){r.data, data / 2, in};
        b[n++] = (struct buffer){r.data + data / 2, data - data / 2, in};
    }
    b[n++] = (struct buffer){r.status, 1, true};
    r.head = driver_add(&d, queue, b, n);
    driver_kick(&d, queue);
    return r;
}

static struct request submit(u32 type, u64 sector, const void *out, u32 data)
{
    return submit_on(0, type, sector, out, data);
}

static u8 status(const struct request *r)
{
    return *(u8 *)driver_ptr(&d, r->status);
}

static u8 run(u32 type, u64 sector, const void *out, u32 data)
{
    struct request r = submit(type, sector, out, data);

    assert_int_equal(driver_used(&d, 0, NULL), r.head);
    return status(&r);
}

static void start(void)
{
    driver_start(&d, ~0ull, 2, 64, true);
}

/* ---- requests ---- */

static void reads(void **unused)
{
    struct request r;
    u32 len;

    start();
    r = submit(IN, 3, NULL, 1024);
    assert_int_equal(driver_used(&d, 0, &len), r.head);
    assert_int_equal(len, 1025);
    assert_int_equal(status(&r), OK);
    assert_memory_equal(driver_ptr(&d, r.data), disk.data + 3 * 512, 1024);
    assert_int_equal(driver_messages(m, DRIVER_MSI_VECTOR), 1);
}

static void writes(void **unused)
{
    u8 data[1536];

    memset(data, 0xa5, sizeof(data));
    start();
    assert_int_equal(run(OUT, SECTORS - 3, data, sizeof(data)), OK);
    assert_memory_equal(disk.data + CAPACITY - sizeof(data), data, sizeof(data));
    assert_int_equal(disk.count[DISK_FLUSH], 0);
}

static void second_queue_works_too(void **unused)
{
    struct request r;

    start();
    assert_int_equal(config_get(&d, 34, 2), 2); /* a queue a vCPU */
    r = submit_on(1, IN, 0, NULL, 512);
    assert_int_equal(driver_used(&d, 1, NULL), r.head);
    assert_int_equal(status(&r), OK);
    assert_int_equal(driver_messages(m, DRIVER_MSI_VECTOR + 1), 1);
}

static void flushes(void **unused)
{
    start();
    assert_int_equal(run(FLUSH, 0, NULL, 0), OK);
    assert_int_equal(disk.count[DISK_FLUSH], 1);
}

static void tells_its_serial(void **unused)
{
    struct request r;

    start();
    r = submit(GET_ID, 0, NULL, 20);
    assert_int_equal(driver_used(&d, 0, NULL), r.head);
    assert_int_equal(status(&r), OK);
    assert_memory_equal(driver_ptr(&d, r.data), "a serial number of m", 20);
}

static u8 segment(u32 type, u64 sector, u32 sectors, u32 flags)
{
    u8 seg[16];

    memcpy(seg, &sector, 8);
    memcpy(seg + 8, &sectors, 4);
    memcpy(seg + 12, &flags, 4);
    return run(type, 0, seg, sizeof(seg));
}

static void discards_and_zeroes(void **unused)
{
    start();
    assert_int_equal(segment(WRITE_ZEROES, 5, 2, 1), OK);
    assert_int_equal(disk.data[5 * 512] | disk.data[7 * 512 - 1], 0);
    assert_int_equal(disk.data[7 * 512 + 1], 8);
    assert_int_equal(disk.count[DISK_WRITE_ZEROES], 1);
    assert_int_equal(segment(DISCARD, 9, 1, 0), OK);
    assert_int_equal(disk.count[DISK_DISCARD], 1);
    assert_int_equal(segment(DISCARD, 9, 1, 1), UNSUPP);
    assert_int_equal(segment(WRITE_ZEROES, 9, 1, 2), UNSUPP);
    assert_int_equal(segment(DISCARD, SECTORS, 1, 0), IOERR);
    assert_int_equal(segment(DISCARD, UINT64_MAX, 2, 0), IOERR);
    assert_int_equal(segment(WRITE_ZEROES, 0, UINT32_MAX, 0), IOERR);
    assert_int_equal(run(DISCARD, 0, "too short", 8), IOERR);
}

static void range_is_checked(void **unused)
{
    start();
    assert_int_equal(run(IN, SECTORS - 1, NULL, 512), OK);
    assert_int_equal(run(IN, SECTORS - 1, NULL, 1024), IOERR);
    assert_int_equal(run(IN, SECTORS, NULL, 512), IOERR);
    assert_int_equal(run(IN, UINT64_MAX, NULL, 512), IOERR);
    assert_int_equal(run(OUT, UINT64_MAX / 512 + 1, NULL, 512), IOERR);
    assert_int_equal(run(IN, 0, NULL, 500), IOERR); /* no whole sectors */
    assert_int_equal(run(IN, 0, NULL, 0), OK);
    assert_int_equal(run(99, 0, NULL, 512), UNSUPP);
}

static void errors_of_the_disk(void **unused)
{
    struct request r;
    u32 len;

    start();
    disk.error = -EIO;
    r = submit(IN, 0, NULL, 512);
    assert_int_equal(driver_used(&d, 0, &len), r.head);
    assert_int_equal(len, 0); /* no byte of the data is promised */
    assert_int_equal(status(&r), IOERR);
    assert_int_equal(run(FLUSH, 0, NULL, 0), IOERR);
    assert_int_equal(driver_get_status(&d), 15);
}

static void framing_is_free(void **unused)
{
    u64 gpa = driver_alloc(&d, 4096), sector = 2;
    u32 type = OUT, len;
    struct buffer out[3] = {{gpa, 7, false}, {gpa + 7, 9 + 100, false}, {gpa + 116, 412, false}};
    struct buffer b[4];

    start();
    memset(driver_ptr(&d, gpa + 16), 0x77, 512);
    memcpy(driver_ptr(&d, gpa), &type, 4);
    memcpy(driver_ptr(&d, gpa + 8), &sector, 8);
    memcpy(b, out, sizeof(out));
    b[3] = (struct buffer){gpa + 600, 1, true};
    driver_add_indirect(&d, 0, b, 4);
    driver_kick(&d, 0);
    assert_true(driver_used(&d, 0, &len) >= 0);
    assert_int_equal(disk.data[2 * 512], 0x77);
    assert_int_equal(disk.data[3 * 512 - 1], 0x77);

    type = IN; /* data and status in one buffer */
    memcpy(driver_ptr(&d, gpa), &type, 4);
    b[0] = (struct buffer){gpa, 16, false};
    b[1] = (struct buffer){gpa + 1024, 513, true};
    driver_add(&d, 0, b, 2);
    driver_kick(&d, 0);
    assert_true(driver_used(&d, 0, &len) >= 0);
    assert_int_equal(len, 513);
    assert_int_equal(*(u8 *)driver_ptr(&d, gpa + 1024 + 511), 0x77);
    assert_int_equal(*(u8 *)driver_ptr(&d, gpa + 1024 + 512), OK);
}

/* ---- configuration ---- */

static void configuration(void **unused)
{
    start();
    assert_int_equal(config_get(&d, 0, 4), SECTORS);
    assert_int_equal(config_get(&d, 4, 4), 0);
    assert_int_equal(config_get(&d, 12, 4), 126); /* seg_max */
    assert_int_equal(config_get(&d, 20, 4), 512); /* blk_size */
    assert_int_equal(config_get(&d, 32, 1), 1);   /* writeback */
    assert_int_equal(config_get(&d, 40, 4), 1);   /* max_discard_seg */
    assert_int_equal(config_get(&d, 0x1000 - 4, 4), 0);
}

static void writethrough_flushes_each_write(void **unused)
{
    u8 data[512] = {1};

    start();
    mmio_write(m, d.config + 32, 1, 0);
    assert_int_equal(config_get(&d, 32, 1), 0);
    assert_int_equal(run(OUT, 0, data, sizeof(data)), OK);
    assert_int_equal(disk.count[DISK_FLUSH], 1);
    assert_int_equal(run(IN, 0, NULL, 512), OK);
    assert_int_equal(disk.count[DISK_FLUSH], 1);
}

static void driver_that_cannot_flush_is_safe(void **unused)
{
    u8 data[512] = {1};

    driver_start(&d, ~BIT(F_FLUSH), 1, 64, false);
    assert_int_equal(config_get(&d, 32, 1), 0);
    assert_int_equal(run(OUT, 0, data, sizeof(data)), OK);
    assert_int_equal(disk.count[DISK_FLUSH], 1);
}

static void readonly_disk(void **unused)
{
    u8 data[512] = {0};

    assert_true(driver_offered(&d) & BIT(F_RO));
    assert_false(driver_offered(&d) & BIT(F_DISCARD));
    start();
    assert_int_equal(run(OUT, 0, data, sizeof(data)), IOERR);
    assert_int_equal(segment(WRITE_ZEROES, 0, 1, 0), IOERR);
    assert_int_equal(run(IN, 0, NULL, 512), OK);
    assert_int_equal(disk.count[DISK_WRITE], 0);
}

/* ---- in flight ---- */

static void many_in_flight(void **unused)
{
    struct request r[100];
    int used = 0;

    driver_start(&d, ~0ull, 1, 128, true);
    disk.hold = true;
    for (int i = 0; i < 100; i++) { /* single buffers, so that the ring takes them all */
        u64 gpa = driver_alloc(&d, 16 + 512 + 1), sector = (u64)i;
        struct buffer b[2] = {{gpa, 16, false}, {gpa + 16, 513, true}};

        memcpy(driver_ptr(&d, gpa + 8), &sector, 8);
        r[i] = (struct request){gpa, gpa + 16, gpa + 16 + 512, driver_add_indirect(&d, 0, b, 2)};
        *(u8 *)driver_ptr(&d, r[i].status) = UNTOUCHED;
    }
    driver_kick(&d, 0);
    assert_int_equal(driver_used(&d, 0, NULL), -1);
    assert_true(disk.held_count < 100); /* bounded */
    for (int turn = 0; turn < 10; turn++) {
        release();
        driver_settle(m);
    }
    while (driver_used(&d, 0, NULL) >= 0)
        used++;
    assert_int_equal(used, 100);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(status(&r[i]), OK);
        assert_memory_equal(driver_ptr(&d, r[i].data), disk.data + i * 512, 512);
    }
}

static void driver_reset_waits_for_requests(void **unused)
{
    struct request r;

    start();
    disk.hold = true;
    r = submit(IN, 0, NULL, 512);
    driver_status(&d, 0);
    assert_int_not_equal(driver_get_status(&d), 0); /* still under way */
    driver_status(&d, 1);                           /* a driver that does not wait changes nothing */
    release();
    assert_int_equal(driver_get_status(&d), 0);
    assert_int_equal(driver_used(&d, 0, NULL), -1);
    assert_int_equal(status(&r), UNTOUCHED);
    disk.hold = false;
    start();
    assert_int_equal(run(IN, 0, NULL, 512), OK);
}

static void queue_reset_waits_for_requests(void **unused)
{
    struct request other;

    start();
    disk.hold = true;
    submit(IN, 0, NULL, 512);
    other = submit_on(1, IN, 0, NULL, 512);
    common_set(&d, 0x16, 2, 0);
    common_set(&d, 0x3a, 2, 1);
    assert_int_equal(common_get(&d, 0x3a, 2), 1);
    release();
    assert_int_equal(common_get(&d, 0x3a, 2), 0);
    assert_int_equal(common_get(&d, 0x1c, 2), 0);
    assert_int_equal(driver_used(&d, 0, NULL), -1);
    assert_int_equal(driver_used(&d, 1, NULL), other.head); /* the other queue goes on */
    disk.hold = false;
    driver_queue(&d, 0, 32);
    assert_int_equal(run(IN, 0, NULL, 512), OK);
}

static void machine_reset_drains(void **unused)
{
    struct request r;

    start();
    disk.hold = true;
    r = submit(IN, 0, NULL, 512);
    virtio_pci_reset(dev);
    assert_int_equal(disk.held_count, 0);
    assert_int_equal(status(&r), UNTOUCHED);
    driver_settle(m);
}

static void broken_ring_lets_requests_end(void **unused)
{
    struct request r;

    start();
    disk.hold = true;
    r = submit(IN, 0, NULL, 512);
    driver_offer(&d, 0, 999);
    driver_kick(&d, 0);
    assert_int_equal(driver_get_status(&d), 15 | VIRTIO_NEEDS_RESET);
    release();
    assert_int_equal(status(&r), UNTOUCHED);
    driver_status(&d, 0);
    assert_int_equal(driver_get_status(&d), 0);
}

static void freed_with_requests_in_flight(void **unused)
{
    start();
    disk.hold = true;
    submit(IN, 0, NULL, 512);
    submit(OUT, 0, NULL, 512); /* teardown frees the machine; ASan watches */
}

/* ---- hostile ---- */

static void request_without_status_breaks(void **unused)
{
    struct buffer b = {driver_alloc(&d, 16), 16, false};

    start();
    driver_add(&d, 0, &b, 1);
    driver_kick(&d, 0);
    assert_int_equal(driver_get_status(&d), 15 | VIRTIO_NEEDS_RESET);
}

static void request_without_header_breaks(void **unused)
{
    struct buffer b[2] = {{driver_alloc(&d, 16), 15, false}, {driver_alloc(&d, 16), 16, true}};

    start();
    driver_add(&d, 0, b, 2);
    driver_kick(&d, 0);
    assert_int_equal(driver_get_status(&d), 15 | VIRTIO_NEEDS_RESET);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(reads),
                                       TEST(writes),
                                       TEST(second_queue_works_too),
                                       TEST(flushes),
                                       TEST(tells_its_serial),
                                       TEST(discards_and_zeroes),
                                       TEST(range_is_checked),
                                       TEST(errors_of_the_disk),
                                       TEST(framing_is_free),
                                       TEST(configuration),
                                       TEST(writethrough_flushes_each_write),
                                       TEST(driver_that_cannot_flush_is_safe),
                                       cmocka_unit_test_setup_teardown(readonly_disk, setup_readonly, teardown),
                                       TEST(many_in_flight),
                                       TEST(driver_reset_waits_for_requests),
                                       TEST(queue_reset_waits_for_requests),
                                       TEST(machine_reset_drains),
                                       TEST(broken_ring_lets_requests_end),
                                       TEST(freed_with_requests_in_flight),
                                       TEST(request_without_status_breaks),
                                       TEST(request_without_header_breaks)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
