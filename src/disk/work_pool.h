/* A few threads that run work which may block. Work starts in the order of submission and may end in any. */
#ifndef DISK_WORK_POOL_H
#define DISK_WORK_POOL_H
#include "base/err.h"
#include "base/types.h"

struct work_pool;

/* Intrusive, no allocation: belongs to the pool from work_pool_add until fn is called, then to fn. */
struct work {
    void (*fn)(struct work *w);
    struct work *next;
};

int work_pool_create(int threads, struct work_pool **ret, struct err *e);
void work_pool_add(struct work_pool *p, struct work *w); /* any thread */
void work_pool_free(struct work_pool *p);                /* finishes what was added, joins the threads; NULL is fine */

#endif
