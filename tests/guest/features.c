/* CPUID and the instructions behind it: what a feature bit shows must work, what it hides must raise #UD. Built for
 * 64-bit and for 32-bit mode, and run with several CPU models. SDM vol. 2, CPUID and each instruction's list of
 * exceptions. */
#ifdef __x86_64__
#include "guest.h"
#define ADDRESS "%rsi"
#define RESULT "%rax"
#else
#include "guest32.h"
#define ADDRESS "%esi"
#define RESULT "%eax"
#endif

enum { EAX, EBX, ECX, EDX };

/* Each runs with RSI at 4 KiB of aligned memory and the other registers zero. */
#define INSN(name, text)                                                                                               \
    extern u8 name[];                                                                                                  \
    asm(".pushsection .text\n" #name ": " text "; int3\n.popsection")
INSN(i_rdtsc, "rdtsc");
INSN(i_rdmsr, "mov $0x10, %ecx; rdmsr");
INSN(i_cmpxchg8b, "cmpxchg8b (" ADDRESS ")");
INSN(i_cmov, "cmove %ecx, %eax");
INSN(i_fcomi, "fninit; fld1; fcomi %st(0), %st; fstp %st(0)");
INSN(i_mmx, "paddb %mm0, %mm1; emms");
INSN(i_fxsave, "fxsave (" ADDRESS ")");
INSN(i_sse, "addps %xmm0, %xmm1");
INSN(i_sse2, "addpd %xmm0, %xmm1");
INSN(i_clflush, "clflush (" ADDRESS ")");
INSN(i_sysenter, "mov $0x174, %ecx; rdmsr");
INSN(i_mtrr, "mov $0xfe, %ecx; rdmsr");
INSN(i_pat, "mov $0x277, %ecx; rdmsr");
INSN(i_sse3, "haddps %xmm0, %xmm1");
INSN(i_ssse3, "pshufb %xmm0, %xmm1");
INSN(i_sse41, "ptest %xmm0, %xmm1");
INSN(i_sse42, "pcmpistri $0, %xmm0, %xmm1");
INSN(i_crc32, "crc32b %al, %eax");
INSN(i_popcnt, "popcnt %eax, %ecx");
INSN(i_movbe, "movbe (" ADDRESS "), %eax");
INSN(i_aes, "aesenc %xmm0, %xmm1");
INSN(i_pclmul, "pclmulqdq $0, %xmm0, %xmm1");
INSN(i_rdrand, "rdrand %eax");
INSN(i_rdseed, "rdseed %eax");
INSN(i_fma, "vfmadd231ps %xmm0, %xmm1, %xmm2");
INSN(i_f16c, "vcvtph2ps %xmm0, %xmm1");
INSN(i_avx, "vaddps %ymm0, %ymm1, %ymm2");
INSN(i_avx2, "vpaddb %ymm0, %ymm1, %ymm2");
INSN(i_bmi1, "andn %eax, %ecx, %edx");
INSN(i_bmi2, "bzhi %eax, %ecx, %edx");
INSN(i_adx, "adcx %eax, %ecx");
INSN(i_sha, "sha1nexte %xmm0, %xmm1");
INSN(i_xsave, "xor %ecx, %ecx; xgetbv");
INSN(i_xsaveopt, "mov $3, %eax; xor %edx, %edx; xsaveopt (" ADDRESS ")");
INSN(i_xsavec, "mov $3, %eax; xor %edx, %edx; xsavec (" ADDRESS ")");
INSN(i_xgetbv1, "mov $1, %ecx; xgetbv");
INSN(i_clflushopt, "clflushopt (" ADDRESS ")");
INSN(i_clwb, "clwb (" ADDRESS ")");
INSN(i_rdtscp, "rdtscp");
INSN(i_rdpid, ".byte 0xf3, 0x0f, 0xc7, 0xf8");
INSN(i_invpcid, "mov $2, %eax; invpcid (" ADDRESS "), " RESULT);
INSN(i_stac, "stac; clac");
INSN(i_serialize, ".byte 0x0f, 0x01, 0xe8");
INSN(i_monitor, "mov " ADDRESS ", " RESULT "; xor %ecx, %ecx; xor %edx, %edx; monitor");
INSN(i_xbegin, ".byte 0xc7, 0xf8, 0, 0, 0, 0; xend");
INSN(i_sse4a, "extrq $1, $1, %xmm1");
INSN(i_3dnow, "pfadd %mm0, %mm1; femms");
INSN(i_fma4, "vfmaddps %xmm0, %xmm1, %xmm2, %xmm3");
INSN(i_tbm, ".byte 0x8f, 0xe9, 0x78, 0x01, 0xc8"); /* BLCFILL */
INSN(i_movdiri, ".byte 0x0f, 0x38, 0xf9, 0x06");
INSN(i_umwait, ".byte 0xf2, 0x0f, 0xae, 0xf0");
INSN(i_gfni, "gf2p8mulb %xmm0, %xmm1");
INSN(i_avx512f, "vpaddd %zmm0, %zmm1, %zmm2");
INSN(i_avx512bw, "vpaddb %zmm0, %zmm1, %zmm2");
INSN(i_avx512dq, "vpmullq %zmm0, %zmm1, %zmm2");
INSN(i_avx512cd, "vplzcntd %zmm0, %zmm1");
INSN(i_avx512vl, "vpternlogd $0, %ymm0, %ymm1, %ymm2");
INSN(i_pku, ".byte 0x0f, 0x01, 0xee"); /* RDPKRU */
INSN(i_vmcall, "vmxoff");
INSN(i_svm, "clgi");
#ifdef __x86_64__
INSN(i_cx16, "cmpxchg16b (%rsi)");
INSN(i_lahf, "lahf; sahf");
INSN(i_fsgsbase, "rdfsbase %rax");
INSN(i_syscall_msr, "mov $0xc0000081, %ecx; rdmsr");
#endif

static const struct {
    const char *name;
    const u8 *code;
    u32 leaf, sub, reg, bit;
    int hidden; /* the exception while the bit is clear */
} list[] = {
    {"RDTSC", i_rdtsc, 1, 0, EDX, 4, 6},
    {"RDMSR", i_rdmsr, 1, 0, EDX, 5, 6},
    {"CMPXCHG8B", i_cmpxchg8b, 1, 0, EDX, 8, 6},
    {"MTRR capability MSR", i_mtrr, 1, 0, EDX, 12, 13},
    {"CMOV", i_cmov, 1, 0, EDX, 15, 6},
    {"FCOMI", i_fcomi, 1, 0, EDX, 15, 6},
    {"PAT MSR", i_pat, 1, 0, EDX, 16, 13},
    {"SYSENTER MSR", i_sysenter, 1, 0, EDX, 11, 13},
    {"CLFLUSH", i_clflush, 1, 0, EDX, 19, 6},
    {"MMX", i_mmx, 1, 0, EDX, 23, 6},
    {"FXSAVE", i_fxsave, 1, 0, EDX, 24, 6},
    {"SSE", i_sse, 1, 0, EDX, 25, 6},
    {"SSE2", i_sse2, 1, 0, EDX, 26, 6},
    {"SSE3", i_sse3, 1, 0, ECX, 0, 6},
    {"PCLMULQDQ", i_pclmul, 1, 0, ECX, 1, 6},
    {"MONITOR", i_monitor, 1, 0, ECX, 3, 6},
    {"VMX", i_vmcall, 1, 0, ECX, 5, 6},
    {"SSSE3", i_ssse3, 1, 0, ECX, 9, 6},
    {"FMA", i_fma, 1, 0, ECX, 12, 6},
    {"SSE4.1", i_sse41, 1, 0, ECX, 19, 6},
    {"SSE4.2", i_sse42, 1, 0, ECX, 20, 6},
    {"CRC32", i_crc32, 1, 0, ECX, 20, 6},
    {"MOVBE", i_movbe, 1, 0, ECX, 22, 6},
    {"POPCNT", i_popcnt, 1, 0, ECX, 23, 6},
    {"AES", i_aes, 1, 0, ECX, 25, 6},
    {"XSAVE", i_xsave, 1, 0, ECX, 26, 6},
    {"AVX", i_avx, 1, 0, ECX, 28, 6},
    {"F16C", i_f16c, 1, 0, ECX, 29, 6},
    {"RDRAND", i_rdrand, 1, 0, ECX, 30, 6},
    {"BMI1", i_bmi1, 7, 0, EBX, 3, 6},
    {"AVX2", i_avx2, 7, 0, EBX, 5, 6},
    {"BMI2", i_bmi2, 7, 0, EBX, 8, 6},
    {"INVPCID", i_invpcid, 7, 0, EBX, 10, 6},
    {"RTM", i_xbegin, 7, 0, EBX, 11, 6},
    {"AVX512F", i_avx512f, 7, 0, EBX, 16, 6},
    {"AVX512DQ", i_avx512dq, 7, 0, EBX, 17, 6},
    {"RDSEED", i_rdseed, 7, 0, EBX, 18, 6},
    {"ADX", i_adx, 7, 0, EBX, 19, 6},
    {"SMAP", i_stac, 7, 0, EBX, 20, 6},
    {"CLFLUSHOPT", i_clflushopt, 7, 0, EBX, 23, 6},
    {"CLWB", i_clwb, 7, 0, EBX, 24, 6},
    {"AVX512CD", i_avx512cd, 7, 0, EBX, 28, 6},
    {"SHA", i_sha, 7, 0, EBX, 29, 6},
    {"AVX512BW", i_avx512bw, 7, 0, EBX, 30, 6},
    {"AVX512VL", i_avx512vl, 7, 0, EBX, 31, 6},
    {"PKU", i_pku, 7, 0, ECX, 4, 6},
    {"WAITPKG", i_umwait, 7, 0, ECX, 5, 6},
    {"GFNI", i_gfni, 7, 0, ECX, 8, 6},
    {"RDPID", i_rdpid, 7, 0, ECX, 22, 6},
    {"MOVDIRI", i_movdiri, 7, 0, ECX, 27, 6},
    {"SERIALIZE", i_serialize, 7, 0, EDX, 14, 6},
    {"XSAVEOPT", i_xsaveopt, 13, 1, EAX, 0, 6},
    {"XSAVEC", i_xsavec, 13, 1, EAX, 1, 6},
    {"XGETBV with ECX 1", i_xgetbv1, 13, 1, EAX, 2, 13},
    {"SVM", i_svm, 0x80000001, 0, ECX, 2, 6},
    {"SSE4a", i_sse4a, 0x80000001, 0, ECX, 6, 6},
    {"FMA4", i_fma4, 0x80000001, 0, ECX, 16, 6},
    {"TBM", i_tbm, 0x80000001, 0, ECX, 21, 6},
    {"RDTSCP", i_rdtscp, 0x80000001, 0, EDX, 27, 6},
    {"3DNow!", i_3dnow, 0x80000001, 0, EDX, 31, 6},
#ifdef __x86_64__
    {"CMPXCHG16B", i_cx16, 1, 0, ECX, 13, 6},
    {"LAHF", i_lahf, 0x80000001, 0, ECX, 0, 6},
    {"FSGSBASE", i_fsgsbase, 7, 0, EBX, 0, 6},
    {"SYSCALL MSR", i_syscall_msr, 0x80000001, 0, EDX, 11, 13},
#endif
};

static u8 area[4096] __attribute__((aligned(4096)));

/* Everything that the operating system must turn on for an instruction. */
static void turn_on(void)
{
    u32 r[4];

    write_cr0(read_cr0() & ~12ul); /* TS, EM */
    if (feature(1, 0, EDX, 24))
        write_cr4(read_cr4() | 0x600);
    if (feature(7, 0, EBX, 0))
        write_cr4(read_cr4() | 0x10000);
    if (!feature(1, 0, ECX, 26))
        return;
    write_cr4(read_cr4() | 0x40000);
    cpuid(13, 0, r);
    asm volatile("xsetbv" : : "c"(0), "a"(r[0] & 0xe7), "d"(0));
}

static int run(const u8 *code)
{
    struct frame f = frame_at(code, 0);

#ifdef __x86_64__
    f.rsi = (u64)area;
#else
    f.esi = (u32)area;
#endif
    return enter(&f);
}

static void consistency(void)
{
    u32 r[4], max;

    cpuid(0, 0, r);
    max = r[0];
    check(max >= 1 && max < 0x40, "highest basic leaf %x", max);
    cpuid(0x80000000, 0, r);
    check(!(r[0] >> 31) || r[0] >> 16 == 0x8000, "highest extended leaf %x",
          r[0]); /* without: as the highest basic leaf */
}

void guest_main(void)
{
    turn_on();
    consistency();
    for (u32 n = 0; n < sizeof(list) / sizeof(list[0]); n++) {
        bool shown = feature(list[n].leaf, list[n].sub, (int)list[n].reg, (int)list[n].bit);
        int got, wanted = shown ? 3 : list[n].hidden;

        if (!shown && list[n].hidden == 13 && !feature(1, 0, EDX, 5))
            wanted = 6; /* no RDMSR at all */
        if (!shown && list[n].code == i_xgetbv1 && !feature(1, 0, ECX, 26))
            wanted = 6;
        got = run(list[n].code);
        check(got == wanted, "%s, %s: vector %d (expected %d)", list[n].name, shown ? "shown" : "hidden", got, wanted);
    }
}
