/* How often code was asked for and which way it went: see jit_heat.h. */
#include "cpu/jit_heat.h"

#include "cpu/jit_cache.h"

#define HOT 8 /* times that a block is interpreted before it is translated: most code of a system runs a few times */
#define SEEN_MIN 4     /* ways that went; fewer say nothing */
#define LIKELY_RATIO 4 /* a way out of the middle of a block costs about what some ways past it save */

static u64 hash_of(const u8 *hva)
{
    return (u64)hva * 0x9e3779b97f4a7c15ull;
}

/* Those of what was forgotten are nobody's. */
static u16 tag_of(const struct jit *j, const u8 *hva)
{
    return (u16)((hash_of(hva) >> 32) + j->epoch);
}

static struct jit_heat *entry_of(struct jit *j, const u8 *hva)
{
    return &j->heat[hash_of(hva) >> 47 & (JIT_HEATS - 1)];
}

enum jit_heat_is jit_heat_ask(struct jit *j, const u8 *hva)
{
    struct jit_heat *k = entry_of(j, hva);

    if (k->tag != tag_of(j, hva))
        return JIT_HEAT_NEW;
    if (k->asked < HOT)
        k->asked++;
    return k->asked >= HOT ? JIT_HEAT_HOT : JIT_HEAT_COLD;
}

void jit_heat_prefetch(struct jit *j, const u8 *hva)
{
    __builtin_prefetch(entry_of(j, hva), 1);
}

/* It goes on with the other's count if that is not translated either: or two that take turns would never be. */
void jit_heat_begin(struct jit *j, const u8 *hva)
{
    struct jit_heat *k = entry_of(j, hva);
    u8 asked = k->asked;

    *k = (struct jit_heat){.tag = tag_of(j, hva), .to = JIT_WENT_FAR, .asked = asked >= HOT ? 0 : asked};
}

void jit_heat_reset(struct jit *j, const u8 *hva)
{
    struct jit_heat *k = entry_of(j, hva);

    if (k->tag == tag_of(j, hva))
        k->asked = 0;
}

void jit_heat_went(struct jit *j, const u8 *hva, u32 to)
{
    struct jit_heat *k = entry_of(j, hva);

    if (k->tag != tag_of(j, hva))
        return;
    if (k->to != to && k->others >= k->times) {
        u8 before = k->times;

        k->times = k->others;
        k->others = before;
        k->to = (u16)to;
    }
    if (k->to == to)
        k->times++;
    else
        k->others++;
    if (k->times + k->others == UINT8_MAX) {
        k->times /= 2;
        k->others /= 2;
    }
}

void jit_heat_saw(struct jit *j, const u8 *hva, bool translated, u32 to)
{
    struct jit_heat *k = entry_of(j, hva);

    if (k->tag != tag_of(j, hva) || (translated && k->asked == HOT))
        *k = (struct jit_heat){.tag = tag_of(j, hva), .to = JIT_WENT_FAR, .asked = translated ? HOT + 1 : 0};
    jit_heat_went(j, hva, to);
}

static bool nearly_always(u32 there, u32 elsewhere)
{
    return there >= SEEN_MIN && there >= LIKELY_RATIO * elsewhere;
}

bool jit_heat_goes(struct jit *j, const u8 *hva, u32 to)
{
    const struct jit_heat *k = entry_of(j, hva);
    u32 there = k->to == to ? k->times : k->others, elsewhere = k->to == to ? k->others : k->times;

    return k->tag == tag_of(j, hva) && nearly_always(there, elsewhere);
}

u32 jit_heat_next(struct jit *j, const u8 *hva)
{
    const struct jit_heat *k = entry_of(j, hva);

    return k->tag == tag_of(j, hva) && nearly_always(k->times, k->others) ? k->to : JIT_WENT_FAR;
}
