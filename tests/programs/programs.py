#!/usr/bin/env -S python3 -B
"""Real programs in a Debian guest: every one must print what it prints on the host.

Usage: programs.py SKERRY CPUS [--engine NAME] [--timeout SECONDS] [--keep FOLDER] [CASE…]

Cases are those of cases.sh, all if none is named. The same files run in the guest and, in namespaces of their own, on the host.
--timeout is for one case. --keep leaves both outputs of each case in a folder."""
import argparse
import difflib
import fcntl
import os
import random
import re
import subprocess
import sys
import tarfile
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'boot'))
from guest_console import Guest

SKIPPED = 77
CHAIN_BLOCKS = 10
LOCKSTEP_SLOWER = '40'  # about: timeouts in the guest last as long as they are meant to
KEYS = r'''
cd /tmp/programs && mkdir -p keys && cd keys
for peer in '' -peer; do
    openssl genpkey -algorithm x25519 -out x25519$peer.key
    for curve in 256 521; do openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-$curve -out p$curve$peer.key; done
done
for name in x25519 p256 p521; do openssl pkey -in $name-peer.key -pubout -out $name-peer.pem; mv $name.key $name.pem; rm $name-peer.key; done
for name in ed25519 ed448; do openssl genpkey -algorithm $name -out $name.pem; done
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072 -out rsa.pem
openssl genpkey -genparam -algorithm DSA -pkeyopt dsa_paramgen_bits:2048 -out dsa.param
openssl genpkey -paramfile dsa.param -out dsa.pem
'''
CHAIN = f'''
ip link set lo up
cd /tmp && mkdir -p home && export HOME=/tmp/home
monerod --regtest --offline --fixed-difficulty 40 --data-dir /tmp/node --rpc-bind-port 28081 --p2p-bind-port 28080 --no-zmq --no-igd \
    --disable-rpc-ban --max-concurrency 1 --non-interactive --log-file /tmp/node.log >/dev/null 2>&1 &
python3 /tmp/programs/cases/monero_work.py mine {CHAIN_BLOCKS} /tmp/programs/chain.json
'''


def on_host(folder, script, **how):
    """Runs a script with the guest's files as its root: no mount, process or connection outlives it or meets the host's."""
    root = f'{folder}/rootfs'
    user = [] if os.geteuid() == 0 else ['--user', '--map-root-user']
    mounts = (f"mount --rbind /dev '{root}/dev' && mount --rbind /sys '{root}/sys' && mount -t proc proc '{root}/proc' && mount -t tmpfs tmpfs '{root}/tmp' && "
              f"mkdir '{root}/tmp/programs' && mount --rbind '{folder}/programs' '{root}/tmp/programs'")
    return subprocess.run(['unshare', *user, '--mount', '--net', '--pid', '--fork', '--kill-child', 'sh', '-c',
                           f"{mounts} && exec chroot '{root}' sh -c \"$1\"", 'sh', script], stdin=subprocess.DEVNULL, **how)


def write(path, data):
    with open(path + '.part', 'wb') as f:
        f.write(data)
    os.rename(path + '.part', path)


