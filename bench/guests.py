"""The guests that the benchmark boots, made where they are missing.

- For the kernels: a Debian kernel and an initial RAM disk with nothing but bench/guest/case_runner and the kernels.
- For the programs: a Debian with compilers, compressors and a Monero node, made once and kept in the cache folder. What
  changes with the source (scripts, inputs, the list of cases) is on a second disk, a tar archive that the guest unpacks
  into memory.
- For the host: the same Debian's files in a folder, so that it runs the very same programs.
"""
import fcntl
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import time

import inputs
import suite
from machines import Boot

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.join(HERE, "..")
PREPARE = os.path.join(SOURCE, "tests", "boot", "prepare.sh")
PACKAGES = "gcc,libc6-dev,xz-utils,openssl,python3-minimal,libpython3-stdlib,monero"
KEPT_SECONDS = 30 * 86400
QUIET = "console=ttyS0 quiet loglevel=1 panic=-1"


def cache():
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "skerry")


def test_guest(skerry, kind):
    """The folder with a guest of the boot tests, made if it is not there."""
    return subprocess.check_output([PREPARE, skerry, kind], text=True).split()[-1]


def cases_file(cases, scale, timeout):
    lines = [f"scale {scale}", f"timeout {timeout}"]
    lines += [("program " if case in suite.PROGRAMS else "kernel ") + case for case in cases]
    return ("\n".join(lines) + "\n").encode()


def cpio_entry(name, mode, data=b""):
    fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
    pad = lambda piece: piece + b"\0" * (-len(piece) % 4)
    return pad(head) + pad(data)


def kernel_files(build, cases, scale, timeout):
    """{name: contents} of what stands in /bench of the guest; the programs and the list of cases."""
    files = {"cases": cases_file(cases, scale, timeout)}
    for path in ["case_runner"] + [f"kernels/kernel_{case}" for case in cases]:
        with open(os.path.join(build, "bench", path), "rb") as f:
            files[os.path.basename(path)] = f.read()
    return files


def kernels_boot(skerry, build, folder, cases, scale, timeout):
    """A Boot that runs these kernels. The kernel's own default RAM disk brings /dev/console."""
    archive = cpio_entry("bench", 0o040755)
    for name, data in kernel_files(build, cases, scale, timeout).items():
        archive += cpio_entry(f"bench/{name}", 0o100755, data)
    initrd = os.path.join(folder, "kernels.initrd")
    with open(initrd, "wb") as f:
        f.write(archive + cpio_entry("TRAILER!!!", 0))
    kernel = os.path.join(test_guest(skerry, "busybox"), "cloud-amd64.vmlinuz")
    return Boot(kernel, 512, initrd, f"{QUIET} rdinit=/bench/case_runner -- /bench poweroff")


def kernels_native(build, folder, cases, scale, timeout):
    """A command that runs these kernels on the host."""
    target = os.path.join(folder, "native")
    os.makedirs(target, exist_ok=True)
    for name, data in kernel_files(build, cases, scale, timeout).items():
        path = os.path.join(target, name)
        with open(path, "wb") as f:
            f.write(data)
        os.chmod(path, 0o755)
    return [os.path.join(target, "case_runner"), target]


def recipe_hash():
    recipe = hashlib.sha1(PACKAGES.encode())
    images = os.path.join(SOURCE, "images", "debian")
    for name in sorted(os.listdir(images)):
        with open(os.path.join(images, name), "rb") as f:
            recipe.update(f.read())
    return recipe.hexdigest()[:12]


def prune():
    """Removes guests of older recipes that nobody has used for long."""
    for name in os.listdir(cache()):
        path = os.path.join(cache(), name)
        if name.startswith("bench-debian-") and time.time() - os.stat(path).st_mtime > KEPT_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def rootfs_unpack(image, target):
    """The files of the image in a folder; debugfs needs no mount."""
    part = target + ".part"
    shutil.rmtree(part, ignore_errors=True)
    os.mkdir(part)
    subprocess.run(["debugfs", "-R", f"rdump / {part}", image], check=True, capture_output=True)
    os.rename(part, target)


