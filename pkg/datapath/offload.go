package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From linux/ethtool.h.
const (
	ethtoolGetStrings  = 0x1b
	ethtoolGetFlags    = 0x25
	ethtoolSetFlags    = 0x26
	ethtoolGetCounts   = 0x37
	ethtoolGetFeatures = 0x3a
	ethtoolSetFeatures = 0x3b
	flagRxVLAN         = 1 << 8
	featureNames       = 4  // the set of strings
	nameLen            = 32 // of a string
)

// groFeatures make one packet of several of UDP that no socket here waits for, and what undo calls them.
var groFeatures = map[string]uint32{"rx-gro-list": undoGROList, "rx-udp-gro-forwarding": undoGROForwarding}

// ifreqData is struct ifreq with a pointer.
type ifreqData struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [16]byte // the union is larger than a pointer
}

// clearVLANReceiveOffload makes a device leave VLAN tags in the frame. remember is called
// before, if they were not left there already.
func (s *space) clearVLANReceiveOffload(name string, remember func() error) error {
	flags := []uint32{ethtoolGetFlags, 0}
	if err := ethtool(s.control, name, flags); err != nil {
		return fmt.Errorf("read the offload flags: %w", err)
	}
	if flags[1]&flagRxVLAN == 0 {
		return nil
	}
	if err := remember(); err != nil {
		return err
	}
	if err := ethtool(s.control, name, []uint32{ethtoolSetFlags, flags[1] &^ flagRxVLAN}); err != nil {
		return fmt.Errorf("clear rxvlan: %w", err)
	}
	return nil
}

// setOffloads turns on again what undo remembers. A device that is gone is no error.
func (s *space) setOffloads(ifindex int, done uint32) error {
	if done&undoOffloads == 0 {
		return nil
	}
	attrs, err := s.device(ifindex)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	if done&undoVLANOffload != 0 {
		errs = append(errs, s.setVLANReceiveOffload(attrs.Name))
	}
	if done&undoGRO != 0 {
		errs = append(errs, s.setGRO(attrs.Name, done&undoGRO, true))
	}
	if err := errors.Join(errs...); err != nil && !gone(err) {
		return fmt.Errorf("%s: %w", attrs.Name, err)
	}
	return nil
}

// setVLANReceiveOffload undoes it.
func (s *space) setVLANReceiveOffload(name string) error {
	flags := []uint32{ethtoolGetFlags, 0}
	err := ethtool(s.control, name, flags)
	if err == nil {
		err = ethtool(s.control, name, []uint32{ethtoolSetFlags, flags[1] | flagRxVLAN})
	}
	if err != nil {
		return fmt.Errorf("turn VLAN receive offload on again: %w", err)
	}
	return nil
}

// clearGRO makes a device leave packets of UDP as they are. remember is called before with what is on.
func (s *space) clearGRO(name string, remember func(on uint32) error) error {
	bits, err := s.groBits(name)
	if err != nil {
		return err
	}
	size := len(bits)
	features := make([]uint32, 2+4*size) // by 32: available, requested, active, never changed
	features[0], features[1] = ethtoolGetFeatures, uint32(size)
	if err := ethtool(s.control, name, features); err != nil {
		return fmt.Errorf("read the features: %w", err)
	}
	var on uint32
	for i, of := range bits {
		for bit, what := range of {
			if features[2+4*i+2]&bit != 0 {
				on |= what
			}
		}
	}
	if on == 0 {
		return nil
	}
	if err := remember(on); err != nil {
		return err
	}
	return s.setGRO(name, on, false)
}

// setGRO turns features on or off. One that the device does not let be changed stays.
func (s *space) setGRO(name string, which uint32, on bool) error {
	bits, err := s.groBits(name)
	if err != nil {
		return err
	}
	set := []uint32{ethtoolSetFeatures, uint32(len(bits))} // by 32: which, and those of them that shall be on
	for _, of := range bits {
		var valid, wanted uint32
		for bit, what := range of {
			if which&what != 0 {
				valid |= bit
			}
		}
		if on {
			wanted = valid
		}
		set = append(set, valid, wanted)
	}
	if err := ethtool(s.control, name, set); err != nil {
		return fmt.Errorf("set GRO of UDP: %w", err)
	}
	return nil
}

// groBits finds groFeatures among the features of devices, 32 an entry: kernels have them in different places.
func (s *space) groBits(name string) ([]map[uint32]uint32, error) {
	counts := []uint32{ethtoolGetCounts, 0, 1 << featureNames, 0, 0}
	if err := ethtool(s.control, name, counts); err != nil {
		return nil, fmt.Errorf("count the features: %w", err)
	}
	n := int(counts[4])
	names := make([]uint32, 3+n*nameLen/4)
	names[0], names[1] = ethtoolGetStrings, featureNames
	if err := ethtool(s.control, name, names); err != nil {
		return nil, fmt.Errorf("read the names of the features: %w", err)
	}
	bits := make([]map[uint32]uint32, (n+31)/32)
	for i := range n {
		if i%32 == 0 {
			bits[i/32] = map[uint32]uint32{}
		}
		if what, known := groFeatures[text(names[3+i*nameLen/4:][:nameLen/4])]; known {
			bits[i/32][1<<(i%32)] = what
		}
	}
	return bits, nil
}

// text is what words hold up to the first zero.
func text(words []uint32) string {
	var b []byte
	for _, w := range words {
		b = binary.NativeEndian.AppendUint32(b, w)
	}
	return unix.ByteSliceToString(b)
}

// ethtool asks for what the first word says. The answer is in the words.
func ethtool(fd int, name string, words []uint32) error {
	req := ifreqData{data: unsafe.Pointer(&words[0])}
	copy(req.name[:len(req.name)-1], name)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req)))
	runtime.KeepAlive(words)
	if errno != 0 {
		return errno
	}
	return nil
}