def programs_folder(folder):
    """FOLDER/programs: what both sides run and read. Keys and the chain are made once."""
    programs = f'{folder}/programs'
    with open(f'{folder}/lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.makedirs(programs, exist_ok=True)
        subprocess.run(['cp', '-rT', '--remove-destination', HERE, programs], check=True)
        if not os.path.exists(f'{programs}/sources'):
            subprocess.run(['cp', '-r', f'{folder}/sources', f'{programs}/sources.part'], check=True)
            os.rename(f'{programs}/sources.part', f'{programs}/sources')
        data = random.Random(4).randbytes(1_500_000)
        write(f'{programs}/data.bin', data)
        write(f'{programs}/medium.bin', data[:100_003])
        write(f'{programs}/small.bin', data[:1000])
        if not os.path.exists(f'{programs}/keys/dsa.pem'):
            on_host(folder, KEYS, check=True, stderr=subprocess.DEVNULL)
        if not os.path.exists(f'{programs}/chain.json'):
            on_host(folder, CHAIN, check=True)
    return programs


def archive_make(programs, path):
    with tarfile.open(path, 'w') as archive:
        archive.add(programs, 'programs')


def boot(skerry, folder, archive, args):
    image, limit = f'{folder}/debian', str(args.timeout * (len(args.cases) + 1))
    options = ['--kernel', f'{image}.vmlinuz', '--initrd', f'{image}.initrd', '--append',
               'console=ttyS0 quiet panic=-1 root=/dev/vda rw init=/bin/sh', '--memory', '3G', '--cpus', args.cpus,
               '--disk', f'{image}.img,format=raw,snapshot', '--disk', f'{archive},format=raw,readonly', '--net', 'none',
               '--timeout', limit]
    if args.engine:
        options += ['--cpu-engine', args.engine]
    if args.engine == 'lockstep':
        options += ['--slow-clock', LOCKSTEP_SLOWER]
    return Guest(skerry, *options)


def prepare_guest(guest, seconds):
    guest.shell(r'# ', seconds)
    guest.run('mkdir -p /dev/shm /dev/pts; mount -t tmpfs tmpfs /tmp && mount -t tmpfs tmpfs /dev/shm', seconds)
    guest.run('mountpoint -q /dev/pts || mount -t devpts devpts /dev/pts; mountpoint -q /proc || mount -t proc proc /proc', seconds)
    guest.run('tar -xf /dev/vdb -C /tmp', seconds)
    guest.step('the guest is up')


def in_guest(guest, case, seconds):
    """What the case printed, taken from the console."""
    guest.run(f'sh /tmp/programs/cases.sh {case} </dev/null >/tmp/printed 2>&1; echo "status $?" >>/tmp/printed', seconds)
    return guest.run('cat /tmp/printed', 120)


def compare(case, expected, printed):
    """A line about the case; whether it was right."""
    if expected == printed:
        return True, f'{case}: {len(printed.splitlines())} lines as on the host'
    changes = [line for line in difflib.unified_diff(expected.splitlines(), printed.splitlines(), 'host', 'guest', n=0, lineterm='')]
    return False, f'{case}: DIFFERS\n  ' + '\n  '.join(changes[:40])


def keep(folder, case, expected, printed):
    os.makedirs(folder, exist_ok=True)
    for where, text in ('host', expected), ('guest', printed):
        with open(f'{folder}/{case}.{where}', 'w') as f:
            f.write(text)


def case_run(guest, folder, case, args):
    start = time.monotonic()
    host = on_host(folder, f'sh /tmp/programs/cases.sh {case}; echo "status $?"', stdout=subprocess.PIPE, text=True, errors='replace',
                   timeout=args.timeout)
    between = time.monotonic()
    printed = in_guest(guest, case, args.timeout)
    right, sentence = compare(case, host.stdout, printed)
    if not re.search(r'^status 0\n\Z', host.stdout, re.M) or 'WRONG' in host.stdout:
        right, sentence = False, f'{case}: fails on the host itself:\n{host.stdout[-2000:]}'
    if args.keep:
        keep(args.keep, case, host.stdout, printed)
    print(f'{between - start:6.1f} s on the host, {time.monotonic() - between:6.1f} s in the guest  {sentence}', flush=True)
    return right


def parse_arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('skerry')
    p.add_argument('cpus')
    p.add_argument('cases', nargs='*', metavar='CASE')
    p.add_argument('--engine')
    p.add_argument('--timeout', type=int, default=1200)
    p.add_argument('--keep')
    args = p.parse_intermixed_args()
    known = subprocess.check_output(['sh', f'{HERE}/cases.sh', 'list'], text=True).split()
    unknown = [case for case in args.cases if case not in known]
    if unknown:
        p.error(f"no case {', '.join(unknown)}; there are: {', '.join(known)}")
    args.cases = args.cases or known
    return args


def main():
    args = parse_arguments()
    made = subprocess.run([f'{HERE}/prepare.sh', args.skerry], stdout=subprocess.PIPE, text=True)
    if made.returncode:
        sys.exit(SKIPPED if made.returncode == SKIPPED else 'FAILED: the guest cannot be made')
    folder = made.stdout.split()[-1]
    programs = programs_folder(folder)
    with tempfile.TemporaryDirectory() as work:
        archive = f'{work}/programs.tar'
        archive_make(programs, archive)
        with boot(args.skerry, folder, archive, args) as guest:
            prepare_guest(guest, args.timeout)
            wrong = [case for case in args.cases if not case_run(guest, folder, case, args)]
    if wrong:
        sys.exit(f"FAILED: {', '.join(wrong)}")
    print('ok')


main()
