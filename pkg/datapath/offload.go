package datapath

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From linux/ethtool.h.
const (
	ethtoolGetFlags = 0x25
	ethtoolSetFlags = 0x26
	flagRxVLAN      = 1 << 8
)

// ethtoolValue is struct ethtool_value.
type ethtoolValue struct {
	cmd, data uint32
}

// ifreqData is struct ifreq with a pointer.
type ifreqData struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [16]byte // the union is larger than a pointer
}

// disableVLANReceiveOffload makes a device leave VLAN tags in the frame. restore undoes
// it; it is nil if they were left there already.
func disableVLANReceiveOffload(name string) (restore func() error, err error) {
	// The socket is kept for restore: it stays in the network namespace of the device, wherever
	// restore is called from.
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open a control socket: %w", err)
	}
	defer func() {
		if restore == nil {
			unix.Close(fd)
		}
	}()
	flags := ethtoolValue{cmd: ethtoolGetFlags}
	if err := ethtool(fd, name, &flags); err != nil {
		return nil, fmt.Errorf("read the offload flags: %w", err)
	}
	if flags.data&flagRxVLAN == 0 {
		return nil, nil
	}
	off := ethtoolValue{cmd: ethtoolSetFlags, data: flags.data &^ flagRxVLAN}
	if err := ethtool(fd, name, &off); err != nil {
		return nil, fmt.Errorf("clear rxvlan: %w", err)
	}
	return func() error {
		defer unix.Close(fd)
		return ethtool(fd, name, &ethtoolValue{cmd: ethtoolSetFlags, data: flags.data})
	}, nil
}

func ethtool(fd int, name string, value *ethtoolValue) error {
	req := ifreqData{data: unsafe.Pointer(value)}
	copy(req.name[:len(req.name)-1], name)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req)))
	runtime.KeepAlive(value)
	if errno != 0 {
		return errno
	}
	return nil
}
