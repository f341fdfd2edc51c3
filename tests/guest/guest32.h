/* Library of the 32-bit bare-metal guests: flat protected mode, paging off until a guest turns it on. */
#ifndef GUEST32_H
#define GUEST32_H
#include "print.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

/* Each test program defines this; returns after its last check. */
void guest_main(void);

/* Registers at an interrupt, and those with which enter() starts. The last four are V86 mode's. */
struct frame {
    u32 gs, fs, es, ds, edi, esi, ebp, unused, ebx, edx, ecx, eax;
    u32 vector, error, eip, cs, eflags, esp, ss, v86_es, v86_ds, v86_fs, v86_gs;
};

enum { CODE32 = 0x08, DATA32 = 0x10, CODE16 = 0x18, DATA16 = 0x20, USER_CODE = 0x2b, USER_DATA = 0x33, TSS_SEL = 0x38,
       GDT_FREE = 0x40 /* 32 entries from here on belong to the test */ };

/* Called for vector `v` instead of the default (which records an expected exception, or reports and ends). */
void on_interrupt(int v, void (*fn)(struct frame *f));

/* Runs fn(arg) and catches the first exception or interrupt: returns its vector, or -1. Where it was is in `caught`
 * (esp and ss whatever the ring), CR2 in caught_cr2. */
int catch_fault(void (*fn)(void *arg), void *arg);
extern struct frame caught;
extern u32 caught_cr2;

/* Starts test code with the registers of f, in the ring and mode that cs and eflags say, until an exception or
 * interrupt: returns its vector. Test code ends with INT3, which may come from any ring. */
int enter(const struct frame *f);

/* A frame for test code at `code` in ring 0 or 3, flat, on a stack of its own. */
struct frame frame_at(const void *code, int ring);

/* Test code out of line: CODE(16, name, "text") makes name[] … name_end[]. */
#define CODE(bits, name, text)                                                                                         \
    extern u8 name[], name##_end[];                                                                                    \
    asm(".pushsection .text\n.code" #bits "\n" #name ":\n" text "\n" #name "_end:\n.code32\n.popsection")

void copy(void *to, const void *from, u32 bytes);
void fill(void *to, u8 val, u32 bytes);
bool same(const void *a, const void *b, u32 bytes);

/* Descriptors. `access` is byte 5 (P, DPL, S, type), `flags` the upper half of byte 6: 8 G, 4 D/B, 2 L. The limit as
 * encoded: in pages if G. Returns the selector, RPL = DPL. */
extern u64 gdt[];
u64 descriptor(u32 base, u32 limit, u8 access, u8 flags);
u16 gdt_set(u16 sel, u32 base, u32 limit, u8 access, u8 flags);
u64 gate(u16 sel, u32 offset, u8 access, u8 params); /* call, interrupt, trap and task gates */
extern u64 idt[256];
extern u32 vector_table[256];

struct tss32 {
    u32 link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp, esi, edi;
    u32 es, cs, ss, ds, fs, gs, ldt;
    u16 trap, iomap;
    u8 map[8193];
};
extern struct tss32 tss;

void *page_alloc(void); /* 4 KiB, zeroed */
bool feature(u32 leaf, u32 sub, int reg, int bit); /* in CPUID; reg 0 to 3: EAX, EBX, ECX, EDX */

static inline void outb(u16 port, u8 v) { asm volatile("outb %0, %1" : : "a"(v), "Nd"(port)); }
static inline u8 inb(u16 port) { u8 v; asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port)); return v; }
static inline u64 rdmsr(u32 m) { u64 v; asm volatile("rdmsr" : "=A"(v) : "c"(m)); return v; }
static inline void wrmsr(u32 m, u64 v) { asm volatile("wrmsr" : : "c"(m), "A"(v) : "memory"); }
static inline u32 read_cr0(void) { u32 v; asm volatile("mov %%cr0, %0" : "=r"(v)); return v; }
static inline void write_cr0(u32 v) { asm volatile("mov %0, %%cr0" : : "r"(v) : "memory"); }
static inline u32 read_cr3(void) { u32 v; asm volatile("mov %%cr3, %0" : "=r"(v)); return v; }
static inline void write_cr3(u32 v) { asm volatile("mov %0, %%cr3" : : "r"(v) : "memory"); }
static inline u32 read_cr4(void) { u32 v; asm volatile("mov %%cr4, %0" : "=r"(v)); return v; }
static inline void write_cr4(u32 v) { asm volatile("mov %0, %%cr4" : : "r"(v) : "memory"); }
static inline void invlpg(u32 va) { asm volatile("invlpg (%0)" : : "r"(va) : "memory"); }
static inline void cpuid(u32 leaf, u32 sub, u32 r[4])
{
    asm volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(sub));
}

#endif
