/* Test vectors of SingleStepTests (github.com/SingleStepTests) in their binary form: files of chunks, a four-letter tag and a
 * length each, gzip-compressed. Only what a comparison of states needs is read; bus cycles and queues are passed over. */
#ifndef TESTS_MOO_H
#define TESTS_MOO_H
#include "base/err.h"
#include "base/types.h"

/* The files' order of registers. */
enum { MOO_AX, MOO_BX, MOO_CX, MOO_DX, MOO_CS, MOO_SS, MOO_DS, MOO_ES, MOO_SP, MOO_BP, MOO_SI, MOO_DI, MOO_IP, MOO_FLAGS,
       MOO_REGS };

#define MOO_RAM_MAX 4096

struct moo_byte {
    u32 addr; /* physical */
    u8 val;
};

struct moo_state {
    u16 reg[MOO_REGS]; /* of the final state: filled up with the initial one's */
    struct moo_byte *ram; /* the reader's, until the next test; room for MOO_RAM_MAX */
    int ram_count;
};

struct moo_test {
    u32 index;
    char name[128];
    u8 bytes[64]; /* what the processor executed */
    int len;
    struct moo_state before, after;
    bool has_exception;
    u32 flags_at; /* where the exception pushed FLAGS */
};

struct moo;

/* Opens a file and reads its header: the processor's name, up to four letters. */
int moo_open(const char *path, struct moo **ret, struct err *e);
void moo_close(struct moo *m);
const char *moo_processor(const struct moo *m);

/* The next test; false at the end. A file that breaks its own form ends there, and moo_broken says so. */
bool moo_next(struct moo *m, struct moo_test *t);
bool moo_broken(const struct moo *m);

#endif
