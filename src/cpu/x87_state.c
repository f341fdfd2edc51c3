/* x87 environments in memory: FNSTENV, FLDENV, FNSAVE, FRSTOR in their 16- and 32-bit, real and protected formats,
 * and the instruction and data pointers. SDM vol. 1 §8.1.8–§8.1.10, figures 8-9 to 8-12.
 *
 * The host executes them in its 32-bit protected format on a buffer; this file converts. Pointers are tracked by us,
 * since the host's are addresses of stubs. As on all Intel CPUs of this century the opcode, and with FDP_EXCPTN_ONLY
 * the data pointer, are recorded for instructions that cause an unmasked exception. */
#include <string.h>

#include "cpu/access.h"
#include "cpu/ferr.h"
#include "cpu/vector_op.h"
#include "cpu/xstate.h"

#define FSW_ES 0x80
#define REGS_SIZE 80
#define FOP_MASK 0x7ff

struct x87_image { /* 32-bit protected format */
    u32 env[7];
    u8 regs[REGS_SIZE];
};

void x87_track(struct vcpu *c, const struct insn *i, const struct vector_op *op, u32 fsw)
{
    u64 ip = insn_rip(c, i);

    c->s.fip = code64(c) ? ip : (u32)ip;
    c->s.fcs = c->s.seg_sel[SEG_CS];
    if (unlikely(fsw & FSW_ES))
        c->s.fop = i->imm & FOP_MASK;
    if (op->size && (unlikely(fsw & FSW_ES) || !has(c, FEAT_FDP_EXCPTN_ONLY))) {
        c->s.fdp = insn_ea(c, i);
        c->s.fds = c->s.seg_sel[i->seg];
    }
}

static bool real_format(const struct vcpu *c)
{
    return !protected_mode(c) || v86_mode(c);
}

static u32 env_size(const struct insn *i)
{
    return i->opsize == 2 ? 14 : 28;
}

/* What goes where FIP, FCS, FDP and FDS are: in the real formats linear addresses, with the opcode beside the upper
 * half. */
static void pointer_words(const struct vcpu *c, u32 out[4])
{
    bool no_selectors = has(c, FEAT_ZERO_FCS_FDS);
    u32 fop = c->s.fop & FOP_MASK;

    if (real_format(c)) {
        u32 ip = (u32)c->s.fip + c->s.fcs * 16u, dp = (u32)c->s.fdp + c->s.fds * 16u;

        out[0] = ip & 0xffff;
        out[1] = ip >> 16 << 12 | fop;
        out[2] = dp & 0xffff;
        out[3] = dp >> 16 << 12;
        return;
    }
    out[0] = (u32)c->s.fip;
    out[1] = (no_selectors ? 0u : c->s.fcs) | fop << 16;
    out[2] = (u32)c->s.fdp;
    out[3] = no_selectors ? 0 : c->s.fds;
}

/* The host's three control words, and the guest's pointers, in the guest's format. */
static void env_build(const struct vcpu *c, const u32 native[7], u32 size, u8 out[28])
{
    u32 words[7] = {native[0], native[1], native[2]};

    pointer_words(c, words + 3);
    for (u32 n = 0; n < 7; n++) {
        u32 word = words[n];

        if (size == 14) {
            memcpy(out + 2 * n, &word, 2);
            continue;
        }
        if (n < 3 || n == 6 || (real_format(c) && (n == 3 || n == 5)))
            word |= 0xffff0000u;
        if (n == 6 && real_format(c))
            word &= 0x0fffffffu;
        memcpy(out + 4 * n, &word, 4);
    }
}

static void env_words(const u8 *in, u32 size, u32 words[7])
{
    memset(words, 0, 28);
    for (u32 n = 0; n < 7; n++)
        memcpy(&words[n], in + size / 7 * n, size / 7);
}

