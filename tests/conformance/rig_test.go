package conformance

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// patience is how long a rig waits for what has to come at once.
const patience = 5 * time.Second

// clockTolerance is how far an engine's times may be from ours: the kernel's clock is
// read apart from the packet.
const clockTolerance = 20 * time.Millisecond

// batch is how many packets are sent without waiting for the engine: a veth holds 256.
const batch = 64

// tester is what a rig needs of a test, and of a check of package rapid.
type tester interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// rig is an engine with peers around it, for one rule.
type rig struct {
	t      tester
	net    *network
	name   string
	engine engine
	// flows are those that it has put in, and not taken out.
	flows map[call.FlowKey]call.Flow

	begin time.Time
	// before is what the engine said of itself when the rig was made.
	before call.EngineStats
	// sent is how many packets the engine must have counted in its exits.
	sent uint64
	// marked are packets of markers, by realm of arrival.
	marked  uint64
	markers uint16
	seen    []seen
	reports []call.MediaEvent
}

// seen is a datagram that arrived in a realm.
type seen struct {
	realm uint16
	datagram
}

// rig takes an engine that has no flow.
func (n *network) rig(t *testing.T, e *running) *rig {
	t.Helper()
	r := &rig{t: t, net: n, name: e.name, engine: e, flows: map[call.FlowKey]call.Flow{}, begin: time.Now()}
	r.before = r.engineStats()
	for _, tap := range n.taps {
		if err := tap.discard(); err != nil { // what an earlier rule did not look at
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			return // the engine is not used again
		}
		r.barrier() // no packet and no event is left to the next rule
		if _, err := r.engine.Remove(slices.Collect(maps.Keys(r.flows))); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) kernel() bool { return r.name == call.EngineKernel }

// do runs f where the engine lives: the user-space engine opens sockets.
func (r *rig) do(f func() error) error { return r.net.lab.Do(gateway, f) }

// install puts flows in place once all that was sent before has been treated.
func (r *rig) install(flows ...call.Flow) {
	r.t.Helper()
	r.settle()
	if err := r.do(func() error { return r.engine.Install(flows) }); err != nil {
		r.t.Fatalf("%s: install: %v", r.name, err)
	}
	for _, f := range flows {
		r.flows[f.Key] = f
	}
}

func (r *rig) remove(flows ...call.Flow) []call.FlowStats {
	r.t.Helper()
	r.settle()
	stats, err := r.engine.Remove(keys(flows))
	if err != nil {
		r.t.Fatalf("%s: remove: %v", r.name, err)
	}
	for _, f := range flows {
		delete(r.flows, f.Key)
	}
	return stats
}

// engineStats is what the engine says of itself.
func (r *rig) engineStats() call.EngineStats {
	r.t.Helper()
	stats, err := r.engine.Stats()
	if err != nil {
		r.t.Fatalf("%s: stats: %v", r.name, err)
	}
	return stats
}

func keys(flows []call.Flow) []call.FlowKey {
	keys := make([]call.FlowKey, len(flows))
	for i, f := range flows {
		keys[i] = f.Key
	}
	return keys
}

// send lets a flow's peer send to it.
func (r *rig) send(f call.Flow, packets ...[]byte) {
	r.t.Helper()
	r.sendFrom(f.Remote, f, packets...)
}

// sendFrom lets somebody on the flow's link send to it.
func (r *rig) sendFrom(src netip.AddrPort, f call.Flow, packets ...[]byte) {
	r.t.Helper()
	for _, p := range packets {
		r.put(f.Key.Realm, datagram{src: src, dst: f.Key.Local, ttl: firstTTL, payload: p})
	}
}

// put sends a datagram that the engine counts.
func (r *rig) put(realm uint16, d datagram) {
	r.t.Helper()
	r.raw(realm, d)
	if r.sent++; r.sent%batch == 0 {
		r.settle()
	}
}

// nowhere sends to ports that have no flow and, in user space, no socket.
func (r *rig) nowhere(realm uint16, d datagram) {
	r.t.Helper()
	if r.kernel() {
		r.put(realm, d)
		return
	}
	r.raw(realm, d)
}

func (r *rig) raw(realm uint16, d datagram) {
	r.t.Helper()
	if err := r.net.taps[realm].send(d); err != nil {
		r.t.Fatalf("%v to %v: %v", d.src, d.dst, err)
	}
}

// settle waits until every packet has left by one exit: then what is sent is sent.
func (r *rig) settle() {
	r.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		total := uint64(0)
		for _, n := range r.left() {
			total += n
		}
		switch {
		case total == r.sent:
			return
		case total > r.sent:
			r.t.Fatalf("%s: %d packets left by %d exits: %v", r.name, r.sent, total, r.left())
		case time.Now().After(deadline):
			r.t.Fatalf("%s: %d packets came, %d left: %v", r.name, r.sent, total, r.left())
		}
		time.Sleep(time.Millisecond)
	}
}

