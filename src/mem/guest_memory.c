/* The guest-physical memory map: see guest_memory.h.
 *
 * The memfd is what migration, snapshots and a second mapping (for translators) share. Lookups search a small sorted
 * array: a PC has about six regions, and vCPUs cache the result in their TLBs. */
#include "mem/guest_memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int backing_map(struct guest_memory *m, struct err *e)
{
    m->fd = memfd_create("guest-ram", MFD_CLOEXEC);
    if (m->fd < 0)
        return err_set(e, -errno, "guest memory: memfd_create: %s", strerror(errno));
    if (ftruncate(m->fd, (off_t)m->backing_size))
        return err_set(e, -errno, "guest memory: cannot reserve %llu MiB: %s", (unsigned long long)m->backing_size >> 20,
                       strerror(errno));
    m->backing = mmap(NULL, m->backing_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, m->fd, 0);
    if (m->backing == MAP_FAILED) {
        m->backing = NULL;
        return err_set(e, -errno, "guest memory: cannot map %llu MiB: %s", (unsigned long long)m->backing_size >> 20,
                       strerror(errno));
    }
    return 0;
}

/* Zeroed on first touch, so that a large guest costs only the pages that it uses. */
static void *lazy_array(u64 bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

int guest_memory_create(u64 backing_size, struct guest_memory **ret, struct err *e)
{
    struct guest_memory *m = calloc(1, sizeof(*m));
    u64 pages = backing_size >> PAGE_SHIFT;
    int r = -ENOMEM;

    assert(backing_size && !(backing_size & ~PAGE_MASK));
    if (!m)
        return err_set(e, -ENOMEM, "guest memory: out of memory");
    m->fd = -1;
    m->backing_size = backing_size;
    pthread_mutex_init(&m->code_lock, NULL);
    m->code_lines = lazy_array(pages * sizeof(u32));
    m->code_version = lazy_array(pages * sizeof(u32));
    if (!m->code_lines || !m->code_version) {
        err_set(e, r, "guest memory: out of memory");
        goto out;
    }
    r = backing_map(m, e);
    if (r)
        goto out;
    *ret = m;
    return 0;
out:
    guest_memory_free(m);
    return r;
}

void guest_memory_free(struct guest_memory *m)
{
    u64 pages;

    if (!m)
        return;
    pages = m->backing_size >> PAGE_SHIFT;
    if (m->backing)
        munmap(m->backing, m->backing_size);
    if (m->code_lines)
        munmap(m->code_lines, pages * sizeof(u32));
    if (m->code_version)
        munmap(m->code_version, pages * sizeof(u32));
    if (m->fd >= 0)
        close(m->fd);
    pthread_mutex_destroy(&m->code_lock);
    free(m);
}

int guest_memory_map(struct guest_memory *m, u64 gpa, u64 size, u64 offset, bool readonly)
{
    int at = 0;

    assert(!((gpa | size | offset) & ~PAGE_MASK) && size);
    assert(offset + size <= m->backing_size);
    if (m->region_count == RAM_REGIONS_MAX)
        return -ENOSPC;
    while (at < m->region_count && m->region[at].gpa < gpa)
        at++;
    if (at > 0 && m->region[at - 1].gpa + m->region[at - 1].size > gpa)
        return -EINVAL;
    if (at < m->region_count && gpa + size > m->region[at].gpa)
        return -EINVAL;
    memmove(&m->region[at + 1], &m->region[at], (size_t)(m->region_count - at) * sizeof(m->region[0]));
    m->region[at] = (struct ram_region){.gpa = gpa, .size = size, .hva = m->backing + offset, .readonly = readonly};
    m->region_count++;
    return 0;
}

void guest_memory_unmap(struct guest_memory *m, u64 gpa)
{
    for (int i = 0; i < m->region_count; i++) {
        if (m->region[i].gpa != gpa)
            continue;
        m->region_count--;
        memmove(&m->region[i], &m->region[i + 1], (size_t)(m->region_count - i) * sizeof(m->region[0]));
        return;
    }
}

const struct ram_region *guest_memory_find(const struct guest_memory *m, u64 gpa)
{
    for (int i = 0; i < m->region_count; i++)
        if (gpa - m->region[i].gpa < m->region[i].size)
            return &m->region[i];
    return NULL;
}

bool guest_memory_writable(const struct guest_memory *m, const u8 *hva)
{
    if (!hva)
        return false;
    for (int i = 0; i < m->region_count; i++)
        if ((u64)(hva - m->region[i].hva) < m->region[i].size)
            return !m->region[i].readonly;
    return false;
}

u8 *guest_memory_ptr(const struct guest_memory *m, u64 gpa, u64 len, bool write)
{
    const struct ram_region *r = guest_memory_find(m, gpa);

    if (!r || !len || len > r->size - (gpa - r->gpa) || (write && r->readonly))
        return NULL;
    return r->hva + (gpa - r->gpa);
}

/* Whether every byte of [gpa, gpa+len) is in some region (and writable, for `write`). */
static bool all_ram(const struct guest_memory *m, u64 gpa, u64 len, bool write)
{
    while (len) {
        const struct ram_region *r = guest_memory_find(m, gpa);
        u64 n;

        if (!r || (write && r->readonly))
            return false;
        n = MIN(len, r->size - (gpa - r->gpa));
        gpa += n;
        len -= n;
    }
    return true;
}

int guest_memory_read(const struct guest_memory *m, u64 gpa, void *buf, u64 len)
{
    if (!all_ram(m, gpa, len, false))
        return -EFAULT;
    for (u8 *out = buf; len;) {
        const struct ram_region *r = guest_memory_find(m, gpa);
        u64 n = MIN(len, r->size - (gpa - r->gpa));

        memcpy(out, r->hva + (gpa - r->gpa), n);
        out += n;
        gpa += n;
        len -= n;
    }
    return 0;
}

int guest_memory_write(struct guest_memory *m, u64 gpa, const void *buf, u64 len)
{
    if (!all_ram(m, gpa, len, true))
        return -EFAULT;
    for (const u8 *in = buf; len;) {
        const struct ram_region *r = guest_memory_find(m, gpa);
        u64 n = MIN(len, r->size - (gpa - r->gpa));

        memcpy(r->hva + (gpa - r->gpa), in, n);
        guest_memory_written(m, r->hva + (gpa - r->gpa), n);
        in += n;
        gpa += n;
        len -= n;
    }
    return 0;
}

/* Bits of the lines that [offset, offset+len) touches, within one page. */
static u32 line_mask(u64 offset, u64 len)
{
    u32 first = (u32)(offset >> CODE_LINE_SHIFT), last = (u32)((offset + len - 1) >> CODE_LINE_SHIFT);

    return (u32)((2ull << last) - (1ull << first));
}

static bool page_written(struct guest_memory *m, u64 page, u64 offset, u64 len)
{
    bool hit;

    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* the write before the look: who marks now reads what was written */
    if (!__atomic_load_n(&m->code_lines[page], __ATOMIC_SEQ_CST))
        return false;
    pthread_mutex_lock(&m->code_lock);
    hit = m->code_lines[page] & line_mask(offset, len);
    if (hit) {
        __atomic_store_n(&m->code_lines[page], 0, __ATOMIC_SEQ_CST);
        __atomic_add_fetch(&m->code_version[page], 1, __ATOMIC_SEQ_CST);
        m->written_pages[m->written_count++ % CODE_WRITTEN_LOG] = page;
    }
    pthread_mutex_unlock(&m->code_lock);
    if (hit && m->code_written)
        m->code_written(m->code_written_ctx);
    return hit;
}

int guest_memory_code_written(struct guest_memory *m, u64 *seen, u64 pages[CODE_WRITTEN_LOG])
{
    int count = 0;

    pthread_mutex_lock(&m->code_lock);
    if (m->written_count - *seen > CODE_WRITTEN_LOG)
        count = -1;
    else
        for (u64 n = *seen; n != m->written_count; n++)
            pages[count++] = m->written_pages[n % CODE_WRITTEN_LOG];
    *seen = m->written_count;
    pthread_mutex_unlock(&m->code_lock);
    return count;
}

bool guest_memory_written(struct guest_memory *m, const u8 *hva, u64 len)
{
    u64 at = (u64)(hva - m->backing), end = at + len;
    bool hit = false;

    while (at < end) {
        u64 n = MIN(end - at, PAGE_SIZE - (at & ~PAGE_MASK));

        hit |= page_written(m, at >> PAGE_SHIFT, at & ~PAGE_MASK, n);
        at += n;
    }
    return hit;
}

/* `anew`: even if no line of the page is marked. Whether it was done. */
static bool lines_mark(struct guest_memory *m, const u8 *hva, u64 len, u32 *version, bool anew)
{
    u64 page = backing_page(m, hva);
    bool done;

    pthread_mutex_lock(&m->code_lock);
    done = anew || m->code_lines[page];
    if (done)
        __atomic_or_fetch(&m->code_lines[page], line_mask((u64)(hva - m->backing) & ~PAGE_MASK, len), __ATOMIC_SEQ_CST);
    *version = m->code_version[page];
    pthread_mutex_unlock(&m->code_lock);
    return done;
}

void code_lines_mark(struct guest_memory *m, const u8 *hva, u64 len, u32 *version)
{
    lines_mark(m, hva, len, version, true);
}

bool code_lines_mark_more(struct guest_memory *m, const u8 *hva, u64 len, u32 *version)
{
    return lines_mark(m, hva, len, version, false);
}
