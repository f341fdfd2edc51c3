/* What a guest and the outside world can do to a whole PC, as a stream of actions: for fuzzers. */
#ifndef FUZZ_PC_ACTIONS_H
#define FUZZ_PC_ACTIONS_H
#include "fuzz_input.h"
#include "machine/machine.h"

/* The machine, with every device, two real vCPUs and little RAM; made once. */
struct machine *pc_actions_machine(void);

/* Back to power-on, memory cleared: one input does not depend on those before. */
void pc_actions_reset(void);

/* Does what the input says until it ends. */
void pc_actions_run(struct fuzz_input *in);

#endif
