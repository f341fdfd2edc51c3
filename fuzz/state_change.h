/* State streams that lie, for fuzzers. */
#ifndef FUZZ_STATE_CHANGE_H
#define FUZZ_STATE_CHANGE_H
#include "base/state.h"
#include "fuzz_input.h"

/* A stream of the state `s` in which the input has changed some values, and perhaps bytes of the stream itself or where it
 * ends; for the caller to free. */
u8 *state_stream_changed(const struct state_table *t, const void *s, struct fuzz_input *in, size_t *ret_len);

#endif
