package datapath

import (
	"encoding/binary"
	"math"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/call"
)

var (
	sipPort     = at(platformAddr, 5060)
	otherPort   = at(platformAddr, 53)
	stranger    = netip.MustParseAddr("192.0.2.66")
	quietOne    = netip.MustParseAddr("192.0.2.67")
	deniedOne   = netip.MustParseAddr("203.0.113.7")
	anotherAddr = netip.MustParseAddr("192.0.2.255")
)

// toGateway is a frame of the platform's side as its device sends it.
func (w *wire) toGateway(t *testing.T, src, dst netip.AddrPort, payload []byte, change ...func(*frame)) []byte {
	t.Helper()
	f := frame{src: src, dst: dst, payload: payload}
	for _, c := range change {
		c(&f)
	}
	in, l2 := f.build(t), w.hops.byRealm[platform].L2
	copy(in, l2[6:12])
	copy(in[6:], l2[:6])
	return in
}

// count sorts what has arrived behind XDP by source address and destination port.
func (p *tap) count(t *testing.T) map[netip.AddrPort]int {
	t.Helper()
	got := map[netip.AddrPort]int{}
	for {
		s, ok := p.read(t, false)
		if !ok {
			return got
		}
		if len(s.frame) >= 38 && s.frame[12] == 0x08 && s.frame[13] == 0 {
			got[at(netip.AddrFrom4([4]byte(s.frame[26:])), binary.BigEndian.Uint16(s.frame[36:]))]++
		}
	}
}

// marked is sent last by a known peer: when it is there, so is all that was before it.
func (w *wire) marked(t *testing.T, from, behind *tap) map[netip.AddrPort]int {
	t.Helper()
	last := at(platformPeer.Addr(), 9)
	from.send(t, w.toGateway(t, platformPeer, at(platformAddr, last.Port()), []byte("last")))
	all := map[netip.AddrPort]int{}
	for deadline := time.Now().Add(5 * time.Second); all[last] == 0; time.Sleep(time.Millisecond) {
		for key, n := range behind.count(t) {
			all[key] += n
		}
		if time.Now().After(deadline) {
			t.Fatal("the last packet has not arrived")
		}
	}
	return all
}

// TestDeniedSource: from a denied prefix nothing passes (A3): no SIP, no other UDP, no TCP, no ICMP, no fragment, none
// to another address of the machine, and no media, though a flow names such a source or may learn one.
func TestDeniedSource(t *testing.T) {
	w := newWire(t)
	cfg := w.config("")
	cfg.Guard = Guard{Deny: []netip.Prefix{denied}}
	cfg.Realms[0].SIPPort = sipPort.Port()
	e := w.start(t, cfg)
	named := toCarrier(20000)
	named.Remote = at(deniedOne, 5060)
	learned := toCarrier(20010)
	learned.Latch = call.Latch{Window: time.Hour, Allowed: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}
	if err := e.Install([]call.Flow{named, learned}); err != nil {
		t.Fatal(err)
	}
	from, behind := newTap(t, w.platform.space, "tdmpeer"), newTap(t, w.gateway, "tdmplat")
	source := at(deniedOne, 5060)
	as := func(protocol layers.IPProtocol) func(*frame) {
		return withIP(func(ip *layers.IPv4) { ip.Protocol = protocol })
	}
	sip := []byte("OPTIONS sip:192.0.2.2 SIP/2.0\r\n\r\n")
	tcp := make([]byte, 20)
	binary.BigEndian.PutUint16(tcp[2:], 5060)
	tcp[12], tcp[13] = 5<<4, 0x02 // SYN
	frames := map[string][]byte{
		"SIP":             w.toGateway(t, source, sipPort, sip),
		"other UDP":       w.toGateway(t, source, otherPort, sip),
		"TCP":             w.toGateway(t, source, sipPort, tcp, as(layers.IPProtocolTCP)),
		"ICMP":            w.toGateway(t, source, sipPort, []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}, as(layers.IPProtocolICMPv4)),
		"fragment":        w.toGateway(t, source, sipPort, sip, withIP(func(ip *layers.IPv4) { ip.FragOffset = 100 })),
		"IP options":      patch(w.toGateway(t, source, sipPort, sip, func(f *frame) { f.noSum = true }), 14, 0x46),
		"another address": w.toGateway(t, source, at(anotherAddr, 5060), sip),
	}
	for _, frame := range frames {
		from.send(t, frame)
	}
	media := []call.Flow{named, learned}
	for _, f := range media {
		from.send(t, w.toGateway(t, source, f.Key.Local, rtp(1, 160, 1)))
	}
	from.send(t, w.toGateway(t, at(stranger, 5060), sipPort, sip))
	got := w.marked(t, from, behind)
	if got[at(stranger, sipPort.Port())] != 1 {
		t.Errorf("SIP of a source that is not denied did not arrive: %v", got)
	}
	for key, n := range got {
		if key.Addr() == deniedOne {
			t.Errorf("%d packets of a denied source to port %d have passed", n, key.Port())
		}
	}
	exits := exitsOf(t, e)
	for exit, want := range map[call.Exit]uint64{
		{Realm: platform, Verdict: "drop", Reason: "denied"}:               uint64(len(frames)),
		{Realm: platform, Verdict: "drop", Reason: call.ExitSourceRefused}: uint64(len(media)),
		{Realm: platform, Verdict: "forward", Reason: call.ExitForwarded}:  0,
	} {
		if exits[exit] != want {
			t.Errorf("%+v: %d packets, want %d", exit, exits[exit], want)
		}
	}
}

