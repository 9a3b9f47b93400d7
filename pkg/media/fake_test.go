package media_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/media"
	"github.com/tandem-sbc/tandem/pkg/sdp"
)

var errEngine = errors.New("the engine is full")

// fakeEngine keeps flows in a map; each flow has counted the packets that sent says.
type fakeEngine struct {
	mu    sync.Mutex
	flows map[call.FlowKey]call.Flow
	sent  map[call.FlowKey]uint64
	// stats stand in for what is made up of sent.
	stats map[call.FlowKey]call.FlowStats
	// learned takes the place of a flow's Remote.
	learned             map[call.FlowKey]netip.AddrPort
	installs, snapshots int
	// fail is what Install says, unreadable what Snapshot does, irremovable what Remove does.
	fail, unreadable, irremovable error
	// onSnapshot, if set, runs once before the next Snapshot.
	onSnapshot func()
	events     chan call.MediaEvent
}

func newFakeEngine() *fakeEngine {
	return &fakeEngine{
		flows: map[call.FlowKey]call.Flow{}, sent: map[call.FlowKey]uint64{}, stats: map[call.FlowKey]call.FlowStats{},
		learned: map[call.FlowKey]netip.AddrPort{}, events: make(chan call.MediaEvent, 16),
	}
}

func (e *fakeEngine) Install(flows []call.Flow) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fail != nil {
		return e.fail
	}
	e.installs++
	for _, f := range flows {
		if was := e.flows[f.Key].Latch; f.Latch.Window == 0 || f.Latch.Generation != was.Generation {
			delete(e.learned, f.Key)
		}
		e.flows[f.Key] = f
	}
	return nil
}

func (e *fakeEngine) Remove(keys []call.FlowKey) ([]call.FlowStats, error) {
	e.mu.Lock()
	err := e.irremovable
	e.mu.Unlock()
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	stats := e.counters(keys)
	for _, k := range keys {
		delete(e.flows, k)
		delete(e.sent, k)
		delete(e.stats, k)
		delete(e.learned, k)
	}
	return stats, nil
}

func (e *fakeEngine) Snapshot(keys []call.FlowKey) ([]call.FlowStats, error) {
	e.mu.Lock()
	meanwhile := e.onSnapshot
	e.onSnapshot = nil
	e.mu.Unlock()
	if meanwhile != nil {
		meanwhile()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.unreadable != nil {
		return nil, e.unreadable
	}
	e.snapshots++
	return e.counters(keys), nil
}

// counters are what flows have counted; mu is held.
func (e *fakeEngine) counters(keys []call.FlowKey) []call.FlowStats {
	stats := make([]call.FlowStats, len(keys))
	for i, k := range keys {
		st, ok := e.stats[k]
		if !ok {
			n := e.sent[k]
			st = call.FlowStats{Key: k, Packets: n, Bytes: 172 * n, Lost: n / 10, Jitter: time.Duration(n) * time.Microsecond}
		}
		st.Remote = e.flows[k].Remote
		if learned, ok := e.learned[k]; ok {
			st.Remote = learned
		}
		stats[i] = st
	}
	return stats
}

func (e *fakeEngine) Events() <-chan call.MediaEvent { return e.events }

// refuse sets what Install and Remove fail with.
func (e *fakeEngine) refuse(install, remove error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fail, e.irremovable = install, remove
}

// installed is the number of flows.
func (e *fakeEngine) installed() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.flows)
}

// send makes a flow count packets of the peer at remote.
func (e *fakeEngine) send(t *testing.T, remote string, packets uint64) {
	t.Helper()
	key := e.from(t, remote).Key
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sent[key] += packets
}

// count sets what a flow has counted.
func (e *fakeEngine) count(key call.FlowKey, st call.FlowStats) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stats[key] = st
}

// learn makes a flow take a source for its Remote.
func (e *fakeEngine) learn(key call.FlowKey, source netip.AddrPort) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.learned[key] = source
}

// from is the flow of the packets that come from remote, of RTP if there are two.
func (e *fakeEngine) from(t *testing.T, remote string) call.Flow {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, rtcp := range []bool{false, true} {
		for _, f := range e.flows {
			if f.Remote == netip.MustParseAddrPort(remote) && f.RTCP == rtcp {
				return f
			}
		}
	}
	t.Fatalf("no flow from %s in %+v", remote, e.flows)
	return call.Flow{}
}

// Addresses of the test's realms: inside (1) and outside (2), another outside (3).
const (
	inside   = "192.0.2.2"
	outside  = "203.0.113.2"
	outside3 = "203.0.113.130"
)

// bench is a Media over a fake engine; at its end no flow and no port may be left.
type bench struct {
	*testing.T
	m      *media.Media
	engine *fakeEngine
}

