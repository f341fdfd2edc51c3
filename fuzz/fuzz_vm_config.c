/* Hostile configurations: whatever the decoder accepts must be encoded and decoded again to the same text.
 */
#include "proto/vm_config.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t len);

int LLVMFuzzerTestOneInput(const u8 *data, size_t len)
{
    struct vm_config first, second;
    char *once, *twice;
    struct err e;

    if (vm_config_decode((const char *)data, len, &first, &e))
        return 0;
    assert(!vm_config_encode(&first, &once, &e));
    assert(!vm_config_decode(once, strlen(once), &second, &e));
    assert(!vm_config_encode(&second, &twice, &e));
    assert(!strcmp(once, twice));
    vm_config_free(&first);
    vm_config_free(&second);
    free(once);
    free(twice);
    return 0;
}
