/* The guest-physical memory map: which addresses are RAM or ROM, and where that RAM is in this process.
 *
 * All RAM and ROM of a machine is one memfd, mapped once ("the backing"); regions show parts of the backing at
 * guest-physical addresses. Addresses outside every region are memory-mapped I/O, which the machine's buses handle.
 *
 * Regions change only while no vCPU runs guest code (at start, or with the world stopped). Reads and writes of RAM by
 * devices and vCPUs are not serialised: the guest orders them, as on hardware.
 *
 * Code tracking: a vCPU that has decoded instructions keeps their 128-byte lines marked; every write to RAM must either
 * be made through a path that knows the page holds no code, or be reported with guest_memory_written(). */
#ifndef MEM_GUEST_MEMORY_H
#define MEM_GUEST_MEMORY_H
#include "base/err.h"
#include "base/types.h"
#include <pthread.h>

#define PAGE_SIZE 4096ull
#define PAGE_MASK (~(PAGE_SIZE - 1))
#define PAGE_SHIFT 12
#define CODE_LINE_SHIFT 7 /* 32 lines of 128 bytes a page, one bit each */
#define RAM_REGIONS_MAX 32
#define CODE_WRITTEN_LOG 64

struct ram_region {
    u64 gpa, size; /* page-aligned */
    u8 *hva;
    bool readonly; /* ROM: guest writes are dropped */
};

struct guest_memory {
    u8 *backing;
    u64 backing_size;
    int fd;
    int region_count;
    struct ram_region region[RAM_REGIONS_MAX]; /* sorted by gpa, never overlapping */
    pthread_mutex_t code_lock; /* orders marking of code lines against their invalidation */
    u32 *code_lines;   /* per backing page: bit n set: line n holds decoded code of some vCPU */
    u32 *code_version; /* per backing page: raised when a write hit a marked line; blocks remember it */
    u64 written_pages[CODE_WRITTEN_LOG]; /* pages whose version was raised, the last of them; … */
    u64 written_count;                   /* … and how many ever: under code_lock */
    void (*code_written)(void *ctx); /* called when one was hit, in the writer's thread; NULL: nobody wants to know */
    void *code_written_ctx;
};

/* Reserves `backing_size` bytes (page-aligned) of zeroed, lazily allocated memory. */
int guest_memory_create(u64 backing_size, struct guest_memory **ret, struct err *e);
void guest_memory_free(struct guest_memory *m);

/* Shows backing[offset, offset+size) at gpa. All three page-aligned; -EINVAL on overlap with another region. */
int guest_memory_map(struct guest_memory *m, u64 gpa, u64 size, u64 offset, bool readonly);
void guest_memory_unmap(struct guest_memory *m, u64 gpa);

/* The region that contains gpa, or NULL (I/O or nothing). */
const struct ram_region *guest_memory_find(const struct guest_memory *m, u64 gpa);

/* Where [gpa, gpa+len) is in this process, or NULL unless all of it is one stretch of RAM (or ROM, for `write` false).
 * Whoever writes through the pointer reports it with guest_memory_written. len 0 gives NULL. */
u8 *guest_memory_ptr(const struct guest_memory *m, u64 gpa, u64 len, bool write);

/* Copies; all or nothing. -EFAULT when any byte is not RAM (writes to ROM also). */
int guest_memory_read(const struct guest_memory *m, u64 gpa, void *buf, u64 len);
int guest_memory_write(struct guest_memory *m, u64 gpa, const void *buf, u64 len);

static inline u64 backing_page(const struct guest_memory *m, const u8 *hva)
{
    return (u64)(hva - m->backing) >> PAGE_SHIFT;
}

/* Whether the page of RAM at hva (inside the backing) holds decoded code of some vCPU. */
static inline bool code_lines_any(const struct guest_memory *m, const u8 *hva)
{
    return __atomic_load_n(&m->code_lines[backing_page(m, hva)], __ATOMIC_SEQ_CST);
}

/* Whether hva (inside the backing, or NULL: no) is shown to the guest as RAM rather than ROM. */
bool guest_memory_writable(const struct guest_memory *m, const u8 *hva);

/* To be called after bytes at hva (inside the backing) were written by anything but a checked vCPU store: raises the
 * version of each page where a marked code line was hit. True if any was. */
bool guest_memory_written(struct guest_memory *m, const u8 *hva, u64 len);

/* The pages (numbers in the backing) whose decoded code was overwritten since *seen, which is moved on. Their number; -1: more
 * than the log holds. */
int guest_memory_code_written(struct guest_memory *m, u64 *seen, u64 pages[CODE_WRITTEN_LOG]);

/* Marks the lines of [hva, hva+len), within one page, as holding decoded code, and returns the page's version in *version.
 * While a page has marked lines no vCPU may have a fast write path to it: the caller takes them away before any vCPU runs on. */
void code_lines_mark(struct guest_memory *m, const u8 *hva, u64 len, u32 *version);

/* The same if the page has marked lines already, and so no fast write path leads to it; else false, and nothing is marked. */
bool code_lines_mark_more(struct guest_memory *m, const u8 *hva, u64 len, u32 *version);

#endif
