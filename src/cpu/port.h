/* Ports, for IN, OUT, INS and OUTS: permission and the way out of the engine. */
#ifndef CPU_PORT_H
#define CPU_PORT_H
#include "cpu/vcpu_state.h"

/* `size` 1, 2 or 4; permission is the caller's (io_permission_check in cpu/segment.h). */
u64 port_read(struct vcpu *c, u16 port, int size);
void port_write(struct vcpu *c, u16 port, int size, u64 val);

#endif
