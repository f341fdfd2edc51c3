"""The machines that are compared: skerry with one of its engines, QEMU's translator (tcg), the host itself (native)."""
import glob
import os
import re
import select
import signal
import subprocess
import time

RAM_LEAST = 256 << 20  # of the guests here; what is smaller is no guest's RAM


class Failed(Exception):
    """A machine did not do what was to be measured; the text says which and shows its last output."""


class Boot:
    """What to boot: files, kernel command line, memory in MiB. What is written to the disks is lost at the end."""

    def __init__(self, kernel, memory, initrd=None, append=None, disks=()):
        self.kernel, self.memory, self.initrd, self.append, self.disks = kernel, memory, initrd, append, disks


def skerry_command(binary, engine, boot, cpus):
    command = [binary, "run", "--cpu-engine", engine, "--cpus", str(cpus), "--memory", f"{boot.memory}M",
               "--net", "none", "--serial", "stdio", "--no-reboot", "--kernel", boot.kernel]
    if boot.initrd:
        command += ["--initrd", boot.initrd]
    if boot.append:
        command += ["--append", boot.append]
    for disk in boot.disks:
        command += ["--disk", disk + ",format=raw,snapshot"]
    return command


def qemu_command(boot, cpus):
    command = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-smp", str(cpus), "-m", str(boot.memory),
               "-nographic", "-no-reboot", "-nic", "none", "-kernel", boot.kernel]
    if boot.initrd:
        command += ["-initrd", boot.initrd]
    if boot.append:
        command += ["-append", boot.append]
    for disk in boot.disks:
        command += ["-drive", f"file={disk},format=raw,if=virtio,snapshot=on"]
    return command


def command_for(machine, binary, boot, cpus):
    return qemu_command(boot, cpus) if machine == "tcg" else skerry_command(binary, machine, boot, cpus)


class Running:
    """A started command whose output is searched as it arrives. Use it in a with statement: at the end the command is
    killed with all its children."""

    def __init__(self, command, cpus=None):
        pin = (lambda: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cpus])) if cpus else None
        self.name = command[0]
        self.text, self.parsed = b"", 0
        self.started = time.monotonic()
        self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=pin)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        try:
            os.killpg(self.child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.child.wait()
        self.child.stdout.close()

    def wait_for(self, pattern, timeout):
        """The next match of the pattern and the seconds from the start to its arrival. Raises Failed."""
        end = time.monotonic() + timeout
        while True:
            match = re.compile(pattern.encode()).search(self.text, self.parsed)
            if match:
                self.parsed = match.end()
                return match, time.monotonic() - self.started
            if not select.select([self.child.stdout], [], [], max(0, end - time.monotonic()))[0]:
                self.fail(f"did not print '{pattern}' within {timeout:.0f} s")
            piece = os.read(self.child.stdout.fileno(), 65536)
            if not piece:
                self.fail(f"ended before it printed '{pattern}'")
            self.text += piece

    def fail(self, sentence):
        tail = self.text[-1500:].decode(errors="replace")
        raise Failed(f"{os.path.basename(self.name)} {sentence}; its last output:\n{tail}")

    def threads(self):
        """{thread: (seconds on a CPU, seconds waiting for one)} of the process and its children, by the scheduler."""
        seconds = {}
        for pid in process_tree(self.child.pid):
            for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
                try:
                    with open(path) as f:
                        ran, waited = f.read().split()[:2]
                except OSError:
                    continue  # it has just ended
                seconds[path] = int(ran) / 1e9, int(waited) / 1e9
        return seconds

    def memory_beyond_ram(self):
        """MiB resident in the process and its children, without the mapping of guest RAM."""
        return sum(resident_beyond_ram(pid) for pid in process_tree(self.child.pid)) / 1024


def waited(before, after):
    """The seconds for which the busiest thread between two calls of threads(), a guest's CPU, had to wait."""
    since = {t: tuple(now - then for now, then in zip(after[t], before.get(t, (0, 0)))) for t in after}
    return max(since.values(), default=(0, 0))[1]


def ran(before, after):
    """The seconds on a CPU of all threads between two calls of threads()."""
    return sum(after[t][0] - before.get(t, (0, 0))[0] for t in after)


def process_tree(pid):
    pids = [pid]
    for p in pids:
        try:
            with open(f"/proc/{p}/task/{p}/children") as f:
                pids += [int(x) for x in f.read().split()]
        except OSError:
            pass
    return pids


def is_guest_ram(fields):
    """fields: of the first line of a mapping in smaps. Ours is a memfd with that name; QEMU's is one large anonymous
    mapping, and so is the buffer for its translated code, which is executable."""
    first, last = (int(x, 16) for x in fields[0].split("-"))
    anonymous = len(fields) < 6 and last - first >= RAM_LEAST and "x" not in fields[1]
    return anonymous or any("guest-ram" in field for field in fields[5:])


def resident_beyond_ram(pid):
    """Each page counts once, however often the process has it mapped; and by its share if others have it too."""
    total, ram = 0, False
    try:
        with open(f"/proc/{pid}/smaps") as f:
            lines = f.read().splitlines()
    except OSError:
        return 0
    for line in lines:
        fields = line.split()
        if re.match(r"^[0-9a-f]+-[0-9a-f]+ ", line):
            ram = is_guest_ram(fields)
        elif fields[0] == "Pss:" and not ram:
            total += int(fields[1])
    return total
