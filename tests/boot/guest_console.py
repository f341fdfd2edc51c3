"""A guest under test: starts `skerry run`, waits for texts on the guest's serial console, types commands, and reads their status.

Every wait has an end, and a guest never outlives its test. What the guest printed is shown when something is not as expected."""
import fcntl
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import termios
import time

signal.signal(signal.SIGTERM, lambda *unused: sys.exit('FAILED: ended by SIGTERM, the time limit of the test run'))


class Guest:
    """Use it in a with statement. terminal: the two ends of a pseudo-terminal to run on, instead of pipes."""

    def __init__(self, skerry, *arguments, terminal=None):
        self.started = time.monotonic()
        self.printed = b''  # all of it
        self.seen = 0  # up to where expect() has looked
        self.stderr = tempfile.TemporaryFile()
        if terminal:  # its controlling one, or the command would take itself for a job in the background
            streams = {'stdin': terminal[1], 'stdout': terminal[1], 'start_new_session': True,
                       'preexec_fn': lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)}
        else:
            streams = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE}
        self.process = subprocess.Popen([skerry, 'run', *arguments], bufsize=0, stderr=self.stderr, **streams)
        self.input = terminal[0] if terminal else self.process.stdin.fileno()
        self.output = terminal[0] if terminal else self.process.stdout.fileno()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if kind:
            sys.stdout.write(self.printed.decode(errors='replace')[-8000:])
            print(f'\n--- {time.monotonic() - self.started:.1f} s after the start; on stderr:\n{self.words()}')

    def step(self, sentence):
        print(f'{time.monotonic() - self.started:6.1f} s  {sentence}', flush=True)

    def fail(self, sentence):
        sys.exit(f'FAILED: {sentence}')

    def words(self):
        """What the command said on stderr."""
        self.stderr.seek(0)
        return self.stderr.read().decode(errors='replace')[-3000:]

    def read(self, seconds):
        """Takes in more of the console; False when nothing came in that time, or nothing will."""
        if not select.select([self.output], [], [], seconds)[0]:
            return False
        try:
            more = os.read(self.output, 65536)
        except OSError:  # how a pseudo-terminal says that its other end is closed
            more = b''
        self.printed += more
        return bool(more)

    def expect(self, pattern, seconds=120):
        """Waits until the console shows the regular expression, after what the last expect() found; returns the match."""
        end = time.monotonic() + seconds
        while True:
            match = re.search(pattern.encode(), self.printed[self.seen:])
            if match:
                self.seen += match.end()
                return match
            left = end - time.monotonic()
            if left <= 0:
                self.fail(f"no '{pattern}' within {seconds} s")
            if not self.read(min(left, 1)) and self.process.poll() is not None and not self.read(0):
                self.fail(f"it ended before '{pattern}'")

    def type(self, text, end='\n'):
        os.write(self.input, (text + end).encode())

    def shell(self, prompt, seconds=300):
        """Waits for the shell on the console, and makes it one for run()."""
        self.expect(prompt, seconds)
        # no prompt, no echo, no line editing, no kernel messages: the answers alone are on the console
        self.type("exec env -u PROMPT_COMMAND PS1='' PS2='' sh")
        self.type('stty -echo; dmesg -n 1; echo "now"quiet')
        self.expect(r'nowquiet\r?\n')

    def run(self, command, seconds=120):
        """Runs a shell command; fails unless its status is 0. Returns what it printed."""
        start = self.seen
        self.type(command + '; echo "stat"us=$?=')
        match = self.expect(r'status=(\d+)=\r?\n', seconds)
        output = self.printed[start:self.seen - len(match.group(0))].decode(errors='replace').replace('\r', '')
        if match.group(1) != b'0':
            self.fail(f"'{command}' gave status {match.group(1).decode()}: {output}")
        return output

    def check(self, command, answer, seconds=120):
        """Runs a shell command; fails unless it prints something that the regular expression matches. Returns the match."""
        output = self.run(command, seconds)
        match = re.search(answer, output)
        if not match:
            self.fail(f"'{command}' did not print '{answer}', but: {output}")
        return match

    def ends(self, status, words, seconds=120):
        """Waits for the end of the VM; compares the exit status, and what the command says of it."""
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            self.read(0.2)
        while self.read(0):
            pass
        if self.process.poll() is None:
            self.fail(f'it did not end within {seconds} s')
        if self.process.returncode != status:
            self.fail(f'exit status {self.process.returncode} instead of {status}')
        if words not in self.words():
            self.fail(f"the command did not say '{words}'")
