"""What Linux says of our machine: its log must hold no warning but those known to be harmless."""
import re

# Each with its reason. Matched against single lines at the levels warning and above.
HARMLESS = {
    r'fail to add MMCONFIG information': 'an i440FX has no memory-mapped configuration space',
    r'CONFIG_IMA_DISABLE_HTABLE is disabled': "a choice of Debian's",
    r'PS/2 appears to have AUX port disabled': 'there is no mouse',
    r'hrtimer: interrupt took': 'the host was busy',
    r'sched: RT throttling activated': 'the host was busy',
    r'perf: interrupt took too long': 'the host was busy',
}
# At any level: some parts of Linux report trouble with the board as mere information.
TROUBLE = (r'\bBUG\b|WARNING:|Call Trace|Oops|\bstall|lockup|ACPI (BIOS )?(Error|Warning)|\[Firmware (Bug|Warn)|nobody cared|'
           r'Marking (TSC|clocksource)|spurious|I/O error|timed? ?out|unhandled|not responding|unchecked MSR|Spurious')


def complaints(log):
    """The bad lines of a log printed by dmesg -r."""
    bad = []
    for line in log.splitlines():
        level = re.match(r'<(\d+)>', line)
        warning = level and int(level.group(1)) % 8 <= 4 and not any(re.search(known, line) for known in HARMLESS)
        if warning or re.search(TROUBLE, line):
            bad.append(line)
    return bad


def check(guest):
    """Fails the test when the guest's kernel has complained. The guest's shell must be there."""
    bad = complaints(guest.run('dmesg -r'))
    if bad:
        guest.fail('the kernel complains:\n' + '\n'.join(bad))
