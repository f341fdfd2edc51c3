/* One debugger's conversation, without its transport: packets in, replies out. Works on a group of vCPUs that stands still
 * while a packet is answered. */
#ifndef DEBUG_GDB_SESSION_H
#define DEBUG_GDB_SESSION_H
#include "cpu/debug.h"
#include "cpu/debug_regs.h"
#include "debug/gdb_packet.h"

#define GDB_REGISTERS_MAX 256
#define GDB_POINTS_MAX (DEBUG_CODE_POINTS_MAX + DEBUG_DATA_POINTS_MAX)

/* What a debugger asks of whoever owns the machine; `ctx` is the owner's. */
struct gdb_host {
    void *ctx;
    void (*resume)(void *ctx); /* the vCPUs run */
    void (*pause)(void *ctx);  /* they stand still soon; any thread */
    void (*reset)(void *ctx);  /* while it stands still: RESET# */
    void (*kill)(void *ctx);   /* the machine ends */
};

struct gdb_point {
    u8 type; /* of Z packets: 0 software, 1 hardware breakpoint, 2 write, 3 read, 4 access watchpoint */
    u64 address, len;
};

/* What a debugger may wish for before it connects. */
struct gdb_wishes {
    bool arch_given;
    enum debug_arch arch; /* else the CPU model's */
};

struct gdb_session {
    struct vcpu_group *cpus;
    const struct gdb_host *host;
    enum debug_arch arch;
    struct debug_register reg[GDB_REGISTERS_MAX];
    int reg_count;
    char *description; /* target XML */
    bool running, interrupting, no_ack;
    bool physical;  /* memory packets mean guest-physical addresses */
    bool step_events; /* steps deliver interrupts */
    bool linear_pc; /* RIP is shown with CS's base added */
    int general, resumed; /* vCPUs of Hg and Hc; -1 in `resumed`: all */
    int listed;     /* qsThreadInfo goes on here */
    int reported;   /* the vCPU of the last stop reply */
    bool told[VCPUS_MAX]; /* its present stop was in a stop reply */
    int range_cpu;  /* -1, or a vCPU that steps while RIP is in [range_start, range_end) */
    u64 range_start, range_end;
    enum debug_resume how[VCPUS_MAX]; /* for the next stretch of the same resumption */
    struct gdb_point point[GDB_POINTS_MAX];
    int point_count;
};

/* The vCPUs stand still from here on. NULL when out of memory. */
struct gdb_session *gdb_session_create(struct vcpu_group *cpus, const struct gdb_host *host, const struct gdb_wishes *wishes);

/* The vCPUs stand still. They forget the debugger and its points. NULL is fine. */
void gdb_session_free(struct gdb_session *s);

enum gdb_answer {
    GDB_REPLY,   /* send the reply, be it empty */
    GDB_SILENCE, /* no reply */
    GDB_RESUME,  /* no reply yet: let the vCPUs run; gdb_session_stopped comes later, once */
    GDB_LEAVE,   /* send the reply, end the session, let the machine run */
};

/* Answers the packet data[0..len), which has a NUL behind it. `r` starts zeroed. */
enum gdb_answer gdb_session_packet(struct gdb_session *s, const char *data, size_t len, struct gdb_reply *r);

/* The debugger wants a stop. */
void gdb_session_interrupt(struct gdb_session *s);

/* The vCPUs stand still again: GDB_REPLY, or GDB_RESUME when that was no stop to speak of. */
enum gdb_answer gdb_session_stopped(struct gdb_session *s, struct gdb_reply *r);

/* For files of this folder. */

#define GDB_ERROR_ARGUMENT "E16" /* EINVAL, as gdb prints it */
#define GDB_ERROR_MEMORY "E0e"   /* EFAULT */
#define GDB_ERROR_SPACE "E1c"    /* ENOSPC */
#define GDB_ERROR_RUNNING "E10"  /* EBUSY */

static inline struct vcpu *gdb_general(const struct gdb_session *s)
{
    return vcpu_get(s->cpus, s->general);
}

/* gdb_registers.c: the register file and its description. */
void gdb_registers_setup(struct gdb_session *s);
char *gdb_description_create(const struct gdb_session *s); /* malloc'd XML, or NULL */
void gdb_registers_read(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r);  /* g */
void gdb_registers_write(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r); /* G */
void gdb_register_read(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r);   /* p */
void gdb_register_write(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r);  /* P */

u64 gdb_pc(const struct gdb_session *s, int cpu);                                         /* as gdb is shown it */
bool gdb_pc_set(struct gdb_session *s, int cpu, u64 pc);                                  /* false: refused */

/* gdb_memory.c: memory and points. */
void gdb_memory_read(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r);         /* m */
void gdb_memory_write(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r);        /* M */
void gdb_memory_write_binary(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r); /* X */
void gdb_point_add(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r);           /* Z */
void gdb_point_remove(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r);        /* z */
bool gdb_point_hit(const struct gdb_session *s, u8 type, u64 address);

/* gdb_run.c: going on, and stop replies. */
enum gdb_answer gdb_continue(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r); /* c, C */
enum gdb_answer gdb_step(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r);     /* s, S */
enum gdb_answer gdb_vcont(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r);    /* vCont; */
void gdb_stop_reply(struct gdb_session *s, struct gdb_reply *r);

/* A vCPU as gdb counts threads: from 1; 0 is any (the first), -1 all, returned as -1 where `all` allows it. */
bool gdb_scan_thread(const struct gdb_session *s, struct gdb_scan *p, bool all, int *ret);

/* gdb_query.c: q and Q packets. */
void gdb_query(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r);
void gdb_set(struct gdb_session *s, struct gdb_scan *p, struct gdb_reply *r);

/* gdb_monitor.c: a command of gdb's "monitor"; the reply is what to print. */
void gdb_monitor(struct gdb_session *s, const char *command, struct gdb_reply *r);

#endif
