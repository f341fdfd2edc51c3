/* What a bare-metal guest says: lines on COM1, counted checks, the verdict through the debug-exit port. */
#ifndef PRINT_H
#define PRINT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void print_setup(void);
void print(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* %s %d %u %x %lx %lu %p only */
void check_line(bool ok, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A macro, so that what the condition runs comes before the values to print. */
#define check(ok, ...)                                                                                                 \
    do {                                                                                                               \
        bool held = (ok);                                                                                              \
                                                                                                                       \
        check_line(held, __VA_ARGS__);                                                                                 \
    } while (0)
void check_failed(void); /* counts a failure that has no line of its own */
bool all_held(void);     /* prints the summary; true: every check held, and there was one */
_Noreturn void finish(void); /* ends the VM: debug-exit status 1 if all held, else 3 */

#endif
