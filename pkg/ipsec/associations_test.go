package ipsec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// association is one of tunnel 1 that has counted.
func association(spi uint32, out bool, added, packets uint64) state {
	s := state{
		id: stateID{outerGateway.Addr(), spi, unix.IPPROTO_ESP}, src: outerCarrier.Addr(), ifID: 1,
		added: added, packets: packets, bytes: 100 * packets,
	}
	if out {
		s.id.dst, s.src = s.src, s.id.dst
	}
	return s
}

// I7: the sums of a tunnel go on over all associations that come and go.
func TestAssociationsAddUp(t *testing.T) {
	a := newAssociations("", []Tunnel{{IfID: 1, Config: Config{Local: outerGateway}}, {IfID: 2, Config: Config{Local: outerGateway}}})
	expect := func(what string, in, out uint64) {
		t.Helper()
		if sum := a.sums[1]; sum.In.Packets != in || sum.In.Bytes != 100*in || sum.Out.Packets != out || sum.Out.Bytes != 100*out {
			t.Errorf("%s: in %+v, out %+v; want %d and %d packets", what, sum.In, sum.Out, in, out)
		}
	}
	a.known[association(1, false, 10, 1000).id] = counted{state: association(1, false, 10, 1000)}
	a.add(association(1, false, 10, 1010))
	expect("one that was there at the start", 10, 0)
	a.add(association(2, false, 20, 5))
	a.add(association(3, true, 20, 7))
	expect("a new pair", 15, 7)
	a.end(association(1, false, 10, 1011))
	expect("what the old one had counted at its end", 16, 7)
	a.end(association(4, true, 21, 3))
	expect("one that came and went between two readings", 16, 10)
	a.add(association(2, false, 30, 2))
	expect("an SPI that is used again later", 18, 10)
	a.add(association(2, false, 30, 1))
	expect("an SPI that is used again in the same second", 19, 10)
	lost := association(3, true, 20, 9)
	a.add(lost)
	a.sweep(map[stateID]bool{association(2, false, 30, 1).id: true})
	a.end(association(3, true, 20, 12))
	expect("one that left the list before its event came", 19, 15)
	a.sweep(nil)
	a.sweep(nil)
	if len(a.known) != 0 {
		t.Errorf("%d are known that are gone without an event", len(a.known))
	}
	ahead := association(5, false, 40, 1)
	ahead.dir = dirOut
	a.add(ahead)
	expect("where the kernel knows the direction", 19, 16)
	acquire := association(0, true, 50, 1)
	other := association(6, false, 50, 4)
	other.ifID = 77
	a.add(acquire)
	a.add(other)
	expect("an acquire and somebody else's", 19, 16)
	bad := association(7, false, 60, 0)
	bad.replayed, bad.late, bad.broken = 1, 2, 1<<32-1
	a.add(bad)
	bad.broken = 1 // the kernel's counters have 32 bits
	a.add(bad)
	if e := a.sums[1].Errors; e[errorReplay] != 1 || e[errorReplayWindow] != 2 || e[errorIntegrity] != 1<<32+1 {
		t.Errorf("errors %v", e)
	}
	if sum := a.sums[2]; sum.In.Packets+sum.Out.Packets != 0 || len(sum.Errors) != 0 {
		t.Errorf("the other tunnel counted %+v", sum)
	}
}

// I7: replayed, forged and stray packets, each by its kind, and each once.
func TestAssociationsCountErrors(t *testing.T) {
	l := newLab(t)
	l.apply(t, l.gateway, l.far)
	l.activate(t)
	counts := newAssociations(l.outer.Path, []Tunnel{l.gateway.tunnel})
	defer counts.close()
	if _, err := counts.read(); err != nil {
		t.Fatal(err)
	}
	wire := sniff(t, l)
	back := streamTo(t, l.carrier, l.home, them, us, "", testVRF)
	back.send(t)
	back.arrive(t, "from the carrier")
	packet := wire.next(t)

	wire.inject(t, packet) // replayed
	wire.inject(t, packet)
	forged := append([]byte{}, packet...)
	binary.BigEndian.PutUint32(forged[24:], binary.BigEndian.Uint32(forged[24:])+9)
	wire.inject(t, forged) // another sequence number than was signed
	stray := append([]byte{}, packet...)
	binary.BigEndian.PutUint32(stray[20:], 0x7777)
	for range 3 {
		wire.inject(t, stray) // of no association
	}
	var got map[uint32]traffic
	want := map[string]uint64{errorReplay: 2, errorIntegrity: 1}
	if !eventually(3*time.Second, func() bool {
		var err error
		if got, err = counts.read(); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(got[1].Errors) == fmt.Sprint(want) && fmt.Sprint(got[wholeNamespace].Errors) == "map[no_state:3]"
	}) {
		t.Errorf("errors %v of the tunnel, %v of none; want %v and 3 of no_state", got[1].Errors, got[wholeNamespace].Errors, want)
	}
	if got[1].In.Packets != 1 || back.received() != 1 {
		t.Errorf("%d packets counted, %d arrived; want the one that was sent", got[1].In.Packets, back.received())
	}
}

