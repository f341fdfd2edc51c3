/* One real vCPU for fuzzers, in a small memory with everything that memory can be: RAM, ROM, devices, nothing.
 *
 * Pieces of the backing are not shown to the guest, and lie beside pieces that are: whatever writes there or into the ROM
 * went astray, and cpu_world_check() finds it. */
#ifndef FUZZ_CPU_WORLD_H
#define FUZZ_CPU_WORLD_H
#include "cpu/vcpu_state.h"
#include "fuzz_input.h"

#define WORLD_RAM 0x20000u     /* at 0; then a hole with a device */
#define WORLD_ROM 0x30000u     /* its address; WORLD_PIECE bytes */
#define WORLD_MORE 0x50000u    /* more RAM, WORLD_PIECE bytes, ends at a hole */
#define WORLD_HIGH 0x100000000ull /* and above 4 GiB */
#define WORLD_PIECE 0x4000u

/* Made at the first call, put back to its start at every other: reset vCPU, zeroed RAM. Devices read as what was last
 * written anywhere. */
struct vcpu *cpu_world(void);

/* Aborts if anything but RAM has changed. */
void cpu_world_check(void);

/* Runs guest code for at most so many milliseconds, with all of the run loop. */
void cpu_world_run(int ms);

#endif
