/* What one virtual machine is made of, as plain data: the command line fills it in, the VM process builds from it.
 *
 * Between the two it travels as JSON (RFC 8259); its keys are the tables in vm_config.c. The decoder treats its
 * input as hostile: unknown keys, wrong types and numbers out of range are refused with a sentence. */
#ifndef PROTO_VM_CONFIG_H
#define PROTO_VM_CONFIG_H
#include "base/err.h"
#include "base/types.h"

#define VM_CPUS_MAX 16
#define VM_DISKS_MAX 8
#define VM_FORWARDS_MAX 64
#define VM_TEXT_MAX 4096 /* bytes of a path or a kernel command line */
#define VM_SERIAL_MAX 20 /* bytes of a disk's serial number, as virtio-blk has room for */
#define VM_MODEL_MAX 255
#define VM_SLOW_CLOCK_MAX 1000
#define VM_MEMORY_MIN MIB(1)
#define VM_MEMORY_MAX (MIB(1) << 20) /* 1 TiB */

enum vm_engine { VM_ENGINE_AUTO, VM_ENGINE_INTERP, VM_ENGINE_JIT, VM_ENGINE_KVM, VM_ENGINE_LOCKSTEP };
enum vm_stress { VM_STRESS_HOT, VM_STRESS_FLUSH, VM_STRESS_EVICT, VM_STRESS_SMC, VM_STRESS_RENAME, VM_STRESS_COUNT };
enum vm_windows { VM_WINDOWS_AUTO, VM_WINDOWS_OFF, VM_WINDOWS_ALWAYS };
enum vm_disk_format { VM_DISK_AUTO, VM_DISK_RAW, VM_DISK_QCOW2 };
enum vm_gdb_arch { VM_GDB_AUTO, VM_GDB_I386, VM_GDB_X86_64 };
enum vm_console_kind { VM_CONSOLE_NONE, VM_CONSOLE_STDIO, VM_CONSOLE_FILE };

/* What their members are called on the command line and on the wire; NULL ends each list. */
extern const char *const vm_engine_names[], *const vm_stress_names[], *const vm_windows_names[], *const vm_disk_format_names[], *const vm_console_kind_names[],
    *const vm_gdb_arch_names[];

/* The index of `name` in such a list, or -1. */
int vm_name_find(const char *const *names, const char *name);

struct vm_disk {
    char *path;
    unsigned format; /* enum vm_disk_format */
    bool readonly, snapshot;
    char *serial; /* NULL: none */
};

struct vm_forward {
    bool udp;
    u32 host_addr; /* IPv4, network order; 0: 127.0.0.1 */
    int host_port, guest_port;
};

struct vm_console {
    unsigned kind; /* enum vm_console_kind */
    char *path;    /* VM_CONSOLE_FILE */
};

/* Strings are malloc'd and the config's own. */
struct vm_config {
    u64 memory; /* bytes, a multiple of 1 MiB */
    int cpus;
    unsigned engine; /* enum vm_engine */
    u32 stress;      /* bit n: the kind n of enum vm_stress, for the translator */
    unsigned windows; /* enum vm_windows */
    char *cpu_model; /* NULL: the best that the host can back */
    char *kernel, *initrd, *append; /* NULL: none */
    struct vm_disk disk[VM_DISKS_MAX];
    int disk_count;
    bool net; /* a virtio network card on the user network */
    struct vm_forward forward[VM_FORWARDS_MAX];
    int forward_count;
    struct vm_console serial, virtio_console, debugcon; /* NONE: the device is absent */
    bool debug_exit, pc_testdev, pci_testdev, rng, balloon;
    bool no_reboot;
    u64 timeout_ms; /* 0: none */
    u64 slow_clock; /* the guest's second takes so many of the host's; 0: one */
    char *trace;    /* list of trace categories, NULL: none */
    char *dump;     /* list of base/dump.h, NULL: none */
    char *dump_file; /* NULL: stderr */
    char *profile; /* file for the profile of translated code, NULL: none */
    char *trace_insns; /* file for the instruction trace, NULL: none */
    u64 trace_insns_from, trace_insns_count; /* of each vCPU's instructions; count 0: all that follow */
    bool trace_insns_regs;
    char *gdb;      /* where a debugger connects, as debug/gdb_listen.h says; NULL: nowhere */
    bool gdb_wait;  /* it is waited for before the first instruction */
    unsigned gdb_arch; /* enum vm_gdb_arch: the register file that it is shown */
};

void vm_config_init(struct vm_config *c); /* the defaults of `skerry run` */
void vm_config_free(struct vm_config *c); /* what it points at, not itself; leaves it empty */

/* JSON text, malloc'd. -EINVAL with a sentence when a string in it is not UTF-8. */
int vm_config_encode(const struct vm_config *c, char **ret, struct err *e);

/* Fills *ret from JSON text; the caller frees it. -EINVAL with a sentence, *ret untouched. */
int vm_config_decode(const char *text, size_t len, struct vm_config *ret, struct err *e);

/* Rules between fields that hold however a config came about: one owner of stdin and stdout, forwards only with a
 * network. -EINVAL with a sentence. */
int vm_config_check(const struct vm_config *c, struct err *e);

#endif
