/* Framing of gdb's protocol: packets whole, broken, escaped, too long. */
#include "debug/gdb_packet.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static struct gdb_parser parser;

/* Feeds all bytes; the last event that was something. */
static enum gdb_event feed(const char *text)
{
    enum gdb_event last = GDB_NOTHING;

    for (; *text; text++) {
        enum gdb_event e = gdb_parse(&parser, (u8)*text);

        if (e != GDB_NOTHING)
            last = e;
    }
    return last;
}

static void packets_are_framed(void **unused)
{
    assert_int_equal(feed("$g#67"), GDB_PACKET);
    assert_int_equal(parser.len, 1);
    assert_string_equal(parser.data, "g");
    assert_int_equal(feed("noise$#00"), GDB_PACKET);
    assert_int_equal(parser.len, 0);
    assert_int_equal(feed("$g#68"), GDB_BAD);
    assert_int_equal(feed("$g#6x"), GDB_BAD);
    assert_int_equal(feed("$g#67"), GDB_PACKET);
    assert_int_equal(feed("+"), GDB_ACK);
    assert_int_equal(feed("-"), GDB_NACK);
    assert_int_equal(feed("\003"), GDB_INTERRUPT);
}

static void escapes_are_undone(void **unused)
{
    assert_int_equal(feed("$a}\003b}]#1d"), GDB_PACKET); /* 'a' '}' 3 'b' '}' ']' */
    assert_int_equal(parser.len, 4);
    assert_memory_equal(parser.data, "a#b}", 4);
}

static void packets_have_an_end(void **unused)
{
    gdb_parse(&parser, '$');
    for (int n = 0; n < GDB_PACKET_MAX; n++)
        assert_int_equal(gdb_parse(&parser, 'a'), GDB_NOTHING);
    assert_int_equal(feed("#00"), GDB_PACKET); /* 0x61 * 0x4000 ends in 00 */
    assert_int_equal(parser.len, GDB_PACKET_MAX);
    gdb_parse(&parser, '$');
    for (int n = 0; n < 2 * GDB_PACKET_MAX; n++)
        assert_int_equal(gdb_parse(&parser, 'a'), GDB_NOTHING);
    assert_int_equal(feed("#00"), GDB_BAD);
    assert_int_equal(feed("$g#67"), GDB_PACKET);
}

static void replies_are_framed(void **unused)
{
    static char out[GDB_FRAME_MAX];
    static struct gdb_reply r;
    size_t len;

    reply_text(&r, "m%x", 10);
    reply_hex(&r, "\x01\xfe", 2);
    reply_binary(&r, "a#*", 3);
    len = gdb_frame(&r, out);
    assert_memory_equal(out, "$ma01fea}\003}\n#", 13);
    assert_int_equal(gdb_parse(&parser, '$'), GDB_NOTHING);
    for (size_t n = 1; n < len - 1; n++)
        assert_int_equal(gdb_parse(&parser, (u8)out[n]), GDB_NOTHING);
    assert_int_equal(gdb_parse(&parser, (u8)out[len - 1]), GDB_PACKET);
    assert_string_equal(parser.data, "ma01fea#*");
    for (int n = 0; n < GDB_PACKET_MAX; n++)
        reply_hex(&r, "x", 1);
    assert_true(r.full);
    assert_int_equal(r.len, GDB_PACKET_MAX);
}

static void numbers(void **unused)
{
    static const char text[] = "fFff,;0123456789abcdef01234567";
    struct gdb_scan s = {text, text + sizeof(text) - 1};
    u64 n;

    assert_true(scan_number(&s, &n));
    assert_int_equal(n, 0xffff);
    assert_false(scan_number(&s, &n));
    assert_true(scan_char(&s, ','));
    assert_false(scan_word(&s, ",;"));
    assert_true(scan_char(&s, ';'));
    assert_false(scan_number(&s, &n)); /* more than 64 bits */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packets_are_framed), cmocka_unit_test(escapes_are_undone), cmocka_unit_test(packets_have_an_end),
        cmocka_unit_test(replies_are_framed), cmocka_unit_test(numbers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
