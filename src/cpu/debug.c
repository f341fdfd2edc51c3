/* Breakpoints, watchpoints, and memory for debuggers: see debug.h and debug_points.h. */
#include "cpu/debug_points.h"

#include <errno.h>
#include <stdlib.h>

#include "cpu/descriptor.h"

static int code_point_find(const struct debug_points *p, u64 lin)
{
    for (int n = 0; n < p->code_count; n++)
        if (p->code[n] == lin)
            return n;
    return -1;
}

static int data_point_find(const struct debug_points *p, u8 kind, u64 gva, u64 last)
{
    for (int n = 0; n < p->data_count; n++)
        if (p->data[n].gva == gva && p->data[n].last == last && p->data[n].kind == kind)
            return n;
    return -1;
}

static void offsets_update(struct debug_points *p)
{
    for (u64 n = 0; n < ARRAY_SIZE(p->offsets); n++)
        p->offsets[n] = 0;
    for (int n = 0; n < p->code_count; n++)
        p->offsets[(p->code[n] & ~PAGE_MASK) / 64] |= BIT(p->code[n] & 63);
}

static int code_point_add(struct debug_points *p, u64 lin)
{
    if (code_point_find(p, lin) >= 0)
        return 0;
    if (p->code_count == DEBUG_CODE_POINTS_MAX)
        return -ENOSPC;
    p->code[p->code_count++] = lin;
    offsets_update(p);
    return 0;
}

static int data_point_add(struct debug_points *p, u8 kind, u64 gva, u64 last)
{
    if (data_point_find(p, kind, gva, last) >= 0)
        return 0;
    if (p->data_count == DEBUG_DATA_POINTS_MAX)
        return -ENOSPC;
    p->data[p->data_count++] = (struct debug_data_point){gva, last, kind};
    return 0;
}

int debug_point_add(struct vcpu_group *g, u8 kind, u64 gva, u64 len)
{
    int r;

    if (!len || gva + (len - 1) < gva)
        return -EINVAL;
    if (!g->points)
        g->points = calloc(1, sizeof(*g->points));
    if (!g->points)
        return -ENOSPC;
    r = kind == DEBUG_EXECUTE ? code_point_add(g->points, gva) : data_point_add(g->points, kind, gva, gva + (len - 1));
    vcpu_group_flush(g);
    return r;
}

int debug_point_remove(struct vcpu_group *g, u8 kind, u64 gva, u64 len)
{
    struct debug_points *p = g->points;
    int n = !p ? -1 : kind == DEBUG_EXECUTE ? code_point_find(p, gva) : data_point_find(p, kind, gva, gva + (len - 1));

    if (n < 0)
        return -ENOENT;
    if (kind == DEBUG_EXECUTE) {
        p->code[n] = p->code[--p->code_count];
        offsets_update(p);
    } else {
        p->data[n] = p->data[--p->data_count];
    }
    if (!p->code_count && !p->data_count)
        debug_points_clear(g);
    vcpu_group_flush(g);
    return 0;
}

void debug_points_clear(struct vcpu_group *g)
{
    free(g->points);
    g->points = NULL;
    vcpu_group_flush(g);
}

void debug_attach(struct vcpu_group *g, void (*stopped)(void *ctx), void *ctx)
{
    g->debug_stopped = stopped;
    g->debug_ctx = ctx;
    g->step_events = false;
    if (stopped)
        return;
    debug_points_clear(g);
    for (int n = 0; n < g->count; n++)
        debug_resume(g->vcpu[n], DEBUG_RUN);
}

/* Where the next instruction is. */
static u64 next_linear(const struct vcpu *c)
{
    return (c->lin_base[SEG_CS] + c->s.gpr[RIP]) & c->lin_mask;
}

void debug_resume(struct vcpu *c, enum debug_resume how)
{
    c->debug.passing = c->debug.stop.reason == DEBUG_BREAK && c->debug.stop.address == next_linear(c);
    c->debug.passed = next_linear(c);
    c->debug.passed_retired = c->retired;
    c->debug.resume = (u8)how;
    c->debug.stop = (struct debug_stop){0};
}

void debug_step_events(struct vcpu_group *g, bool deliver)
{
    g->step_events = deliver;
}

struct debug_stop debug_stop_get(const struct vcpu *c)
{
    return c->debug.stop;
}

