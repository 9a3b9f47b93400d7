package quality

import (
	"math"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

const ms = time.Millisecond

// sent is a stream as it came to us.
func sent(packets, lost uint64, jitter time.Duration) call.FlowStats {
	return call.FlowStats{Packets: packets, Lost: lost, Jitter: jitter}
}

// TestLegMOS rates what one side sends as the other hears it (M11). The categories are
// those of G.109: above 4.34 very satisfied, below 3.6 many dissatisfied.
func TestLegMOS(t *testing.T) {
	for _, c := range []struct {
		name     string
		leg      Leg
		from, to float64
	}{
		{"nothing is wrong", Leg{Codec: "PCMA", Stats: sent(1000, 0, 0)}, 4.36, 4.41},
		{"a usual network", Leg{Codec: "PCMA", Stats: sent(1000, 1, 3*ms),
			Near: Report{RTT: 20 * ms}, Far: Report{RTT: 30 * ms}}, 4.34, 4.40},
		{"1 % lost before us", Leg{Codec: "PCMA", Stats: sent(990, 10, 0)}, 4.25, 4.36},
		{"1 % lost behind us", Leg{Codec: "PCMA", Stats: sent(1000, 0, 0), Far: Report{Lost: 10, Behind: 10}}, 4.25, 4.36},
		{"5 % lost", Leg{Codec: "PCMA", Stats: sent(950, 50, 0)}, 3.8, 4.0},
		{"all lost behind us", Leg{Codec: "PCMA", Stats: sent(1000, 0, 0), Far: Report{Lost: 1000, Behind: 1000}}, 1, 1.3},
		{"jitter of 30 ms", Leg{Codec: "PCMA", Stats: sent(1000, 0, 30*ms)}, 4.0, 4.25},
		{"jitter that only the other side sees", Leg{Codec: "PCMA", Stats: sent(1000, 0, 0), Far: Report{Jitter: 30 * ms}}, 4.0, 4.25},
		{"jitter beyond any buffer", Leg{Codec: "PCMA", Stats: sent(1000, 0, 200*ms)}, 1, 2.2},
		{"a satellite on each side", Leg{Codec: "PCMA", Stats: sent(1000, 0, 0),
			Near: Report{RTT: 540 * ms}, Far: Report{RTT: 540 * ms}}, 1.7, 2.7},
		{"G.729", Leg{Codec: "G729", Stats: sent(1000, 0, 0)}, 4.0, 4.1},
		{"duplicates do not make up for loss", Leg{Codec: "PCMA",
			Stats: call.FlowStats{Packets: 1000, Duplicated: 50, Lost: 50}}, 3.8, 4.0},
		{"RTCP among the RTP does not make up for loss", Leg{Codec: "PCMA",
			Stats: call.FlowStats{Packets: 1950, Control: 1000, Lost: 50}}, 3.8, 4.0},
	} {
		if mos := c.leg.MOS(); !(mos >= c.from && mos <= c.to) {
			t.Errorf("%s: %.3f, want %v to %v", c.name, mos, c.from, c.to)
		}
	}
}

// TestLegMOSNotKnown: 0 is said, and nothing made up.
func TestLegMOSNotKnown(t *testing.T) {
	for name, leg := range map[string]Leg{
		"nothing came":            {Codec: "PCMA"},
		"less than a second came": {Codec: "PCMA", Stats: sent(49, 0, 0)},
		"most of it was RTCP":     {Codec: "PCMA", Stats: call.FlowStats{Packets: 1000, Control: 960}},
		"no values for the codec": {Codec: "opus", Stats: sent(1000, 0, 0)},
		"no codec":                {Stats: sent(1000, 0, 0)},
	} {
		if mos := leg.MOS(); mos != 0 {
			t.Errorf("%s: %v", name, mos)
		}
	}
}

// TestPlayout: the buffer follows the jitter within its limits, and what is late for it
// is what the exponential distribution says.
func TestPlayout(t *testing.T) {
	for _, c := range []struct {
		jitter, buffer time.Duration
		late           float64
	}{
		{0, 40 * ms, 0},
		{-ms, 40 * ms, 0},
		{ms, 40 * ms, 0},
		{10 * ms, 60 * ms, 0.0025},
		{30 * ms, 180 * ms, 0.0025},
		{50 * ms, 200 * ms, 0.0183},
		{200 * ms, 200 * ms, 0.3679},
		{math.MaxInt64, 200 * ms, 1},
	} {
		buffer, late := playout(c.jitter)
		if buffer != c.buffer || math.Abs(late-c.late) > 0.0001 {
			t.Errorf("jitter %v: buffer %v, late %.4f; want %v, %.4f", c.jitter, buffer, late, c.buffer, c.late)
		}
	}
}

// TestLegMOSAllocatesNothing: it is computed for every call at every scrape.
func TestLegMOSAllocatesNothing(t *testing.T) {
	leg := Leg{Codec: "GSM-EFR", Stats: sent(1000, 10, 5*ms), Near: Report{RTT: 40 * ms}, Far: Report{RTT: 300 * ms}}
	if n := testing.AllocsPerRun(100, func() { leg.MOS() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkScrape rates both legs of 10,000 calls, as one scrape does: its share of 50 ms.
func BenchmarkScrape(b *testing.B) {
	var reports Reports
	legs := []Leg{
		{Codec: "PCMA", Stats: sent(1000, 10, 5*ms), Near: Report{RTT: 40 * ms}, Far: Report{RTT: 60 * ms}},
		{Codec: "G728", Stats: sent(1000, 10, 20*ms), Near: Report{RTT: 40 * ms}, Far: Report{RTT: 300 * ms}},
	}
	for b.Loop() {
		for range 10_000 {
			for side := range legs {
				reports.Of(call.Side(side), legs[side].Stats, 8000)
				legs[side].MOS()
			}
		}
	}
}
