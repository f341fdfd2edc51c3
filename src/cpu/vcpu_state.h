/* The inside of a vCPU: architectural state `s`, described once by a state table, and engine state beside it.
 * For files of cpu/ only.
 *
 * While vcpu_run executes guest code three parts of `s` live elsewhere, and vcpu_state_sync() brings them back:
 * - the arithmetic flags are in `cc`;
 * - the x87, vector and mask registers may be in the host's own (`ext_live`, see cpu/xstate.h);
 * - nothing else. Everything in cpu/ is compiled with -mgeneral-regs-only, so that code of ours leaves them alone; calls that
 *   leave cpu/ go through functions that call ext_save() first. */
#ifndef CPU_VCPU_STATE_H
#define CPU_VCPU_STATE_H
#include "base/state.h"
#include "cpu/debug.h"
#include "cpu/tsc.h"
#include "cpu/vcpu.h"
#include <pthread.h>

/* General registers. Operands name a register by its byte offset in gpr[], so that AH is AL + 1. RIP and a register that
 * always reads zero sit behind the sixteen, so that every address form is base + index*scale + displacement. */
enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15, RIP, RZERO, GPR_COUNT };

enum { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_LDTR, SEG_TR, SEG_COUNT };

/* Segment attributes: bits 8–23 of a descriptor's second doubleword without the limit; SDM vol. 3 §3.4.5. A segment with
 * SEG_P clear is unusable (null). Limits in seg_limit are in bytes, granularity applied. */
enum {
    SEG_TYPE = 0x000f, SEG_A = 0x0001, SEG_W = 0x0002, SEG_R = 0x0002, SEG_E = 0x0004, SEG_C = 0x0004, SEG_CODE = 0x0008,
    SEG_S = 0x0010, SEG_DPL_SHIFT = 5, SEG_DPL = 0x0060, SEG_P = 0x0080, SEG_AVL = 0x1000, SEG_L = 0x2000, SEG_DB = 0x4000,
    SEG_G = 0x8000,
};

enum {
    FLAG_CF = 1, FLAG_1 = 2, FLAG_PF = 4, FLAG_AF = 0x10, FLAG_ZF = 0x40, FLAG_SF = 0x80, FLAG_TF = 0x100, FLAG_IF = 0x200,
    FLAG_DF = 0x400, FLAG_OF = 0x800, FLAG_IOPL = 0x3000, FLAG_NT = 0x4000, FLAG_RF = 0x10000, FLAG_VM = 0x20000,
    FLAG_AC = 0x40000, FLAG_VIF = 0x80000, FLAG_VIP = 0x100000, FLAG_ID = 0x200000,
    FLAGS_ARITH = 0x8d5,
};
enum {
    CR0_PE = 1, CR0_MP = 2, CR0_EM = 4, CR0_TS = 8, CR0_ET = 0x10, CR0_NE = 0x20, CR0_WP = 0x10000, CR0_AM = 0x40000,
    CR0_NW = 0x20000000, CR0_CD = 0x40000000,
};
#define CR0_PG 0x80000000u
enum {
    CR4_VME = 1, CR4_PVI = 2, CR4_TSD = 4, CR4_DE = 8, CR4_PSE = 0x10, CR4_PAE = 0x20, CR4_MCE = 0x40, CR4_PGE = 0x80,
    CR4_PCE = 0x100, CR4_OSFXSR = 0x200, CR4_OSXMMEXCPT = 0x400, CR4_UMIP = 0x800, CR4_LA57 = 0x1000, CR4_FSGSBASE = 0x10000,
    CR4_PCIDE = 0x20000, CR4_OSXSAVE = 0x40000, CR4_SMEP = 0x100000, CR4_SMAP = 0x200000, CR4_PKE = 0x400000,
    CR4_PKS = 0x1000000,
};
enum { EFER_SCE = 1, EFER_LME = 0x100, EFER_LMA = 0x400, EFER_NXE = 0x800 };

