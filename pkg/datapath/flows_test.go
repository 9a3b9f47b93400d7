package datapath

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/tests/netspace"
)

// send runs n packets of a flow and returns what comes out of the last.
func (b *bench) send(tb testing.TB, f call.Flow, n int) (verdict uint32, out []byte) {
	tb.Helper()
	for i := range n {
		verdict, out = b.run(tb, frame{src: f.Remote, dst: f.Key.Local, payload: rtp(uint16(i), uint32(i)*160, 1)}.build(tb))
	}
	return verdict, out
}

// TestUpdateInPlace: a re-INVITE moves the media elsewhere; the counters go on, and the
// flow is never missing (M1).
func TestUpdateInPlace(t *testing.T) {
	b := newBench(t, 100)
	f := toCarrier(20000)
	b.install(t, f)
	b.send(t, f, 3)
	for range 5 {
		f.Dest = netip.AddrPortFrom(f.Dest.Addr().Next(), f.Dest.Port()+2)
		b.install(t, f)
		_, out := b.send(t, f, 1)
		if got := netip.AddrFrom4([4]byte(out[30:34])); got != f.Dest.Addr() {
			t.Fatalf("sent to %v instead of %v", got, f.Dest)
		}
	}
	f.Hold = true
	b.install(t, f)
	if verdict, _ := b.send(t, f, 2); verdict != xdpDrop {
		t.Errorf("on hold: action %d", verdict)
	}
	if b.hops.watched != 6 || b.hops.stopped != 6 {
		t.Errorf("%d next hops watched, %d let go, want 6 and 6: one per destination", b.hops.watched, b.hops.stopped)
	}
	if s := b.remove(t, f.Key); s.Packets != 10 {
		t.Errorf("%d packets counted over all updates, want 10", s.Packets)
	}
	// The same port serves the next call, with nothing of the former one's.
	f.Hold = false
	b.install(t, f)
	if s, err := b.Snapshot([]call.FlowKey{f.Key}); err != nil || s[0].Packets != 0 || !s[0].First.IsZero() {
		t.Errorf("a new flow starts with %+v (%v)", s, err)
	}
}

// TestRemove returns the final counters in the order of the keys, and closes the port.
func TestRemove(t *testing.T) {
	b := newBench(t, 100)
	one, two := toCarrier(20000), toCarrier(20002)
	b.install(t, one, two)
	b.send(t, one, 1)
	b.send(t, two, 2)
	unknown := toCarrier(20004).Key
	stats, err := b.Remove([]call.FlowKey{two.Key, unknown, one.Key})
	if err != nil {
		t.Fatal(err)
	}
	if stats[0].Packets != 2 || stats[1].Packets != 0 || stats[2].Packets != 1 {
		t.Errorf("counters %+v", stats)
	}
	if stats[0].Key != two.Key || stats[1].Key != unknown || stats[2].Key != one.Key {
		t.Errorf("keys out of order: %+v", stats)
	}
	if verdict, _ := b.send(t, one, 1); verdict != xdpDrop {
		t.Errorf("a packet to a removed flow: action %d", verdict)
	}
	s, err := b.Stats()
	if err != nil || s.Flows != 0 || s.KernelPackets != 3 || s.Engine != call.EngineKernel {
		t.Errorf("stats %+v, %v", s, err)
	}
}

