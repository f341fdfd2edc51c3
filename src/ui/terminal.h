/* The terminal that skerry was started from, in raw mode while a guest has it, and put back however the process ends. */
#ifndef UI_TERMINAL_H
#define UI_TERMINAL_H
#include "base/types.h"

/* Whether `fd` is a terminal that this process may read from now (it is in the foreground). */
bool terminal_interactive(int fd);

/* Raw mode: every key arrives as it is pressed, Ctrl-C included; output is still translated, so that our own messages look right.
 * One terminal at a time. `fd` must stay open until terminal_restore. 0 or -Exxx. */
int terminal_raw(int fd);
void terminal_restore(void); /* no effect when not raw */

#endif
