/* Placement of what is loaded: see boot_memory.h. There are few ranges, so everything is a linear search. */
#include "firmware/boot_memory.h"
#include "base/trace.h"

#include <errno.h>
#include <string.h>

enum { E820_RAM = 1 };

static bool overlaps(const struct boot_range *a, u64 start, u64 end)
{
    return start < a->end && a->start < end;
}

static const struct boot_range *overlap_find(const struct boot_memory *b, u64 start, u64 end)
{
    for (int i = 0; i < b->count; i++)
        if (overlaps(&b->used[i], start, end))
            return &b->used[i];
    return NULL;
}

/* Whether [gpa, gpa+size) is inside one range of RAM. */
static bool is_ram(const struct boot_info *info, u64 gpa, u64 size)
{
    for (int i = 0; i < info->e820_count; i++) {
        const struct e820_entry *ram = &info->e820[i];
        u64 at = gpa - ram->addr;

        if (ram->type == E820_RAM && gpa >= ram->addr && at < ram->size && size <= ram->size - at)
            return true;
    }
    return false;
}

static void take(struct boot_memory *b, u64 gpa, u64 size, const char *what)
{
    trace(BOOT, "%s at 0x%llx, 0x%llx bytes", what, (unsigned long long)gpa, (unsigned long long)size);
    b->used[b->count++] = (struct boot_range){gpa, gpa + size, what};
}

static int slot_check(const struct boot_memory *b, struct err *e)
{
    return b->count < BOOT_RANGES_MAX ? 0 : err_set(e, -E2BIG, "has more than %d pieces to load", BOOT_RANGES_MAX);
}

int boot_memory_claim(struct boot_memory *b, u64 gpa, u64 size, const char *what, struct err *e)
{
    const struct boot_range *other;
    int r = slot_check(b, e);

    assert(size);
    if (r)
        return r;
    if (!is_ram(b->info, gpa, size))
        return err_set(e, -E2BIG,
                       "%s at 0x%llx of 0x%llx bytes is not all in the guest's RAM; give the guest more (--memory)",
                       what, (unsigned long long)gpa, (unsigned long long)size);
    other = overlap_find(b, gpa, gpa + size);
    if (other)
        return err_set(e, -EINVAL, "%s at 0x%llx of 0x%llx bytes overlaps %s at 0x%llx", what, (unsigned long long)gpa,
                       (unsigned long long)size, other->what, (unsigned long long)other->start);
    take(b, gpa, size, what);
    return 0;
}

/* The highest room in [min, end): at the end, else right below what is in the way. */
static bool room_high(const struct boot_memory *b, const struct boot_place *p, u64 min, u64 end, u64 *ret_gpa)
{
    while (end > min && end - min >= p->size) {
        u64 gpa = ALIGN_DOWN(end - p->size, p->align);
        const struct boot_range *other;

        if (gpa < min)
            return false;
        other = overlap_find(b, gpa, gpa + p->size);
        if (!other) {
            *ret_gpa = gpa;
            return true;
        }
        end = other->start;
    }
    return false;
}

/* The lowest one: at the start, else right above what is in the way. */
static bool room_low(const struct boot_memory *b, const struct boot_place *p, u64 min, u64 end, u64 *ret_gpa)
{
    while (min < end) {
        u64 gpa = ALIGN_UP(min, p->align);
        const struct boot_range *other;

        if (gpa < min || gpa >= end || p->size > end - gpa)
            return false;
        other = overlap_find(b, gpa, gpa + p->size);
        if (!other) {
            *ret_gpa = gpa;
            return true;
        }
        min = other->end;
    }
    return false;
}

static bool room_find(const struct boot_memory *b, const struct boot_place *p, u64 *ret_gpa)
{
    const struct boot_info *info = b->info;

    for (int i = 0; i < info->e820_count; i++) {
        const struct e820_entry *ram = &info->e820[p->high ? info->e820_count - 1 - i : i];
        u64 min = MAX(ram->addr, p->min), end = MIN(MIN(ram->addr + ram->size, p->end), info->low_ram_end);

        if (ram->type == E820_RAM && (p->high ? room_high : room_low)(b, p, min, end, ret_gpa))
            return true;
    }
    return false;
}

int boot_memory_place(struct boot_memory *b, const struct boot_place *place, const char *what, u64 *ret_gpa,
                      struct err *e)
{
    int r = slot_check(b, e);
    u64 gpa;

    assert(place->size && place->align && !(place->align & (place->align - 1)));
    if (r)
        return r;
    if (!room_find(b, place, &gpa))
        return err_set(e, -E2BIG, "no room for %s of %llu KiB from 0x%llx on; give the guest more memory (--memory)",
                       what, (unsigned long long)(place->size + 1023) >> 10, (unsigned long long)place->min);
    take(b, gpa, place->size, what);
    *ret_gpa = gpa;
    return 0;
}

int boot_memory_put(struct boot_memory *b, const void *data, u64 size, u64 align, const char *what, u64 *ret_gpa,
                    struct err *e)
{
    struct boot_place low = {.size = size, .align = align, .min = BOOT_LOW_MIN, .end = GIB(4)};
    u64 gpa;
    int r = boot_memory_place(b, &low, what, &gpa, e);

    if (!r)
        r = boot_memory_write(b, gpa, data, size, e);
    if (!r)
        *ret_gpa = gpa;
    return r;
}

int boot_memory_write(struct boot_memory *b, u64 gpa, const void *data, u64 len, struct err *e)
{
    if (guest_memory_write(b->mem, gpa, data, len))
        return err_set(e, -EFAULT, "0x%llx bytes at 0x%llx are not RAM, though the memory map says so",
                       (unsigned long long)len, (unsigned long long)gpa);
    return 0;
}

int boot_memory_zero(struct boot_memory *b, u64 gpa, u64 len, struct err *e)
{
    static const u8 zeros[PAGE_SIZE];

    for (u64 n; len; gpa += n, len -= n) {
        int r;

        n = MIN(len, sizeof(zeros));
        r = boot_memory_write(b, gpa, zeros, n, e);
        if (r)
            return r;
    }
    return 0;
}

u64 boot_memory_top(const struct boot_memory *b)
{
    u64 top = 0;

    for (int i = 0; i < b->count; i++)
        top = MAX(top, b->used[i].end);
    return top;
}
