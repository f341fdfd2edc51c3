/* Hostile packets between the command and the VM process: the input is one packet, read as either side would. */
#include "fuzz_input.h"
#include "proto/vm_channel.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PACKET_MAX = 100000 };

static void packet_read(const u8 *data, size_t size, int (*receive)(int fd))
{
    struct err e;
    int fd[2];

    if (vm_channel_create(fd, &e))
        abort();
    if (send(fd[0], data, size, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)size) {
        shutdown(fd[0], SHUT_WR);
        receive(fd[1]);
    }
    close(fd[0]);
    close(fd[1]);
}

static int ended(int fd)
{
    struct vm_ended ended;
    struct err e;
    int r = vm_channel_recv_ended(fd, &ended, &e);

    if (!r && (ended.why >= VM_END_COUNT || ended.value < 0 || ended.value > 255))
        abort();
    return r;
}

static int config(int fd)
{
    struct vm_config c;
    struct err e;
    int r = vm_channel_recv_config(fd, &c, &e);

    if (!r)
        vm_config_free(&c);
    return r;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    size = MIN(size, (size_t)PACKET_MAX);
    packet_read(data, size, ended);
    packet_read(data, size, config);
    return 0;
}
