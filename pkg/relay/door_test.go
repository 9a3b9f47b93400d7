package relay

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// Who sends in these tests. The outsider is no neighbour of the others.
var (
	alice    = netip.MustParseAddrPort("192.0.2.1:4000")
	natted   = netip.MustParseAddrPort("192.0.2.99:61234")
	outsider = netip.MustParseAddrPort("203.0.113.5:4000")

	allowedHere = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
)

// door is a flow without sockets: packets are handed to its gates, at times that the test
// chooses.
type door struct {
	t   *testing.T
	e   *Engine
	s   *socket
	f   *flow
	now time.Time
}

// newDoor installs def, in which what the test does not say is filled in.
func newDoor(t *testing.T, def call.Flow) *door {
	t.Helper()
	d := &door{t: t, e: newEngine(t), s: &socket{}, now: time.Now()}
	d.f = d.flow(1, def.RTCP)
	d.s.flow.Store(d.f)
	d.install(def)
	return d
}

// flow makes another flow, at a port of its own.
func (d *door) flow(port uint16, rtcp bool) *flow {
	f := newFlow(call.FlowKey{Realm: 1, Local: loopback(10000 + port)})
	f.install(&path{flow: call.Flow{Key: f.key, Remote: alice, RTCP: rtcp}}, d.now)
	return f
}

func (d *door) install(def call.Flow) {
	d.t.Helper()
	def.Key, def.OutRealm, def.Source, def.Dest = d.f.key, 2, loopback(20000), loopback(30000)
	def = canonical(def)
	if err := validate(&def); err != nil {
		d.t.Fatal(err)
	}
	d.f.install(&path{flow: def}, d.now)
}

// take hands one packet over, a millisecond after the one before, and returns its exit.
func (d *door) take(from netip.AddrPort, data []byte) exit {
	d.now = d.now.Add(time.Millisecond)
	x, way := d.s.judge(d.e, &packet{data: data, from: from, at: d.now})
	if (way != nil) != (x == exitForwarded) {
		d.t.Errorf("%s on path %v", exitNames[x].Reason, way)
	}
	return x
}

// want hands one packet over, and says what is to become of it.
func (d *door) want(from netip.AddrPort, data []byte, reason exit) {
	d.t.Helper()
	if x := d.take(from, data); x != reason {
		d.t.Errorf("packet from %v: %s, want %s", from, exitNames[x].Reason, exitNames[reason].Reason)
	}
}

func (d *door) wait(after time.Duration) { d.now = d.now.Add(after) }

// events are those that wait for a reader, without their times.
func events(e *Engine) []call.MediaEvent {
	var list []call.MediaEvent
	for range len(e.events) {
		ev := <-e.events
		ev.At = time.Time{}
		list = append(list, ev)
	}
	return list
}

func wantEvents(t *testing.T, e *Engine, want ...call.MediaEvent) {
	t.Helper()
	addr := cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
	if diff := cmp.Diff(want, events(e), addr, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// kinds leaves out the events of other kinds.
func kinds(list []call.MediaEvent, kind call.MediaEventKind) []call.MediaEvent {
	var of []call.MediaEvent
	for _, ev := range list {
		if ev.Kind == kind {
			of = append(of, ev)
		}
	}
	return of
}

// stream makes RTP packets by the field.
type stream struct {
	payloadType, marker uint8
	seq                 uint16
	timestamp, ssrc     uint32
	csrcs               int
	extension           []byte // with its header
	padding             int    // bytes, the last one says how many
	payload             []byte
}

func (s stream) packet() []byte {
	b := make([]byte, rtpHeader, rtpHeader+4*s.csrcs+len(s.extension)+len(s.payload)+s.padding)
	b[0], b[1] = rtpVersion<<6|uint8(s.csrcs), s.marker|s.payloadType
	binary.BigEndian.PutUint16(b[2:], s.seq)
	binary.BigEndian.PutUint32(b[4:], s.timestamp)
	binary.BigEndian.PutUint32(b[8:], s.ssrc)
	b = append(b, make([]byte, 4*s.csrcs)...)
	if s.extension != nil {
		b[0] |= extensionBit
		b = append(b, s.extension...)
	}
	b = append(b, s.payload...)
	if s.padding > 0 {
		b[0] |= paddingBit
		b = append(b, make([]byte, s.padding)...)
		b[len(b)-1] = uint8(s.padding)
	}
	return b
}