// I5: with another key than the peer's nothing passes, and the counter says why.
func TestAssociationsCountWrongKeys(t *testing.T) {
	l := newLab(t)
	l.write(t, "carrier.out", "0x1001 "+key("8"))
	l.apply(t, l.gateway, l.far)
	l.activate(t)
	counts := newAssociations(l.outer.Path, []Tunnel{l.gateway.tunnel})
	defer counts.close()
	if _, err := counts.read(); err != nil {
		t.Fatal(err)
	}
	back := streamTo(t, l.carrier, l.home, them, us, "", testVRF)
	for range 7 {
		back.send(t)
	}
	var got map[uint32]traffic
	if !eventually(3*time.Second, func() bool {
		var err error
		if got, err = counts.read(); err != nil {
			t.Fatal(err)
		}
		return got[1].Errors[errorIntegrity] == 7
	}) || back.received() != 0 || got[1].In.Packets != 0 || len(got[wholeNamespace].Errors) != 0 {
		t.Errorf("%+v, %d arrived; want 7 integrity failures and nothing else", got, back.received())
	}
}

// N4, N9: the namespace is made again, and its path names another: sums go on from there. While it
// is missing they stay.
func TestAssociationsFollowTheNamespace(t *testing.T) {
	l := newLab(t)
	path := filepath.Join(l.dir, "netns")
	link := func(target string) {
		t.Helper()
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
	}
	counts := newAssociations(path, []Tunnel{l.gateway.tunnel})
	defer counts.close()
	if got, err := counts.read(); err == nil || len(got) != 2 {
		t.Errorf("no namespace: error %v, %d sums", err, len(got))
	}
	l.apply(t, l.gateway, l.far)
	l.activate(t)
	out := streamTo(t, l.home, l.carrier, us, them, testVRF, "")
	back := streamTo(t, l.carrier, l.home, them, us, "", testVRF)
	round := func() {
		t.Helper()
		for range 5 {
			out.send(t)
			back.send(t)
		}
		out.arrive(t, "to the carrier")
		back.arrive(t, "from the carrier")
	}
	expect := func(what string, in, out uint64) {
		t.Helper()
		got, err := counts.read()
		if sum := got[1]; err != nil || sum.In.Packets != in || sum.Out.Packets != out {
			t.Errorf("%s: %+v, error %v; want %d in and %d out", what, sum, err, in, out)
		}
	}
	round()
	link(l.outer.Path)
	expect("what was there before the first reading", 0, 0)
	round()
	expect("five each way", 5, 5)
	// The carrier's namespace in its place: its associations are new ones for the tunnel.
	link(l.carrier.Path)
	expect("another namespace with 10 each way", 15, 15)
	link("/nowhere")
	if got, err := counts.read(); err == nil || got[1].In.Packets != 15 {
		t.Errorf("the namespace is gone: %+v, error %v", got[1], err)
	}
}

// Ten thousand associations cost a reading some milliseconds of ours.
func TestAssociationsOfTenThousand(t *testing.T) {
	const many = 10_000
	a := newAssociations("", []Tunnel{{IfID: 1, Config: Config{Local: outerGateway}}})
	messages := make([][]byte, many)
	for i := range messages {
		messages[i] = newAssociation(uint32(0x10000 + i))
	}
	begun := time.Now()
	seen := make(map[stateID]bool)
	for _, message := range messages {
		s, err := parseState(message, nil)
		if err != nil {
			t.Fatal(err)
		}
		s.packets = 3
		seen[s.id] = true
		a.add(s)
	}
	a.sweep(seen)
	took := time.Since(begun)
	t.Logf("%v", took)
	if len(a.known) != many || a.sums[1].In.Packets != 3*many {
		t.Errorf("%d are known, with %d packets", len(a.known), a.sums[1].In.Packets)
	}
	if took > time.Second {
		t.Errorf("%d associations took %v", many, took)
	}
}

