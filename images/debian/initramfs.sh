# Hook of mmdebstrap, between the essential packages and the kernel; $1 is the guest's root folder.
#
# Keeps the initial RAM disk small: only what brings up a root file system on a virtio disk, instead of every driver that
# some PC might need. A small one also unpacks sooner, which counts where the CPU is an interpreter.
set -eu
mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"
printf 'MODULES=list\nCOMPRESS=lz4\n' >"$1/etc/initramfs-tools/conf.d/skerry"
printf '%s\n' virtio_pci virtio_blk ext4 crc32c_generic >"$1/usr/share/initramfs-tools/modules.d/skerry"
