/* SMBIOS structures: see smbios.h. DSP0134 §5.2 (entry points), §6.1 (structures), §7 (their types).
 *
 * A structure is a formatted part, then its strings, each NUL-terminated, then a NUL; fields name strings by number
 * from 1 on. Sockets stand for vCPUs, one each, and one memory module for all of RAM: a guest sees the true topology
 * through CPUID. */
#include "firmware/smbios.h"
#include "firmware/byte_buffer.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* structure types; their number is their handle's high byte */
enum {
    BIOS = 0,
    SYSTEM = 1,
    CHASSIS = 3,
    PROCESSOR = 4,
    MEMORY_ARRAY = 16,
    MEMORY_DEVICE = 17,
    SYSTEM_BOOT = 32,
    END_OF_TABLE = 127,
};

enum { UNKNOWN = 2, NO_HANDLE = 0xfffe, NO_CACHE = 0xffff };
enum { BIOS_NO_CHARACTERISTICS = 1 << 3, BIOS_IS_VIRTUAL = 0x10 }; /* first of the flags, extension byte 2 */
enum { WAKE_UP_POWER_SWITCH = 6, CHASSIS_OTHER = 1, STATE_SAFE = 3 };
enum { CENTRAL_PROCESSOR = 3, SOCKET_POPULATED_ENABLED = 0x41, UPGRADE_OTHER = 1, PROCESSOR_64BIT = 1 << 2 };
enum { ARRAY_SYSTEM_BOARD = 3, ARRAY_SYSTEM_MEMORY = 3, ECC_NONE = 3, FORM_FACTOR_DIMM = 9, MEMORY_TYPE_RAM = 7 };
enum { SIZE_IN_EXTENDED_FIELD = 0x7fff };
enum { ENTRY2_SIZE = 31, ENTRY3_SIZE = 24, ENTRY3_OFFSET = 32, INTERMEDIATE_OFFSET = 16, INTERMEDIATE_SIZE = 15 };

struct structures {
    struct byte_buffer out;
    size_t start; /* of the open one */
    u16 count, largest;
};

static u16 handle_of(int type, int n)
{
    return (u16)(type << 8 | n);
}

static struct byte_buffer *structure_begin(struct structures *s, u8 type, u16 handle)
{
    s->start = s->out.len;
    bytes_put8(&s->out, type);
    bytes_put8(&s->out, 0); /* length: structure_end */
    bytes_put16(&s->out, handle);
    return &s->out;
}

/* The formatted part is complete; `strings` are NUL-terminated one after the other, the last too. */
static void structure_end(struct structures *s, const char *strings, size_t len)
{
    if (!s->out.failed)
        s->out.data[s->start + 1] = (u8)(s->out.len - s->start);
    if (len <= 1)
        bytes_put8(&s->out, 0); /* no strings at all: two NULs */
    else
        bytes_append(&s->out, strings, len);
    bytes_put8(&s->out, 0);
    s->count++;
    s->largest = MAX(s->largest, (u16)(s->out.len - s->start));
}

static void bios_append(struct structures *s)
{
    static const char strings[] = "skerry\0"
                                  "1\0"
                                  "01/01/2026";
    struct byte_buffer *b = structure_begin(s, BIOS, handle_of(BIOS, 0));

    bytes_put8(b, 1);
    bytes_put8(b, 2);
    bytes_put16(b, 0xe800); /* start segment */
    bytes_put8(b, 3);
    bytes_put8(b, 0); /* ROM size: 64 KiB */
    bytes_put64(b, BIOS_NO_CHARACTERISTICS);
    bytes_put8(b, 0);
    bytes_put8(b, BIOS_IS_VIRTUAL);
    bytes_put8(b, 1); /* release 1.0 */
    bytes_put8(b, 0);
    bytes_put16(b, 0xffff); /* no embedded controller */
    structure_end(s, strings, sizeof(strings));
}

/* The first three fields of a UUID are little-endian here. */
static void uuid_append(struct byte_buffer *b, const u8 uuid[16])
{
    static const u8 order[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};

    for (int i = 0; i < 16; i++)
        bytes_put8(b, uuid[order[i]]);
}

