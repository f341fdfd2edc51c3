#!/bin/sh
# prepare.sh SKERRY busybox|debian: makes the guests that the boot tests need, once, and prints the folder they are in. The
# folder's name follows from the recipe, so that a changed recipe makes new guests.
set -eu
skerry=$1 guest=$2
here=$(cd "$(dirname "$0")" && pwd)
images=$here/../../images
cache=${XDG_CACHE_HOME:-$HOME/.cache}/skerry
recipe=$(cat "$images/$guest"/* "$here/prepare.sh" | sha1sum | cut -c1-12)
folder=$cache/tests-$guest-$recipe
mkdir -p "$folder"
exec 9>"$folder/lock"
flock 9
find "$cache" -mindepth 1 -maxdepth 1 -name 'tests-*' ! -path "$folder" -mtime +7 -exec rm -rf {} +

case $guest in
busybox)
    "$images/busybox/build.sh" "$folder" cloud-amd64 >&2
    "$images/busybox/build.sh" "$folder" amd64 >&2
    ;;
debian)
    [ -e "$folder/key" ] || ssh-keygen -q -t ed25519 -N '' -C test -f "$folder/key" </dev/null >&2
    [ -e "$folder/debian.img" ] || "$skerry" image build debian --out "$folder/debian.img" --size 3G --ssh-key "$folder/key.pub" \
        --with gcc,libc6-dev,stress-ng >&2
    ;;
esac
echo "$folder"