enum { /* exceptions, SDM vol. 3 table 6-1 */
    EXC_DE = 0, EXC_DB = 1, EXC_NMI = 2, EXC_BP = 3, EXC_OF = 4, EXC_BR = 5, EXC_UD = 6, EXC_NM = 7, EXC_DF = 8, EXC_TS = 10,
    EXC_NP = 11, EXC_SS = 12, EXC_GP = 13, EXC_PF = 14, EXC_MF = 16, EXC_AC = 17, EXC_MC = 18, EXC_XM = 19,
};

enum vcpu_activity { VCPU_ACTIVE, VCPU_HALTED, VCPU_WAIT_SIPI, VCPU_SHUTDOWN };

#define XSAVE_AREA_SIZE 2752 /* x87, SSE, AVX, AVX-512, PKRU in the standard format */

struct vcpu_state {
    u64 gpr[GPR_COUNT];
    u64 rflags;
    u64 seg_base[SEG_COUNT];
    u32 seg_limit[SEG_COUNT];
    u16 seg_sel[SEG_COUNT];
    u16 seg_attr[SEG_COUNT];
    u64 gdtr_base, idtr_base;
    u16 gdtr_limit, idtr_limit;
    u8 cpl;
    u8 activity;        /* enum vcpu_activity */
    bool nmi_blocked;   /* from NMI delivery to IRET */
    bool int_shadow;    /* STI, MOV SS, POP SS: no interrupt before the next instruction */
    bool debug_shadow;  /* MOV SS, POP SS: nor a debug trap */
    u8 nmi_pending;     /* how many came and were not taken; see nmi_accept in lapic.c. Atomic */
    bool init_pending;
    u8 sipi_vector;
    bool sipi_pending;
    bool bsp;
    bool ferr;          /* FERR# is asserted: an x87 error was found with CR0.NE clear */
    u8 pad[5];
    u64 pending_db;     /* DR6 bits of debug traps to deliver after this instruction */
    u64 cr0, cr2, cr3, cr4, efer, xcr0, xss;
    u64 pdpte[4];       /* PAE: the page-directory-pointer registers, loaded with CR3 */
    u64 dr[8];          /* dr[4], dr[5] unused */
    u64 msr_star, msr_lstar, msr_cstar, msr_sfmask, msr_kernel_gs_base;
    u64 msr_sysenter_cs, msr_sysenter_esp, msr_sysenter_eip;
    u64 msr_tsc_adjust, msr_tsc_aux, msr_pat, msr_misc_enable, msr_spec_ctrl, msr_apic_base, msr_tsc_deadline;
    u64 msr_feature_control, msr_bios_sign_id, msr_debugctl, msr_mcg_status, msr_mtrr_def_type;
    u64 msr_mtrr_fixed[11], msr_mtrr_base[8], msr_mtrr_mask[8];
    s64 tsc_offset;     /* guest TSC = clock ns in ticks of the TSC (tsc_ticks) + tsc_offset */
    u64 fip, fdp;       /* x87 instruction and operand pointers: the host's own would show our addresses */
    u16 fcs, fds, fop;
    u16 pad2;
    u32 pkru, pkrs;     /* pkrs: IA32_PKRS */
    u64 xsave[XSAVE_AREA_SIZE / 8]; /* extended registers, XSAVE standard format, while not ext_live; 64-byte aligned use through ext_area() */
};

extern const struct state_table vcpu_state_table;

struct insn;
struct block;
struct interp;
struct decode_cache;
struct kvm_vcpu;
struct kvm_vm;
struct lapic;
struct cpu_model;
struct engine;
struct tlb;
struct vector_stubs;
struct jit;
struct jit_jumps;
struct windows;
struct trial;

/* Why a vCPU must leave the fast loop; bits of `attention`, set from any thread. */
enum {
    ATTN_STOP = 1,      /* vcpu_group_stop */
    ATTN_EXCLUSIVE = 2, /* another thread wants the world to stand still */
    ATTN_EVENT = 4,     /* interrupt, NMI, INIT, SIPI: look */
    ATTN_STEP = 8,      /* own: TF, shadows, pending debug traps, breakpoints: one instruction at a time */
    ATTN_FLUSH = 16,    /* forget translations (map changed) */
    ATTN_CODE = 32,     /* guest code was overwritten: forget what leads to it */
};