// A list of the kernel's that takes many messages is read whole, and what is gone is forgotten.
func TestAssociationsOfALongList(t *testing.T) {
	l := newLab(t)
	const many = 2000
	var fd int
	var err error
	l.outer.Do(func() { fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_XFRM) })
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	// Many in one message, and no acknowledgements: one by one takes long under emulation.
	for i := 0; i < many; {
		var batch []byte
		for range 100 {
			batch = append(batch, request(nl.XFRM_MSG_NEWSA, newAssociation(uint32(0x10000+i)))...)
			i++
		}
		if err := unix.Sendto(fd, batch, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			t.Fatal(err)
		}
	}
	counts := newAssociations(l.outer.Path, []Tunnel{l.gateway.tunnel})
	defer counts.close()
	if _, err := counts.read(); err != nil || len(counts.known) != many {
		t.Fatalf("%d of %d associations, error %v", len(counts.known), many, err)
	}
	begun := time.Now()
	if _, err := counts.read(); err != nil {
		t.Fatal(err)
	}
	t.Logf("one reading of %d associations took %v", many, time.Since(begun))
	l.outer.IP(t, "xfrm state flush")
	for range 2 {
		if _, err := counts.read(); err != nil {
			t.Fatal(err)
		}
	}
	if len(counts.known) != 0 {
		t.Errorf("%d are known after all were deleted", len(counts.known))
	}
}

// newAssociation is what XFRM_MSG_NEWSA takes for an inbound association of tunnel 1.
func newAssociation(spi uint32) []byte {
	// With one reqid all would be in one bucket of the kernel's table.
	info := nl.XfrmUsersaInfo{Family: unix.AF_INET, Mode: uint8(netlink.XFRM_MODE_TUNNEL), Reqid: spi}
	copy(info.Id.Daddr[:], outerGateway.Addr().AsSlice())
	copy(info.Saddr[:], outerCarrier.Addr().AsSlice())
	info.Id.Spi, info.Id.Proto = nl.Swap32(spi), unix.IPPROTO_ESP
	info.Lft = nl.XfrmLifetimeCfg{SoftByteLimit: nl.XFRM_INF, HardByteLimit: nl.XFRM_INF, SoftPacketLimit: nl.XFRM_INF, HardPacketLimit: nl.XFRM_INF}
	cipher := make([]byte, nl.SizeofXfrmAlgo)
	copy(cipher, "ecb(cipher_null)")
	return bytes.Join([][]byte{info.Serialize(), attribute(nl.XFRMA_ALG_CRYPT, cipher), attribute(nl.XFRMA_IF_ID, number(1))}, nil)
}

// request is a netlink message that makes something.
func request(kind uint16, data []byte) []byte {
	b := event(kind, data)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	return b
}

// wire sees the ESP packets that come from the carrier, and adds some.
type wire struct {
	in, out int
}

// sniff begins to look.
func sniff(t *testing.T, l *lab) *wire {
	t.Helper()
	w := &wire{-1, -1}
	var err, failed error
	l.outer.Do(func() {
		w.in, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, int(networkOrder(unix.ETH_P_IP)))
	})
	l.carrier.Do(func() { w.out, failed = unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW) })
	if err := errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(w.in)
		unix.Close(w.out)
	})
	return w
}

// next is the next ESP packet, from its IP header on.
func (w *wire) next(t *testing.T) []byte {
	t.Helper()
	b := make([]byte, 2048)
	var packet []byte
	if !eventually(3*time.Second, func() bool {
		n, _, err := unix.Recvfrom(w.in, b, 0)
		if err == nil && n > 28 && b[9] == unix.IPPROTO_ESP {
			packet = b[:n]
		}
		return packet != nil
	}) {
		t.Fatal("no ESP packet on the wire")
	}
	return packet
}

func (w *wire) inject(t *testing.T, packet []byte) {
	t.Helper()
	if err := unix.Sendto(w.out, packet, 0, &unix.SockaddrInet4{Addr: outerGateway.Addr().As4()}); err != nil {
		t.Fatal(err)
	}
}
