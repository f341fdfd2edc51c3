/* The profile of translated code: see jit_profile.h. Every translation has a record with a counter that its code raises; the
 * same guest code translated anew gets a new one, and the table adds them up. */
#include "cpu/jit_profile.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "cpu/jit_cache.h"
#include "cpu/jit_emit.h"
#include "cpu/xstate.h"

#define CHUNK_RECORDS 4096
#define KEY_USER (MMU_USER << JIT_KEY_SET_SHIFT) /* set in both of the sets for CPL 3 */

struct record {
    u64 lin, count, unused, retired; /* `unused`: instructions that were not run because a side exit was taken */
    u32 key;
    u16 insns;
};

struct chunk {
    struct chunk *next;
    u32 used;
    struct record record[CHUNK_RECORDS];
};

struct jit_profile {
    struct jit_profile_config config;
    struct chunk *chunks[VCPUS_MAX]; /* each vCPU's, the newest first */
    void *marker; /* a mapping of the jitdump by which perf finds it */
    u64 code_index;
};

/* ---- jitdump ---- */

#define JITDUMP_MAGIC 0x4a695444
#define JITDUMP_LOAD 0
#define JITDUMP_X86_64 62 /* EM_X86_64 */

struct jitdump_header {
    u32 magic, version, size, machine, pad, pid;
    u64 timestamp, flags;
};

/* Behind it the name, with its 0, and the code. */
struct jitdump_load {
    u32 id, size;
    u64 timestamp;
    u32 pid, tid;
    u64 vma, address, code_size, index;
};

static u64 timestamp(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (u64)t.tv_sec * 1000000000 + (u64)t.tv_nsec;
}

static int jitdump_begin(struct jit_profile *p, struct err *e)
{
    struct jitdump_header h = {.magic = JITDUMP_MAGIC, .version = 1, .size = sizeof(h), .machine = JITDUMP_X86_64,
                               .pid = (u32)getpid(), .timestamp = timestamp()};

    fwrite(&h, sizeof(h), 1, p->config.jitdump);
    fflush(p->config.jitdump);
    p->marker = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fileno(p->config.jitdump), 0);
    if (p->marker != MAP_FAILED)
        return 0;
    p->marker = NULL;
    return err_set(e, -errno, "--profile: cannot map the jitdump: %m");
}

static const char *name_of(char *name, size_t size, u64 lin, u32 key, const char *behind)
{
    snprintf(name, size, "guest 0x%llx [%u %s]%s", (unsigned long long)lin, (key & JIT_KEY_SIZE) * 8, key & KEY_USER ? "user" : "kernel",
             behind);
    return name;
}

static void jitdump_code(struct jit_profile *p, const struct x86_asm *a, const char *name)
{
    FILE *out = p->config.jitdump;
    u32 name_size = (u32)__builtin_strlen(name) + 1;
    struct jitdump_load l = {.id = JITDUMP_LOAD, .size = (u32)sizeof(l) + name_size + a->len, .pid = (u32)getpid(),
                             .tid = (u32)gettid(), .vma = (u64)a->exec, .address = (u64)a->exec, .code_size = a->len};

    if (!a->len)
        return;
    flockfile(out);
    l.timestamp = timestamp();
    l.index = p->code_index++;
    fwrite(&l, sizeof(l), 1, out);
    fwrite(name, name_size, 1, out);
    fwrite(a->code, a->len, 1, out);
    funlockfile(out);
}

/* ---- records ---- */

static struct chunk *chunk_with_room(struct chunk **chunks)
{
    struct chunk *k = *chunks;

