/* Which general-purpose mnemonic belongs to which group of handlers; and the instructions that do nothing here. */
#include "cpu/access.h"
#include "cpu/cpuid.h"
#include "cpu/exec.h"

static void nop(struct vcpu *c, const struct insn *i)
{
}

/* Fences order the guest's accesses as its own vCPU's thread makes them, non-temporal stores too: the host's fence does it. */
static void fence(struct vcpu *c, const struct insn *i)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void choose_nop(struct vcpu *c, struct insn *i, const struct insn_source *src)
{
    bool orders = src->zi->mnemonic == ZYDIS_MNEMONIC_MFENCE || src->zi->mnemonic == ZYDIS_MNEMONIC_SFENCE;

    /* 0F 1F came with the P6, as CMOV did */
    if (src->zi->mnemonic == ZYDIS_MNEMONIC_NOP && src->zi->opcode_map == ZYDIS_OPCODE_MAP_0F && !has(c, FEAT_CMOV))
        return;
    i->fn = orders ? fence : nop;
}

#define M(name) ZYDIS_MNEMONIC_##name
static insn_choose_fn *const groups[ZYDIS_MNEMONIC_MAX_VALUE + 1] = {
    [M(ADD)] = choose_alu, [M(OR)] = choose_alu, [M(ADC)] = choose_alu, [M(SBB)] = choose_alu, [M(AND)] = choose_alu,
    [M(SUB)] = choose_alu, [M(XOR)] = choose_alu, [M(CMP)] = choose_alu, [M(TEST)] = choose_alu, [M(INC)] = choose_alu,
    [M(DEC)] = choose_alu, [M(NEG)] = choose_alu, [M(NOT)] = choose_alu,
    [M(MUL)] = choose_muldiv, [M(IMUL)] = choose_muldiv, [M(DIV)] = choose_muldiv, [M(IDIV)] = choose_muldiv,
    [M(MULX)] = choose_muldiv,
    [M(SHL)] = choose_shift, [M(SHR)] = choose_shift, [M(SAR)] = choose_shift, [M(ROL)] = choose_shift,
    [M(ROR)] = choose_shift, [M(RCL)] = choose_shift, [M(RCR)] = choose_shift, [M(SHLD)] = choose_shift,
    [M(SHRD)] = choose_shift, [M(SHLX)] = choose_shift, [M(SHRX)] = choose_shift, [M(SARX)] = choose_shift,
    [M(RORX)] = choose_shift,
    [M(BT)] = choose_bit, [M(BTS)] = choose_bit, [M(BTR)] = choose_bit, [M(BTC)] = choose_bit, [M(BSF)] = choose_bit,
    [M(BSR)] = choose_bit, [M(TZCNT)] = choose_bit, [M(LZCNT)] = choose_bit, [M(POPCNT)] = choose_bit,
    [M(CRC32)] = choose_bit, [M(ANDN)] = choose_bit, [M(BEXTR)] = choose_bit, [M(BLSI)] = choose_bit,
    [M(BLSR)] = choose_bit, [M(BLSMSK)] = choose_bit, [M(BZHI)] = choose_bit, [M(PDEP)] = choose_bit,
    [M(PEXT)] = choose_bit, [M(ADCX)] = choose_bit, [M(ADOX)] = choose_bit,
    [M(MOV)] = choose_mov, [M(MOVNTI)] = choose_mov, [M(LEA)] = choose_mov, [M(XCHG)] = choose_mov,
    [M(BSWAP)] = choose_mov, [M(XLAT)] = choose_mov, [M(MOVBE)] = choose_mov, [M(MOVZX)] = choose_mov,
    [M(MOVSX)] = choose_mov, [M(MOVSXD)] = choose_mov,
    [M(CMOVB) ... M(CMOVZ)] = choose_mov, [M(SETB) ... M(SETBE)] = choose_mov, [M(SETL) ... M(SETP)] = choose_mov,
    [M(SETS)] = choose_mov, [M(SETZ)] = choose_mov,
    [M(CBW)] = choose_convert, [M(CWDE)] = choose_convert, [M(CDQE)] = choose_convert, [M(CWD)] = choose_convert,
    [M(CDQ)] = choose_convert, [M(CQO)] = choose_convert,
    [M(JMP)] = choose_branch, [M(CALL)] = choose_branch, [M(RET)] = choose_branch, [M(LOOP)] = choose_branch,
    [M(LOOPE)] = choose_branch, [M(LOOPNE)] = choose_branch, [M(JCXZ)] = choose_branch, [M(JECXZ)] = choose_branch,
    [M(JRCXZ)] = choose_branch, [M(JB)] = choose_branch, [M(JBE)] = choose_branch, [M(JL)] = choose_branch,
    [M(JLE)] = choose_branch, [M(JNB) ... M(JP)] = choose_branch, [M(JS)] = choose_branch, [M(JZ)] = choose_branch,
    [M(PUSH)] = choose_stack, [M(POP)] = choose_stack, [M(PUSHA)] = choose_stack, [M(PUSHAD)] = choose_stack,
    [M(POPA)] = choose_stack, [M(POPAD)] = choose_stack, [M(PUSHF)] = choose_stack, [M(PUSHFD)] = choose_stack,
    [M(PUSHFQ)] = choose_stack, [M(POPF)] = choose_stack, [M(POPFD)] = choose_stack, [M(POPFQ)] = choose_stack,
    [M(ENTER)] = choose_stack, [M(LEAVE)] = choose_stack,
    [M(MOVSB)] = choose_string, [M(MOVSW)] = choose_string, [M(MOVSD)] = choose_string, [M(MOVSQ)] = choose_string,
    [M(STOSB)] = choose_string, [M(STOSW)] = choose_string, [M(STOSD)] = choose_string, [M(STOSQ)] = choose_string,
    [M(LODSB)] = choose_string, [M(LODSW)] = choose_string, [M(LODSD)] = choose_string, [M(LODSQ)] = choose_string,
    [M(CMPSB)] = choose_string, [M(CMPSW)] = choose_string, [M(CMPSD)] = choose_string, [M(CMPSQ)] = choose_string,
    [M(SCASB)] = choose_string, [M(SCASW)] = choose_string, [M(SCASD)] = choose_string, [M(SCASQ)] = choose_string,
    [M(INSB)] = choose_string, [M(INSW)] = choose_string, [M(INSD)] = choose_string, [M(OUTSB)] = choose_string,
    [M(OUTSW)] = choose_string, [M(OUTSD)] = choose_string,
    [M(CLC)] = choose_flags, [M(STC)] = choose_flags, [M(CMC)] = choose_flags, [M(CLD)] = choose_flags,
    [M(STD)] = choose_flags, [M(CLI)] = choose_flags, [M(STI)] = choose_flags, [M(LAHF)] = choose_flags,
    [M(SAHF)] = choose_flags, [M(SALC)] = choose_flags,
    [M(AAA)] = choose_bcd, [M(AAS)] = choose_bcd, [M(AAM)] = choose_bcd, [M(AAD)] = choose_bcd, [M(DAA)] = choose_bcd,
    [M(DAS)] = choose_bcd, [M(BOUND)] = choose_bcd,
    [M(IN)] = choose_io, [M(OUT)] = choose_io,
    [M(CMPXCHG)] = choose_atomic, [M(CMPXCHG8B)] = choose_atomic, [M(CMPXCHG16B)] = choose_atomic, [M(XADD)] = choose_atomic,
    [M(NOP)] = choose_nop, [M(PAUSE)] = choose_nop, [M(PREFETCH)] = choose_nop, [M(PREFETCHNTA)] = choose_nop,
    [M(PREFETCHT0)] = choose_nop, [M(PREFETCHT1)] = choose_nop, [M(PREFETCHT2)] = choose_nop, [M(PREFETCHW)] = choose_nop,
    [M(PREFETCHWT1)] = choose_nop, [M(ENDBR32)] = choose_nop, [M(ENDBR64)] = choose_nop, [M(LFENCE)] = choose_nop,
    [M(SFENCE)] = choose_nop, [M(MFENCE)] = choose_nop,
};

insn_choose_fn *choose_general(ZydisMnemonic m)
{
    return groups[m];
}
