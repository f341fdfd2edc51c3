/* Nearest words by edit distance (insertions, deletions, replacements, swapped neighbours): see suggest.h. */
#include "cli/suggest.h"

#include "base/types.h"
#include <stdlib.h>
#include <string.h>

#define WORD_MAX 32 /* longer words are compared by their start */

static int least(int a, int b, int c)
{
    return MIN(MIN(a, b), c);
}

static int edit_distance(const char *a, const char *b)
{
    int d[WORD_MAX + 1][WORD_MAX + 1];
    int rows = (int)strnlen(a, WORD_MAX), columns = (int)strnlen(b, WORD_MAX);

    for (int i = 0; i <= rows; i++)
        for (int j = 0; j <= columns; j++) {
            if (!i || !j) {
                d[i][j] = i + j;
                continue;
            }
            d[i][j] = least(d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                d[i][j] = MIN(d[i][j], d[i - 2][j - 2] + 1);
        }
    return d[rows][columns];
}

void suggest_offer(struct suggestion *s, const char *candidate)
{
    int distance = edit_distance(s->word, candidate);

    if (s->best && distance >= s->distance)
        return;
    s->best = candidate;
    s->distance = distance;
}

const char *suggest_best(const struct suggestion *s)
{
    /* a third of the letters wrong, or one of a short word */
    return s->best && s->distance <= MAX(1, (int)strlen(s->word) / 3) ? s->best : NULL;
}