// way is how packets left: the realm that they came in by, and why.
type way struct {
	realm  uint16
	reason string
}

// ways are packets by how they left.
type ways map[way]uint64

// left is how packets have left since the rig was made, the stack's aside.
func (r *rig) left() ways {
	r.t.Helper()
	left := ways{}
	count := func(exits []call.Exit, sign uint64) {
		for _, x := range exits {
			if w := (way{x.Realm, x.Reason}); x.Verdict != "stack" {
				if left[w] += sign * x.Packets; left[w] == 0 {
					delete(left, w)
				}
			}
		}
	}
	count(r.engineStats().Exits, 1)
	count(r.before.Exits, ^uint64(0)) // minus
	return left
}

// barrier waits until all that came of the packets so far is there: a stream of its own
// goes each way behind them, over the same devices and through the same events.
func (r *rig) barrier() {
	r.t.Helper()
	r.settle()
	there := pair(markerPorts+r.markers, markerPorts+r.markers)
	r.markers = (r.markers + 2) % (mediaPorts.Last - markerPorts)
	there[0].Remote, there[0].Dest = at(platform, markerPort), at(carrier, markerPort)
	there[1].Remote, there[1].Dest = at(carrier, markerPort), at(platform, markerPort)
	r.install(there[:]...)
	waiting := map[call.FlowKey]bool{}
	for _, f := range there {
		waiting[f.Key] = true
		r.send(f, rtp{ssrc: markerSSRC, pt: pcma}.bytes())
		r.marked++
		r.drain(f.OutRealm, f.Dest)
	}
	timeout := time.After(patience)
	for len(waiting) > 0 {
		select {
		case e, open := <-r.engine.Events():
			switch {
			case !open:
				r.t.Fatalf("%s: no more events", r.name)
			case waiting[e.Key] && e.Kind == call.MediaStarted:
				delete(waiting, e.Key)
			default:
				r.reports = append(r.reports, e)
			}
		case <-timeout:
			r.t.Fatalf("%s: MediaStarted of a new flow does not come; before it: %v", r.name, r.reports)
		}
	}
	r.settle()
	r.remove(there[:]...)
}

// Markers arrive at our ports from markerPorts on, one pair after the other, and go to
// the peers' markerPort.
const (
	markerPorts = 22000
	markerPort  = 40998
	markerSSRC  = 0x3a12ce12
)

// drain reads what arrives in a realm until the marker does.
func (r *rig) drain(realm uint16, marker netip.AddrPort) {
	r.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		d, ok, err := r.net.taps[realm].receive()
		switch {
		case err != nil:
			r.t.Fatalf("%s: %v", r.name, err)
		case !ok:
		case d.dst == marker:
			return
		default:
			r.seen = append(r.seen, seen{realm, d})
		}
	}
	r.t.Fatalf("%s: a packet through a plain flow does not arrive in realm %d", r.name, realm)
}

// arrival is packets that leave by a flow.
type arrival struct {
	flow    call.Flow
	packets [][]byte
}

func by(f call.Flow, packets ...[]byte) arrival { return arrival{f, packets} }

