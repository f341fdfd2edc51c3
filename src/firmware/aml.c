/* AML encoding: see aml.h. The length of an object goes before its body and has a variable size, so it is inserted on
 * closing. */
#include "firmware/aml.h"

#include <string.h>

/* opcodes, ACPI 6.4 §20.2 */
enum {
    NAME_OP = 0x08,
    BYTE_PREFIX = 0x0a,
    WORD_PREFIX = 0x0b,
    DWORD_PREFIX = 0x0c,
    STRING_PREFIX = 0x0d,
    QWORD_PREFIX = 0x0e,
    SCOPE_OP = 0x10,
    BUFFER_OP = 0x11,
    PACKAGE_OP = 0x12,
    METHOD_OP = 0x14,
    DUAL_NAME_PREFIX = 0x2e,
    MULTI_NAME_PREFIX = 0x2f,
    EXT_OP_PREFIX = 0x5b,
    DEVICE_OP = 0x82,
};

/* resource descriptors, ACPI 6.4 §6.4.2 and §6.4.3 */
enum {
    IRQ_NO_FLAGS = 0x22,
    IO_PORT = 0x47,
    END_TAG = 0x79,
    MEMORY32_FIXED = 0x86,
    DWORD_ADDRESS_SPACE = 0x87,
    WORD_ADDRESS_SPACE = 0x88,
    EXTENDED_INTERRUPT = 0x89,
    QWORD_ADDRESS_SPACE = 0x8a,
};

enum { RANGE_MEMORY, RANGE_IO, RANGE_BUS };
enum { MIN_FIXED = 0x04, MAX_FIXED = 0x08 }; /* general flags; bit 0 clear: the bridge produces the range */
enum { MEMORY_WRITE = 0x01, MEMORY_CACHED = 0x02 };
enum { IO_ENTIRE_RANGE = 0x03 };
enum { INTERRUPT_CONSUMER = 0x01, INTERRUPT_SHARED = 0x08 }; /* level and active high are zeros */

static void put_segment(struct aml *a, const char *s, size_t len)
{
    char segment[4] = {'_', '_', '_', '_'};

    assert(len >= 1 && len <= sizeof(segment));
    memcpy(segment, s, len);
    bytes_append(a->out, segment, sizeof(segment));
}

static int segment_count(const char *name)
{
    int n = 1;

    for (; *name; name++)
        n += *name == '.';
    return n;
}

static void put_name(struct aml *a, const char *name)
{
    int count;

    while (*name == '\\' || *name == '^')
        bytes_put8(a->out, (u8)*name++);
    count = segment_count(name);
    if (count == 2)
        bytes_put8(a->out, DUAL_NAME_PREFIX);
    if (count > 2) {
        bytes_put8(a->out, MULTI_NAME_PREFIX);
        bytes_put8(a->out, (u8)count);
    }
    while (count--) {
        size_t len = strcspn(name, ".");

        put_segment(a, name, len);
        name += len + 1;
    }
}

static void open_body(struct aml *a)
{
    assert(a->depth < AML_DEPTH_MAX);
    a->open[a->depth++] = a->out->len;
}

/* PkgLength counts itself: one byte for lengths below 64, else 4 bits in the first byte and 8 in each of up to three
 * more. */
static int package_length_encode(size_t body, u8 out[4])
{
    int more = 0;
    size_t len;

    if (body + 1 < 64) {
        out[0] = (u8)(body + 1);
        return 1;
    }
    do {
        more++;
        len = body + 1 + (size_t)more;
    } while (len >> (4 + 8 * more));
    assert(more <= 3);
    out[0] = (u8)(more << 6 | (len & 0xf));
    for (int i = 1; i <= more; i++)
        out[i] = (u8)(len >> (4 + 8 * (i - 1)));
    return more + 1;
}

void aml_close(struct aml *a)
{
    u8 length[4];
    size_t at;

    assert(a->depth);
    at = a->open[--a->depth];
    if (a->out->failed)
        return;
    bytes_insert(a->out, at, length, (size_t)package_length_encode(a->out->len - at, length));
}

void aml_scope_open(struct aml *a, const char *name)
{
    bytes_put8(a->out, SCOPE_OP);
    open_body(a);
    put_name(a, name);
}

void aml_device_open(struct aml *a, const char *name)
{
    bytes_put8(a->out, EXT_OP_PREFIX);
    bytes_put8(a->out, DEVICE_OP);
    open_body(a);
    put_name(a, name);
}

void aml_package_open(struct aml *a, u8 count)
{
    bytes_put8(a->out, PACKAGE_OP);
    open_body(a);
    bytes_put8(a->out, count);
}

void aml_name(struct aml *a, const char *name)
{
    bytes_put8(a->out, NAME_OP);
    put_name(a, name);
}

static size_t integer_encode(u64 v, u8 out[9])
{
    size_t size = v <= UINT8_MAX ? 1 : v <= UINT16_MAX ? 2 : v <= UINT32_MAX ? 4 : 8;

    out[0] = (u8)v;
    if (v <= 1)
        return 1; /* ZeroOp, OneOp */
    out[0] = size == 1 ? BYTE_PREFIX : size == 2 ? WORD_PREFIX : size == 4 ? DWORD_PREFIX : QWORD_PREFIX;
    memcpy(out + 1, &v, size);
    return size + 1;
}

