/* One sentence for the user about what went wrong on the host's side.
 *
 * Functions that a user can provoke take a last `struct err *` (never NULL) and return 0 or -Exxx; on failure they fill
 * one sentence that names the thing and, where there is one, the fix. Results come back through `ret_` pointers, which
 * stay untouched on failure. */
#ifndef BASE_ERR_H
#define BASE_ERR_H

struct err {
    int code;       /* -Exxx, 0 while nothing failed */
    char text[512]; /* one sentence, no newline, no final full stop */
};

/* Stores the sentence and returns `code`, so that `return err_set(…)` reads well. */
int err_set(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Puts "prefix: " before a sentence that a lower layer wrote. */
void err_prefix(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
