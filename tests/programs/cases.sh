#!/bin/sh
# cases.sh NAME: one of the real programs, run in the guest or in the same Debian on the host. What it prints must be the same in
# both: results and hashes of results, no times, no addresses. Runs beside cases/, sources/ and data.bin, in a scratch folder of its own.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C HOME=/tmp/home PYTHONDONTWRITEBYTECODE=1
name=$1
scratch=/tmp/scratch-$name
rm -rf "$scratch"
mkdir -p "$scratch" "$HOME"
cd "$scratch"

hash_of() {
    sha256sum | cut -c1-16
}

# stress STRESSOR OPTION…: whether stress-ng found all results right.
stress() {
    if stress-ng --verify --oomable --timeout 100 "$@" >stress.log 2>&1 && ! grep -q -i 'fail:' stress.log; then
        echo "$* right"
    else
        echo "$* WRONG: $(grep -v -E 'dispatching|defaulting|successful' stress.log | head -20)"
    fi
}

# Each method of a stressor, as it lists them.
stress_methods() {
    stressor=$1
    shift
    for method in $(stress-ng "--$stressor-method" which 2>&1 | sed 's/.*one of: all//'); do
        stress "--$stressor" 1 "--$stressor-method" "$method" "$@"
    done
}

case_stress_cpu() { stress_methods cpu --cpu-ops 4; }
case_stress_vm() { stress_methods vm --vm-bytes 1M --vm-ops 2 --timeout 20; }
case_stress_fp() { stress_methods fp --timeout 1; } # a method alone never counts as done

# Others that compare what they compute, or that live from what is hard for a translator: code that is written and run, faults
# that are caught, jumps, signals, instructions of all kinds.
case_stress_more() {
    for some in vecmath:200 vecfp:20 vecwide:200 vecshuf:20 matrix:100 matrix-3d:20 hash:100 crypt:20 bsearch:20 qsort:4 heapsort:4 \
        mergesort:4 radixsort:4 shellsort:4 hsearch:20 tsearch:20 lsearch:4 tree:4 list:200 skiplist:40 sparsematrix:4 judy:20 str:200 \
        wcs:200 zlib:40 memcpy:100 cache:20 atomic:200 futex:2000 dekker:2000 peterson:2000 lockbus:20 membarrier:200 icache:400 \
        branch:100 far-branch:20 funccall:200 funcret:200 goto:200 longjmp:2000 switch:2000 stackmmap:20 context:200 \
        sigsegv:2000 sigfpe:2000 sigtrap:2000 sigabrt:20 fault:200 nop:20 misaligned:40 regs:200 randlist:4 rotate:100 rseq:200 \
        tsc:200 rdrand:200 usersyscall:2000 vdso:2000 clone:40 vfork:40 vm-rw:10 vm-splice:100 mmap:4 mremap:40 \
        mprotect:200 pageswap:40 tlb-shootdown:40 userfaultfd:200 opcode:40 priv-instr:40 x86syscall:2000 fp-error:200 set:100; do
        stress "--${some%:*}" 2 "--${some%:*}-ops" "${some#*:}" --timeout 3
    done
}

# Digests and ciphers by every kind of code that the library has for this processor and for lesser ones.
openssl_all() {
    openssl list -digest-commands | tr ' ' '\n' | grep . | while read -r digest; do
        openssl "$digest" <"$here/medium.bin" >digest.out 2>&1 || echo "status $?" >>digest.out
        echo "$digest $(hash_of <digest.out)"
    done
    openssl list -cipher-commands | tr ' ' '\n' | grep . | grep -v -E '^zlib|^zstd' | while read -r cipher; do
        openssl enc "-$cipher" -K 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f \
            -iv 000102030405060708090a0b0c0d0e0f -in "$here/medium.bin" -out cipher.out 2>/dev/null || echo "status $?" >cipher.out
        openssl enc -d "-$cipher" -K 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f \
            -iv 000102030405060708090a0b0c0d0e0f -in cipher.out -out plain.out 2>/dev/null || echo "status $?" >plain.out
        echo "$cipher $(hash_of <cipher.out) $(hash_of <plain.out)"
    done
}
case_openssl_symmetric() {
    for capabilities in all :~0xd0030000 ~0x1200020200000000:~0x20000020; do # all, without AVX-512, SSE2 alone
        if [ $capabilities = all ]; then
            unset OPENSSL_ia32cap
        else
            export OPENSSL_ia32cap=$capabilities
        fi
        openssl_all >all.out
        [ -e first.out ] || cp all.out first.out
        cmp -s first.out all.out || echo "$capabilities differs"
        echo "$capabilities $(hash_of <all.out)"
    done
    cat first.out
}

