#!/usr/bin/env python3
"""The terminal: raw while the guest has it, its keys, and as it was afterwards, even if the VM process dies.

Usage: terminal.py SKERRY"""
import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import termios
import time

skerry = sys.argv[1]
here = os.path.dirname(os.path.abspath(__file__))


def terminal_take():
    """In the child: stdin becomes its controlling terminal, and it the foreground."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Session:
    """A VM that does nothing, on a terminal of its own."""

    def __init__(self, kernel):
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.printed = ''
        self.process = subprocess.Popen([skerry, 'run', '--kernel', kernel, '--memory', '16M', '--net', 'none',
                                         '--timeout', '60'], stdin=self.slave, stdout=self.slave, stderr=self.slave,
                                        preexec_fn=terminal_take)
        self.wait(lambda: not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG), 'raw mode')

    def wait(self, true, what):
        end = time.monotonic() + 20
        while not true():
            if time.monotonic() > end:
                self.process.kill()
                sys.exit(f'FAILED: no {what}; the terminal shows: {self.printed!r}')
            if select.select([self.master], [], [], 0.05)[0]:
                self.printed += os.read(self.master, 65536).decode(errors='replace')

    def shows(self, pattern):
        self.wait(lambda: re.search(pattern, self.printed), f"'{pattern}'")

    def type(self, keys):
        os.write(self.master, keys)

    def ends(self, status):
        self.wait(lambda: self.process.poll() is not None, 'end')
        if self.process.returncode != status:
            sys.exit(f'FAILED: exit status {self.process.returncode} instead of {status}: {self.printed!r}')
        if termios.tcgetattr(self.slave) != self.before:
            sys.exit('FAILED: the terminal is not as it was')


with tempfile.TemporaryDirectory() as work:
    kernel = os.path.join(work, 'kernel')
    subprocess.run(['sh', '-c', f'. {here}/tiny_kernel.sh; tiny_kernel {kernel} "$guest_loop"'], check=True)

    session = Session(kernel)
    session.type(b'\x03')  # Ctrl-c is the guest's
    session.type(b'\x01h')
    session.shows('Ctrl-a x')
    session.type(b'\x01x')
    session.shows('ended by Ctrl-a x')
    session.ends(0)

    session = Session(kernel)
    session.process.send_signal(signal.SIGTERM)
    session.shows('ended by SIGTERM')
    session.ends(143)

    session = Session(kernel)
    with open(f'/proc/{session.process.pid}/task/{session.process.pid}/children') as children:
        os.kill(int(children.read()), signal.SIGKILL)
    session.shows('died of SIGKILL')
    session.ends(1)
print('ok')
