/* A main for the fuzzers where libFuzzer is not at hand: runs every input of the corpus, and then as many random changes of
 * them as fit some seconds. It knows nothing of coverage; what it is for is that the whole test run, under every compiler
 * and sanitizer, passes the known hostile inputs and some new ones. Usage: fuzz_NAME CORPUS_FOLDER [SECONDS [SEED]]
 *
 * The input under way is in a file of its own all the time: whatever ends the process, that file is the culprit. */
#include "base/types.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

enum { INPUT_MAX = 1 << 16, INPUTS_MAX = 1024, SECONDS_MAX_EACH = 20 };

struct input {
    u8 *data;
    size_t size;
};

static struct input corpus[INPUTS_MAX];
static int corpus_count;
static u8 *now;
static char now_path[64];
static int now_fd;
static u64 state;

static _Noreturn void die(const char *what)
{
    perror(what);
    exit(1);
}

static u32 any(u32 below)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (u32)(((state >> 32) * below) >> 32);
}

static void now_create(const char *program)
{
    const char *name = strrchr(program, '/') ? strrchr(program, '/') + 1 : program;

    snprintf(now_path, sizeof(now_path), "/tmp/%.32s-XXXXXX", name);
    now_fd = mkstemp(now_path);
    if (now_fd < 0 || ftruncate(now_fd, INPUT_MAX))
        die(now_path);
    now = mmap(NULL, INPUT_MAX, PROT_READ | PROT_WRITE, MAP_SHARED, now_fd, 0);
    if (now == MAP_FAILED)
        die(now_path);
}

/* From a block of its own, so that a sanitizer sees reads behind its end. */
static void run(size_t size)
{
    u8 *copy = malloc(size);

    if (ftruncate(now_fd, (off_t)size))
        die(now_path);
    memcpy(copy, now, size);
    alarm(SECONDS_MAX_EACH);
    LLVMFuzzerTestOneInput(copy, size);
    alarm(0);
    free(copy);
    if (ftruncate(now_fd, INPUT_MAX))
        die(now_path);
}

static void input_load(const char *path)
{
    struct input *i = &corpus[corpus_count];
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &st))
        die(path);
    if (S_ISREG(st.st_mode) && st.st_size <= INPUT_MAX && corpus_count < INPUTS_MAX) {
        i->data = malloc((size_t)st.st_size + 1);
        i->size = (size_t)st.st_size;
        if (read(fd, i->data, i->size) != (ssize_t)i->size)
            die(path);
        corpus_count++;
    }
    close(fd);
}

static void corpus_load(const char *folder)
{
    struct dirent *entry;
    char path[512];
    DIR *dir = opendir(folder);

    if (!dir)
        die(folder);
    while ((entry = readdir(dir))) {
        snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        if (entry->d_name[0] != '.')
            input_load(path);
    }
    closedir(dir);
}

static size_t piece_insert(size_t size, const struct input *from)
{
    size_t at = any((u32)size + 1), start = any((u32)from->size + 1), len = any((u32)(from->size - start) + 1);

    len = MIN(len, INPUT_MAX - size);
    memmove(now + at + len, now + at, size - at);
    memcpy(now + at, from->data + start, len);
    return size + len;
}

static size_t piece_remove(size_t size)
{
    size_t at = any((u32)size), len = any((u32)MIN(size - at, 64u) + 1);

    memmove(now + at, now + at + len, size - at - len);
    return size - len;
}

static size_t change(size_t size)
{
    static const u8 odd[] = {0, 1, 2, 3, 4, 7, 8, 0x0f, 0x10, 0x1f, 0x20, 0x3f, 0x40, 0x7f, 0x80, 0xc0, 0xe0, 0xfe, 0xff};

    switch (any(size ? 8 : 1)) {
    case 0: return piece_insert(size, &corpus[any((u32)corpus_count)]);
    case 1: return piece_remove(size);
    case 2:
    case 3: now[any((u32)size)] ^= (u8)(1 << any(8)); break;
    case 4:
    case 5: now[any((u32)size)] = odd[any(sizeof(odd))]; break;
    default: now[any((u32)size)] = (u8)any(256);
    }
    return size;
}

static u64 run_changed(double seconds)
{
    struct timespec start, t;
    u64 count = 0;

    clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        const struct input *i = &corpus[any((u32)corpus_count)];
        size_t size = i->size;

        memcpy(now, i->data, size);
        for (u32 n = any(8) + 1; n; n--)
            size = change(size);
        run(size);
        count++;
        clock_gettime(CLOCK_MONOTONIC, &t);
    } while ((double)(t.tv_sec - start.tv_sec) + (double)(t.tv_nsec - start.tv_nsec) * 1e-9 < seconds);
    return count;
}

int main(int argc, char **argv)
{
    double seconds = argc > 2 ? atof(argv[2]) : 0;

    if (argc < 2)
        return 2;
    state = argc > 3 ? strtoull(argv[3], NULL, 0) : (u64)time(NULL);
    now_create(argv[0]);
    corpus_load(argv[1]);
    if (!corpus_count)
        return 1;
    printf("seed %llu; the input under way is in %s\n", (unsigned long long)state, now_path);
    fflush(stdout);
    for (int i = 0; i < corpus_count; i++) {
        memcpy(now, corpus[i].data, corpus[i].size);
        run(corpus[i].size);
    }
    printf("%d inputs of the corpus", corpus_count);
    printf(", %llu changed ones\n", seconds > 0 ? (unsigned long long)run_changed(seconds) : 0ull);
    unlink(now_path);
    for (int i = 0; i < corpus_count; i++)
        free(corpus[i].data);
    return 0;
}
