/* vCPU threads: see vcpu_threads.h. Threads end at each stop rather than park: resets are rare, and a thread that is
 * joined certainly holds nothing. */
#include "machine/vcpu_threads.h"
#include "machine/machine.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct machine_threads {
    int count;
    pthread_t thread[VCPUS_MAX];
};

static void *vcpu_thread(void *vcpu)
{
    vcpu_run(vcpu);
    return NULL;
}

static int vcpu_thread_start(struct machine *m, int index, struct err *e)
{
    pthread_t *thread = &m->threads->thread[index];
    char name[16]; /* the kernel's limit */
    int r = pthread_create(thread, NULL, vcpu_thread, vcpu_get(m->cpus, index));

    if (r)
        return err_set(e, -r, "cannot start the thread of vCPU %d: %s", index, strerror(r));
    snprintf(name, sizeof(name), "vcpu %hhu", (u8)index);
    pthread_setname_np(*thread, name);
    m->threads->count++;
    return 0;
}

int vcpu_threads_start(struct machine *m, struct err *e)
{
    int r = 0;

    assert(!m->threads);
    m->threads = calloc(1, sizeof(*m->threads));
    if (!m->threads)
        return err_set(e, -ENOMEM, "vCPU threads: out of memory");
    vcpu_group_resume(m->cpus);
    for (int i = 0; !r && i < vcpu_count(m->cpus); i++)
        r = vcpu_thread_start(m, i, e);
    if (r)
        vcpu_threads_stop(m);
    return r;
}

void vcpu_threads_stop(struct machine *m)
{
    if (!m->threads)
        return;
    vcpu_group_stop(m->cpus);
    for (int i = 0; i < m->threads->count; i++)
        pthread_join(m->threads->thread[i], NULL);
    free(m->threads);
    m->threads = NULL;
}
