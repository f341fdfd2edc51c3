/* Inside the translator: emitting the code of one block. A struct jit_emit is what is known while it goes on. */
#ifndef CPU_JIT_EMIT_H
#define CPU_JIT_EMIT_H
#include "cpu/jit_block.h"

struct jit;

/* Where the guest's arithmetic flags are now; several places may have them. FLAGS_RECIPE: nowhere, but they can be made again
 * from registers. */
enum { FLAGS_HOST = 1, FLAGS_RAX = 2, FLAGS_MEMORY = 4, FLAGS_RECIPE = 8 };

/* How to make them again: what the instruction that wrote them left of its operands. */
enum jit_recipe_kind { RECIPE_NONE, RECIPE_AGAIN, RECIPE_TEST, RECIPE_ADD, RECIPE_SUB, RECIPE_NEG };
struct jit_recipe {
    u8 kind;      /* enum jit_recipe_kind */
    bool by_register; /* ADD, SUB: of register b, else imm */
    bool wide;    /* 64 bits, else 32 */
    s8 a, b;      /* guest registers */
    u32 registers; /* bit n: guest register n must stay as it is */
    s32 imm;
    const struct jit_insn *insn; /* RECIPE_AGAIN: this, and nothing else */
};

/* What becomes of an instruction. */
enum jit_kind {
    JIT_SAME,      /* the same instruction with its operands moved */
    JIT_NOTHING,   /* no effect */
    JIT_LEA, JIT_PUSH, JIT_POP, JIT_LEAVE, JIT_MOFFS,
    JIT_BIT_MEMORY, /* BT and its like: a register says which bit, anywhere in memory */
    JIT_SYSTEM,    /* jit_system.c */
    JIT_STRING,    /* jit_string.c */
    JIT_SELECTOR,  /* jit_selector.c */
    JIT_ELEMENT,   /* jit_element.c */
    JIT_JMP, JIT_SET_AC, JIT_LOOP, JIT_JCC, JIT_CALL, JIT_JMP_INDIRECT, JIT_CALL_INDIRECT, JIT_RET,
    JIT_INTERPRET, /* by the interpreter's handler, then on in the block */
    JIT_LEAVE_BLOCK, /* by the interpreter's handler, then out */
    JIT_KINDS,
};

#define JIT_SMALL KIB(64) /* what is known to be small is below this */

/* An instruction to translate. */
struct jit_insn {
    ZydisDecodedInstruction zi;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    const u8 *bytes;
    const ZydisDecodedOperand *mem; /* the ModRM memory operand, or NULL */
    s8 reg_op, rm_op, vvvv_op; /* operands that are general registers: by ModRM.reg or the opcode, by ModRM.rm, by VEX.vvvv; -1: none */
    u8 rax_actions;   /* of RAX as an implicit operand: ZydisOperandActions */
    bool byte_operand; /* a general register of 8 bits */
    bool high_byte;    /* AH, CH, DH, BH, named by the encoding */
    u16 offset;       /* from the start of the page */
    u8 kind;          /* enum jit_kind */
    bool legal;
    bool taken;       /* a jump that the block follows: a conditional one has its side exit behind it */
    bool reads_flags; /* or leaves some alone */
    bool writes_flags;
    bool kills_flags; /* writes all and reads none */
    bool keeps_carry; /* writes all but CF, or reads no other */
    bool may_leave;   /* for its slow path, or by a fault: the flags before it must be at hand */
    bool host_faults; /* may fault on the host where its guest would */
    bool vector, x87;
    bool code16;      /* of 16-bit code, where 66 says that operands have 32 bits */
    bool small_index; /* what its memory operand has as index is below JIT_SMALL */
    bool window;      /* its memory operands are reached through windows */
    u32 writes;        /* bit n: guest register n */
    bool flags_needed_after;
    bool flags_needed; /* the flags before it are looked at by somebody */
    bool shared;       /* jit_share.c: its access is one of a run, … */
    s32 place;         /* … this far from where the first one's base pointed */
    u32 host;          /* where its code starts, from that of the block's; for jit_dump.c */
};