// echo answers the known peer, as a SIP stack would; strangers have no address to answer to.
func echo(conn *net.UDPConn) {
	buf := make([]byte, 2048)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return // closed by the test's end
		}
		if from.Addr().Unmap() != platformPeer.Addr() {
			continue
		}
		if _, err := conn.WriteToUDPAddrPort(buf[:n], from); err != nil {
			return
		}
	}
}

// traffic is what one source sends to one port, and what shall pass of it.
type traffic struct {
	source       netip.Addr
	to           netip.AddrPort
	rate, limit  float64 // per second; no limit is 0
	sent, passed int
	worth        float64 // packets that may pass at this time
	last         float64
}

// passes counts a packet that was sent at a time, in s: a second's worth at once, and what each second brings.
func (s *traffic) passes(now float64) {
	if s.worth = min(s.worth+(now-s.last)*s.limit, s.limit+1); s.sent == 0 {
		s.worth = s.limit + 1
	}
	s.last = now
	if s.limit == 0 || s.worth >= 1 {
		s.passed++
		s.worth--
	}
}

// TestBudgets: a stranger who floods gets through what his budgets say per second, one for SIP and one for other UDP,
// a second's worth at once; one who keeps to them gets all through, and so does a known peer at any rate. The SIP
// socket answers him all the while (A3).
func TestBudgets(t *testing.T) {
	const sipRate, udpRate, flood, quiet = 100, 40, 1000, 80
	w := newWire(t)
	cfg := w.config("")
	cfg.Guard = Guard{SIPPerSecond: sipRate, UDPPerSecond: udpRate}
	cfg.Realms[0].SIPPort, cfg.Realms[0].Peers = sipPort.Port(), []netip.Addr{platformPeer.Addr()}
	e := w.start(t, cfg)
	go echo(w.listen(t, sipPort))
	from, behind := newTap(t, w.platform.space, "tdmpeer"), newTap(t, w.gateway, "tdmplat")

	// A known peer who asks one question after the other, and waits for each answer.
	known := w.platform.dial(t, at(platformPeer.Addr(), 5060), sipPort)
	asked, slowest := 0, time.Duration(0)
	ask := func() {
		t.Helper()
		began := time.Now()
		if err := known.SetReadDeadline(began.Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := known.Write([]byte("OPTIONS")); err != nil {
			t.Fatal(err)
		}
		if _, err := known.Read(make([]byte, 100)); err != nil {
			t.Fatalf("the SIP socket does not answer a known peer: %v", err)
		}
		asked++
		slowest = max(slowest, time.Since(began))
	}

	streams := []*traffic{
		{source: stranger, to: sipPort, rate: flood, limit: sipRate},
		{source: stranger, to: otherPort, rate: flood, limit: udpRate},
		{source: quietOne, to: sipPort, rate: quiet, limit: sipRate},
		{source: platformPeer.Addr(), to: otherPort, rate: flood},
	}
	began := time.Now()
	const length = 2 * time.Second
	for time.Since(began) < length {
		for _, s := range streams {
			for due := time.Since(began).Seconds() * s.rate; float64(s.sent) < due; s.sent++ {
				from.send(t, w.toGateway(t, at(s.source, 5060), s.to, []byte("OPTIONS")))
				s.passes(time.Since(began).Seconds())
			}
		}
		ask()
		time.Sleep(time.Millisecond)
	}
	got := w.marked(t, from, behind)
	for _, s := range streams {
		arrived := got[at(s.source, s.to.Port())]
		// A packet's time at the gateway is not quite that of its sending.
		if off, some := math.Abs(float64(arrived-s.passed)), 0.05*float64(s.passed); off > some || (s.passed == s.sent && off != 0) {
			t.Errorf("%s to port %d: %d packets of %d passed, want %d", s.source, s.to.Port(), arrived, s.sent, s.passed)
		}
		t.Logf("%s to port %d: %d packets of %d passed", s.source, s.to.Port(), arrived, s.sent)
	}
	if streams[0].passed > streams[0].sent/2 {
		t.Errorf("the stranger was to send far more than his budget: %d of %d", streams[0].passed, streams[0].sent)
	}
	if got := got[at(platformPeer.Addr(), sipPort.Port())]; got != asked {
		t.Errorf("%d packets of %d of the known peer's SIP passed", got, asked)
	}
	exits := exitsOf(t, e)
	for i, reason := range []string{"sip-budget", "udp-budget"} {
		arrived := got[at(streams[i].source, streams[i].to.Port())]
		if n := exits[call.Exit{Realm: platform, Verdict: "drop", Reason: reason}]; n != uint64(streams[i].sent-arrived) {
			t.Errorf("%d packets left by %s, want %d", n, reason, streams[i].sent-arrived)
		}
	}
	t.Logf("%d questions of a known peer answered, the slowest in %s", asked, slowest)
}

// refusals counts who is told to be refused, until it is stopped.
type refusals struct {
	bySource map[netip.Addr]int
	started  int
	seen     atomic.Int64
	done     chan struct{}
}

func follow(e *Engine) *refusals {
	r := &refusals{bySource: map[netip.Addr]int{}, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		for event := range e.Events() {
			switch event.Kind {
			case call.MediaRefused:
				r.bySource[event.Source.Addr()]++
			case call.MediaStarted:
				r.started++
			}
			r.seen.Add(1)
		}
	}()
	return r
}

// twice returns the sources that were told more than once.
func (r *refusals) twice() (list []netip.Addr) {
	for source, n := range r.bySource {
		if n != 1 {
			list = append(list, source)
		}
	}
	return list
}

// forger makes frames of sources that do not exist, fast.
type forger struct {
	frame []byte
}

func (f forger) from(source uint32, dst uint16) []byte {
	ip := f.frame[14:34]
	binary.BigEndian.PutUint32(ip[12:], source)
	binary.BigEndian.PutUint16(ip[10:], 0)
	binary.BigEndian.PutUint16(ip[10:], ^sumIPv4(ip))
	binary.BigEndian.PutUint16(f.frame[36:], dst)
	return f.frame
}

func (w *wire) newForger(t *testing.T) forger {
	t.Helper()
	return forger{w.toGateway(t, at(stranger, 4000), sipPort, rtp(1, 160, 666), func(f *frame) { f.noSum = true })}
}

// TestSprayIsOneEvent: who sprays the media ports is told of once, however many ports and packets he tries (M7).
func TestSprayIsOneEvent(t *testing.T) {
	const sources, packets = 60, 60 // as many sources as are told of at once, and some packets
	w := newWire(t)
	w.platform.space.Run(t, "tc", "qdisc replace dev tdmpeer root pfifo limit 10000") // full rings stop the sender
	e := w.start(t, w.config(""))
	if err := e.Install(twoWay()[:1]); err != nil {
		t.Fatal(err)
	}
	told := follow(e)
	from, forge := newTap(t, w.platform.space, "tdmpeer"), w.newForger(t)
	for i := range uint32(packets) {
		for source := range uint32(sources) {
			from.send(t, forge.from(0x0a000001+source, 20000+uint16(i%4)*100))
		}
	}
	const refused, noFlow = sources * packets / 4, sources * packets * 3 / 4
	exit := func(reason string) uint64 {
		return exitsOf(t, e)[call.Exit{Realm: platform, Verdict: "drop", Reason: reason}]
	}
	for deadline := time.Now().Add(5 * time.Second); exit(call.ExitSourceRefused)+exit(call.ExitNoFlow) < sources*packets; {
		if time.Now().After(deadline) {
			t.Fatalf("%d refused and %d without a flow, want %d and %d", exit(call.ExitSourceRefused), exit(call.ExitNoFlow), refused, noFlow)
		}
		time.Sleep(time.Millisecond)
	}
	told.settle(t, sources)
	shut(t, e)
	<-told.done
	if twice := told.twice(); len(told.bySource) != sources || len(twice) != 0 {
		t.Errorf("%d sources told, want %d; not once: %v", len(told.bySource), sources, twice)
	}
}

// settle waits until so many events were read.
func (r *refusals) settle(t *testing.T, events int64) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); r.seen.Load() < events; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d events, want %d", r.seen.Load(), events)
		}
	}
}

