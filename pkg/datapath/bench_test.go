package datapath

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/tests/netspace"
)

// perRun is the number of packets in one program run: each costs the packet a hop, and
// TTL starts at 255.
const perRun = 250

// A program run with repeat hands the program its own output. So the flows of a
// benchmark form a ring: each sends to the next one's port, from the next one's remote,
// and the packet walks around it. In the order of the walk neighbours are far apart in
// memory. From perRun flows on, each flow sees one packet a pass, the next of its stream,
// and the program does all that it does in service. With fewer flows the packet comes by
// again unchanged, which counts as a duplicate.
type walk struct {
	flows  int
	metric string
	// realms that the ring leads through, one after the other: more flows than a realm has
	// ports need several, and tagged ones show what tags cost.
	realms []uint16
	// shape changes flow i of the ring.
	shape func(i int, f *call.Flow)
	// payload type of the first packet.
	payloadType uint8
}

// tags says how packets arrive in a realm.
var tags = map[uint16][]uint16{taggedPlatform: {201}, doubleTagged: {300, 201}}

// ring makes the flows, in the order of the walk.
func (w walk) ring() []call.Flow {
	order := rand.New(rand.NewPCG(1, 2)).Perm(w.flows)
	realm := func(slot int) uint16 { return w.realms[slot%len(w.realms)] }
	port := func(slot int) uint16 { return mediaPorts.First + uint16(slot/len(w.realms)) }
	flows := make([]call.Flow, w.flows)
	for i := range flows {
		slot, next := order[i], order[(i+1)%w.flows]
		flows[i] = call.Flow{
			Key:       call.FlowKey{Realm: realm(slot), Local: netip.AddrPortFrom(platformAddr, port(slot))},
			Remote:    netip.AddrPortFrom(platformAddr, port(slot)),
			OutRealm:  realm(next),
			Source:    netip.AddrPortFrom(platformAddr, port(next)),
			Dest:      netip.AddrPortFrom(platformAddr, port(next)),
			DSCP:      46,
			ClockRate: 8000,
			Payloads:  []call.Payload{{In: 8, Out: 8}, {In: 101, Out: 101, Treatment: call.TelephoneEvent}},
		}
		if w.shape != nil {
			w.shape(i, &flows[i])
		}
	}
	return flows
}

// pin keeps the benchmark on one CPU, as a receive queue is.
func pin(b *testing.B) {
	b.Helper()
	runtime.LockOSThread()
	var former, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &former); err != nil {
		b.Fatal(err)
	}
	cpu := 0
	for !former.IsSet(cpu) {
		cpu++
	}
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = unix.SchedSetaffinity(0, &former)
		runtime.UnlockOSThread()
	})
}

// newWalkBench is a bench whose device hands packets over in bursts, as one with native XDP
// does: 16 packets share a reading of the clock. A program run is one long burst.
func newWalkBench(b *testing.B, flows int) *bench {
	eng := newBench(b, flows/flowsPerCall+1)
	in := tandemIngress{Realms: 1, Flags: tandemDeviceFlagDEVICE_BURST}
	if err := eng.objs.Ingress.Put(uint32(1), in); err != nil {
		b.Fatal(err)
	}
	go func() {
		for range eng.Events() { // as the daemon does
		}
	}()
	return eng
}

// run sends packets around the ring and reports ns per packet, as the kernel measures it.
func (w walk) run(b *testing.B) {
	if w.realms == nil {
		w.realms = []uint16{platform}
	}
	if w.payloadType == 0 {
		w.payloadType = 8
	}
	eng := newWalkBench(b, w.flows)
	pin(b)
	list := w.ring()
	eng.install(b, list...)
	inputs := make([][]byte, 0, w.flows/perRun)
	headers := make([]int, 0, w.flows/perRun)
	for at := 0; at < w.flows; at += perRun {
		f := list[at]
		payload := rtp(1, 160, 1)
		payload[1] = w.payloadType
		vlans := tags[f.Key.Realm]
		inputs = append(inputs, frame{src: f.Remote, dst: f.Key.Local, vlans: vlans, ttl: 255, payload: payload}.build(b))
		headers = append(headers, 14+4*len(vlans)+20+8)
	}
	var runs []time.Duration
	once := func(in []byte) time.Duration {
		ret, d, err := eng.objs.TandemXdp.Benchmark(in, perRun, nil)
		if err != nil {
			b.Fatal(err)
		}
		if ret != xdpTX {
			b.Fatalf("verdict %d instead of being sent: %v", ret, eng.exits(b))
		}
		return d
	}
	for _, in := range inputs { // warm up
		once(in)
	}
	for pass := uint32(2); b.Loop(); pass++ {
		for i, in := range inputs {
			advance(in[headers[i]:], pass)
			runs = append(runs, once(in))
		}
	}
	reportMedian(b, runs, w.metric)
}

// reportMedian reports the middle run: on a shared machine others' work shows in the mean.
func reportMedian(b *testing.B, runs []time.Duration, metric string) {
	slices.Sort(runs)
	b.ReportMetric(float64(runs[len(runs)/2].Nanoseconds()), metric)
	b.ReportMetric(0, "ns/op")
}

// advance makes RTP the nth packet of its stream. Its UDP checksum does not matter to the
// program.
func advance(rtp []byte, n uint32) {
	binary.BigEndian.PutUint16(rtp[2:], uint16(n))
	binary.BigEndian.PutUint32(rtp[4:], 160*n)
}

// Counts of flows that each way is measured with; the middle one has no suffix in the
// metric's name, but for plain.
const (
	one      = 1
	thousand = 1000
	many     = 100_000
)