/* A slow path to emit when the body is done. */
struct jit_stub {
    u32 site;  /* 0: none is needed */
    u32 jump;  /* displacement in the hot code that goes there; 0: none */
    u32 beyond; /* another, of an operand beyond its segment's limit; 0: none */
    u8 flags;  /* where they are */
    struct jit_recipe recipe;
    s32 x87;   /* as jit_emit.x87_offset */
    u32 victim; /* where hot code has its pointer by the TLB: the victim may have it too; 0: no matter */
    bool write; /* … for writing */
    bool in_loop; /* behind the look-ups of a loop */
    bool in_cold; /* the jump is in the cold code */
    bool renamed; /* host registers are the block's own */
    u32 cold;  /* as jit_exit.cold */
    u8 slot;   /* 1 + the register whose slot RAX has behind the instruction; 0: none */
};
enum jit_exit_kind {
    EXIT_LINK,   /* to code in this page: found and linked by the run loop */
    EXIT_FAR,    /* to another page, off the hot path */
    EXIT_BUDGET, /* the instruction budget is used up */
    EXIT_CELL,   /* a jump's cell does not know */
    EXIT_CALL,   /* the place in the jump table, in T2, has no code for the address in T1, to which there is a call */
    EXIT_MISS,   /* the jump table has no code for the address in T1 */
};
struct jit_exit {
    u8 kind, flags;
    u8 set; /* the TLB set of the target's code */
    bool renamed; /* host registers are the block's own */
    struct jit_recipe recipe;
    s64 offset; /* of the target, from the start of the page */
    const u8 *from; /* the displacement to link, in the writable view … */
    const u8 *exec; /* … and where it is executed */
    const struct jit_insn *again; /* EXIT_BUDGET: run this first */
    const struct jit_insn *insn; /* EXIT_FAR: the jump */
    const struct jit_cell *cell; /* EXIT_CELL */
    u16 unused; /* instructions of the block that are paid for and not run on this way: budget to be given back */
    s32 x87;   /* as jit_emit.x87_offset, to be noted on this way; -1 */
    const u8 *back; /* EXIT_CALL: where to go on if the other place of the pair has it */
    u32 site; /* EXIT_MISS: of the jump, if it faults where its target is not canonical; … */
    s32 popped; /* … and by how much it has moved RSP */
    u32 cold; /* where its code starts, from that of the block's cold code; for jit_dump.c */
};

/* jit_loop.c: what a register holds for operands by the same registers. */
#define LOOP_HOLDERS 3
struct jit_held {
    struct x86_mem at; /* the first of them; base X86_NONE and … */
    bool page;         /* … this: from page_base */
    bool small;        /* the index is: which slot it is the base says alone */
    enum { HELD_SLOT, HELD_BASE, HELD_INDEX } part; /* what is added for the slot, and this part of the address */
};
/* jit_share.c: accesses that one check is for. */
struct jit_share {
    const struct jit_insn *first, *last; /* first to last access; `last` NULL: there is no run */
    s64 low, high; /* the bytes, from where the base of the first pointed */
    bool write;
    int count;
};
/* … and the way around them for when it fails. */
struct jit_detour {
    const struct jit_insn *first, *last;
    u32 jump;  /* displacement in the hot code that goes there */
    const u8 *victim; /* as jit_stub.victim */
    bool write;
    bool renamed; /* host registers are the block's own at first */
    u32 flags, flags_after; /* where they are then, and where it comes back */
    struct jit_recipe recipe;
    s32 x87;
    const u8 *resume;
    u32 cold;  /* as jit_exit.cold */
};
/* jit_rename.c: guest register `in` has the host register of guest register `out`, which is in memory meanwhile. */
struct jit_rename {
    s8 in, out;
    bool written; /* `in` is, somewhere in the block */
};
#define JIT_RENAMES_MAX 4

