/* A whole PC with every device that skerry has, on fake vCPUs (or real ones, if the program links those): consoles that
 * swallow what is written, a small disk file, a network card on a wire with nobody else, and a multiboot kernel of a few
 * bytes. Its clock stands still until fixture_time moves it. */
#ifndef TESTS_PC_FIXTURE_H
#define TESTS_PC_FIXTURE_H
#include "board/pc.h"
#include "machine_fixture.h"
#include "net/backend.h"
#include "ui/console_backend.h"

#define PC_FIXTURE_ENTRY 0x100020u /* where the kernel wants to be entered */

struct machine *pc_fixture(u64 ram_size, int cpus);
void pc_fixture_free(struct machine *m);

/* What hangs on the serial port, the virtio console and port 0xE9 (0, 1, 2), and the network card's wire. */
struct console *pc_fixture_console(int n);
struct net *pc_fixture_net(void);

/* Lets the loop thread's posted tasks run. */
void pc_fixture_tasks(struct machine *m);

#endif
