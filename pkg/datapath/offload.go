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

// clearVLANReceiveOffload makes a device leave VLAN tags in the frame. remember is called
// before, if they were not left there already.
func (s *space) clearVLANReceiveOffload(name string, remember func() error) error {
	flags := ethtoolValue{cmd: ethtoolGetFlags}
	if err := ethtool(s.control, name, &flags); err != nil {
		return fmt.Errorf("read the offload flags: %w", err)
	}
	if flags.data&flagRxVLAN == 0 {
		return nil
	}
	if err := remember(); err != nil {
		return err
	}
	if err := ethtool(s.control, name, &ethtoolValue{cmd: ethtoolSetFlags, data: flags.data &^ flagRxVLAN}); err != nil {
		return fmt.Errorf("clear rxvlan: %w", err)
	}
	return nil
}

// setVLANReceiveOffload undoes it. A device that is gone is no error.
func (s *space) setVLANReceiveOffload(ifindex int) error {
	attrs, err := s.device(ifindex)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	flags := ethtoolValue{cmd: ethtoolGetFlags}
	if err = ethtool(s.control, attrs.Name, &flags); err == nil {
		err = ethtool(s.control, attrs.Name, &ethtoolValue{cmd: ethtoolSetFlags, data: flags.data | flagRxVLAN})
	}
	if err != nil && !gone(err) {
		return fmt.Errorf("%s: turn VLAN receive offload on again: %w", attrs.Name, err)
	}
	return nil
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
