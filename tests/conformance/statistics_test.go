package conformance

import (
	"slices"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// TestSequence: what a flow counts of sequence numbers (M11; RFC 3550 A.1, A.3).
func TestSequence(t *testing.T) {
	type part struct {
		ssrc uint32
		seqs []uint16
	}
	one := func(seqs ...uint16) []part { return []part{{ssrc, seqs}} }
	through := func(first, last uint16) []uint16 {
		var seqs []uint16
		for seq := first; seq != last+1; seq++ {
			seqs = append(seqs, seq)
		}
		return seqs
	}
	without := func(seqs []uint16, gone ...uint16) []uint16 {
		return slices.DeleteFunc(slices.Clone(seqs), func(seq uint16) bool { return slices.Contains(gone, seq) })
	}
	var rules []rule
	for _, row := range []struct {
		name                                     string
		parts                                    []part
		lost, reordered, duplicated, ssrcChanges uint64
	}{
		{"in order", one(5, 6, 7), 0, 0, 0, 0},
		{"two lost", one(5, 6, 9), 2, 0, 0, 0},
		{"each gap adds up", one(1, 3, 6, 10), 6, 0, 0, 0},
		{"late is reordered, not lost", one(5, 7, 6, 8), 0, 1, 0, 0},
		{"very late", one(1, 2, 4, 5, 6, 7, 8, 9, 10, 3), 0, 1, 0, 0},
		{"all the wrong way round", one(10, 9, 8, 7), 0, 3, 0, 0},
		{"a duplicate", one(5, 6, 6, 7), 0, 0, 1, 0},
		{"the first one twice", one(5, 5, 6), 0, 0, 1, 0},
		{"a duplicate later", one(5, 6, 7, 8, 5, 9), 0, 0, 1, 0},
		{"a duplicate does not hide a loss", one(5, 6, 6, 8), 1, 0, 1, 0},
		{"a late packet twice", one(5, 7, 6, 6, 8), 0, 1, 1, 0},
		{"three times", one(5, 6, 6, 6, 7), 0, 0, 2, 0},
		{"a duplicate 63 back", one(append(through(100, 163), 100, 164)...), 0, 0, 1, 0},
		{"what is 64 back cannot be known", one(append(through(100, 164), 100, 165)...), 0, 1, 0, 0},
		{"late into a gap, 63 back", one(append(without(through(100, 164), 101), 101, 165)...), 0, 1, 0, 0},
		{"a duplicate after a jump of more than 64", one(1, 200, 200, 201), 198, 0, 1, 0},
		{"before the first", one(5, 4, 6), 0, 1, 0, 0},
		{"over the wrap", one(65534, 65535, 0, 1), 0, 0, 0, 0},
		{"lost over the wrap", one(65534, 2), 3, 0, 0, 0},
		{"late over the wrap", one(65534, 0, 65535, 1), 0, 1, 0, 0},
		{"a duplicate over the wrap", one(65534, 65535, 0, 65535, 1), 0, 0, 1, 0},
		{"numbers started anew", one(5, 7, 30000, 30001, 30002), 1, 0, 0, 0},
		{"numbers started anew backwards", one(30000, 30002, 5, 6, 8), 2, 0, 0, 0},
		{"the widest gap that is loss", one(0, 2999, 3000), 2998, 0, 0, 0},
		{"a wider one is a new start", one(0, 3000, 3001), 0, 0, 0, 0},
		{"another source", []part{{ssrc, []uint16{5, 7}}, {9, []uint16{40000, 40003}}}, 3, 0, 0, 1},
		{"another source at the same number", []part{{ssrc, []uint16{5, 6}}, {9, []uint16{6, 7}}}, 0, 0, 0, 1},
		{"there and back", []part{{ssrc, []uint16{5, 6}}, {9, []uint16{100, 102}}, {ssrc, []uint16{7, 8}}}, 1, 0, 0, 2},
	} {
		rules = append(rules, rule{"M11 " + row.name, func(t *testing.T, r *rig) {
			f := up()
			r.install(f)
			var sent [][]byte
			reports := []call.MediaEvent{started(f)}
			for i, part := range row.parts {
				for _, seq := range part.seqs {
					sent = append(sent, spoken(part.ssrc, seq))
				}
				if i > 0 {
					reports = append(reports, call.MediaEvent{Key: f.Key, Kind: call.MediaSSRC, Source: f.Remote, SSRC: part.ssrc})
				}
			}
			r.send(f, sent...)
			r.arrive(by(f, sent...)) // duplicates and all: it is not for us to repair
			want := counted(sent...)
			want.Lost, want.Reordered, want.Duplicated, want.SSRCChanges = row.lost, row.reordered, row.duplicated, row.ssrcChanges
			r.stats(f, want)
			r.events(reports...)
		}})
	}
	rules = append(rules,
		rule{"M11 a cycle of numbers and more", func(t *testing.T, r *rig) {
			f := up()
			r.install(f)
			var want call.FlowStats
			for n := 0; n < 70000; n += 1000 { // each 1000th, so 999 between two are lost
				r.send(f, rtp{pt: pcma, seq: uint16(n), ssrc: ssrc}.bytes())
				want.Packets++
				want.Bytes += 12
			}
			want.Lost, want.SSRC = 69000-69, ssrc
			r.stats(f, want)
		}},
		rule{"M2 M11 control among RTP counts as packets, and apart", func(t *testing.T, r *rig) {
			f := up()
			r.install(f)
			sent := [][]byte{speech(1), senderReport(1), receiverReport(1), speech(2)}
			r.send(f, sent...)
			want := counted(sent...)
			want.Control = 2
			r.stats(f, want)
		}},
		rule{"M11 on hold the sequence goes on", func(t *testing.T, r *rig) {
			f := up()
			f.Hold = true
			r.install(f)
			r.send(f, numbered(1, 2, 5, 5)...)
			want := counted(numbered(1, 2, 5, 5)...)
			want.Lost, want.Duplicated = 2, 1
			r.stats(f, want)
		}},
	)
	hold(t, rules...)
}

// paced sends each packet so long after the first, and returns when they left.
func (r *rig) paced(f call.Flow, packets [][]byte, after func(i int) time.Duration) []time.Time {
	r.t.Helper()
	left := make([]time.Time, len(packets))
	begin := time.Now()
	for i, p := range packets {
		time.Sleep(time.Until(begin.Add(after(i))))
		left[i] = time.Now()
		r.send(f, p)
	}
	return left
}

// jitterOf is the estimate of RFC 3550 A.8 for packets that left then, clock in Hz.
func jitterOf(left []time.Time, timestamps []uint32, clock int) time.Duration {
	var jitter float64
	for i := 1; i < len(left); i++ {
		sent := float64(int32(timestamps[i]-timestamps[i-1])) / float64(clock)
		d := left[i].Sub(left[i-1]).Seconds() - sent
		jitter += (max(d, -d) - jitter) / 16
	}
	return time.Duration(jitter * float64(time.Second))
}

// Tolerances of what is measured: an engine's clock runs a little after the sender's, and
// the machine is shared.
const (
	jitterTolerance = 3 * time.Millisecond
	gapTolerance    = 15 * time.Millisecond
)

// TestTimes: jitter by the codec's clock, the longest pause, the first packet and the
// last (M11; RFC 3550 A.8).
func TestTimes(t *testing.T) {
	const packets, interval = 60, 20 * time.Millisecond
	var rules []rule
	for _, clock := range []int{8000, 48000} {
		name := map[int]string{8000: "8 kHz", 48000: "48 kHz"}[clock]
		rules = append(rules, rule{"M11 jitter of packets that are late by turns at " + name, func(t *testing.T, r *rig) {
			f := up()
			f.ClockRate = uint32(clock)
			r.install(f)
			var sent [][]byte
			var timestamps []uint32
			for i := range packets {
				// The timestamps wrap on the way.
				timestamps = append(timestamps, uint32(i*clock/50)-uint32(clock/2))
				sent = append(sent, rtp{pt: pcma, seq: uint16(i), timestamp: timestamps[i], ssrc: ssrc}.bytes())
			}
			left := r.paced(f, sent, func(i int) time.Duration {
				return time.Duration(i)*interval + time.Duration(i%2)*12*time.Millisecond
			})
			got := r.stats(f, counted(sent...)).Jitter
			if want := jitterOf(left, timestamps, clock); (got - want).Abs() > jitterTolerance {
				t.Errorf("%s: jitter %v, want %v within %v", r.name, got, want, jitterTolerance)
			}
		}})
	}
	rules = append(rules,
		rule{"M11 no clock, no jitter", func(t *testing.T, r *rig) {
			f := up()
			f.ClockRate = 0
			r.install(f)
			sent := numbered(1, 2, 3, 4, 5, 6, 7, 8)
			r.paced(f, sent, func(i int) time.Duration { return time.Duration(i*i) * time.Millisecond })
			if got := r.stats(f, counted(sent...)).Jitter; got != 0 {
				t.Errorf("%s: jitter %v, want none", r.name, got)
			}
		}},
		rule{"M11 repeated timestamps and telephone-events say nothing of jitter", func(t *testing.T, r *rig) {
			f := up()
			f.Payloads = []call.Payload{{In: pcma, Out: pcma}, {In: events, Out: events, Treatment: call.TelephoneEvent}}
			r.install(f)
			var sent [][]byte
			var spokenAt []time.Duration
			var timestamps []uint32
			for i := range packets {
				p := rtp{pt: pcma, seq: uint16(i), ssrc: ssrc, payload: []byte("....")}
				// Two packets of speech share a timestamp; then comes an event far off.
				switch i % 3 {
				case 0, 1:
					p.timestamp = uint32(i/3) * 480
				case 2:
					p.pt, p.timestamp, p.payload = events, uint32(i)*4000, []byte{16, 10, 0, 1}
				}
				sent = append(sent, p.bytes())
				if i%3 == 0 {
					timestamps = append(timestamps, p.timestamp)
				}
				spokenAt = append(spokenAt, time.Duration(i)*interval)
			}
			left := r.paced(f, sent, func(i int) time.Duration { return spokenAt[i] })
			var counts []time.Time
			for i := 0; i < packets; i += 3 {
				counts = append(counts, left[i])
			}
			got := r.stats(f, counted(sent...)).Jitter
			if want := jitterOf(counts, timestamps, 8000); (got - want).Abs() > jitterTolerance {
				t.Errorf("%s: jitter %v, want %v within %v", r.name, got, want, jitterTolerance)
			}
		}},
		rule{"M11 the longest pause, control aside; the first packet and the last", func(t *testing.T, r *rig) {
			f := up()
			r.install(f)
			pauses := []time.Duration{0, 10, 20, 320, 330, 400}
			sent := numbered(1, 2, 3, 4, 5, 6)
			sent = slices.Insert(sent, 3, receiverReport(1))
			pauses = slices.Insert(pauses, 3, 170)
			left := r.paced(f, sent, func(i int) time.Duration { return pauses[i] * time.Millisecond })
			counts := counted(sent...)
			counts.Control = 1
			got := r.stats(f, counts)
			if want := left[4].Sub(left[2]); (got.Gap - want).Abs() > gapTolerance {
				t.Errorf("%s: gap %v, want %v within %v", r.name, got.Gap, want, gapTolerance)
			}
			if got.First.Sub(left[0]).Abs() > clockTolerance || got.Last.Sub(left[6]).Abs() > clockTolerance {
				t.Errorf("%s: first %v, last %v, want %v, %v", r.name, got.First, got.Last, left[0], left[6])
			}
		}},
		rule{"M11 control among RTP is the last packet, too", func(t *testing.T, r *rig) {
			f := up()
			r.install(f)
			sent := [][]byte{speech(1), receiverReport(1)}
			left := r.paced(f, sent, func(i int) time.Duration { return time.Duration(i) * 100 * time.Millisecond })
			want := counted(sent...)
			want.Control = 1
			if got := r.stats(f, want); got.Last.Sub(left[1]).Abs() > clockTolerance {
				t.Errorf("%s: last %v, want %v", r.name, got.Last, left[1])
			}
		}},
		rule{"M8 M11 what is refused or out of policy is no packet of the flow", func(t *testing.T, r *rig) {
			f := up()
			f.Payloads = []call.Payload{{In: pcma, Out: pcma}}
			r.install(f)
			left := r.paced(f, [][]byte{speech(1), {}, ofType(speech(2), 99, false)}, func(i int) time.Duration {
				return time.Duration(i) * 50 * time.Millisecond
			})
			r.sendFrom(elsewhere(platform, 9), f, speech(3))
			want := counted(speech(1))
			want.Refused, want.OutOfPolicy = 1, 2
			if got := r.stats(f, want); got.Last.Sub(left[0]).Abs() > clockTolerance || got.Gap != 0 {
				t.Errorf("%s: last %v, gap %v, want %v, 0", r.name, got.Last, got.Gap, left[0])
			}
		}},
		rule{"M8 held packets are a sign of life", func(t *testing.T, r *rig) {
			f := up()
			f.Hold = true
			r.install(f)
			sent := numbered(1, 2)
			left := r.paced(f, sent, func(i int) time.Duration { return time.Duration(i) * 100 * time.Millisecond })
			if got := r.stats(f, counted(sent...)); got.Last.Sub(left[1]).Abs() > clockTolerance {
				t.Errorf("%s: last %v, want %v", r.name, got.Last, left[1])
			}
		}},
	)
	hold(t, rules...)
}
