package traffic

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/tests/netspace"
)

const flows = 100

var (
	senderAddr   = netip.MustParseAddrPort("10.81.0.10:6000")
	gatewayAddr  = netip.MustParseAddrPort("10.81.0.2:20000")
	leavingAddr  = netip.MustParseAddrPort("10.82.0.2:30000")
	receiverAddr = netip.MustParseAddrPort("10.82.0.10:8000")
)

// cable is a veth pair between two namespaces; GRO makes both ends take frames of XDP.
func cable(t *testing.T, a *netspace.Space, aName string, b *netspace.Space, bName string) {
	t.Helper()
	a.IP(t, fmt.Sprintf("link add %s type veth peer name %s netns %s", aName, bName, b.Path))
	a.Run(t, "ethtool", "-K "+aName+" gro on")
	b.Run(t, "ethtool", "-K "+bName+" gro on")
	a.IP(t, "link set "+aName+" up")
	b.IP(t, "link set "+bName+" up")
}

func mac(t *testing.T, s *netspace.Space, device string) (addr net.HardwareAddr) {
	t.Helper()
	s.Do(func() {
		ifi, err := net.InterfaceByName(device)
		if err != nil {
			t.Error(err)
			return
		}
		addr = ifi.HardwareAddr
	})
	return addr
}

// direct is a sender and a receiver at the ends of one cable.
func direct(t *testing.T) (snd *Sender, rcv *Receiver, from *netspace.Space) {
	t.Helper()
	from, to := netspace.New(t), netspace.New(t)
	cable(t, from, "tdmsnd", to, "tdmrcv")
	rcv, err := NewReceiver(to.Path, "tdmrcv", flows, gatewayAddr.Port())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, rcv.Close) })
	snd, err = NewSender(from.Path, "tdmsnd", Stream{
		Flows: flows, Source: senderAddr, Dest: gatewayAddr, Gateway: mac(t, to, "tdmrcv"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, snd.Close) })
	return snd, rcv, from
}

func closed(t *testing.T, c func() error) {
	t.Helper()
	if err := c(); err != nil {
		t.Error(err)
	}
}