struct jit_emit {
    struct vcpu *c;
    const s8 *host; /* where guest registers are now: jit_host_register, or … */
    s8 renamed[GPR_COUNT]; /* … as this block has them within */
    struct jit_rename rename[JIT_RENAMES_MAX];
    int renames;
    struct jit *j;
    struct jit_block *b;
    struct x86_asm hot, cold;
    int code_size;
    bool windows; /* JIT_KEY_WINDOW */
    bool segmented; /* JIT_KEY_SEGMENTED */
    u64 first, end; /* the part of the page that the code segment has */
    u32 stack_checks;  /* jit_stack.c: RSP was checked so often, and … */
    struct {
        u32 jump;        /* … if the slot in `reg` was another, this displacement leads to what makes it the stack's, … */
        const u8 *back;  /* … and back here */
        int reg;
    } stack_check[JIT_INSNS_MAX * 2]; /* an instruction in a detour has another */
    struct x86_mem at; /* the memory operand of the instruction under way */
    int slot;          /* jit_slot.c: the host register whose slot is looked up in RAX; X86_NONE: none */
    s64 slot_moved;    /* how far it may have moved since, in bytes */
    bool rax_lent;     /* the instruction under way has the guest's RAX in RAX */
    const struct jit_insn *under_way;
    const u8 *loop;    /* jit_loop.c: where the block goes on that jumps to its start; NULL: at its entry */
    struct jit_held held[LOOP_HOLDERS]; /* what registers hold meanwhile */
    int held_count;
    int counter;       /* the register that has the allowance; X86_NONE: there is none */
    u32 flags; /* FLAGS_*: where they are */
    struct jit_recipe recipe;
    struct jit_insn *insn;
    int count;
    bool closes;   /* behind its last instruction the block may go on at its first: a loop */
    const struct jit_insn *pays; /* the budget is seen to before this; NULL: at the entry */
    u32 stubs, exits;
    struct jit_stub stub[JIT_STUBS_MAX];
    struct jit_share share; /* the last run that began */
    struct jit_detour detour[JIT_INSNS_MAX / 2];
    u32 detours;
    bool in_detour; /* every access checks for itself */
    struct jit_exit exit[16 + 4 * JIT_SIDE_EXITS_MAX]; /* a side exit may need two, and be in a detour too */
    bool given_back; /* of a side exit under way: what it leaves out is no longer paid for */
    u64 *runs; /* to be raised at every entry, and runs[1] by what side exits leave out; NULL: no profile */
    s32 x87_offset; /* of the last x87 instruction in its page, not yet noted in s.fip; -1 */
};

/* Where in the vCPU something is, from HOST_VCPU. */
#define VCPU_DISP(member) ((s32)offsetof(struct vcpu, member) - (s32)VCPU_POINT)
#define VCPU_AT(member) X86_AT(HOST_VCPU, VCPU_DISP(member))
#define GPR_AT(n) X86_AT(HOST_VCPU, VCPU_DISP(s.gpr) + (s32)(n) * 8)

/* jit_flags.c: moving the flags about. */
void flags_emit_save(struct x86_asm *a);      /* LAHF; SETO AL */
void flags_save(struct jit_emit *e);          /* to RAX or memory, if they are only in EFLAGS */
void flags_to_rax(struct jit_emit *e);        /* whatever else has them: what code found by the jump table expects */
void flags_save_memory(struct jit_emit *e);   /* to memory */
void flags_to_host(struct jit_emit *e);
/* Emits what puts them into vcpu.cc. */
void flags_store(struct x86_asm *a, const struct jit_emit *e, u32 from, const struct jit_recipe *recipe);
void flags_clobber(struct jit_emit *e);       /* EFLAGS is about to change */
void flags_free_rax(struct jit_emit *e);      /* RAX is about to change */
void flags_written(struct jit_emit *e, const struct jit_insn *i); /* to EFLAGS, all of them, by `i` */
/* `i` is about to be emitted: flags that could not be made again after it are saved, if anybody wants them. */
void flags_before_writes(struct jit_emit *e, const struct jit_insn *i);
void flags_after_writes(struct jit_emit *e, const struct jit_insn *i); /* `i` was emitted */
void emit_recipe(struct x86_asm *a, const struct jit_emit *e, const struct jit_recipe *r); /* to EFLAGS; uses T2 */

