/* QEMU's fw_cfg interface, as its docs/specs/fw_cfg describes it: the guest writes an item's key to the selector and
 * reads the item's bytes one after the other. Past an item's end, and for keys that nobody added, it reads zeros.
 *
 * Left out: the DMA interface (the id register says so) and named files: the board's tables are built in memory before
 * the guest starts. */
#include "dev/fw_cfg.h"

#include <string.h>

enum { SELECTOR = 0, ITEMS_MAX = 16, ITEM_SIZE_MAX = 8 };
enum { ID_TRADITIONAL = 1 };
#define SIGNATURE 0x554d4551u /* "QEMU" */

struct fw_cfg_item {
    u16 key;
    u8 len;
    u8 data[ITEM_SIZE_MAX];
};

struct fw_cfg_state {
    u32 offset; /* of the next byte in the item selected */
    u16 key;
    u8 pad[2];
};

struct fw_cfg {
    struct device dev;
    struct fw_cfg_state s;
    struct fw_cfg_item item[ITEMS_MAX];
    int item_count;
};

static const struct state_field fw_cfg_fields[] = {STATE(struct fw_cfg_state, offset), STATE(struct fw_cfg_state, key),
                                                   STATE_ARRAY(struct fw_cfg_state, pad), STATE_END};

static const struct fw_cfg_item *item_find(const struct fw_cfg *f, u16 key)
{
    for (int i = 0; i < f->item_count; i++)
        if (f->item[i].key == key)
            return &f->item[i];
    return NULL;
}

static u64 fw_cfg_read(struct device *dev, u64 offset, int size)
{
    struct fw_cfg *f = container_of(dev, struct fw_cfg, dev);
    const struct fw_cfg_item *item = item_find(f, f->s.key);

    if (size != 1 || !item || f->s.offset >= item->len)
        return 0;
    return item->data[f->s.offset++];
}

static void fw_cfg_write(struct device *dev, u64 offset, int size, u64 val)
{
    struct fw_cfg *f = container_of(dev, struct fw_cfg, dev);

    if (offset != SELECTOR || size != 2)
        return;
    f->s.key = (u16)val;
    f->s.offset = 0;
}

static const struct io_ops fw_cfg_ops = {fw_cfg_read, fw_cfg_write, 1, 2};

static void fw_cfg_reset(struct device *dev)
{
    container_of(dev, struct fw_cfg, dev)->s = (struct fw_cfg_state){0};
}

static const struct device_type fw_cfg_type = {
    .name = "fw_cfg",
    .size = sizeof(struct fw_cfg),
    .state_offset = offsetof(struct fw_cfg, s),
    .state = STATE_TABLE(struct fw_cfg_state, fw_cfg_fields, 1),
    .reset = fw_cfg_reset,
};

void fw_cfg_add(struct device *dev, u16 key, u64 val, int len)
{
    struct fw_cfg *f = container_of(dev, struct fw_cfg, dev);
    struct fw_cfg_item *item = &f->item[f->item_count++];

    assert(f->item_count <= ITEMS_MAX && len <= ITEM_SIZE_MAX);
    *item = (struct fw_cfg_item){.key = key, .len = (u8)len};
    memcpy(item->data, &val, (size_t)len);
}

struct device *fw_cfg_create(struct machine *m, u16 port)
{
    struct device *dev = device_add(m, &fw_cfg_type);

    pio_map(m, port, 2, dev, &fw_cfg_ops);
    fw_cfg_add(dev, FW_CFG_SIGNATURE, SIGNATURE, 4);
    fw_cfg_add(dev, FW_CFG_ID, ID_TRADITIONAL, 4);
    return dev;
}
