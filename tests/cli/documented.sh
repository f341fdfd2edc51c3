#!/bin/sh
# What the help says is also in the man pages and the completions; what the README says to install is what install-deps installs.
set -u
here=$(dirname "$0")
. "$here/check.sh"
docs=$here/../../docs

documented() { # MAN_PAGE VERB…
    page=$1
    shift
    for option in $("$skerry" "$@" --help | sed -n 's/^  \(-., \)\{0,1\}--\([a-z-]*\).*/\2/p'); do
        checks=$((checks + 1))
        grep -q -- "Fl Fl $option\b" "$docs/man/$page" || complain "--$option of $* is not in docs/man/$page"
        grep -q -- "--$option\b" "$docs/completion/skerry.bash" || complain "--$option is not in skerry.bash"
        grep -q -- "--$option\b" "$docs/completion/_skerry" || complain "--$option is not in _skerry"
    done
}
documented skerry-run.1 run
for verb in build create info convert check; do
    documented skerry-image.1 image $verb
done
for verb in $("$skerry" help | sed -n 's/^  \([a-z]*\)  .*/\1/p'); do
    checks=$((checks + 1))
    grep -q -- "\b$verb\b" "$docs/man/skerry.1" || complain "$verb is not in docs/man/skerry.1"
done
for package in $("$here/../../tools/install-deps" --list); do
    checks=$((checks + 1))
    grep -q -- " $package\b" "$here/../../README.md" || complain "$package is not in README.md"
done
[ "$checks" -gt 40 ] || complain "only $checks things compared"
finish
