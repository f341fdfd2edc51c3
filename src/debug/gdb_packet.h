/* Packets of gdb's remote protocol (gdb manual, appendix "Remote Protocol"): framing, checksums, escapes, hexadecimal.
 * What comes in is read as hostile. */
#ifndef DEBUG_GDB_PACKET_H
#define DEBUG_GDB_PACKET_H
#include "base/types.h"

#define GDB_PACKET_MAX 0x4000 /* bytes of a packet between $ and #, both ways */

enum gdb_event {
    GDB_NOTHING,   /* more bytes, please */
    GDB_PACKET,    /* a packet is in `data`, unescaped */
    GDB_BAD,       /* a packet came with a wrong checksum, or was too long */
    GDB_ACK, GDB_NACK,
    GDB_INTERRUPT, /* the byte 3 between packets */
};

struct gdb_parser { /* starts zeroed */
    u8 state, sum, given;
    bool bad;
    size_t len;
    char data[GDB_PACKET_MAX + 1]; /* NUL-terminated once it is whole */
};

/* Takes one byte in. After GDB_PACKET data[0..len) holds until the next call. */
enum gdb_event gdb_parse(struct gdb_parser *p, u8 byte);

/* A reply that grows; what does not fit is left out and noted. Starts zeroed. */
struct gdb_reply {
    size_t len;
    bool full;
    char text[GDB_PACKET_MAX];
};

void reply_text(struct gdb_reply *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void reply_hex(struct gdb_reply *r, const void *bytes, size_t len);
void reply_binary(struct gdb_reply *r, const char *bytes, size_t len); /* escaped */

#define GDB_FRAME_MAX (GDB_PACKET_MAX + 4)

/* $reply#checksum; returns its length. */
size_t gdb_frame(const struct gdb_reply *r, char out[GDB_FRAME_MAX]);

/* Cursor over a packet. The functions say whether what they wanted was there, and move behind it. */
struct gdb_scan {
    const char *at, *end;
};

bool scan_char(struct gdb_scan *s, char c);
bool scan_word(struct gdb_scan *s, const char *word);
bool scan_number(struct gdb_scan *s, u64 *ret);           /* hexadecimal, at most 16 digits */
bool scan_bytes(struct gdb_scan *s, u8 *out, size_t len); /* `len` bytes of two digits each */

#endif
