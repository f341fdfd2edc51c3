/* Device memory where memory is meant: page tables, descriptor tables, stacks and code in registers and holes, string and
 * locked instructions across them, base address registers laid over RAM, over each other and over the interrupt controllers.
 * Every access may fault or read nonsense; the machine must survive, and what lies behind must be itself again afterwards. */
#include "guest.h"

#define LAPIC 0xfee00000ul
#define IOAPIC 0xfec00000ul
#define HPET 0xfed00000ul
#define WINDOW 0x40000000000ul
#define TRIES 4000

static u64 seed = 0x2545f4914f6cdd1d;

static u64 random(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

/* Physical pages that are no RAM, or are its edge. */
static const u64 odd_page[] = {0xa0000,     0xbf000,    0xc0000000, 0xc0001000, 0xfebff000, IOAPIC,       HPET,
                               0xfed01000,  LAPIC,      0xfffff000, 0x4000000,  0x9f000,    0xffffff000, 0x100000000};

static u64 odd(void)
{
    return odd_page[random() % (sizeof(odd_page) / sizeof(odd_page[0]))];
}

/* The window: RAM, an odd page, another one, RAM. */
static void window(void)
{
    static u8 *ram[2];

    for (int n = 0; n < 2; n++)
        if (!ram[n])
            ram[n] = page_alloc();
    *pte_of(WINDOW) = (u64)ram[0] | PTE_P | PTE_W;
    *pte_of(WINDOW + 0x1000) = odd() | PTE_P | PTE_W;
    *pte_of(WINDOW + 0x2000) = odd() | PTE_P | PTE_W;
    *pte_of(WINDOW + 0x3000) = (u64)ram[1] | PTE_P | PTE_W;
    for (u64 n = 0; n < 4; n++)
        invlpg(WINDOW + n * 0x1000);
}

static u64 place(void)
{
    return WINDOW + 0x1000 * (1 + random() % 3) - random() % 16 + random() % 16;
}

struct operands {
    u64 a, b, count;
};

static void locked(void *arg)
{
    struct operands *o = arg;

    asm volatile("lock addq $1, (%0)" : : "r"(o->a) : "memory", "cc");
    asm volatile("xchgl %%eax, (%0)" : : "r"(o->b) : "memory", "rax");
    asm volatile("lock cmpxchg8b (%0)" : : "r"(o->a) : "memory", "rax", "rdx", "cc");
    asm volatile("lock btsl %k1, (%0)" : : "r"(o->b), "r"(o->count) : "memory", "cc");
}

static void locked16(void *arg)
{
    struct operands *o = arg;

    asm volatile("lock cmpxchg16b (%0)" : : "r"(o->a & ~15ul) : "memory", "rax", "rdx", "cc");
}

static void strings(void *arg)
{
    struct operands *o = arg;
    u64 a = o->a, b = o->b, n = o->count;

    asm volatile("rep movsb" : "+S"(a), "+D"(b), "+c"(n) : : "memory");
    n = o->count;
    asm volatile("std; rep movsq; cld" : "+S"(a), "+D"(b), "+c"(n) : : "memory");
    n = o->count;
    asm volatile("rep stosl" : "+D"(b), "+c"(n) : "a"(0) : "memory");
}

static void images(void *arg)
{
    struct operands *o = arg;

    asm volatile("fxsave (%0)" : : "r"(o->a & ~15ul) : "memory");
    asm volatile("fxrstor (%0)" : : "r"(o->b & ~15ul) : "memory");
}

static void wild_jump(void *arg)
{
    ((void (*)(void))((struct operands *)arg)->a)();
}

/* Whatever DF is, the ABI wants it clear. */
static void tried(void (*fn)(void *arg))
{
    struct operands o = {place(), place(), random() % 64};

    catch_fault(fn, &o);
    asm volatile("cld; fninit");
}

static void accesses(void)
{
    static void (*const kinds[])(void *arg) = {locked, locked16, strings, images};

    for (int n = 0; n < TRIES; n++) {
        if (n % 8 == 0)
            window();
        tried(kinds[random() % 4]);
    }
    check(true, "locked and string operations on device memory");
}

/* Code from a device: what it reads there is whatever it is, and the fault comes back at the latest at a hole (ones: #UD). */
static void code(void)
{
    struct operands o = {.a = WINDOW + 0x1ff8};
    int got;

    *pte_of(WINDOW + 0x1000) = 0xa0000 | PTE_P | PTE_W;
    *pte_of(WINDOW + 0x2000) = 0xa1000 | PTE_P | PTE_W;
    invlpg(WINDOW + 0x1000);
    invlpg(WINDOW + 0x2000);
    got = catch_fault(wild_jump, &o);
    check(got == 6 && caught.rip == WINDOW + 0x1ff8, "code in a hole: exception %d", got);
}

/* A page table in a hole reads as ones, whose reserved bits are set: #PF 9 or so, never an access elsewhere. */
static void read_at(void *arg)
{
    (void)*(volatile u8 *)arg;
}

static void tables(void)
{
    u64 entry = (WINDOW >> 39 & 511) + 1, gva = WINDOW + (1ul << 39);
    int faults = 0;

    for (u64 n = 0; n < sizeof(odd_page) / sizeof(odd_page[0]); n++) {
        pml4[entry] = odd_page[n] | 7;
        write_cr3(read_cr3());
        for (u64 i = 0; i < 512; i += 37)
            faults += catch_fault(read_at, (void *)(gva + (i << 30))) == 14;
    }
    pml4[entry] = 0;
    write_cr3(read_cr3());
    check(faults > 0, "page tables in devices: %d faults", faults);
}

/* ---- base address registers ---- */

static u32 config_read(u32 slot, u32 reg)
{
    outl(0xcf8, 0x80000000u | slot << 11 | reg);
    return inl(0xcfc);
}

static void config_write(u32 slot, u32 reg, u32 val)
{
    outl(0xcf8, 0x80000000u | slot << 11 | reg);
    outl(0xcfc, val);
}

static void touch(u64 at)
{
    for (u64 n = 0; n < 64; n++) {
        u64 gpa = at + random() % 0x1000 / 4 * 4;

        if (gpa < 0x4000000 || (gpa >= LAPIC && gpa < LAPIC + 0x1000)) {
            (void)*(volatile u32 *)gpa;
            continue;
        }
        *(volatile u32 *)gpa = (u32)random();
        (void)*(volatile u32 *)gpa;
    }
}

static bool virtio(u32 slot)
{
    return (config_read(slot, 0) & 0xffff) == 0x1af4;
}

/* Over RAM the RAM answers, over an APIC page that APIC; devices on top of each other answer somehow. */
static void bars(void)
{
    static const u32 to[] = {0x1000000, 0x200000, LAPIC, IOAPIC, HPET, 0xfffff000, 0xa0000, 0xc0000000, 0xc0002000, 0xfedff000};
    static volatile u32 *const ram = (volatile u32 *)0x1000000;
    u32 version = lapic_read(0x30), bar[32][2], kept = 1;

    *ram = 0x12345678;
    for (u32 slot = 0; slot < 32; slot++)
        for (u32 n = 0; n < 2; n++)
            bar[slot][n] = config_read(slot, 0x10 + n * 4);
    for (int round = 0; round < 400; round++) {
        u32 slot = (u32)random() % 32, where = to[random() % (sizeof(to) / sizeof(to[0]))];

        if (!virtio(slot))
            continue;
        config_write(slot, 0x10 + (u32)random() % 2 * 4, where);
        touch(where);
        kept &= *ram == 0x12345678 && lapic_read(0x30) == version;
    }
    for (u32 slot = 0; slot < 32; slot++)
        for (u32 n = 0; n < 2 && virtio(slot); n++)
            config_write(slot, 0x10 + n * 4, bar[slot][n]);
    check(kept, "base address registers over RAM and the local APIC do not hide them");
    for (u32 slot = 0; slot < 32; slot++)
        if (virtio(slot))
            config_write(slot, 0x14, bar[slot][1]);
}

void guest_main(void)
{
    window();
    accesses();
    code();
    tables();
    lapic_write(0xf0, 0xff);
    bars();
    check(lapic_read(0x20) >> 24 == 0, "still here");
}
