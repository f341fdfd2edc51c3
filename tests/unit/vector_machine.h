/* A vCPU with RAM for tests of single instructions: long mode, paging on, an arena of pages with different rights at the same
 * addresses in the guest and in this process. */
#ifndef TESTS_VECTOR_MACHINE_H
#define TESTS_VECTOR_MACHINE_H
#include "cpu/vcpu_state.h"

/* Pages of the arena; the process has the same. */
#define ARENA 0x10010000ull
#define ARENA_PAGES 8
#define ARENA_SIZE (ARENA_PAGES * 4096ull)
enum arena_right { ARENA_NONE, ARENA_READ, ARENA_WRITE };
extern const enum arena_right arena_rights[ARENA_PAGES];

struct vector_machine {
    struct vcpu_group *group;
    struct vcpu *vcpu;
    u8 *guest;  /* the arena's pages in guest RAM */
    u8 *native; /* the arena of this process, at ARENA; rights applied by arena_protect */
};

void vector_machine_create(struct vector_machine *m);
void vector_machine_free(struct vector_machine *m);

/* Rights of the process' arena as the table says, or all writable. */
void arena_protect(struct vector_machine *m, bool on);

/* Puts the vCPU into 64-bit (8), 32-bit compatibility (4) or real mode (2), CPL 3 but for the last. */
void vector_machine_mode(struct vector_machine *m, int code_size);

/* Decodes and executes one instruction as if at `rip`. Returns the exception's vector, or -1; RIP is behind the instruction
 * or at it. *decoded_len (may be NULL) receives its length. */
int vector_machine_run(struct vector_machine *m, const u8 *bytes, u64 rip, int *decoded_len);

#endif
