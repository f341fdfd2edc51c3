#!/usr/bin/env -S python3 -B
"""A Debian kernel with a busybox initial RAM disk: boots, counts its CPUs and its memory, reads and writes disks, fetches from
the host, complains of nothing, powers off.

Usage: busybox.py SKERRY cloud-amd64|amd64 CPUS MEMORY [OPTION…]"""
import hashlib
import os
import sys
import tempfile

from guest_console import Guest
from guest_image import busybox
from kernel_log import complaints
from web_server import WebServer

skerry, flavour, cpus, memory = sys.argv[1:5]
options = sys.argv[5:]
kernel = busybox(skerry, flavour)
server = WebServer(1 << 20)
megabytes = int(memory[:-1]) * {'M': 1, 'G': 1024}[memory[-1]]
commands = ['uname -r', 'free -m', 'sha256sum /dev/vda', 'dd if=/dev/vda of=/dev/vdb bs=64k 2>/dev/null', 'sync',
            'echo try | dd of=/dev/vda bs=512 count=1 conv=fsync 2>&1',
            'udhcpc -n -q -s /etc/udhcpc.script', f'wget -q -O - {server.url} | sha256sum', 'echo guest log:', 'dmesg -r',
            'echo end of log']


def log_check(guest):
    log = guest.expect(r'(?s)\nguest log:(.*)\nend of log').group(1).decode(errors='replace')
    # the read-only disk was written to on purpose
    bad = [line for line in complaints(log) if 'dev vda' not in line]
    if bad:
        guest.fail('the kernel complains:\n' + '\n'.join(bad))


with tempfile.TemporaryDirectory() as work:
    content = os.urandom(3 << 20)
    read, written = os.path.join(work, 'read'), os.path.join(work, 'written')
    with open(read, 'wb') as file:
        file.write(content)
    with open(written, 'wb') as file:
        file.truncate(4 << 20)
    with Guest(skerry, *kernel, *options, '--append', 'console=ttyS0 panic=-1 guest.run="' + '; '.join(commands) + '"', '--memory', memory,
               '--cpus', cpus, '--disk', f'{read},format=raw,readonly', '--disk', f'{written},format=raw',
               '--no-reboot', '--timeout', '400') as guest:
        os.close(guest.input)
        guest.expect(f's, {cpus} CPUs', 300)
        guest.step('userland')
        guest.expect(r'\n6\.1\.')
        total = int(guest.expect(r'Mem: *(\d+) ').group(1))
        if not megabytes * 0.8 < total < megabytes:
            guest.fail(f'{total} MiB of memory in the guest')
        guest.expect(f'{hashlib.sha256(content).hexdigest()}  /dev/vda')
        guest.expect('Operation not permitted')  # what the kernel says of a write to a read-only disk
        guest.expect(f'{server.sha256}  -')
        guest.step('disks and network')
        log_check(guest)
        guest.expect('guest: status 0')
        guest.ends(0, 'the guest powered off')
        guest.step('powered off')
        with open(read, 'rb') as file:
            if file.read() != content:
                guest.fail('the read-only disk has changed')
        with open(written, 'rb') as file:
            if file.read(len(content)) != content:
                guest.fail('the disk does not hold what the guest wrote')
print('ok')