// arrive asserts that since the last time just these packets arrived, in order for each
// flow, and nothing else at anybody: from its source, to its destination, marked, with
// right checksums, one hop older if the kernel sent them.
func (r *rig) arrive(want ...arrival) {
	r.t.Helper()
	r.barrier()
	got := r.seen
	r.seen = nil
	for _, w := range want {
		for i, packet := range w.packets {
			at := slices.IndexFunc(got, func(s seen) bool {
				return s.realm == w.flow.OutRealm && s.src == w.flow.Source && s.dst == w.flow.Dest
			})
			if at < 0 {
				r.t.Errorf("%s: packet %d of %d did not arrive from %v at %v: %x",
					r.name, i+1, len(w.packets), w.flow.Source, w.flow.Dest, packet)
				return
			}
			s := got[at]
			got = slices.Delete(got, at, at+1)
			if !bytes.Equal(s.payload, packet) {
				r.t.Errorf("%s: packet %d of %d to %v:\n got %x\nwant %x", r.name, i+1, len(w.packets), s.dst, s.payload, packet)
				return
			}
			if s.tos>>2 != w.flow.DSCP {
				r.t.Errorf("%s: packet %d to %v has DSCP %d, want %d (M3)", r.name, i+1, s.dst, s.tos>>2, w.flow.DSCP)
			}
			if r.kernel() && s.ttl != firstTTL-1 {
				r.t.Errorf("%s: packet %d to %v has TTL %d, want %d", r.name, i+1, s.dst, s.ttl, firstTTL-1)
			}
		}
	}
	for _, s := range got {
		r.t.Errorf("%s: arrived in realm %d though nothing should: %v to %v: %x", r.name, s.realm, s.src, s.dst, s.payload)
	}
}

// exits asserts how all packets have left so far.
func (r *rig) exits(want ways) {
	r.t.Helper()
	r.settle()
	got := r.left()
	for _, realm := range []uint16{platform, carrier} {
		forwarded := way{realm, call.ExitForwarded}
		if got[forwarded] -= min(got[forwarded], r.marked/2); got[forwarded] == 0 {
			delete(got, forwarded)
		}
	}
	if !reflect.DeepEqual(got, want) {
		r.t.Errorf("%s: packets left by realm and reason: %v, want %v", r.name, got, want)
	}
}

// stats asserts a flow's counters; times and jitter are for the rules that are about them.
// Unless the rule says whom the flow has learned, its own remote is let in.
func (r *rig) stats(f call.Flow, want call.FlowStats) call.FlowStats {
	r.t.Helper()
	r.settle()
	got, err := r.engine.Snapshot([]call.FlowKey{f.Key})
	if err != nil {
		r.t.Fatalf("%s: snapshot: %v", r.name, err)
	}
	if there := r.flows[f.Key].Remote; !want.Remote.IsValid() && there.Port() != 0 {
		want.Remote = there
	}
	r.compare(f, got[0], want)
	return got[0]
}

func (r *rig) compare(f call.Flow, got, want call.FlowStats) {
	r.t.Helper()
	want.Key = f.Key
	if counts := timeless(got); counts != want {
		r.t.Errorf("%s: flow to %v counts\n     %+v\nwant %+v", r.name, f.Key.Local, counts, want)
	}
	switch {
	case got.Packets == 0:
		if !got.First.IsZero() || !got.Last.IsZero() {
			r.t.Errorf("%s: flow to %v had no packet, the first at %v and the last at %v", r.name, f.Key.Local, got.First, got.Last)
		}
	case got.First.Before(r.begin.Add(-clockTolerance)) || got.Last.Before(got.First) || got.Last.After(time.Now().Add(clockTolerance)):
		r.t.Errorf("%s: flow to %v: first packet %v, last %v, the test began %v", r.name, f.Key.Local, got.First, got.Last, r.begin)
	}
}

// timeless is the counters without what depends on when packets came.
func timeless(s call.FlowStats) call.FlowStats {
	s.First, s.Last, s.Gap, s.Jitter = time.Time{}, time.Time{}, 0, 0
	return s
}

