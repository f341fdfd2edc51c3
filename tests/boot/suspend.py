#!/usr/bin/env -S python3 -B
"""Suspend to RAM: a Debian kernel sleeps until the clock's alarm, wakes with its memory, its CPUs, its disk and its network
card, and complains of nothing.

Usage: suspend.py SKERRY"""
import os
import sys
import tempfile

from guest_console import Guest
from guest_image import busybox
from kernel_log import complaints

skerry = sys.argv[1]
kernel = busybox(skerry, 'amd64')
commands = ['sha256sum /dev/vda', 'echo +4 >/sys/class/rtc/rtc0/wakealarm', 'echo mem >/sys/power/state',
            'echo woken', 'echo 3 >/proc/sys/vm/drop_caches', 'sha256sum /dev/vda',
            'udhcpc -n -q -s /etc/udhcpc.script', 'echo cpus $(nproc)', 'echo guest log:', 'dmesg -r', 'echo end of log']

with tempfile.TemporaryDirectory() as work:
    disk = os.path.join(work, 'disk')
    with open(disk, 'wb') as file:
        file.write(os.urandom(1 << 20))
    with Guest(skerry, *kernel, '--append', 'console=ttyS0 panic=-1 guest.run="' + '; '.join(commands) + '"', '--cpus', '2',
               '--disk', f'{disk},format=raw,readonly', '--no-reboot', '--timeout', '400') as guest:
        os.close(guest.input)
        before = guest.expect('([0-9a-f]{64})  /dev/vda', 300).group(1)
        guest.step('userland')
        guest.expect(r'\nwoken', 60)
        guest.step('slept and woke')
        if guest.expect('([0-9a-f]{64})  /dev/vda').group(1) != before:
            guest.fail('the disk reads differently after waking')
        guest.expect('cpus 2')
        log = guest.expect(r'(?s)\nguest log:(.*)\nend of log').group(1).decode(errors='replace')
        if 'Waking up from system sleep state S3' not in log:
            guest.fail('it was not S3')
        if complaints(log):
            guest.fail('the kernel complains:\n' + '\n'.join(complaints(log)))
        guest.expect('guest: status 0')
        guest.ends(0, 'the guest powered off')
        guest.step('powered off')
print('ok')
