/* The options of `skerry run`, into the description of a VM. */
#ifndef CLI_RUN_OPTIONS_H
#define CLI_RUN_OPTIONS_H
#include "base/err.h"
#include "cli/option.h"
#include "proto/vm_config.h"

extern const struct option_set run_options; /* its ctx is a struct vm_config *, initialised */

/* What the options cannot say one by one: combinations, and what this host can carry. -Exxx with a sentence;
 * -EINVAL for a mistake in the command line. */
int run_options_check(const struct vm_config *c, struct err *e);

#endif
