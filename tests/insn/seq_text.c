/* Writing and reading sequences: see seq_text.h. */
#include "seq_text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "case_text.h"

#define FILL 0xcc

void sequence_print(FILE *out, const struct sequence *q, u64 components)
{
    fprintf(out, "%d", q->c.code_size * 8);
    for (u32 n = 0; n < CODE_SIZE; n++) {
        if (q->code[n] == FILL)
            continue;
        fprintf(out, " code:%llx=", (unsigned long long)CODE_VA + n);
        for (; n < CODE_SIZE && q->code[n] != FILL; n++)
            fprintf(out, "%02x", q->code[n]);
    }
    case_print_state(out, &q->c, components);
}

void sequence_print_assembly(FILE *out, const struct sequence *q)
{
    static struct insn_case c;
    struct decoded d;

    for (int n = 0; n < q->count; n++) {
        c = q->c;
        c.s.rip = q->c.s.rip + q->at[n] - q->at[0];
        memset(c.bytes, 0, INSN_MAX);
        memcpy(c.bytes, q->piece[n].bytes, q->piece[n].len);
        case_decode(&c, &d);
        fprintf(out, "    %llx  ", (unsigned long long)c.s.rip);
        case_print_assembly(out, &c, &d);
        fprintf(out, "\n");
    }
}

static int code_parse(const char *word, struct sequence *q)
{
    char *end;
    u64 at = strtoull(word + 5, &end, 16) - CODE_VA;
    unsigned byte;

    if (*end++ != '=')
        return -1;
    for (; *end && end[1]; end += 2, at++) {
        if (at >= CODE_SIZE || sscanf(end, "%2x", &byte) != 1)
            return -1;
        q->code[at] = (u8)byte;
    }
    return *end ? -1 : 0;
}

int sequence_parse(const char *line, u64 components, struct sequence *q, struct err *e)
{
    static char rest[65536], part[CODE_SIZE * 2 + 64];
    const char *state = strchr(line, ';');

    q->count = 0;
    q->at[0] = CODE_SIZE;
    memset(q->code, FILL, CODE_SIZE);
    for (const char *word = strstr(line, "code:"); word; word = strstr(word + 5, "code:")) {
        snprintf(part, sizeof(part), "%.*s", (int)strcspn(word, " \n"), word);
        if (code_parse(part, q))
            return err_set(e, -EINVAL, "a sequence cannot have '%s'", part);
    }
    snprintf(rest, sizeof(rest), "%.2s %s", line, state ? state : ";");
    return case_parse(rest, components, &q->c, e);
}