# Signatures that are the same each time, key derivation, and verification of those that are not.
case_openssl_asymmetric() {
    openssl dgst -sha512 -sign "$here/keys/rsa.pem" -out rsa.sig "$here/data.bin"
    hash_of <rsa.sig
    openssl pkeyutl -sign -rawin -inkey "$here/keys/ed25519.pem" -in "$here/small.bin" -out ed.sig
    hash_of <ed.sig
    openssl pkeyutl -sign -rawin -inkey "$here/keys/ed448.pem" -in "$here/small.bin" -out ed448.sig
    hash_of <ed448.sig
    openssl pkeyutl -derive -inkey "$here/keys/x25519.pem" -peerkey "$here/keys/x25519-peer.pem" | hash_of
    openssl pkeyutl -derive -inkey "$here/keys/p521.pem" -peerkey "$here/keys/p521-peer.pem" | hash_of
    openssl pkeyutl -derive -inkey "$here/keys/p256.pem" -peerkey "$here/keys/p256-peer.pem" | hash_of
    for key in p256 p521 dsa rsa; do
        for round in 1 2 3 4; do
            openssl dgst -sha256 -sign "$here/keys/$key.pem" -out some.sig "$here/small.bin"
            openssl dgst -sha256 -prverify "$here/keys/$key.pem" -signature some.sig "$here/small.bin"
        done
    done
    openssl genrsa 2048 2>/dev/null | openssl rsa -check -noout 2>&1
    openssl kdf -keylen 64 -kdfopt pass:word -kdfopt salt:salt -kdfopt n:8192 -kdfopt r:8 -kdfopt p:1 SCRYPT | hash_of
    openssl kdf -keylen 64 -kdfopt digest:SHA512 -kdfopt pass:word -kdfopt salt:salt -kdfopt iter:20000 PBKDF2 | hash_of
    openssl prime -checks 40 170141183460469231731687303715884105727 359334085968622831041960188598043661065388726959079837
}

# The library's own self-tests, and its digests, with every kind of code.
case_libgcrypt() {
    gcc -O2 "$here/cases/libgcrypt_work.c" -o work -lgcrypt
    for without in none intel-vaes-vpclmul,intel-avx512 intel-avx2 intel-avx2,intel-avx,intel-shaext \
        intel-avx2,intel-avx,intel-shaext,intel-aesni,intel-pclmul,intel-bmi2,intel-ssse3,intel-sse4.1; do
        ./work $without "$here/data.bin" >work.out
        [ -e first.out ] || cp work.out first.out
        cmp -s first.out work.out || echo "without $without it differs"
        echo "without $without $(hash_of <work.out)"
    done
    cat first.out
}

