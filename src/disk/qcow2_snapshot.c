/* Snapshots inside a qcow2 file: read, for `image info` and for counting what they keep; never made or changed here.
 * Their clusters are protected by their refcounts, as those of every other user are. */
#include "disk/byte_order.h"
#include "disk/image_file.h"
#include "disk/qcow2_internal.h"

#include <errno.h>
#include <stdlib.h>

enum { SNAPSHOTS_MAX = 65536, ENTRY_LENGTH = 40 };

struct names {
    char id[65536], name[65536];
};

static int read_name(struct qcow2 *q, char *to, u32 length, u64 offset)
{
    to[length] = 0;
    return file_read(q->image.fd, to, length, offset);
}

static int read_entry(struct qcow2 *q, u64 offset, struct names *n, struct qcow2_snapshot *ret, u64 *ret_length)
{
    u8 p[ENTRY_LENGTH];
    u32 id_length, name_length;
    u64 names;
    int r = file_read(q->image.fd, p, sizeof(p), offset);

    if (r < 0)
        return r;
    id_length = get_be16(p + 12);
    name_length = get_be16(p + 14);
    names = offset + ENTRY_LENGTH + get_be32(p + 36);
    if (names + id_length + name_length > q->file_end)
        return -EIO;
    *ret = (struct qcow2_snapshot){get_be64(p), get_be32(p + 16), get_be32(p + 8), n->id, n->name};
    *ret_length = ALIGN_UP(names + id_length + name_length - offset, 8);
    r = read_name(q, n->id, id_length, names);
    return r < 0 ? r : read_name(q, n->name, name_length, names + id_length);
}

int qcow2_snapshot_each(struct qcow2 *q, int (*fn)(void *ctx, const struct qcow2_snapshot *s), void *ctx,
                        u64 *ret_length)
{
    struct names *n = malloc(sizeof(*n));
    u64 offset = q->h.snapshots_offset, length = 0;
    int r = !n ? -ENOMEM : q->h.nb_snapshots > SNAPSHOTS_MAX ? -EIO : 0;

    for (u32 i = 0; i < q->h.nb_snapshots && !r; i++) {
        struct qcow2_snapshot s;

        r = read_entry(q, offset, n, &s, &length);
        offset += length;
        if (!r)
            r = fn(ctx, &s);
    }
    *ret_length = offset - q->h.snapshots_offset;
    free(n);
    return r;
}

struct lister {
    void (*fn)(void *ctx, const char *id, const char *name, u64 seconds);
    void *ctx;
};

static int list_one(void *ctx, const struct qcow2_snapshot *s)
{
    struct lister *l = ctx;

    l->fn(l->ctx, s->id, s->name, s->seconds);
    return 0;
}

int qcow2_snapshots(struct image *img, void (*fn)(void *ctx, const char *id, const char *name, u64 seconds), void *ctx)
{
    struct lister l = {fn, ctx};
    u64 length;

    return qcow2_snapshot_each(qcow2_of(img), list_one, &l, &length);
}
