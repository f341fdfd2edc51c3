/* Library of the bare-metal guests: see guest.h. */
#include "guest.h"

#define LAPIC_BASE 0xfee00000ul
#define POOL_PAGES 1024

extern u8 ap_trampoline[], ap_trampoline_end[];
extern u64 ap_stack;
extern u32 start_info;
void enter_now(void *frame);

struct frame caught;
u64 caught_cr2;
struct tss64 tss __attribute__((aligned(16)));

static struct {
    u16 offset_low, sel;
    u8 ist, type;
    u16 offset_mid;
    u32 offset_high, zero;
} idt[256] __attribute__((aligned(16)));

static void (*handlers[256])(struct frame *f);
static volatile bool catching;
static volatile int caught_vector;
static void *catch_jump[5];
static u8 pool[POOL_PAGES][4096] __attribute__((aligned(4096)));
static int pool_used;
static u8 interrupt_stack[16384] __attribute__((aligned(16)));
static u8 user_stack[16384] __attribute__((aligned(16)));

void idt_set(int v, void *handler, int type_attr, int ist)
{
    u64 a = (u64)handler;

    idt[v].offset_low = (u16)a;
    idt[v].sel = 8;
    idt[v].ist = (u8)ist;
    idt[v].type = (u8)type_attr;
    idt[v].offset_mid = (u16)(a >> 16);
    idt[v].offset_high = (u32)(a >> 32);
}

void on_interrupt(int v, void (*fn)(struct frame *f))
{
    handlers[v] = fn;
}

static u64 read_cr2(void)
{
    u64 v;

    asm volatile("mov %%cr2, %0" : "=r"(v));
    return v;
}

static void catch_return(void)
{
    __builtin_longjmp(catch_jump, 1);
}

void guest_interrupt(struct frame *f);
void guest_interrupt(struct frame *f)
{
    if (handlers[f->vector]) {
        handlers[f->vector](f);
        return;
    }
    if (!catching) {
        print("unexpected vector %lu error %lx rip %lx cs %lx cr2 %lx rsp %lx\n", f->vector, f->error, f->rip, f->cs,
              read_cr2(), f->rsp);
        check_failed();
        finish();
    }
    caught = *f;
    caught_cr2 = read_cr2();
    caught_vector = (int)f->vector;
    /* back to ring 0, on the stack of catch_fault */
    f->cs = 8;
    f->ss = 0x10;
    f->rip = (u64)catch_return;
    f->rsp = ((u64)interrupt_stack + 8192) | 8;
    f->rflags &= ~0x54700ul; /* TF, IF, DF, NT, RF, AC */
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
    } own __attribute__((aligned(16)));

    own.f = *f;
    return catch_fault(enter_now, &own.f);
}

struct frame frame_at(const void *code, int ring)
{
    static u8 stacks[2][8192] __attribute__((aligned(4096)));

    return (struct frame){.rip = (u64)code, .cs = ring ? 0x23 : 8, .rflags = 2, .ss = ring ? 0x2b : 0x10,
                          .rsp = (u64)stacks[ring != 0] + sizeof(stacks[0]) - 128};
}

void user_text_allow(bool yes)
{
    for (u64 va = 0x200000; va < 0xa00000; va += 4096)
        *pte_of(va) = yes ? *pte_of(va) | PTE_U : *pte_of(va) & ~(u64)PTE_U;
    write_cr3(read_cr3());
}

