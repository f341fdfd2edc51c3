/* "Did you mean": the nearest of some words to one that was mistyped. */
#ifndef CLI_SUGGEST_H
#define CLI_SUGGEST_H

struct suggestion {
    const char *word; /* what was typed; the rest starts zeroed */
    const char *best;
    int distance;
};

void suggest_offer(struct suggestion *s, const char *candidate);

/* The nearest word offered, or NULL when none is near enough to be what was meant. */
const char *suggest_best(const struct suggestion *s);

#endif
