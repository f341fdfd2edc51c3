/* Five bodies under gravity, in double precision: scalar SSE additions, multiplications, a square root and a division
 * for each pair. IEEE 754 makes the energy at the end the same to the last bit on every right processor. */
#include "kernel.h"

#include <math.h>
#include <string.h>

#define BODIES 5
#define STEPS 50000
#define STEP_LENGTH 0.001

struct body {
    double place[3], speed[3], mass;
};

static const struct body at_start[BODIES] = {
    {{0, 0, 0}, {0, 0, 0}, 40},
    {{5, 0.5, 0.25}, {0, 2.75, 0.125}, 0.0375},
    {{-9, 2, 1}, {-0.5, -2, 0.25}, 0.0125},
    {{3, -14, 0.5}, {1.625, 0.375, 0}, 0.002},
    {{-20, -11, 2}, {0.75, -1.125, 0.0625}, 0.0025},
};
static struct body bodies[BODIES];

static double distance_squared(const struct body *a, const struct body *b, double difference[3])
{
    double sum = 0;

    for (int i = 0; i < 3; i++) {
        difference[i] = a->place[i] - b->place[i];
        sum += difference[i] * difference[i];
    }
    return sum;
}

static void attract(struct body *a, struct body *b)
{
    double difference[3], squared = distance_squared(a, b, difference), pull = STEP_LENGTH / (squared * sqrt(squared));

    for (int i = 0; i < 3; i++) {
        a->speed[i] -= difference[i] * b->mass * pull;
        b->speed[i] += difference[i] * a->mass * pull;
    }
}

static void advance(void)
{
    for (int a = 0; a < BODIES; a++)
        for (int b = a + 1; b < BODIES; b++)
            attract(&bodies[a], &bodies[b]);
    for (int a = 0; a < BODIES; a++)
        for (int i = 0; i < 3; i++)
            bodies[a].place[i] += STEP_LENGTH * bodies[a].speed[i];
}

static double energy(void)
{
    double sum = 0, difference[3];

    for (int a = 0; a < BODIES; a++) {
        for (int i = 0; i < 3; i++)
            sum += bodies[a].mass * bodies[a].speed[i] * bodies[a].speed[i] / 2;
        for (int b = a + 1; b < BODIES; b++)
            sum -= bodies[a].mass * bodies[b].mass / sqrt(distance_squared(&bodies[a], &bodies[b], difference));
    }
    return sum;
}

static u64 nbody_round(void)
{
    double result;
    u64 bits;

    memcpy(bodies, at_start, sizeof(bodies));
    for (int i = 0; i < STEPS; i++)
        advance();
    result = energy();
    memcpy(&bits, &result, sizeof(bits));
    return bits;
}

static const struct kernel kernel = {
    .name = "nbody", .rounds = 40, .checksum = 0xbfc80e5c3529130c, .round = nbody_round};

int main(int argc, char **argv)
{
    return kernel_run(&kernel, argc, argv);
}
