#!/usr/bin/env bash
# Installs what the tests and the code generator run, on Debian and its like:
#
#   test/setup.sh test        programs that tests on this host run (the virtual machines' harness installs its own)
#   test/setup.sh generate    the compiler for bpf/
#
# Says what it installs. Without root, or without apt-get, it says what to install and fails.
set -euo pipefail

# A thing that is looked for, a command or a file, and the package it comes in.
declare -A test=(
	[tshark]=tshark
	[ip]=iproute2
	[git]=git
	[make]=make
	[nsenter]=util-linux
	[/lib/systemd/systemd]=systemd
	[/usr/libexec/softether/vpnserver/vpnserver]=softether-vpnserver
	[vpncmd]=softether-vpncmd
	[promtool]=prometheus
)
declare -A generate=(
	[clang]=clang
	[llvm-strip]=llvm
	[/usr/include/bpf/bpf_helpers.h]=libbpf-dev
	[/usr/include/linux/bpf.h]=linux-libc-dev
)

present() {
	case $1 in
	/*) [ -e "$1" ] ;;
	*) PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null ;;
	esac
}

missing=()
for purpose in "$@"; do
	case $purpose in
	test | generate) declare -n wanted=$purpose ;;
	*) echo "usage: test/setup.sh [test] [generate]" >&2; exit 2 ;;
	esac
	for thing in "${!wanted[@]}"; do
		present "$thing" || missing+=("${wanted[$thing]}")
	done
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	echo "missing: ${missing[*]}. On Debian, as root: apt-get install ${missing[*]}" >&2
	exit 1
fi
echo "installing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
get() { apt-get -q -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "${missing[@]}" >"$log" 2>&1; }
log=$(mktemp)
made=()
trap 'rm -f "$log" "${made[@]}"' EXIT
# Tests run servers by themselves: nothing is to serve anybody because it was installed, now or at the next boot.
policy=/usr/sbin/policy-rc.d
[ -e $policy ] || { made+=($policy); install -m 755 /dev/stdin $policy <<<$'#!/bin/sh\nexit 101'; }
get || { apt-get -q -o DPkg::Lock::Timeout=120 update >"$log" 2>&1 && get; } || { cat "$log" >&2; exit 1; }
for package in "${missing[@]}"; do
	case $package in
	softether-vpnserver | prometheus) update-rc.d $package disable ;;
	esac
done
