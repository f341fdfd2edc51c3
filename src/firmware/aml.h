/* Writes AML, the byte code of ACPI's DSDT. ACPI 6.4 ch. 20 (encoding), §6.4 (resource descriptors).
 *
 * Objects with a body (scopes, devices, packages, resource templates, methods) are opened and closed in pairs; what is
 * put between is their body. Names are ASL's: "\\_SB.PCI0", "_HID"; segments shorter than four characters are filled
 * up with '_'. */
#ifndef FIRMWARE_AML_H
#define FIRMWARE_AML_H
#include "firmware/byte_buffer.h"

#define AML_DEPTH_MAX 8

struct aml {
    struct byte_buffer *out;
    size_t open[AML_DEPTH_MAX]; /* where the lengths of the open objects will be inserted */
    int depth;
};

void aml_scope_open(struct aml *a, const char *name);
void aml_device_open(struct aml *a, const char *name);
void aml_package_open(struct aml *a, u8 count);
void aml_close(struct aml *a);

/* Name (name, …): the value is what is put next: an integer, a string, an EISA id, a package, a resource template. */
void aml_name(struct aml *a, const char *name);
void aml_integer(struct aml *a, u64 v);
void aml_string(struct aml *a, const char *s);
void aml_eisa_id(struct aml *a, const char *id); /* "PNP0A03" */
void aml_reference(struct aml *a, const char *name);
void aml_name_integer(struct aml *a, const char *name, u64 v);

/* A method without a body. */
void aml_method_empty(struct aml *a, const char *name, int arguments);

/* ResourceTemplate () { … } */
void aml_resources_open(struct aml *a);
void aml_resources_close(struct aml *a);
void aml_io(struct aml *a, u16 port, u8 len);       /* fixed, 16-bit decode */
void aml_irq(struct aml *a, u8 irq);                /* ISA: edge, active high, exclusive */
void aml_interrupt_level_high(struct aml *a, u32 gsi); /* level, active high, shared */
void aml_memory32_fixed(struct aml *a, u32 base, u32 size);

/* What a bridge passes on: first and last bus, port or address, both inclusive. */
void aml_window_bus(struct aml *a, u8 first, u8 last);
void aml_window_io(struct aml *a, u16 first, u16 last);
void aml_window_memory32(struct aml *a, u32 first, u32 last, bool cacheable);
void aml_window_memory64(struct aml *a, u64 first, u64 last, bool cacheable);

#endif
