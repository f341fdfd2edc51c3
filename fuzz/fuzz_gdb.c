/* A hostile debugger: bytes for the packet parser, or packets line by line, to a session with a real vCPU, which they may let
 * run. Whatever it sets, the engine must go on.
 *
 * The first byte chooses: 'b': the rest is a stream of bytes; else each line is a packet, and a line ":TEXT" a monitor command. */
#include "cpu_world.h"

#include "debug/gdb_session.h"

#include <string.h>

static struct gdb_session *session;
static struct gdb_reply reply;
static int runs;

enum { RUNS_MAX = 64 };

static void nothing(void *ctx)
{
}

static void pause_group(void *ctx)
{
    vcpu_group_stop(vcpu_get(session->cpus, 0)->group);
}

static void reset_group(void *ctx)
{
    vcpu_group_reset(session->cpus);
}

static const struct gdb_host host = {.pause = pause_group, .reset = reset_group, .kill = nothing};

/* A vCPU that sleeps has nobody to wake it: it is stopped as by an interrupt. */
static void run(void)
{
    struct vcpu *c = vcpu_get(session->cpus, 0);
    bool active = c->s.activity == VCPU_ACTIVE && runs++ < RUNS_MAX;

    vcpu_group_resume(session->cpus);
    if (active && c->debug.resume == DEBUG_STEP)
        vcpu_run(c);
    else if (active)
        cpu_world_run(1);
    vcpu_group_resume(session->cpus);
}

static void answered(enum gdb_answer answer)
{
    static char frame[GDB_FRAME_MAX];

    for (int n = 0; answer == GDB_RESUME && n < RUNS_MAX; n++) {
        run();
        gdb_session_interrupt(session);
        reply = (struct gdb_reply){0};
        answer = gdb_session_stopped(session, &reply);
    }
    assert(!reply.full);
    assert(gdb_frame(&reply, frame) <= sizeof(frame));
}

static void packet(const char *data, size_t len)
{
    static char copy[GDB_PACKET_MAX + 1];

    len = MIN(len, GDB_PACKET_MAX);
    memcpy(copy, data, len);
    copy[len] = 0;
    reply = (struct gdb_reply){0};
    if (*copy == ':')
        gdb_monitor(session, copy + 1, &reply);
    else
        answered(gdb_session_packet(session, copy, len, &reply));
}

static void bytes(const u8 *data, size_t size)
{
    static struct gdb_parser parser;

    parser = (struct gdb_parser){0};
    for (size_t n = 0; n < size; n++)
        switch (gdb_parse(&parser, data[n])) {
        case GDB_PACKET: packet(parser.data, parser.len); break;
        case GDB_INTERRUPT: gdb_session_interrupt(session); break;
        default: break;
        }
}

static void lines(const char *text, size_t size)
{
    while (size) {
        const char *end = memchr(text, '\n', size);
        size_t len = end ? (size_t)(end - text) : size;

        packet(text, len);
        text += len + !!end;
        size -= len + !!end;
    }
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    struct vcpu *c = cpu_world();

    session = gdb_session_create(c->group, &host, &(struct gdb_wishes){0});
    assert(session);
    runs = 0;
    if (size && *data == 'b')
        bytes(data + 1, size - 1);
    else
        lines((const char *)data, size);
    gdb_session_free(session);
    vcpu_group_resume(c->group);
    return 0;
}
