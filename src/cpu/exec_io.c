/* IN and OUT. SDM vol. 2; permissions vol. 1 §19.5. */
#include "cpu/access.h"
#include "cpu/exec.h"
#include "cpu/port.h"
#include "cpu/xstate.h"

u64 port_read(struct vcpu *c, u16 port, int size)
{
    ext_save(c);
    return c->group->config.bus.pio_read(c->group->config.bus.ctx, port, size);
}

void port_write(struct vcpu *c, u16 port, int size, u64 val)
{
    ext_save(c);
    c->group->config.bus.pio_write(c->group->config.bus.ctx, port, size, val);
}

/* The port is DX, or an immediate byte; `rep` says which. */
static u16 port_of(const struct vcpu *c, const struct insn *i)
{
    return i->rep ? REG16(c, RDX * 8) : (u8)i->imm;
}

static void in(struct vcpu *c, const struct insn *i)
{
    u16 port = port_of(c, i);

    io_permission_check(c, port, i->opsize);
    reg_write(c, RAX * 8, i->opsize, port_read(c, port, i->opsize));
}

static void out(struct vcpu *c, const struct insn *i)
{
    u16 port = port_of(c, i);

    io_permission_check(c, port, i->opsize);
    port_write(c, port, i->opsize, reg_read(c, RAX * 8, i->opsize));
}

void choose_io(struct vcpu *c, struct insn *i, const struct insn_source *src)
{
    bool is_in = src->zi->mnemonic == ZYDIS_MNEMONIC_IN;
    const ZydisDecodedOperand *port = &src->op[is_in ? 1 : 0], *data = &src->op[is_in ? 0 : 1];

    i->rep = port->type == ZYDIS_OPERAND_TYPE_REGISTER;
    i->opsize = (u8)(data->size / 8);
    i->fn = is_in ? in : out;
}
