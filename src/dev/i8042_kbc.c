/* Intel 8042 keyboard controller, the AT keyboard on its first port, and system control port A (0x92).
 *
 * The second port exists but nothing is on it: what the guest sends there times out, so that systems find no mouse.
 * The keyboard knows scan code sets 2 (its own) and 1; bytes come at once, one at a time as the guest reads them.
 * Left out: scan code set 3 (refused with a resend), typematic repeat (its rate is accepted), and the parity and timeout
 * bits but for the absent device. */
#include "dev/i8042_kbc.h"
#include "base/trace.h"

enum { STATUS_OBF = 0x01, STATUS_SYS = 0x04, STATUS_COMMAND = 0x08, STATUS_UNLOCKED = 0x10,
       STATUS_AUX = 0x20, STATUS_TIMEOUT = 0x40 };
enum {
    CONFIG_IRQ1 = 0x01, CONFIG_IRQ12 = 0x02, CONFIG_SYS = 0x04, CONFIG_KBD_OFF = 0x10, CONFIG_AUX_OFF = 0x20,
    CONFIG_TRANSLATE = 0x40,
};
enum { OUTPUT_RESET_N = 0x01, OUTPUT_A20 = 0x02, OUTPUT_OBF = 0x10, OUTPUT_AUX_OBF = 0x20, OUTPUT_IDLE = 0xcc };
enum { PORT92_RESET = 0x01, PORT92_A20 = 0x02 };
enum { KBD_ACK = 0xfa, KBD_RESEND = 0xfe, KBD_BAT_OK = 0xaa, KBD_BREAK = 0xf0, KBD_EXTENDED = 0xe0 };

#define QUEUE_SIZE 16

/* Where the byte in the output buffer came from. */
enum { FROM_NOBODY, FROM_CONTROLLER, FROM_KEYBOARD, FROM_AUX };

struct i8042_kbc_state {
    u8 ram[32];         /* the controller's; ram[0] is the configuration ("command byte") */
    u8 queue[QUEUE_SIZE]; /* keyboard bytes on their way, oldest first */
    u8 queue_count;
    u8 out;             /* output buffer */
    u8 source;          /* of `out`; FROM_NOBODY: empty */
    u8 pending_command; /* controller command that waits for its data byte; 0: data is for the keyboard */
    u8 kbd_command;     /* likewise for the keyboard */
    u8 scan_set;        /* 1 or 2 */
    u8 leds;
    u8 last_sent;       /* for the resend command */
    bool command_last;  /* the last write went to the command port */
    bool timed_out;     /* status bit: the device that was addressed did not answer */
    bool scanning, a20;
    bool translate_break; /* an F0 was swallowed: the next code is a break code */
    u8 pad[3];
};

struct i8042_kbc {
    struct device dev;
    struct i8042_kbc_state s;
    struct irq irq1, irq12;
};

#define KBC_STATE(f) STATE(struct i8042_kbc_state, f)
#define KBC_ARRAY(f) STATE_ARRAY(struct i8042_kbc_state, f)

static const struct state_field i8042_kbc_fields[] = {
    KBC_ARRAY(ram), KBC_ARRAY(queue), KBC_STATE(queue_count), KBC_STATE(out), KBC_STATE(source),
    KBC_STATE(pending_command), KBC_STATE(kbd_command), KBC_STATE(scan_set), KBC_STATE(leds), KBC_STATE(last_sent),
    KBC_STATE(command_last), KBC_STATE(timed_out), KBC_STATE(scanning), KBC_STATE(a20), KBC_STATE(translate_break),
    KBC_ARRAY(pad), STATE_END};

/* Scan code set 2 to set 1, as the controller translates; codes from 0x80 on are unchanged except two. */
static const u8 set2_to_set1[128] = {
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59,
    0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b,
    0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d,
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f,
    0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61,
    0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76,
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f,
    0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54};

static u8 translate(u8 code)
{
    if (code < 0x80)
        return set2_to_set1[code];
    return code == 0x83 ? 0x41 : code == 0x84 ? 0x54 : code;
}

static u8 *config(struct i8042_kbc *k)
{
    return &k->s.ram[0];
}

static void irq_update(struct i8042_kbc *k)
{
    bool full = k->s.source != FROM_NOBODY, aux = k->s.source == FROM_AUX;

    irq_set(&k->irq1, full && !aux && *config(k) & CONFIG_IRQ1);
    irq_set(&k->irq12, aux && *config(k) & CONFIG_IRQ12);
}

