package resolve

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

func endpoint(addr, host string, priority, weight uint16) Endpoint {
	return Endpoint{netip.MustParseAddrPort(addr), host, priority, weight}
}

// TestPickByWeight: the shares are those of the weights (RFC 2782), a host's share is its
// own however many addresses it has, and without weights all are alike.
func TestPickByWeight(t *testing.T) {
	const n = 100_000
	for name, tt := range map[string]struct {
		endpoints []Endpoint
		want      map[string]float64 // by address, of 1
	}{
		"5 to 2": {
			[]Endpoint{endpoint("192.0.2.1:5060", "a", 0, 5), endpoint("192.0.2.2:5060", "b", 0, 2)},
			map[string]float64{"192.0.2.1:5060": 5. / 7, "192.0.2.2:5060": 2. / 7},
		},
		"1 to 1": {
			[]Endpoint{endpoint("192.0.2.1:5060", "a", 0, 1), endpoint("192.0.2.2:5060", "b", 0, 1)},
			map[string]float64{"192.0.2.1:5060": .5, "192.0.2.2:5060": .5},
		},
		"two addresses": {
			[]Endpoint{endpoint("192.0.2.1:5060", "a", 0, 1), endpoint("192.0.2.2:5060", "a", 0, 1), endpoint("192.0.2.3:5060", "b", 0, 1)},
			map[string]float64{"192.0.2.1:5060": .25, "192.0.2.2:5060": .25, "192.0.2.3:5060": .5},
		},
		"two ports of a host": {
			[]Endpoint{endpoint("192.0.2.1:5060", "a", 0, 3), endpoint("192.0.2.1:5062", "a", 0, 1)},
			map[string]float64{"192.0.2.1:5060": .75, "192.0.2.1:5062": .25},
		},
		"no weights": {
			[]Endpoint{endpoint("192.0.2.1:5060", "a", 0, 0), endpoint("192.0.2.2:5060", "b", 0, 0), endpoint("192.0.2.3:5060", "c", 0, 0)},
			map[string]float64{"192.0.2.1:5060": 1. / 3, "192.0.2.2:5060": 1. / 3, "192.0.2.3:5060": 1. / 3},
		},
		"weight 0 has a small chance": {
			[]Endpoint{endpoint("192.0.2.1:5060", "a", 0, 0), endpoint("192.0.2.2:5060", "b", 0, 9)},
			map[string]float64{"192.0.2.1:5060": .1, "192.0.2.2:5060": .9},
		},
		"lowest priority only": {
			[]Endpoint{endpoint("192.0.2.1:5060", "a", 2, 65535), endpoint("192.0.2.2:5060", "b", 1, 1)},
			map[string]float64{"192.0.2.2:5060": 1},
		},
	} {
		s, got := newSet(tt.endpoints), make(map[string]float64)
		random := rand.New(rand.NewPCG(1, 2)).Uint32N
		for range n {
			at, ok := s.Pick(random, nil)
			if !ok {
				t.Fatalf("%s: nothing picked", name)
			}
			got[at.String()] += 1. / n
		}
		for at := range got {
			if math.Abs(got[at]-tt.want[at]) > .01 {
				t.Errorf("%s: %s has %.3f of the calls, want %.3f", name, at, got[at], tt.want[at])
			}
		}
	}
}

// TestPick: whatever is alive, Pick finds a target of the lowest priority that has one,
// asks of each once at most, and can reach every one of that priority.
func TestPick(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var endpoints []Endpoint
		for i := range rapid.IntRange(0, 80).Draw(t, "targets") {
			endpoints = append(endpoints, Endpoint{
				Addr:     netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), uint16(5060+rapid.IntRange(0, 1).Draw(t, "port"))),
				Host:     fmt.Sprintf("h%d", rapid.IntRange(0, 20).Draw(t, "host")),
				Priority: uint16(rapid.IntRange(0, 3).Draw(t, "priority")),
				Weight:   uint16(rapid.SampledFrom([]int{0, 0, 1, 2, 65535}).Draw(t, "weight")),
			})
		}
		s := newSet(endpoints)
		if s.Len() > maxEndpoints {
			t.Fatalf("%d targets", s.Len())
		}
		up, best, asked := make(map[netip.AddrPort]bool), -1, make(map[netip.AddrPort]int)
		for i := range s.Len() {
			e := s.At(i)
			if up[e.Addr] = rapid.Bool().Draw(t, "alive"); up[e.Addr] && best < 0 {
				best = int(e.Priority)
			}
		}
		at, ok := s.Pick(rand.Uint32N, func(a netip.AddrPort) bool { asked[a]++; return up[a] })
		if ok != (best >= 0) {
			t.Fatalf("picked: %v, lowest priority alive: %d", ok, best)
		}
		for i := range s.Len() {
			if e := s.At(i); ok && e.Addr == at && (!up[at] || int(e.Priority) != best) {
				t.Errorf("picked %+v, but priority %d is alive", e, best)
			}
		}
		for a, n := range asked {
			if n > 1 {
				t.Errorf("%s was asked about %d times", a, n)
			}
		}
	})
}

// TestSetEqual: in which order an answer has its records makes no other set of it, and an
// address counts once.
func TestSetEqual(t *testing.T) {
	a, b := endpoint("192.0.2.1:5060", "a", 1, 5), endpoint("192.0.2.2:5060", "b", 1, 2)
	twice := endpoint("192.0.2.1:5060", "b", 2, 2)
	if s, o := newSet([]Endpoint{a, b}), newSet([]Endpoint{b, twice, a, a}); !s.Equal(o) || s.Len() != 2 {
		t.Errorf("%+v is not %+v", o, s)
	}
	heavier := a
	heavier.Weight++
	if newSet([]Endpoint{a, b}).Equal(newSet([]Endpoint{heavier, b})) {
		t.Error("another weight is a change")
	}
	if s := newSet([]Endpoint{a}); !s.Contains(netip.MustParseAddr("192.0.2.1")) || s.Contains(netip.MustParseAddr("192.0.2.2")) {
		t.Error("Contains")
	}
}

// largest is a set as large as there is.
func largest() Set {
	var endpoints []Endpoint
	for i := range maxEndpoints {
		endpoints = append(endpoints, endpoint(fmt.Sprintf("192.0.2.%d:5060", i), fmt.Sprintf("h%d", i/2), 1, uint16(i/2)))
	}
	return newSet(endpoints)
}

func TestPickDoesNotAllocate(t *testing.T) {
	s := largest()
	alive := func(a netip.AddrPort) bool { return a.Addr().As4()[3] > 30 }
	if n := testing.AllocsPerRun(1000, func() { s.Pick(rand.Uint32N, alive) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkPick(b *testing.B) {
	s := largest()
	alive := func(a netip.AddrPort) bool { return a.Addr().As4()[3] > 30 }
	b.ReportAllocs()
	for b.Loop() {
		s.Pick(rand.Uint32N, alive)
	}
}
