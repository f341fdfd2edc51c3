/* Sequences as text: as assembly for people, and as one line in the notation of case_text.h, with CODE instead of an instruction's bytes:
 *
 *   64 code:20000800=48ffc0 code:20000ffe=ebfe ; rax=1 rip=20000800 flags=a02 mem:10001800=0102 x:24=801f */
#ifndef TESTS_INSN_SEQ_TEXT_H
#define TESTS_INSN_SEQ_TEXT_H
#include "sequence.h"

#include <stdio.h>

void sequence_print(FILE *out, const struct sequence *q, u64 components);
void sequence_print_assembly(FILE *out, const struct sequence *q);

/* Reads a line: q has code and state then, and no pieces. -EINVAL and a sentence when it cannot be read. */
int sequence_parse(const char *line, u64 components, struct sequence *q, struct err *e);

#endif
