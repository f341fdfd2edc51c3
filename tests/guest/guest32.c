/* Library of the 32-bit bare-metal guests: see guest32.h. */
#include "guest32.h"

#define POOL_PAGES 256
#define EFLAGS_VM 0x20000u

void enter_now(void *frame);
void guest_interrupt(struct frame *f, u32 sp, u32 ss);
void guest_start(void);

struct frame caught;
u32 caught_cr2;
u64 idt[256] __attribute__((aligned(16)));
struct tss32 tss __attribute__((aligned(16)));

static void (*handlers[256])(struct frame *f);
static volatile bool catching;
static volatile int caught_vector;
static void *catch_jump[5];
static u8 pool[POOL_PAGES][4096] __attribute__((aligned(4096)));
static int pool_used;
static u8 interrupt_stack[16384] __attribute__((aligned(16)));
static u8 test_stack[2][16384] __attribute__((aligned(16)));

void on_interrupt(int v, void (*fn)(struct frame *f))
{
    handlers[v] = fn;
}

static u32 read_cr2(void)
{
    u32 v;

    asm volatile("mov %%cr2, %0" : "=r"(v));
    return v;
}

static bool from_outside(const struct frame *f)
{
    return f->cs & 3 || f->eflags & EFLAGS_VM;
}

static void frame_keep(const struct frame *f, u32 sp, u32 ss)
{
    caught = *f; /* beyond its end for an inner frame, where there is memory too */
    if (!from_outside(f)) {
        caught.esp = sp + offsetof(struct frame, esp);
        caught.ss = ss;
    }
    caught.cs &= 0xffff;
    caught.ss &= 0xffff;
    caught.ds &= 0xffff;
    caught.es &= 0xffff;
    caught.fs &= 0xffff;
    caught.gs &= 0xffff;
    caught_cr2 = read_cr2();
    caught_vector = (int)f->vector;
}

void guest_interrupt(struct frame *f, u32 sp, u32 ss)
{
    if (handlers[f->vector]) {
        handlers[f->vector](f);
        return;
    }
    if (!catching) {
        print("unexpected vector %u error %x eip %x cs %x eflags %x cr2 %x\n", f->vector, f->error, f->eip, f->cs,
              f->eflags, read_cr2());
        check_failed();
        finish();
    }
    frame_keep(f, sp, ss);
    __builtin_longjmp(catch_jump, 1);
}

int catch_fault(void (*fn)(void *arg), void *arg)
{
    caught_vector = -1;
    catching = true;
    if (!__builtin_setjmp(catch_jump))
        fn(arg);
    catching = false;
    return caught_vector;
}

int enter(const struct frame *f)
{
    /* a fault of the IRET itself is pushed below what is left of the frame, so that needs room of its own */
    static struct {
        u8 room[4096];
        struct frame f;
    } own;

    own.f = *f;
    return catch_fault(enter_now, &own.f);
}

struct frame frame_at(const void *code, int ring)
{
    u32 top = (u32)test_stack[ring != 0] + sizeof(test_stack[0]) - 64, data = ring ? USER_DATA : DATA32;

    return (struct frame){.eip = (u32)code, .cs = ring ? USER_CODE : CODE32, .eflags = 2, .esp = top, .ss = data,
                          .ds = data, .es = data};
}

void copy(void *to, const void *from, u32 bytes)
{
    for (u32 n = 0; n < bytes; n++)
        ((volatile u8 *)to)[n] = ((const u8 *)from)[n];
}

void fill(void *to, u8 val, u32 bytes)
{
    for (u32 n = 0; n < bytes; n++)
        ((volatile u8 *)to)[n] = val;
}

bool same(const void *a, const void *b, u32 bytes)
{
    for (u32 n = 0; n < bytes; n++)
        if (((const volatile u8 *)a)[n] != ((const volatile u8 *)b)[n])
            return false;
    return true;
}

u64 descriptor(u32 base, u32 limit, u8 access, u8 flags)
{
    return (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)access << 40 | (u64)(limit >> 16 & 15) << 48 |
           (u64)flags << 52 | (u64)(base >> 24) << 56;
}

u16 gdt_set(u16 sel, u32 base, u32 limit, u8 access, u8 flags)
{
    gdt[sel / 8] = descriptor(base, limit, access, flags);
    return (u16)((sel & ~7) | (access >> 5 & 3));
}

u64 gate(u16 sel, u32 offset, u8 access, u8 params)
{
    return (offset & 0xffff) | (u32)sel << 16 | (u64)params << 32 | (u64)access << 40 | (u64)(offset >> 16) << 48;
}

void *page_alloc(void)
{
    if (pool_used == POOL_PAGES) {
        print("out of pages\n");
        check_failed();
        finish();
    }
    fill(pool[pool_used], 0, 4096);
    return pool[pool_used++];
}

bool feature(u32 leaf, u32 sub, int reg, int bit)
{
    u32 r[4];

    cpuid(leaf & 0x80000000, 0, r);
    if (r[0] < leaf || (r[0] ^ leaf) >> 31)
        return false;
    cpuid(leaf, sub, r);
    return r[reg] >> bit & 1;
}

static void idt_load(void)
{
    struct {
        u16 limit;
        u32 base;
    } __attribute__((packed)) p = {sizeof(idt) - 1, (u32)idt};

    asm volatile("lidt %0" : : "m"(p));
}

static void tss_load(void)
{
    tss.ss0 = DATA32;
    tss.esp0 = (u32)interrupt_stack + sizeof(interrupt_stack) - 64;
    tss.iomap = offsetof(struct tss32, map);
    fill(tss.map, 0xff, sizeof(tss.map));
    gdt_set(TSS_SEL, (u32)&tss, sizeof(tss) - 1, 0x89, 0);
    asm volatile("ltr %w0" : : "r"(TSS_SEL));
}

void guest_start(void)
{
    for (int v = 0; v < 256; v++)
        idt[v] = gate(CODE32, vector_table[v], v == 3 ? 0xee : 0x8e, 0);
    print_setup();
    idt_load();
    tss_load();
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    guest_main();
    finish();
}
