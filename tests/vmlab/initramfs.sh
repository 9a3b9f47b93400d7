#!/bin/sh
# First process of the guest: loads the modules in the order of their names, puts a
# writable layer over the read-only root, and goes on with guest.sh there.
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
# Here and not later: mounting bpffs looks for a module, which takes a second once there
# is a modprobe.
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tracefs tracefs /sys/kernel/tracing
mount -t debugfs debugfs /sys/kernel/debug
for m in /modules/*; do insmod "$m" || echo "vmlab: $m does not load"; done

plan9() { mount -t 9p -o "trans=virtio,version=9p2000.L,msize=500000,$3" "$1" "$2" || echo "vmlab: cannot mount $1"; }
plan9 root /lower ro,cache=loose
mount -t tmpfs tmpfs /upper
mkdir /upper/data /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work overlay /root
mount -t tmpfs tmpfs /root/run
# guest.sh uses these tools, which need no loading over 9p.
cp -a /bin /root/run/busybox
mkdir /root/run/vmlab
plan9 control /root/run/vmlab ro
mount --move /dev /root/dev
mount --move /proc /root/proc
mount --move /sys /root/sys
exec switch_root /root /run/busybox/sh /run/vmlab/guest.sh
