/* A fault with no way to deliver it, nor the double fault: shutdown, which ends the VM under --no-reboot with a
 * status of its own. SDM vol. 3 §6.15, interrupt 8. */
#include "guest.h"

void guest_main(void)
{
    static const struct {
        u16 limit;
        u64 base;
    } __attribute__((packed)) none = {0, 0};

    print("a triple fault follows\n");
    asm volatile("lidt %0; ud2" : : "m"(none));
}