# A real program compiled at several levels: the same objects, and a program that works.
case_gcc() {
    cp -r "$here/sources/lua-5.4.4/src" .
    for file in src/*.c; do
        gcc -std=gnu99 -DLUA_USE_LINUX -DLUA_COMPAT_5_3 -O2 -c "$file" -o "${file%.c}.o"
    done
    cat src/*.o | hash_of
    for file in src/lvm.c src/lgc.c src/lmathlib.c; do
        gcc -std=gnu99 -DLUA_USE_LINUX -DLUA_COMPAT_5_3 -O3 -march=x86-64-v4 -ffast-math -fPIC -g -c "$file" -o other.o
        echo "$file $(hash_of <other.o)"
    done
    rm src/luac.o
    gcc src/*.o -o lua -lm -ldl -Wl,-E
    hash_of <lua
    ./lua "$here/cases/lua_work.lua"
}

# Python's own test files, a line for each. Of its hundreds those that lean on the machine: numbers and their text, packed data,
# compression, digests, code that is made at run time, calls into C, threads, signals, processes. Some by the tests that are named alone:
# the others wait, or start an interpreter for each. There is no test_sqlite3 in Debian's package.
case_python() {
    ip link set lo up
    for some in math cmath struct float long int complex decimal fractions strtod format random statistics array bytes memoryview \
        binascii audioop marshal pickle json re unicodedata zlib bz2 lzma hashlib ssl:BasicSocketTests,ContextTests,SSLErrorTests,MemoryBIOTests,SSLObjectTests,test_echo,test_tls1_3,test_session,test_ecdh_curve,test_sendfile,test_dh_params \
        itertools functools generators coroutines exceptions compile dict set sort weakref gc sys_settrace context ctypes mmap select \
        thread threading_local threading:ConditionTests,SemaphoreTests,BarrierTests,EventTests,CRLockTests,ThreadingExceptionTests \
        signal:PosixTests,WakeupFDTests,WakeupSocketSignalTests,PendingSignalsTests threadsignals \
        faulthandler:test_sig*,test_fatal*,test_read_null,test_stack_overflow,test_register fork1 wait3 wait4; do
        test=${some%%:*}
        matching=
        [ "$test" = "$some" ] || matching=$(echo "${some#*:}" | sed 's/^/-m /; s/,/ -m /g')
        status=0
        set -f # the patterns are Python's
        timeout 900 python3 -m test -v $matching "test_$test" >python.log 2>&1 || status=$?
        set +f
        case $test in
        ssl) # its servers' threads print between a test's name and its "ok"
            grep -oE 'test_[A-Za-z0-9_]+ \(test\.[A-Za-z0-9_.]+\)|^(OK|FAILED).*' python.log >tests.out || true ;;
        *) grep -E '\.\.\. (ok|FAIL|ERROR|skipped|expected)' python.log | sed 's/0x[0-9a-f]*/ADDRESS/g' >tests.out || true ;;
        esac
        echo "test_$test status $status, $(wc -l <tests.out) tests $(sort tests.out | hash_of)"
        grep -E '\.\.\. (FAIL|ERROR)' python.log | head -5 || true
    done
}

# Perl's own test files.
case_perl() {
    cp -r "$here/sources/perl-5.36.0/t" .
    ln -s /usr/bin/perl perl
    ln -s /usr/bin/perl t/perl
    cd t
    for test in base/*.t cmd/*.t opbasic/*.t op/sprintf*.t op/pack.t op/num*.t op/64bitint.t op/arith2.t op/bop.t op/inc.t op/int.t \
        op/hexfp.t op/infnan.t op/pow.t op/sort.t op/split.t op/substr.t op/tr.t op/vec.t op/oct.t op/index.t op/lc.t op/join.t op/hash.t \
        op/each.t op/closure.t op/fork.t op/goto.t op/local.t op/method.t op/repeat.t op/reverse.t op/sub.t op/tie*.t op/range.t \
        op/chop.t op/concat2.t op/eval.t op/die*.t op/sigdispatch.t op/overload_integer.t op/list.t op/loopctl.t op/utf8decode.t re/pat.t \
        re/regexp.t re/subst.t re/qr.t re/pos.t re/reg_eval.t re/anyof.t uni/sprintf.t uni/lower.t mro/basic.t; do
        status=0
        timeout 300 /usr/bin/perl -I../lib -I. "$test" >../perl.log 2>/dev/null </dev/null || status=$?
        echo "$test status $status, $(grep -c '^ok' ../perl.log) ok, $(grep -c '^not ok' ../perl.log) not ok," \
            "$(grep -E '^(not )?ok' ../perl.log | sed 's/0x[0-9a-f]*/ADDRESS/g; s/#.*//; s/(.*)//' | cut -d' ' -f1-3 | hash_of)"
    done
}

