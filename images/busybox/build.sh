#!/bin/sh
# build.sh: a small Linux guest for boot tests: a Debian kernel as it is, and an initial RAM disk of busybox and the kernel's
# virtio and ext4 modules. Usage: build.sh FOLDER [cloud-amd64|amd64]
#
# Makes FOLDER/FLAVOUR.vmlinuz and FOLDER/FLAVOUR.initrd, if they are not there. Needs apt-get and dpkg-deb, no root: packages
# are fetched and unpacked, not installed. The initial RAM disk is not compressed, which makes it the quickest to boot.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=$1
flavour=${2:-cloud-amd64}
modules='virtio_pci virtio_blk virtio_net virtio_console virtio-rng virtio_balloon ext4 crc32c_generic'

[ -e "$out/$flavour.initrd" ] && exit 0
mkdir -p "$out"
work=$(mktemp -d "$out/$flavour.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP
cd "$work"

# The real package behind the name, and busybox. Old package lists may name files that are gone.
fetch() {
    package=$(apt-cache depends --no-recommends --no-suggests "linux-image-$flavour" |
        sed -n 's/ *Depends: \(linux-image-[0-9].*\)/\1/p')
    [ -n "$package" ] && apt-get -qq -o APT::Sandbox::User="$(id -un)" download "$package" busybox-static
}
echo "busybox guest: fetching the kernel linux-image-$flavour"
if ! fetch; then
    [ "$(id -u)" = 0 ] && apt-get -qq update && fetch || {
        echo "build.sh: cannot fetch linux-image-$flavour; run 'apt-get update'" >&2
        exit 1
    }
fi
for deb in *.deb; do
    dpkg-deb -x "$deb" tree
done
busybox=tree/bin/busybox
[ -e $busybox ] || busybox=tree/usr/bin/busybox
version=$(cd tree/lib/modules && echo *)

# Each module after those it depends on, as modules.dep lists them from right to left.
"$busybox" depmod -b tree "$version"
for module in $modules; do
    sed -n "s|^\(.*/$module\.ko\): *\(.*\)|\1 \2|p" "tree/lib/modules/$version/modules.dep" |
        awk '{ for (i = NF; i > 0; i--) print $i }'
done | awk '!seen[$0]++' >order

mkdir -p root/bin root/modules root/proc root/sys root/dev root/mnt root/etc
cp "$busybox" root/bin/busybox
while read -r path; do
    path=${path#/}
    cp "tree/lib/modules/$version/${path#lib/modules/$version/}" root/modules/
done <order
sed 's|.*/||' order >root/modules/order
install -m 755 "$here/init" root/init
install -m 755 "$here/udhcpc.script" root/etc/udhcpc.script
(cd root && find . | ../"$busybox" cpio -o -H newc 2>/dev/null) >initrd
cp "tree/boot/vmlinuz-$version" vmlinuz
mv vmlinuz "$out/$flavour.vmlinuz"
mv initrd "$out/$flavour.initrd"