static void output_fill(struct i8042_kbc *k, u8 val, u8 source)
{
    k->s.out = val;
    k->s.source = source;
    trace(KBC, "output buffer 0x%02x", val);
}

/* The next byte of the keyboard's queue that the guest gets to see: translation swallows F0 into the code behind it. */
static bool queue_next(struct i8042_kbc *k, u8 *ret)
{
    while (k->s.queue_count) {
        u8 code = k->s.queue[0];

        k->s.queue_count--;
        for (int i = 0; i < k->s.queue_count; i++)
            k->s.queue[i] = k->s.queue[i + 1];
        *ret = code;
        if (!(*config(k) & CONFIG_TRANSLATE))
            return true;
        if (code == KBD_BREAK) {
            k->s.translate_break = true;
            continue;
        }
        *ret = translate(code) | (k->s.translate_break ? 0x80 : 0);
        k->s.translate_break = false;
        return true;
    }
    return false;
}

/* Moves the keyboard's next byte into the empty output buffer, if its clock runs. */
static void output_refill(struct i8042_kbc *k)
{
    u8 code;

    if (k->s.source == FROM_NOBODY && !(*config(k) & CONFIG_KBD_OFF) && queue_next(k, &code))
        output_fill(k, code, FROM_KEYBOARD);
    irq_update(k);
}

/* Queues bytes of the keyboard, all or none. */
static void kbd_send(struct i8042_kbc *k, const u8 *bytes, int count)
{
    if (k->s.queue_count + count > QUEUE_SIZE) {
        trace(KBC, "keyboard queue full, %d bytes dropped", count);
        return;
    }
    for (int i = 0; i < count; i++)
        k->s.queue[k->s.queue_count++] = k->s.last_sent = bytes[i];
    output_refill(k);
}

static void kbd_send1(struct i8042_kbc *k, u8 byte)
{
    kbd_send(k, &byte, 1);
}

static void kbd_defaults(struct i8042_kbc *k, bool scanning)
{
    k->s.queue_count = 0;
    k->s.translate_break = false;
    k->s.scan_set = 2;
    k->s.scanning = scanning;
    k->s.kbd_command = 0;
}

/* The argument of an earlier command. */
static void kbd_argument(struct i8042_kbc *k, u8 command, u8 val)
{
    switch (command) {
    case 0xed: k->s.leds = val & 7; break;
    case 0xf0:
        if (val > 2) {
            kbd_send1(k, KBD_RESEND);
            return;
        }
        kbd_send1(k, KBD_ACK);
        if (val)
            k->s.scan_set = val;
        else
            kbd_send1(k, k->s.scan_set);
        return;
    }
    kbd_send1(k, KBD_ACK);
}

static void kbd_reset(struct i8042_kbc *k)
{
    static const u8 answer[] = {KBD_ACK, KBD_BAT_OK};

    kbd_defaults(k, true);
    k->s.leds = 0;
    kbd_send(k, answer, sizeof(answer));
}

static void kbd_command(struct i8042_kbc *k, u8 val)
{
    static const u8 identity[] = {KBD_ACK, 0xab, 0x83};

    switch (val) {
    case 0xed: case 0xf0: case 0xf3: case 0xfb: case 0xfc: case 0xfd: /* an argument follows */
        k->s.kbd_command = val;
        break;
    case 0xee: kbd_send1(k, 0xee); return;
    case 0xf2: kbd_send(k, identity, sizeof(identity)); return;
    case 0xf4: k->s.scanning = true; k->s.queue_count = 0; break;
    case 0xf5: kbd_defaults(k, false); break;
    case 0xf6: kbd_defaults(k, true); break;
    case 0xf7: case 0xf8: case 0xf9: case 0xfa: break; /* key types: for set 3 only */
    case 0xfe: kbd_send1(k, k->s.last_sent); return;
    case 0xff: kbd_reset(k); return;
    default: kbd_send1(k, KBD_RESEND); return;
    }
    kbd_send1(k, KBD_ACK);
}

/* Sending to the keyboard starts its clock. A byte from 0xED on is a command even where an argument was due. */
static void kbd_write(struct i8042_kbc *k, u8 val)
{
    u8 command = k->s.kbd_command;

    *config(k) &= (u8)~CONFIG_KBD_OFF;
    k->s.kbd_command = 0;
    trace(KBC, "keyboard <- 0x%02x", val);
    if (command && val < 0xed)
        kbd_argument(k, command, val);
    else
        kbd_command(k, val);
}

