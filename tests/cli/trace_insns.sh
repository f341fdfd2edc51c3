#!/bin/sh
# --trace-insns and tools/compare-traces: two runs of a guest that asks nothing of the clock are the same, a window is a piece
# of the whole, a change is found. And the other ways to look: --dump, --trace, in both spellings. Usage: trace_insns.sh SKERRY GUEST
set -u
here=$(dirname "$0")
. "$here/check.sh"
guest=$2
compare=$here/../../tools/compare-traces

run() { # FILE[,ATTRIBUTE…] [OPTION…]
    trace=$1
    shift
    "$skerry" run --kernel "$guest" --serial none --device debug-exit --no-reboot --timeout 100 --trace-insns "$work/$trace" "$@" \
        2>"$work/stderr"
    [ $? = 1 ] || complain "the guest failed while traced: $(tail -5 "$work/stderr")"
}

same() { # WHAT STATUS PATTERN ARGUMENT…
    what=$1 status=$2 pattern=$3
    shift 3
    checks=$((checks + 1))
    "$compare" "$@" >"$work/compared" 2>&1
    [ $? = "$status" ] || complain "$what: compare-traces did not give status $status: $(head -40 "$work/compared")"
    grep -q -- "$pattern" "$work/compared" || complain "$what: no '$pattern' in $(head -40 "$work/compared")"
}

run all,regs
run again,regs --memory 256M
same 'two runs' 0 'lines are the same$' "$work/all" "$work/again"
run plain,from=1000,count=5000
run window,regs,from=1000,count=5000
[ "$(grep -c -v ' event ' "$work/window")" = 5000 ] || complain "the window has $(wc -l <"$work/window") lines"
sed -n '/^0 1000 /,/^0 5999 /p' "$work/all" | sed 's/ ;.*//' >"$work/piece"
sed 's/ ;.*//' "$work/window" >"$work/bare"
same 'a window' 0 'lines are the same$' "$work/piece" "$work/bare"
same 'a window without registers' 0 'lines are the same$' --no-events "$work/plain" "$work/bare"
sed '3000s/; \([a-z0-9]*\)=/; \1=7/' "$work/window" >"$work/changed"
cmp -s "$work/window" "$work/changed" && sed '3000s/$/ ; rax=7/' "$work/window" >"$work/changed"
same 'a change' 1 '2999 lines are the same, then they differ' "$work/window" "$work/changed"
head -100 "$work/window" >"$work/short"
same 'a trace that ends early' 0 'the second trace ends there' "$work/window" "$work/short"
same 'no trace' 2 'no ' "$work/window" "$guest"
checks=$((checks + 1))
grep -q ' event fault d' "$work/all" || complain 'no exception in the trace'

for spelling in '--dump guest --trace exc' '--dump=guest --trace=exc'; do
    checks=$((checks + 1))
    "$skerry" run --kernel "$guest" --serial none --device debug-exit --cpu-engine interp $spelling 2>"$work/stderr"
    grep -q 'block of [0-9]* bytes, 32-bit, CPL 0' "$work/stderr" || complain "$spelling shows no blocks"
    grep -q 'mov cr3, eax' "$work/stderr" || complain "$spelling shows no instructions"
    grep -q 'exc: vcpu 0: vector 0xd' "$work/stderr" || complain "$spelling shows no exceptions"
done
checks=$((checks + 1))
"$skerry" run --kernel "$guest" --serial none --device debug-exit --cpu-engine jit --trace jit 2>"$work/stderr"
for pattern in '[1-9][0-9]* blocks translated' ' [1-9][0-9]* the same$' 'handlers: [1-9]' ' 0  *[1-9][0-9]* rdmsr$'; do
    grep -q "jit: vcpu 0: .*$pattern" "$work/stderr" || complain "--trace jit has no line with $pattern: $(cat "$work/stderr")"
done
checks=$((checks + 1))
"$skerry" run --kernel "$guest" --serial none --device debug-exit --cpu-engine jit --dump=host --dump-file "$work/dump" 2>"$work/stderr"
for pattern in '^vcpu 0: translated block at [0-9a-f]*, [0-9]* instructions' '^  [0-9a-f]* .* ret$' '^      [0-9a-f]* .* sub qword.*; budget$' \
    '^  slow path of [0-9a-f]*$' '^  exit for want of budget'; do
    grep -q "$pattern" "$work/dump" || complain "--dump=host has no line with $pattern: $(head -40 "$work/dump")"
done
grep -q 'no instruction' "$work/dump" && complain '--dump=host: what was emitted is no code'
grep -q 'translated block' "$work/stderr" && complain '--dump-file: the dump is on stderr too'
checks=$((checks + 1))
"$skerry" run --kernel "$guest" --serial none --device debug-exit --cpu-engine jit --profile "$work/profile" 2>"$work/stderr"
grep -q '^  *[1-9][0-9]* .*  guest 0x[0-9a-f]* \[32 kernel\]$' "$work/profile" || complain "--profile: $(head "$work/profile")"
[ "$(od -An -N4 -tx4 "$work"/jit-*.dump)" = ' 4a695444' ] || complain '--profile: no jitdump'
grep -q -a 'guest 0x[0-9a-f]* \[64 kernel\]' "$work"/jit-*.dump || complain '--profile: no names in the jitdump'
check 1 'cannot write' run --kernel "$guest" --profile "$work/none/file"
check 1 'cannot write' run --kernel "$guest" --dump host --dump-file "$work/none/file"
check 1 'cannot write' run --kernel "$guest" --trace-insns "$work/none/file"
check 2 'did you mean count=' run --kernel "$guest" --trace-insns "$work/file,cuont=5"
finish