def debian(skerry, say):
    """The folder with the Debian of the programs: debian.img, .vmlinuz, .initrd, and its files in rootfs/."""
    folder = os.path.join(cache(), "bench-debian-" + recipe_hash())
    os.makedirs(folder, exist_ok=True)
    prune()
    with open(os.path.join(folder, "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.utime(folder)
        image = os.path.join(folder, "debian.img")
        if not os.path.exists(image):
            say("making the Debian guest of the programs, once; this takes some minutes and 2 GB in " + folder)
            command = [skerry, "image", "build", "debian", "--out", image, "--size", "3G", "--with", PACKAGES]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        if not os.path.exists(os.path.join(folder, "rootfs")):
            rootfs_unpack(image, os.path.join(folder, "rootfs"))
        if not os.path.exists(os.path.join(folder, "key.pem")):
            make_key(folder)
    return folder


def in_rootfs(folder, script):
    """A command that runs a script with the guest's files as its root, in namespaces of its own: no mount, process or
    connection outlives it or meets the host's."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    root = os.path.join(folder, "rootfs")
    mounts = f"mount --rbind /dev '{root}/dev' && mount -t proc proc '{root}/proc' && mount -t tmpfs tmpfs '{root}/tmp'"
    namespaces = [*user, "--mount", "--net", "--pid", "--fork", "--kill-child"]
    return ["unshare", *namespaces, "sh", "-c", f"{mounts} && {script}"]


def make_key(folder):
    key = subprocess.run(in_rootfs(folder, f"chroot '{folder}/rootfs' openssl genrsa 8192 2>/dev/null"), check=True,
                         stdout=subprocess.PIPE).stdout
    with open(os.path.join(folder, "key.part"), "wb") as f:
        f.write(key)
    os.rename(os.path.join(folder, "key.part"), os.path.join(folder, "key.pem"))


def programs_archive(build, debian_folder, folder, cases, scale, timeout):
    """The second disk: a tar archive with bench/ in it."""
    files = kernel_files(build, [], scale, timeout)
    files["cases"] = cases_file(cases, scale, timeout)
    files["text.txt"], files["source.c"] = inputs.text(3_000_000), inputs.c_source(14)
    for path in [os.path.join(debian_folder, "key.pem")] + [os.path.join(HERE, "programs", name)
                                                          for name in os.listdir(os.path.join(HERE, "programs"))]:
        if os.path.isfile(path):
            with open(path, "rb") as f:
                files[os.path.basename(path)] = f.read()
    path = os.path.join(folder, "programs.tar")
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo("bench/" + name)
            entry.size, entry.mode = len(data), 0o755
            archive.addfile(entry, io.BytesIO(data))
    return path


def programs_boot(debian_folder, archive):
    """A Boot that unpacks the archive into memory and runs what it says, without systemd."""
    script = "mount -t tmpfs tmpfs /tmp && tar -xf /dev/vdb -C /tmp && exec /tmp/bench/case_runner /tmp/bench poweroff"
    guest = os.path.join(debian_folder, "debian")
    return Boot(guest + ".vmlinuz", 2048, guest + ".initrd", f'{QUIET} root=/dev/vda rw init=/bin/sh -- -c "{script}"',
                [guest + ".img", archive])


def programs_native(debian_folder, archive):
    """A command that does the same on the host."""
    root = os.path.join(debian_folder, "rootfs")
    start = f"exec chroot '{root}' /tmp/bench/case_runner /tmp/bench"
    return in_rootfs(debian_folder, f"tar -xf '{archive}' -C '{root}/tmp' && {start}")


def login_boot(skerry):
    guest = os.path.join(test_guest(skerry, "debian"), "debian")
    return Boot(guest + ".vmlinuz", 1024, guest + ".initrd", "root=/dev/vda console=ttyS0 panic=-1", [guest + ".img"])


def init_boot(skerry):
    guest = os.path.join(test_guest(skerry, "busybox"), "cloud-amd64")
    return Boot(guest + ".vmlinuz", 512, guest + ".initrd", "console=ttyS0 panic=-1")
