package relay

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// quiver sends many packets by one system call, so that the relay finds them together.
type quiver struct {
	p        *peer
	to       unix.RawSockaddrInet4
	iovs     []unix.Iovec
	messages []mmsghdr
	write    func(fd uintptr) bool
}

func newQuiver(p *peer, to netip.AddrPort, packets [][]byte) *quiver {
	q := &quiver{p: p, to: sockaddr(to), iovs: make([]unix.Iovec, len(packets)), messages: make([]mmsghdr, len(packets))}
	for i, packet := range packets {
		q.iovs[i].Base = &packet[0]
		q.iovs[i].SetLen(len(packet))
		m := &q.messages[i]
		m.Name, m.Namelen = (*byte)(unsafe.Pointer(&q.to)), uint32(unsafe.Sizeof(q.to))
		m.Iov = &q.iovs[i]
		m.SetIovlen(1)
	}
	q.write = func(fd uintptr) bool {
		if n, errno := sendmmsg(fd, q.messages); n != len(q.messages) {
			p.t.Errorf("sent %d of %d: %v", n, len(q.messages), errno)
		}
		return true
	}
	return q
}

func (q *quiver) send() {
	raw, err := q.p.conn.SyscallConn()
	if err == nil {
		err = raw.Write(q.write)
	}
	if err != nil {
		q.p.t.Error(err)
	}
}

// TestBatch: what comes together, more than a batch of it and good and bad mixed, is
// judged packet by packet and keeps its order; each port's packets leave from that port.
func TestBatch(t *testing.T) {
	m := newMuxed(t)
	var packets [][]byte
	for seq := range uint16(3 * batchSize) {
		packets = append(packets, rtp(seq), []byte("no RTP"))
		if seq%batchSize == 7 {
			packets = append(packets, receiverReport())
		}
	}
	newQuiver(m.a, m.flows[0].Key.Local, packets).send()
	for seq := range uint16(3 * batchSize) {
		m.rtp.expect(rtp(seq))
	}
	for range 3 {
		if from, _ := m.rtcp.expect(receiverReport()); from != m.flows[1].Source {
			t.Errorf("RTCP leaves from %v, want %v", from, m.flows[1].Source)
		}
	}
	s := m.end(t)
	if s[0].Packets != 3*batchSize || s[0].OutOfPolicy != 3*batchSize || s[0].Lost+s[0].Reordered != 0 || s[1].Packets != 3 {
		t.Errorf("RTP %+v\nRTCP %+v", s[0], s[1])
	}
	for reason, want := range map[string]uint64{call.ExitForwarded: 3*batchSize + 3, call.ExitNotRTP: 3 * batchSize} {
		if n := exitCount(t, m.Engine, reason); n != want {
			t.Errorf("%s is %d, want %d", reason, n, want)
		}
	}
}

// TestSendFailure: a packet that cannot be sent costs no other one.
func TestSendFailure(t *testing.T) {
	p := newPair(t)
	b, good := newBatch(), p.sockets[p.flows[0].Key]
	way := func(dest netip.AddrPort) *path { return &path{out: good, dest: sockaddr(dest)} }
	broadcast := netip.MustParseAddrPort("255.255.255.255:9")
	b.received = 5
	for i, dest := range []netip.AddrPort{broadcast, p.b.addr(), broadcast, p.b.addr(), broadcast} {
		copy(b.slots[i].data[:], rtp(uint16(i)))
		b.leave(i, way(dest), len(rtp(0)), 0)
	}
	if failed := b.send(); failed != 3 {
		t.Errorf("%d failed, want 3", failed)
	}
	p.b.expect(rtp(1))
	p.b.expect(rtp(3))
}

// TestSendFailureIsCounted: media to a peer that names a broadcast address is not sent to
// everybody, and leaves by an exit of its own (M7).
func TestSendFailureIsCounted(t *testing.T) {
	p := newPair(t)
	p.flows[0].Dest = netip.MustParseAddrPort("255.255.255.255:9")
	if err := p.Install(p.flows[:1]); err != nil {
		t.Fatal(err)
	}
	newQuiver(p.a, p.in(), [][]byte{rtp(1), rtp(2)}).send()
	waitExitAbove(t, p.Engine, "send-failed", 1)
	if n := exitCount(t, p.Engine, call.ExitForwarded); n != 0 {
		t.Errorf("%d forwarded", n)
	}
}

// TestCongestionBits are the sender's and cross the relay; DSCP is ours (M3, RFC 3168).
func TestCongestionBits(t *testing.T) {
	p := newPair(t)
	raw, err := p.a.conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for ecn := range 4 {
		var optErr error
		if err := raw.Control(func(fd uintptr) {
			optErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TOS, 8<<2|ecn)
		}); err != nil || optErr != nil {
			t.Fatal(err, optErr)
		}
		p.a.send(p.in(), rtp(1))
		if _, tos := p.b.expectTOS(rtp(1)); tos != 46<<2|ecn {
			t.Errorf("TOS %#x, want %#x", tos, 46<<2|ecn)
		}
	}
}

// TestArrival: a packet's time is when it came, not when its reader had the CPU; a step of
// the system's clock is no gap (M11).
func TestArrival(t *testing.T) {
	now := time.Now()
	for name, tt := range map[string]struct {
		arrival int64
		want    time.Time
	}{
		"just now":            {now.UnixNano(), now},
		"waited":              {now.Add(-30 * time.Millisecond).UnixNano(), now.Add(-30 * time.Millisecond)},
		"not told":            {0, now},
		"clock set back":      {now.Add(time.Hour).UnixNano(), now},
		"clock set forward":   {now.Add(-time.Hour).UnixNano(), now},
		"beyond what can be":  {-1 << 63, now},
		"longest it can wait": {now.Add(-maxQueued).UnixNano(), now.Add(-maxQueued)},
	} {
		if got := arrivedAt(now, tt.arrival); got != tt.want {
			t.Errorf("%s: %v off", name, got.Sub(tt.want))
		}
	}
}

