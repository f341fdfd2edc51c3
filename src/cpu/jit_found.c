/* Blocks that were found lately: see jit_found.h. */
#include "cpu/jit_found.h"

#include "cpu/jit_emit.h"

void jit_found_add(struct jit *j, const struct jit_block *b)
{
    struct jit_found_set *set = jit_found_set(j, b->hva, (u32)b->key);
    u64 tag = jit_found_tag(j, b->hva);

    if (b->crossing || b->key & JIT_KEY_SEGMENTED)
        return;
    if (set->at[0].tag != tag || set->at[0].key != b->key)
        set->at[1] = set->at[0];
    set->at[0] = (struct jit_found){.tag = tag, .key = (u32)b->key, .version_now = b->version_now, .version = b->version,
                                    .block = jit_block_number(j, b), .code = jit_code_offset(j, b->entry_saved)};
}

/* Entries of other epochs are nobody's, until numbers come again. */
void jit_found_flush(struct jit *j)
{
    if (j->epoch % JIT_FOUND_EPOCHS)
        return;
    for (u32 n = 0; n < JIT_FOUND_SETS; n++)
        j->found[n].at[0].tag = j->found[n].at[1].tag = 0;
}
