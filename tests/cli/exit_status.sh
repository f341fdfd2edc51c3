#!/bin/sh
# Each way to end has its exit status and its line on stderr, and the terminal's owner its output.
set -u
here=$(dirname "$0")
. "$here/check.sh"
. "$here/tiny_kernel.sh"
for guest in debug_exit reset triple_fault loop power_off print; do
    eval "tiny_kernel \"\$work/$guest\" \"\$guest_$guest\""
done
run() {
    status=$1 pattern=$2 guest=$3
    shift 3
    check "$status" "$pattern" run --kernel "$work/$guest" --memory 16M --net none --serial none --timeout 20 \
        --cpu-engine interp "$@"
}

run 33 "wrote to debug-exit: status 33" debug_exit --device debug-exit
run 4 "the guest reset" reset --no-reboot
run 6 "triple-faulted" triple_fault --no-reboot
run 124 "ended by --timeout after 0.5 seconds" loop --timeout 0.5
run 124 "ended by --timeout" reset --timeout 0.5 # goes round and round
run 124 "ended by --timeout" triple_fault --timeout 0.5
run 0 "powered off" power_off
run 33 "status 33" debug_exit --device debug-exit --cpus 16
run 33 "status 33" print --device debug-exit --device debugcon
[ "$(cat "$work/stdout")" = hi ] || complain "debugcon printed '$(cat "$work/stdout")' instead of 'hi'"
run 33 "status 33" print --device debug-exit --device "debugcon=$work/log"
[ "$(cat "$work/log")" = hi ] || complain "debugcon wrote '$(cat "$work/log")' instead of 'hi'"

# Where skerry chooses the engine, it says which and why.
checks=$((checks + 1))
"$skerry" run --kernel "$work/power_off" --memory 16M --net none --serial none --timeout 20 2>"$work/stderr" </dev/null
grep -q '^skerry: engine: [a-z]* (.*/dev/kvm.*)$' "$work/stderr" || complain "no word of the engine: $(cat "$work/stderr")"
[ "$(wc -l <"$work/stderr")" = 2 ] || complain "more than two lines: $(cat "$work/stderr")"

# Signals end the VM in good order, and it goes with its command.
for signal in TERM INT HUP; do
    checks=$((checks + 1))
    # a shell starts background jobs with SIGINT ignored, which would be inherited
    timeout --preserve-status --signal=$signal 1 "$skerry" run --kernel "$work/loop" --memory 16M --net none --serial none \
        2>"$work/stderr" </dev/null
    got=$?
    case $signal in TERM) want=143 ;; INT) want=130 ;; HUP) want=129 ;; esac
    [ "$got" = "$want" ] || complain "SIG$signal: status $got instead of $want"
    grep -q "ended by SIG$signal" "$work/stderr" || complain "SIG$signal: $(cat "$work/stderr")"
done

checks=$((checks + 1))
"$skerry" run --kernel "$work/loop" --memory 16M --net none --serial none --append "orphan-$$" 2>/dev/null </dev/null &
command=$!
sleep 1
vm=$(cat /proc/$command/task/$command/children)
kill -KILL $command
wait $command 2>/dev/null
for attempt in 1 2 3 4 5 6 7 8 9 10; do
    kill -0 $vm 2>/dev/null || break
    sleep 0.5
done
kill -0 $vm 2>/dev/null && complain "the VM process outlives its command" && kill -KILL $vm

# A VM process that hangs is not waited for for ever.
checks=$((checks + 1))
"$skerry" run --kernel "$work/loop" --memory 16M --net none --serial none 2>"$work/stderr" </dev/null &
command=$!
sleep 1
kill -STOP "$(cat /proc/$command/task/$command/children)"
kill -TERM $command
got=0
wait $command || got=$?
[ "$got" = 1 ] || complain "a VM process that hangs: status $got instead of 1"
grep -q 'did not end when it should' "$work/stderr" || complain "a VM process that hangs: $(cat "$work/stderr")"
finish
