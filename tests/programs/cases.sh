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

# Python's own test files, a line for each test.
case_python() {
    for test in math cmath struct zlib json re float long int complex decimal fractions strtod array bytes hashlib bz2 marshal itertools \
        functools generators coroutines grammar exceptions compile fstring format heapq dict list thread mmap fork1 numeric_tower audioop \
        binascii bisect bool colorsys crypt enumerate hmac iter memoryview operator pow range slice string tuple uuid; do
        status=0
        timeout 900 python3 -m test -v "test_$test" >python.log 2>&1 || status=$?
        grep -E '\.\.\. (ok|FAIL|ERROR|skipped|expected)' python.log | sed 's/0x[0-9a-f]*/ADDRESS/g' >tests.out || true
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

case_luajit() {
    luajit "$here/cases/lua_work.lua"
    luajit -joff "$here/cases/lua_work.lua" | hash_of
    luajit -O0 "$here/cases/lua_work.lua" | hash_of
    luajit -Ohotloop=1,hotexit=1 "$here/cases/lua_work.lua" | hash_of
}

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
