"""A guest on pipes: starts `skerry run`, waits for texts on its serial console, types commands, and reads their status.

Every wait has an end. What the guest printed so far is shown when something is not as expected."""
import hashlib
import http.server
import os
import re
import select
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def prepare(skerry, guest):
    """The folder that holds the guests 'busybox' or 'debian'."""
    made = subprocess.run([os.path.join(HERE, 'prepare.sh'), skerry, guest], stdout=subprocess.PIPE, check=True, text=True)
    return made.stdout.strip()


class Guest:
    def __init__(self, skerry, *arguments):
        self.started = time.monotonic()
        self.printed = b''  # all of it
        self.seen = 0  # up to where expect() has looked
        self.stderr = tempfile.TemporaryFile()
        self.process = subprocess.Popen([skerry, 'run', *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.stderr, bufsize=0)

    def fail(self, sentence):
        self.process.kill()
        sys.stdout.write(self.printed.decode(errors='replace')[-6000:])
        sys.exit(f'\nFAILED after {time.monotonic() - self.started:.1f} s: {sentence}\n{self.words()}')

    def words(self):
        """What the command said on stderr."""
        self.stderr.seek(0)
        return self.stderr.read().decode(errors='replace')[-3000:]

    def read(self, seconds):
        """More of the console, or False when nothing came in that time or nothing will."""
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            return False
        more = os.read(self.process.stdout.fileno(), 65536)
        self.printed += more
        return bool(more)

    def expect(self, pattern, seconds=120):
        """Waits until the console shows the regular expression; returns the match."""
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

    def type(self, text):
        self.process.stdin.write(text.encode() + b'\n')

    def login(self, seconds=300):
        """Waits for the shell on the serial console."""
        self.expect(r'root@debian:~# ', seconds)
        # no line editing: the answers alone are on the console
        self.type("exec env -u PROMPT_COMMAND PS1='' PS2='' sh")
        self.type('stty -echo; echo "now"quiet')
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

    def ends(self, status, seconds=120):
        """Waits for the end of the VM, and compares the exit status."""
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            self.read(0.2)
        while self.read(0):
            pass
        if self.process.poll() is None:
            self.fail(f'it did not end within {seconds} s')
        if self.process.returncode != status:
            self.fail(f'exit status {self.process.returncode} instead of {status}')

    def told(self, text):
        if text not in self.printed.decode(errors='replace'):
            self.fail(f"it did not print '{text}'")


class Server:
    """A web server on the host's loopback address that serves one random file of a MiB."""

    def __init__(self):
        content = os.urandom(1 << 20)

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header('Content-Length', str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *unused):
                pass

        self.sha256 = hashlib.sha256(content).hexdigest()
        self.server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.url = f'http://10.0.2.2:{self.server.server_port}/file'  # as the guest sees it
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
