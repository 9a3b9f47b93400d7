package datapath

import (
	"slices"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// packetOf is one RTP packet of a statistics story.
type packetOf struct {
	seq  uint16
	ts   uint32
	ssrc uint32
	rtcp bool
}

func seqs(list ...uint16) []packetOf {
	var ps []packetOf
	for _, seq := range list {
		ps = append(ps, packetOf{seq: seq, ts: uint32(seq) * 160, ssrc: 1})
	}
	return ps
}

// TestSequenceStatistics tells what loss and reordering are (M11, RFC 3550 A.1 and A.3).
func TestSequenceStatistics(t *testing.T) {
	other := func(ps []packetOf) []packetOf {
		for i := range ps {
			ps[i].ssrc = 2
		}
		return ps
	}
	join := func(parts ...[]packetOf) []packetOf {
		var all []packetOf
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	rows := []struct {
		name            string
		packets         []packetOf
		lost, reordered uint64
	}{
		{"in order", seqs(1, 2, 3, 4), 0, 0},
		{"two lost", seqs(1, 2, 5, 6), 2, 0},
		{"late, not lost", seqs(1, 3, 2, 4), 0, 1},
		{"late for the very first", seqs(10, 9, 11), 0, 1},
		{"twice", seqs(1, 2, 2, 3), 0, 0},
		{"wraps", seqs(65534, 65535, 0, 1), 0, 0},
		{"lost across the wrap", seqs(65534, 1), 2, 0},
		{"late across the wrap", seqs(65535, 1, 0, 2), 0, 1},
		{"starts at 0 and one is late", seqs(0, 65535, 1), 0, 1},
		{"one stray packet", seqs(1, 2, 30000, 3), 0, 0},
		{"one stray packet hides no loss", seqs(1, 2, 30000, 3, 5), 1, 0},
		{"sender starts anew", seqs(1, 2, 30000, 30001, 30003), 1, 0},
		{"another SSRC starts anew, losses add up", join(seqs(1, 3), other(seqs(500, 502))), 2, 0},
		{"RTCP in between", join(seqs(1, 2), []packetOf{{rtcp: true}}, seqs(4, 5)), 1, 0},
		{"RTCP first", join([]packetOf{{rtcp: true}}, seqs(1, 2)), 0, 0},
	}
	b := newBench(t, 100)
	for i, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			f := toCarrier(uint16(20000 + 2*i))
			b.install(t, f)
			bytes := uint64(0)
			for _, p := range row.packets {
				payload := rtp(p.seq, p.ts, p.ssrc)
				if p.rtcp {
					payload = rtcp()
				}
				bytes += uint64(len(payload))
				b.run(t, frame{src: f.Remote, dst: f.Key.Local, payload: payload}.build(t))
			}
			s := b.remove(t, f.Key)
			if s.Packets != uint64(len(row.packets)) || s.Bytes != bytes {
				t.Errorf("%d packets of %d bytes, want %d of %d", s.Packets, s.Bytes, len(row.packets), bytes)
			}
			if s.Lost != row.lost || s.Reordered != row.reordered {
				t.Errorf("lost %d, reordered %d; want %d, %d", s.Lost, s.Reordered, row.lost, row.reordered)
			}
		})
	}
}

func (b *bench) remove(tb testing.TB, keys ...call.FlowKey) call.FlowStats {
	tb.Helper()
	stats, err := b.Remove(keys)
	if err != nil {
		tb.Fatal(err)
	}
	return stats[0]
}

// TestJitter: packets whose timestamps are 20 ms apart come at once, so that the transit
// time changes by 20 ms each; the estimate goes 1/16 of the way with each (RFC 3550 6.4.1).
func TestJitter(t *testing.T) {
	b := newBench(t, 100)
	f := toCarrier(20000)
	b.install(t, f)
	start := time.Now()
	const n = 20
	for i := range n + 1 {
		b.run(t, frame{src: f.Remote, dst: f.Key.Local, payload: rtp(uint16(i), uint32(i)*160, 1)}.build(t))
	}
	took := time.Since(start) / n
	want := 0.0
	for range n {
		want += (float64(20*time.Millisecond) - want) / 16
	}
	got := b.remove(t, f.Key)
	if low := time.Duration(want) - took - time.Millisecond; got.Jitter < low || got.Jitter > time.Duration(want)+time.Millisecond {
		t.Errorf("jitter %v, want %v to %v", got.Jitter, low, time.Duration(want))
	}

	// The updates of a telephone-event repeat its timestamp (RFC 4733): no jitter.
	b.install(t, f)
	for i := range n {
		b.run(t, frame{src: f.Remote, dst: f.Key.Local, payload: rtp(uint16(i), 160, 1)}.build(t))
	}
	if got := b.remove(t, f.Key); got.Jitter != 0 {
		t.Errorf("jitter %v of one timestamp", got.Jitter)
	}
}

// TestTimes: first and last packet in time of day.
func TestTimes(t *testing.T) {
	b := newBench(t, 100)
	f := toCarrier(20000)
	b.install(t, f)
	in := frame{src: f.Remote, dst: f.Key.Local, payload: rtp(1, 160, 1)}.build(t)
	stats, err := b.Snapshot([]call.FlowKey{f.Key})
	if err != nil {
		t.Fatal(err)
	}
	if !stats[0].First.IsZero() || !stats[0].Last.IsZero() {
		t.Errorf("times %v, %v before any packet", stats[0].First, stats[0].Last)
	}
	// The clocks are read one after the other, so allow for a millisecond between them.
	before := time.Now().Add(-time.Millisecond)
	b.run(t, in)
	b.run(t, in)
	after := time.Now().Add(time.Millisecond)
	s := b.remove(t, f.Key)
	if s.First.Before(before) || s.Last.After(after) || !s.First.Before(s.Last) {
		t.Errorf("first %v, last %v; sent from %v to %v", s.First, s.Last, before, after)
	}
}

// TestExitNames: an exit that both engines have is called the same (package relay names its
// own by these words).
func TestExitNames(t *testing.T) {
	spec, err := loadTandem()
	if err != nil {
		t.Fatal(err)
	}
	names, err := exitNames(spec)
	if err != nil {
		t.Fatal(err)
	}
	for reason, verdict := range map[string]string{
		call.ExitForwarded:     "forward",
		call.ExitNoFlow:        "drop",
		call.ExitSourceRefused: "drop",
		call.ExitNotRTP:        "drop",
		call.ExitNotRTCP:       "drop",
		call.ExitHold:          "drop",
	} {
		if !slices.Contains(names, call.Exit{Reason: reason, Verdict: verdict}) {
			t.Errorf("the program has no exit %q with the verdict %q: %v", reason, verdict, names)
		}
	}
}
