#!/bin/sh
# `skerry image create|info|convert|check`: what they make, say and refuse; beside qemu-img where it is installed.
set -u
here=$(dirname "$0")
. "$here/check.sh"
skerry=$(realpath "$skerry")
cd "$work" || exit 1

# ok ARGUMENT… expects success with nothing on stderr.
ok() {
    checks=$((checks + 1))
    "$skerry" "$@" >"$work/stdout" 2>"$work/stderr" </dev/null || complain "skerry $*: status $?: $(cat "$work/stderr")"
    [ ! -s "$work/stderr" ] || complain "skerry $*: said: $(cat "$work/stderr")"
}

# says TEXT expects it in the last output.
says() {
    grep -q -- "$1" "$work/stdout" || complain "no '$1' in: $(cat "$work/stdout")"
}

same() {
    checks=$((checks + 1))
    cmp -s "$1" "$2" || complain "$1 and $2 differ"
}

# qemu ARGUMENT… expects that qemu-img agrees.
qemu() {
    command -v qemu-img >/dev/null || return 0
    checks=$((checks + 1))
    qemu-img "$@" >"$work/stdout" 2>&1 || complain "qemu-img $*: $(cat "$work/stdout")"
}

# Create and look.
ok image create data.img 8M
[ "$(stat -c %s data.img)" = 8388608 ] || complain "data.img has the wrong size"
ok image create -f qcow2 -o cluster_size=4K,version=2 data.qcow2 1G
ok image info data.qcow2
says 'virtual-size  *1 GiB (1073741824 bytes)'
says 'version  *2'
ok image info --format json data.qcow2
says '"cluster-size": 4096'
ok image check data.qcow2
says '0 errors, 0 leaked'
qemu check data.qcow2

# Content: some text, a hole, noise.
seq 1 40000 >source.img
truncate -s 5M source.img
head -c 300000 /dev/urandom >>source.img
truncate -s 12M source.img
for options in "" "-c" "-o cluster_size=512" "-c -o compression_type=zstd" "-o refcount_bits=1,lazy_refcounts=on" "-o version=2 -c"; do
    ok image convert -f raw -O qcow2 $options source.img copy.qcow2
    ok image check copy.qcow2
    qemu check copy.qcow2
    qemu compare -f raw -F qcow2 source.img copy.qcow2
    ok image convert -O raw copy.qcow2 back.img
    same source.img back.img
done
[ "$(du -k back.img | cut -f1)" -lt 2048 ] || complain "holes of back.img take space"

# Overlays, by relative name from another folder.
mkdir sub
ok image create -f qcow2 -b ../copy.qcow2 sub/over.qcow2
ok image info --format json sub/over.qcow2
says '"backing-filename": "../copy.qcow2"'
says '"backing-filename-format": "qcow2"'
ok image convert -O raw sub/over.qcow2 back.img
same source.img back.img
qemu compare -f raw -F qcow2 source.img sub/over.qcow2

# A leak and a low count, made by hand: the refcount block is cluster 4 (header, L1, table, block: 0, 1, 2, 3).
ok image convert -f raw -O qcow2 source.img broken.qcow2
block=$((3 * 65536))
printf '\000\000' | dd of=broken.qcow2 bs=1 seek=$((block + 10)) conv=notrunc 2>/dev/null
printf '\000\003' | dd of=broken.qcow2 bs=1 seek=$((block + 12)) conv=notrunc 2>/dev/null
status=0
"$skerry" image check broken.qcow2 >stdout 2>stderr || status=$?
[ "$status" = 3 ] || complain "check of a broken image: status $status"
says 'used 1 times and counted 0'
says '1 leaked clusters'
ok image check --repair all broken.qcow2
ok image check broken.qcow2
says '0 errors, 0 leaked'
qemu check broken.qcow2
qemu compare -f raw -F qcow2 source.img broken.qcow2

# Mistakes.
check 2 "which disk" image create
check 2 "how large" image create new.img
check 2 "'1X' is no size" image create new.img 1X
check 2 "multiple of 512" image create new.img 1000
check 2 "one argument too many" image create new.img 1M 2M
check 2 "unknown disk format 'vdi'" image create -f vdi new.img 1M
check 2 "cluster_size must be" image create -f qcow2 -o cluster_size=3K new.qcow2 1M
check 2 "no option 'size'" image create -f qcow2 -o size=3K new.qcow2 1M
check 2 "add -f qcow2" image create -b data.img new.img
check 1 "exists already" image create data.img 1M
check 1 "No such file" image create -f qcow2 -b missing new.qcow2
check 1 "need version 3" image create -f qcow2 -o version=2,refcount_bits=8 new.qcow2 1M
check 1 "needs larger clusters" image create -f qcow2 -o cluster_size=512 new.qcow2 1000T
check 1 "No such file" image create no/such/folder 1M
check 2 "which disk" image info
check 1 "No such file" image info missing
check 1 "is a directory" image info .
check 2 "there are: text, json" image info --format xml data.img
check 2 "add -O raw" image convert data.img new.img
check 2 "no compression" image convert -O raw -c data.img new.img
check 1 "both source and destination" image convert -O raw data.img data.img
check 1 "not a qcow2 image" image convert -f qcow2 -O raw data.img new.img
check 1 "is raw" image check data.img
check 2 "there are: leaks, all" image check --repair some data.qcow2
check 2 "did you mean 'image convert'" image convrt
printf 'KDMV' | dd of=disk.vmdk bs=512 conv=sync 2>/dev/null
check 1 "looks like a VMDK image" image info disk.vmdk
head -c 200000 copy.qcow2 >short.qcow2
check 1 "short.qcow2" image convert -O raw short.qcow2 new.img

rm -f stdout stderr
left=$(ls | tr '\n' ' ')
[ "$left" = "back.img broken.qcow2 copy.qcow2 data.img data.qcow2 disk.vmdk short.qcow2 source.img sub " ] ||
    complain "files were left: $left"
finish
