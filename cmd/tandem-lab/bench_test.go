package main

import (
	"bytes"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
)

// TestGoBenchFigures: every metric in ns that a benchmark names goes in, as the median of
// its runs.
func TestGoBenchFigures(t *testing.T) {
	b := &bench{out: io.Discard}
	err := b.addGoBench(`goos: linux
BenchmarkXDPFloor-2       	      40	        41.0 xdp_floor_ns
BenchmarkXDPPlain100k-2   	      12	        98.0 xdp_plain_100k_ns
BenchmarkSelect200-2      	      12	        1500 ns/op	     0 B/op	 0 allocs/op	   980.5 trunk_select_ns	     0 trunk_select_allocs
BenchmarkXDPFloor-2       	      40	        39.0 xdp_floor_ns
BenchmarkXDPFloor-2       	      40	        55.0 xdp_floor_ns
PASS
`)
	if err != nil {
		t.Fatal(err)
	}
	want := []figure{{"xdp_floor_ns", 41, "ns"}, {"xdp_plain_100k_ns", 98, "ns"}, {"trunk_select_ns", 980.5, "ns"}, {"trunk_select_allocs", 0, "allocations"}}
	if !slices.Equal(b.figures, want) {
		t.Errorf("got %v, want %v", b.figures, want)
	}
	if err := b.addGoBench("PASS\n"); err == nil {
		t.Error("no metric at all is no error")
	}
}

// TestSearch finds the capacity of a path that delivers less when it gets too much.
func TestSearch(t *testing.T) {
	const capacity, flood = 100_000, 1_000_000
	send := func(rate int) (transfer, error) {
		offered := float64(rate)
		if rate == 0 {
			offered = flood
		}
		delivered := min(offered, capacity)
		if offered > 1.5*capacity {
			delivered = 0.7 * capacity
		}
		return transfer{offered: offered, delivered: delivered, loss: 1 - delivered/offered}, nil
	}
	best, peak, err := search(send)
	if err != nil {
		t.Fatal(err)
	}
	if best.delivered < 0.97*capacity || best.delivered > capacity {
		t.Errorf("without loss: %.0f of %d", best.delivered, capacity)
	}
	if peak.delivered != capacity {
		t.Errorf("the most: %.0f of %d", peak.delivered, capacity)
	}
}

// TestMediaResult: differences and ratios are those of a round, not of the medians.
func TestMediaResult(t *testing.T) {
	r := mediaResult{}
	for i, slow := range []float64{1, 10, 2} { // what the machine did besides
		for _, kind := range pathKinds() {
			m := measured{pps: 1000 / slow, lossless: 1000 / slow, cpu: 100 * slow, p50: slow, p99: 3 * slow}
			if kind.name == pathKernel {
				m.pps, m.p50 = 2*m.pps, m.p50+float64(i+1)
			}
			r[kind.name] = append(r[kind.name], m)
		}
	}
	if got := r.over(pathKernel, pathRelay); got != 2 {
		t.Errorf("the kernel engine does %v times the relay, want 2", got)
	}
	if got := r.added(pathKernel, p50); math.Abs(got-2) > 1e-9 {
		t.Errorf("it adds %v µs, want 2", got)
	}
	var out bytes.Buffer
	if err := r.print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"2.0 times the relay (aim: 3)", "kernel 1 000 2.00"} {
		if !strings.Contains(strings.Join(strings.Fields(out.String()), " "), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	b := &bench{out: io.Discard}
	for _, kind := range pathKinds() {
		b.recordMedia(r, kind.name)
	}
	names := map[string]bool{}
	for _, f := range b.figures {
		names[f.Name] = true
	}
	for _, want := range []string{
		"e2e_kernel_pps", "e2e_relay_pps", "e2e_nat_pps", "e2e_floor_pps", "e2e_kernel_cpu_ns",
		"e2e_kernel_added_us_p50", "e2e_kernel_added_us_p99", "e2e_relay_added_us_p99", "e2e_nat_added_us_p99",
	} {
		if !names[want] {
			t.Errorf("no figure %s", want)
		}
	}
}