// events asserts all that the engine has reported so far, in order for each flow.
func (r *rig) events(want ...call.MediaEvent) {
	r.t.Helper()
	r.barrier()
	got := slices.Clone(r.reports)
	for i := range got {
		if got[i].At.Before(r.begin.Add(-clockTolerance)) || got[i].At.After(time.Now().Add(clockTolerance)) {
			r.t.Errorf("%s: event %v at %v, the test began %v", r.name, got[i], got[i].At, r.begin)
		}
		got[i].At = time.Time{}
	}
	byFlow := func(a, b call.MediaEvent) int {
		return cmp.Or(cmp.Compare(a.Key.Realm, b.Key.Realm), a.Key.Local.Compare(b.Key.Local))
	}
	slices.SortStableFunc(got, byFlow)
	slices.SortStableFunc(want, byFlow)
	if !slices.EqualFunc(got, want, func(a, b call.MediaEvent) bool { return reflect.DeepEqual(a, b) }) {
		r.t.Errorf("%s: events\n     %v\nwant %v", r.name, described(got), described(want))
	}
}

func described(events []call.MediaEvent) []string {
	names := map[call.MediaEventKind]string{
		call.MediaStarted: "started", call.MediaRefused: "refused", call.MediaLatched: "latched",
		call.MediaDigit: "digit", call.MediaSSRC: "ssrc", call.MediaReport: "report",
	}
	list := make([]string, len(events))
	for i, e := range events {
		list[i] = fmt.Sprintf("%s at %d/%v from %v digit %d ssrc %#x packet %x",
			cmp.Or(names[e.Kind], fmt.Sprint("kind ", e.Kind)), e.Key.Realm, e.Key.Local, e.Source, e.Digit, e.SSRC, e.Packet)
	}
	return list
}

// started is the event of a flow's first packet.
func started(f call.Flow) call.MediaEvent {
	return call.MediaEvent{Key: f.Key, Kind: call.MediaStarted, Source: f.Remote}
}

func refused(f call.Flow, by netip.AddrPort) call.MediaEvent {
	return call.MediaEvent{Key: f.Key, Kind: call.MediaRefused, Source: by}
}

func latched(f call.Flow, to netip.AddrPort) call.MediaEvent {
	return call.MediaEvent{Key: f.Key, Kind: call.MediaLatched, Source: to}
}

func digit(f call.Flow, d uint8) call.MediaEvent {
	return call.MediaEvent{Key: f.Key, Kind: call.MediaDigit, Source: f.Remote, Digit: d}
}

// at is an address of a realm's peer.
func at(realm uint16, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(realms[realm].peer, port)
}

// elsewhere is one of its other address.
func elsewhere(realm uint16, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(realms[realm].other, port)
}

// Where the peers of a call have their media.
const (
	platformMedia = 30000
	carrierMedia  = 40000
)

// A call's ports at the gateway, in the platform's realm and in the carrier's.
const (
	nearPort = 20000
	farPort  = 20500
)

// pair is RTP both ways: first what the platform sends, then what the carrier does. Each
// way has a mark of its own.
func pair(near, far uint16) [2]call.Flow {
	nearAt := netip.AddrPortFrom(realms[platform].gateway, near)
	farAt := netip.AddrPortFrom(realms[carrier].gateway, far)
	return [2]call.Flow{
		{
			Key: call.FlowKey{Realm: platform, Local: nearAt}, Remote: at(platform, platformMedia),
			OutRealm: carrier, Source: farAt, Dest: at(carrier, carrierMedia), DSCP: 46, ClockRate: 8000,
		},
		{
			Key: call.FlowKey{Realm: carrier, Local: farAt}, Remote: at(carrier, carrierMedia),
			OutRealm: platform, Source: nearAt, Dest: at(platform, platformMedia), DSCP: 34, ClockRate: 8000,
		},
	}
}

// up is what the platform sends to the carrier, down the other way.
func up() call.Flow   { return pair(nearPort, farPort)[0] }
func down() call.Flow { return pair(nearPort, farPort)[1] }

// controlOf is the RTCP flow beside an RTP flow: the next port, everywhere.
func controlOf(f call.Flow) call.Flow {
	for _, a := range []*netip.AddrPort{&f.Key.Local, &f.Remote, &f.Source, &f.Dest} {
		*a = netip.AddrPortFrom(a.Addr(), a.Port()+1)
	}
	f.RTCP, f.Mux, f.ClockRate, f.Payloads = true, false, 0, nil
	return f
}