case_node() {
    node "$here/cases/node_work.js"
    node --jitless "$here/cases/node_work.js" short | hash_of
    node --always-sparkplug --stress-compaction "$here/cases/node_work.js" short | hash_of
    node --always-opt "$here/cases/node_work.js" short 2>/dev/null | hash_of
}

# A little of many kinds of programs, for an engine that is slow: compilers, packers, ciphers, interpreters, processes.
case_short() {
    cp "$here"/sources/lua-5.4.4/src/*.h "$here/sources/lua-5.4.4/src/lzio.c" .
    gcc -O2 -c lzio.c -o lzio.o
    hash_of <lzio.o
    gzip -9 <"$here/medium.bin" | gzip -d | hash_of
    python3 -c 'import lzma, sys; sys.stdout.buffer.write(lzma.compress(lzma.decompress(lzma.compress(sys.stdin.buffer.read()))))' <lzio.o | hash_of
    for capabilities in '' :~0xd0030000 ~0x1200020200000000:~0x20000020; do # all, without AVX-512, SSE2 alone
        OPENSSL_ia32cap=$capabilities openssl dgst -sha256 "$here/data.bin" | hash_of
        OPENSSL_ia32cap=$capabilities openssl enc -aes-256-ctr -K 0001 -iv 0203 -in "$here/data.bin" 2>/dev/null | hash_of
        OPENSSL_ia32cap=$capabilities openssl dgst -sha512 -sign "$here/keys/rsa.pem" "$here/small.bin" | hash_of
    done
    python3 -c 'print(sum(i * i % 7 for i in range(20000)), 3 ** 2000 % 10 ** 40, 2 ** 0.5, sorted({str(i) for i in range(300)})[:9])'
    perl -e 'for (1..3000) { $h{$_ % 97} .= sprintf "%x", $_ * $_ } print join " ", map { length $h{$_} } sort keys %h; print "\n"'
    luajit -e 'local s = 0.5; for i = 1, 1e5 do s = 3.9 * s * (1 - s) end print(string.format("%.17g", s))'
    node -e 'let s = 0; for (let i = 0; i < 1e5; i++) s = (s * 31 + i) % 10007; console.log(s, `${2n ** 300n}`)'
    grep -c -E '^(static|int)[^;]*\(' lzio.c
    for i in 1 2 3 4 5 6 7 8 9 10; do
        (exec sh -c "echo $i") | cat
    done
    stress --switch 2 --switch-ops 200 --timeout 60
}

case_luajit() {
    luajit "$here/cases/lua_work.lua"
    luajit -joff "$here/cases/lua_work.lua" | hash_of
    luajit -O0 "$here/cases/lua_work.lua" | hash_of
    luajit -Ohotloop=1,hotexit=1 "$here/cases/lua_work.lua" | hash_of
}

case_randomx() { python3 "$here/cases/randomx_work.py"; }

# RandomX, a compiler of random programs, in a node of a private chain: proof-of-work hashes of fixed blocks, and blocks of a chain
# that was mined elsewhere, each of which must reach its difficulty.
case_monero() {
    ip link set lo up
    for mode in jit interpreter; do
        [ $mode = interpreter ] && export MONERO_RANDOMX_UMASK=8
        rm -rf node
        monerod --regtest --offline --fixed-difficulty 40 --data-dir "$PWD/node" --rpc-bind-port 28081 --p2p-bind-port 28080 --no-zmq \
            --no-igd --disable-rpc-ban --max-concurrency 1 --non-interactive --log-file "$PWD/node.log" >/dev/null 2>&1 &
        node=$!
        python3 "$here/cases/monero_work.py" $mode "$here/chain.json" || echo "status $?"
        kill $node
        wait $node || true
    done
}

case $name in
list) sed -n 's/^case_\([a-z_]*\)().*/\1/p' "$0" ;;
*) "case_$name" 2>&1 ;;
esac
cd /
rm -rf "$scratch"
