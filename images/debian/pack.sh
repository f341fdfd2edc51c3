# Packs a root file system into a disk image: reads $1/rootfs.tar, writes $1/disk, $1/kernel and $1/initrd. $2 is the disk's
# size in bytes. Runs as root, or as root of a user namespace: no device nodes, no mounts.
set -eu
cd "$1"
trap 'rm -rf root' EXIT
trap 'exit 1' INT TERM HUP
mkdir root
tar --extract --preserve-permissions --numeric-owner --directory root --exclude './dev/*' --file rootfs.tar
cp root/boot/vmlinuz-* kernel
cp root/boot/initrd.img-* initrd
chmod 644 kernel initrd
# mke2fs fills the file system from the folder, so nothing needs to be mounted; 1 % reserve instead of 5 %
truncate -s "$2" disk
mke2fs -q -t ext4 -L root -m 1 -d root disk
