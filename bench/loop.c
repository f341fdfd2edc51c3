/* The integer loop whose speed `bench/run` reports as MIPS: the same function, natively and as a bare-metal guest.
 *
 * An iteration is INSNS_PER_ITERATION machine instructions: additions, shifts, a multiplication, loads and stores within
 * 4 KiB, a compare and a branch. */
#include "loop.h"

static u64 table[512];

u64 integer_loop(u64 iterations)
{
    u64 sum = 1, index = 0;

    asm volatile("1:\n\t"
                 "mov (%[t],%[i],8), %%rax\n\t"
                 "add %[s], %%rax\n\t"
                 "lea 3(%%rax,%[s],2), %[s]\n\t"
                 "mov %%rax, (%[t],%[i],8)\n\t"
                 "shr $7, %%rax\n\t"
                 "xor %%rax, %[s]\n\t"
                 "imul $13, %%rax, %%rax\n\t"
                 "add %%rax, %[i]\n\t"
                 "and $511, %[i]\n\t"
                 "test $64, %[s]\n\t"
                 "je 2f\n\t"
                 "add $5, %[s]\n\t"
                 "2:\n\t"
                 "dec %[n]\n\t"
                 "jne 1b"
                 : [s] "+r"(sum), [i] "+r"(index), [n] "+r"(iterations) : [t] "r"(table) : "rax", "memory", "cc");
    return sum;
}
