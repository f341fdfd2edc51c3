#!/usr/bin/env -S python3 -B
"""gdb at 16- and 32-bit guests: the 32-bit register file, linear addresses in real mode, and a guest none the wiser.

Usage: gdb_modes.py SKERRY GUEST, the guest `real`, which runs its checks in real mode at 1000:0."""
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'boot'))
from gdb_client import Gdb

CODE = 0x10000


def protected_mode(gdb):
    gdb.check('info registers cr0', r'PE')
    gdb.check('info registers eip', '0x200000')
    gdb.run('stepi')
    gdb.run('set $edx = 0x12345678')
    gdb.check('p/x $dx', '0x5678')
    gdb.run('set $st1 = -3')
    gdb.check('p $st1', '-3')
    gdb.check('p $es = 0x1235', 'Could not write')


def real_mode(gdb):
    gdb.run('set architecture i8086')
    gdb.run('monitor pc linear')
    gdb.run(f'hbreak *{CODE:#x}')
    for _ in range(3):
        gdb.check('continue', 'Breakpoint')
        if gdb.value('$eip') != CODE or gdb.value('$cs') != CODE >> 4:
            gdb.fail(f'stopped at {gdb.value("$cs"):#x}, {gdb.value("$eip"):#x}')
        gdb.check('info registers cr0', r'\[ (?!PE)')
    gdb.run('stepi')
    if gdb.value('$eip') <= CODE:
        gdb.fail(f'a step went to {gdb.value("$eip"):#x}')
    # as an offset, which gdb does not know for its breakpoint: it goes on all the same
    gdb.run('monitor pc offset')
    for _ in range(2):
        gdb.check('continue', 'SIGTRAP')
        gdb.run('maintenance flush register-cache')
        if gdb.value('$eip') != 0:
            gdb.fail(f'the offset is {gdb.value("$eip"):#x}')


with tempfile.TemporaryDirectory() as work:
    socket = os.path.join(work, 'gdb')
    vm = subprocess.Popen([sys.argv[1], 'run', '--kernel', sys.argv[2], '--serial', 'none', '--device', 'debug-exit', '--no-reboot',
                           '--timeout', '100', '--gdb', f'{socket},wait,arch=i386'], stderr=subprocess.PIPE, text=True)
    try:
        said = vm.stderr.readline()
        with Gdb() as gdb:
            gdb.check(f'target remote {socket}', '0x00200000 in')
            protected_mode(gdb)
            real_mode(gdb)
            gdb.check('detach', 'detached')
        if vm.wait(60) != 1:
            sys.exit(f'FAILED: the guest ended with status {vm.returncode}: {vm.stderr.read()}')
    finally:
        if vm.poll() is None:
            vm.terminate()
            vm.wait()
print('ok')
