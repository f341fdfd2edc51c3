#!/usr/bin/env -S python3 -B
"""The gdb stub's connection, packet by packet: debuggers that vanish, wait for each other, do not read, send rubbish; reset, kill.

Usage: gdb_connection.py SKERRY GUEST"""
import re
import socket
import subprocess
import sys
import time

FRAME = re.compile(rb'\$([^#]*)#([0-9a-f]{2})')


class Debugger:
    def __init__(self, port):
        self.socket = socket.create_connection(('127.0.0.1', port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(30)
        self.read = b''

    def send(self, packet):
        self.socket.sendall(b'$' + packet + b'#%02x' % (sum(packet) % 256))

    def reply(self):
        while not (match := FRAME.search(self.read)):
            more = self.socket.recv(65536)
            if not more:
                sys.exit('FAILED: the stub hung up')
            self.read += more
        self.read = self.read[match.end():]
        if sum(match.group(1)) % 256 != int(match.group(2), 16):
            sys.exit(f'FAILED: wrong checksum: {match.group(0)}')
        self.socket.sendall(b'+')
        return match.group(1)

    def ask(self, packet, want=None):
        self.send(packet)
        reply = self.reply()
        if want is not None and reply != want:
            sys.exit(f'FAILED: {packet} got {reply} instead of {want}')
        return reply

    def rip(self):
        return self.ask(b'p10')

    def interrupt(self):
        self.socket.sendall(b'\3')
        stop = self.reply()
        if not stop.startswith(b'T02'):
            sys.exit(f'FAILED: an interrupt got {stop}')

    def close(self):
        self.socket.close()


def conversation(port):
    one = Debugger(port)
    one.ask(b'?', b'T05thread:1;')
    one.ask(b'Mx', b'E16')
    one.ask(b'M200000,2:ebfe', b'OK')  # an endless loop, where the guest starts
    one.ask(b'P10=0000200000000000', b'OK')
    for _ in range(20):
        one.ask(b'vCont;s:1', b'T05thread:1;')
    one.send(b'c')
    time.sleep(0.1)
    one.close()  # vanishes while the machine runs
    two = Debugger(port)
    two.ask(b'?')
    three = Debugger(port)  # waits its turn
    two.ask(b'Z0,200000,1', b'OK')
    two.ask(b'c', b'T05thread:1;swbreak:;')
    two.close()  # vanishes while it stands, with a breakpoint
    three.ask(b'?')
    three.send(b'c')
    time.sleep(0.1)
    three.interrupt()  # the breakpoint is gone
    three.socket.sendall(b'\0\xff$#zz$g#00+-+$' + b'a' * 70000 + b'#00')
    if not three.reply().startswith(b'T02'):
        sys.exit("FAILED: '-' did not bring the last reply again")
    three.ask(b'qC', b'QC1')
    three.close()


def flood(debugger):
    """Replies that nobody reads wait, and are all there afterwards."""
    debugger.ask(b'QStartNoAckMode', b'OK')
    debugger.socket.settimeout(0.5)
    sent = got = 0
    try:
        while sent < 1 << 18:
            sent += debugger.socket.send(b'$g#67' * 1000)
    except TimeoutError:
        pass  # the stub reads no more while its replies wait
    debugger.socket.settimeout(30)
    while got < sent // 5 * 1000:  # each has more than a thousand characters
        got += len(debugger.socket.recv(1 << 20))
    debugger.close()


vm = subprocess.Popen([sys.argv[1], 'run', '--kernel', sys.argv[2], '--serial', 'none', '--timeout', '100', '--cpu-engine', 'interp',
                       '--gdb', ':0,wait'], stderr=subprocess.PIPE, text=True)
try:
    said = vm.stderr.readline()
    port = int(re.search(r'target remote 127\.0\.0\.1:(\d+)$', said.strip()).group(1))
    conversation(port)
    one = Debugger(port)
    one.ask(b'?')
    flood(one)
    one = Debugger(port)
    one.ask(b'qRcmd,' + b'reset'.hex().encode())
    if one.rip() != b'0000200000000000':
        sys.exit(f'FAILED: after a reset RIP is {one.rip()}')
    one.ask(b'm200000,2', b'fabc')  # loaded anew
    one.ask(b'vKill;1')
    if vm.wait(30) != 0 or 'the debugger' not in (words := vm.stderr.read()):
        sys.exit(f'FAILED: killed, it ended with {vm.returncode}: {words}')
finally:
    if vm.poll() is None:
        vm.terminate()
        vm.wait()
print('ok')
