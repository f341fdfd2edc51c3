/* Moves a device's kept state to another device of the same type through a stream, as save and restore do, and
 * checks on the way that the table is complete and that the state arrives. */
#ifndef TESTS_DEVICE_STATE_H
#define TESTS_DEVICE_STATE_H
#include "machine/device.h"

void device_state_move(struct device *from, struct device *to);

#endif
