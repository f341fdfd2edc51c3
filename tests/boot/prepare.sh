#!/bin/sh
# prepare.sh SKERRY busybox|debian: makes the guests that the boot tests need, once, and prints the folder they are in. The
# folder's name follows from the recipe, so that a changed recipe makes new guests. Exit status 77: packages cannot be fetched.
set -eu
skerry=$1 guest=$2
here=$(cd "$(dirname "$0")" && pwd)
source=$here/../..
cache=${XDG_CACHE_HOME:-$HOME/.cache}/skerry
packages=gcc,libc6-dev,stress-ng,util-linux-extra

# The recipe, and the packages that the command adds to every Debian.
recipe=$({
    cat "$source/images/$guest"/* "$here/prepare.sh"
    sed -n '/define DEBIAN_PACKAGES/,/[^\\]$/p' "$source/src/cli/image_build.c"
} | sha1sum | cut -c1-12)
folder=$cache/tests-$guest-$recipe
mkdir -p "$folder"
exec 9>"$folder/lock"
flock 9
touch "$folder"
find "$cache" -mindepth 1 -maxdepth 1 -name 'tests-*' -mtime +7 -exec rm -rf {} +

# Ends the script after a failed recipe: 77 when it can be no fault of ours.
give_up() {
    scratch=$(mktemp -d)
    cd "$scratch"
    fetched=yes
    apt-get -qq -o APT::Sandbox::User="$(id -un)" -o Acquire::Retries=0 download busybox-static >&2 || fetched=no
    rm -rf "$scratch"
    [ $fetched = yes ] && exit 1
    echo "prepare.sh: no guest '$guest': Debian's packages cannot be fetched here" >&2
    exit 77
}

case $guest in
busybox)
    for flavour in cloud-amd64 amd64; do
        "$source/images/busybox/build.sh" "$folder" $flavour >&2 || give_up
    done
    ;;
debian)
    rm -rf "$folder"/debian.img.?????? # what a build that was killed has left
    [ -e "$folder/key" ] || ssh-keygen -q -t ed25519 -N '' -C test -f "$folder/key" </dev/null >&2
    [ -e "$folder/debian.img" ] || "$skerry" image build debian --out "$folder/debian.img" --size 3G \
        --ssh-key "$folder/key.pub" --with $packages >&2 || give_up
    ;;
esac
echo "$folder"
