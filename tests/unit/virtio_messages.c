/* driver_messages of virtio_driver.h, apart from the rest: it needs the fake vCPUs' log. */
#include "virtio_driver.h"

int driver_messages(struct machine *m, u8 vector)
{
    struct fake_vcpu_log *log = fake_vcpu_log(m->cpus);
    int n = 0;

    for (int i = 0; i < log->message_count && i < FAKE_MESSAGES; i++)
        n += log->message[i].vector == vector;
    return n;
}
