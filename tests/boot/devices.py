#!/usr/bin/env -S python3 -B
"""The board as Linux sees it: clocks, interrupts, the PCI bus, and the virtio devices that the other tests do not need.

Usage: devices.py SKERRY"""
import datetime
import os
import re
import sys
import tempfile
import time

from guest_console import Guest
from guest_image import busybox
from kernel_log import check

DRIVERS = {'virtio_blk': 1, 'virtio_net': 1, 'virtio_rng': 1, 'virtio_balloon': 1, 'virtio_console': 1}
PCI = {'0x8086:0x1237': 'i440FX host bridge', '0x8086:0x7000': 'PIIX3', '0x8086:0x7113': 'PIIX4 power management',
       '0x1af4:0x1041': 'network', '0x1af4:0x1042': 'disk', '0x1af4:0x1043': 'console', '0x1af4:0x1044': 'random numbers',
       '0x1af4:0x1045': 'balloon'}
SECONDS_OFF = 5  # how far a clock may be from the host's: the machine may be busy


def interrupts(guest):
    """Lines of /proc/interrupts: description by what it ends with, and the sum over the CPUs."""
    counts = {}
    for line in guest.run('cat /proc/interrupts').splitlines()[1:]:
        name, rest = line.split(':', 1)
        numbers = re.match(r'[\s\d]*', rest).group(0).split()
        counts[name.strip()] = (sum(map(int, numbers)), ' '.join(rest.split()[len(numbers):]))
    return counts


def clocks(guest):
    guest.check('cat /sys/devices/system/clocksource/clocksource0/current_clocksource', '^tsc\n')
    available = guest.run('cat /sys/devices/system/clocksource/clocksource0/available_clocksource').split()
    if not {'tsc', 'hpet', 'acpi_pm'} <= set(available):
        guest.fail(f'clock sources: {available}')
    shown = guest.check('hwclock -u -r', r'\w+ (\w+ +\d+ [\d:]+ \d+)').group(1)
    clock = datetime.datetime.strptime(' '.join(shown.split()), '%b %d %H:%M:%S %Y').replace(tzinfo=datetime.timezone.utc)
    if abs(clock.timestamp() - time.time()) > SECONDS_OFF:
        guest.fail(f'the real-time clock shows {clock}')
    started, host_started = float(guest.run('cat /proc/uptime').split()[0]), time.monotonic()
    guest.run('sleep 3')
    passed, host_passed = float(guest.run('cat /proc/uptime').split()[0]) - started, time.monotonic() - host_started
    if passed < 3 or abs(passed - host_passed) > 1:
        guest.fail(f'{passed:.2f} s passed in the guest, {host_passed:.2f} s here')
    # While the HPET has the clock's interrupt line, Linux learns of its alarm through ACPI.
    guest.run('echo +2 >/sys/class/rtc/rtc0/wakealarm')
    guest.check('cat /proc/driver/rtc', r'alarm_IRQ\s*: yes')
    guest.run('sleep 4')
    guest.check('cat /proc/driver/rtc', r'alarm_IRQ\s*: no')
    guest.step('clocks')


def pci(guest):
    found = guest.run('cd /sys/bus/pci/devices; for d in *; do echo $(cat $d/vendor):$(cat $d/device); done').split()
    for number, what in PCI.items():
        if number not in found:
            guest.fail(f'no {what} ({number}) among {found}')
    for driver, count in DRIVERS.items():
        guest.check(f'ls /sys/bus/virtio/drivers/{driver} | grep -c ^virtio', f'^{count}\n')
    modes = set(guest.run('cat /sys/bus/pci/devices/*/msi_irqs/*').split())
    if modes != {'msix'}:
        guest.fail(f'kinds of interrupts of the virtio devices: {modes}')
    guest.step('PCI')


def virtio_devices(guest, port):
    guest.check('cat /sys/class/misc/hw_random/rng_current', r'^virtio_rng\.0\n')
    guest.check('dd if=/dev/hwrng bs=512 count=1 2>/dev/null | wc -c', '^512\n')
    one, two = (guest.run('dd if=/dev/hwrng bs=16 count=1 2>/dev/null | hexdump') for _ in range(2))
    if one == two:
        guest.fail(f'the same random numbers twice: {one}')
    guest.run('dd if=/dev/vda of=/dev/null bs=64k 2>/dev/null')
    guest.run('udhcpc -n -q -s /etc/udhcpc.script')
    guest.check('ping -c 1 10.0.2.2', '1 packets received')
    guest.run('echo a line on the other console >/dev/hvc0')
    deadline = time.monotonic() + 20
    while 'a line on the other console' not in open(port).read():
        if time.monotonic() > deadline:
            guest.fail(f'on the virtio console came: {open(port).read()!r}')
        time.sleep(0.1)
    guest.step('virtio devices')


def interrupt_controllers(guest):
    """After the others, so that each device had a reason to interrupt."""
    seen = interrupts(guest)
    for want in (r'IO-APIC +2-edge +timer', r'IO-APIC +4-edge +ttyS0', r'IO-APIC +9-fasteoi +acpi', r'IO-APIC +1-edge +i8042',
                 r'PCI-MSI.*-req', r'PCI-MSI.*virtio\d-input', r'PCI-MSI.*-output', r'Local timer', r'Rescheduling',
                 r'Function call'):
        if not any(count and re.search(want, text) for count, text in seen.values()):
            guest.fail(f"no interrupts of '{want}' in {seen}")
    for wrong in 'ERR', 'MIS', 'NMI', 'SPU':
        if seen[wrong][0]:
            guest.fail(f'{seen[wrong][0]} interrupts {wrong}')
    guest.step('interrupts')


skerry = sys.argv[1]
with tempfile.TemporaryDirectory() as work:
    disk, console = os.path.join(work, 'disk'), os.path.join(work, 'console')
    with open(disk, 'wb') as empty:
        empty.truncate(1 << 20)
    with Guest(skerry, *busybox(skerry, 'cloud-amd64'), '--append', 'console=ttyS0 panic=-1', '--cpus', '2',
               '--disk', f'{disk},format=raw', '--device', 'rng', '--device', 'balloon',
               '--device', f'virtio-console={console}', '--timeout', '400') as machine:
        machine.shell(r'/ # ')
        machine.step('shell')
        clocks(machine)
        pci(machine)
        virtio_devices(machine, console)
        interrupt_controllers(machine)
        check(machine)
        machine.type('poweroff -f')
        machine.ends(0, 'the guest powered off')
        machine.step('powered off')
print('ok')
