/* Memory for host code, never writable and executable through the same address: two views of one memfd. */
#ifndef JIT_CODE_CACHE_H
#define JIT_CODE_CACHE_H
#include "base/err.h"
#include "base/types.h"

struct code_cache {
    u8 *write; /* the writable view */
    u8 *exec;  /* the executable view of the same bytes */
    u64 size, used;
    int fd;
};

int code_cache_create(u64 size, struct code_cache **ret, struct err *e);
void code_cache_free(struct code_cache *cc); /* NULL is fine */

/* Room for `len` bytes, 16-byte aligned: the writable pointer, and where it will execute. NULL when full. */
u8 *code_cache_alloc(struct code_cache *cc, u64 len, const u8 **exec);

/* The bytes before `to` are written, of which those before `from` were known to be: where that ends a large page, the host is asked to make it
 * one, in both views, so that code that is spread wide finds its translation. */
void code_cache_written(struct code_cache *cc, u64 from, u64 to);

/* Gives the memory of [at, at + len) back; it reads as zeros from then on. Page-aligned. */
void code_cache_release(struct code_cache *cc, u64 at, u64 len);

/* Forgets everything; the caller knows that nothing is executing in it. */
void code_cache_reset(struct code_cache *cc);

#endif
