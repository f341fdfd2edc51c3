/* Printing and counting checks, for 32-bit and 64-bit guests alike: see print.h. */
#include "print.h"

#include <stdarg.h>

#define COM1 0x3f8
#define DEBUG_EXIT 0xf4

static int checks, failed;

static void port_write(uint16_t port, uint8_t v)
{
    asm volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}

static void put(char ch)
{
    uint8_t status;

    do
        asm volatile("inb %1, %0" : "=a"(status) : "Nd"((uint16_t)(COM1 + 5)));
    while (!(status & 0x20));
    port_write(COM1, (uint8_t)ch);
}

/* One bit at a time: 32-bit code has no 64-bit division without a library. */
static uint32_t divide(uint64_t *v, uint32_t base)
{
    uint64_t quotient = 0;
    uint32_t rest = 0;

    for (int n = 63; n >= 0; n--) {
        rest = rest << 1 | (*v >> n & 1);
        if (rest >= base) {
            rest -= base;
            quotient |= 1ull << n;
        }
    }
    *v = quotient;
    return rest;
}

static void put_number(uint64_t v, uint32_t base)
{
    char buf[24];
    int n = 0;

    do
        buf[n++] = "0123456789abcdef"[base == 16 ? v & 15 : divide(&v, base)];
    while (base == 16 ? (v >>= 4) : v);
    while (n)
        put(buf[--n]);
}

static void put_signed(int v)
{
    if (v < 0)
        put('-');
    put_number(v < 0 ? -(uint64_t)v : (uint64_t)v, 10);
}

static void print_one(const char **fmt, va_list *ap)
{
    bool wide = **fmt == 'l';

    *fmt += wide;
    switch (*(*fmt)++) {
    case 's':
        for (const char *s = va_arg(*ap, const char *); *s; s++)
            put(*s);
        break;
    case 'd': put_signed(va_arg(*ap, int)); break;
    case 'u': put_number(wide ? va_arg(*ap, unsigned long) : va_arg(*ap, uint32_t), 10); break;
    default: put_number(wide ? va_arg(*ap, unsigned long) : va_arg(*ap, uint32_t), 16); break;
    }
}

static void vprint(const char *fmt, va_list *ap)
{
    while (*fmt) {
        if (*fmt == '%') {
            fmt++;
            print_one(&fmt, ap);
        } else {
            put(*fmt++);
        }
    }
}

void print(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vprint(fmt, &ap);
    va_end(ap);
}

void check_line(bool ok, const char *fmt, ...)
{
    va_list ap;

    checks++;
    failed += !ok;
    print(ok ? "ok   " : "FAIL ");
    va_start(ap, fmt);
    vprint(fmt, &ap);
    va_end(ap);
    print("\n");
}

void print_setup(void)
{
    port_write(COM1 + 3, 3); /* 8 bits, no parity */
}

void check_failed(void)
{
    failed++;
}

bool all_held(void)
{
    print("%d checks, %d failed\n", checks, failed);
    return checks && !failed;
}

_Noreturn void finish(void)
{
    bool ok = all_held();

    for (;;)
        port_write(DEBUG_EXIT, !ok);
}
