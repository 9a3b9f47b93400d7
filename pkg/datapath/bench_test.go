package datapath

import (
	"encoding/binary"
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
// again unchanged, which skips the arithmetic of jitter (not its clock) and counts as a
// duplicate: those figures flatter.
func ring(b *bench, n int) []call.Flow {
	order := rand.New(rand.NewPCG(1, 2)).Perm(n)
	at := func(i int) (local, remote netip.AddrPort) {
		slot := order[i%n]
		return netip.AddrPortFrom(platformAddr, mediaPorts.First+uint16(slot)),
			netip.AddrPortFrom(carrierAddr, mediaPorts.First+uint16(slot))
	}
	flows := make([]call.Flow, n)
	for i := range flows {
		local, remote := at(i)
		nextLocal, nextRemote := at(i + 1)
		flows[i] = call.Flow{
			Key:       call.FlowKey{Realm: platform, Local: local},
			Remote:    remote,
			OutRealm:  carrier,
			Source:    nextRemote,
			Dest:      nextLocal,
			DSCP:      46,
			ClockRate: 8000,
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

// walk sends packets around the ring and reports ns per packet, as the kernel measures it.
func walk(b *testing.B, flows int, metric string) {
	eng := newBench(b, flows/flowsPerCall+1)
	in := tandemIngress{Realms: 1, Flags: tandemDeviceFlagDEVICE_BURST} // as native XDP is
	if err := eng.objs.Ingress.Put(uint32(1), in); err != nil {
		b.Fatal(err)
	}
	pin(b)
	list := ring(eng, flows)
	// Installed in the order of their ports, so that the walk is a shuffled one.
	for _, f := range list {
		eng.install(b, f)
	}
	inputs := make([][]byte, 0, flows)
	for at := 0; at < flows; at += perRun {
		f := list[at]
		inputs = append(inputs, frame{src: f.Remote, dst: f.Key.Local, ttl: 255, payload: rtp(1, 160, 1)}.build(b))
	}
	go func() {
		for range eng.Events() { // as the daemon does; a full ring would be tried again by each packet
		}
	}()
	var runs []time.Duration
	run := func(in []byte, n int) time.Duration {
		ret, d, err := eng.objs.TandemXdp.Benchmark(in, n, nil)
		if err != nil {
			b.Fatal(err)
		}
		if ret != xdpRedirect {
			b.Fatalf("verdict %d instead of a redirect: %v", ret, eng.exits(b))
		}
		return d
	}
	for _, in := range inputs { // warm up
		run(in, perRun)
	}
	for pass := uint32(2); b.Loop(); pass++ {
		for _, in := range inputs {
			advance(in, pass)
			runs = append(runs, run(in, perRun))
		}
	}
	reportMedian(b, runs, metric)
}

// reportMedian reports the middle run: on a shared machine others' work shows in the mean.
func reportMedian(b *testing.B, runs []time.Duration, metric string) {
	slices.Sort(runs)
	b.ReportMetric(float64(runs[len(runs)/2].Nanoseconds()), metric)
	b.ReportMetric(0, "ns/op")
}

// advance makes an untagged frame the nth packet of its stream. Its UDP checksum does not
// matter to the program.
func advance(in []byte, n uint32) {
	header := in[14+20+8:]
	binary.BigEndian.PutUint16(header[2:], uint16(n))
	binary.BigEndian.PutUint32(header[4:], 160*n)
}

func BenchmarkXDPPlain(b *testing.B) { walk(b, 1, "xdp_plain_ns") }

// BenchmarkXDPPlain250Flows is the smallest ring whose packets are all new to their flows.
func BenchmarkXDPPlain250Flows(b *testing.B) { walk(b, perRun, "xdp_plain_250_flows_ns") }

func BenchmarkXDPPlain20kFlows(b *testing.B) { walk(b, 20000, "xdp_plain_20k_flows_ns") }

// BenchmarkXDPEmpty is the price of a program that does nothing, for comparison.
func BenchmarkXDPEmpty(b *testing.B) {
	s := netspace.New(b)
	s.IP(b, "link add tdmempty type veth peer name tdmpeer")
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.XDP,
		License:      "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()},
	})
	if err != nil {
		b.Fatal(err)
	}
	defer prog.Close()
	s.Do(func() {
		ifi, err := net.InterfaceByName("tdmempty")
		if err != nil {
			b.Error(err)
			return
		}
		attachTo(b, prog, ifi.Index)
	})
	pin(b)
	in := make([]byte, 214)
	var runs []time.Duration
	for b.Loop() {
		_, d, err := prog.Benchmark(in, perRun, nil)
		if err != nil {
			b.Fatal(err)
		}
		runs = append(runs, d)
	}
	reportMedian(b, runs, "xdp_empty_ns")
}
