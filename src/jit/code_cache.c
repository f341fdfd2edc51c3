/* Memory for host code: see code_cache.h. One memfd, mapped twice; pages come into being as they are first written. */
#include "jit/code_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CODE_ALIGN 16
#define LARGE_PAGE MIB(2)
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

/* Aligned to large pages. */
static u8 *code_cache_map(int fd, u64 size, int prot)
{
    u64 room = ALIGN_UP(size, LARGE_PAGE) + LARGE_PAGE, aligned;
    void *p = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED)
        return NULL;
    aligned = ALIGN_UP((u64)p, LARGE_PAGE);
    if (aligned > (u64)p)
        munmap(p, aligned - (u64)p);
    munmap((u8 *)aligned + size, (u64)p + room - aligned - size);
    p = mmap((void *)aligned, size, prot, MAP_SHARED | MAP_FIXED, fd, 0);
    return p == MAP_FAILED ? NULL : p;
}

static int code_cache_open(struct code_cache *cc, struct err *e)
{
    cc->fd = memfd_create("skerry-code", MFD_CLOEXEC);
    if (cc->fd < 0 || ftruncate(cc->fd, (off_t)cc->size) < 0)
        return err_set(e, -errno, "code cache: cannot make a memfd of %llu KiB: %s", (unsigned long long)cc->size >> 10,
                       strerror(errno));
    cc->write = code_cache_map(cc->fd, cc->size, PROT_READ | PROT_WRITE);
    cc->exec = code_cache_map(cc->fd, cc->size, PROT_READ | PROT_EXEC);
    if (!cc->write || !cc->exec)
        return err_set(e, -errno, "code cache: cannot map memory executable: %s", strerror(errno));
    return 0;
}

int code_cache_create(u64 size, struct code_cache **ret, struct err *e)
{
    struct code_cache *cc = calloc(1, sizeof(*cc));
    int r;

    if (!cc)
        return err_set(e, -ENOMEM, "code cache: out of memory");
    cc->size = ALIGN_UP(size, 4096);
    r = code_cache_open(cc, e);
    if (r) {
        code_cache_free(cc);
        return r;
    }
    syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);
    *ret = cc;
    return 0;
}

void code_cache_free(struct code_cache *cc)
{
    if (!cc)
        return;
    if (cc->write)
        munmap(cc->write, cc->size);
    if (cc->exec)
        munmap(cc->exec, cc->size);
    if (cc->fd >= 0)
        close(cc->fd);
    free(cc);
}

u8 *code_cache_alloc(struct code_cache *cc, u64 len, const u8 **exec)
{
    u64 at = cc->used;

    if (len > cc->size || at > cc->size - len)
        return NULL;
    cc->used = ALIGN_UP(at + len, CODE_ALIGN);
    *exec = cc->exec + at;
    return cc->write + at;
}

void code_cache_written(struct code_cache *cc, u64 from, u64 to)
{
    u64 first = from / LARGE_PAGE * LARGE_PAGE, end = to / LARGE_PAGE * LARGE_PAGE;

    if (likely(first == end))
        return;
    madvise(cc->exec + first, end - first, MADV_COLLAPSE); /* if it fails, they stay small */
    madvise(cc->write + first, end - first, MADV_COLLAPSE);
}

void code_cache_release(struct code_cache *cc, u64 at, u64 len)
{
    fallocate(cc->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)len); /* if it fails, it stays */
}

void code_cache_reset(struct code_cache *cc)
{
    cc->used = 0;
    /* The bytes will be written through another address than they execute at: make every thread of ours serialize
     * before it runs new code at an old address (SDM vol. 3 §8.1.3). Without the call (old kernel, tight jail) x86
     * keeps its instruction caches coherent all the same; only code already prefetched could be stale. */
    syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);
}
