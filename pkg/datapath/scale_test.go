package datapath

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/tests/netspace"
)

// aCall is the four flows of a call between peers that no other call has.
func aCall(i int) []call.Flow {
	peer := func(net byte, port uint16) netip.AddrPort {
		return at(netip.AddrFrom4([4]byte{10, net, byte(i >> 8), byte(i)}), port)
	}
	local := 20000 + uint16(2*i)
	var flows []call.Flow
	for control := range uint16(2) {
		there := call.Flow{
			Key:    call.FlowKey{Realm: platform, Local: at(platformAddr, local+control)},
			Remote: peer(1, 30000+control), OutRealm: carrier, Source: at(carrierAddr, local+control), Dest: peer(2, 40000+control),
			DSCP: 46, ClockRate: 8000, RTCP: control == 1,
		}
		back := there
		back.Key, back.OutRealm = call.FlowKey{Realm: carrier, Local: there.Source}, platform
		back.Remote, back.Source, back.Dest = there.Dest, there.Key.Local, there.Remote
		flows = append(flows, there, back)
	}
	return flows
}

func calls(first, end int) (flows []call.Flow) {
	for i := first; i < end; i++ {
		flows = append(flows, aCall(i)...)
	}
	return flows
}

// wantEmpty asserts that nothing leads anywhere.
func (b *bench) wantEmpty(t *testing.T) {
	t.Helper()
	for at := range b.table.flows {
		if active := b.table.flows[at].Active; active != 0 {
			t.Fatalf("flow %d is active still: rule %d", at, active)
		}
	}
	if len(b.flows) != 0 || len(b.Engine.hops.byKey) != 0 {
		t.Errorf("%d flows and %d next hops are kept", len(b.flows), len(b.Engine.hops.byKey))
	}
	ids := b.Engine.hops.ids
	if out, resting := ids.next-1, uint32(len(ids.resting)-ids.head); out != resting {
		t.Errorf("%d ids of next hops were given out, %d came back", out, resting)
	}
	if b.hops.watched != b.hops.stopped {
		t.Errorf("%d next hops watched, %d let go", b.hops.watched, b.hops.stopped)
	}
	if s, err := b.Stats(); err != nil || s.Flows != 0 {
		t.Errorf("%d flows in the statistics (%v)", s.Flows, err)
	}
}

// cpuTime is what the process has used, by user and system.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

// TestTenThousandCalls: 10,000 calls are set up in batches, forward, are read at once, and are taken down; nothing
// of them is left (M1). One scrape over all of them takes less than 50 ms (M11).
func TestTenThousandCalls(t *testing.T) {
	const n, batch = 10000, 100
	b := newBench(t, n)
	flows := calls(0, n)
	began := time.Now()
	for part := range slices.Chunk(flows, 4*batch) {
		b.install(t, part...)
	}
	installed := time.Since(began)
	if s, err := b.Stats(); err != nil || s.Flows != 4*n {
		t.Fatalf("%d flows (%v)", s.Flows, err)
	}
	// One packet for each RTP flow of the platform; only there do program runs come in.
	sent := 0
	for _, f := range flows {
		if f.Key.Realm == platform && !f.RTCP {
			if verdict, _ := b.run(t, frame{src: f.Remote, dst: f.Key.Local, payload: rtp(1, 160, 1)}.build(t)); verdict != xdpRedirect {
				t.Fatalf("flow to %v: action %d", f.Key.Local, verdict)
			}
			sent++
		}
	}

	all := keys(flows)
	wall, cpu := time.Hour, time.Hour
	for range 5 {
		before, start := cpuTime(t), time.Now()
		stats, err := b.Snapshot(all)
		wall, cpu = min(wall, time.Since(start)), min(cpu, cpuTime(t)-before)
		if err != nil {
			t.Fatal(err)
		}
		packets := uint64(0)
		for _, s := range stats {
			packets += s.Packets
		}
		if packets != uint64(sent) {
			t.Fatalf("%d packets in the statistics, want %d", packets, sent)
		}
	}
	limit := 50 * time.Millisecond
	if raceDetector {
		limit *= 10 // it makes everything some ten times slower
	}
	if cpu > limit {
		t.Errorf("a scrape of %d flows took %s of CPU, want %s at most", len(all), cpu, limit)
	}

	began = time.Now()
	for part := range slices.Chunk(all, 4*batch) {
		if _, err := b.Remove(part); err != nil {
			t.Fatal(err)
		}
	}
	removed := time.Since(began)
	t.Logf("%d calls: installed in %s, removed in %s, read in %s (%s of CPU)", n, installed, removed, wall, cpu)
	b.wantEmpty(t)
	want := map[string]uint64{"forward forwarded": uint64(sent)}
	for exit, packets := range b.exits(t) {
		if packets != want[exit] {
			t.Errorf("%d packets left by %q, want %d", packets, exit, want[exit])
		}
	}
	// Late packets of ended calls.
	for _, f := range []call.Flow{flows[0], flows[len(flows)-4]} {
		if verdict, _ := b.run(t, frame{src: f.Remote, dst: f.Key.Local, payload: rtp(2, 320, 1)}.build(t)); verdict != xdpDrop {
			t.Errorf("a packet after the end: action %d", verdict)
		}
	}
	if got := b.exits(t)["drop "+call.ExitNoFlow]; got != 2 {
		t.Errorf("%d packets found no flow, want 2", got)
	}
}

