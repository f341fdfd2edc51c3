/* Runs one instruction on the host's silicon with a given register file, and returns what became of it: the oracle
 * for tests of the CPU. */
#ifndef TESTS_NATIVE_INSN_H
#define TESTS_NATIVE_INSN_H
#include "cpu/vcpu_state.h"

#define NATIVE_CODE 0x10000000ull /* the page that the instruction is put into */
#define NATIVE_GS_BASE 0x1238ull

/* What goes in and comes out. */
struct native_state {
    _Alignas(64) u8 xsave[XSAVE_AREA_SIZE]; /* standard format, as ext_components has it on any host */
    u64 gpr[16];
    u64 rflags;
    u64 components; /* XSAVE components to load and store */
};

/* The instruction faulted: vector of the host's exception, error code, and address of a page fault; vector -1: it
 * did not. */
struct native_fault {
    int vector;
    u64 error, address;
};

/* Maps the code page. Once. */
void native_setup(void);

/* Installs signal handlers in front of those there are. At the start of each test: cmocka has put its own there. */
void native_signals(void);

/* Where the instruction will be, so that the caller can compute RIP-relative addresses: it ends at a fixed place. */
u64 native_address(int len);

/* Whether the host lets a 64-bit program run 32-bit code. */
bool native_has_32_bit(void);

/* Executes bytes[0..len) in 64-bit mode, or in 32-bit compatibility mode when bits is 32. */
struct native_fault native_run(struct native_state *st, const u8 *bytes, int len, int bits);

#endif
