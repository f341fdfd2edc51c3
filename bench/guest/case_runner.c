/* Runs the cases of the benchmark, in a guest (as its first process) or on the host, and reports them line by line.
 *
 * case_runner FOLDER [poweroff]: FOLDER/cases has a line "scale X", a line "timeout SECONDS", and a line for each
 * case: "kernel NAME" (the program FOLDER/kernel_NAME, which times itself) or "program NAME" (FOLDER/programs.sh NAME
 * prepare, then run, which is timed, then check, whose first word of output stands for the result). Printed are
 *     bench: begin NAME CPU-SECONDS
 *     bench: ran NAME SECONDS-SINCE-BEGIN CPU-SECONDS
 *     bench: end NAME SECONDS VERDICT
 *     bench: done
 * The host compares the first time with its own clock, by which it sees the lines begin and ran. CPU-SECONDS are those
 * of all processes that have ended since the start. VERDICT is one word: "ok" or a checksum when all is well,
 * otherwise "wrong", "status-N", "signal-N" or "timeout". With "poweroff" the machine is switched off a second after
 * the end, in which the host may look at the memory of the VM. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define VERDICT_SIZE 80

struct plan {
    const char *folder;
    double scale;
    unsigned timeout;
};

static volatile sig_atomic_t timed_out;

static void on_alarm(int signal)
{
    timed_out = 1;
}

static double seconds_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double children_cpu_seconds(void)
{
    struct rusage usage;

    getrusage(RUSAGE_CHILDREN, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* Starts a program with its output into `out`, waits for it and all in its process group no longer than the plan
 * allows. Returns NULL if it ended well, else the verdict, in `verdict`. */
static const char *command_run(const struct plan *plan, char *const argv[], int out, char verdict[VERDICT_SIZE])
{
    int status = 0;
    pid_t child = fork();

    if (!child) {
        setpgid(0, 0);
        dup2(out, STDOUT_FILENO);
        execv(argv[0], argv);
        _exit(127);
    }
    timed_out = 0;
    alarm(plan->timeout);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR && timed_out)
        kill(-child, SIGKILL);
    alarm(0);
    if (timed_out)
        return strcpy(verdict, "timeout");
    if (WIFSIGNALED(status))
        snprintf(verdict, VERDICT_SIZE, "signal-%d", WTERMSIG(status));
    else if (WEXITSTATUS(status))
        snprintf(verdict, VERDICT_SIZE, "status-%d", WEXITSTATUS(status));
    else
        return NULL;
    return verdict;
}

/* A file without a name that takes a program's output. */
static int output_make(const struct plan *plan)
{
    char name[256];
    int fd;

    snprintf(name, sizeof(name), "%s/output.XXXXXX", plan->folder);
    fd = mkostemp(name, O_CLOEXEC);
    if (fd >= 0)
        unlink(name);
    return fd;
}

static void output_read(int fd, char *text, size_t size)
{
    ssize_t n = pread(fd, text, size - 1, 0);

    text[n > 0 ? n : 0] = 0;
}

/* The line has left the serial port when this returns, so that the host's mark is not late. */
static double begin_print(const char *name)
{
    printf("bench: begin %s %.6f\n", name, children_cpu_seconds());
    fflush(stdout);
    tcdrain(STDOUT_FILENO);
    return seconds_now();
}

static double ran_print(const char *name, double begin)
{
    double seconds = seconds_now() - begin;

    printf("bench: ran %s %.6f %.6f\n", name, seconds, children_cpu_seconds());
    fflush(stdout);
    return seconds;
}

static void end_print(const char *name, double seconds, const char *verdict)
{
    printf("bench: end %s %.6f %s\n", name, seconds, verdict);
    fflush(stdout);
}

static void kernel_case(const struct plan *plan, const char *name)
{
    char path[256], scale[32], verdict[VERDICT_SIZE], line[256], word[VERDICT_SIZE] = "";
    char *argv[] = {path, scale, NULL};
    int out = output_make(plan);
    double begin = begin_print(name), seconds = 0;
    const char *failure;

    snprintf(path, sizeof(path), "%s/kernel_%s", plan->folder, name);
    snprintf(scale, sizeof(scale), "%g", plan->scale);
    failure = command_run(plan, argv, out, verdict);
    ran_print(name, begin);
    output_read(out, line, sizeof(line));
    close(out);
    if (sscanf(line, "%*s %lf %79[a-z]", &seconds, word) == 2)
        failure = word; /* a kernel that computed wrong says so itself */
    end_print(name, seconds, failure ? failure : "silent");
}

static const char *program_step(const struct plan *plan, const char *name, const char *step, int out, char *verdict)
{
    char path[256], repeats[32];
    char *argv[] = {path, (char *)name, (char *)step, repeats, NULL};

    snprintf(path, sizeof(path), "%s/programs.sh", plan->folder);
    snprintf(repeats, sizeof(repeats), "%.0f", plan->scale < 1 ? 1 : plan->scale);
    return command_run(plan, argv, out, verdict);
}

static void program_case(const struct plan *plan, const char *name)
{
    char verdict[VERDICT_SIZE], line[256], word[VERDICT_SIZE] = "silent";
    int out = output_make(plan);
    const char *failure = program_step(plan, name, "prepare", STDERR_FILENO, verdict);
    double begin = begin_print(name), seconds;

    if (!failure)
        failure = program_step(plan, name, "run", STDERR_FILENO, verdict);
    seconds = ran_print(name, begin);
    if (!failure)
        failure = program_step(plan, name, "check", out, verdict);
    output_read(out, line, sizeof(line));
    close(out);
    sscanf(line, "%79s", word);
    end_print(name, seconds, failure ? failure : word);
}

static int cases_run(struct plan *plan)
{
    char path[256], line[128], name[100];
    FILE *cases;

    snprintf(path, sizeof(path), "%s/cases", plan->folder);
    cases = fopen(path, "re");
    if (!cases) {
        printf("bench: no file %s\n", path);
        return 1;
    }
    while (fgets(line, sizeof(line), cases)) {
        if (sscanf(line, "kernel %99s", name) == 1)
            kernel_case(plan, name);
        else if (sscanf(line, "program %99s", name) == 1)
            program_case(plan, name);
        else if (sscanf(line, "scale %lf", &plan->scale) != 1 && sscanf(line, "timeout %u", &plan->timeout) != 1)
            printf("bench: not understood: %s", line);
    }
    fclose(cases);
    return 0;
}

int main(int argc, char **argv)
{
    struct plan plan = {.folder = argc > 1 ? argv[1] : "/bench", .scale = 1, .timeout = 300};
    struct sigaction action = {.sa_handler = on_alarm}; /* without SA_RESTART: it interrupts waitpid */
    int status;

    sigaction(SIGALRM, &action, NULL);
    status = cases_run(&plan);
    puts("bench: done");
    fflush(stdout);
    if (argc > 2 && !strcmp(argv[2], "poweroff")) {
        sleep(1);
        reboot(RB_POWER_OFF);
    }
    return status;
}
