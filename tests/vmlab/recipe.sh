#!/bin/bash
# Makes what the virtual machines run, in the folder $1: qemu/ (QEMU with its libraries), root/
# (Debian with both kernels' modules) and for each kernel NAME: NAME.kernel and NAME.initrd.
# Any change to this file or to initramfs.sh makes every machine build a new folder.
set -euo pipefail
out=$1 init=$2

# Suite and packages of the root. In trixie strongSwan is 6.0, the oldest that has the
# settings which pkg/ipsec writes.
suite=trixie
packages=(
	systemd charon-systemd strongswan-swanctl strongswan-pki libstrongswan-standard-plugins
	iproute2 iputils-ping tcpdump nftables ethtool bpftool kmod procps
	sip-tester
)
# Kernels: the series and the package of bookworm that depends on its newest build.
kernel_suite=bookworm
kernels=(6.12=linux-image-6.12-amd64 6.1=linux-image-amd64)

# Loaded before the root is there.
boot_modules=(virtio_pci virtio_console virtio_rng 9p 9pnet_virtio overlay)
# Loaded before the command runs; the kernel loads all others when they are asked for,
# which takes longer, and does not happen at all for a feature that a test only looks for.
modules=(
	8021q vrf veth bridge tun
	xfrm_user xfrm_interface esp4 esp4_offload
	aesni_intel ghash_clmulni_intel ghash_generic gcm ccm ctr cbc seqiv echainiv authenc hmac sha256_generic
	sch_ingress cls_bpf act_bpf sch_netem nf_tables
)

if ldd "$(command -v busybox)" >/dev/null 2>&1; then
	echo "the busybox here needs libraries, which the first moments of a machine have not: install busybox-static" >&2
	exit 1
fi

# unpack VMLINUZ FILE: the kernel in a bzImage (boot.rst of the kernel's documentation:
# setup_sects, payload_offset, payload_length), which QEMU boots as it is. Behind the
# compressed data stand four bytes with its size.
unpack() {
	local sectors offset length
	read -r sectors < <(od -An -tu1 -j $((0x1f1)) -N 1 "$1")
	read -r offset length < <(od -An -tu4 -j $((0x248)) -N 8 "$1")
	dd if="$1" of="$2.payload" bs=1M iflag=skip_bytes,count_bytes skip=$(((sectors + 1) * 512 + offset)) count=$((length - 4)) status=none
	case $(od -An -tx1 -N 4 "$2.payload") in
	*28\ b5\ 2f\ fd*) zstd --quiet --decompress --stdout "$2.payload" >"$2" ;;
	*fd\ 37\ 7a\ 58*) xz -dc "$2.payload" >"$2" ;;
	*) cp "$1" "$2" ;; # the guest unpacks it itself, which takes longer
	esac
	rm "$2.payload"
}

echo "tandem vm: fetching $suite with strongSwan and the tools (about a minute)"
mmdebstrap --quiet --mode=root --variant=minbase --include="$(IFS=,; echo "${packages[*]}")" "$suite" "$out/root"

# Not the host's: before 8.1 QEMU's emulated processors now and then run code that another
# one of them is changing, and a kernel changes its own (jump labels) until it crashes of it.
echo "tandem vm: fetching QEMU"
mmdebstrap --quiet --mode=root --variant=extract --include=qemu-system-x86 "$suite" "$out/qemu"
rm -rf "$out"/qemu/{dev,etc,tmp,var}

echo "tandem vm: fetching the kernels"
mkdir "$out/debs"
# The suite's own index, not the host's: the host may be another release.
export out
export metapackages="${kernels[*]#*=}"
mmdebstrap --quiet --mode=root --variant=custom --format=null --customize-hook='
	cd "$out/debs"
	export APT_CONFIG=$MMDEBSTRAP_APT_CONFIG
	for meta in $metapackages; do
		apt-get -qq -o APT::Sandbox::User=root download "$(apt-cache depends "$meta" | sed -n "s/.*Depends: \(linux-image-.*\)/\1/p" | head -n 1)"
	done' "$kernel_suite" /dev/null
for deb in "$out"/debs/*.deb; do
	dpkg -x "$deb" "$out/debs/unpacked"
done

# Drivers of hardware that the machine does not have are most of the modules.
unused=(
	sound fs/{btrfs,xfs,ocfs2,gfs2,f2fs,jfs,nfs,nfsd,ceph,smb,ntfs3,reiserfs} net/{mac80211,bluetooth,wireless,can}
	drivers/{ata,firewire,gpu,hid,hwmon,i2c,iio,infiniband,input,isdn,md,media,message,mmc,mtd,nvme,platform}
	drivers/{scsi,staging,target,usb,video} drivers/net/{can,ethernet,usb,wireless,wwan}
)
for folder in "${unused[@]}"; do
	rm -rf "$out"/debs/unpacked/lib/modules/*/kernel/"$folder"
done
mkdir -p "$out/root/lib/modules"
cp -a "$out"/debs/unpacked/lib/modules/. "$out/root/lib/modules/"

for kernel in "${kernels[@]}"; do
	series=${kernel%%=*}
	version=$(basename "$(ls -d "$out/root/lib/modules/$series".*)")
	echo "tandem vm: kernel $version"
	depmod -b "$out/root" "$version"
	unpack "$out/debs/unpacked/boot/vmlinuz-$version" "$out/$series.kernel"

	tree=$out/initrd
	mkdir -p "$tree"/{bin,dev,proc,sys,modules,lower,upper,root}
	cp "$init" "$tree/init"
	chmod 755 "$tree/init"
	cp "$(command -v busybox)" "$tree/bin/busybox"
	for applet in $("$tree/bin/busybox" --list); do
		[ "$applet" = busybox ] || ln -s busybox "$tree/bin/$applet"
	done
	n=100
	while read -r file; do
		n=$((n + 1))
		name=$(basename "${file%.xz}")
		case $file in
		*.xz) xz -dc "$file" >"$tree/modules/$n-$name" ;;
		*) cp "$file" "$tree/modules/$n-$name" ;;
		esac
	done < <(for m in "${boot_modules[@]}" "${modules[@]}"; do
		modprobe -d "$out/root" -S "$version" --show-depends "$m" | sed -n 's/^insmod \([^ ]*\).*/\1/p'
	done | awk '!seen[$0]++')
	# Not compressed: the guest's processor is emulated, and slow at that.
	(cd "$tree" && find . | busybox cpio -o -H newc 2>/dev/null) >"$out/$series.initrd"
	rm -rf "$tree"
done
rm -rf "$out/debs"