void i8042_kbc_key(struct device *dev, u8 code, bool extended, bool down)
{
    struct i8042_kbc *k = container_of(dev, struct i8042_kbc, dev);
    u8 bytes[3];
    int n = 0;

    if (!k->s.scanning)
        return;
    if (extended)
        bytes[n++] = KBD_EXTENDED;
    if (k->s.scan_set == 1) {
        bytes[n++] = translate(code) | (down ? 0 : 0x80);
    } else {
        if (!down)
            bytes[n++] = KBD_BREAK;
        bytes[n++] = code;
    }
    kbd_send(k, bytes, n);
}

void i8042_kbc_pause_key(struct device *dev)
{
    static const u8 set1[] = {0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5};
    static const u8 set2[] = {0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77};
    struct i8042_kbc *k = container_of(dev, struct i8042_kbc, dev);

    if (!k->s.scanning)
        return;
    if (k->s.scan_set == 1)
        kbd_send(k, set1, sizeof(set1));
    else
        kbd_send(k, set2, sizeof(set2));
}

/* Controller. */

static void controller_answer(struct i8042_kbc *k, u8 val)
{
    output_fill(k, val, FROM_CONTROLLER);
    irq_update(k);
}

static void aux_answer(struct i8042_kbc *k, u8 val)
{
    output_fill(k, val, FROM_AUX);
    irq_update(k);
}

static u8 output_port(const struct i8042_kbc *k)
{
    u8 full = k->s.source == FROM_NOBODY ? 0 : k->s.source == FROM_AUX ? OUTPUT_AUX_OBF : OUTPUT_OBF;

    return OUTPUT_IDLE | OUTPUT_RESET_N | (k->s.a20 ? OUTPUT_A20 : 0) | full;
}

static void a20_set(struct i8042_kbc *k, bool open)
{
    k->s.a20 = open;
    machine_set_a20(k->dev.machine, open);
}

static void output_port_write(struct i8042_kbc *k, u8 val)
{
    a20_set(k, val & OUTPUT_A20);
    if (!(val & OUTPUT_RESET_N))
        machine_reset(k->dev.machine, MACHINE_RESET);
}

static void config_write(struct i8042_kbc *k, u8 val)
{
    *config(k) = val;
    output_refill(k);
}

/* Commands that take a data byte wait for it in pending_command. */
static void controller_command(struct i8042_kbc *k, u8 val)
{
    trace(KBC, "command 0x%02x", val);
    k->s.pending_command = 0;
    switch (val) {
    case 0x20 ... 0x3f: controller_answer(k, k->s.ram[val & 0x1f]); break;
    case 0x60 ... 0x7f: case 0xd1 ... 0xd4: k->s.pending_command = val; break;
    case 0xa4: controller_answer(k, 0xf1); break; /* no password */
    case 0xa7: config_write(k, *config(k) | CONFIG_AUX_OFF); break;
    case 0xa8: config_write(k, *config(k) & (u8)~CONFIG_AUX_OFF); break;
    case 0xaa:
        k->s.queue_count = 0;
        *config(k) |= CONFIG_SYS | CONFIG_KBD_OFF | CONFIG_AUX_OFF;
        controller_answer(k, 0x55);
        break;
    case 0xa9: case 0xab: controller_answer(k, 0x00); break; /* the ports' lines are fine */
    case 0xad: config_write(k, *config(k) | CONFIG_KBD_OFF); break;
    case 0xae: config_write(k, *config(k) & (u8)~CONFIG_KBD_OFF); break;
    case 0xc0: controller_answer(k, 0xa0); break; /* input port: unlocked, no manufacturing jumper */
    case 0xd0: controller_answer(k, output_port(k)); break;
    case 0xe0: controller_answer(k, 0x00); break; /* test inputs: both clocks low */
    case 0xf0 ... 0xff:
        if (!(val & OUTPUT_RESET_N))
            machine_reset(k->dev.machine, MACHINE_RESET);
        break;
    default: trace(GUEST, "i8042: unknown command 0x%02x", val);
    }
}

static void controller_data(struct i8042_kbc *k, u8 command, u8 val)
{
    switch (command) {
    case 0x60: config_write(k, val); break;
    case 0x61 ... 0x7f: k->s.ram[command & 0x1f] = val; break;
    case 0xd1: output_port_write(k, val); break;
    case 0xd2: /* as if the keyboard had sent it, untranslated */
        output_fill(k, val, FROM_KEYBOARD);
        irq_update(k);
        break;
    case 0xd3: aux_answer(k, val); break; /* as if the second port's device had sent it */
    case 0xd4: /* no device answers: the controller gives up, with its timeout bit set */
        k->s.timed_out = true;
        aux_answer(k, KBD_RESEND);
        break;
    }
}

