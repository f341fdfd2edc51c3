/* See device_state.h. */
#include "device_state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

void device_state_move(struct device *from, struct device *to)
{
    const struct state_table *table = &from->type->state;
    u8 *stream = malloc(state_stream_size(table));
    size_t len = state_save(table, device_state(from), stream);

    assert_ptr_equal(from->type, to->type);
    assert_int_equal(state_covered(table), table->size);
    assert_int_equal(state_load(table, device_state(to), stream, len), 0);
    if (to->type->loaded)
        to->type->loaded(to);
    assert_null(state_differs(table, device_state(from), device_state(to)));
    free(stream);
}