// TestForgedSources: 100,000 sources that do not exist try media, SIP and other ports while a call is on. The table
// of strangers has its size and keeps it, the call loses nothing and nobody gets into it, and of each source there
// is one event or a lost one (M7, A3).
func TestForgedSources(t *testing.T) {
	const sources, each = 100_000, 50
	w := newWire(t)
	w.platform.space.Run(t, "tc", "qdisc replace dev tdmpeer root pfifo limit 10000") // full rings stop the sender
	cfg := w.config("")
	cfg.Guard = Guard{SIPPerSecond: 10, UDPPerSecond: 10}
	cfg.Realms[0].SIPPort = sipPort.Port()
	e := w.start(t, cfg)
	flow := twoWay()[0]
	if err := e.Install([]call.Flow{flow}); err != nil {
		t.Fatal(err)
	}
	told := follow(e)
	size := memlock(t, e.objs.Strangers)
	from, to, forge := newTap(t, w.platform.space, "tdmpeer"), newTap(t, w.peer.space, "tdmpeer"), w.newForger(t)
	ports := []uint16{flow.Key.Local.Port(), 30000, sipPort.Port(), otherPort.Port()}
	began := time.Now()
	for i := range uint32(sources) {
		if i%each == 0 {
			n := i / each
			from.send(t, w.toGateway(t, flow.Remote, flow.Key.Local, rtp(uint16(n), n*160, 7)))
		}
		from.send(t, forge.from(0x0a000001+i, ports[i%4]))
	}
	t.Logf("%d forged packets in %s", sources, time.Since(began).Round(time.Millisecond))
	for n := range uint32(sources / each) {
		if got := to.rtp(t).frame; binary.BigEndian.Uint16(got[44:]) != uint16(n) || binary.BigEndian.Uint32(got[50:]) != 7 {
			t.Fatalf("packet %d of the call: %x", n, got)
		}
	}
	deadline := time.Now().Add(5 * time.Second)
	var s call.FlowStats
	for s.Refused < sources/4 && time.Now().Before(deadline) {
		s = statsOf(t, e, []call.Flow{flow})[0]
		time.Sleep(time.Millisecond)
	}
	if s.Packets != sources/each || s.Lost != 0 || s.Reordered != 0 || s.SSRCChanges != 0 || s.Refused != sources/4 {
		t.Errorf("the call: %+v", s)
	}
	for {
		more, ok := to.read(t, false)
		if !ok {
			break
		}
		// What the kernels say of themselves, ARP and IPv6, may be among it.
		if binary.BigEndian.Uint16(more.frame[12:]) == unix.ETH_P_IP {
			t.Errorf("the call's other end received more than the call: %x", more.frame)
		}
	}
	most, now := int(e.objs.Strangers.MaxEntries()), memlock(t, e.objs.Strangers)
	if entries := entriesOf(t, e); entries > most || now != size {
		t.Errorf("%d strangers of at most %d, in %d bytes that were %d", entries, most, now, size)
	}
	exits := exitsOf(t, e)
	if got := exits[call.Exit{Realm: platform, Verdict: "drop", Reason: call.ExitNoFlow}]; got != sources/4 {
		t.Errorf("%d packets found no flow, want %d", got, sources/4)
	}
	stats, err := e.Stats()
	if err != nil {
		t.Fatal(err)
	}
	told.settle(t, int64(sources/2+1-stats.EventsLost))
	shut(t, e)
	<-told.done
	if twice := told.twice(); len(twice) != 0 {
		t.Errorf("%d sources told more than once: %v", len(twice), twice[:min(len(twice), 10)])
	}
	if n := len(told.bySource) + int(stats.EventsLost); n != sources/2 || told.started != 1 {
		t.Errorf("%d sources told and %d events lost, want %d together; %d streams begun, want 1",
			len(told.bySource), stats.EventsLost, sources/2, told.started)
	}
	t.Logf("%d sources told, %d events lost", len(told.bySource), stats.EventsLost)
}

