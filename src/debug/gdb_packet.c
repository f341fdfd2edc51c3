/* Framing of gdb's remote protocol: see gdb_packet.h. */
#include "debug/gdb_packet.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { BETWEEN, INSIDE, ESCAPED, SUM_HIGH, SUM_LOW };

static int hex_digit(int c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void data_put(struct gdb_parser *p, u8 byte)
{
    if (p->len < GDB_PACKET_MAX)
        p->data[p->len++] = (char)byte;
    else
        p->bad = true;
}

static enum gdb_event between(struct gdb_parser *p, u8 byte)
{
    switch (byte) {
    case '$':
        p->state = INSIDE;
        p->sum = 0;
        p->len = 0;
        p->bad = false;
        return GDB_NOTHING;
    case '+': return GDB_ACK;
    case '-': return GDB_NACK;
    case 3: return GDB_INTERRUPT;
    default: return GDB_NOTHING;
    }
}

static void inside(struct gdb_parser *p, u8 byte)
{
    if (byte == '#') {
        p->state = SUM_HIGH;
        return;
    }
    p->sum += byte;
    if (byte == '}')
        p->state = ESCAPED;
    else
        data_put(p, byte);
}

/* A digit of the checksum. */
static void sum_put(struct gdb_parser *p, u8 byte)
{
    int digit = hex_digit(byte);

    p->bad |= digit < 0;
    p->given = (u8)(p->given << 4 | (digit & 15));
}

static enum gdb_event packet_end(struct gdb_parser *p)
{
    p->state = BETWEEN;
    p->data[p->len] = 0;
    return p->bad || p->given != p->sum ? GDB_BAD : GDB_PACKET;
}

enum gdb_event gdb_parse(struct gdb_parser *p, u8 byte)
{
    switch (p->state) {
    case BETWEEN:
        return between(p, byte);
    case INSIDE:
        inside(p, byte);
        return GDB_NOTHING;
    case ESCAPED:
        p->sum += byte;
        data_put(p, byte ^ 0x20);
        p->state = INSIDE;
        return GDB_NOTHING;
    case SUM_HIGH:
        sum_put(p, byte);
        p->state = SUM_LOW;
        return GDB_NOTHING;
    default:
        sum_put(p, byte);
        return packet_end(p);
    }
}

static void reply_put(struct gdb_reply *r, char c)
{
    if (r->len < sizeof(r->text))
        r->text[r->len++] = c;
    else
        r->full = true;
}

void reply_text(struct gdb_reply *r, const char *fmt, ...)
{
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    for (const char *p = text; *p; p++)
        reply_put(r, *p);
}

void reply_hex(struct gdb_reply *r, const void *bytes, size_t len)
{
    const u8 *p = bytes;

    for (size_t n = 0; n < len; n++) {
        reply_put(r, "0123456789abcdef"[p[n] >> 4]);
        reply_put(r, "0123456789abcdef"[p[n] & 15]);
    }
}

void reply_binary(struct gdb_reply *r, const char *bytes, size_t len)
{
    for (size_t n = 0; n < len; n++) {
        if (!strchr("#$}*", bytes[n]) && bytes[n]) {
            reply_put(r, bytes[n]);
            continue;
        }
        reply_put(r, '}');
        reply_put(r, (char)(bytes[n] ^ 0x20));
    }
}

size_t gdb_frame(const struct gdb_reply *r, char out[GDB_FRAME_MAX])
{
    u8 sum = 0;

    out[0] = '$';
    memcpy(out + 1, r->text, r->len);
    for (size_t n = 0; n < r->len; n++)
        sum += (u8)r->text[n];
    out[r->len + 1] = '#';
    out[r->len + 2] = "0123456789abcdef"[sum >> 4];
    out[r->len + 3] = "0123456789abcdef"[sum & 15];
    return r->len + 4;
}

bool scan_char(struct gdb_scan *s, char c)
{
    if (s->at == s->end || *s->at != c)
        return false;
    s->at++;
    return true;
}

bool scan_word(struct gdb_scan *s, const char *word)
{
    size_t len = strlen(word);

    if ((size_t)(s->end - s->at) < len || memcmp(s->at, word, len))
        return false;
    s->at += len;
    return true;
}

bool scan_number(struct gdb_scan *s, u64 *ret)
{
    u64 val = 0;
    int digits = 0;

    for (; s->at < s->end && hex_digit(*s->at) >= 0 && digits <= 16; digits++)
        val = val << 4 | (u64)hex_digit(*s->at++);
    if (!digits || digits > 16)
        return false;
    *ret = val;
    return true;
}

bool scan_bytes(struct gdb_scan *s, u8 *out, size_t len)
{
    if ((size_t)(s->end - s->at) / 2 < len)
        return false;
    for (size_t n = 0; n < len; n++, s->at += 2) {
        int high = hex_digit(s->at[0]), low = hex_digit(s->at[1]);

        if (high < 0 || low < 0)
            return false;
        out[n] = (u8)(high << 4 | low);
    }
    return true;
}
