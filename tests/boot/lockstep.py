#!/usr/bin/env -S python3 -B
"""Debian to its shell with the interpreter and the translator side by side: every block must come to the same. Some ten minutes on an
idle host, so it is part of `make soak`.

Usage: lockstep.py SKERRY [CPUS]"""
import re
import sys

from guest_console import Guest
from guest_image import prepare

SLOWER = 40  # about what lockstep costs: timeouts in the guest last as long as they are meant to
SECONDS = 6000

skerry, cpus = sys.argv[1], (sys.argv[2:] or ['1'])[0]
folder = prepare(skerry, 'debian')

with Guest(skerry, '--cpu-engine', 'lockstep', '--slow-clock', str(SLOWER), '--trace', 'jit', '--kernel', f'{folder}/debian.vmlinuz',
           '--initrd', f'{folder}/debian.initrd', '--append', 'root=/dev/vda console=ttyS0 panic=-1', '--memory', '1G', '--cpus', cpus,
           '--disk', f'{folder}/debian.img,snapshot', '--no-reboot', '--timeout', str(SECONDS)) as guest:
    guest.expect('Run /init', SECONDS)
    guest.step('init')
    guest.expect('debian login:', SECONDS)
    guest.step('login')
    guest.expect(r'root@debian:~# ', SECONDS)
    guest.step('shell')
    guest.type('poweroff')
    guest.ends(0, 'the guest powered off', SECONDS)
    for vcpu, retired in re.findall(r'vcpu (\d+): (\d+) instructions retired', guest.words()):
        guest.step(f'vCPU {vcpu}: {int(retired):,} instructions, by interpreter and translator together')
print('ok')