/* jit_memory.c */
/* An effective address to `to`, all 64 bits (wide X86_W) or 32; to T1, truncated to the address size. Both may use T1 and T2. */
void emit_effective_to(struct jit_emit *e, const struct jit_insn *i, const ZydisDecodedOperandMem *mem, int to, u32 wide);
void emit_effective(struct jit_emit *e, const struct jit_insn *i, const ZydisDecodedOperandMem *mem);
void emit_linear(struct jit_emit *e, const struct jit_insn *i, const ZydisDecodedOperandMem *mem); /* to T1 */
void emit_add_base(struct jit_emit *e, int seg); /* of FS or GS, to the address in T1 */
/* The address in T1 becomes a pointer to `size` bytes in RAM, or the slow path of `i` is taken. Uses T2. By the TLB. */
void emit_check(struct jit_emit *e, const struct jit_insn *i, u32 size, bool write);
/* The same with a way of the caller's for refusals: the displacement of the jump. */
u32 emit_tlb(struct jit_emit *e, u32 size, bool write);
/* The same by the TLB or a window, of the address in T1, of a register and a displacement, of a memory operand. Returns where
 * it is then; registers in that stay as they are until it was accessed. */
struct x86_mem emit_checked(struct jit_emit *e, const struct jit_insn *i, u32 size, bool write);
struct x86_mem emit_based(struct jit_emit *e, const struct jit_insn *i, int reg, s32 disp, u32 size, bool write);
struct x86_mem emit_memory(struct jit_emit *e, const struct jit_insn *i, const ZydisDecodedOperandMem *mem, u32 size, bool write);
/* T1 or T2, whichever is not needed for *at, which may have to change for it. */
int emit_spare(struct jit_emit *e, struct x86_mem *at);

/* Whether a base register in the host's and a displacement are all of the address: it is in the base's slot or in the guards. */
bool window_base_alone(const struct jit_emit *e, const struct jit_insn *i, const ZydisDecodedOperandMem *mem);
/* The same of a base with an index that is small, which does no more than a displacement. */
bool window_base_small(const struct jit_emit *e, const struct jit_insn *i, const ZydisDecodedOperandMem *mem);

/* jit_slot.c: windows */
void slot_look_up(struct x86_asm *a, int reg, int to); /* what is added to addresses in the slot of the one in `reg`, to `to` */
int slot_of(struct jit_emit *e, const struct jit_insn *i, int reg); /* the same; returns where it is: RAX or T2 */
void slot_after(struct jit_emit *e, const struct jit_insn *i);      /* `i` was emitted */
void slot_forget(struct jit_emit *e);
bool slot_wants_rax(struct jit_emit *e); /* some operand's slot would serve others */
s64 slot_moves(const struct jit_insn *i, int guest); /* how far `i` moves a register that it writes; GIB(2): anywhere */

/* jit_stack.c */
struct x86_mem stack_at(int reg, s32 disp); /* an operand in the stack's slot, or in the guards around it */
bool stack_moves_far(const struct jit_insn *i); /* RSP, by more than a small constant, so that code behind it checks */
void stack_after(struct jit_emit *e, const struct jit_insn *i); /* `i` was emitted */
/* RSP was moved to the slot that was looked up in `reg`; the flags before `i` are still to be kept. */
void stack_moved(struct jit_emit *e, const struct jit_insn *i, int reg);
void stack_emit_cold(struct jit_emit *e);

/* jit_loop.c */
#define LOOP_ALLOWANCE 512 /* instructions */
void loop_plan(struct jit_emit *e);  /* whether the block is a loop, and what is held in it */
void loop_begin(struct jit_emit *e); /* behind the entry: what is held is found */
void loop_resume(const struct jit_emit *e, struct x86_asm *a, u32 allowance); /* the same for a slow path */
bool loop_operand(const struct jit_emit *e, const struct jit_insn *i, struct x86_mem *ret_at); /* in a window, by what is held */
/* The allowance. Of those that end in a jump, its displacement. The last leaves flags alone; T1 or T2 changes. */
u32 loop_take(struct jit_emit *e);       /* at the entry, from the budget, or jumps … */
void loop_untake(struct x86_asm *a);     /* … to this */
u32 loop_pay(struct jit_emit *e, bool keep_carry); /* for a round, or jumps … */
void loop_renew(const struct jit_emit *e, struct x86_asm *a, bool keep_carry, const u8 *back); /* … here, and back if the budget has more */
/* The same from the budget, all flags known by the last subtraction but CF, which is as it was. T2 changes unless a loop holds something there. */
void budget_take_keeping_carry(const struct jit_emit *e, struct x86_asm *a, s32 less);
void loop_give_back(const struct jit_emit *e, struct x86_asm *a); /* on a way out */