func newBench(t *testing.T) *bench {
	t.Helper()
	return newBenchWith(t, call.PortRange{First: 16384, Last: 16403})
}

func newBenchWith(t *testing.T, r call.PortRange) *bench {
	t.Helper()
	return newBenchOn(t, newFakeEngine(), media.Config{}, r)
}

func newBenchOn(t *testing.T, engine *fakeEngine, cfg media.Config, r call.PortRange) *bench {
	t.Helper()
	b := &bench{T: t, engine: engine}
	cfg.Engine = engine
	cfg.Realms = []media.Realm{
		{Name: "inside", Number: 1, Addr: netip.MustParseAddr(inside), Ports: r, DSCP: 46},
		{Name: "outside", Number: 2, Addr: netip.MustParseAddr(outside), Ports: call.PortRange{First: 20000, Last: 20019}, DSCP: 34},
		{Name: "outside3", Number: 3, Addr: netip.MustParseAddr(outside3), Ports: call.PortRange{First: 30000, Last: 30019}, DSCP: 34},
	}
	var err error
	if b.m, err = media.New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if n := b.m.PortsInUse(); n != 0 {
			t.Errorf("%d port pairs left (M9)", n)
		}
		if n := len(b.engine.flows); n != 0 {
			t.Errorf("%d flows left: %+v", n, b.engine.flows)
		}
	})
	return b
}

// open is a session from inside to outside that ends with the test.
func (b *bench) open() *talk {
	b.Helper()
	return b.openWith(media.Terms{}, media.Terms{})
}

func (b *bench) openWith(ingress, egress media.Terms) *talk {
	b.Helper()
	s, err := b.m.Open("inside", ingress)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	if err := s.SetEgress("outside", egress); err != nil {
		b.Fatal(err)
	}
	return &talk{bench: b, Session: s}
}

// run has Media follow the engine until the test ends.
func (b *bench) run() {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- b.m.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
}

// talk is a session whose descriptions are read on their way.
type talk struct {
	*bench
	*media.Session
}

func (k *talk) offer(from call.Side, body string) passed {
	k.Helper()
	out, err := k.Offer(from, []byte(body))
	return k.read(out, err)
}

func (k *talk) answer(from call.Side, body string) passed {
	k.Helper()
	out, err := k.Answer(from, []byte(body))
	return k.read(out, err)
}

// established is the usual beginning: a caller inside, a callee outside, PCMA.
func (k *talk) established() (offered, answered passed) {
	k.Helper()
	return k.offer(call.Ingress, caller), k.answer(call.Egress, callee)
}

// passed is a description as the other side gets it.
type passed struct {
	body    string
	desc    call.MediaDesc
	id      string // session id of the o= line
	version string
}

func (k *talk) read(body []byte, err error) passed {
	k.Helper()
	if err != nil {
		k.Fatal(err)
	}
	desc, err := sdp.Parse(body)
	if err != nil {
		k.Fatalf("%v in\n%s", err, body)
	}
	_, o, _ := strings.Cut(string(body), "\r\no=")
	f := strings.Fields(o)
	return passed{body: string(body), desc: desc, id: f[1], version: f[2]}
}

func (p passed) codecs() string {
	var names []string
	for _, c := range p.desc.Audio().Codecs {
		names = append(names, c.Name)
	}
	return strings.Join(names, " ")
}

// formats are the payload types with what they stand for: "8 PCMA, 101 telephone-event".
func (p passed) formats() string {
	var list []string
	for _, c := range p.desc.Audio().Codecs {
		list = append(list, fmt.Sprintf("%d %s", c.Type, c.Name))
	}
	return strings.Join(list, ", ")
}

// describe writes a peer's description.
func describe(addr string, lines ...string) string {
	return "v=0\r\no=peer 1 1 IN IP4 " + addr + "\r\ns=call\r\nc=IN IP4 " + addr + "\r\nt=0 0\r\n" + strings.Join(lines, "\r\n") + "\r\n"
}

const (
	callerAddr, calleeAddr = "198.51.100.10", "203.0.113.20"
	callerRTP, calleeRTP   = callerAddr + ":40000", calleeAddr + ":50000"
	callerRTCP, calleeRTCP = callerAddr + ":40001", calleeAddr + ":50001"
)

var (
	caller = describe(callerAddr, "m=audio 40000 RTP/AVP 8 0 101", "a=rtpmap:101 telephone-event/8000", "a=fmtp:101 0-15", "a=ptime:20")
	callee = describe(calleeAddr, "m=audio 50000 RTP/AVP 8 101", "a=rtpmap:101 telephone-event/8000", "a=fmtp:101 0-15")
)
