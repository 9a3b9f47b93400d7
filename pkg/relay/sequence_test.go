package relay

import (
	"testing"
	"time"
)

// TestSequence: loss is expected minus received, never below 0; order, and what comes
// twice, are counted apart (RFC 3550 A.1, A.3; M11).
func TestSequence(t *testing.T) {
	type part struct {
		ssrc uint32
		seqs []uint16
	}
	for _, tt := range []struct {
		name                        string
		parts                       []part
		lost, reordered, duplicated uint64
	}{
		{name: "nothing came"},
		{name: "in order", parts: []part{{1, []uint16{5, 6, 7}}}},
		{name: "two lost", parts: []part{{1, []uint16{5, 6, 9}}}, lost: 2},
		{name: "late", parts: []part{{1, []uint16{5, 7, 6, 8}}}, reordered: 1},
		{name: "before the first", parts: []part{{1, []uint16{5, 4, 6}}}, reordered: 1},
		{name: "before the first, at 0", parts: []part{{1, []uint16{0, 65535, 1}}}, reordered: 1},
		{name: "duplicate", parts: []part{{1, []uint16{5, 6, 6, 7}}}, duplicated: 1},
		{name: "duplicates do not hide loss", parts: []part{{1, []uint16{5, 5, 5, 8}}}, lost: 2, duplicated: 2},
		{name: "late duplicate", parts: []part{{1, []uint16{5, 6, 7, 5}}}, duplicated: 1},
		{name: "late, and again", parts: []part{{1, []uint16{5, 7, 6, 6}}}, reordered: 1, duplicated: 1},
		{name: "duplicate over the wrap", parts: []part{{1, []uint16{65535, 0, 65535}}}, duplicated: 1},
		{name: "before the first, and again", parts: []part{{1, []uint16{5, 4, 4}}}, reordered: 1, duplicated: 1},
		{name: "oldest that is told", parts: []part{{1, []uint16{0, 63, 0}}}, lost: 62, duplicated: 1},
		{name: "too old to tell", parts: []part{{1, []uint16{0, 64, 0}}}, lost: 62, reordered: 1},
		{name: "gap that clears the window", parts: []part{{1, []uint16{0, 2999, 2998, 2999}}}, lost: 2997, reordered: 1, duplicated: 1},
		{name: "same number of another sender", parts: []part{{1, []uint16{5}}, {2, []uint16{5}}}},
		{name: "after a new start", parts: []part{{1, []uint16{5, 30000, 30001, 30000, 30001, 29999}}}, reordered: 1, duplicated: 2},
		{name: "wraps", parts: []part{{1, []uint16{65534, 65535, 0, 2}}}, lost: 1},
		{name: "late over the wrap", parts: []part{{1, []uint16{65534, 0, 65535, 1}}}, reordered: 1},
		{name: "another sender", parts: []part{{1, []uint16{5, 7}}, {2, []uint16{40000, 40003}}}, lost: 3},
		{name: "one stray number hides no loss", parts: []part{{1, []uint16{5, 30000, 6, 8}}}, lost: 1},
		{name: "too late to be late", parts: []part{{1, []uint16{500, 400, 501, 502}}}},
		{name: "numbers started anew", parts: []part{{1, []uint16{5, 7, 30000, 30001}}}, lost: 1},
		{name: "largest gap that is loss", parts: []part{{1, []uint16{0, 2999}}}, lost: 2998},
		{name: "gap too large for loss", parts: []part{{1, []uint16{0, 3000}}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s sequence
			for _, p := range tt.parts {
				for i, seq := range p.seqs {
					s.received(p.ssrc, seq, uint32(i)*160, time.Duration(i)*20*time.Millisecond, 8000)
				}
			}
			if s.lost(s.got) != tt.lost || s.reordered != tt.reordered || s.duplicated != tt.duplicated {
				t.Errorf("lost %d, reordered %d, duplicated %d; want %d, %d, %d",
					s.lost(s.got), s.reordered, s.duplicated, tt.lost, tt.reordered, tt.duplicated)
			}
		})
	}
}

// TestJitter: the estimate of RFC 3550 A.8, in time whatever the clock rate.
func TestJitter(t *testing.T) {
	const interval = 20 * time.Millisecond
	run := func(clock uint32, packets int, late func(i int) time.Duration) time.Duration {
		var s sequence
		for i := range packets {
			at := time.Duration(i)*interval + late(i)
			s.received(1, uint16(i), uint32(i)*clock/50, at, clock)
		}
		return s.jitterTime()
	}
	if got := run(8000, 200, func(int) time.Duration { return 0 }); got != 0 {
		t.Errorf("on time: %v, want 0", got)
	}
	if got := run(8000, 200, func(int) time.Duration { return time.Second }); got != 0 {
		t.Errorf("always late alike: %v, want 0", got)
	}
	for _, clock := range []uint32{8000, 48000} {
		// Every second packet is 8 ms late, so each differs by 8 ms from the one before.
		got := run(clock, 500, func(i int) time.Duration { return time.Duration(i%2) * 8 * time.Millisecond })
		if got < 7*time.Millisecond || got > 8*time.Millisecond {
			t.Errorf("clock %d: %v, want nearly 8ms", clock, got)
		}
	}
	// One packet 16 ms late in an even stream adds 1/16 of it, twice.
	got := run(8000, 3, func(i int) time.Duration { return time.Duration(i%2) * 16 * time.Millisecond })
	if want := 1937500 * time.Nanosecond; got != want {
		t.Errorf("one late packet: %v, want %v", got, want)
	}
}

// TestJitterOfOddStreams: what is no sign of the network adds nothing.
func TestJitterOfOddStreams(t *testing.T) {
	for name, timestamp := range map[string]func(i int) uint32{
		"event updates repeat a timestamp (RFC 4733)": func(int) uint32 { return 160 },
		"timestamps are noise":                        func(i int) uint32 { return uint32(i%2) << 31 },
		"timestamps wrap":                             func(i int) uint32 { return uint32(i)*160 - 800 },
	} {
		var s sequence
		for i := range 1000 {
			s.received(1, uint16(i), timestamp(i), time.Duration(i)*20*time.Millisecond, 8000)
		}
		if got := s.jitterTime(); got != 0 {
			t.Errorf("%s: %v, want 0", name, got)
		}
	}
	var s sequence
	for i := range 1000 {
		s.received(1, uint16(i), uint32(i)*160, time.Duration(i)*time.Minute, 8000)
	}
	if got := s.jitterTime(); got > maxTransit || got < maxTransit-time.Millisecond {
		t.Errorf("a minute between packets: %v, want nearly %v", got, maxTransit)
	}
	s = sequence{}
	for i := range 10 {
		s.received(1, uint16(i), uint32(i)*7, time.Duration(i)*time.Second, 0)
	}
	if got := s.jitterTime(); got != 0 {
		t.Errorf("no clock rate: %v, want 0", got)
	}
}
