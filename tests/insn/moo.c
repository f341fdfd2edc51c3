/* Reader of SingleStepTests' binary files: see moo.h. */
#include "moo.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define FILE_MAX MIB(256)

struct moo {
    u8 *data;
    u32 size, at;
    char processor[5];
    bool broken;
    struct moo_byte before[MOO_RAM_MAX], after[MOO_RAM_MAX];
};

struct chunk {
    char tag[5];
    const u8 *data;
    u32 size;
};

/* What is left of a stretch of bytes. */
struct bytes {
    const u8 *at, *end;
};

static bool take(struct bytes *b, void *to, u32 len)
{
    if ((u64)(b->end - b->at) < len)
        return false;
    memcpy(to, b->at, len);
    b->at += len;
    return true;
}

static bool chunk_take(struct bytes *b, struct chunk *c)
{
    memset(c, 0, sizeof(*c));
    if (!take(b, c->tag, 4) || !take(b, &c->size, 4) || (u64)(b->end - b->at) < c->size)
        return false;
    c->data = b->at;
    b->at += c->size;
    return true;
}

static struct bytes inside(const struct chunk *c)
{
    return (struct bytes){c->data, c->data + c->size};
}

static int unpack(const char *path, struct moo *m, struct err *e)
{
    gzFile f = gzopen(path, "rb");
    u32 room = 0;
    int n;

    if (!f)
        return err_set(e, -errno, "'%s': %s", path, strerror(errno));
    do {
        room += MIB(1);
        m->data = realloc(m->data, room);
        n = m->data ? gzread(f, m->data + m->size, room - m->size) : -1;
        m->size += n > 0 ? (u32)n : 0;
    } while (n > 0 && m->size == room && room < FILE_MAX);
    gzclose(f);
    return n < 0 ? err_set(e, -EIO, "'%s': not readable", path) : 0;
}

int moo_open(const char *path, struct moo **ret, struct err *e)
{
    struct moo *m = calloc(1, sizeof(*m));
    struct bytes all;
    struct chunk header;
    int r;

    if (!m)
        return err_set(e, -ENOMEM, "out of memory");
    r = unpack(path, m, e);
    all = (struct bytes){m->data, m->data + m->size};
    if (!r && (!chunk_take(&all, &header) || memcmp(header.tag, "MOO ", 4) || header.size < 12))
        r = err_set(e, -EINVAL, "'%s': no test vectors in the MOO format", path);
    if (r) {
        moo_close(m);
        return r;
    }
    memcpy(m->processor, header.data + 8, 4);
    m->at = (u32)(all.at - m->data);
    *ret = m;
    return 0;
}

void moo_close(struct moo *m)
{
    free(m->data);
    free(m);
}

const char *moo_processor(const struct moo *m)
{
    return m->processor;
}

bool moo_broken(const struct moo *m)
{
    return m->broken;
}

static bool regs_read(struct bytes b, struct moo_state *s)
{
    u16 present;

    if (!take(&b, &present, 2))
        return false;
    for (int n = 0; n < MOO_REGS; n++)
        if (present >> n & 1 && !take(&b, &s->reg[n], 2))
            return false;
    return true;
}

static bool ram_read(struct bytes b, struct moo_state *s)
{
    u32 count;

    if (!take(&b, &count, 4) || count > MOO_RAM_MAX)
        return false;
    s->ram_count = (int)count;
    for (u32 n = 0; n < count; n++)
        if (!take(&b, &s->ram[n].addr, 4) || !take(&b, &s->ram[n].val, 1))
            return false;
    return true;
}

static bool state_read(struct bytes b, struct moo_state *s)
{
    struct chunk c;

    while (b.at < b.end) {
        if (!chunk_take(&b, &c))
            return false;
        if (!strcmp(c.tag, "REGS") && !regs_read(inside(&c), s))
            return false;
        if (!strcmp(c.tag, "RAM ") && !ram_read(inside(&c), s))
            return false;
    }
    return true;
}

/* A count and that many bytes; what does not fit is cut off. */
static int text_read(struct bytes b, void *to, u32 max)
{
    u32 len;

    if (!take(&b, &len, 4))
        return 0;
    len = MIN(len, max);
    return take(&b, to, len) ? (int)len : 0;
}

static bool part_read(const struct chunk *c, struct moo_test *t)
{
    struct bytes b = inside(c);
    u8 vector;

    if (!strcmp(c->tag, "NAME"))
        text_read(b, t->name, sizeof(t->name) - 1);
    else if (!strcmp(c->tag, "BYTS"))
        t->len = text_read(b, t->bytes, sizeof(t->bytes));
    else if (!strcmp(c->tag, "INIT"))
        return state_read(b, &t->before);
    else if (!strcmp(c->tag, "EXCP"))
        return t->has_exception = take(&b, &vector, 1) && take(&b, &t->flags_at, 4);
    else if (!strcmp(c->tag, "FINA")) {
        memcpy(t->after.reg, t->before.reg, sizeof(t->after.reg));
        return state_read(b, &t->after);
    }
    return true;
}

static bool test_read(struct moo *m, struct bytes b, struct moo_test *t)
{
    struct chunk c;

    memset(t, 0, sizeof(*t));
    t->before.ram = m->before;
    t->after.ram = m->after;
    if (!take(&b, &t->index, 4))
        return false;
    while (b.at < b.end)
        if (!chunk_take(&b, &c) || !part_read(&c, t))
            return false;
    return t->len > 0;
}

bool moo_next(struct moo *m, struct moo_test *t)
{
    struct bytes all = {m->data + m->at, m->data + m->size};
    struct chunk c;

    while (all.at < all.end) {
        if (!chunk_take(&all, &c)) {
            m->broken = true;
            return false;
        }
        m->at = (u32)(all.at - m->data);
        if (strcmp(c.tag, "TEST"))
            continue;
        m->broken = !test_read(m, inside(&c), t);
        return !m->broken;
    }
    return false;
}
