#!/usr/bin/env -S python3 -B
"""The Debian image under systemd: login, no failed units, disks across a reboot, network both ways, a compiler, stress-ng.

Usage: debian.py SKERRY CPUS"""
import os
import socket
import subprocess
import sys
import tempfile

from guest_console import Guest
from guest_image import prepare
from kernel_log import check
from web_server import WebServer

FILE_MIB = 24

# Classes that verify what they compute, each for some seconds.
STRESS = ['--cpu 1 --cpu-method fft', '--cpu 1 --cpu-method int128longdouble', '--cpu 1 --cpu-method correlate',
          '--fp 1', '--vecmath 1', '--hash 1', '--atomic 1', '--vm 1 --vm-bytes 16M --vm-method rand-set',
          '--vm 1 --vm-bytes 16M --vm-method flip', '--mutex 2', '--pipe 1']
STRESS_SECONDS = 3

PROGRAM = r'''
#include <stdio.h>
#include <math.h>
int main(void) { double x = 0; for (int i = 1; i < 1000; i++) x += sqrt(i); printf("sum %.6f\n", x); return 0; }
'''
PROGRAM_PRINTS = f'sum {sum(i ** 0.5 for i in range(1, 1000)):.6f}'

skerry, cpus = sys.argv[1:3]
folder = prepare(skerry, 'debian')


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def login(guest):
    guest.shell(r'root@debian:~# ', 600)
    guest.step('login')


def system_is_up(guest):
    state = guest.run('systemctl is-system-running --wait || true', 300).strip()
    if state != 'running':
        guest.fail(f"the system is '{state}':\n{guest.run('systemctl --failed --no-pager --plain')}")
    guest.check('nproc', rf'^{cpus}\n')
    guest.run('hwclock --utc')  # waits for the clock's update interrupt
    guest.step('all units are up')


def network(guest, ssh_port):
    server = WebServer(4 << 20)
    guest.run('until ip route | grep -q default; do sleep 0.5; done')  # the boot does not wait for an address
    guest.check(f'curl -sf {server.url} | sha256sum', server.sha256)
    guest.step('fetched from the host')

    ssh = subprocess.run(['ssh', '-i', f'{folder}/key', '-p', str(ssh_port), '-o', 'StrictHostKeyChecking=no', '-o',
                          'UserKnownHostsFile=/dev/null', '-o', 'ConnectTimeout=90', '-o', 'LogLevel=ERROR', '-o', 'BatchMode=yes',
                          'root@127.0.0.1', 'hostname; cat /proc/sys/kernel/ostype'],
                         stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180)
    if ssh.returncode or ssh.stdout != 'debian\nLinux\n':
        guest.fail(f'ssh: status {ssh.returncode}, {ssh.stdout}{ssh.stderr}')
    guest.step('reached by ssh')


def write_disks(guest):
    """Puts the same file on both disks; returns its checksum."""
    for disk in 'vdb', 'vdc':
        guest.run(f'mkfs.ext4 -q /dev/{disk} && mkdir -p /{disk} && mount /dev/{disk} /{disk}')
    guest.run(f'dd if=/dev/urandom of=/vdb/file bs=1M count={FILE_MIB} 2>&1 && cp /vdb/file /vdc', 300)
    checksum = guest.check('sha256sum /vdb/file', '^[0-9a-f]{64}').group(0)
    guest.step('disks written')
    return checksum


def read_disks(guest, checksum):
    for disk in 'vdb', 'vdc':
        guest.run(f'mount /dev/{disk} /{disk}')
        guest.check(f'sha256sum /{disk}/file', checksum)
    guest.step('disks read back')


def reboot(guest):
    guest.type('reboot')
    guest.expect('reboot: Restarting system')
    login(guest)


def compile_and_run(guest):
    guest.type("cat >p.c <<'END'" + PROGRAM + 'END')
    guest.run('gcc -O2 p.c -o p -lm', 300)
    guest.check('./p', PROGRAM_PRINTS)
    guest.step('compiled a program')


def stress(guest):
    for stressor in STRESS:
        guest.run(f'stress-ng --verify --oomable --timeout {STRESS_SECONDS} {stressor} 2>&1', 200)
    guest.step('stress-ng')


def host_reads_disk(guest, disk, checksum):
    """What the guest wrote is on the disk as the host sees it, in a clean file system."""
    if subprocess.run(['/sbin/e2fsck', '-fn', disk], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
        guest.fail(f'{disk}: the file system is not clean')
    with subprocess.Popen(['/sbin/debugfs', '-R', 'cat /file', disk], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as file:
        found = subprocess.run('sha256sum', stdin=file.stdout, capture_output=True, text=True).stdout
    if not found.startswith(checksum):
        guest.fail(f'{disk}: the file is not what the guest wrote')


def image(*arguments):
    subprocess.run([skerry, 'image', *arguments], check=True, stdout=subprocess.DEVNULL)


with tempfile.TemporaryDirectory() as work:
    root, raw, qcow2 = (os.path.join(work, name) for name in ('root.qcow2', 'raw', 'disk.qcow2'))
    image('create', '-f', 'qcow2', '-b', f'{folder}/debian.img', '-F', 'raw', root)
    image('create', '-f', 'raw', raw, '256M')
    image('create', '-f', 'qcow2', qcow2, '256M')
    port = free_port()
    with Guest(skerry, '--kernel', f'{folder}/debian.vmlinuz', '--initrd', f'{folder}/debian.initrd', '--append',
               'root=/dev/vda console=ttyS0 panic=-1', '--memory', '1G', '--cpus', cpus, '--disk', root,
               '--disk', f'{raw},format=raw', '--disk', f'{qcow2},format=qcow2', '-p', f'{port}:22', '--timeout', '1450') as guest:
        login(guest)
        system_is_up(guest)
        network(guest, port)
        written = write_disks(guest)
        compile_and_run(guest)
        stress(guest)
        check(guest)
        reboot(guest)
        read_disks(guest, written)
        check(guest)
        guest.type('poweroff')
        guest.ends(0, 'the guest powered off')
        guest.step('powered off')
        for made in root, qcow2:
            image('check', made)
        image('convert', '-O', 'raw', qcow2, f'{qcow2}.raw')
        for disk in raw, f'{qcow2}.raw':
            host_reads_disk(guest, disk, written)
print('ok')
