/* Guest code as text, for --dump=guest. */
#ifndef CPU_DUMP_H
#define CPU_DUMP_H
#include "base/dump.h"
#include "cpu/vcpu_state.h"

/* Prints the instructions in bytes[0..len), which the guest runs at linear address lin in code of the current size. Saves live
 * extended registers. */
void dump_guest_code(struct vcpu *c, u64 lin, const u8 *bytes, u32 len);

#endif
