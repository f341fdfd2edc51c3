/* Real-mode interrupt vectors: see bios_vectors.h. IBM PC/AT Technical Reference, BIOS listing.
 *
 * A loaded kernel that goes back to real mode, or that waits for a timer tick there, finds what any BIOS gives it: IRQ 0
 * counts ticks at 0040:006C and calls INT 1CH, the other interrupts are acknowledged. Left out: the services (INT 10H to
 * 1AH just return), and the day's end in the tick count. */
#include "firmware/bios_vectors.h"

#include <assert.h>

enum { VECTORS = 256, MASTER_FIRST = 0x08, SLAVE_FIRST = 0x70, IRQS_EACH = 8 };
enum { AT_RETURN = 0x00, AT_TIMER = 0x10, AT_MASTER = 0x30, AT_SLAVE = 0x40 };

/* clang-format off: an instruction a line */
static const u8 return_code[] = {
    0xcf,                             /* iret */
};
static const u8 timer_code[] = {
    0x1e,                             /* push ds */
    0x50,                             /* push ax */
    0xb8, 0x40, 0x00,                 /* mov ax, 0x40 */
    0x8e, 0xd8,                       /* mov ds, ax */
    0x66, 0xff, 0x06, 0x6c, 0x00,     /* inc dword [0x6c] */
    0xcd, 0x1c,                       /* int 0x1c */
    0xb0, 0x20,                       /* mov al, 0x20: EOI */
    0xe6, 0x20,                       /* out 0x20, al */
    0x58,                             /* pop ax */
    0x1f,                             /* pop ds */
    0xcf,                             /* iret */
};
static const u8 master_code[] = {
    0x50,                             /* push ax */
    0xb0, 0x20,                       /* mov al, 0x20 */
    0xe6, 0x20,                       /* out 0x20, al */
    0x58,                             /* pop ax */
    0xcf,                             /* iret */
};
static const u8 slave_code[] = {
    0x50,                             /* push ax */
    0xb0, 0x20,                       /* mov al, 0x20 */
    0xe6, 0xa0,                       /* out 0xa0, al */
    0xe6, 0x20,                       /* out 0x20, al */
    0x58,                             /* pop ax */
    0xcf,                             /* iret */
};
/* clang-format on */

static u16 handler_of(int vector)
{
    if (vector == MASTER_FIRST)
        return AT_TIMER;
    if (vector >= MASTER_FIRST && vector < MASTER_FIRST + IRQS_EACH)
        return AT_MASTER;
    if (vector >= SLAVE_FIRST && vector < SLAVE_FIRST + IRQS_EACH)
        return AT_SLAVE;
    return AT_RETURN;
}

static void put(struct guest_memory *mem, u64 gpa, const void *data, u64 len)
{
    int r = guest_memory_write(mem, gpa, data, len);

    assert(!r); /* the first MiB is always RAM */
}

void bios_vectors_build(struct guest_memory *mem, u64 code)
{
    u32 vector[VECTORS];

    assert(!(code & 15) && code + BIOS_VECTORS_CODE_SIZE <= MIB(1));
    for (int n = 0; n < VECTORS; n++)
        vector[n] = (u32)((code & 0xf0000) << 12 | ((code & 0xffff) + handler_of(n)));
    put(mem, 0, vector, sizeof(vector));
    put(mem, code + AT_RETURN, return_code, sizeof(return_code));
    put(mem, code + AT_TIMER, timer_code, sizeof(timer_code));
    put(mem, code + AT_MASTER, master_code, sizeof(master_code));
    put(mem, code + AT_SLAVE, slave_code, sizeof(slave_code));
}