enum { WINDOW_OFF, WINDOW_UNKNOWN, WINDOW_ON }; /* OFF: not in this address space; UNKNOWN: window_enter() finds out */
enum { WINDOW_FAULT_READ = 1, WINDOW_FAULT_WRITE, WINDOW_FAULT_OTHER };

#define VCPU_BELOW KIB(64) /* free memory below a vCPU: a stack for signal frames while RSP points at it */

struct vcpu {
    /* what translated code uses most, within a short displacement of s: see cpu/jit_block.h */
    s64 budget;          /* instructions until it looks at `attention`; atomic for kicks */
    u64 page_base;       /* RIP without its low 12 bits */
    u64 scratch;         /* of the instruction under way: the target of an indirect call, what is pushed */
    struct jit_jumps *jumps; /* the table that holds now */
    u64 lin_base[6];     /* segment bases as they apply: 0 for ES, CS, SS, DS in 64-bit mode */
    u64 window_stack;    /* the host's GS base while code for windows runs: see cpu/jit_stack.c */
    u64 x87_operand;     /* effective address of the last x87 memory operand in translated code; and … */
    u32 x87_note;        /* … which instruction was the last: see cpu/jit_x87.h; 0: none since control was in C */
    u16 cc;              /* arithmetic flags as LAHF; SETO AL leave them: high byte SF ZF AF PF CF, bit 0 OF */
    bool ext_live;       /* extended registers are in the host's units, not in s.xsave */
    u64 place;           /* of `jumps`: see cpu/jit_jumps.h */
    u8 pad[8];
    u64 call_room;       /* where a CALL in translated code puts its return address */

    _Alignas(64) struct vcpu_state s;

    /* what the fast paths use, derived from s by vcpu_mode_update() */
    u8 code_size;        /* bytes: 2, 4, 8 (8: 64-bit mode) */
    u8 mmu_index;        /* which of the TLB's tables data accesses use: see cpu/tlb.h */
    u32 seg_check;       /* bit n: segment n needs the slow check (limit, type, null) */
    u64 lin_mask;        /* linear addresses are cut to this: 4 GiB outside 64-bit mode */
    u64 stack_mask;      /* RSP, ESP or SP */
    u64 fetch_key;       /* TLB generation, CPL 3, code size: what a fetch translation depends on */

    u32 attention;       /* atomic: ATTN_* */
    bool event_held;     /* an interrupt waits that could not be taken when it was looked at */

    /* the instruction under way */
    const struct insn *insn;         /* for precise faults: RIP already points behind it */
    const struct insn *block_first;  /* of the run of instructions under way */
    const struct insn *block_end;    /* where the loop stops; a store into the running block moves it forward */
    struct tlb *tlb;
    struct interp *interp;
    struct decode_cache *decoded;

    /* the translator's: see cpu/jit_block.h */
    void *host_stack;
    struct jit *jit;
    struct jit_cell *cells; /* of jumps to other pages, reached by a displacement: see cpu/jit_jumps.h */
    struct jit_jumps *jumps_of[4]; /* by TLB set: that which was selected last. Never NULL while there is a translator */
    struct trial *trial; /* engine lockstep: see cpu/lockstep.h; else NULL */

    /* windows on user pages: see cpu/window.h */
    u64 window_table[256];
    u8 window_state;     /* WINDOW_* */
    u8 window_fault;     /* a signal brought an instruction to its slow path: WINDOW_FAULT_* */
    u16 window_fault_offset; /* where in its page */
    u64 window_missed;   /* the page that the guest was told of by a page fault, for window_answer() */
    struct windows *windows; /* NULL: none */

    struct lapic *lapic;
    struct kvm_vcpu *kvm; /* under the KVM engine */

    /* exception under way: see cpu/exception.h */
    void *fault_jump[5];
    int delivering;      /* vector whose delivery is under way, -1: none */
    u8 fault_vector;
    bool fault_has_error;
    u32 fault_error;

