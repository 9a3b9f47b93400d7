package relay

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

func sockaddr(a netip.AddrPort) unix.RawSockaddrInet4 {
	s := unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: a.Addr().As4()}
	binary.BigEndian.PutUint16(portBytes(&s), a.Port())
	return s
}

func addrPort(s *unix.RawSockaddrInet4) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4(s.Addr), binary.BigEndian.Uint16(portBytes(s)))
}

// portBytes are in network order, whatever the type of the field says.
func portBytes(s *unix.RawSockaddrInet4) []byte { return (*[2]byte)(unsafe.Pointer(&s.Port))[:] }
