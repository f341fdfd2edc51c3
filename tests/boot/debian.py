#!/usr/bin/env python3
"""The Debian image under systemd: login, disk across a reboot, network both ways, a compiler, stress-ng.

Usage: debian.py SKERRY CPUS"""
import os
import socket
import subprocess
import sys
import tempfile

from guest_console import Guest, Server, prepare

skerry, cpus = sys.argv[1:3]
folder = prepare(skerry, 'debian')
server = Server()
with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    ssh_port = probe.getsockname()[1]

program = r'''
#include <stdio.h>
#include <math.h>
int main(void) { double x = 0; for (int i = 1; i < 1000; i++) x += sqrt(i); printf("sum %.6f\n", x); return 0; }
'''
expected = sum(i ** 0.5 for i in range(1, 1000))


def ssh(*command):
    answer = subprocess.run(['ssh', '-i', f'{folder}/key', '-p', str(ssh_port), '-o', 'StrictHostKeyChecking=no', '-o',
                             'UserKnownHostsFile=/dev/null', '-o', 'ConnectTimeout=60', '-o', 'LogLevel=ERROR',
                             'root@127.0.0.1', *command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    if answer.returncode:
        guest.fail(f'ssh: {answer.stderr}')
    return answer.stdout


with tempfile.TemporaryDirectory() as work:
    overlay = os.path.join(work, 'overlay.qcow2')
    subprocess.run([skerry, 'image', 'create', '-f', 'qcow2', '-b', f'{folder}/debian.img', '-F', 'raw', overlay], check=True,
                   stdout=subprocess.DEVNULL)
    guest = Guest(skerry, '--kernel', f'{folder}/debian.vmlinuz', '--initrd', f'{folder}/debian.initrd', '--append',
                  'root=/dev/vda console=ttyS0 panic=-1', '--memory', '1G', '--cpus', cpus, '--disk', overlay,
                  '-p', f'{ssh_port}:22', '--timeout', '850')
    guest.login()
    state = guest.run('systemctl is-system-running --wait', 300).strip()
    if state != 'running':
        guest.fail(f"the system is '{state}': {guest.run('systemctl --failed --no-pager --plain')}")
    if guest.run('nproc').strip() != cpus:
        guest.fail('not all CPUs came up')

    guest.run('dd if=/dev/urandom of=/root/file bs=1M count=16 2>&1')
    checksum = guest.run('sha256sum /root/file').split()[0]

    guest.run('until ip route | grep -q default; do sleep 0.5; done')  # the boot does not wait for an address
    if server.sha256 not in guest.run(f'curl -sf -o f {server.url} && sha256sum f'):
        guest.fail('the file from the host is not the same in the guest')
    if ssh('hostname') != 'debian\n':
        guest.fail('no answer by ssh')

    guest.type("cat >p.c <<'END'" + program + 'END')
    guest.run('gcc -O2 p.c -o p -lm', 200)
    if f'sum {expected:.6f}' not in guest.run('./p'):
        guest.fail('the compiled program computes something else')

    guest.run(f'stress-ng --verify --metrics-brief --timeout 8 --cpu {cpus} --vm 1 --vm-bytes 32M --hash 1 --mutex 1 '
              '--pipe 1 --fp 1 --matrix 1 2>&1', 200)

    guest.type('reboot')
    guest.login()
    if guest.run('sha256sum /root/file').split()[0] != checksum:
        guest.fail('the file did not survive the reboot')
    guest.type('poweroff')
    guest.ends(0)
    # the file system is clean, and the image sound
    subprocess.run([skerry, 'image', 'check', overlay], check=True, stdout=subprocess.DEVNULL)
print('ok')
