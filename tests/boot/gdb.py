#!/usr/bin/env -S python3 -B
"""gdb at a booting Debian kernel: from its first instruction on, then attached to it while it runs.

Usage: gdb.py SKERRY"""
import os
import sys
import tempfile

from gdb_client import Gdb
from guest_console import Guest
from guest_image import busybox

KERNEL = 0x1000000  # where the decompressed kernel starts, with nokaslr


def first_instructions(gdb):
    """Registers and steps in the kernel's own loader, in 64-bit mode at CPL 0."""
    gdb.check('info registers cr0', r'PE .*PG')
    gdb.check('info registers efer', r'LMA')
    gdb.check('info registers cs', r'0x10\b')
    start = gdb.value('$pc')
    gdb.check('x/i $pc', r'\bcld')
    gdb.run('stepi')
    if gdb.value('$pc') != start + 1:
        gdb.fail(f'a step over CLD went to {gdb.value("$pc"):#x}')
    gdb.run('set $rbx = 0x123456789abcdef0')
    gdb.run('set $xmm3.uint128 = 0x55')
    gdb.run('set $ymm2.v8_int32[7] = 77')
    gdb.check('p $ymm2.v8_int32', r'0, 0, 0, 0, 0, 0, 0, 77')
    gdb.run('set $st3 = 2.5')
    gdb.run('stepi')
    gdb.check('p/x $rbx', '0x123456789abcdef0')
    gdb.check('p $xmm3.v4_int32', r'\{85, 0, 0, 0\}')
    gdb.check('p $st3', r'2\.5')
    gdb.check('set $gs_base = 0x8000000000000000', 'Could not write')
    gdb.check('info threads', r'(?s)vCPU 0, running.*vCPU 1, waiting for SIPI')
    gdb.check('monitor help', 'info registers')
    gdb.check('monitor info registers 0', f'rip +{start + 2:016x}')


def kernel_entry(gdb):
    """A breakpoint at the kernel's entry, and memory from both sides."""
    gdb.run(f'hbreak *{KERNEL:#x}')
    gdb.check('continue', 'Breakpoint', 120)
    if gdb.value('$pc') != KERNEL:
        gdb.fail(f'the breakpoint stopped at {gdb.value("$pc"):#x}')
    gdb.run('delete')
    virtual = gdb.run('x/8xb $pc')
    gdb.run('monitor phys on')
    gdb.run('maintenance flush dcache')
    if gdb.run(f'x/8xb {KERNEL:#x}').split(':')[1:] != virtual.split(':')[1:]:
        gdb.fail(f'physical memory differs from virtual: {virtual}')
    gdb.run('monitor phys off')
    gdb.run('maintenance flush dcache')
    gdb.check('x/xb 0xffff123456789000', 'Cannot access memory')
    # a word of the stack that the entry code pushes its return address to
    for _ in range(40):
        if 'call' in gdb.run('x/i $pc'):
            break
        gdb.run('stepi')
    slot = gdb.value('$rsp') - 8
    gdb.run(f'watch *(long *){slot:#x}')
    gdb.check('continue', rf'(?s)watchpoint.*New value')
    if gdb.value('$rsp') != slot:
        gdb.fail('the watchpoint was not met by the call')
    gdb.run('delete')


def running_kernel(gdb, guest, symbols):
    """Breakpoints by symbol in the running kernel, the caller's thread, interrupts."""
    gdb.run(f'break *{symbols["__x64_sys_getppid"]:#x}')
    gdb.start('continue')
    guest.type('sh -c \'test $PPID -gt 1\'; echo "call"ed')
    text = gdb.answer('continue', 60)
    if 'Breakpoint' not in text and 'hit' not in text:
        gdb.fail(f'no breakpoint in getppid: {text}')
    if gdb.value('$pc') != symbols['__x64_sys_getppid']:
        gdb.fail(f'stopped at {gdb.value("$pc"):#x}')
    gdb.check('info registers cpl', '0x0')
    for _ in range(3):
        gdb.check('stepi', '0xffffffff8')
    gdb.run('delete')
    gdb.start('continue')
    guest.expect(r'called\r?\n', 60)
    gdb.interrupt()
    if 'SIGINT' not in gdb.answer('continue'):
        gdb.fail('an interrupt did not stop the guest')
    gdb.check('info threads', r'(?s)vCPU 0.*vCPU 1')
    gdb.check('thread 2', 'thread 2')
    gdb.check('p/x $cr0', '0x80050033')
    # a variable that every timer interrupt writes
    gdb.run(f'watch *(long *){symbols["jiffies_64"]:#x}')
    gdb.check('continue', r'(?s)watchpoint.*Old value = (\d+).*New value = (\d+)')
    gdb.run('delete')
    gdb.check('detach', 'detached')


with tempfile.TemporaryDirectory() as work:
    socket = os.path.join(work, 'gdb')
    with Guest(sys.argv[1], *busybox(sys.argv[1], 'cloud-amd64'), '--append', 'console=ttyS0 nokaslr panic=-1', '--memory', '512M',
               '--cpus', '2', '--cpu-model', 'x86-64-v3', '--no-reboot', '--gdb', f'{socket},wait', '--timeout', '200') as guest:
        with Gdb() as gdb:
            gdb.check(f'target remote {socket}', r'0x0000000001000200 in')
            first_instructions(gdb)
            kernel_entry(gdb)
            guest.step('entered the kernel')
            gdb.check('detach', 'detached')
        guest.expect('s, 2 CPUs', 150)
        guest.shell('# ', 60)
        guest.step('userland')
        symbols = {}
        for name in ('__x64_sys_getppid', 'jiffies_64'):
            symbols[name] = int(guest.check(f"grep -m 1 ' {name}$' /proc/kallsyms", r'([0-9a-f]{16}) ').group(1), 16)
        with Gdb() as gdb:
            gdb.check(f'target remote {socket}', r'0x[0-9a-f]+ in')
            running_kernel(gdb, guest, symbols)
        guest.step('attached and detached')
        guest.check('echo still here', 'still here')
        with Gdb() as gdb:
            gdb.run(f'target remote {socket}')
            gdb.run('kill')
        guest.ends(0, 'the debugger')
print('ok')
