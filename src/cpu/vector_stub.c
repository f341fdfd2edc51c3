/* Where stubs live: made once for each instruction that differs, shared by all vCPUs of a group, in one code cache.
 *
 * Stubs with the same bytes and the same memory operand are one: a whole Linux system needs a few thousand. A guest
 * that makes up more than there is room for costs itself time: everything decoded is forgotten, and made again. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/trace.h"
#include "cpu/host_fault.h"
#include "cpu/engine.h"
#include "cpu/vector_op.h"
#include "cpu/world.h"
#include "cpu/xstate.h"
#include "jit/code_cache.h"
#include "jit/x86_asm.h"

#define STUBS_MAX 32768u
#define STUBS_RESERVE 1024u /* more than a block has instructions */
#define STUB_HASH_SIZE 65536u
#define STUB_SIZE_MAX 192u /* bytes of one */
#define STUB_CODE_SIZE MIB(2)

struct stub {
    struct vector_op op; /* first: a vector_op pointer is one to its stub */
    u8 len;
};

struct vector_stubs {
    pthread_mutex_t lock;
    struct code_cache *code;
    const struct vector_op *fwait;
    u32 count;
    u16 hash[STUB_HASH_SIZE]; /* index + 1 into stub[] */
    struct stub stub[STUBS_MAX];
};

static u32 stub_hash(const struct x86_asm *a, const struct vector_op *op)
{
    u32 h = 2166136261u ^ op->size ^ (u32)op->mask << 12; /* FNV-1a */

    for (u32 n = 0; n < a->len; n++)
        h = (h ^ a->code[n]) * 16777619u;
    return h & (STUB_HASH_SIZE - 1);
}

static bool stub_is(const struct stub *s, const struct x86_asm *a, const struct vector_op *op)
{
    size_t after_run = offsetof(struct vector_op, size);

    return s->len == a->len && !memcmp((const void *)s->op.run, a->code, a->len) &&
           !memcmp((const u8 *)&s->op + after_run, (const u8 *)op + after_run, sizeof(*op) - after_run);
}

/* Lock held. */
static const struct vector_op *stub_add(struct vector_stubs *v, u32 slot, const struct x86_asm *a,
                                        const struct vector_op *op)
{
    struct stub *s = &v->stub[v->count];
    const u8 *exec;
    u8 *write;

    if (v->count == STUBS_MAX)
        return NULL;
    write = code_cache_alloc(v->code, a->len, &exec);
    if (!write)
        return NULL;
    memcpy(write, a->code, a->len);
    memcpy(&s->op, op, sizeof(*op)); /* padding too: stub_is compares it */
    s->op.run = (u32(*)(void *, struct vcpu *))(uintptr_t)exec;
    s->len = (u8)a->len;
    v->hash[slot] = (u16)++v->count;
    return &s->op;
}

/* Lock held. */
static const struct vector_op *stub_share(struct vector_stubs *v, const struct x86_asm *a, const struct vector_op *op)
{
    u32 slot = stub_hash(a, op);

    while (v->hash[slot]) {
        struct stub *s = &v->stub[v->hash[slot] - 1];

        if (stub_is(s, a, op))
            return &s->op;
        slot = (slot + 1) & (STUB_HASH_SIZE - 1);
    }
    return stub_add(v, slot, a, op);
}

static const struct vector_op *stub_get(struct vector_stubs *v, const struct x86_asm *a, const struct vector_op *op)
{
    const struct vector_op *ret;

    pthread_mutex_lock(&v->lock);
    ret = stub_share(v, a, op);
    pthread_mutex_unlock(&v->lock);
    return ret;
}

const struct vector_op *vector_stub(struct vcpu *c, const struct insn_source *src, struct vector_op *op,
                                    enum vector_class class)
{
    u8 code[STUB_SIZE_MAX];
    struct x86_asm a = {.code = code, .size = sizeof(code)};

    if (!vector_encode(&a, src, class)) {
        trace(STUB, "vector: %s has operands without a stub", ZydisMnemonicGetString(src->zi->mnemonic));
        return NULL;
    }
    return stub_get(c->group->vector, &a, op);
}

static const struct vector_op *fwait_stub(struct vector_stubs *v)
{
    struct vector_op op;
    u8 code[STUB_SIZE_MAX];
    struct x86_asm a = {.code = code, .size = sizeof(code)};

    memset(&op, 0, sizeof(op));
    asm_code(&a, 0x9b, 0xc3); /* fwait; ret */
    return stub_get(v, &a, &op);
}

const struct vector_op *vector_fwait(struct vcpu *c)
{
    return c->group->vector->fwait;
}

/* ---- lifecycle ---- */

int vector_setup(struct vcpu_group *g, struct err *e)
{
    struct vector_stubs *v = calloc(1, sizeof(*v));
    int r;

    if (!v)
        return err_set(e, -ENOMEM, "vector stubs: out of memory");
    r = code_cache_create(STUB_CODE_SIZE, &v->code, e);
    if (r) {
        free(v);
        return r;
    }
    pthread_mutex_init(&v->lock, NULL);
    v->fwait = fwait_stub(v);
    g->vector = v;
    return host_fault_guard(v->code->exec, v->code->size, e);
}

void vector_free(struct vcpu_group *g)
{
    struct vector_stubs *v = g->vector;

    if (!v)
        return;
    host_fault_unguard(v->code->exec);
    code_cache_free(v->code);
    pthread_mutex_destroy(&v->lock);
    free(v);
    g->vector = NULL;
}

static bool stubs_room(struct vector_stubs *v)
{
    bool room;

    pthread_mutex_lock(&v->lock);
    room = v->count + STUBS_RESERVE <= STUBS_MAX && v->code->used + STUBS_RESERVE * STUB_SIZE_MAX <= v->code->size;
    pthread_mutex_unlock(&v->lock);
    return room;
}

/* World stopped. A vCPU that waits for the world itself is in the middle of an instruction or a block that it
 * decodes, and still needs its stubs: false, later then. The others hold no decoded instruction. */
static bool stubs_forget(struct vcpu_group *g, const struct vcpu *self)
{
    struct vector_stubs *v = g->vector;

    for (int n = 0; n < g->count; n++)
        if (g->vcpu[n] != self && g->vcpu[n]->in_guest)
            return false;
    for (int n = 0; n < g->count; n++)
        g->engine->flush(g->vcpu[n]);
    code_cache_reset(v->code);
    memset(v->hash, 0, sizeof(v->hash));
    v->count = 0;
    v->fwait = fwait_stub(v);
    return true;
}

void vector_make_room(struct vcpu *c)
{
    struct vcpu_group *g = c->group;
    bool room = stubs_room(g->vector);

    while (unlikely(!room)) {
        world_stop(g, c);
        room = stubs_room(g->vector) || stubs_forget(g, c); /* another vCPU may have been first */
        world_go(g, c);
    }
}
