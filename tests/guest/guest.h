/* Library of the bare-metal guests: see README.md. One address space, physical = virtual below 4 GiB. */
#ifndef GUEST_H
#define GUEST_H
#include "print.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

/* Each test program defines this; returns after its last check. */
void guest_main(void);

/* Registers at an interrupt, as start.S pushes them. */
struct frame {
    u64 r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    u64 vector, error, rip, cs, rflags, rsp, ss;
};

/* Called for vector `v` instead of the default (which records an expected fault, or reports and ends). */
void on_interrupt(int v, void (*fn)(struct frame *f));

/* Runs fn(arg) and catches the first exception: returns its vector, or -1. The frame is in `caught`, CR2 in caught_cr2. */
int catch_fault(void (*fn)(void *arg), void *arg);
extern struct frame caught;
extern u64 caught_cr2;

/* Runs fn(arg) in ring 3 on a stack of its own; returns as catch_fault does (a plain return from fn gives -1). */
int catch_fault_user(void (*fn)(void *arg), void *arg);

/* Starts test code with the registers of f, in the ring and mode that cs says, until an exception or interrupt:
 * returns its vector, the frame in `caught`. Test code ends with INT3, which may come from any ring. */
int enter(const struct frame *f);

/* A frame for 64-bit test code in ring 0 or 3, on a stack of its own; ring 3 needs user_text_allow. */
struct frame frame_at(const void *code, int ring);
void user_text_allow(bool yes); /* whether ring 3 may use the program's own pages */

/* Test code out of line: CODE(64, name, "text") makes name[] … name_end[]. */
#define CODE(bits, name, text)                                                                                         \
    extern u8 name[], name##_end[];                                                                                    \
    asm(".pushsection .text\n.code" #bits "\n" #name ":\n" text "\n" #name "_end:\n.code64\n.popsection")

extern u64 vector_table[256];
void idt_set(int v, void *handler, int type_attr, int ist);
struct tss64 {
    u32 reserved0;
    u64 rsp[3], reserved1, ist[7], reserved2;
    u16 reserved3, iomap;
} __attribute__((packed));
extern struct tss64 tss;
extern u64 gdt[];

/* Page tables: maps one 4 KiB page in the address space at `pml4` (own tables made as needed from a pool). */
enum { PTE_P = 1, PTE_W = 2, PTE_U = 4, PTE_A = 0x20, PTE_D = 0x40, PTE_PS = 0x80, PTE_G = 0x100 };
#define PTE_NX (1ull << 63)
extern u64 pml4[], pd[];
u64 *pte_of(u64 va); /* the 4 KiB entry for va, splitting or adding tables */
void *page_alloc(void);

/* Local APIC, xAPIC mode, and the other CPUs. */
u32 lapic_read(u32 reg);
void lapic_write(u32 reg, u32 val);
void pic_disable(void);
int cpus_start(int wanted, void (*fn)(int cpu)); /* how many answered, the boot CPU included */

bool command_line_is(const char *text);

bool feature(u32 leaf, u32 sub, int reg, int bit); /* in CPUID; reg 0 to 3: EAX, EBX, ECX, EDX */

static inline void outb(u16 port, u8 v) { asm volatile("outb %0, %1" : : "a"(v), "Nd"(port)); }
static inline void outw(u16 port, u16 v) { asm volatile("outw %0, %1" : : "a"(v), "Nd"(port)); }
static inline void outl(u16 port, u32 v) { asm volatile("outl %0, %1" : : "a"(v), "Nd"(port)); }
static inline u8 inb(u16 port) { u8 v; asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port)); return v; }
static inline u16 inw(u16 port) { u16 v; asm volatile("inw %1, %0" : "=a"(v) : "Nd"(port)); return v; }
static inline u32 inl(u16 port) { u32 v; asm volatile("inl %1, %0" : "=a"(v) : "Nd"(port)); return v; }
static inline u64 rdmsr(u32 m) { u32 lo, hi; asm volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(m)); return (u64)hi << 32 | lo; }
static inline void wrmsr(u32 m, u64 v) { asm volatile("wrmsr" : : "c"(m), "a"((u32)v), "d"((u32)(v >> 32)) : "memory"); }
static inline u64 rdtsc(void) { u32 lo, hi; asm volatile("rdtsc" : "=a"(lo), "=d"(hi)); return (u64)hi << 32 | lo; }
static inline u64 read_cr0(void) { u64 v; asm volatile("mov %%cr0, %0" : "=r"(v)); return v; }
static inline void write_cr0(u64 v) { asm volatile("mov %0, %%cr0" : : "r"(v) : "memory"); }
static inline u64 read_cr3(void) { u64 v; asm volatile("mov %%cr3, %0" : "=r"(v)); return v; }
static inline void write_cr3(u64 v) { asm volatile("mov %0, %%cr3" : : "r"(v) : "memory"); }
static inline u64 read_cr4(void) { u64 v; asm volatile("mov %%cr4, %0" : "=r"(v)); return v; }
static inline void write_cr4(u64 v) { asm volatile("mov %0, %%cr4" : : "r"(v) : "memory"); }
static inline void invlpg(u64 va) { asm volatile("invlpg (%0)" : : "r"(va) : "memory"); }
static inline void cpuid(u32 leaf, u32 sub, u32 r[4])
{
    asm volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(sub));
}

#endif
