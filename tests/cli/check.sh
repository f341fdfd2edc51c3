# check: runs the command and compares exit status and output. Sourced; $skerry is the command, $work a folder of one's own.
#
# check STATUS PATTERN ARGUMENT… expects the exit status, and on stderr one line (only) that matches the basic regular expression.
skerry=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP
failures=0
checks=0

complain() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

check() {
    want=$1 pattern=$2
    shift 2
    got=0
    checks=$((checks + 1))
    "$skerry" "$@" >"$work/stdout" 2>"$work/stderr" </dev/null || got=$?
    [ "$got" = "$want" ] || complain "skerry $*: exit status $got instead of $want: $(cat "$work/stderr")"
    grep -q -- "$pattern" "$work/stderr" || complain "skerry $*: no '$pattern' in: $(cat "$work/stderr")"
    [ "$(wc -l <"$work/stderr")" = 1 ] || complain "skerry $*: more than one line: $(cat "$work/stderr")"
}

finish() {
    echo "$checks checks, $failures failed"
    [ "$failures" = 0 ]
}
