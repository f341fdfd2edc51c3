#!/bin/sh
# programs.sh NAME prepare|run|check [REPEATS]: the real programs of the benchmark. Runs beside its inputs, in the guest
# or in the same Debian on the host. `prepare` makes what is needed and warms the file cache, `run` is timed, `check`
# prints one word that must be the same on every machine. bench/inputs.py makes text.txt and source.c; key.pem is an RSA
# key of 8192 bits.
set -eu
cd "$(dirname "$0")"
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C HOME=/tmp
name=$1 step=$2 repeats=${3:-1}

# As many megabytes of text as a fast program needs to be worth timing.
big_text() {
    for i in 1 2 3 4 5 6 7 8; do
        cat text.txt text.txt text.txt
    done >big.txt
}

hash_of() {
    sha256sum <"$1" | cut -c1-16
}

# again COMMAND...: as often as the scale asks for
again() {
    i=0
    while [ $i -lt "$repeats" ]; do
        "$@"
        i=$((i + 1))
    done
}

gcc_prepare() { echo 'int x;' >small.c && gcc -O2 -c small.c -o small.o; }
gcc_run() { again gcc -O2 -c source.c -o source.o; }
gcc_check() { hash_of source.o; }

xz_prepare() { head -c 700000 text.txt >xz.txt && echo | xz >/dev/null; }
xz_run() { again sh -c 'xz -6 -T1 <xz.txt >xz.out'; }
xz_check() { hash_of xz.out; }

gzip_prepare() { head -c 2000000 text.txt >gzip.txt && echo | gzip >/dev/null; }
gzip_run() { again sh -c 'gzip -6 -n <gzip.txt >gzip.out'; }
gzip_check() { hash_of gzip.out; }

sha256sum_prepare() { big_text && echo | sha256sum >/dev/null; }
sha256sum_run() { again sh -c 'sha256sum <big.txt >sha256sum.out'; }
sha256sum_check() { hash_of sha256sum.out; }

openssl_aes_prepare() { big_text && openssl version >/dev/null; }
openssl_aes_run() {
    again openssl enc -aes-256-cbc -K 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f \
        -iv 000102030405060708090a0b0c0d0e0f -in big.txt -out aes.out
}
openssl_aes_check() { hash_of aes.out; }

# The signatures of this padding are the same each time.
rsa_signatures() {
    for i in 1 2 3 4 5 6 7 8; do
        openssl dgst -sha256 -sign key.pem -out rsa.out source.c
    done
}
openssl_rsa_prepare() { openssl version >/dev/null; }
openssl_rsa_run() { again rsa_signatures; }
openssl_rsa_check() { hash_of rsa.out; }

python_prepare() { python3 -c 'import json, re, collections'; }
python_run() { again sh -c 'python3 python_work.py text.txt >python.out'; }
python_check() { hash_of python.out; }

# Alternatives and a back reference: the second pattern cannot be searched by a table alone.
grep_prepare() { echo x | grep -q x; }
grep_searches() {
    { grep -E -c '(ing|tion|ous)[a-z]* [a-m]+[aeiou]{2}' text.txt && grep -c '\([a-z][a-z]\)\1' text.txt; } >grep.out
}
grep_run() { again grep_searches; }
grep_check() { hash_of grep.out; }

fork_exec_prepare() { /bin/true; }
five_hundred() {
    n=0
    while [ $n -lt 500 ]; do
        /bin/true
        n=$((n + 1))
    done
    echo $n >fork_exec.out
}
fork_exec_run() { again five_hundred; }
fork_exec_check() { hash_of fork_exec.out; }

# A node of a private chain; its first block makes RandomX fill its cache, and is not timed.
monero_mining_prepare() {
    ip link set lo up
    rm -rf monero
    monerod --regtest --offline --fixed-difficulty 1 --data-dir "$PWD/monero" --rpc-bind-port 28081 \
        --p2p-bind-port 28080 --no-zmq --no-igd --disable-rpc-ban --max-concurrency 1 --detach \
        --pidfile "$PWD/monero.pid" --log-file "$PWD/monero.log" >/dev/null
    python3 monero_rpc.py wait
    python3 monero_rpc.py mine 1
}
monero_mining_run() { again python3 monero_rpc.py mine 30; }
monero_mining_check() {
    python3 monero_rpc.py count
    kill "$(cat monero.pid)"
}

"${name}_$step"