// TestInstallIsAllOrNone: one flow that cannot be leaves the kernel as it was, the others
// of the list included.
func TestInstallIsAllOrNone(t *testing.T) {
	b := newBench(t, 1) // room for 4 flows
	good := toCarrier(20000)
	change := func(c func(*call.Flow)) []call.Flow {
		bad := toCarrier(20002)
		c(&bad)
		return []call.Flow{good, bad}
	}
	var five []call.Flow
	for i := range 5 {
		five = append(five, toCarrier(uint16(20000+i)))
	}
	delete(b.hops.byRealm, taggedCarrier)
	rows := []struct {
		name  string
		flows []call.Flow
		want  string
	}{
		{"realm unknown", change(func(f *call.Flow) { f.Key.Realm = 9 }), "no such realm"},
		{"address not the realm's", change(func(f *call.Flow) { f.Key.Local = carrierPeer }), "address is 192.0.2.2"},
		{"port not media", change(func(f *call.Flow) { f.Key.Local = netip.AddrPortFrom(platformAddr, 5060) }), "media ports are 16384-65535"},
		{"IPv6 remote", change(func(f *call.Flow) { f.Remote = netip.MustParseAddrPort("[2001:db8::1]:4") }), "not IPv4"},
		{"DSCP 64", change(func(f *call.Flow) { f.DSCP = 64 }), "DSCP 64"},
		{"clock of 1 Hz", change(func(f *call.Flow) { f.ClockRate = 1 }), "clock rate 1 Hz"},
		{"egress realm unknown", change(func(f *call.Flow) { f.OutRealm = 0 }), "no realm 0"},
		{"source not the realm's", change(func(f *call.Flow) { f.Source = carrierPeer }), "is not of realm 2"},
		{"nowhere to go", change(func(f *call.Flow) { f.Dest = netip.MustParseAddrPort("0.0.0.0:4000") }), "cannot be sent to"},
		{"no destination", change(func(f *call.Flow) { f.Dest = netip.AddrPort{} }), "cannot be sent to"},
		{"given twice", []call.Flow{good, good}, "given twice"},
		{"no route", change(func(f *call.Flow) { f.OutRealm = taggedCarrier }), "no route"},
		{"one too many", five, "full"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			err := b.Install(row.flows)
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Fatalf("error %v, want one of %q", err, row.want)
			}
			if s, err := b.Stats(); err != nil || s.Flows != 0 {
				t.Errorf("%d flows left (%v)", s.Flows, err)
			}
			if verdict, _ := b.send(t, good, 1); verdict != xdpDrop {
				t.Errorf("a flow of the refused list forwards: action %d", verdict)
			}
			if b.hops.watched != b.hops.stopped {
				t.Errorf("%d next hops watched, %d let go", b.hops.watched, b.hops.stopped)
			}
		})
	}
	if err := b.Install(five); !errors.Is(err, ErrFull) {
		t.Errorf("error %v is not ErrFull", err)
	}
	b.install(t, five[:4]...)
	b.install(t, five[:4]...) // an update needs no room
}

// TestNextHopFollows: flows go where the source says, at once, without being touched.
func TestNextHopFollows(t *testing.T) {
	b := newBench(t, 100)
	f := toCarrier(20000)
	b.hops.byRealm[carrier] = call.NextHop{}
	start := time.Now()
	b.install(t, f)
	if took := time.Since(start); took < resolveLimit || took > 4*resolveLimit {
		t.Errorf("Install waited %v for a next hop that is not there", took)
	}
	if verdict, _ := b.send(t, f, 1); verdict != xdpDrop {
		t.Errorf("unresolved: action %d instead of a drop", verdict)
	}
	move := func(next call.NextHop, want uint32) {
		t.Helper()
		b.hops.updates[carrier](next)
		verdict, out := b.send(t, f, 1)
		if verdict != want {
			t.Fatalf("action %d, want %d", verdict, want)
		}
		if want != xdpDrop && string(out[:6]) != string(next.L2[:6]) {
			t.Fatalf("sent to %x, want %x", out[:6], next.L2[:6])
		}
	}
	other := l2(0)
	other[5] = 0x99
	move(call.NextHop{Ifindex: b.carrier, L2: l2(0)}, xdpRedirect)
	move(call.NextHop{Ifindex: b.carrier, L2: other}, xdpRedirect)
	move(call.NextHop{Ifindex: 1, L2: l2(0)}, xdpTX)
	move(call.NextHop{}, xdpDrop)
	move(call.NextHop{Ifindex: 4711, L2: l2(0)}, xdpDrop)           // a device without a realm
	move(call.NextHop{Ifindex: b.carrier, L2: l2(0)[:10]}, xdpDrop) // no Ethernet header
	move(call.NextHop{Ifindex: b.carrier, L2: l2(0)}, xdpRedirect)

	// Resolved while Install waits: it returns then, not at the limit.
	g := toCarrier(20002)
	g.OutRealm = taggedCarrier
	b.hops.byRealm[taggedCarrier] = call.NextHop{}
	b.hops.onWatch = func(update func(call.NextHop)) {
		time.AfterFunc(20*time.Millisecond, func() { update(call.NextHop{Ifindex: b.carrier, L2: l2(202)}) })
	}
	start = time.Now()
	b.install(t, g)
	if took := time.Since(start); took >= resolveLimit {
		t.Errorf("Install waited %v though the next hop was there after 20 ms", took)
	}
	if verdict, _ := b.send(t, g, 1); verdict != xdpRedirect {
		t.Errorf("action %d after resolution", verdict)
	}
}

