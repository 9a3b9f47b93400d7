package datapath

import (
	"runtime"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// onOneCPU keeps the test on the CPU that it is on: a reading of the clock is each CPU's own.
func onOneCPU(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Fatal(err)
	}
	for cpu := 0; one.Count() == 0; cpu++ {
		if before.IsSet(cpu) {
			one.Set(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.SchedSetaffinity(0, &before); err != nil {
			t.Error(err)
		}
		runtime.UnlockOSThread()
	})
}

// times runs n packets of a flow and returns how many in a row had the same time.
func (b *bench) times(t *testing.T, f call.Flow, n int, run func(in []byte)) (groups []int) {
	t.Helper()
	var former uint64
	for i := range n {
		run(frame{src: f.Remote, dst: f.Key.Local, payload: rtp(uint16(i), uint32(i)*160, 1)}.build(t))
		if last := b.table.flows[port(b, f.Key.Local.Port())].Counters.Last; last != former {
			groups, former = append(groups, 0), last
		}
		groups[len(groups)-1]++
	}
	return groups
}

// TestBurstClock: packets that one CPU is handed in one go share a reading of the clock, 16 of them at most, and none
// after the kernel has polled a device; so jitter and gaps are off by no more than a burst takes (M11).
// Without bursts each packet has its own time.
func TestBurstClock(t *testing.T) {
	b := newBench(t, 10)
	xdp := func(in []byte) { b.run(t, in) }
	tc := func(in []byte) { b.runTC(t, in, false) }
	bursts := tandemDeviceFlagDEVICE_XDP | tandemDeviceFlagDEVICE_BURST
	endBurst := func(t *testing.T) {
		t.Helper()
		if _, err := b.objs.TandemBurst.Run(&ebpf.RunOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	begin := func(t *testing.T, flags tandemDeviceFlag) call.Flow {
		t.Helper()
		onOneCPU(t) // here, since each subtest is a goroutine of its own
		if err := b.mark(1, flags); err != nil {
			t.Fatal(err)
		}
		endBurst(t)
		f := toCarrier(20000)
		b.install(t, f)
		t.Cleanup(func() { b.remove(t, f.Key) })
		return f
	}
	t.Run("in bursts", func(t *testing.T) {
		f := begin(t, bursts)
		groups := b.times(t, f, 40, xdp)
		if len(groups) != 3 || groups[0] != 16 || groups[1] != 16 || groups[2] != 8 {
			t.Errorf("%v packets share a time, want 16, 16 and 8", groups)
		}
	})
	t.Run("a poll ends the burst", func(t *testing.T) {
		f := begin(t, bursts)
		groups := b.times(t, f, 9, func(in []byte) {
			endBurst(t)
			xdp(in)
		})
		if len(groups) != 9 {
			t.Errorf("%v packets share a time, want none", groups)
		}
	})
	t.Run("gaps stay whole", func(t *testing.T) {
		f := begin(t, bursts)
		in := frame{src: f.Remote, dst: f.Key.Local, payload: rtp(1, 160, 1)}.build(t)
		const pause = 30 * time.Millisecond
		for range 3 {
			xdp(in)
			xdp(in)
			endBurst(t)
			time.Sleep(pause)
		}
		if s := b.remove(t, f.Key); s.Gap < pause || s.Last.Sub(s.First) < 2*pause-time.Millisecond {
			t.Errorf("longest gap %s, first to last %s; want %s and %s at least", s.Gap, s.Last.Sub(s.First), pause, 2*pause)
		}
	})
	t.Run("without bursts", func(t *testing.T) {
		f := begin(t, tandemDeviceFlagDEVICE_XDP)
		if groups := b.times(t, f, 20, xdp); len(groups) != 20 {
			t.Errorf("%v packets share a time, want none", groups)
		}
	})
	t.Run("in TC", func(t *testing.T) {
		f := begin(t, bursts)
		if groups := b.times(t, f, 20, tc); len(groups) != 20 {
			t.Errorf("%v packets share a time, want none: bpf/README.md", groups)
		}
	})
}
