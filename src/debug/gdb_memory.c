/* Memory packets, and breakpoints and watchpoints. gdb may set a point twice, as software and as hardware breakpoint; to the
 * engine they are one. */
#include "debug/gdb_session.h"

#include <errno.h>

static u64 memory_read(struct gdb_session *s, u64 address, void *buf, u64 len)
{
    return s->physical ? debug_read_physical(s->cpus, address, buf, len) : debug_read(gdb_general(s), address, buf, len);
}

static u64 memory_write(struct gdb_session *s, u64 address, const void *buf, u64 len)
{
    return s->physical ? debug_write_physical(s->cpus, address, buf, len) : debug_write(gdb_general(s), address, buf, len);
}

static bool scan_range(struct gdb_scan *p, u64 *address, u64 *len)
{
    return scan_number(p, address) && scan_char(p, ',') && scan_number(p, len);
}

/* What can be read is, up to the first byte that cannot. */
void gdb_memory_read(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r)
{
    u8 bytes[GDB_PACKET_MAX / 2];
    u64 address, len, n;

    if (!scan_range(p, &address, &len)) {
        reply_text(r, GDB_ERROR_ARGUMENT);
        return;
    }
    n = memory_read(s, address, bytes, MIN(len, sizeof(bytes)));
    if (n)
        reply_hex(r, bytes, n);
    else
        reply_text(r, len ? GDB_ERROR_MEMORY : "");
}

void gdb_memory_write(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r)
{
    u8 bytes[GDB_PACKET_MAX / 2];
    u64 address, len;

    if (!scan_range(p, &address, &len) || !scan_char(p, ':') || len > sizeof(bytes) || !scan_bytes(p, bytes, len))
        reply_text(r, GDB_ERROR_ARGUMENT);
    else
        reply_text(r, memory_write(s, address, bytes, len) == len ? "OK" : GDB_ERROR_MEMORY);
}

void gdb_memory_write_binary(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r)
{
    u64 address, len;

    if (!scan_range(p, &address, &len) || !scan_char(p, ':') || len != (u64)(p->end - p->at))
        reply_text(r, GDB_ERROR_ARGUMENT);
    else
        reply_text(r, memory_write(s, address, p->at, len) == len ? "OK" : GDB_ERROR_MEMORY);
}

static u8 point_kind(u8 type)
{
    static const u8 kinds[] = {DEBUG_EXECUTE, DEBUG_EXECUTE, DEBUG_WRITE, DEBUG_READ, DEBUG_READ | DEBUG_WRITE};

    return kinds[type];
}

/* type,address,length; breakpoints have no length to the engine. */
static bool scan_point(struct gdb_scan *p, struct gdb_point *ret)
{
    u64 type;

    if (!scan_number(p, &type) || type > 4 || !scan_char(p, ',') || !scan_range(p, &ret->address, &ret->len))
        return false;
    ret->type = (u8)type;
    if (type <= 1)
        ret->len = 1;
    return true;
}

static int point_find(const struct gdb_session *s, const struct gdb_point *wanted)
{
    for (int n = 0; n < s->point_count; n++)
        if (s->point[n].type == wanted->type && s->point[n].address == wanted->address && s->point[n].len == wanted->len)
            return n;
    return -1;
}

bool gdb_point_hit(const struct gdb_session *s, u8 type, u64 address)
{
    return point_find(s, &(struct gdb_point){type, address, 1}) >= 0;
}

/* As the engine counts them: the same breakpoint of the other type. */
static bool point_shared(const struct gdb_session *s, const struct gdb_point *point)
{
    return point->type <= 1 && gdb_point_hit(s, !point->type, point->address);
}

void gdb_point_add(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r)
{
    struct gdb_point point;
    int e;

    if (!scan_point(p, &point)) {
        reply_text(r, GDB_ERROR_ARGUMENT);
        return;
    }
    if (point_find(s, &point) < 0) {
        e = s->point_count == GDB_POINTS_MAX ? -ENOSPC
                                             : debug_point_add(s->cpus, point_kind(point.type), point.address, point.len);
        if (e) {
            reply_text(r, e == -ENOSPC ? GDB_ERROR_SPACE : GDB_ERROR_ARGUMENT);
            return;
        }
        s->point[s->point_count++] = point;
    }
    reply_text(r, "OK");
}

void gdb_point_remove(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r)
{
    struct gdb_point point;
    int n = scan_point(p, &point) ? point_find(s, &point) : -1;

    if (n < 0) {
        reply_text(r, GDB_ERROR_ARGUMENT);
        return;
    }
    s->point[n] = s->point[--s->point_count];
    if (!point_shared(s, &point))
        debug_point_remove(s->cpus, point_kind(point.type), point.address, point.len);
    reply_text(r, "OK");
}
