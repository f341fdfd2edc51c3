/* Queries and settings: what the stub can do, the description, threads, the monitor; and QEMU's packets for physical memory and
 * for interrupts while stepping, which tools know. */
#include "debug/gdb_session.h"

#include <stdio.h>
#include <string.h>

static void supported(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r)
{
    reply_text(r, "PacketSize=%x;qXfer:features:read+;vContSupported+;QStartNoAckMode+;swbreak+;hwbreak+", GDB_PACKET_MAX);
}

static void threads_from(struct gdb_session *s, struct gdb_reply *r)
{
    if (s->listed >= vcpu_count(s->cpus)) {
        reply_text(r, "l");
        return;
    }
    for (const char *mark = "m"; s->listed < vcpu_count(s->cpus); mark = ",")
        reply_text(r, "%s%x", mark, ++s->listed);
}

static void threads_first(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r)
{
    s->listed = 0;
    threads_from(s, r);
}

static void threads_next(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r)
{
    threads_from(s, r);
}

static void thread_extra(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r)
{
    char text[64];
    int cpu;

    if (!gdb_scan_thread(s, p, false, &cpu)) {
        reply_text(r, GDB_ERROR_ARGUMENT);
        return;
    }
    snprintf(text, sizeof(text), "vCPU %d, %s", cpu, debug_activity(vcpu_get(s->cpus, cpu)));
    reply_hex(r, text, strlen(text));
}

static void thread_now(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r)
{
    reply_text(r, "QC%x", s->general + 1);
}

/* A debugger that quits leaves the machine alive. */
static void attached(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r)
{
    reply_text(r, "1");
}

/* target.xml:offset,length */
static void description(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r)
{
    u64 offset, len, all = strlen(s->description);

    if (!scan_word(p, "target.xml:") || !scan_number(p, &offset) || !scan_char(p, ',') || !scan_number(p, &len)) {
        reply_text(r, "E00");
        return;
    }
    offset = MIN(offset, all);
    len = MIN(len, GDB_PACKET_MAX / 2 - 1); /* room to escape */
    len = MIN(len, all - offset);
    reply_text(r, offset + len == all ? "l" : "m");
    reply_binary(r, s->description + offset, len);
}

static void command(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r)
{
    struct gdb_reply text = {0};
    char words[256] = "";
    size_t len = (size_t)(p->end - p->at) / 2;

    if (len >= sizeof(words) || !scan_bytes(p, (u8 *)words, len)) {
        reply_text(r, GDB_ERROR_ARGUMENT);
        return;
    }
    gdb_monitor(s, words, &text);
    if (text.len)
        reply_hex(r, text.text, MIN(text.len, sizeof(r->text) / 2));
    else
        reply_text(r, "OK");
}

static void physical_get(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r)
{
    reply_text(r, "%d", s->physical);
}

enum { STEP_ENABLE = 1, STEP_NO_INTERRUPTS = 2, STEP_NO_TIMERS = 4 };

static void step_bits(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r)
{
    reply_text(r, "ENABLE=%x,NOIRQ=%x,NOTIMER=%x", STEP_ENABLE, STEP_NO_INTERRUPTS, STEP_NO_TIMERS);
}

static void step_get(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r)
{
    reply_text(r, "0x%x", STEP_ENABLE | STEP_NO_TIMERS | (s->step_events ? 0 : STEP_NO_INTERRUPTS));
}

static void no_ack(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r)
{
    s->no_ack = true;
    reply_text(r, "OK");
}

static void physical_set(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r)
{
    u64 on;

    if (!scan_number(p, &on)) {
        reply_text(r, GDB_ERROR_ARGUMENT);
        return;
    }
    s->physical = on;
    reply_text(r, "OK");
}

static void step_set(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r)
{
    u64 bits;

    scan_word(p, "0x");
    if (!scan_number(p, &bits)) {
        reply_text(r, GDB_ERROR_ARGUMENT);
        return;
    }
    s->step_events = !(bits & STEP_NO_INTERRUPTS);
    debug_step_events(s->cpus, s->step_events);
    reply_text(r, "OK");
}

struct query {
    const char *word;
    void (*answer)(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r);
};

static const struct query queries[] = {
    {"Supported", supported},       {"fThreadInfo", threads_first},       {"sThreadInfo", threads_next},
    {"ThreadExtraInfo,", thread_extra}, {"C", thread_now},                {"Attached", attached},
    {"Xfer:features:read:", description}, {"Rcmd,", command},             {"qemu.PhyMemMode", physical_get},
    {"qemu.sstepbits", step_bits},  {"qemu.sstep", step_get},
};
static const struct query settings[] = {
    {"StartNoAckMode", no_ack}, {"qemu.PhyMemMode:", physical_set}, {"qemu.sstep=", step_set},
};

static void answer(const struct query *table, size_t count, struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r)
{
    for (size_t n = 0; n < count; n++)
        if (scan_word(p, table[n].word)) {
            table[n].answer(s, p, r);
            return;
        }
}

void gdb_query(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r)
{
    if (scan_word(p, "CRC:")) /* and so no qC */
        return;
    answer(queries, ARRAY_SIZE(queries), s, p, r);
}

void gdb_set(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r)
{
    answer(settings, ARRAY_SIZE(settings), s, p, r);
}
