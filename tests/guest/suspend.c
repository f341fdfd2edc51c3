/* Suspend to RAM: the guest goes to sleep with an alarm set, and firmware wakes it in real mode where the FACS says, its
 * memory kept and its chips reset. ACPI 6.4 §4.8, §5.2.10, §7.4; MC146818A data sheet. */
#include "guest.h"

enum { WAKE_PAGE = 0x9000, FACS_WAKING_VECTOR = 12 };
enum { PM1_STS = 0, PM1_EN = 2, PM1_CNT = 4, RTC_STS = 0x400, WAK_STS = 0x8000, SLP_S3 = 1 << 10, SLP_EN = 0x2000 };
enum { RTC_SECONDS_ALARM = 1, RTC_MINUTES_ALARM = 3, RTC_HOURS_ALARM = 5, RTC_B = 11, RTC_C = 12, ALARM_ANY = 0xc0, AIE = 0x20 };

/* Copied to WAKE_PAGE and entered there with CS = WAKE_PAGE >> 4. It notes what it finds, waits for a
 * timer tick, which firmware's vector takes, and reports through the debug exit. The PM1 status port is patched in below. */
CODE(16, wake,
     "cli; xor %ax, %ax; mov %ax, %ss; mov $0x9f00, %sp;"
     "mov $0x1234, %dx; in %dx, %ax; mov %ax, %ds:0x9e00;" /* PM1 status */
     "mov %cs, %ds:0x9e02; smsw %ax; mov %ax, %ds:0x9e04;"
     "mov %ds:0x46c, %bx; sti; 1: hlt; cmp %ds:0x46c, %bx; je 1b; cli;"
     "mov $0xf4, %dx; xor %eax, %eax;"
     "mov %ds:0x9e00, %cx; and $0x8400, %cx; cmp $0x8400, %cx; jne 2f;" /* woken, by the clock */
     "cmpw $0x900, %ds:0x9e02; jne 2f;"
     "testw $1, %ds:0x9e04; jnz 2f;"
     "cmpl $0x600df00d, %ds:0x9e08; jne 2f;"
     "out %eax, %dx; 3: hlt; jmp 3b;"
     "2: inc %eax; out %eax, %dx; jmp 3b");

static u64 table_find(const char *signature)
{
    for (u64 at = 0xe0000; at < 0x100000; at += 16) {
        const u32 *rsdt;

        if (*(u64 *)at != 0x2052545020445352) /* "RSD PTR " */
            continue;
        rsdt = (const u32 *)(u64) * (u32 *)(at + 16);
        for (u32 n = 9; n < rsdt[1] / 4; n++)
            if (*(u32 *)(u64)rsdt[n] == *(const u32 *)signature)
                return rsdt[n];
    }
    return 0;
}

static void rtc_write(u8 index, u8 val)
{
    outb(0x70, index);
    outb(0x71, val);
}

static u8 rtc_read(u8 index)
{
    outb(0x70, index);
    return inb(0x71);
}

static void alarm_each_second(void)
{
    rtc_read(RTC_C);
    rtc_write(RTC_SECONDS_ALARM, ALARM_ANY);
    rtc_write(RTC_MINUTES_ALARM, ALARM_ANY);
    rtc_write(RTC_HOURS_ALARM, ALARM_ANY);
    rtc_write(RTC_B, rtc_read(RTC_B) | AIE);
}

static void wake_code_place(u16 pm1_status)
{
    u8 *to = (u8 *)WAKE_PAGE;

    for (const u8 *from = wake; from < wake_end; from++)
        *to++ = *from;
    for (u8 *at = (u8 *)WAKE_PAGE; at < to - 2; at++)
        if (at[0] == 0xba && at[1] == 0x34 && at[2] == 0x12)
            *(u16 *)(at + 1) = pm1_status;
    *(u32 *)0x9e08 = 0x600df00d;
}

void guest_main(void)
{
    u64 fadt = table_find("FACP"), facs;
    u32 event, control;

    check(fadt != 0, "there is a FADT");
    facs = *(u32 *)(fadt + 36);
    check(*(u32 *)facs == 0x53434146, "there is a FACS");
    event = *(u32 *)(fadt + 56);
    control = *(u32 *)(fadt + 64);
    wake_code_place((u16)(event + PM1_STS));
    *(u32 *)(facs + FACS_WAKING_VECTOR) = WAKE_PAGE;
    outw((u16)(event + PM1_EN), RTC_STS);
    outw((u16)(event + PM1_STS), RTC_STS | WAK_STS);
    alarm_each_second();
    print("sleeping until the next second; the code at 0x9000 reports\n");
    outw((u16)control, SLP_S3 | SLP_EN);
    check(false, "the processor ran on after it fell asleep");
}