    u64 retired;         /* instructions */
    u32 pauses;          /* PAUSE instructions: who spins for long lets others run */
    int index;
    u32 apic_id;
    struct vcpu_group *group;
    pthread_mutex_t wait_lock; /* halting */
    pthread_cond_t wait_cond;
    bool waiting;
    bool in_guest;       /* counted by vcpu_group_exclusive */
    bool world_stopped;  /* the instruction under way has the world to itself */
    struct {             /* a debugger's: see cpu/debug.h */
        struct debug_stop stop;
        u8 resume;       /* enum debug_resume */
        bool passing;    /* it was resumed at the breakpoint `passed`, and holds there until an instruction retires */
        u64 passed, passed_retired;
    } debug;
};

struct vcpu_group {
    struct vcpu_group_config config;
    const struct engine *engine;
    char engine_reason[512]; /* why CPU_ENGINE_AUTO chose it; empty: it was named */
    struct kvm_vm *kvm; /* under the KVM engine */
    struct cpu_model *model;
    struct vector_stubs *vector;
    u32 tsc_khz; /* how fast the guest's TSC runs: 1 GHz unless the engine cannot make it so */
    struct tsc_clock tsc_clock;
    int count;
    struct vcpu *vcpu[VCPUS_MAX];
    bool stopping;
    u32 stop_requests;
    /* exclusive sections */
    pthread_mutex_t world_lock;
    pthread_cond_t world_cond;
    int running;             /* vCPUs inside guest code */
    int exclusive_wanted;    /* threads that want or have the world to themselves */
    bool exclusive_held;
    bool intr_level, ignne, a20_closed; /* pins */
    struct debug_points *points; /* a debugger's; NULL: none. See cpu/debug_points.h */
    struct insn_trace *insn_trace; /* NULL: none */
    struct jit_profile *profile;   /* of cpu/jit_profile.h; NULL: none */
    bool step_events;            /* a debugger's steps deliver interrupts */
    void (*debug_stopped)(void *ctx);
    void *debug_ctx;
};

/* Recomputes what depends on control registers, EFER, CPL, segments and RFLAGS.AC; after every change of one of them.
 * Drops nothing from TLBs. */
void vcpu_mode_update(struct vcpu *c);

/* Sets attention bits from any thread and, where the vCPU sleeps, wakes it. */
void vcpu_attend(struct vcpu *c, u32 bits);

static inline bool long_mode(const struct vcpu *c)
{
    return c->s.efer & EFER_LMA;
}
static inline bool code64(const struct vcpu *c)
{
    return c->code_size == 8;
}
static inline bool v86_mode(const struct vcpu *c)
{
    return c->s.rflags & FLAG_VM;
}
static inline bool protected_mode(const struct vcpu *c)
{
    return c->s.cr0 & CR0_PE;
}
static inline int iopl(const struct vcpu *c)
{
    return (int)(c->s.rflags >> 12) & 3;
}

/* RFLAGS with the arithmetic flags from cc. */
static inline u64 flags_get(const struct vcpu *c)
{
    return (c->s.rflags & ~(u64)FLAGS_ARITH) | (c->cc >> 8 & 0xd5) | (u64)(c->cc & 1) << 11 | FLAG_1;
}
static inline void cc_set(struct vcpu *c, u64 flags)
{
    c->cc = (u16)((flags & 0xd5) << 8 | (flags >> 11 & 1));
}
/* Sets all of RFLAGS; the caller has masked what the instruction may not change, and calls vcpu_mode_update if TF, AC or VM
 * may have changed (flags_load in cpu/exception.h does both). */
static inline void flags_set(struct vcpu *c, u64 flags)
{
    c->s.rflags = flags | FLAG_1;
    cc_set(c, flags);
}

/* Before vCPU state is read or changed from outside: all of it back into s. Own thread, or stopped. */
void vcpu_state_sync(struct vcpu *c);

/* After s was changed from outside (loaded, reset): all that is derived from it anew. Own thread, or stopped. */
void vcpu_state_changed(struct vcpu *c);

static inline struct guest_memory *vcpu_memory(const struct vcpu *c)
{
    return c->group->config.mem;
}

#endif