// TestArrivalOfQueued: packets that wait together keep their times apart (M11).
func TestArrivalOfQueued(t *testing.T) {
	const apart = 20 * time.Millisecond
	p := newPeer(t)
	conn, err := listen(loopback(freePort(t)), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	to := conn.LocalAddr().(interface{ AddrPort() netip.AddrPort }).AddrPort()
	tick := time.NewTicker(apart)
	defer tick.Stop()
	for seq := range uint16(3) {
		p.send(to, rtp(seq))
		<-tick.C
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	b := newBatch()
	if err := raw.Read(b.receive); err != nil || b.received != 3 {
		t.Fatalf("received %d, %v", b.received, err)
	}
	now := time.Now()
	var last time.Time
	for i := range b.received {
		got, _ := b.packet(i, now)
		if i > 0 && got.at.Sub(last) < apart/2 {
			t.Errorf("packet %d came %v after the one before, want about %v", i, got.at.Sub(last), apart)
		}
		last = got.at
	}
}

// TestReadControl: whatever is said in whatever order, and nothing outside of it is read.
func TestReadControl(t *testing.T) {
	tos := make([]byte, unix.CmsgSpace(4))
	putTOS(tos, 0xb9)
	unknown := append([]byte(nil), tos...)
	binary.NativeEndian.PutUint32(unknown[cmsgHeader-4:], 0xffff)
	for name, tt := range map[string]struct {
		control []byte
		want    uint8
	}{
		"nothing":        {nil, 0},
		"TOS":            {tos, 0xb9},
		"behind another": {append(unknown[:len(unknown):len(unknown)], tos...), 0xb9},
		"header cut":     {tos[:cmsgHeader-1], 0},
		"data cut":       {tos[:cmsgHeader+1], 0},
		"no length":      {make([]byte, 24), 0},
	} {
		if got, arrival := readControl(tt.control); got != tt.want || arrival != 0 {
			t.Errorf("%s: TOS %#x, arrival %d; want %#x, 0", name, got, arrival, tt.want)
		}
	}
}

// TestNoAllocation: packets cost no garbage, by whatever way they go and leave.
func TestNoAllocation(t *testing.T) {
	audio := []call.Payload{{In: 8, Out: 0, Treatment: call.ALawToULaw}, {In: 101, Out: 96, Treatment: call.TelephoneEvent}}
	for name, tt := range map[string]struct {
		change func(f *call.Flow)
		packet []byte
		exit   exit
	}{
		"plain":          {func(*call.Flow) {}, rtp(1), exitForwarded},
		"A-law":          {func(f *call.Flow) { f.Payloads = audio }, rtp(1), exitForwarded},
		"key":            {func(f *call.Flow) { f.Payloads = audio }, dtmf(5, 800).packet(), exitForwarded},
		"type refused":   {func(f *call.Flow) { f.Payloads = audio }, stream{payloadType: 9}.packet(), exitPayloadType},
		"RTCP, too much": {func(f *call.Flow) { f.RTCP, f.ClockRate = true, 0 }, receiverReport(), exitForwarded},
		"hold":           {func(f *call.Flow) { f.Hold = true }, rtp(1), exitHold},
		"refused":        {func(f *call.Flow) { f.Remote = netip.AddrPort{} }, rtp(1), exitSourceRefused},
		"not RTP":        {func(*call.Flow) {}, []byte("no RTP"), exitNotRTP},
		"too long":       {func(*call.Flow) {}, make([]byte, maxPacket+1), exitTooLong},
		"latched": {func(f *call.Flow) {
			f.Latch = call.Latch{Window: time.Hour, Generation: 1, Allowed: []netip.Prefix{netip.PrefixFrom(f.Remote.Addr(), 32)}}
		}, rtp(1), exitForwarded},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			tt.change(&p.flows[0])
			if err := p.Install(p.flows[:1]); err != nil {
				t.Fatal(err)
			}
			packets := make([][]byte, 2*batchSize)
			for i := range packets {
				packets[i] = tt.packet
			}
			q, left := newQuiver(p.a, p.in(), packets), &p.realms[1].exits[tt.exit]
			sent := uint64(0)
			if n := testing.AllocsPerRun(20, func() {
				q.send()
				sent += uint64(len(packets))
				for deadline := time.Now().Add(patience); left.Load() < sent; time.Sleep(10 * time.Microsecond) {
					if time.Now().After(deadline) {
						t.Fatalf("%d of %d left by %s", left.Load(), sent, exitNames[tt.exit].Reason)
					}
				}
			}); n > float64(len(packets)/8) { // batches go now and then, with the race detector more often (sync.Pool)
				t.Errorf("%v allocations for %d packets", n, len(packets))
			}
		})
	}
}

// TestUpdateLosesNothing: a flow that is changed while packets come loses and repeats none (S7).
func TestUpdateLosesNothing(t *testing.T) {
	const packets = 2000
	p := newPair(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range packets / 4 {
			f := p.flows[0]
			f.DSCP = uint8(i % 64)
			if err := p.Install([]call.Flow{f}); err != nil {
				t.Error(err)
			}
		}
	}()
	for seq := range uint16(packets) {
		p.a.send(p.in(), rtp(seq))
		p.b.expect(rtp(seq))
	}
	<-done
	if s := p.stats(t)[0]; s.Packets != packets || s.Lost != 0 || s.Duplicated != 0 {
		t.Errorf("%+v", s)
	}
}
