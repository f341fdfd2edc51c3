/* A whole PC with every device that skerry has, on fake vCPUs: null consoles, a small disk file, a network card
 * without a link, and a multiboot kernel of a few bytes. Its clock stands still until fixture_time moves it. */
#ifndef TESTS_PC_FIXTURE_H
#define TESTS_PC_FIXTURE_H
#include "board/pc.h"
#include "machine_fixture.h"

#define PC_FIXTURE_ENTRY 0x100020u /* where the kernel wants to be entered */

struct machine *pc_fixture(u64 ram_size, int cpus);
void pc_fixture_free(struct machine *m);

/* Lets the loop thread's posted tasks run. */
void pc_fixture_tasks(struct machine *m);

#endif
