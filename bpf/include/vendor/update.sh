#!/bin/sh
# Fetches the kernel and libbpf headers that the programs in bpf/ are compiled with, at
# the versions pinned here, so that objects do not depend on the building host. The
# result must match SHA256SUMS; after a wanted change of version run with --record.
#
# Debian keeps every version ever published on snapshot.debian.org, should the mirror
# have moved on.
set -eu

linux=linux-libc-dev=6.1.192-2
libbpf=libbpf-dev=1:1.1.2-0+deb12u1

here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cd "$work"
apt-get download "$linux" "$libbpf"
for deb in ./*.deb; do
	dpkg-deb -x "$deb" root
done

cd "$here"
rm -rf linux asm asm-generic bpf
mkdir linux asm asm-generic bpf
inc=$work/root/usr/include
for f in bpf bpf_common types posix_types stddef; do
	cp "$inc/linux/$f.h" linux/
done
# The generic forms serve every little-endian 64-bit host: BPF has one ABI.
for f in types int-ll64 bitsperlong posix_types; do
	cp "$inc/asm-generic/$f.h" asm-generic/
done
for f in types bitsperlong posix_types; do
	echo "#include <asm-generic/$f.h>" >asm/$f.h
done
for f in bpf_helpers bpf_helper_defs bpf_endian; do
	cp "$inc/bpf/$f.h" bpf/
done

if [ "${1:-}" = --record ]; then
	find linux asm asm-generic bpf -name '*.h' | LC_ALL=C sort | xargs sha256sum >SHA256SUMS
fi
sha256sum --quiet -c SHA256SUMS