static void system_append(struct structures *s, const struct smbios_config *config)
{
    static const char strings[] = "skerry\0"
                                  "PC\0"
                                  "1";
    struct byte_buffer *b = structure_begin(s, SYSTEM, handle_of(SYSTEM, 0));

    bytes_put8(b, 1);
    bytes_put8(b, 2);
    bytes_put8(b, 3);
    bytes_put8(b, 0); /* serial number */
    uuid_append(b, config->uuid);
    bytes_put8(b, WAKE_UP_POWER_SWITCH);
    bytes_put8(b, 0); /* SKU */
    bytes_put8(b, 0); /* family */
    structure_end(s, strings, sizeof(strings));
}

static void chassis_append(struct structures *s)
{
    static const char strings[] = "skerry";
    struct byte_buffer *b = structure_begin(s, CHASSIS, handle_of(CHASSIS, 0));

    bytes_put8(b, 1);
    bytes_put8(b, CHASSIS_OTHER);
    bytes_append(b, NULL, 3); /* version, serial number, asset tag */
    bytes_put8(b, STATE_SAFE);
    bytes_put8(b, STATE_SAFE);
    bytes_put8(b, STATE_SAFE);
    bytes_put8(b, UNKNOWN);   /* security */
    bytes_put32(b, 0);        /* for the OEM */
    bytes_append(b, NULL, 5); /* height, power cords, contained elements, their size, SKU */
    structure_end(s, strings, sizeof(strings));
}

static void processor_append(struct structures *s, int n)
{
    char strings[32];
    int len = snprintf(strings, sizeof(strings), "CPU %d%cskerry", n, 0) + 1;
    struct byte_buffer *b = structure_begin(s, PROCESSOR, handle_of(PROCESSOR, n));

    bytes_put8(b, 1);
    bytes_put8(b, CENTRAL_PROCESSOR);
    bytes_put8(b, UNKNOWN); /* family */
    bytes_put8(b, 2);
    bytes_put64(b, 0); /* id: CPUID has it */
    bytes_put8(b, 0);
    bytes_append(b, NULL, 7); /* voltage, external clock, speeds: unknown */
    bytes_put8(b, SOCKET_POPULATED_ENABLED);
    bytes_put8(b, UPGRADE_OTHER);
    bytes_put16(b, NO_CACHE);
    bytes_put16(b, NO_CACHE);
    bytes_put16(b, NO_CACHE);
    bytes_append(b, NULL, 3); /* serial number, asset tag, part number */
    bytes_put8(b, 1);         /* cores, enabled cores, threads */
    bytes_put8(b, 1);
    bytes_put8(b, 1);
    bytes_put16(b, PROCESSOR_64BIT);
    bytes_put16(b, UNKNOWN); /* family, once more */
    bytes_put16(b, 1);       /* the counts, once more */
    bytes_put16(b, 1);
    bytes_put16(b, 1);
    structure_end(s, strings, (size_t)len);
}

static void memory_array_append(struct structures *s, const struct smbios_config *config)
{
    struct byte_buffer *b = structure_begin(s, MEMORY_ARRAY, handle_of(MEMORY_ARRAY, 0));

    bytes_put8(b, ARRAY_SYSTEM_BOARD);
    bytes_put8(b, ARRAY_SYSTEM_MEMORY);
    bytes_put8(b, ECC_NONE);
    bytes_put32(b, 0x80000000); /* capacity: in the extended field */
    bytes_put16(b, NO_HANDLE);  /* of error information */
    bytes_put16(b, 1);          /* devices */
    bytes_put64(b, config->ram_size);
    structure_end(s, "", 0);
}