func entriesOf(t *testing.T, e *Engine) (n int) {
	t.Helper()
	var key tandemSource
	var value tandemStranger
	entries := e.objs.Strangers.Iterate()
	for entries.Next(&key, &value) {
		n++
	}
	if err := entries.Err(); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestLatchIsToldInAnyCase: while nobody reads events, reports of thousands of flows fill half of what the kernel keeps
// for us, and are counted as lost from there on. That a remote was learned is told still: media would go to the wrong
// place for good (M5, M7).
func TestLatchIsToldInAnyCase(t *testing.T) {
	const n = 3000
	b := newBench(t, n)
	var flows []call.Flow
	for i := range uint16(n) {
		f := toCarrier(20000 + i)
		f.RTCP = true
		flows = append(flows, f)
	}
	latch := toCarrier(40000)
	latch.Latch = call.Latch{Window: time.Hour, Allowed: []netip.Prefix{allowed}}
	b.install(t, append(flows, latch)...)
	report := append(rtcp(), make([]byte, call.MaxReport)...)
	for _, f := range flows {
		b.run(t, gateIn(t, f.Key.Local.Port(), withPayload(report)))
	}
	b.run(t, gateIn(t, latch.Key.Local.Port(), withSource("192.0.2.70:4000")))
	stats, err := b.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if stats.EventsLost == 0 {
		t.Fatal("no event was lost: this proves nothing")
	}
	reports, started := 0, 0
	for limit := time.After(5 * time.Second); ; {
		select {
		case event := <-b.Events():
			switch event.Kind {
			case call.MediaReport:
				reports++
			case call.MediaStarted:
				started++
			case call.MediaLatched:
				if event.Key != latch.Key || event.Source != netip.MustParseAddrPort("192.0.2.70:4000") {
					t.Errorf("learned: %+v", event)
				}
				if started != n || reports+int(stats.EventsLost) != n {
					t.Errorf("%d flows begun, %d reports and %d lost; want %d, and %d together", started, reports, stats.EventsLost, n, n)
				}
				return
			}
		case <-limit:
			t.Fatalf("what was learned is not told, after %d reports and %d flows begun", reports, started)
		}
	}
}