bool command_line_is(const char *text)
{
    const char *line = (const char *)*(u64 *)(u64)(start_info + 24); /* hvm_start_info.cmdline_paddr */

    while (*text && *line == *text)
        line++, text++;
    return *line == *text;
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

static void user_done(struct frame *f)
{
    f->cs = 8;
    f->ss = 0x10;
    f->rip = (u64)catch_return;
    f->rsp = ((u64)interrupt_stack + 8192) | 8;
}

struct user_call {
    void (*fn)(void *arg);
    void *arg;
};

static void user_entry(void (*fn)(void *arg), void *arg)
{
    fn(arg);
    asm volatile("int $0x81");
}

static void enter_user(void *arg)
{
    struct user_call *call = arg;

    asm volatile("push $0x2b\n\tpush %0\n\tpush $0x202\n\tpush $0x23\n\tpush %1\n\tiretq"
                 :
                 : "r"((((u64)user_stack + sizeof(user_stack)) & ~15ul) - 8), "r"(user_entry), "D"(call->fn),
                   "S"(call->arg)
                 : "memory");
}

int catch_fault_user(void (*fn)(void *arg), void *arg)
{
    struct user_call call = {fn, arg};

    on_interrupt(0x81, user_done);
    idt_set(0x81, (void *)vector_table[0x81], 0xee, 0);
    return catch_fault(enter_user, &call);
}

void *page_alloc(void)
{
    if (pool_used == POOL_PAGES) {
        print("out of pages\n");
        check_failed();
        finish();
    }
    for (int n = 0; n < 4096; n++)
        pool[pool_used][n] = 0;
    return pool[pool_used++];
}

/* The next table below *entry, made if there is none, or by splitting a 2 MiB page. */
static u64 *table_below(u64 *entry)
{
    if (*entry & PTE_PS) {
        u64 *t = page_alloc(), base = *entry & 0x000fffffffe00000;

        for (u64 n = 0; n < 512; n++)
            t[n] = (base + n * 4096) | (*entry & (0x1f | PTE_NX));
        *entry = (u64)t | 7;
    } else if (!(*entry & PTE_P)) {
        *entry = (u64)page_alloc() | 7;
    }
    return (u64 *)(*entry & 0x000ffffffffff000);
}

u64 *pte_of(u64 va)
{
    u64 *table = pml4;

    for (int shift = 39; shift > 12; shift -= 9)
        table = table_below(&table[va >> shift & 0x1ff]);
    return &table[va >> 12 & 0x1ff];
}

u32 lapic_read(u32 reg)
{
    return *(volatile u32 *)(LAPIC_BASE + reg);
}

void lapic_write(u32 reg, u32 val)
{
    *(volatile u32 *)(LAPIC_BASE + reg) = val;
}

void pic_disable(void)
{
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
}

static void (*volatile ap_fn)(int cpu);
static volatile int ap_count;

static void idt_load(void)
{
    struct {
        u16 limit;
        u64 base;
    } __attribute__((packed)) p = {sizeof(idt) - 1, (u64)idt};

    asm volatile("lidt %0" : : "m"(p));
}

void ap_main(void);
void ap_main(void)
{
    int cpu = ap_count + 1;

    idt_load();
    ap_count = cpu;
    ap_fn(cpu);
    for (;;)
        asm volatile("hlt");
}

static void delay(u64 us)
{
    /* the refresh bit of port 0x61 toggles about every 15 µs */
    for (u64 n = 0; n < us / 15 + 1; n++) {
        u8 start = inb(0x61) & 0x10;

        for (int spin = 0; spin < 100000 && (inb(0x61) & 0x10) == start; spin++)
            ;
    }
}

int cpus_start(int wanted, void (*fn)(int cpu))
{
    for (u8 *p = ap_trampoline; p < ap_trampoline_end; p++)
        ((u8 *)AP_PAGE)[p - ap_trampoline] = *p;
    ap_fn = fn;
    for (int cpu = 1; cpu < wanted; cpu++) {
        ap_stack = (u64)page_alloc() + 4096 - 16;
        lapic_write(0x310, (u32)cpu << 24);
        lapic_write(0x300, 0x4500); /* INIT */
        delay(10000);
        lapic_write(0x310, (u32)cpu << 24);
        lapic_write(0x300, 0x4600 | AP_PAGE >> 12); /* start-up */
        for (int n = 0; n < 1000 && ap_count < cpu; n++)
            delay(1000);
    }
    return ap_count + 1;
}

static void tss_load(void)
{
    u64 base = (u64)&tss, limit = sizeof(tss) - 1;

    tss.rsp[0] = (u64)interrupt_stack + sizeof(interrupt_stack);
    tss.iomap = sizeof(tss);
    gdt[10] = limit | (base & 0xffffff) << 16 | 0x89ull << 40 | (base >> 24 & 0xff) << 56;
    gdt[11] = base >> 32;
    asm volatile("ltr %w0" : : "r"(0x50));
}

void guest_start(void);
void guest_start(void)
{
    for (int v = 0; v < 256; v++)
        idt_set(v, (void *)vector_table[v], v == 3 ? 0xee : 0x8e, 0);
    print_setup();
    idt_load();
    tss_load();
    pic_disable();
    guest_main();
    finish();
}