static u64 data_read(struct device *dev, u64 offset, int size)
{
    struct i8042_kbc *k = container_of(dev, struct i8042_kbc, dev);

    u8 val = k->s.out; /* an empty buffer shows its last byte */

    k->s.source = FROM_NOBODY;
    k->s.timed_out = false;
    irq_update(k); /* the wire falls before the next byte raises it */
    output_refill(k);
    return val;
}

static void data_write(struct device *dev, u64 offset, int size, u64 val)
{
    struct i8042_kbc *k = container_of(dev, struct i8042_kbc, dev);
    u8 command = k->s.pending_command;

    k->s.command_last = false;
    k->s.pending_command = 0;
    if (command)
        controller_data(k, command, (u8)val);
    else
        kbd_write(k, (u8)val);
}

static u64 status_read(struct device *dev, u64 offset, int size)
{
    struct i8042_kbc *k = container_of(dev, struct i8042_kbc, dev);

    return (k->s.source != FROM_NOBODY ? STATUS_OBF : 0) | (*config(k) & CONFIG_SYS ? STATUS_SYS : 0) |
           (k->s.command_last ? STATUS_COMMAND : 0) | STATUS_UNLOCKED | (k->s.timed_out ? STATUS_TIMEOUT : 0) |
           (k->s.source == FROM_AUX ? STATUS_AUX : 0);
}

static void command_write(struct device *dev, u64 offset, int size, u64 val)
{
    struct i8042_kbc *k = container_of(dev, struct i8042_kbc, dev);

    k->s.command_last = true;
    controller_command(k, (u8)val);
}

static u64 control_read(struct device *dev, u64 offset, int size)
{
    return container_of(dev, struct i8042_kbc, dev)->s.a20 ? PORT92_A20 : 0;
}

static void control_write(struct device *dev, u64 offset, int size, u64 val)
{
    struct i8042_kbc *k = container_of(dev, struct i8042_kbc, dev);

    a20_set(k, val & PORT92_A20);
    if (val & PORT92_RESET)
        machine_reset(dev->machine, MACHINE_RESET);
}

static const struct io_ops data_ops = {data_read, data_write, 1, 1};
static const struct io_ops command_ops = {status_read, command_write, 1, 1};
static const struct io_ops control_ops = {control_read, control_write, 1, 1};

/* As firmware leaves it, for guests that a loader starts; firmware sets it up anew anyway. */
static void i8042_kbc_reset(struct device *dev)
{
    struct i8042_kbc *k = container_of(dev, struct i8042_kbc, dev);

    k->s = (struct i8042_kbc_state){0};
    a20_set(k, true);
    *config(k) = CONFIG_IRQ1 | CONFIG_SYS | CONFIG_AUX_OFF | CONFIG_TRANSLATE;
    kbd_defaults(k, true);
    irq_update(k);
}

static void i8042_kbc_loaded(struct device *dev)
{
    struct i8042_kbc *k = container_of(dev, struct i8042_kbc, dev);

    k->s.queue_count = (u8)MIN(k->s.queue_count, QUEUE_SIZE); /* the stream is not to be trusted */
    a20_set(k, k->s.a20);
    irq_update(k);
}

static const struct device_type i8042_kbc_type = {
    .name = "i8042_kbc",
    .size = sizeof(struct i8042_kbc),
    .state_offset = offsetof(struct i8042_kbc, s),
    .state = STATE_TABLE(struct i8042_kbc_state, i8042_kbc_fields, 1),
    .reset = i8042_kbc_reset,
    .loaded = i8042_kbc_loaded,
};

struct device *i8042_kbc_create(struct machine *m, u16 data_port, u16 command_port, u16 control_port,
                                const struct irq *irq1, const struct irq *irq12)
{
    struct device *dev = device_add(m, &i8042_kbc_type);
    struct i8042_kbc *k = container_of(dev, struct i8042_kbc, dev);

    if (irq1)
        k->irq1 = *irq1;
    if (irq12)
        k->irq12 = *irq12;
    pio_map(m, data_port, 1, dev, &data_ops);
    pio_map(m, command_port, 1, dev, &command_ops);
    pio_map(m, control_port, 1, dev, &control_ops);
    i8042_kbc_reset(dev);
    return dev;
}