/* jit_share.c: one TLB check for several accesses. Before and after each instruction; behind the last of the block, for cold code. */
void share_before(struct jit_emit *e, struct jit_insn *i);
void share_after(struct jit_emit *e, const struct jit_insn *i);
void share_detours(struct jit_emit *e);
/* Whether `i` accesses memory by the check of a run; its access, then, by `base`, a host register; whether that will need no slow path. */
static inline bool share_has(const struct jit_emit *e, const struct jit_insn *i)
{
    return i->shared && !e->in_detour;
}
struct x86_mem share_at(struct jit_emit *e, const struct jit_insn *i, int base);
bool share_follows(const struct jit_emit *e, const struct jit_insn *i);

/* jit.c: what becomes of one instruction */
void emit_insn(struct jit_emit *e, const struct jit_insn *i);

/* jit_rename.c: which guest registers are in the host's */
void rename_none(struct jit_emit *e);    /* the standard ones, throughout the block */
void rename_plan(struct jit_emit *e);    /* chooses, by what the instructions use */
void rename_planned(struct jit_emit *e); /* that is the choice, and what becomes of instructions is settled */
bool loop_of_one(const struct jit_emit *e); /* it may jump back to behind its entry */
void rename_for(struct jit_emit *e, const struct jit_insn *i); /* `i` is about to be emitted; flags stay as they are */
void rename_begin(struct jit_emit *e);   /* from the standard registers to the block's */
void rename_end(struct jit_emit *e);
/* Emits the way to the standard registers if e->host are the block's, and the way back from a slow path. */
void rename_restore(const struct jit_emit *e, struct x86_asm *a);
void rename_again(const struct jit_emit *e, struct x86_asm *a);

/* jit_operand.c */
void operands_note(struct jit_insn *i); /* which are general registers; first of all */
void emit_same(struct jit_emit *e, const struct jit_insn *i);
/* A register form again, for the flags; with `spare` for a register that has no host register. */
void emit_registers_again(struct x86_asm *a, const struct jit_emit *e, const struct jit_insn *i, int spare);
/* In windows these run on the host: the address is in the window or nobody's, as of all operands there, and they never fault. */
bool is_prefetch(const struct jit_insn *i);
bool uses_high_byte(const struct jit_insn *i); /* AH, CH, DH, BH: some are turned around while it runs, so it must not fault then */
bool borrows_rax(const struct jit_insn *i); /* the guest's RAX is moved to the host's for it */
bool can_emit_same(const struct jit_emit *e, const struct jit_insn *i);
int spares_of(const struct jit_emit *e, const struct jit_insn *i); /* how many of T2 and T1, in that order, it may need beside its memory operand */
bool lea_direct(const struct jit_emit *e, const struct jit_insn *i); /* it needs no other registers than its own */
void emit_lea(struct jit_emit *e, const struct jit_insn *i);
void emit_push(struct jit_emit *e, const struct jit_insn *i);
void emit_pop(struct jit_emit *e, const struct jit_insn *i);
void emit_leave(struct jit_emit *e, const struct jit_insn *i);
void emit_moffs(struct jit_emit *e, const struct jit_insn *i);
void emit_bit_memory(struct jit_emit *e, const struct jit_insn *i);
void emit_push_scratch(struct jit_emit *e, const struct jit_insn *i); /* pushes vcpu.scratch, a word of the stack */

/* jit_string.c */
bool can_emit_string(const struct jit_emit *e, const struct jit_insn *i);
void emit_string(struct jit_emit *e, const struct jit_insn *i);

/* jit_system.c: what becomes of an instruction that no other file knows, and its code. */
enum jit_kind system_kind(const struct jit_emit *e, const struct jit_insn *i);
void emit_system(struct jit_emit *e, const struct jit_insn *i);
void emit_set_ac(struct jit_emit *e, const struct jit_insn *i);

/* jit_thunk.c: the place of the entry for the address in T1 to T2, and a comparison with that entry */
void jit_emit_look_up(struct x86_asm *a);

