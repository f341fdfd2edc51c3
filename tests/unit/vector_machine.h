/* A vCPU with RAM for tests of single instructions: long mode, paging on, an arena of pages with different rights at
 * the same addresses in the guest and in this process. */
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
    u8 *native; /* the arena of this process, at ARENA, with the same rights */
    int vector; /* what the last vector_machine_run returned */
};

void vector_machine_create(struct vector_machine *m);
void vector_machine_free(struct vector_machine *m);

/* Copies `from`, ARENA_SIZE bytes, into the writable pages of both arenas (the readable ones stay zero), and finds
 * the first of the native arena's 8-byte words that is not the same in the guest's, or NULL. */
void arena_fill(struct vector_machine *m, const u8 *from);
const u8 *arena_difference(const struct vector_machine *m);

/* Puts the vCPU into 64-bit (8), 32-bit compatibility (4) or real mode (2), CPL 3 but for the last. */
void vector_machine_mode(struct vector_machine *m, int code_size);

/* Decodes and executes one instruction as if at `rip`. Returns the exception's vector, or -1; RIP is behind the
 * instruction or at it. *decoded_len (may be NULL) receives its length. */
int vector_machine_run(struct vector_machine *m, const u8 *bytes, u64 rip, int *decoded_len);

#endif
