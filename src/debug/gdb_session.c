/* A session's life, and which packet goes where: see gdb_session.h. */
#include "debug/gdb_session.h"

#include <stdlib.h>

struct gdb_session *gdb_session_create(struct vcpu_group *cpus, const struct gdb_host *host, const struct gdb_wishes *wishes)
{
    struct gdb_session *s = calloc(1, sizeof(*s));

    if (!s)
        return NULL;
    s->cpus = cpus;
    s->host = host;
    s->arch = wishes->arch_given ? wishes->arch : debug_model_arch(cpus);
    s->resumed = s->range_cpu = -1;
    debug_attach(cpus, host->pause, host->ctx);
    gdb_registers_setup(s);
    s->description = gdb_description_create(s);
    if (s->description)
        return s;
    gdb_session_free(s);
    return NULL;
}

void gdb_session_free(struct gdb_session *s)
{
    if (!s)
        return;
    debug_attach(s->cpus, NULL, NULL);
    free(s->description);
    free(s);
}

bool gdb_scan_thread(const struct gdb_session *s, struct gdb_scan *p, bool all, int *ret)
{
    u64 id;

    if (scan_word(p, "-1")) {
        *ret = all ? -1 : s->general;
        return true;
    }
    if (!scan_number(p, &id) || id > (u64)vcpu_count(s->cpus))
        return false;
    *ret = id ? (int)id - 1 : s->general;
    return true;
}

/* Hg, Hc. */
static void thread_choose(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r)
{
    bool general = scan_char(p, 'g');
    int cpu;

    if ((!general && !scan_char(p, 'c')) || !gdb_scan_thread(s, p, !general, &cpu)) {
        reply_text(r, GDB_ERROR_ARGUMENT);
        return;
    }
    *(general ? &s->general : &s->resumed) = cpu;
    reply_text(r, "OK");
}

/* T: is there such a thread? */
static void thread_alive(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r)
{
    int cpu;

    reply_text(r, gdb_scan_thread(s, p, false, &cpu) ? "OK" : GDB_ERROR_ARGUMENT);
}

static void stop_reason(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r)
{
    gdb_stop_reply(s, r);
}

static enum gdb_answer kill_machine(struct gdb_session *s)
{
    s->host->kill(s->host->ctx);
    return GDB_SILENCE;
}

static enum gdb_answer v_packet(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r)
{
    if (scan_word(p, "Cont?")) {
        reply_text(r, "vCont;c;C;s;S;r");
        return GDB_REPLY;
    }
    if (scan_word(p, "Cont"))
        return gdb_vcont(s, p, r);
    if (!scan_word(p, "Kill;"))
        return GDB_REPLY; /* vMustReplyEmpty among others */
    s->host->kill(s->host->ctx);
    reply_text(r, "OK");
    return GDB_REPLY;
}

static const struct {
    char letter;
    void (*answer)(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r);
} commands[] = {
    {'?', stop_reason},         {'g', gdb_registers_read}, {'G', gdb_registers_write}, {'p', gdb_register_read},
    {'P', gdb_register_write},  {'m', gdb_memory_read},    {'M', gdb_memory_write},    {'X', gdb_memory_write_binary},
    {'Z', gdb_point_add},       {'z', gdb_point_remove},   {'H', thread_choose},       {'T', thread_alive},
    {'q', gdb_query},           {'Q', gdb_set},
};

static enum gdb_answer command(struct gdb_session *s, char letter, struct gdb_scan *p, struct gdb_reply *r)
{
    switch (letter) {
    case 'c':
    case 'C': return gdb_continue(s, p, r);
    case 's':
    case 'S': return gdb_step(s, p, r);
    case 'v': return v_packet(s, p, r);
    case 'D': reply_text(r, "OK"); return GDB_LEAVE;
    }
    for (size_t n = 0; n < ARRAY_SIZE(commands); n++)
        if (commands[n].letter == letter)
            commands[n].answer(s, p, r);
    return GDB_REPLY;
}

enum gdb_answer gdb_session_packet(struct gdb_session *s, const char *data, size_t len, struct gdb_reply *r)
{
    struct gdb_scan p = {data, data + len};

    if (!len)
        return GDB_REPLY;
    if (scan_char(&p, 'k'))
        return kill_machine(s);
    if (s->running) { /* registers and memory are on the move */
        reply_text(r, GDB_ERROR_RUNNING);
        return GDB_REPLY;
    }
    p.at++;
    return command(s, data[0], &p, r);
}

void gdb_session_interrupt(struct gdb_session *s)
{
    if (!s->running)
        return;
    s->interrupting = true;
    s->host->pause(s->host->ctx);
}