/* jit_control.c */
void emit_entry(struct jit_emit *e);
void emit_budget_before(struct jit_emit *e, const struct jit_insn *i); /* where `i` kills the flags, or all but CF; NULL: at the entry */
s64 jit_target(const struct jit_insn *i); /* of a relative jump, from the start of the page */
void emit_jmp(struct jit_emit *e, const struct jit_insn *i);
void emit_goto_in_set(struct jit_emit *e, s64 offset, int set); /* within the page, to code for that TLB set, which is set */
void emit_jcc(struct jit_emit *e, const struct jit_insn *i);
bool is_jump(const struct jit_insn *i); /* direct, conditional or not */
void emit_call(struct jit_emit *e, const struct jit_insn *i);
void emit_jmp_indirect(struct jit_emit *e, const struct jit_insn *i);
void emit_call_indirect(struct jit_emit *e, const struct jit_insn *i);
void emit_return(struct jit_emit *e, const struct jit_insn *i);
void emit_interpret(struct jit_emit *e, const struct jit_insn *i, bool leave);
void emit_fall_through(struct jit_emit *e, u32 offset);
void emit_cold(struct jit_emit *e); /* slow paths and exits */
/* A TLB check failed: on at `found` if the victim of the page's place is good for it, with the pointer in T1. For up to JIT_VICTIM_SIZE bytes. */
void emit_victim(struct jit_emit *e, struct x86_asm *a, bool write, const u8 *found);
void emit_swap_regions(struct jit_emit *e); /* from here on `hot` is where cold code goes, and back */

/* jit_count.c: LOOP and JCXZ */
bool can_emit_count(const struct jit_emit *e, const struct jit_insn *i);
void emit_count_jump(struct jit_emit *e, const struct jit_insn *i);

/* jit_control.c, for other files with jumps */
bool in_page(const struct jit_emit *e, s64 offset); /* … and in the code segment */
void emit_goto(struct jit_emit *e, s64 offset); /* to page_base + offset */
/* What loads so many bytes to a register of which nothing else is left. */
static inline u32 zero_extending_load(int size)
{
    return size == 8 ? X86_LOAD | X86_W : size == 4 ? X86_LOAD : X86_MOVZX16;
}
void emit_target(struct jit_emit *e, const struct jit_insn *i, int size); /* an indirect jump's or call's operand of so many bytes, to T1 */
void access_done(struct jit_emit *e); /* the access just emitted is its site's last that may fault. Nothing comes back there: the block ends */
struct jit_exit *exit_new(struct jit_emit *e, enum jit_exit_kind kind, s64 offset, u32 jump); /* of the jump whose displacement is there */
void x87_settle(struct jit_emit *e);
void emit_slow(struct x86_asm *a, const struct jit_emit *e, u32 site, u32 flags, const struct jit_recipe *recipe); /* to the slow path */

/* jit_scan.c: decodes a block's instructions and finds out what they need. Their number; 0: the first crosses the page. */
int jit_scan(struct jit_emit *e, const u8 *hva);
/* The same for a block of just the instruction with these 15 bytes, at `offset` in its page. False: it is illegal. */
bool jit_scan_one(struct jit_emit *e, u16 offset, const u8 *bytes);

struct jit_stub *jit_stub_new(struct jit_emit *e); /* for the caller to fill; jit_cache.c */

/* jit_slow sites; jit.c */
u32 jit_site_new(struct jit_emit *e, const struct jit_insn *i, enum jit_site_kind kind);
struct jit_site *jit_site_at(struct jit *j, u32 n);
void jit_site_done(struct jit_emit *e, struct jit_site *s); /* its hot code ends, and goes on, here */
void jit_site_ends(struct jit_emit *e, struct jit_site *s); /* … and nothing comes back */
u32 jit_block_number(const struct jit *j, const struct jit_block *b);
u32 jit_code_offset(const struct jit *j, const u8 *exec);
u32 jit_link_new(struct jit *j, const struct jit_link *l);
enum jit_exit_flags { LEAVE_HOST, LEAVE_RAX, LEAVE_MEMORY }; /* where the flags are on the way out */
const u8 *jit_exit_thunk(const struct jit *j, enum jit_exit_flags flags);
const u8 *jit_slow_thunk(const struct jit *j);
const u8 *jit_victim_thunk(const struct jit *j, int set, bool write);
void cold_unlinked(struct jit_emit *e, enum jit_exit_flags flags); /* to the run loop, which looks for RIP's code; jit_control.c */

#endif
