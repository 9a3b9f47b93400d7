#!/usr/bin/env bash
# Installs what a target needs and the machine lacks; says what, asks for nothing.
# Usage: tests/deps.sh GROUP...   groups: lab (demo, end-to-end tests, bench), test, vm, generate
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin # where Debian has nft and ethtool, and users do not look

missing=()
# need COMMAND PACKAGE: the package is wanted when the command is not there.
need() { command -v "$1" >/dev/null || missing+=("$2"); }

command -v go >/dev/null || { echo "Go 1.26 or newer is needed: https://go.dev/dl/" >&2; exit 1; }

for group in "$@"; do
	case $group in
	lab)
		need sipp sip-tester
		need ip iproute2
		# The yardstick of the bench.
		need nft nftables
		;;
	test)
		need ethtool ethtool
		# The race detector links with cgo.
		need gcc gcc
		[ -e /usr/include/stdlib.h ] || missing+=(libc6-dev)
		;;
	vm)
		need mmdebstrap mmdebstrap
		[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing+=(debian-archive-keyring)
		need depmod kmod
		need xz xz-utils
		need zstd zstd
		# The package busybox has one that needs libraries.
		{ command -v busybox && ! ldd "$(command -v busybox)"; } >/dev/null 2>&1 || missing+=(busybox-static)
		;;
	generate)
		# Pinned: another clang gives other objects, and the check compares bytes.
		need clang-16 clang-16
		need llvm-strip-16 llvm-16
		need clang-format-16 clang-format-16
		;;
	*)
		echo "tests/deps.sh: no group $group" >&2
		exit 2
		;;
	esac
done
[ ${#missing[@]} -gt 0 ] || exit 0

echo "installing: ${missing[*]}"
sudo=()
[ "$(id -u)" -eq 0 ] || sudo=(sudo)
if ! command -v apt-get >/dev/null; then
	echo "this is not Debian or Ubuntu: install the packages above by hand, then run this again" >&2
	exit 1
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() { "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"; }
# An old package list is the usual reason for a failure, so it is fetched then.
if ! install >"$log" 2>&1; then
	if ! { "${sudo[@]}" apt-get update -q && install; } >"$log" 2>&1; then
		tail -n 20 "$log" >&2
		echo "could not install: ${missing[*]}" >&2
		exit 1
	fi
fi
