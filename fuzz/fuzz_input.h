/* A fuzzer's input as a stream of numbers: what is missing at its end reads as zero. */
#ifndef FUZZ_INPUT_H
#define FUZZ_INPUT_H
#include "base/types.h"

struct fuzz_input {
    const u8 *at;
    size_t left;
};

static inline u64 take(struct fuzz_input *in, int bytes)
{
    u64 v = 0;

    for (; bytes && in->left; bytes--, in->left--)
        v = v << 8 | *in->at++;
    return v;
}

/* A size that an access can have, and a value of that many bytes behind it. */
static inline int take_size(struct fuzz_input *in, int max)
{
    int size = 1 << (take(in, 1) & 3);

    return MIN(size, max);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

#endif
