/* Main of the VM process: see vm_main.h. Everything that it tells goes through the channel; the exit status and stderr
 * are only for the case that the channel is gone. */
#include "vm/vm_main.h"

#include "base/log.h"
#include "base/dump.h"
#include "base/trace.h"
#include "proto/vm_channel.h"
#include "vm/vm_run.h"
#include <errno.h>
#include <malloc.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int channel_fd_parse(int argc, char **argv, int *ret)
{
    char *end;
    long fd;

    if (argc != 3 || strcmp(argv[1], "--channel-fd"))
        return -EINVAL;
    fd = strtol(argv[2], &end, 10);
    if (*end || fd < 3 || fd > 1023 || fcntl((int)fd, F_SETFD, FD_CLOEXEC))
        return -EINVAL;
    *ret = (int)fd;
    return 0;
}

static void run_configured(int fd, struct vm_ended *ended)
{
    struct vm_config config;
    struct err e;

    if (vm_channel_recv_config(fd, &config, &e))
        goto refused;
    if ((!config.trace || !trace_enable(config.trace, &e)) && (!config.dump || !dump_enable(config.dump, &e)))
        e.code = vm_run(&config, fd, ended, &e);
    vm_config_free(&config);
    if (!e.code)
        return;
refused:
    ended->why = VM_END_FAILED;
    snprintf(ended->text, sizeof(ended->text), "%s", e.text);
}

int vm_main(int argc, char **argv)
{
    struct vm_ended ended = {0};
    struct err e;
    int fd;

    /* large blocks (a kernel being loaded) go back to the host when freed; by default the threshold grows with their size */
    mallopt(M_MMAP_THRESHOLD, 256 << 10);
    if (channel_fd_parse(argc, argv, &fd)) {
        log_error("'skerry vm' is for skerry itself; to start a virtual machine, see 'skerry help run'");
        return 2;
    }
    run_configured(fd, &ended);
    if (!vm_channel_send_ended(fd, &ended, &e))
        return 0;
    return e.code == -EPIPE ? 0 : 1; /* EPIPE: the starter is gone, which is why the machine ended */
}