// TestFull: the call too many is refused as a whole, and so is a list that would also change flows that are there;
// those go on as they were (M1). A call that ends makes room.
func TestFull(t *testing.T) {
	const n = 500
	b := newBench(t, n)
	flows := calls(0, n)
	b.install(t, flows...)
	watched := b.hops.watched

	elsewhere := flows[0]
	elsewhere.Dest, elsewhere.DSCP = at(netip.MustParseAddr("10.9.9.9"), 9), 0
	if err := b.Install(append([]call.Flow{elsewhere}, aCall(n)...)); !errors.Is(err, ErrFull) {
		t.Fatalf("call %d: %v instead of ErrFull", n+1, err)
	}
	if s, err := b.Stats(); err != nil || s.Flows != 4*n {
		t.Errorf("%d flows (%v), want %d", s.Flows, err, 4*n)
	}
	if held := b.hops.watched - b.hops.stopped; held != watched {
		t.Errorf("%d next hops are held, want %d", held, watched)
	}
	payload := rtp(1, 160, 1)
	f := flows[0]
	_, got := b.run(t, frame{src: f.Remote, dst: f.Key.Local, payload: payload}.build(t))
	want := frame{src: f.Source, dst: f.Dest, ttl: 63, tos: f.DSCP << 2, payload: payload, sent: true}.build(t)
	if !slices.Equal(got, want) {
		t.Errorf("after a refused change is sent\n%x\nwant\n%x", got, want)
	}
	g := aCall(n)[0]
	if verdict, _ := b.run(t, frame{src: g.Remote, dst: g.Key.Local, payload: payload}.build(t)); verdict != xdpDrop {
		t.Errorf("a flow of the refused call: action %d", verdict)
	}

	if _, err := b.Remove(keys(aCall(7))); err != nil {
		t.Fatal(err)
	}
	b.install(t, aCall(n)...)
	if _, err := b.Remove(keys(calls(0, n+1))); err != nil {
		t.Fatal(err)
	}
	b.wantEmpty(t)
}

// TestMemory states what the maps take with the default of 16,384 calls, by the kernel's own account, in bytes, and
// what each media port has of it.
func TestMemory(t *testing.T) {
	netspace.NeedRoot(t)
	// RTP and RTCP of each call at both of its sides.
	ports := call.PortRange{First: 16384, Last: 16384 + 2*defaultMaxCalls - 1}
	realms := []Realm{
		{Number: platform, Points: []Point{{Ifindex: 2}}, Addr: platformAddr, Media: ports},
		{Number: carrier, Points: []Point{{Ifindex: 3}}, Addr: carrierAddr, Media: ports},
	}
	spec, err := plan(planSizes(defaultMaxCalls, realms, 0), Guard{})
	if err != nil {
		t.Fatal(err)
	}
	maps, err := newMaps(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := maps.close(); err != nil {
			t.Error(err)
		}
	}()
	type use struct {
		name  string
		bytes uint64
	}
	var uses []use
	var all, perPort uint64
	for name, m := range maps {
		bytes := memlock(t, m)
		uses = append(uses, use{fmt.Sprintf("%s (%s, %d entries of %d bytes)", name, m.Type(), m.MaxEntries(), m.ValueSize()), bytes})
		all += bytes
		if slices.Contains([]string{tandemMapFlows, tandemMapRares, tandemMapPolicies}, name) {
			perPort += uint64(m.ValueSize())
		}
	}
	slices.SortFunc(uses, func(a, b use) int { return int(b.bytes) - int(a.bytes) })
	for _, u := range uses {
		t.Logf("%10d bytes  %s", u.bytes, u.name)
	}
	t.Logf("%10d bytes for %d calls in two realms with %d ports each; %d bytes a port", all, defaultMaxCalls, realms[0].ports(), perPort)
	if all > 64<<20 {
		t.Errorf("the maps take %d bytes: more than 64 MiB", all)
	}
}

func memlock(t *testing.T, m *ebpf.Map) uint64 {
	t.Helper()
	info, err := m.Info()
	if err != nil {
		t.Fatal(err)
	}
	bytes, _ := info.Memlock() // none for the deny list, whose entries are made as they come
	return bytes
}
