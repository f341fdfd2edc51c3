/* Commands behind gdb's "monitor": what the protocol has no packets for. */
#include "debug/gdb_session.h"

#include <stdio.h>
#include <string.h>

/* Value of the register called `name`, or 0 where there is none. */
static u64 value(const struct gdb_session *s, struct vcpu *c, const char *name)
{
    u8 bytes[DEBUG_REGISTER_BYTES_MAX] = {0};
    u64 val = 0;

    for (int n = 0; n < s->reg_count; n++)
        if (!strcmp(s->reg[n].name, name))
            debug_register_read(c, &s->reg[n], bytes);
    memcpy(&val, bytes, 8);
    return val;
}

static const char *const general64[] = {"rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8",
                                        "r9",  "r10", "r11", "r12", "r13", "r14", "r15", "rip", NULL};
static const char *const general32[] = {"eax", "ebx", "ecx", "edx", "esi", "edi", "ebp", "esp", "eip", NULL};
static const char *const systems[] = {"eflags", "cpl",       "efer",       "cr0",       "cr2",        "cr3", "cr4", "cr8",
                                      "xcr0",   "gdtr_base", "gdtr_limit", "idtr_base", "idtr_limit", "tr",  "ldtr", "dr0",
                                      "dr1",    "dr2",       "dr3",        "dr6",       "dr7",        NULL};
static const char *const segments[] = {"cs", "ss", "ds", "es", "fs", "gs", NULL};

static void registers_put(const struct gdb_session *s, struct vcpu *c, const char *const *names, int digits, int columns,
                          struct gdb_reply *r)
{
    int n = 0;

    for (; names[n]; n++)
        reply_text(r, "%-10s %0*llx%s", names[n], digits, (unsigned long long)value(s, c, names[n]),
                   n % columns == columns - 1 ? "\n" : "   ");
    if (n % columns)
        reply_text(r, "\n");
}

static void segments_put(const struct gdb_session *s, struct vcpu *c, struct gdb_reply *r)
{
    for (int n = 0; segments[n]; n++) {
        char base[16] = "";

        strcpy(base, segments[n]);
        strcat(base, "_base");
        reply_text(r, "%-10s %04llx base %016llx\n", segments[n], (unsigned long long)value(s, c, segments[n]),
                   (unsigned long long)value(s, c, base));
    }
}

static void registers_of(struct gdb_session *s, int cpu, struct gdb_reply *r)
{
    struct vcpu *c = vcpu_get(s->cpus, cpu);
    int digits = s->arch == DEBUG_X86_64 ? 16 : 8;

    reply_text(r, "vCPU %d, %s\n", cpu, debug_activity(c));
    registers_put(s, c, s->arch == DEBUG_X86_64 ? general64 : general32, digits, 3, r);
    segments_put(s, c, r);
    registers_put(s, c, systems, digits, 3, r);
}

static void info_registers(struct gdb_session *s, struct gdb_reply *r)
{
    registers_of(s, s->general, r);
}

static void info_cpus(struct gdb_session *s, struct gdb_reply *r)
{
    for (int n = 0; n < vcpu_count(s->cpus); n++)
        reply_text(r, "vCPU %d (thread %d): at %llx, %s\n", n, n + 1,
                   (unsigned long long)debug_next_linear(vcpu_get(s->cpus, n)), debug_activity(vcpu_get(s->cpus, n)));
}

static void reset(struct gdb_session *s, struct gdb_reply *r)
{
    s->host->reset(s->host->ctx);
    reply_text(r, "the machine was reset; gdb learns of it by: maintenance flush register-cache\n");
}

static void physical_on(struct gdb_session *s, struct gdb_reply *r)
{
    s->physical = true;
    reply_text(r, "memory addresses are guest-physical; gdb forgets what it read by: maintenance flush dcache\n");
}

static void physical_off(struct gdb_session *s, struct gdb_reply *r)
{
    s->physical = false;
    reply_text(r, "memory addresses are virtual, of the current thread's vCPU\n");
}

static void pc_linear(struct gdb_session *s, struct gdb_reply *r)
{
    s->linear_pc = true;
    reply_text(r, "the instruction pointer is shown with the base of CS added\n");
}

static void pc_offset(struct gdb_session *s, struct gdb_reply *r)
{
    s->linear_pc = false;
    reply_text(r, "the instruction pointer is shown as it is, an offset in CS\n");
}

static void step_interrupts(struct gdb_session *s, struct gdb_reply *r, bool on)
{
    s->step_events = on;
    debug_step_events(s->cpus, on);
    reply_text(r, on ? "interrupts are delivered while stepping\n" : "interrupts wait while stepping\n");
}

static void step_interrupts_on(struct gdb_session *s, struct gdb_reply *r)
{
    step_interrupts(s, r, true);
}

static void step_interrupts_off(struct gdb_session *s, struct gdb_reply *r)
{
    step_interrupts(s, r, false);
}

static void quit(struct gdb_session *s, struct gdb_reply *r)
{
    s->host->kill(s->host->ctx);
}

static const struct {
    const char *words, *what;
    void (*run)(struct gdb_session *s, struct gdb_reply *r);
} commands[] = {
    {"info registers", "registers of the vCPU that gdb asked about last; info registers N: of vCPU N", info_registers},
    {"info cpus", "what each vCPU is about", info_cpus},
    {"phys on", "memory addresses are guest-physical", physical_on},
    {"phys off", "memory addresses are virtual (at first)", physical_off},
    {"pc linear", "show the instruction pointer with the base of CS added, for 16-bit code", pc_linear},
    {"pc offset", "show it as it is (at first)", pc_offset},
    {"step-interrupts on", "steps deliver interrupts, each delivery a step", step_interrupts_on},
    {"step-interrupts off", "interrupts wait while stepping (at first)", step_interrupts_off},
    {"reset", "reset the machine; it stays stopped", reset},
    {"quit", "end the machine", quit},
};

void gdb_monitor(struct gdb_session *s, const char *command, struct gdb_reply *r)
{
    int cpu;

    if (sscanf(command, "info registers %2d", &cpu) == 1 && cpu >= 0 && cpu < vcpu_count(s->cpus)) {
        registers_of(s, cpu, r);
        return;
    }
    for (size_t n = 0; n < ARRAY_SIZE(commands); n++)
        if (!strcmp(commands[n].words, command)) {
            commands[n].run(s, r);
            return;
        }
    if (strcmp(command, "help"))
        reply_text(r, "no command '%.64s'; there are:\n", command);
    for (size_t n = 0; n < ARRAY_SIZE(commands); n++)
        reply_text(r, "%-20s %s\n", commands[n].words, commands[n].what);
}
