/* The guest's arithmetic flags while a block is emitted: they are in EFLAGS, saved in RAX (as LAHF; SETO AL leave them), in
 * vcpu.cc, or in several of these. They are moved only where somebody looks at them afterwards. */
#include "cpu/jit_emit.h"

void flags_store(struct x86_asm *a, u32 from)
{
    if (from & FLAGS_MEMORY)
        return;
    if (!(from & FLAGS_RAX))
        asm_code(a, 0x9f, 0x0f, 0x90, 0xc0); /* lahf; seto al */
    asm_rm(a, X86_STORE | X86_66, HOST_FLAGS, VCPU_AT(cc));
}

void flags_save(struct jit_emit *e)
{
    if (e->flags & (FLAGS_RAX | FLAGS_MEMORY))
        return;
    asm_code(&e->hot, 0x9f, 0x0f, 0x90, 0xc0); /* lahf; seto al */
    e->flags |= FLAGS_RAX;
}

void flags_save_memory(struct jit_emit *e)
{
    if (e->flags & FLAGS_MEMORY)
        return;
    flags_save(e);
    asm_rm(&e->hot, X86_STORE | X86_66, HOST_FLAGS, VCPU_AT(cc));
    e->flags |= FLAGS_MEMORY;
}

void flags_to_host(struct jit_emit *e)
{
    if (e->flags & FLAGS_HOST)
        return;
    if (!(e->flags & FLAGS_RAX))
        asm_rm(&e->hot, X86_MOVZX16, HOST_FLAGS, VCPU_AT(cc));
    asm_code(&e->hot, 0x04, 0x7f, 0x9e); /* add al, 0x7f: overflows iff AL is 1; sahf */
    e->flags = (e->flags & FLAGS_MEMORY) | FLAGS_HOST;
}

void flags_clobber(struct jit_emit *e)
{
    e->flags &= ~(u32)FLAGS_HOST;
}

void flags_free_rax(struct jit_emit *e)
{
    if (e->flags == FLAGS_RAX)
        flags_save_memory(e);
    e->flags &= ~(u32)FLAGS_RAX;
}
