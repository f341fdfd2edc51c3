/* Who may use the data clusters of an image: any number of transfers to clusters that stay where they are (shared), or
 * one operation that moves or frees clusters (exclusive).
 *
 * Unlike a pthread_rwlock, a shared hold may be released by another thread than the one that took it: io_uring
 * transfers begin and end outside any worker. A waiting exclusive user holds back new shared ones, so that it does not
 * starve. */
#ifndef DISK_GATE_H
#define DISK_GATE_H
#include "base/types.h"
#include <pthread.h>

struct gate {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    unsigned shared, waiting; /* holds; exclusive users in line */
    bool exclusive;
};

void gate_init(struct gate *g);
void gate_destroy(struct gate *g); /* nobody holds it */
void gate_shared(struct gate *g);
bool gate_try_shared(struct gate *g); /* never waits */
void gate_exclusive(struct gate *g);
void gate_release(struct gate *g); /* either kind */

#endif