// each measures a way with each count of flows. 100,000 of them lead through three realms,
// since one has no more than 64,512 ports: two thirds of the packets are tagged on their way.
func (w walk) each(b *testing.B, name, middle string) {
	for _, n := range []struct {
		flows  int
		suffix string
	}{{one, "_1"}, {thousand, middle}, {many, "_100k"}} {
		w.flows, w.metric = n.flows, "xdp_"+name+n.suffix+"_ns"
		if n.flows == many {
			w.realms = []uint16{platform, taggedPlatform, doubleTagged}
		}
		b.Run(fmt.Sprint(n.flows), w.run)
	}
}

func BenchmarkXDPPlain(b *testing.B) { walk{}.each(b, "plain", "_1k") }

func BenchmarkXDPVLAN(b *testing.B) { walk{realms: []uint16{taggedPlatform}}.each(b, "vlan", "") }

// BenchmarkXDPLatch is a flow that has learned its source.
func BenchmarkXDPLatch(b *testing.B) {
	walk{shape: func(_ int, f *call.Flow) {
		f.Latch = call.Latch{Window: time.Hour, Generation: 1, Allowed: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
	}}.each(b, "latch", "")
}

// BenchmarkXDPPayloadType is the way by the table: a payload type that is not the main one,
// and is changed.
func BenchmarkXDPPayloadType(b *testing.B) {
	walk{payloadType: 96, shape: func(_ int, f *call.Flow) {
		f.Payloads = []call.Payload{{In: 8, Out: 8}, {In: 96, Out: 97}, {In: 97, Out: 96}}
	}}.each(b, "pt", "")
}

// BenchmarkXDPALaw converts to mu-law and back by turns, so that the packet keeps its sense.
func BenchmarkXDPALaw(b *testing.B) {
	walk{shape: func(i int, f *call.Flow) {
		f.Payloads = []call.Payload{
			{In: 8, Out: 0, Treatment: call.ALawToULaw},
			{In: 0, Out: 8, Treatment: call.ULawToALaw},
		}
		if i%2 == 1 {
			slices.Reverse(f.Payloads)
		}
	}}.each(b, "alaw", "")
}

// refused is the price of a packet that is dropped, over and over from one source.
func refused(b *testing.B, metric, exit string, in frame) {
	eng := newWalkBench(b, 4)
	pin(b)
	raw := in.build(b)
	var runs []time.Duration
	for b.Loop() {
		verdict, d, err := eng.objs.TandemXdp.Benchmark(raw, perRun, nil)
		if err != nil {
			b.Fatal(err)
		}
		if verdict != xdpDrop {
			b.Fatalf("verdict %d: %v", verdict, eng.exits(b))
		}
		runs = append(runs, d)
	}
	if eng.exits(b)[exit] == 0 {
		b.Fatalf("nothing left by %s: %v", exit, eng.exits(b))
	}
	reportMedian(b, runs, metric)
}

func BenchmarkXDPMiss(b *testing.B) {
	refused(b, "xdp_miss_ns", "drop no-flow", frame{
		src: carrierPeer, dst: netip.AddrPortFrom(platformAddr, 20000), payload: rtp(1, 160, 1),
	})
}

func BenchmarkXDPDeny(b *testing.B) {
	refused(b, "xdp_deny_ns", "drop denied", frame{
		src: netip.AddrPortFrom(denied.Addr().Next(), 5060), dst: netip.AddrPortFrom(platformAddr, 5060), payload: make([]byte, 500),
	})
}

// BenchmarkXDPFloor is a program that parses the same headers and redirects.
func BenchmarkXDPFloor(b *testing.B) {
	var objs floorObjects
	if err := loadFloorObjects(&objs, nil); err != nil {
		b.Fatal(err)
	}
	defer objs.Close()
	in := frame{src: platformPeer, dst: netip.AddrPortFrom(platformAddr, 20000), payload: rtp(1, 160, 1)}.build(b)
	bare(b, objs.FloorXdp, objs.Out, in, xdpRedirect, "xdp_floor_ns")
}

// BenchmarkXDPEmpty is the price of a program that does nothing.
func BenchmarkXDPEmpty(b *testing.B) {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.XDP,
		License:      "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()},
	})
	if err != nil {
		b.Fatal(err)
	}
	defer prog.Close()
	bare(b, prog, nil, make([]byte, 214), xdpPass, "xdp_empty_ns")
}

// bare measures a program without an engine. It is attached to a device meanwhile, as the
// engine's is, and sends to that if it has a map to redirect by.
func bare(b *testing.B, prog *ebpf.Program, out *ebpf.Map, in []byte, verdict uint32, metric string) {
	s := netspace.New(b)
	s.IP(b, "link add tdmbare type veth peer name tdmpeer")
	s.Do(func() {
		ifi, err := net.InterfaceByName("tdmbare")
		if err != nil {
			b.Error(err)
			return
		}
		if out != nil {
			if err := out.Put(uint32(0), uint32(ifi.Index)); err != nil {
				b.Error(err)
			}
		}
		attachTo(b, prog, ifi.Index)
	})
	pin(b)
	var runs []time.Duration
	for b.Loop() {
		ret, d, err := prog.Benchmark(in, perRun, nil)
		if err != nil {
			b.Fatal(err)
		}
		if ret != verdict {
			b.Fatalf("verdict %d instead of %d", ret, verdict)
		}
		runs = append(runs, d)
	}
	reportMedian(b, runs, metric)
}