// TestNextHopRests: packets on their way may still read the header of a next hop that is let
// go, so it stays as long as the id rests; who gets the id next does not send by it.
func TestNextHopRests(t *testing.T) {
	b := newBench(t, 100)
	f := toCarrier(20000)
	b.install(t, f)
	id := b.flows[f.Key].hop.id
	if _, err := b.Remove([]call.FlowKey{f.Key}); err != nil {
		t.Fatal(err)
	}
	var left tandemNextHop
	if err := b.objs.NextHops.Lookup(uint32(id), &left); err != nil || left.Way[left.Active].Len == 0 {
		t.Errorf("the next hop let go is %+v (%v)", left, err)
	}
	time.Sleep(rest)
	b.hops.byRealm[carrier] = call.NextHop{}
	b.install(t, f)
	if again := b.flows[f.Key].hop.id; again != id {
		t.Fatalf("the next flow has next hop %d, want %d again", again, id)
	}
	if verdict, _ := b.send(t, f, 1); verdict != xdpDrop {
		t.Errorf("sent by the header of a former next hop: action %d", verdict)
	}
}

// TestEvents: the first packet of a flow and the first one refused are told once each.
func TestEvents(t *testing.T) {
	b := newBench(t, 100)
	f := toCarrier(20000)
	b.install(t, f)
	stranger := frame{src: carrierPeer, dst: f.Key.Local, payload: rtp(1, 1, 1)}.build(t)
	for range 3 {
		b.run(t, stranger)
		b.send(t, f, 1)
	}
	want := []call.MediaEvent{
		{Key: f.Key, Kind: call.MediaRefused, Source: carrierPeer},
		{Key: f.Key, Kind: call.MediaStarted, Source: f.Remote},
	}
	for _, w := range want {
		select {
		case got := <-b.Events():
			if since := time.Since(got.At); since < -time.Second || since > time.Minute {
				t.Errorf("event of %v", got.At)
			}
			got.At = time.Time{}
			if !reflect.DeepEqual(got, w) {
				t.Errorf("event %+v, want %+v", got, w)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("no event")
		}
	}
	// The next call on the port is told of again: so nothing came between.
	b.remove(t, f.Key)
	b.install(t, f)
	b.send(t, f, 1)
	if got := <-b.Events(); got.Kind != call.MediaStarted {
		t.Errorf("event %+v after a new start", got)
	}
	if s := b.remove(t, f.Key); s.Refused != 0 || s.Packets != 1 {
		t.Errorf("counters of the second call %+v", s)
	}
}

// TestClosed: a closed engine says so, and its events end.
func TestClosed(t *testing.T) {
	b := newBench(t, 100)
	f := toCarrier(20000)
	b.install(t, f)
	for range 2 {
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Install([]call.Flow{f}); !errors.Is(err, ErrClosed) {
		t.Errorf("Install: %v", err)
	}
	if _, err := b.Remove([]call.FlowKey{f.Key}); !errors.Is(err, ErrClosed) {
		t.Errorf("Remove: %v", err)
	}
	if _, err := b.Snapshot(nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Snapshot: %v", err)
	}
	if _, err := b.Stats(); !errors.Is(err, ErrClosed) {
		t.Errorf("Stats: %v", err)
	}
	if _, open := <-b.Events(); open {
		t.Error("events go on")
	}
}

// TestSupported: where these tests run, the engine runs.
func TestSupported(t *testing.T) {
	netspace.NeedRoot(t)
	if err := Supported(); err != nil {
		t.Fatal(err)
	}
}

// TestRemoteOutlivesRestart: who is let in is told of flows that a former process installed,
// too, and of what they have learned (M7).
func TestRemoteOutlivesRestart(t *testing.T) {
	w := newWire(t)
	cfg := w.config(newPins(t))
	flows := twoWay()
	learned := netip.AddrPortFrom(flows[1].Remote.Addr(), 61000)
	e := w.start(t, cfg)
	if err := e.Install(flows); err != nil {
		t.Fatal(err)
	}
	policy := &e.table.policies[e.flows[flows[1].Key].at] // as the program leaves it
	policy.State, policy.Learned, policy.LearnedPort = tandemLatchStateLATCH_LOCKED, learned.Addr().As4(), port16(learned.Port())
	shut(t, e)
	e = w.start(t, cfg)
	stats, err := e.Remove(keys(flows))
	if err != nil {
		t.Fatal(err)
	}
	if stats[0].Remote != flows[0].Remote || stats[1].Remote != learned {
		t.Errorf("let in are %v and %v, want %v and %v", stats[0].Remote, stats[1].Remote, flows[0].Remote, learned)
	}
	shut(t, e)
	w.unload(t, cfg.Pins)
}