bool debug_code_point(const struct vcpu *c, u64 lin)
{
    return debug_may_break(c, lin) && code_point_find(c->group->points, lin) >= 0;
}

bool debug_breaks_at(const struct vcpu *c, u64 lin)
{
    if (c->debug.resume == DEBUG_STEP || !debug_code_point(c, lin))
        return false;
    return !c->debug.passing || c->debug.passed != lin || c->debug.passed_retired != c->retired;
}

bool debug_page_watched(const struct vcpu *c, u64 gva)
{
    const struct debug_points *p = c->group->points;
    u64 page = gva & PAGE_MASK;

    for (int n = 0; p && n < p->data_count; n++)
        if (page <= p->data[n].last && page + (PAGE_SIZE - 1) >= p->data[n].gva)
            return true;
    return false;
}

void debug_watch_check(struct vcpu *c, u64 gva, u32 size, u8 access)
{
    const struct debug_points *p = c->group->points;

    for (int n = 0; p && n < p->data_count; n++)
        if (p->data[n].kind & access && gva <= p->data[n].last && gva + (size - 1) >= p->data[n].gva) {
            debug_stopped(c, DEBUG_WATCH, p->data[n].gva, p->data[n].kind);
            c->block_end = c->insn ? c->insn + 1 : c->block_end;
            return;
        }
}

void debug_watch_forget(struct vcpu *c)
{
    if (c->debug.stop.reason == DEBUG_WATCH)
        c->debug.stop = (struct debug_stop){0};
}

void debug_stopped(struct vcpu *c, enum debug_reason reason, u64 address, u8 access)
{
    if (!c->debug.stop.reason)
        c->debug.stop = (struct debug_stop){.reason = (u8)reason, .access = access, .address = address};
    __atomic_or_fetch(&c->attention, ATTN_STOP, __ATOMIC_SEQ_CST);
}

/* Copies from or to one stretch of RAM; how much of `len` that was. */
static u64 copy_piece(struct guest_memory *m, u64 gpa, u8 *buf, u64 len, bool write)
{
    u64 n = MIN(len, PAGE_SIZE - (gpa & ~PAGE_MASK));
    u8 *p = guest_memory_ptr(m, gpa, n, false);

    if (!p)
        return 0;
    for (u64 i = 0; i < n; i++) {
        if (write)
            p[i] = buf[i];
        else
            buf[i] = p[i];
    }
    if (write)
        guest_memory_written(m, p, n);
    return n;
}

static u64 copy_physical(struct vcpu_group *g, u64 gpa, u8 *buf, u64 len, bool write)
{
    u64 done = 0, n;

    for (; done < len; done += n) {
        n = copy_piece(g->config.mem, gpa + done, buf + done, len - done, write);
        if (!n)
            break;
    }
    return done;
}

/* Outside IA-32e mode linear addresses have 32 bits; in it they are canonical. */
static bool address_valid(const struct vcpu *c, u64 gva)
{
    return long_mode(c) ? canonical(gva) : !(gva >> 32);
}

static u64 copy_linear(struct vcpu *c, u64 gva, u8 *buf, u64 len, bool write)
{
    u64 done = 0, n, gpa;

    for (; done < len; done += n) {
        if (!address_valid(c, gva + done) || !mmu_translate_debug(c, gva + done, &gpa))
            break;
        n = copy_piece(vcpu_memory(c), gpa, buf + done, len - done, write);
        if (!n)
            break;
    }
    return done;
}

u64 debug_read(struct vcpu *c, u64 gva, void *buf, u64 len)
{
    return copy_linear(c, gva, buf, len, false);
}

u64 debug_write(struct vcpu *c, u64 gva, const void *buf, u64 len)
{
    return copy_linear(c, gva, (u8 *)buf, len, true);
}

u64 debug_read_physical(struct vcpu_group *g, u64 gpa, void *buf, u64 len)
{
    return copy_physical(g, gpa, buf, len, false);
}

u64 debug_write_physical(struct vcpu_group *g, u64 gpa, const void *buf, u64 len)
{
    return copy_physical(g, gpa, (u8 *)buf, len, true);
}

const char *debug_activity(const struct vcpu *c)
{
    static const char *const words[] = {
        [VCPU_ACTIVE] = "running", [VCPU_HALTED] = "halted", [VCPU_WAIT_SIPI] = "waiting for SIPI", [VCPU_SHUTDOWN] = "shut down"};

    return words[c->s.activity];
}