    if (k && k->used < CHUNK_RECORDS)
        return k;
    k = mmap(NULL, sizeof(*k), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (k == MAP_FAILED)
        return NULL;
    k->next = *chunks;
    *chunks = k;
    return k;
}

u64 *jit_profile_begin(const struct jit_emit *e, u64 lin)
{
    struct chunk *k = chunk_with_room(&e->c->group->profile->chunks[e->c->index]);
    struct record *r;

    if (!k)
        return NULL;
    r = &k->record[k->used++];
    *r = (struct record){.lin = lin, .key = (u32)e->b->key & (JIT_KEY_SIZE | KEY_USER), .insns = (u16)e->count};
    return &r->count;
}

void jit_profile_end(const struct jit_emit *e, u64 lin)
{
    struct jit_profile *p = e->c->group->profile;
    char name[64];

    ext_save(e->c);
    jitdump_code(p, &e->hot, name_of(name, sizeof(name), lin, (u32)e->b->key, ""));
    jitdump_code(p, &e->cold, name_of(name, sizeof(name), lin, (u32)e->b->key, " slow"));
}

/* ---- the table ---- */

static int by_place(const void *a, const void *b)
{
    const struct record *x = a, *y = b;

    if (x->lin != y->lin)
        return x->lin < y->lin ? -1 : 1;
    return x->key < y->key ? -1 : x->key > y->key;
}

static int by_retired(const void *a, const void *b)
{
    const struct record *x = a, *y = b;

    return x->retired > y->retired ? -1 : x->retired < y->retired ? 1 : by_place(a, b);
}

static u64 records_count(const struct jit_profile *p)
{
    u64 n = 0;

    for (int i = 0; i < VCPUS_MAX; i++)
        for (const struct chunk *k = p->chunks[i]; k; k = k->next)
            n += k->used;
    return n;
}

static void records_copy(const struct jit_profile *p, struct record *to)
{
    for (int i = 0; i < VCPUS_MAX; i++)
        for (const struct chunk *k = p->chunks[i]; k; k = k->next)
            for (u32 n = 0; n < k->used; n++) {
                *to = k->record[n];
                to->retired = to->count * to->insns - to->unused;
                to++;
            }
}

/* Adds up what was translated more than once; how many are left. */
static u64 records_merge(struct record *r, u64 n)
{
    u64 left = 0;

    qsort(r, n, sizeof(*r), by_place);
    for (u64 i = 0; i < n; i++)
        if (left && !by_place(&r[left - 1], &r[i])) {
            r[left - 1].count += r[i].count;
            r[left - 1].retired += r[i].retired;
            r[left - 1].insns = r[i].insns;
        } else {
            r[left++] = r[i];
        }
    return left;
}

static void table_print(FILE *out, const struct record *r, u64 n)
{
    u64 all = 0, sum = 0, part;
    char name[64];

    for (u64 i = 0; i < n; i++)
        all += r[i].retired;
    part = all / 10000 + 1;
    fprintf(out, "# %llu instructions in translated code; of each block: instructions, their share and that of all up to here in "
            "1/100 %%,\n# times entered, name\n", (unsigned long long)all);
    for (u64 i = 0; i < n && r[i].count; i++) {
        sum += r[i].retired;
        fprintf(out, "%14llu %6llu %6llu %12llu  %s\n", (unsigned long long)r[i].retired,
                (unsigned long long)(r[i].retired / part), (unsigned long long)(sum / part), (unsigned long long)r[i].count,
                name_of(name, sizeof(name), r[i].lin, r[i].key, ""));
    }
}

static void table_write(const struct jit_profile *p)
{
    u64 n = records_count(p);
    struct record *r = calloc(n + 1, sizeof(*r));

    if (!r)
        return;
    records_copy(p, r);
    n = records_merge(r, n);
    qsort(r, n, sizeof(*r), by_retired);
    table_print(p->config.table, r, n);
    free(r);
}

/* ---- life ---- */

int jit_profile_create(const struct jit_profile_config *config, struct jit_profile **ret, struct err *e)
{
    struct jit_profile *p;

    if (!config)
        return 0;
    p = calloc(1, sizeof(*p));
    if (!p)
        return err_set(e, -ENOMEM, "--profile: out of memory");
    p->config = *config;
    *ret = p;
    return jitdump_begin(p, e);
}

void jit_profile_free(struct jit_profile *p)
{
    if (!p)
        return;
    table_write(p);
    for (int i = 0; i < VCPUS_MAX; i++)
        for (struct chunk *k = p->chunks[i], *next; k; k = next) {
            next = k->next;
            munmap(k, sizeof(*k));
        }
    if (p->marker)
        munmap(p->marker, 4096);
    free(p);
}
