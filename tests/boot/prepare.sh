#!/bin/sh
# prepare.sh SKERRY busybox|debian: makes the guests that the boot tests need, once, and prints the folder they are in. The
# folder's name follows from the recipes, so that a changed recipe makes new guests.
set -eu
skerry=$1
here=$(cd "$(dirname "$0")" && pwd)
images=$here/../../images
recipes=$(cat "$images"/busybox/* "$images"/debian/* "$here/prepare.sh" | sha1sum | cut -c1-12)
folder=${XDG_CACHE_HOME:-$HOME/.cache}/skerry/tests-$recipes
mkdir -p "$folder"
exec 9>"$folder/lock"
flock 9

case $2 in
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
