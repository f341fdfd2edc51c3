/* `skerry run`: boots a virtual machine and stays until it ends. */
#include "cli/cli.h"

#include "base/log.h"
#include "base/trace.h"
#include "cli/run_options.h"
#include "cli/vm_child.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Exit statuses of `skerry run`; the guest's own value for debug-exit is always odd. Also in docs/man/skerry-run.1. */
enum {
    RUN_POWER_OFF = 0,
    RUN_FAILED = CLI_FAILURE,
    RUN_USAGE = CLI_USAGE,
    RUN_RESET = 4,
    RUN_TRIPLE_FAULT = 6,
    RUN_TIMEOUT = 124,
    RUN_SIGNAL = 128, /* plus the signal's number */
};

static void category_print(void *out, const char *name, const char *what)
{
    fprintf(out, "%30s%-9s %s\n", "", name, what);
}

static void run_help(void)
{
    printf("skerry run: boot a virtual machine and stay until it ends.\n\n"
           "Usage: skerry run --kernel FILE [OPTION]...\n\n");
    option_print(run_options.options, stdout);
    trace_list(category_print, stdout);
    printf("\nKeys at the guest's terminal: Ctrl-a x ends the VM, Ctrl-a h lists the others.\n"
           "\nExit status (one line on stderr says it in words):\n"
           "    0   the guest powered off, or you ended it with Ctrl-a x\n"
           "    1   skerry could not start or go on\n"
           "    2   mistake in the command line\n"
           "    4   the guest reset, and --no-reboot\n"
           "    6   the guest triple-faulted, and --no-reboot\n"
           "  124   --timeout ran out\n"
           "  128+n ended by signal n\n"
           "  odd   with --device debug-exit: 2 * value + 1 of what the guest wrote to it\n"
           "\nExamples:\n"
           "  A Linux kernel with an initial RAM disk, console on this terminal:\n"
           "    skerry run --kernel vmlinuz --initrd initrd.img --append console=ttyS0\n"
           "  The guest of 'skerry image build debian', its sshd on port 2222 of this host:\n"
           "    skerry run --kernel debian.vmlinuz --initrd debian.initrd --disk debian.img \\\n"
           "      --append 'root=/dev/vda console=ttyS0' --memory 1G --cpus 2 -p 2222:22\n"
           "  Try something and throw away what it wrote:\n"
           "    skerry run … --disk debian.img,snapshot\n"
           "  In a test: no terminal, an end in any case, a status from the guest:\n"
           "    skerry run --kernel test.elf --serial log.txt --device debug-exit --no-reboot --timeout 60\n");
}

/* Says on stderr why it ended, and returns the exit status that says the same. */
static int ended_report(const struct vm_ended *ended, const struct vm_config *c, int signal_passed)
{
    char seconds[32];

    switch (ended->why) {
    case VM_END_POWER_OFF:
        log_info("the guest powered off");
        return RUN_POWER_OFF;
    case VM_END_QUIT:
        if (signal_passed)
            log_info("ended by SIG%s", sigabbrev_np(signal_passed));
        else
            log_info("ended by %s", ended->text[0] ? ended->text : "request");
        return signal_passed ? RUN_SIGNAL + signal_passed : RUN_POWER_OFF;
    case VM_END_RESET:
        log_info("the guest reset, which ends it with --no-reboot");
        return RUN_RESET;
    case VM_END_TRIPLE_FAULT:
        log_info("the guest triple-faulted, which ends it with --no-reboot%s%s", ended->text[0] ? ": " : "",
                 ended->text);
        return RUN_TRIPLE_FAULT;
    case VM_END_DEBUG_EXIT:
        log_info("the guest wrote to debug-exit: status %d", ended->value);
        return ended->value;
    case VM_END_TIMEOUT:
        /* not in log_info(): base is compiled without vector registers, and so without doubles */
        snprintf(seconds, sizeof(seconds), "%g", (double)c->timeout_ms / 1000);
        log_info("ended by --timeout after %s seconds", seconds);
        return RUN_TIMEOUT;
    default:
        log_error("%s", ended->text[0] ? ended->text : "the machine broke down");
        return RUN_FAILED;
    }
}

static int run(const struct vm_config *c)
{
    struct vm_ended ended;
    struct err e;
    int signal_passed = 0;

    if (run_options_check(c, &e)) {
        log_error("%s", e.text);
        return e.code == -EINVAL ? RUN_USAGE : RUN_FAILED;
    }
    if (vm_child_run(c, &ended, &signal_passed, &e)) {
        log_error("%s", e.text);
        return RUN_FAILED;
    }
    return ended_report(&ended, c, signal_passed);
}

int cli_run(int argc, char **argv)
{
    struct vm_config config;
    struct err e;
    int status;

    vm_config_init(&config);
    switch (option_parse(&run_options, argc, argv, &config, &e)) {
    case 0:
        status = run(&config);
        break;
    case OPTION_HELP:
        run_help();
        status = 0;
        break;
    default:
        log_error("%s", e.text);
        status = RUN_USAGE;
    }
    vm_config_free(&config);
    return status;
}
