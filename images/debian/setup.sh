# Hook of mmdebstrap, after all packages; $1 is the guest's root folder.
# SKERRY_HOSTNAME names the guest, SKERRY_SSH_KEY is what root's authorized_keys shall hold (may be empty).
set -eu
root=$1

echo "$SKERRY_HOSTNAME" >"$root/etc/hostname"
printf '127.0.0.1\tlocalhost %s\n::1\tlocalhost ip6-localhost\n' "$SKERRY_HOSTNAME" >"$root/etc/hosts"
printf '/dev/vda\t/\text4\terrors=remount-ro\t0\t1\n' >"$root/etc/fstab"

# Whatever the network card is called, ask for an address. The name server is the one of skerry's user network.
mkdir -p "$root/etc/systemd/network"
printf '[Match]\nName=en* eth*\n\n[Network]\nDHCP=yes\n' >"$root/etc/systemd/network/80-dhcp.network"
rm -f "$root/etc/resolv.conf"
echo 'nameserver 10.0.2.3' >"$root/etc/resolv.conf"
chroot "$root" systemctl enable --quiet systemd-networkd
# The boot need not wait for an address, nor look for snapshots of LVM, which is not there.
chroot "$root" systemctl disable --quiet systemd-networkd-wait-online.service e2scrub_reap.service

# A root shell on the serial console, without a password: whoever holds that console holds the VM.
for console in ttyS0 hvc0; do
    getty="$root/etc/systemd/system/serial-getty@$console.service.d"
    mkdir -p "$getty"
    cat >"$getty/autologin.conf" <<'UNIT'
[Service]
ExecStart=
ExecStart=-/sbin/agetty --autologin root --keep-baud 115200,57600,38400,9600 %I $TERM
UNIT
done

if [ -n "$SKERRY_SSH_KEY" ]; then
    mkdir -p -m 700 "$root/root/.ssh"
    printf '%s\n' "$SKERRY_SSH_KEY" >"$root/root/.ssh/authorized_keys"
    chmod 600 "$root/root/.ssh/authorized_keys"
fi

# Each guest makes its own at its first boot.
: >"$root/etc/machine-id"
rm -f "$root/etc/ssh/"ssh_host_*_key*
if [ -d "$root/etc/ssh" ]; then
    cat >"$root/etc/systemd/system/ssh-host-key.service" <<'UNIT'
[Unit]
Description=Make the SSH host key of this guest
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
Before=ssh.service

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key

[Install]
WantedBy=ssh.service
UNIT
    chroot "$root" systemctl enable --quiet ssh-host-key.service
fi
