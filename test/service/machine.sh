#!/bin/sh
# Becomes systemd as process 1 of the namespaces that it is run in, on this host's root
# with a layer over it that is gone afterwards. $1 is a folder for that; $2, if there is one,
# a folder whose files go before the host's.
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
[ -z "$2" ] || cp -a "$2" "$1/layer" # no layer may lie within another
mount -t overlay overlay -o "lowerdir=${2:+$1/layer:}/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t bpf bpf sys/fs/bpf
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
# Of the host's services none is wanted, nor what sets the host's kernel.
rm -rf etc/systemd/system/*.wants
for unit in systemd-sysctl systemd-binfmt systemd-modules-load systemd-udevd systemd-networkd; do
	ln -sf /dev/null "etc/systemd/system/$unit.service"
done
for unit in proc-sys-fs-binfmt_misc.automount sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount; do
	ln -sf /dev/null "etc/systemd/system/$unit"
done
: >etc/machine-id
rm -rf var/log/journal
export container=other
# Not chroot: who joins the mount namespace comes out there, too.
mkdir old
pivot_root . old
umount -l /old
# As systemd has it where it is no container: credentials are mounted that way.
mount --make-rshared /
exec /lib/systemd/systemd --system --unit=basic.target --show-status=0
