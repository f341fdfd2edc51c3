/* Which engine a machine gets: see engine.h. */
#include "cpu/engine.h"

#include <errno.h>

int engine_choose(enum cpu_engine wanted, const struct engine **ret, struct err *e)
{
    switch (wanted) {
    case CPU_ENGINE_AUTO:
    case CPU_ENGINE_INTERP: *ret = &interp_engine; return 0;
    case CPU_ENGINE_JIT: return err_set(e, -ENOTSUP, "--cpu-engine=jit: this build has no translator; use interp or auto");
    default: *ret = &kvm_engine; return 0;
    }
}
