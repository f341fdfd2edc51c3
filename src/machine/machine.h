/* One guest computer: everything that belongs to it hangs off `struct machine`.
 *
 * Threads: one a vCPU, and the loop thread, which runs machine_run(). `lock` guards all device state; vCPU threads take
 * it for every port and memory-mapped access, the loop thread for every callback. */
#ifndef MACHINE_MACHINE_H
#define MACHINE_MACHINE_H
#include "base/err.h"
#include "base/event_loop.h"
#include "base/timer.h"
#include "base/types.h"
#include "cpu/vcpu.h"
#include "machine/device.h"
#include "machine/io_bus.h"
#include "machine/irq.h"
#include "mem/guest_memory.h"
#include <pthread.h>

enum machine_end {
    MACHINE_RUNNING,
    MACHINE_POWER_OFF,    /* the guest switched itself off (ACPI S5) */
    MACHINE_RESET,        /* the guest reset, and config.no_reboot */
    MACHINE_TRIPLE_FAULT, /* shutdown cycle, and config.no_reboot */
    MACHINE_DEBUG_EXIT,   /* the isa-debug-exit port; end_value is the process's exit status */
    MACHINE_TIMEOUT,      /* config.timeout ran out */
    MACHINE_QUIT,         /* the user ended it from outside (Ctrl-a x, SIGTERM) */
    MACHINE_FAILED,       /* ours: end_text says what */
};

struct machine_config {
    u64 ram_size;
    int cpu_count;
    enum cpu_engine engine;
    u32 stress; /* enum vcpu_stress: what --stress named */
    enum cpu_windows windows;
    struct cpu_model_name model; /* what --cpu-model named */
    const struct insn_trace_config *insn_trace; /* of cpu/insn_trace.h, the caller's; NULL: none */
    const struct jit_profile_config *profile;   /* of cpu/jit_profile.h, the caller's; NULL: none */
    bool no_reboot;
    u64 timeout_ns; /* of host time; 0: none */
    u32 slow_clock; /* the guest's second takes so many of the host's; 0: one. Not under the KVM engine, whose TSC is the host's */
    /* Of the VM process, both the caller's: disks and consoles hang on them before there is a machine. The lock is
     * recursive, and the one that `loop` was created with. */
    struct event_loop *loop;
    pthread_mutex_t *lock;
};

struct io_range;
struct machine_threads;
struct pci_bus;

struct machine {
    struct machine_config config;
    pthread_mutex_t *lock; /* = config.lock; recursive: a device may touch the bus from inside a handler */
    struct event_loop *loop;
    struct clock clock;
    struct timer_queue timers;
    struct guest_memory *mem;
    struct vcpu_group *cpus;
    struct device *devices; /* in order of device_add */
    struct device **devices_end;
    struct io_range *pio, *mmio; /* newest first: the first that holds an address answers */
    struct pci_bus *pci;
    void (*boot)(struct machine *m, void *ctx); /* see machine_set_boot */
    void *boot_ctx;
    /* interrupt hooks of the board */
    int (*pic_ack)(struct device *pic); /* INTA cycle: the vector; called with the lock held */
    struct device *pic;
    void (*ioapic_eoi)(struct device *ioapic, u8 vector);
    struct device *ioapic;
    void (*ferr)(struct device *dev, bool level); /* the processors' FERR# pin; called with the lock held */
    struct device *ferr_device;
    int timer_fd, timeout_fd; /* timerfds: the first deadline of `timers`; config.timeout_ns */
    struct watch *timer_watch, *timeout_watch;
    pthread_mutex_t end_lock; /* guards what follows, to `waking`; innermost */
    enum machine_end end;
    int end_value;
    char end_text[256];
    bool reset_wanted, pause_wanted;
    bool asleep, waking; /* see machine_sleep */
    bool paused; /* loop thread's */
    void (*on_pause)(void *ctx); /* see machine_on_pause */
    void *pause_ctx;
    struct machine_threads *threads; /* of the vCPUs, while they run */
};

/* Makes a machine with memory (one region per the board's later guest_memory_map calls), vCPUs and empty buses.
 * `backing_size` is RAM plus what ROMs the board will map. */
int machine_create(const struct machine_config *config, u64 backing_size, struct machine **ret, struct err *e);
void machine_free(struct machine *m); /* devices too; NULL is fine */

/* The board's hook that puts the guest's first code and vCPU 0's first registers in place; called at the start and
 * after every reset, with vCPUs stopped and devices reset. */
void machine_set_boot(struct machine *m, void (*boot)(struct machine *m, void *ctx), void *ctx);

/* Runs until the guest or the user ends it, in the calling thread (the loop thread); returns why. */
enum machine_end machine_run(struct machine *m);

/* Ends it, from any thread; the first reason stays. */
void machine_stop(struct machine *m, enum machine_end why, int value, const char *text);

/* The guest asked for a reset (8042, port 0xCF9, ACPI, triple fault with `why` MACHINE_TRIPLE_FAULT): with no_reboot
 * the machine ends, else all vCPUs stop, devices reset, boot runs, vCPUs start. Any thread; returns at once. */
void machine_reset(struct machine *m, enum machine_end why);

/* Stops all vCPUs between two instructions, and the guest's clock; any thread, also before machine_run. Returns at once: the
 * machine stands still when the function of machine_on_pause is called, in the loop thread with the lock held. Devices and
 * the loop live on. A reset or an end that was asked for before comes first. */
void machine_pause(struct machine *m);
void machine_on_pause(struct machine *m, void (*paused)(void *ctx), void *ctx);

/* While it is paused, in the loop thread: lets it run again; resets it (it stays paused). */
void machine_continue(struct machine *m);
void machine_restart(struct machine *m);

/* ACPI S3. machine_sleep stops all vCPUs and leaves memory and devices as they are; time goes on, and devices go on
 * serving the host. machine_wake then resets the machine, whose devices and boot hook find machine_waking true. A reset
 * ends the sleep too. Any thread; return at once. */
void machine_sleep(struct machine *m);
void machine_wake(struct machine *m); /* no effect while it is awake */
bool machine_waking(struct machine *m);

/* Current guest time in ns. */
static inline u64 machine_now(const struct machine *m)
{
    return clock_now(&m->clock);
}

/* Message-signalled interrupt: a write of `data` to `addr` (0xFEEx_xxxx), SDM vol. 3 §11.11. */
void machine_msi(struct machine *m, u64 addr, u32 data);

/* One message on the APIC bus, from an I/O APIC: `delivery` is its 3-bit delivery mode, `logical` its destination
 * mode, `level` that the request is level-triggered, so that the EOI comes back through ioapic_eoi. Any thread. */
void machine_apic_send(struct machine *m, u32 dest, u8 vector, u8 delivery, bool logical, bool level);

/* The PIC's INTR output towards LINT0 of the boot vCPU. Usable as the `set` of a struct irq (ctx: the machine). */
void machine_intr_set(void *machine, int pin, bool level);

/* IGNNE# of all processors: see cpu/vcpu.h. */
void machine_set_ignne(struct machine *m, bool level);

/* The A20 gate, for the chip that has it: see cpu/vcpu.h. DMA is not concerned, as on the AT. */
void machine_set_a20(struct machine *m, bool open);

/* DMA by devices: all or nothing, RAM only; -EFAULT otherwise. */
static inline int dma_read(struct machine *m, u64 gpa, void *buf, u64 len)
{
    return guest_memory_read(m->mem, gpa, buf, len);
}
static inline int dma_write(struct machine *m, u64 gpa, const void *buf, u64 len)
{
    return guest_memory_write(m->mem, gpa, buf, len);
}

#endif