void aml_integer(struct aml *a, u64 v)
{
    u8 code[9];

    bytes_append(a->out, code, integer_encode(v, code));
}

void aml_string(struct aml *a, const char *s)
{
    bytes_put8(a->out, STRING_PREFIX);
    bytes_string(a->out, s);
}

static u32 hex_digit(char c)
{
    return (u32)(c <= '9' ? c - '0' : c - 'A' + 10);
}

/* Three letters of five bits and four hexadecimal digits, most significant byte first. ACPI 6.4 §19.3.4. */
void aml_eisa_id(struct aml *a, const char *id)
{
    u32 v = 0;

    assert(strlen(id) == 7);
    for (int i = 0; i < 3; i++)
        v = v << 5 | (u32)(id[i] - '@');
    for (int i = 3; i < 7; i++)
        v = v << 4 | hex_digit(id[i]);
    bytes_put8(a->out, DWORD_PREFIX);
    bytes_put32(a->out, __builtin_bswap32(v));
}

void aml_reference(struct aml *a, const char *name)
{
    put_name(a, name);
}

void aml_name_integer(struct aml *a, const char *name, u64 v)
{
    aml_name(a, name);
    aml_integer(a, v);
}

void aml_method_empty(struct aml *a, const char *name, int arguments)
{
    bytes_put8(a->out, METHOD_OP);
    open_body(a);
    put_name(a, name);
    bytes_put8(a->out, (u8)arguments);
    aml_close(a);
}

void aml_resources_open(struct aml *a)
{
    bytes_put8(a->out, BUFFER_OP);
    open_body(a);
}

/* A buffer's size goes between its PkgLength and its bytes. */
void aml_resources_close(struct aml *a)
{
    u8 size[9];

    assert(a->depth);
    bytes_put8(a->out, END_TAG);
    bytes_put8(a->out, 0); /* checksum not used */
    if (!a->out->failed)
        bytes_insert(a->out, a->open[a->depth - 1], size, integer_encode(a->out->len - a->open[a->depth - 1], size));
    aml_close(a);
}

void aml_io(struct aml *a, u16 port, u8 len)
{
    bytes_put8(a->out, IO_PORT);
    bytes_put8(a->out, 1); /* 16-bit decode */
    bytes_put16(a->out, port);
    bytes_put16(a->out, port);
    bytes_put8(a->out, 1); /* alignment */
    bytes_put8(a->out, len);
}

void aml_irq(struct aml *a, u8 irq)
{
    assert(irq < 16);
    bytes_put8(a->out, IRQ_NO_FLAGS);
    bytes_put16(a->out, (u16)(1u << irq));
}

void aml_interrupt_level_high(struct aml *a, u32 gsi)
{
    bytes_put8(a->out, EXTENDED_INTERRUPT);
    bytes_put16(a->out, 6);
    bytes_put8(a->out, INTERRUPT_CONSUMER | INTERRUPT_SHARED);
    bytes_put8(a->out, 1); /* one interrupt */
    bytes_put32(a->out, gsi);
}

void aml_memory32_fixed(struct aml *a, u32 base, u32 size)
{
    bytes_put8(a->out, MEMORY32_FIXED);
    bytes_put16(a->out, 9);
    bytes_put8(a->out, MEMORY_WRITE);
    bytes_put32(a->out, base);
    bytes_put32(a->out, size);
}

static void window_head(struct aml *a, u8 descriptor, u16 len, u8 range, u8 type_flags)
{
    bytes_put8(a->out, descriptor);
    bytes_put16(a->out, len);
    bytes_put8(a->out, range);
    bytes_put8(a->out, MIN_FIXED | MAX_FIXED);
    bytes_put8(a->out, type_flags);
}

/* Granularity, minimum, maximum, translation, length, each of `size` bytes. */
static void window_body(struct aml *a, size_t size, u64 first, u64 last)
{
    u64 len = last - first + 1;

    assert(first <= last);
    bytes_append(a->out, NULL, size);
    bytes_append(a->out, &first, size);
    bytes_append(a->out, &last, size);
    bytes_append(a->out, NULL, size);
    bytes_append(a->out, &len, size);
}

void aml_window_bus(struct aml *a, u8 first, u8 last)
{
    window_head(a, WORD_ADDRESS_SPACE, 13, RANGE_BUS, 0);
    window_body(a, 2, first, last);
}

void aml_window_io(struct aml *a, u16 first, u16 last)
{
    window_head(a, WORD_ADDRESS_SPACE, 13, RANGE_IO, IO_ENTIRE_RANGE);
    window_body(a, 2, first, last);
}

void aml_window_memory32(struct aml *a, u32 first, u32 last, bool cacheable)
{
    window_head(a, DWORD_ADDRESS_SPACE, 23, RANGE_MEMORY, MEMORY_WRITE | (cacheable ? MEMORY_CACHED : 0));
    window_body(a, 4, first, last);
}

void aml_window_memory64(struct aml *a, u64 first, u64 last, bool cacheable)
{
    window_head(a, QWORD_ADDRESS_SPACE, 43, RANGE_MEMORY, MEMORY_WRITE | (cacheable ? MEMORY_CACHED : 0));
    window_body(a, 8, first, last);
}
