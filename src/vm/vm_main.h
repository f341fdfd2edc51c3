/* The VM process: one machine, its vCPU threads, its device loop. `skerry run` starts it as
 * `skerry vm --channel-fd N`. */
#ifndef VM_VM_MAIN_H
#define VM_VM_MAIN_H

/* Takes its configuration from the channel, runs the machine, reports there how it ended. argv[0] is "vm". Returns the
 * process's exit status: 0 when the report was delivered. */
int vm_main(int argc, char **argv);

#endif
