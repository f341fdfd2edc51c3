/* The board's chips as its guests reach them. */
#ifndef CHIPS_H
#define CHIPS_H
#include "guest.h"

#define IOAPIC 0xfec00000ul
#define HPET 0xfed00000ul

static inline u32 pci_read(int dev, int fn, int reg)
{
    outl(0xcf8, 0x80000000u | (u32)dev << 11 | (u32)fn << 8 | (u32)reg);
    return inl(0xcfc);
}

/* The PIIX4's power management block. */
static inline u16 pm_base(void)
{
    static u16 base;

    if (!base)
        base = (u16)(pci_read(1, 3, 0x40) & 0xffc0);
    return base;
}

/* 24 bits, 3.579545 MHz. */
static inline u32 pm_timer(void)
{
    return inl((u16)(pm_base() + 8)) & 0xffffff;
}

static inline u32 pm_since(u32 start)
{
    return (pm_timer() - start) & 0xffffff;
}

static inline void pm_wait(u32 ticks)
{
    u32 start = pm_timer();

    while (pm_since(start) < ticks)
        ;
}
#define PM_MS(n) ((n) * 3580u)

static inline u32 ioapic_read(u32 reg)
{
    *(volatile u32 *)IOAPIC = reg;
    return *(volatile u32 *)(IOAPIC + 16);
}

static inline void ioapic_write(u32 reg, u32 v)
{
    *(volatile u32 *)IOAPIC = reg;
    *(volatile u32 *)(IOAPIC + 16) = v;
}

/* A redirection entry; the upper half goes first. */
static inline void route(u32 pin, u32 low, u32 dest)
{
    ioapic_write(0x11 + pin * 2, dest << 24);
    ioapic_write(0x10 + pin * 2, low);
}

/* Checks that a busy host upsets, as it may stop this program for longer than a counter takes to go round: `fn` has
 * its checks in hold() and runs until all of them hold; only the last of its attempts is printed check by check. */
#define ATTEMPTS 20
extern bool attempt_failed, attempt_last;
#define hold(ok, ...)                                                                                                  \
    do {                                                                                                               \
        bool held_now = (ok);                                                                                          \
                                                                                                                       \
        attempt_failed |= !held_now;                                                                                   \
        if (attempt_last)                                                                                              \
            check_line(held_now, __VA_ARGS__);                                                                         \
    } while (0)
#define ATTEMPT(fn)                                                                                                    \
    do {                                                                                                               \
        int attempt = 0;                                                                                               \
                                                                                                                       \
        do {                                                                                                           \
            attempt_failed = false;                                                                                    \
            attempt_last = ++attempt == ATTEMPTS;                                                                      \
            fn();                                                                                                      \
        } while (attempt_failed && !attempt_last);                                                                     \
        attempt_last = false;                                                                                          \
        if (!attempt_failed)                                                                                           \
            check(true, #fn " holds");                                                                                 \
    } while (0)

static inline void window(void)
{
    asm volatile("sti; nop; nop; nop; nop; cli" : : : "memory");
}

#endif
