/* trace() for code that runs while guest registers are live in the host's vector units: saves them first, because the
 * formatting behind trace() is free to use them. */
#ifndef CPU_VCPU_TRACE_H
#define CPU_VCPU_TRACE_H
#include "base/trace.h"
#include "cpu/xstate.h"

#define vcpu_trace(c, cat, ...)                     \
    do {                                            \
        if (trace_on(cat)) {                        \
            ext_save(c);                            \
            trace_print(TRACE_##cat, __VA_ARGS__);  \
        }                                           \
    } while (0)

#endif