static void pointers_load(struct vcpu *c, const u32 words[7], u32 size)
{
    if (real_format(c)) {
        c->s.fip = (words[3] & 0xffff) | (words[4] & 0x0ffff000) << 4;
        c->s.fdp = (words[5] & 0xffff) | (words[6] & 0x0ffff000) << 4;
        c->s.fcs = c->s.fds = 0;
        c->s.fop = words[4] & FOP_MASK;
        return;
    }
    c->s.fip = words[3];
    c->s.fcs = (u16)words[4];
    c->s.fdp = words[5];
    c->s.fds = (u16)words[6];
    c->s.fop = words[4] >> 16 & FOP_MASK; /* the 16-bit format has none: 0 */
}

/* Leaves the registers saved: the copying around it may use the host's. */
static void run_native(struct vcpu *c, const struct insn *i, struct x87_image *image)
{
    const struct vector_op *op = i->aux;

    ext_load(c);
    op->run(image, c);
    ext_save(c);
    ferr_settle(c);
}

static void store_image(struct vcpu *c, const struct insn *i, u32 regs)
{
    u32 size = env_size(i);
    u64 gva;
    struct x87_image image;
    u8 out[sizeof(image)];

    vector_check(c, VC_X87_CONTROL);
    gva = insn_linear(c, i, size + regs, true);
    mem_check_alignment(c, gva, size / 7);
    mem_probe_write(c, gva, size + regs, c->mmu_index);
    run_native(c, i, &image);
    env_build(c, image.env, size, out);
    for (u32 n = 0; n < regs; n++)
        out[size + n] = image.regs[n];
    mem_write_bytes(c, gva, out, size + regs);
}

static void exec_fnstenv(struct vcpu *c, const struct insn *i)
{
    store_image(c, i, 0);
}

static void exec_fnsave(struct vcpu *c, const struct insn *i)
{
    store_image(c, i, REGS_SIZE);
    c->s.fip = c->s.fdp = 0;
    c->s.fcs = c->s.fds = c->s.fop = 0;
}

/* The host's format wants no pointers: ours would be lost in it anyway. */
static void load_image(struct vcpu *c, const struct insn *i, u32 regs)
{
    u32 size = env_size(i), words[7];
    u64 gva;
    struct x87_image image;
    u8 in[sizeof(image)];

    vector_check(c, VC_X87_CONTROL);
    ext_load(c);
    vector_fwait(c)->run(NULL, c); /* a pending exception comes before faults of the operand */
    ext_save(c);
    gva = insn_linear(c, i, size + regs, false);
    mem_check_alignment(c, gva, size / 7);
    mem_read_bytes(c, gva, in, size + regs);
    env_words(in, size, words);
    for (int n = 0; n < 7; n++)
        image.env[n] = n < 3 ? words[n] | 0xffff0000u : 0;
    for (u32 n = 0; n < regs; n++)
        image.regs[n] = in[size + n];
    run_native(c, i, &image);
    pointers_load(c, words, size);
}

static void exec_fldenv(struct vcpu *c, const struct insn *i)
{
    load_image(c, i, 0);
}

static void exec_frstor(struct vcpu *c, const struct insn *i)
{
    load_image(c, i, REGS_SIZE);
}

static insn_fn *x87_state_handler(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_FNSTENV: return exec_fnstenv;
    case ZYDIS_MNEMONIC_FNSAVE: return exec_fnsave;
    case ZYDIS_MNEMONIC_FLDENV: return exec_fldenv;
    case ZYDIS_MNEMONIC_FRSTOR: return exec_frstor;
    default: return NULL;
    }
}

bool choose_x87_state(struct vcpu *c, struct insn *i, const struct insn_source *src)
{
    insn_fn *fn = x87_state_handler(src->zi->mnemonic);
    struct vector_op op;

    if (!fn)
        return false;
    memset(&op, 0, sizeof(op));
    i->opsize = src->zi->operand_width == 16 ? 2 : 4;
    i->aux = (void *)vector_stub(c, src, &op, VC_X87_CONTROL);
    i->fn = i->aux ? fn : NULL;
    return true;
}
