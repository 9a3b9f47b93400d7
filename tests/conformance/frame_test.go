package conformance

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"
)

// datagram is a UDP packet as it is on the wire.
type datagram struct {
	src, dst netip.AddrPort
	// tos is DSCP and ECN (RFC 2474, RFC 3168).
	tos, ttl uint8
	// unsummed has 0 for its UDP checksum (RFC 768: none was made).
	unsummed bool
	payload  []byte
}

const firstTTL = 64

// frame is the datagram with its headers; gopacket makes the checksums.
func (d datagram) frame(src, dst net.HardwareAddr) ([]byte, error) {
	eth := &layers.Ethernet{SrcMAC: src, DstMAC: dst, EthernetType: layers.EthernetTypeIPv4}
	ip := &layers.IPv4{
		Version: 4, TTL: d.ttl, TOS: d.tos, Protocol: layers.IPProtocolUDP,
		SrcIP: d.src.Addr().AsSlice(), DstIP: d.dst.Addr().AsSlice(),
	}
	udp := &layers.UDP{SrcPort: layers.UDPPort(d.src.Port()), DstPort: layers.UDPPort(d.dst.Port())}
	if err := udp.SetNetworkLayerForChecksum(ip); err != nil {
		return nil, err
	}
	buf := gopacket.NewSerializeBuffer()
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, options, eth, ip, udp, gopacket.Payload(d.payload)); err != nil {
		return nil, err
	}
	frame := buf.Bytes()
	if d.unsummed {
		copy(frame[14+20+6:], []byte{0, 0})
	}
	return frame, nil
}

// read takes a frame apart; ok is false for what is not UDP over IPv4. A wrong checksum,
// length or a fragment is an error: no engine may send such.
func read(frame []byte) (d datagram, ok bool, err error) {
	packet := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	ip, isIP := packet.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
	udp, isUDP := packet.Layer(layers.LayerTypeUDP).(*layers.UDP)
	if !isIP || !isUDP {
		return datagram{}, false, nil
	}
	src, _ := netip.AddrFromSlice(ip.SrcIP)
	dst, _ := netip.AddrFromSlice(ip.DstIP)
	d = datagram{
		src: netip.AddrPortFrom(src, uint16(udp.SrcPort)),
		dst: netip.AddrPortFrom(dst, uint16(udp.DstPort)),
		tos: ip.TOS, ttl: ip.TTL, unsummed: udp.Checksum == 0,
		payload: bytes.Clone(udp.Payload),
	}
	made := gopacket.NewSerializeBuffer()
	again, againUDP := *ip, *udp
	if err := againUDP.SetNetworkLayerForChecksum(&again); err != nil {
		return d, true, err
	}
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(made, options, &again, &againUDP, gopacket.Payload(d.payload)); err != nil {
		return d, true, err
	}
	switch {
	case ip.Checksum != again.Checksum:
		return d, true, fmt.Errorf("IP checksum %#04x, want %#04x: %x", ip.Checksum, again.Checksum, frame)
	case udp.Checksum != 0 && udp.Checksum != againUDP.Checksum:
		return d, true, fmt.Errorf("UDP checksum %#04x, want %#04x: %x", udp.Checksum, againUDP.Checksum, frame)
	case ip.Length != again.Length || udp.Length != againUDP.Length:
		return d, true, fmt.Errorf("length %d of IP, %d of UDP, want %d, %d: %x", ip.Length, udp.Length, again.Length, againUDP.Length, frame)
	case ip.FragOffset != 0 || ip.Flags&layers.IPv4MoreFragments != 0:
		return d, true, fmt.Errorf("a fragment: %x", frame)
	}
	return d, true, nil
}

// tap is a packet socket on a peer's device: it sends frames as that peer, and anybody
// on its link, could, and sees what arrives.
type tap struct {
	fd       int
	own, far net.HardwareAddr
}

// tapBuffer holds what arrives between two looks, in bytes.
const tapBuffer = 16 << 20

func newTap(ifindex int, own, far net.HardwareAddr) (*tap, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	const pollInterval = 20 * time.Millisecond
	interval := unix.NsecToTimeval(pollInterval.Nanoseconds())
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, tapBuffer),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &interval),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_IP), Ifindex: ifindex}),
	)
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &tap{fd: fd, own: own, far: far}, nil
}

func networkOrder(v uint16) uint16 { return v<<8 | v>>8 }

func (t *tap) close() error { return unix.Close(t.fd) }

// send puts a datagram on the cable.
func (t *tap) send(d datagram) error {
	frame, err := d.frame(t.own, t.far)
	if err != nil {
		return err
	}
	_, err = unix.Write(t.fd, frame)
	return err
}

// discard forgets what has arrived.
func (t *tap) discard() error {
	for {
		switch _, _, err := unix.Recvfrom(t.fd, nil, unix.MSG_DONTWAIT|unix.MSG_TRUNC); {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return err
		}
	}
}

// receive returns the next UDP datagram that arrived; ok is false if none did for a while.
func (t *tap) receive() (d datagram, ok bool, err error) {
	buf := make([]byte, 4096)
	for {
		n, from, err := unix.Recvfrom(t.fd, buf, 0)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return datagram{}, false, nil
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return datagram{}, false, err
		}
		if ll, isLL := from.(*unix.SockaddrLinklayer); isLL && ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if d, ok, err := read(buf[:n]); ok || err != nil {
			return d, ok, err
		}
	}
}
