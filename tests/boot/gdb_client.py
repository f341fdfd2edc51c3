"""gdb under test: a gdb process that is told commands one by one, and answers with what it printed."""
import os
import re
import select
import signal
import subprocess
import sys
import time

MARK = '== done =='


class Gdb:
    """Use it in a with statement, after which gdb is gone."""

    def __init__(self):
        self.process = subprocess.Popen(['gdb', '-nx', '-q'], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, bufsize=0, env={**os.environ, 'LC_ALL': 'C', 'TERM': 'dumb'})
        self.printed = b''
        self.seen = 0
        for command in ('set pagination off', 'set confirm off', 'set width 0', 'set prompt', 'set tcp connect-timeout 30',
                        'set remotetimeout 60', 'set disassemble-next-line off'):
            self.run(command)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind:
            print('--- gdb:\n' + self.printed.decode(errors='replace')[-6000:])
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def fail(self, sentence):
        sys.exit(f'FAILED: {sentence}')

    def start(self, command):
        """Gives a command without waiting for its end: answer() does."""
        self.process.stdin.write(f'{command}\necho \\n{MARK}\\n\n'.encode())

    def answer(self, command, seconds=60):
        end = time.monotonic() + seconds
        mark = f'\n{MARK}\n'.encode()
        while mark not in self.printed[self.seen:]:
            left = end - time.monotonic()
            if left <= 0:
                self.fail(f"'{command}' took gdb more than {seconds} s")
            if select.select([self.process.stdout], [], [], left)[0]:
                more = os.read(self.process.stdout.fileno(), 65536)
                if not more:
                    self.fail(f"gdb ended in '{command}'")
                self.printed += more
        at = self.printed.index(mark, self.seen)
        text = self.printed[self.seen:at].decode(errors='replace')
        self.seen = at + len(mark)
        return text

    def run(self, command, seconds=60):
        """What gdb prints for a command."""
        self.start(command)
        return self.answer(command, seconds)

    def check(self, command, pattern, seconds=60):
        """Fails unless gdb's answer matches the regular expression; returns the match."""
        text = self.run(command, seconds)
        match = re.search(pattern, text)
        if not match:
            self.fail(f"gdb's answer to '{command}' does not match '{pattern}': {text}")
        return match

    def value(self, expression):
        """An integer expression's value."""
        return int(self.check(f'printf "%lx\\n", (long)({expression})', r'([0-9a-f]+)\s*$').group(1), 16)

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)
