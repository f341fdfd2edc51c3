#!/usr/bin/env python3
"""A Debian kernel with a busybox initial RAM disk: boots, counts its CPUs, reads and writes disks, fetches from the host, powers off.

Usage: busybox.py SKERRY cloud-amd64|amd64 CPUS"""
import hashlib
import os
import sys
import tempfile

from guest_console import Guest, Server, prepare

skerry, flavour, cpus = sys.argv[1:4]
folder = prepare(skerry, 'busybox')
server = Server()
with tempfile.TemporaryDirectory() as work:
    content = os.urandom(3 << 20)
    read, written = os.path.join(work, 'read'), os.path.join(work, 'written')
    with open(read, 'wb') as file:
        file.write(content)
    with open(written, 'wb') as file:
        file.truncate(4 << 20)
    commands = ['uname -r', 'sha256sum /dev/vda', 'dd if=/dev/vda of=/dev/vdb bs=64k 2>/dev/null', 'sync',
                'echo try | dd of=/dev/vda bs=512 count=1 conv=fsync 2>&1',
                'udhcpc -n -q -s /etc/udhcpc.script', f'wget -q -O - {server.url} | sha256sum',
                'dd if=/dev/hwrng bs=64 count=1 2>/dev/null | wc -c']
    guest = Guest(skerry, '--kernel', f'{folder}/{flavour}.vmlinuz', '--initrd', f'{folder}/{flavour}.initrd',
                  '--append', 'console=ttyS0 panic=-1 guest.run="' + '; '.join(commands) + '"', '--memory', '256M',
                  '--cpus', cpus, '--disk', f'{read},format=raw,readonly', '--disk', f'{written},format=raw',
                  '--device', 'rng', '--no-reboot', '--timeout', '280')
    guest.process.stdin.close()
    guest.ends(0, 290)
    guest.told(f's, {cpus} CPUs')
    guest.told(f'{hashlib.sha256(content).hexdigest()}  /dev/vda')
    guest.told(f'{server.sha256}  -')
    guest.told('Operation not permitted')  # what the kernel says of a write to a read-only disk
    guest.told('\n64\r')
    guest.told('guest: status 0')
    if 'the guest powered off' not in guest.words():
        guest.fail('the command did not say that the guest powered off')
    with open(read, 'rb') as file:
        if file.read() != content:
            guest.fail('the read-only disk has changed')
    with open(written, 'rb') as file:
        if file.read(len(content)) != content:
            guest.fail('the disk does not hold what the guest wrote')
print('ok')
