/* Going on and stopping: continue, step, vCont, stop replies. All vCPUs stop together ("all-stop"); each goes on as it is told.
 *
 * Several may stop at once. One is reported: breakpoints meet the others again when they go on, but a watchpoint's moment has
 * passed, so that one is reported instead of going on. */
#include "debug/gdb_session.h"

static int first_with(const struct gdb_session *s, enum debug_reason reason)
{
    int count = vcpu_count(s->cpus);

    for (int n = 1; n <= count; n++) { /* whose turn it is: none is left out for ever */
        int cpu = (s->reported + n) % count;

        if (debug_stop_get(vcpu_get(s->cpus, cpu)).reason == reason)
            return cpu;
    }
    return -1;
}

/* The vCPU to report, or -1: none stopped for itself. */
static int stopped_cpu(const struct gdb_session *s)
{
    static const enum debug_reason order[] = {DEBUG_WATCH, DEBUG_BREAK, DEBUG_STEPPED};

    for (size_t n = 0; n < ARRAY_SIZE(order); n++) {
        int cpu = first_with(s, order[n]);

        if (cpu >= 0)
            return cpu;
    }
    return -1;
}

/* gdb compares RIP with its breakpoints: it is told of one only where the two are the same, which real mode makes unlikely. */
static void reason_put(const struct gdb_session *s, const struct debug_stop *stop, struct gdb_reply *r)
{
    static const char *const words[] = {
        [DEBUG_WRITE] = "watch", [DEBUG_READ] = "rwatch", [DEBUG_READ | DEBUG_WRITE] = "awatch"};

    if (stop->reason == DEBUG_WATCH)
        reply_text(r, "%s:%llx;", words[stop->access], (unsigned long long)stop->address);
    if (stop->reason != DEBUG_BREAK || gdb_pc(s, s->reported) != stop->address)
        return;
    if (gdb_point_hit(s, 0, stop->address))
        reply_text(r, "swbreak:;");
    else if (gdb_point_hit(s, 1, stop->address))
        reply_text(r, "hwbreak:;");
}

void gdb_stop_reply(struct gdb_session *s, struct gdb_reply *r)
{
    struct debug_stop stop = debug_stop_get(vcpu_get(s->cpus, s->reported));

    s->told[s->reported] = true;
    reply_text(r, "T%02xthread:%x;", stop.reason || !s->interrupting ? 5 : 2, s->reported + 1);
    reason_put(s, &stop, r);
}

static enum gdb_answer go(struct gdb_session *s)
{
    for (int n = 0; n < vcpu_count(s->cpus); n++) {
        debug_resume(vcpu_get(s->cpus, n), s->how[n]);
        s->told[n] = false;
    }
    s->running = true;
    return GDB_RESUME;
}

/* A vCPU that met a watchpoint when another's stop was reported, or -1. */
static int watch_untold(const struct gdb_session *s)
{
    for (int n = 0; n < vcpu_count(s->cpus); n++)
        if (!s->told[n] && debug_stop_get(vcpu_get(s->cpus, n)).reason == DEBUG_WATCH)
            return n;
    return -1;
}

static enum gdb_answer resume(struct gdb_session *s, struct gdb_reply *r)
{
    bool any = false;
    int cpu = watch_untold(s);

    s->interrupting = false;
    for (int n = 0; n < vcpu_count(s->cpus); n++)
        any |= s->how[n] != DEBUG_HOLD;
    if (!any) {
        reply_text(r, GDB_ERROR_ARGUMENT);
        return GDB_REPLY;
    }
    if (cpu >= 0) {
        s->reported = s->general = cpu;
        gdb_stop_reply(s, r);
        return GDB_REPLY;
    }
    return go(s);
}

/* c, s with an address, C, S with a signal that no guest would get. */
static bool resume_address(struct gdb_session *s, struct gdb_scan *p)
{
    u64 address;

    if (p->at[-1] == 'C' || p->at[-1] == 'S') {
        if (!scan_number(p, &address))
            return false;
        if (!scan_char(p, ';'))
            return true;
    }
    return !scan_number(p, &address) || gdb_pc_set(s, s->resumed < 0 ? s->general : s->resumed, address);
}

static enum gdb_answer resume_old(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r, enum debug_resume how,
                                  enum debug_resume others)
{
    int cpu = s->resumed < 0 ? s->general : s->resumed;

    s->range_cpu = -1;
    if (!resume_address(s, p)) {
        reply_text(r, GDB_ERROR_ARGUMENT);
        return GDB_REPLY;
    }
    for (int n = 0; n < vcpu_count(s->cpus); n++)
        s->how[n] = n == cpu ? how : others;
    return resume(s, r);
}

enum gdb_answer gdb_continue(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r)
{
    return resume_old(s, p, r, DEBUG_RUN, s->resumed < 0 ? DEBUG_RUN : DEBUG_HOLD);
}

enum gdb_answer gdb_step(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r)
{
    return resume_old(s, p, r, DEBUG_STEP, DEBUG_HOLD);
}

/* The letter of one action, with what belongs to it. */
static bool scan_action(struct gdb_session *s, struct gdb_scan *p, enum debug_resume *how, bool *range)
{
    u64 signal;

    *range = false;
    if (scan_char(p, 'c') || (scan_char(p, 'C') && scan_number(p, &signal))) {
        *how = DEBUG_RUN;
        return true;
    }
    *how = DEBUG_STEP;
    if (scan_char(p, 's') || (scan_char(p, 'S') && scan_number(p, &signal)))
        return true;
    *range = true;
    return scan_char(p, 'r') && scan_number(p, &s->range_start) && scan_char(p, ',') && scan_number(p, &s->range_end);
}

/* ;action[:thread] for each; the first that names a thread counts, and a thread that none names stands still. */
static bool scan_actions(struct gdb_session *s, struct gdb_scan *p)
{
    bool named[VCPUS_MAX] = {false};

    while (scan_char(p, ';')) {
        enum debug_resume how;
        bool range;
        int cpu = -1;

        if (!scan_action(s, p, &how, &range) || (scan_char(p, ':') && !gdb_scan_thread(s, p, true, &cpu)))
            return false;
        for (int n = 0; n < vcpu_count(s->cpus); n++) {
            if (named[n] || (cpu >= 0 && cpu != n))
                continue;
            named[n] = true;
            s->how[n] = how;
            if (range)
                s->range_cpu = n;
        }
    }
    return p->at == p->end;
}

enum gdb_answer gdb_vcont(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r)
{
    s->range_cpu = -1;
    for (int n = 0; n < VCPUS_MAX; n++)
        s->how[n] = DEBUG_HOLD;
    if (!scan_actions(s, p)) {
        reply_text(r, GDB_ERROR_ARGUMENT);
        return GDB_REPLY;
    }
    return resume(s, r);
}

/* A step within the range that gdb wants left is no stop. */
static bool range_goes_on(const struct gdb_session *s)
{
    u64 pc;

    if (s->range_cpu < 0 || s->interrupting || stopped_cpu(s) != s->range_cpu ||
        debug_stop_get(vcpu_get(s->cpus, s->range_cpu)).reason != DEBUG_STEPPED)
        return false;
    pc = gdb_pc(s, s->range_cpu);
    return pc >= s->range_start && pc < s->range_end;
}

enum gdb_answer gdb_session_stopped(struct gdb_session *s, struct gdb_reply *r)
{
    int cpu = stopped_cpu(s);

    s->running = false;
    if (range_goes_on(s))
        return go(s);
    if (cpu >= 0)
        s->reported = cpu;
    s->general = s->reported;
    gdb_stop_reply(s, r);
    return GDB_REPLY;
}
