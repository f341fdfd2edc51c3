/* Cursors over scatter lists: see iov.h. */
#include "disk/iov.h"

#include <string.h>

struct iov_cursor iov_cursor_of(struct iovec *iov, void *buf, size_t length)
{
    *iov = (struct iovec){buf, length};
    return (struct iov_cursor){iov, 1, 0};
}

/* The next piece of at most `max` bytes; empty elements are passed over. Length 0 at the end of the list. */
static struct iovec take_one(struct iov_cursor *c, u64 max)
{
    struct iovec piece = {NULL, 0};

    while (c->count > 0 && c->skip == c->iov->iov_len) {
        c->iov++;
        c->count--;
        c->skip = 0;
    }
    if (c->count > 0) {
        piece.iov_base = (char *)c->iov->iov_base + c->skip;
        piece.iov_len = MIN(max, c->iov->iov_len - c->skip);
        c->skip += piece.iov_len;
    }
    return piece;
}

size_t iov_take(struct iov_cursor *c, u64 max, struct iovec *out, int out_max, int *ret_count)
{
    size_t taken = 0;
    int n = 0;

    while (n < out_max && taken < max) {
        struct iovec piece = take_one(c, max - taken);

        if (!piece.iov_len)
            break;
        out[n++] = piece;
        taken += piece.iov_len;
    }
    *ret_count = n;
    return taken;
}

void iov_fill_zero(struct iov_cursor *c, u64 length)
{
    while (length) {
        struct iovec piece = take_one(c, length);

        assert(piece.iov_len);
        memset(piece.iov_base, 0, piece.iov_len);
        length -= piece.iov_len;
    }
}

void iov_fill(struct iov_cursor *c, const void *from, size_t length)
{
    const char *p = from;

    while (length) {
        struct iovec piece = take_one(c, length);

        assert(piece.iov_len);
        memcpy(piece.iov_base, p, piece.iov_len);
        p += piece.iov_len;
        length -= piece.iov_len;
    }
}

void iov_drain(struct iov_cursor *c, void *to, size_t length)
{
    char *p = to;

    while (length) {
        struct iovec piece = take_one(c, length);

        assert(piece.iov_len);
        memcpy(p, piece.iov_base, piece.iov_len);
        p += piece.iov_len;
        length -= piece.iov_len;
    }
}

u64 iov_total(const struct iovec *iov, int count)
{
    u64 total = 0;

    for (int i = 0; i < count; i++)
        total += iov[i].iov_len;
    return total;
}
