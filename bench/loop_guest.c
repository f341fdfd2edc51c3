/* The integer loop as a bare-metal guest (see tests/guest): prints "begin", runs, prints "end" and the sum. */
#include "guest.h"
#include "loop.h"

void guest_main(void)
{
    print("begin\n");
    print("end %lx\n", integer_loop(ITERATIONS));
    check(true, "done");
}
