/* What the manual says an access through page tables does, for comparison with what the processor did: SDM vol. 3 §4.6
 * (access rights, protection keys), §4.7 (error codes), §4.8 (accessed and dirty flags). */
#ifndef PERMISSIONS_H
#define PERMISSIONS_H
#include "xorshift.h"

enum { LEVELS = 4 };
#define ENTRY_P 1ull
#define ENTRY_W 2ull
#define ENTRY_U 4ull
#define ENTRY_A 0x20ull
#define ENTRY_D 0x40ull
#define ENTRY_NX (1ull << 63)

/* The entries of one translation, from the top down to the leaf. */
struct translation {
    int levels;
    u64 entry[LEVELS];
    u64 reserved[LEVELS]; /* bits that must be zero */
    bool no_rights[LEVELS]; /* a PAE page-directory pointer: neither rights nor flags */
};
struct controls {
    bool wp, smep, smap, nxe, pke, ac;
    u32 pkru;
};
enum access_kind { READ, WRITE, FETCH };
struct access {
    enum access_kind kind;
    bool user;
};

/* -1: the access succeeds; else 14, with the error code in *error. */
static int access_expected(const struct translation *t, const struct controls *c, const struct access *a, u32 *error)
{
    bool user = true, writable = true, executable = true, write = a->kind == WRITE, fetch = a->kind == FETCH, denied;
    u32 key = t->entry[t->levels - 1] >> 59 & 15, ad = c->pkru >> key * 2 & 1, wd = c->pkru >> (key * 2 + 1) & 1;
    bool key_denies;

    *error = (u32)write << 1 | (u32)a->user << 2 | (u32)(fetch && (c->nxe || c->smep)) << 4;
    for (int n = 0; n < t->levels; n++) {
        if (!(t->entry[n] & ENTRY_P))
            return 14;
        if (t->entry[n] & t->reserved[n]) {
            *error |= 9;
            return 14;
        }
        if (t->no_rights[n])
            continue;
        user &= !!(t->entry[n] & ENTRY_U);
        writable &= !!(t->entry[n] & ENTRY_W);
        executable &= !(t->entry[n] & ENTRY_NX);
    }
    *error |= 1;
    key_denies = c->pke && user && !fetch && (ad || (wd && write && (a->user || c->wp)));
    *error |= (u32)key_denies << 5;
    if (a->user)
        denied = !user || (write && !writable) || (fetch && !executable);
    else if (fetch)
        denied = !executable || (c->smep && user);
    else
        denied = (write && !writable && c->wp) || (c->smap && user && !c->ac);
    return denied || key_denies ? 14 : -1;
}

/* Accessed flags of all entries, and the leaf's dirty flag, after an access that succeeded. */
static void access_marks(struct translation *t, const struct access *a)
{
    for (int n = 0; n < t->levels; n++)
        if (!t->no_rights[n])
            t->entry[n] |= ENTRY_A;
    if (a->kind == WRITE)
        t->entry[t->levels - 1] |= ENTRY_D;
}

#endif
