/* The DSDT's AML: the devices of the PC board that no bus enumerates. */
#ifndef FIRMWARE_DSDT_H
#define FIRMWARE_DSDT_H
#include "firmware/acpi.h"
#include "firmware/byte_buffer.h"

/* Appends the definition block's body (what follows the table header) to `out`. */
void dsdt_append(struct byte_buffer *out, const struct acpi_config *config);

#endif
