/* See pc_fixture.h. */
#include "pc_fixture.h"

#include "disk/disk.h"
#include "firmware/linux_boot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CONSOLES = 3, DISK_SIZE = 1 << 20 };

static struct console console[CONSOLES];
static u8 console_sum;
static struct disk *disk;
static struct boot_image *image;
static struct net net;

static void must(int r, const struct err *e)
{
    if (!r)
        return;
    fprintf(stderr, "fixture: %s\n", e->text);
    abort();
}

static void temporary_file(char *path, const void *data, size_t len, off_t size)
{
    int fd;

    strcpy(path, "/tmp/skerry-test-XXXXXX");
    fd = mkstemp(path);
    if (fd < 0 || write(fd, data, len) != (ssize_t)len || ftruncate(fd, size)) {
        perror("fixture: temporary file");
        abort();
    }
    close(fd);
}

/* Multiboot 0.6.96 §3.1 with address fields (flag 16): loaded whole at 1 MiB. */
static void image_create(void)
{
    u32 kernel[32] = {0x1badb002, 0x10000,  -(0x1badb002u + 0x10000), 0x100000, 0x100000,
                      0x100080,   0x100080, PC_FIXTURE_ENTRY};
    char path[32];
    struct err e;

    temporary_file(path, kernel, sizeof(kernel), sizeof(kernel));
    must(boot_image_create(path, NULL, "test", &image, &e), &e);
    unlink(path);
}

static void disk_create_and_open(struct event_loop *loop)
{
    static const struct disk_options options = {.format = DISK_FORMAT_RAW};
    char path[32];
    struct err e;

    temporary_file(path, "", 0, DISK_SIZE);
    must(disk_open(path, &options, loop, &disk, &e), &e);
    unlink(path);
}

/* Reads every byte. */
static void console_take(struct console *c, const u8 *data, int len)
{
    for (int i = 0; i < len; i++)
        console_sum += data[i];
}

/* Nobody takes the guest's frames out: the queue fills, and then they are dropped. */
static void net_wake(struct net *n)
{
}

struct machine *pc_fixture(u64 ram_size, int cpus)
{
    static const struct net_ops net_ops = {.wake = net_wake};
    static const struct console_ops console_ops = {.write = console_take};
    static const u8 mac[6] = {2, 0, 0, 0, 0, 1};
    struct pc_config config = {.debug_exit = true,
                               .pc_testdev = true,
                               .pci_testdev = true,
                               .rng = true,
                               .balloon = true,
                               .disk_count = 1};
    struct machine *m = NULL;
    struct err e;

    fixture_config(&config.machine, cpus);
    config.machine.ram_size = ram_size;
    for (int i = 0; i < CONSOLES; i++)
        console[i] = (struct console){.ops = &console_ops};
    disk_create_and_open(config.machine.loop);
    image_create();
    config.serial = &console[0];
    config.virtio_console = &console[1];
    config.debugcon = &console[2];
    config.disk[0] = disk;
    config.boot = image;
    net_open(&net, &net_ops, config.machine.loop);
    config.net = &net;
    memcpy(config.mac, mac, sizeof(mac));
    must(pc_create(&config, &m, &e), &e);
    return m;
}

struct console *pc_fixture_console(int n)
{
    return &console[n];
}

struct net *pc_fixture_net(void)
{
    return &net;
}

static void stop_loop(void *loop)
{
    event_loop_stop(loop);
}

void pc_fixture_tasks(struct machine *m)
{
    struct loop_task stop = {.fn = stop_loop, .ctx = m->loop};

    event_loop_post(m->loop, &stop);
    while (stop.pending) /* the guest may have stopped the loop before */
        event_loop_run(m->loop);
}

void pc_fixture_free(struct machine *m)
{
    struct event_loop *loop = m->loop;
    pthread_mutex_t *lock = m->lock;

    machine_free(m);
    net_close(&net);
    disk_close(disk);
    boot_image_free(image);
    fixture_host_free(loop, lock);
}
