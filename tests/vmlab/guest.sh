#!/bin/sh
# First process of the guest once the root is there: mounts what a host has, runs the
# command with its output on channels of its own, and tells the exit code.
PATH=/run/busybox
cd /
# What udev makes elsewhere.
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
mkdir -p /run/netns /run/lock
hostname vmlab
echo '127.0.0.1 localhost vmlab' >/etc/hosts
ip link set lo up
ulimit -n 1048576
# Nothing that a test needs is missing here: what would be skipped elsewhere fails.
export TANDEM_MACHINE=1
# Before 6.5 all packets wait for ksoftirqd once it runs, and it waits for a processor like any
# program: on two emulated ones more than half of a test's packets were lost.
for p in $(/usr/bin/pgrep ksoftirqd); do /usr/bin/chrt -f -p 1 "$p"; done

# Tag and path of each shared folder.
while read -r tag path; do
	mkdir -p "$path"
	mount -t 9p -o trans=virtio,version=9p2000.L,msize=500000,cache=mmap "$tag" "$path" || echo "vmlab: cannot mount $path"
done </run/vmlab/shares

# port NAME is the virtio port of a channel; they turn up one by one.
port() {
	while :; do
		for p in /sys/class/virtio-ports/*; do
			if [ -e "$p/name" ] && [ "$(cat "$p/name")" = "$1" ] && [ -e "/dev/${p##*/}" ]; then
				echo "${p##*/}"
				return
			fi
		done
		sleep 0.05
	done
}
# sent PORT is the number of bytes that were written to it.
sent() { sed -n 's/^bytes_sent: //p' "/sys/kernel/debug/virtio-ports/$1"; }

out_port=$(port out)
err_port=$(port err)
exec 9>"/dev/$(port status)"

# A port can be opened only once, and a command may open its output again (/dev/stderr):
# pipes are between them.
mkdir /run/pipes
out=/run/pipes/out
err=/run/pipes/err
mkfifo "$out" "$err"
cat <"$out" >"/dev/$out_port" 9>&- &
carriers=$!
if [ -e /run/vmlab/merge ]; then
	err=$out
else
	cat <"$err" >"/dev/$err_port" 9>&- &
	carriers="$carriers $!"
fi

echo running >&9
setsid /bin/sh /run/vmlab/command </dev/null >"$out" 2>"$err" 9>&-
code=$?

# What still holds the pipes, a daemon left behind, gets two seconds.
(sleep 2; kill $carriers 2>/dev/null) 9>&- &
wait $carriers
sync
# A write to a port does not wait for the host: it is told what to wait for.
echo "exit $code $(sent "$out_port") $(sent "$err_port")" >&9
# The host ends the machine now.
while :; do sleep 3600; done
