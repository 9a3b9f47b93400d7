package ipsec

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// echo is a pair of sockets bound to one device.
type echo struct {
	out            int
	in             *os.File
	id             uint16
	source, target netip.Addr
}

// openEcho opens them. Replies come by a packet socket, before the routing tables are asked:
// rp_filter drops what comes in by another device than the route to its source.
func openEcho(device string, id uint16, source, target netip.Addr) (*echo, error) {
	link, err := net.InterfaceByName(device)
	if err != nil {
		return nil, fmt.Errorf("device %s: %w", device, err)
	}
	in, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	e := &echo{out: -1, in: os.NewFile(uintptr(in), "echo replies of "+device), id: id, source: source, target: target}
	if err := e.bind(in, link.Index, device); err != nil {
		e.close()
		return nil, err
	}
	return e, nil
}

func (e *echo) bind(in, ifindex int, device string) error {
	filter := replyFilter(e.id, e.source, e.target)
	// The filter first: without a protocol the socket receives nothing yet.
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.SetsockoptSockFprog(in, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program); err != nil {
		return fmt.Errorf("filter of echo replies: %w", err)
	}
	if err := unix.Bind(in, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_IP), Ifindex: ifindex}); err != nil {
		return fmt.Errorf("packet socket on %s: %w", device, err)
	}
	var err error
	if e.out, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW); err != nil {
		return fmt.Errorf("raw socket: %w", err)
	}
	if err := unix.SetsockoptString(e.out, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, device); err != nil {
		return fmt.Errorf("raw socket on %s: %w", device, err)
	}
	return nil
}

func networkOrder(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

func (e *echo) close() {
	e.in.Close()
	if e.out >= 0 {
		unix.Close(e.out)
	}
}

// interrupt ends a wait for replies.
func (e *echo) interrupt() { _ = e.in.SetReadDeadline(time.Unix(1, 0)) }

// byTheDevice is a link-local group that nobody joins (224.0.0.0/24, RFC 5771 section 4). Given as
// the destination of the socket's message it makes the kernel send by the socket's device
// without a look at the routes, which name the active tunnel alone; the packet itself has the
// target's address in its header.
var byTheDevice = [4]byte{224, 0, 0, 151}

// send sends one request.
func (e *echo) send(seq uint16) error {
	err := unix.Sendto(e.out, echoRequest(e.id, seq, e.source, e.target), 0, &unix.SockaddrInet4{Addr: byTheDevice})
	if err != nil {
		return fmt.Errorf("echo request: %w", err)
	}
	return nil
}

const (
	ipHeader, icmpHeader = 20, 8
	echoReplyType        = 0
	echoRequestType      = 8
	// maxReply bounds what is read of a reply, in bytes: requests have no data, IP options take 40.
	maxReply = 256
	// networkControl is CS6 in the DSCP's place (RFC 4594 section 3.1): full queues are no cut.
	networkControl = 48 << 2
)

// echoRequest is a request with its IPv4 header, whose checksum, length and identification
// the kernel fills in.
func echoRequest(id, seq uint16, source, target netip.Addr) []byte {
	b := make([]byte, ipHeader+icmpHeader)
	b[0], b[1], b[8], b[9] = 0x45, networkControl, 64, unix.IPPROTO_ICMP
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	copy(b[12:], source.AsSlice())
	copy(b[16:], target.AsSlice())
	icmp := b[ipHeader:]
	icmp[0] = echoRequestType
	binary.BigEndian.PutUint16(icmp[4:], id)
	binary.BigEndian.PutUint16(icmp[6:], seq)
	binary.BigEndian.PutUint16(icmp[2:], checksum(icmp))
	return b
}

// parseEchoReply reads an IPv4 packet that should be the target's answer, whole and in one piece.
func parseEchoReply(b []byte, id uint16, source, target netip.Addr) (seq uint16, ok bool) {
	if len(b) < ipHeader+icmpHeader || b[0]>>4 != 4 {
		return 0, false
	}
	header, length := 4*int(b[0]&0xf), int(binary.BigEndian.Uint16(b[2:]))
	if header < ipHeader || length < header+icmpHeader || length > len(b) {
		return 0, false
	}
	if fragment := binary.BigEndian.Uint16(b[6:])&0x3fff != 0; fragment || b[9] != unix.IPPROTO_ICMP {
		return 0, false
	}
	if netip.AddrFrom4([4]byte(b[12:16])) != target || netip.AddrFrom4([4]byte(b[16:20])) != source {
		return 0, false
	}
	icmp := b[header:length]
	if icmp[0] != echoReplyType || icmp[1] != 0 || checksum(icmp) != 0 || binary.BigEndian.Uint16(icmp[4:]) != id {
		return 0, false
	}
	return binary.BigEndian.Uint16(icmp[6:]), true
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// replyFilter lets through what may be a reply to us, so that other traffic of the tunnel does
// not wake us.
func replyFilter(id uint16, source, target netip.Addr) []unix.SockFilter {
	s, t := source.As4(), target.As4()
	checks := []struct {
		load  uint16
		at    uint32
		value uint32
	}{
		{unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, 9, unix.IPPROTO_ICMP},
		{unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, 12, binary.BigEndian.Uint32(t[:])},
		{unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, 16, binary.BigEndian.Uint32(s[:])},
		{unix.BPF_LD | unix.BPF_B | unix.BPF_IND, 0, echoReplyType},
		{unix.BPF_LD | unix.BPF_H | unix.BPF_IND, 4, uint32(id)},
	}
	program := []unix.SockFilter{{Code: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH}}
	for i, c := range checks {
		drop := uint8(2*(len(checks)-i) - 1)
		program = append(program, unix.SockFilter{Code: c.load, K: c.at},
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: drop, K: c.value})
	}
	return append(program, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: maxReply}, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K})
}
