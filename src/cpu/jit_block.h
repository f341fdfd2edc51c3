/* Inside the translator: what a translated block is, what is fixed about the host's registers, and the tables that generated
 * code looks into. */
#ifndef CPU_JIT_BLOCK_H
#define CPU_JIT_BLOCK_H
#include "cpu/insn.h"
#include "cpu/tlb.h"
#include "jit/x86_asm.h"

/* Host registers while translated code runs. RSP points at vcpu.s, and what is used most is within short
 * displacements on both sides; signal frames begin 128 bytes below RSP, where there is room for them. RAX holds saved
 * flags (as vcpu.cc has them) or nothing; T1 and T2 are free between instructions. The others hold guest registers; those of
 * the guest's without one, and RIP, are in s.gpr. */
#define VCPU_POINT offsetof(struct vcpu, s)
static_assert(VCPU_POINT <= 128, "the red zone of the System V ABI: signal frames leave that much alone");
enum { HOST_VCPU = X86_RSP, HOST_FLAGS = X86_RAX, T1 = X86_R11, T2 = X86_R12 };
#define JIT_IN_MEMORY (-1)
extern const s8 jit_host_register[GPR_COUNT];

#define JIT_VICTIM_SIZE 64     /* accesses larger than this do not look for a victim in the TLB */
#define JIT_INSNS_MAX 256      /* a block */
#define JIT_TRACE_MAX 64       /* one that has so many ends at its next jump: what follows may be other blocks' too */
#define JIT_STUBS_MAX (JIT_INSNS_MAX * 8) /* slow paths of a block: an instruction has up to four, and again in a detour */
#define JIT_SIDE_EXITS_MAX 12  /* conditional jumps in its middle */

enum jit_site_kind {
    JIT_SITE_INSN, /* an access that the inline check refuses, or a fault of the host */
    JIT_SITE_LEFT, /* the translator leaves the instruction to the interpreter */
    JIT_SITE_EXT_LOAD,
};

/* An instruction that may leave translated code for its slow path, and come back behind itself. */
struct jit_site {
    u32 block;    /* in the arena */
    u32 resume;   /* in the code cache, as the following */
    u32 stub;     /* the slow path's first instruction */
    u32 hot;      /* its code, for faults of the host … */
    u16 hot_len;
    u16 offset : 12; /* bytes from the start of its page */
    u16 kind : 4; /* enum jit_site_kind */
    s16 paid;     /* how many instructions behind it the block has taken from the budget; below 0: how many up to it are still to be taken */
    bool ext, windows; /* of its block: the slow path need not look there */
};

/* How translated code was left: by a direct jump that does not know its target's code yet, or for want of budget. */
struct jit_link {
    u32 block;        /* in the arena */
    u32 rel32;        /* the displacement to patch, in the code cache; 0: for want of budget */
    u16 offset;       /* where to go on, from the start of the page */
    u16 refund;       /* budget that was taken and not used */
    u8 set;           /* the TLB set of its code: the link's own, but for STAC and CLAC */
    bool flags_saved; /* jumps with the flags in RAX, not in EFLAGS */
};

struct jit_block {
    const u8 *hva; /* of its first byte, in the backing */
    const u32 *version_now;
    u32 version;
    u64 key;
    const u8 *entry;       /* flags in EFLAGS */
    const u8 *entry_saved; /* flags in RAX */
    const u8 *entry_ext;   /* flags in EFLAGS, extended registers in the host's; NULL: there is none */
    struct jit_block *next; /* in the hash chain */
    struct jit_crossing *crossing; /* its only instruction goes on in the next page; else NULL. See jit_crossing.h */
    u32 hot, first_site, sites;
    u16 insns, bytes;
    const u16 *offset; /* of its instructions in their page, for cpu/lockstep.h; else NULL */
    bool alone; /* one instruction for the interpreter, when blocks are tried: see cpu/lockstep.h */
    bool revised; /* jit_revise.c: not to be translated again */
    u8 used_up;   /* … how many budgets */
    u16 way;      /* … a number for which instructions it has */
    bool ext; /* needs the guest's extended registers in the host's */
};

/* What the translation of code depends on besides its bytes; see jit_key. */
enum {
    JIT_KEY_SIZE = 0xf,       /* bytes of code_size */
    JIT_KEY_SET = 0xf0,       /* mmu_index */
    JIT_KEY_SET_SHIFT = 4,
    JIT_KEY_VECTOR_SHIFT = 8, /* a bit for each vector class that may run */
    JIT_KEY_FS = 1 << 16,     /* FS, GS need segment checks */
    JIT_KEY_GS = 1 << 17,
    JIT_KEY_RING0 = 1 << 18,
    JIT_KEY_WINDOW = 1 << 19, /* memory is reached through windows: see cpu/window.h */
    JIT_KEY_SEGMENTED = 1 << 20, /* see cpu/jit_segment.h, and for all below */
    JIT_KEY_STACK16 = 1 << 21,   /* SP counts, not ESP */
    JIT_KEY_HANDLER_SHIFT = 22,  /* a bit for each segment register: operands there are the handlers' */
    JIT_KEY_HANDLER_CS_WRITE = 1 << 28, /* and those that are written in CS */
    JIT_KEY_REAL = 1 << 29,      /* loads of DS, ES, FS, GS are those of real mode, and change nothing but selector and base */
    JIT_KEY_BEFORE_SHIFT = 32,   /* how many bytes of the page are before the code segment's first; 12 bits */
    JIT_KEY_BEHIND_SHIFT = 44,   /* and behind its last */
};
#define JIT_KEY_MODE 0xffffffffull /* the part that is the same in all pages */

#endif
