#!/bin/sh
# Every mistake gets one sentence that names the fix, status 2 (usage) or 1, and leaves nothing behind.
set -u
here=$(dirname "$0")
. "$here/check.sh"
. "$here/tiny_kernel.sh"
k=$work/kernel
tiny_kernel "$k" "$guest_debug_exit"

# The command line.
check 2 "no verb 'rnu'; did you mean 'run'" rnu
check 2 "no verb 'frobnicate'; 'skerry help' lists them" frobnicate
check 2 "no option '--kernal'; did you mean --kernel" run --kernal x
check 2 "no option '-x'; 'skerry help run' lists them" run -x
check 2 "'$k' is no option" run "$k"
check 2 "name the guest's kernel with --kernel" run
check 2 "--kernel needs a value" run --kernel
check 2 "--no-reboot takes no value" run --no-reboot=1
check 2 "--memory: '12Q' is no size; write it as 512M" run --kernel "$k" --memory 12Q
check 2 "counts bytes" run --kernel "$k" --memory 512
check 2 "whole number of MiB" run --kernel "$k" --memory 1500K
check 1 "more than this host has .*give the guest less" run --kernel "$k" --memory 1000G
check 2 "--cpus: '0' must be a number from 1 to 16" run --kernel "$k" --cpus 0
check 2 "--cpus: '17' must be" run --kernel "$k" --cpus 17
check 2 "--cpus: 'two' must be" run --kernel "$k" --cpus two
check 2 "did you mean interp" run --kernel "$k" --cpu-engine intrp
check 2 "there are: auto, interp, jit, kvm, lockstep" run --kernel "$k" --cpu-engine bochs
check 1 "i486sx" run --kernel "$k" --cpu-model i486sx
check 2 "'vde'; there are: none, user" run --kernel "$k" --net vde
check 2 "leave out --net none" run --kernel "$k" --net none -p 2222:22
check 2 "must be HOST:GUEST" run --kernel "$k" -p 2222
check 2 "'70000' is no port" run --kernel "$k" -p 70000:22
check 2 "'localhost' is no IPv4 address" run --kernel "$k" -p localhost:2222:22
check 2 "'/sctp' must be /tcp or /udp" run --kernel "$k" -p 2222:22/sctp
check 2 "there are: debug-exit" run --kernel "$k" --device floppy
check 2 "both want the terminal" run --kernel "$k" --device debugcon
check 2 "'-1' must be a number of seconds above 0" run --kernel "$k" --timeout -1
check 2 "'0' must be a number from 1 to 1000" run --kernel "$k" --slow-clock 0
check 2 "no category 'pti'" run --kernel "$k" --trace pti
check 2 "--dump: .*'ghost'" run --kernel "$k" --dump ghost
check 2 "no 'vdi'; there are: auto, raw, qcow2" run --kernel "$k" --disk "$k,format=vdi"
check 2 "did you mean readonly" run --kernel "$k" --disk "$k,readnly"
check 2 "exclude each other" run --kernel "$k" --disk "$k,readonly,snapshot"
check 2 "longer than 20 bytes" run --kernel "$k" --disk "$k,serial=012345678901234567890"
check 2 "for skerry itself" vm
check 2 "which system" image build
check 2 "no recipe for 'gentoo'" image build gentoo
check 2 "'../x' is no name of a Debian suite" image build debian --suite ../x
check 2 "from 512M" image build debian --size 1M
check 2 "no such file\|No such file" image build debian --ssh-key "$work/missing"

# Files.
check 1 "'$work/missing'.*No such file" run --kernel "$work/missing"
check 1 "'$work/missing'.*No such file" run --kernel "$k" --initrd "$work/missing"
check 1 "'$work/missing'.*No such file" run --kernel "$k" --disk "$work/missing"
: >"$work/empty"
check 1 "$work/empty" run --kernel "$work/empty"
echo 'just a text' >"$work/text"
check 1 "$work/text" run --kernel "$work/text"
check 1 "$work" run --kernel "$work"
# a bzImage that promises more than is there: the boot signature, "HdrS", version 2.15, 4 setup sectors
dd if=/dev/zero of="$work/bzimage" bs=1024 count=1 2>/dev/null
printf '\004' | dd of="$work/bzimage" bs=1 seek=497 conv=notrunc 2>/dev/null
printf '\125\252\353\152HdrS\017\002' | dd of="$work/bzimage" bs=1 seek=510 conv=notrunc 2>/dev/null
check 1 "$work/bzimage" run --kernel "$work/bzimage"
truncate -s 1M "$work/raw"
check 1 "$work/raw.*qcow2" run --kernel "$k" --disk "$work/raw,format=qcow2"
check 1 "$work" run --kernel "$k" --disk "$work"
check 1 "no-such-folder" run --kernel "$k" --serial "$work/no-such-folder/log"

# A VM that cannot start leaves the files for its output alone, and makes none.
echo precious >"$work/log"
kept() {
    check "$@" --serial "$work/log" --device debugcon="$work/new"
    [ "$(cat "$work/log")" = precious ] || complain "skerry $*: --serial was emptied"
    [ ! -e "$work/new" ] || complain "skerry $*: --device debugcon made its file"
    echo precious >"$work/log"
}
kept 1 "i486sx" run --kernel "$k" --cpu-model i486sx
kept 1 "at least" run --kernel "$k" --memory 1M
kept 1 "no-such-folder" run --kernel "$k" --device virtio-console="$work/no-such-folder/log"
kept 1 "is what the guest boots from" run --kernel "$k" --device virtio-console="$k"
kept 1 "is a disk of the guest" run --kernel "$k" --disk "$work/raw" --device virtio-console="$work/raw"
rm "$work/log"
check 1 "$work" run --kernel "$k" --serial "$work"

# Things of the host that are taken or forbidden.
if command -v python3 >/dev/null; then
    python3 -c '
import socket, sys, time
s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(); print(s.getsockname()[1], flush=True); time.sleep(60)' >"$work/port" &
    holder=$!
    while [ ! -s "$work/port" ]; do sleep 0.1; done
    port=$(cat "$work/port")
    check 1 "$port" run --kernel "$k" -p "$port:22"
    kill $holder
fi
[ -e /dev/kvm ] || check 1 "no /dev/kvm; use --cpu-engine auto" run --kernel "$k" --cpu-engine kvm
if [ -c /dev/kvm ] && [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
    chmod 755 "$work"
    got=0
    setpriv --reuid=65534 --regid=65534 --clear-groups "$skerry" run --kernel "$k" --cpu-engine kvm \
        2>"$work/stderr" </dev/null || got=$?
    checks=$((checks + 1))
    if [ "$got" != 1 ] || ! grep -q 'no permission for /dev/kvm; join the group kvm' "$work/stderr"; then
        [ -r /dev/kvm ] && [ "$(stat -c %A /dev/kvm | cut -c8-9)" = rw ] || complain "kvm without permission: $(cat "$work/stderr")"
    fi
fi

rm -f "$work/stdout" "$work/stderr" "$work/port"
left=$(cd "$work" && ls | tr '\n' ' ')
[ "$left" = "bzimage empty kernel raw text " ] || complain "files were left: $left"
finish