static void memory_device_append(struct structures *s, const struct smbios_config *config)
{
    static const char strings[] = "DIMM 0\0"
                                  "skerry";
    u32 mib = (u32)MIN(config->ram_size >> 20, 0x7fffffff);
    struct byte_buffer *b = structure_begin(s, MEMORY_DEVICE, handle_of(MEMORY_DEVICE, 0));

    bytes_put16(b, handle_of(MEMORY_ARRAY, 0));
    bytes_put16(b, NO_HANDLE);
    bytes_put16(b, 64); /* total and data width */
    bytes_put16(b, 64);
    bytes_put16(b, mib < SIZE_IN_EXTENDED_FIELD ? (u16)mib : SIZE_IN_EXTENDED_FIELD);
    bytes_put8(b, FORM_FACTOR_DIMM);
    bytes_put8(b, 0); /* device set */
    bytes_put8(b, 1);
    bytes_put8(b, 0); /* bank */
    bytes_put8(b, MEMORY_TYPE_RAM);
    bytes_put16(b, 1 << 1); /* type detail: other */
    bytes_put16(b, 0);      /* speed */
    bytes_put8(b, 2);
    bytes_append(b, NULL, 4); /* serial number, asset tag, part number, rank */
    bytes_put32(b, mib < SIZE_IN_EXTENDED_FIELD ? 0 : mib);
    bytes_append(b, NULL, 8); /* configured speed, voltages */
    structure_end(s, strings, sizeof(strings));
}

static void boot_append(struct structures *s)
{
    struct byte_buffer *b = structure_begin(s, SYSTEM_BOOT, handle_of(SYSTEM_BOOT, 0));

    bytes_append(b, NULL, 7); /* reserved; status: no errors detected */
    structure_end(s, "", 0);
}

static void structures_append(struct structures *s, const struct smbios_config *config)
{
    bios_append(s);
    system_append(s, config);
    chassis_append(s);
    for (int i = 0; i < MIN(config->cpu_count, 256); i++)
        processor_append(s, i);
    memory_array_append(s, config);
    memory_device_append(s, config);
    boot_append(s);
    structure_begin(s, END_OF_TABLE, handle_of(END_OF_TABLE, 0));
    structure_end(s, "", 0);
}

/* Version 2.8 in the first half, for old systems, which search for its anchor; version 3.0 in the second. */
static int entries_write(struct guest_memory *mem, const struct structures *s, u64 base, u64 gpa)
{
    u8 entry[SMBIOS_ENTRY_SIZE] = "_SM_\0\0\2\x08", *entry3 = entry + ENTRY3_OFFSET;
    u16 len = (u16)s->out.len;
    u32 base32 = (u32)base, len32 = (u32)s->out.len;

    entry[5] = ENTRY2_SIZE;
    memcpy(entry + 8, &s->largest, 2);
    memcpy(entry + INTERMEDIATE_OFFSET, "_DMI_", 5);
    memcpy(entry + 22, &len, 2);
    memcpy(entry + 24, &base32, 4);
    memcpy(entry + 28, &s->count, 2);
    entry[30] = 0x28;
    entry[21] = bytes_checksum(entry + INTERMEDIATE_OFFSET, INTERMEDIATE_SIZE);
    entry[4] = bytes_checksum(entry, ENTRY2_SIZE);

    memcpy(entry3, "_SM3_", 5);
    entry3[6] = ENTRY3_SIZE;
    entry3[7] = 3;
    entry3[10] = 1; /* entry point revision */
    memcpy(entry3 + 12, &len32, 4);
    memcpy(entry3 + 16, &base, 8);
    entry3[5] = bytes_checksum(entry3, ENTRY3_SIZE);
    return guest_memory_write(mem, gpa, entry, sizeof(entry));
}

int smbios_build(struct guest_memory *mem, const struct smbios_config *config, u64 base, u64 size, u64 entry_gpa)
{
    struct structures s = {0};
    int r;

    assert(base + size <= GIB(4) && !(entry_gpa & 15));
    structures_append(&s, config);
    if (s.out.failed)
        r = -ENOMEM;
    else if (s.out.len > size || s.out.len > UINT16_MAX)
        r = -ENOSPC;
    else
        r = guest_memory_write(mem, base, s.out.data, s.out.len);
    if (!r)
        r = entries_write(mem, &s, base, entry_gpa);
    bytes_free(&s.out);
    return r;
}
