"""The guests that the tests boot: made once per machine by prepare.sh, named here."""
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
SKIPPED = 77  # how a test tells meson that it was not run


def prepare(skerry, guest):
    """The folder that holds the guests of the recipe 'busybox' or 'debian'. Ends the test if they cannot be made."""
    made = subprocess.run([os.path.join(HERE, 'prepare.sh'), skerry, guest], stdout=subprocess.PIPE, text=True)
    if made.returncode == SKIPPED:
        sys.exit(SKIPPED)
    if made.returncode:
        sys.exit(f'FAILED: the guest {guest} cannot be made')
    return made.stdout.strip()


def busybox(skerry, flavour):
    """Arguments of `skerry run` for a Debian kernel of this flavour with the busybox initial RAM disk."""
    folder = prepare(skerry, 'busybox')
    return ['--kernel', f'{folder}/{flavour}.vmlinuz', '--initrd', f'{folder}/{flavour}.initrd']
