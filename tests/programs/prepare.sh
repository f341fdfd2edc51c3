#!/bin/sh
# prepare.sh SKERRY: makes the Debian of the program tests, once, and prints the folder that holds it: debian.img, .vmlinuz and
# .initrd for the guest, the same files in rootfs/ for the host, and sources/ with what is compiled. The folder's name follows
# from the recipe. Exit status 77: Debian's packages cannot be fetched.
set -eu
skerry=$1
here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/skerry
packages=gcc,libc6-dev,stress-ng,openssl,libgcrypt20-dev,python3,libpython3.11-testsuite,perl,nodejs,luajit,monero
sources='lua5.4 perl'

recipe=$(cat "$here/prepare.sh" "$here/../../images/debian"/* | sha1sum | cut -c1-12)
folder=$cache/tests-programs-$recipe
mkdir -p "$folder"
exec 9>"$folder/lock"
flock 9
touch "$folder"
find "$cache" -mindepth 1 -maxdepth 1 -name 'tests-programs-*' -mtime +7 -exec rm -rf {} +

unavailable() {
    echo "prepare.sh: Debian's packages cannot be fetched here" >&2
    exit 77
}

# apt-get with lists of its own, so that the host need not know where sources are.
apt() {
    mkdir -p "$folder/apt/lists/partial" "$folder/apt/archives/partial"
    echo 'deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main' \
        >"$folder/apt/sources.list"
    apt-get -qq -o APT::Sandbox::User="$(id -un)" -o Dir::Etc::sourcelist="$folder/apt/sources.list" \
        -o Dir::Etc::sourceparts=- -o Dir::State::lists="$folder/apt/lists" -o Dir::Cache="$folder/apt" "$@" >&2
}

sources_fetch() (
    rm -rf "$folder/sources.part"
    mkdir "$folder/sources.part"
    cd "$folder/sources.part"
    for name in $sources; do
        apt source --download-only "$name" || unavailable
    done
    for archive in *.orig.tar.?z; do
        tar -xf "$archive"
    done
    rm -f -- *.tar.* *.dsc
    mv "$folder/sources.part" "$folder/sources"
)

[ -e "$folder/sources" ] && [ -e "$folder/debian.img" ] || apt update || unavailable
[ -e "$folder/sources" ] || sources_fetch
if [ ! -e "$folder/debian.img" ]; then
    rm -rf "$folder"/debian.img.?????? # what a build that was killed has left
    "$skerry" image build debian --out "$folder/debian.img" --size 4G --with $packages >&2
fi
rm -rf "$folder/apt"
if [ ! -e "$folder/rootfs" ]; then
    rm -rf "$folder/rootfs.part"
    mkdir "$folder/rootfs.part"
    /sbin/debugfs -R "rdump / $folder/rootfs.part" "$folder/debian.img" >&2
    mv "$folder/rootfs.part" "$folder/rootfs"
fi
echo "$folder"
