#!/usr/bin/env -S python3 -B
"""How a session with a running Linux ends: by its time limit, by a key at the terminal, by signals, by the guest's reset.

Usage: session_end.py SKERRY"""
import os
import pty
import signal
import sys
import termios
import time

from guest_console import Guest
from guest_image import busybox

PROMPT = r'/ # '
skerry = sys.argv[1]
kernel = busybox(skerry, 'cloud-amd64')


def booted(*options, append='', terminal=None):
    return Guest(skerry, *kernel, '--append', f'console=ttyS0 panic=-1 quiet {append}', '--memory', '256M', *options,
                 terminal=terminal)


def time_limit():
    with booted('--timeout', '12') as guest:
        guest.ends(124, 'ended by --timeout after 12 seconds', 60)
        guest.step('time limit')


def keys():
    """At a terminal, which is raw while the guest runs and as it was afterwards."""
    terminal = pty.openpty()
    before = termios.tcgetattr(terminal[1])
    with booted(terminal=terminal) as guest:
        guest.expect(PROMPT, 120)
        if termios.tcgetattr(terminal[1])[3] & (termios.ECHO | termios.ICANON | termios.ISIG):
            guest.fail('the terminal is not raw')
        guest.type('sleep 1000\n', end='')
        time.sleep(1)
        guest.type('\x03', end='')  # Ctrl-c is the guest's
        guest.expect(PROMPT)
        guest.type('echo $((6 * 7))')
        guest.expect(r'\n42\r')
        guest.type('\x01h', end='')
        guest.expect('Ctrl-a x')
        guest.type('\x01x', end='')
        guest.ends(0, 'ended by')
        if termios.tcgetattr(terminal[1]) != before:
            guest.fail('the terminal is not as it was before')
        guest.step('keys')


def signals():
    with booted('--cpus', '2') as guest:
        guest.expect(PROMPT, 120)
        guest.process.send_signal(signal.SIGTERM)
        guest.ends(128 + signal.SIGTERM, 'SIGTERM')
        guest.step('SIGTERM')


def killed():
    """The VM process does not outlive the command."""
    with booted() as guest:
        guest.expect('.', 60)
        pid = guest.process.pid
        children = open(f'/proc/{pid}/task/{pid}/children').read().split()
        if len(children) != 1:
            guest.fail(f'processes under the command: {children}')
        guest.process.kill()
        guest.process.wait()
        for _ in range(200):
            if not os.path.exists(f'/proc/{children[0]}') or ' Z ' in open(f'/proc/{children[0]}/stat').read():
                break
            time.sleep(0.1)
        else:
            os.kill(int(children[0]), signal.SIGKILL)
            guest.fail('the VM process still runs 20 s after the command was killed')
        guest.step('SIGKILL')


def resets():
    for way, status, words in ('pci', 4, 'reset'), ('kbd', 4, 'reset'), ('acpi', 4, 'reset'), ('triple', 6, 'triple-faulted'):
        with booted('--no-reboot', append=f'reboot={way} guest.run="reboot -f"') as guest:
            guest.ends(status, words)
            guest.step(f'reset by {way}')


time_limit()
keys()
signals()
killed()
resets()
print('ok')