func settle(t *testing.T, r *Receiver, n uint64) Counts {
	t.Helper()
	c, err := r.Settle(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestEveryPacketIsCounted: what is sent arrives, once, in the order of its flow, and no
// faster than it was to be sent.
func TestEveryPacketIsCounted(t *testing.T) {
	snd, rcv, _ := direct(t)
	const n, rate = 10050, 50000 // half of the flows have one packet more
	begun := time.Now()
	if err := snd.Send(t.Context(), n, rate); err != nil {
		t.Fatal(err)
	}
	if took, least := time.Since(begun), n*time.Second/rate; took < least-2*tick {
		t.Errorf("%d packets took %v: that is faster than %d a second", n, took, rate)
	}
	if got := settle(t, rcv, n); got != (Counts{Packets: n}) {
		t.Errorf("%d sent: %+v", n, got)
	}
	more, err := snd.Flood(t.Context(), 20*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := settle(t, rcv, n+uint64(more)), (Counts{Packets: n + uint64(more)}); got != want {
		t.Errorf("after a flood of %d: %+v", more, got)
	}
}

// TestLossIsSeen: packets that are lost on the way show as skipped once the flows go on.
func TestLossIsSeen(t *testing.T) {
	snd, rcv, from := direct(t)
	send := func(n int) {
		t.Helper()
		if err := snd.Send(t.Context(), n, 100_000); err != nil {
			t.Fatal(err)
		}
	}
	send(2 * flows)
	from.IP(t, "link set tdmsnd down")
	send(3 * flows)
	from.IP(t, "link set tdmsnd up")
	send(flows)
	if got, want := settle(t, rcv, 3*flows), (Counts{Packets: 3 * flows, Skipped: 3 * flows}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestWrongPortIsSeen: a receiver that expects other ports says so of each packet.
func TestWrongPortIsSeen(t *testing.T) {
	from, to := netspace.New(t), netspace.New(t)
	cable(t, from, "tdmsnd", to, "tdmrcv")
	rcv, err := NewReceiver(to.Path, "tdmrcv", flows, gatewayAddr.Port()+2)
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, rcv.Close)
	snd, err := NewSender(from.Path, "tdmsnd", Stream{Flows: flows, Source: senderAddr, Dest: gatewayAddr, Gateway: mac(t, to, "tdmrcv")})
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, snd.Close)
	if err := snd.Send(t.Context(), flows, 100_000); err != nil {
		t.Fatal(err)
	}
	if got, want := settle(t, rcv, flows), (Counts{Packets: flows, Wrong: flows}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestLatencyIsPlausible: each probe is timed, by a time above nothing and below the test's.
func TestLatencyIsPlausible(t *testing.T) {
	snd, rcv, _ := direct(t)
	const n = 2000
	begun := time.Now()
	if err := snd.Probe(t.Context(), n, 20*time.Microsecond); err != nil {
		t.Fatal(err)
	}
	settle(t, rcv, n)
	took := time.Since(begun)
	if took < n*20*time.Microsecond {
		t.Errorf("%d probes 20 µs apart took %v", n, took)
	}
	h, err := rcv.Latency()
	if err != nil {
		t.Fatal(err)
	}
	if h.Count() != n {
		t.Errorf("%d probes were timed, not %d", h.Count(), n)
	}
	if low, high := h.Quantile(0), h.Quantile(1); low < 100*time.Nanosecond || high > took {
		t.Errorf("probes took %v to %v", low, high)
	}
}

// TestForwarder: packets come out of the floor for the address and port that the flow says,
// with checksums that a socket of the kernel accepts.
func TestForwarder(t *testing.T) {
	from, via, to := netspace.New(t), netspace.New(t), netspace.New(t)
	cable(t, from, "tdmsnd", via, "tdmin")
	cable(t, via, "tdmout", to, "tdmrcv")
	var list []call.Flow
	for i := range uint16(flows) {
		list = append(list, call.Flow{
			Key:    call.FlowKey{Realm: 1, Local: netip.AddrPortFrom(gatewayAddr.Addr(), gatewayAddr.Port()+2*i)},
			Source: netip.AddrPortFrom(leavingAddr.Addr(), leavingAddr.Port()+2*i),
			Dest:   netip.AddrPortFrom(receiverAddr.Addr(), receiverAddr.Port()+2*i),
		})
	}
	fwd, err := NewForwarder(via.Path, "tdmin", "tdmout", mac(t, to, "tdmrcv"), list)
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, fwd.Close)
	snd, err := NewSender(from.Path, "tdmsnd", Stream{Flows: flows, Source: senderAddr, Dest: gatewayAddr, Gateway: mac(t, via, "tdmin")})
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, snd.Close)

	to.IP(t, "addr add "+receiverAddr.Addr().String()+"/24 dev tdmrcv")
	var conn *net.UDPConn
	to.Do(func() {
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(receiverAddr.Addr(), receiverAddr.Port()+2*41)))
	})
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, conn.Close)
	if err := snd.Send(t.Context(), flows, 100_000); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, source, err := conn.ReadFromUDPAddrPort(make([]byte, 2048))
	if err != nil {
		t.Fatal(err)
	}
	if want := netip.AddrPortFrom(leavingAddr.Addr(), leavingAddr.Port()+2*41); n != 12+defaultPayload || source != want {
		t.Errorf("%d bytes from %v, want %d from %v", n, source, 12+defaultPayload, want)
	}

	rcv, err := NewReceiver(to.Path, "tdmrcv", flows, receiverAddr.Port())
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, rcv.Close)
	if err := snd.Send(t.Context(), 10*flows, 100_000); err != nil {
		t.Fatal(err)
	}
	// The first pass went to the socket.
	if got, want := settle(t, rcv, 10*flows), (Counts{Packets: 10 * flows, Skipped: flows}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestHistogram: buckets follow each other without a hole, and a quantile is exact to a bucket.
func TestHistogram(t *testing.T) {
	for i := 1; i < (32-fine+1)<<fine; i++ {
		width := lower(i+1) - lower(i)
		if width < 1 || float64(width) > math.Max(1, float64(lower(i))/(1<<fine)) {
			t.Fatalf("bucket %d goes from %d ns to %d ns", i, lower(i), lower(i+1))
		}
	}
	h := Histogram{counts: make([]uint64, (32-fine+1)<<fine)}
	for i := range h.counts {
		if at := lower(i); at >= 1000 && at < 2000 {
			h.counts[i] = 10
		}
	}
	if got := h.Quantile(0.5); got < 1480 || got > 1520 {
		t.Errorf("the middle of 1000 to 2000 is %d", got)
	}
	if got := h.Sub(h); got.Count() != 0 || got.Quantile(0.99) != 0 {
		t.Errorf("nothing has %d times, and a quantile of %v", got.Count(), got.Quantile(0.99))
	}
}

// TestStrideMeetsEveryFlow: one packet of each flow a pass, whatever their number.
func TestStrideMeetsEveryFlow(t *testing.T) {
	for _, n := range []int{1, 2, 3, 100, 1000, 16384, MaxFlows} {
		seen := make([]bool, n)
		for i, at := 0, 0; i < n; i, at = i+1, (at+stride(n))%n {
			if seen[at] {
				t.Fatalf("%d flows, stride %d: flow %d comes twice", n, stride(n), at)
			}
			seen[at] = true
		}
	}
}
