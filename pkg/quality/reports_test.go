package quality

import (
	"errors"
	"testing"
	"time"

	"github.com/pion/rtcp"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// The caller is on the ingress side and sends callerSSRC, the callee on the egress side.
const (
	callerSSRC = 0xca11e400
	calleeSSRC = 0xca11ee00
)

var answered = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// wire is a compound packet as peers send it: a report and a description.
func wire(t testing.TB, report rtcp.Packet) []byte {
	t.Helper()
	packet, err := rtcp.Marshal([]rtcp.Packet{report, rtcp.NewCNAMESourceDescription(callerSSRC, "peer@198.51.100.1")})
	if err != nil {
		t.Fatal(err)
	}
	return packet
}

func (r *Reports) add(t testing.TB, from call.Side, after time.Duration, report rtcp.Packet) {
	t.Helper()
	if err := r.Add(from, wire(t, report), answered.Add(after)); err != nil {
		t.Fatal(err)
	}
}

// units is a duration in 1/65536 s.
func units(d time.Duration) uint32 { return uint32(d * 65536 / time.Second) }

// ntp is a sender's clock, which is not ours: 1 h ahead.
func ntp(after time.Duration) uint64 {
	at := answered.Add(after + time.Hour)
	seconds := uint64(at.Unix() + 2208988800)
	return seconds<<32 | uint64(at.Nanosecond())<<32/1e9
}

// lsr is what a receiver gives back of it.
func lsr(after time.Duration) uint32 { return uint32(ntp(after) >> 16) }

// TestReportOfASide: loss, fraction and jitter as the peer says, and what was lost
// behind us of it (M2, M11).
func TestReportOfASide(t *testing.T) {
	var r Reports
	r.add(t, call.Egress, 5*time.Second, &rtcp.ReceiverReport{SSRC: calleeSSRC, Reports: []rtcp.ReceptionReport{{
		SSRC: callerSSRC, FractionLost: 64, TotalLost: 30, LastSequenceNumber: 1000, Jitter: 80,
	}}})
	// The caller's stream as it came to us misses 20 already.
	got := r.Of(call.Egress, call.FlowStats{Packets: 980, Lost: 20}, 8000)
	want := Report{Lost: 30, Behind: 10, Fraction: 0.25, Jitter: 10 * ms}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if other := r.Of(call.Ingress, call.FlowStats{Packets: 1000}, 8000); other != (Report{}) {
		t.Errorf("the other side has said nothing, and is given %+v", other)
	}
	if opus := r.Of(call.Egress, call.FlowStats{Packets: 980}, 48000); opus.Jitter != 80*time.Second/48000 {
		t.Errorf("80 units at 48 kHz are %v", opus.Jitter)
	}
	if unknown := r.Of(call.Egress, call.FlowStats{Packets: 980}, 0); unknown.Jitter != 0 {
		t.Errorf("without a clock rate 80 units are %v", unknown.Jitter)
	}
}

// TestRoundTrip is measured with our clock alone: a report of the caller passes at 5 s,
// reaches the callee 30 ms later, which holds it for 2 s; the answer takes 50 ms back.
// Each way round, in sender and in receiver reports.
func TestRoundTrip(t *testing.T) {
	for _, c := range []struct {
		name   string
		from   call.Side
		ssrc   uint32
		answer func([]rtcp.ReceptionReport) rtcp.Packet
	}{
		{"caller to callee, receiver report", call.Ingress, callerSSRC, func(b []rtcp.ReceptionReport) rtcp.Packet {
			return &rtcp.ReceiverReport{SSRC: calleeSSRC, Reports: b}
		}},
		{"callee to caller, sender report", call.Egress, calleeSSRC, func(b []rtcp.ReceptionReport) rtcp.Packet {
			return &rtcp.SenderReport{SSRC: callerSSRC, NTPTime: ntp(7 * time.Second), Reports: b}
		}},
	} {
		var r Reports
		r.add(t, c.from, 5*time.Second, &rtcp.SenderReport{SSRC: c.ssrc, NTPTime: ntp(4 * time.Second)})
		r.add(t, c.from.Other(), 7080*ms, c.answer([]rtcp.ReceptionReport{{
			SSRC: c.ssrc, LastSenderReport: lsr(4 * time.Second), Delay: units(2 * time.Second),
		}}))
		if got := r.Of(c.from.Other(), call.FlowStats{}, 8000).RTT; got != 80*ms {
			t.Errorf("%s: %v, want 80ms", c.name, got)
		}
		if got := r.Of(c.from, call.FlowStats{}, 8000).RTT; got != 0 {
			t.Errorf("%s: the sender's own round trip is said to be %v", c.name, got)
		}
	}
}

// TestRoundTripRefused: what cannot be true, or answers nothing that passed us.
func TestRoundTripRefused(t *testing.T) {
	for name, block := range map[string]rtcp.ReceptionReport{
		"no sender report yet":          {SSRC: callerSSRC},
		"held for longer than it took":  {SSRC: callerSSRC, LastSenderReport: lsr(0), Delay: units(3 * time.Second)},
		"held for 18 hours":             {SSRC: callerSSRC, LastSenderReport: lsr(0), Delay: 0xffffffff},
		"a timestamp that did not pass": {SSRC: callerSSRC, LastSenderReport: lsr(0) + 1, Delay: units(time.Second)},
		"of another source":             {SSRC: calleeSSRC, LastSenderReport: lsr(0), Delay: units(time.Second)},
	} {
		var r Reports
		r.add(t, call.Ingress, 0, &rtcp.SenderReport{SSRC: callerSSRC, NTPTime: ntp(0)})
		r.add(t, call.Egress, 2*time.Second, &rtcp.ReceiverReport{SSRC: calleeSSRC, Reports: []rtcp.ReceptionReport{block}})
		if got := r.Of(call.Egress, call.FlowStats{}, 8000).RTT; got != 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
	var r Reports
	r.add(t, call.Ingress, 0, &rtcp.SenderReport{SSRC: callerSSRC, NTPTime: ntp(0)})
	r.add(t, call.Egress, 20*time.Second, &rtcp.ReceiverReport{SSRC: calleeSSRC, Reports: []rtcp.ReceptionReport{{
		SSRC: callerSSRC, LastSenderReport: lsr(0), Delay: units(time.Second),
	}}})
	if got := r.Of(call.Egress, call.FlowStats{}, 8000).RTT; got != 0 {
		t.Errorf("longer than anybody would wait: %v", got)
	}
}

// TestRoundTripIsSmooth: one report that was held up changes it by an eighth.
func TestRoundTripIsSmooth(t *testing.T) {
	var r Reports
	for i, trip := range []time.Duration{80 * ms, 160 * ms} {
		passed := time.Duration(i) * 5 * time.Second
		r.add(t, call.Ingress, passed, &rtcp.SenderReport{SSRC: callerSSRC, NTPTime: ntp(passed)})
		r.add(t, call.Egress, passed+time.Second+trip, &rtcp.ReceiverReport{SSRC: calleeSSRC, Reports: []rtcp.ReceptionReport{{
			SSRC: callerSSRC, LastSenderReport: lsr(passed), Delay: units(time.Second),
		}}})
	}
	if got := r.Of(call.Egress, call.FlowStats{}, 8000).RTT; got != 90*ms {
		t.Errorf("%v, want 90ms", got)
	}
}

// TestSenderReportsAreForgotten: the ring holds the last eight, however many come.
func TestSenderReportsAreForgotten(t *testing.T) {
	var r Reports
	for i := range 100 {
		passed := time.Duration(i) * 100 * ms
		r.add(t, call.Ingress, passed, &rtcp.SenderReport{SSRC: callerSSRC, NTPTime: ntp(passed)})
	}
	for _, c := range []struct {
		answered, want time.Duration
	}{{9100 * ms, 0}, {9200 * ms, 50 * ms}} {
		r.add(t, call.Egress, 10*time.Second+50*ms, &rtcp.ReceiverReport{SSRC: calleeSSRC, Reports: []rtcp.ReceptionReport{{
			SSRC: callerSSRC, LastSenderReport: lsr(c.answered), Delay: units(10*time.Second - c.answered),
		}}})
		// DLSR and LSR are in units of 15 us.
		if got := r.Of(call.Egress, call.FlowStats{}, 8000).RTT; (got - c.want).Abs() > 50*time.Microsecond {
			t.Errorf("the report of %v: %v, want %v", c.answered, got, c.want)
		}
	}
}

// TestLossIsPlausible: never less than was said before, never below 0 and never more
// than there were.
func TestLossIsPlausible(t *testing.T) {
	for _, c := range []struct {
		name  string
		total []uint32
		want  uint64
	}{
		{"it grows", []uint32{1, 5, 9}, 9},
		{"late ones were found after all", []uint32{9, 7}, 9},
		{"more duplicates than losses", []uint32{0xffffff}, 0},
		{"more than were sent", []uint32{0x7fffff}, 1000},
	} {
		var r Reports
		for i, total := range c.total {
			r.add(t, call.Egress, time.Duration(i)*time.Second, &rtcp.ReceiverReport{SSRC: calleeSSRC,
				Reports: []rtcp.ReceptionReport{{SSRC: callerSSRC, TotalLost: total}}})
		}
		if got := r.Of(call.Egress, call.FlowStats{Packets: 1090, Control: 100, Lost: 10}, 8000); got.Lost != c.want {
			t.Errorf("%s: %d, want %d", c.name, got.Lost, c.want)
		}
	}
}

// TestJitterIsPlausible: 2^32 units of 8 kHz are six days.
func TestJitterIsPlausible(t *testing.T) {
	var r Reports
	r.add(t, call.Egress, 0, &rtcp.ReceiverReport{SSRC: calleeSSRC, Reports: []rtcp.ReceptionReport{{
		SSRC: callerSSRC, Jitter: 0xffffffff,
	}}})
	if got := r.Of(call.Egress, call.FlowStats{Packets: 1000}, 8000).Jitter; got != 0 {
		t.Error(got)
	}
}

// TestSourceChanges: losses of streams in a row add up, and jitter is that of the last;
// a peer that makes up sources is kept within bounds.
func TestSourceChanges(t *testing.T) {
	var r Reports
	for i := range uint32(2) {
		r.add(t, call.Egress, time.Duration(i)*time.Second, &rtcp.ReceiverReport{SSRC: calleeSSRC, Reports: []rtcp.ReceptionReport{{
			SSRC: callerSSRC + i, TotalLost: 5, Jitter: 8 * (i + 1),
		}}})
	}
	heard := call.FlowStats{Packets: 1000}
	if got := r.Of(call.Egress, heard, 8000); got.Lost != 10 || got.Jitter != 2*ms {
		t.Errorf("%+v", got)
	}
	for i := range uint32(1000) {
		r.add(t, call.Egress, time.Duration(i)*time.Second, &rtcp.ReceiverReport{SSRC: calleeSSRC, Reports: []rtcp.ReceptionReport{{
			SSRC: i, TotalLost: 5,
		}}})
	}
	if got := r.Of(call.Egress, heard, 8000); got.Lost != sources*5 {
		t.Errorf("%+v", got)
	}
}

// TestDamagedPackets: an error says so; what stood before the damage counts, and so does
// what no one here reads.
func TestDamagedPackets(t *testing.T) {
	whole := wire(t, &rtcp.ReceiverReport{SSRC: calleeSSRC, Reports: []rtcp.ReceptionReport{{SSRC: callerSSRC, TotalLost: 5}}})
	report := whole[:32]
	long := append(append([]byte{}, report...), make([]byte, call.MaxReport)...)
	long[32], long[33], long[35] = 0x80, 204, 200 // APP of 804 bytes, cut off
	for _, c := range []struct {
		name   string
		packet []byte
		bad    bool
		lost   uint64
	}{
		{"whole", whole, false, 5},
		{"the report alone (RFC 5506)", report, false, 5},
		{"cut off in the description", whole[:40], true, 5},
		{"cut off after MaxReport", long, true, 5},
		{"cut off in the report", report[:20], true, 0},
		{"cut off in the header", report[:3], true, 0},
		{"nothing", nil, false, 0},
		{"not version 2", append([]byte{0x01}, report[1:]...), true, 0},
		{"more reports than there is room for", append([]byte{0x9f}, report[1:]...), true, 0},
		{"a sender report without room for it", []byte{0x80, 200, 0, 1, 1, 2, 3, 4}, true, 0},
		{"of a type that says nothing of reception", []byte{0x80, 207, 0, 1, 1, 2, 3, 4}, false, 0},
	} {
		var r Reports
		err := r.Add(call.Egress, c.packet, answered)
		if errors.Is(err, ErrBadRTCP) != c.bad || (err != nil) != c.bad {
			t.Errorf("%s: %v", c.name, err)
		}
		if got := r.Of(call.Egress, call.FlowStats{Packets: 1000}, 8000).Lost; got != c.lost {
			t.Errorf("%s: %d lost, want %d", c.name, got, c.lost)
		}
	}
}

// FuzzReports: whatever both sides send, nothing panics, and what is believed stays
// within what we have seen ourselves.
func FuzzReports(f *testing.F) {
	f.Add([]byte{}, []byte{0x80}, uint32(8000), uint64(0))
	f.Add(
		wire(f, &rtcp.SenderReport{SSRC: callerSSRC, NTPTime: ntp(0)}),
		wire(f, &rtcp.SenderReport{SSRC: calleeSSRC, NTPTime: ntp(0), Reports: []rtcp.ReceptionReport{{
			SSRC: callerSSRC, FractionLost: 3, TotalLost: 7, Jitter: 160, LastSenderReport: lsr(0), Delay: units(900 * ms),
		}}}), uint32(8000), uint64(1000))
	f.Add(
		wire(f, &rtcp.ReceiverReport{SSRC: callerSSRC}),
		wire(f, &rtcp.ReceiverReport{SSRC: calleeSSRC, Reports: []rtcp.ReceptionReport{
			{SSRC: callerSSRC, TotalLost: 0xffffff}, {SSRC: 1, TotalLost: 0x7fffff, Jitter: 0xffffffff}, {SSRC: 2}, {SSRC: 3}, {SSRC: 4},
		}}), uint32(1), uint64(10))
	f.Fuzz(func(t *testing.T, caller, callee []byte, rate uint32, packets uint64) {
		var r Reports
		at := answered
		for range 3 {
			for side, packet := range [][]byte{caller, callee} {
				at = at.Add(500 * ms)
				if err := r.Add(call.Side(side), packet, at); err != nil && !errors.Is(err, ErrBadRTCP) {
					t.Fatal(err)
				}
			}
		}
		heard := call.FlowStats{Packets: packets % (1 << 40), Lost: packets % 100}
		for _, side := range []call.Side{call.Ingress, call.Egress} {
			got := r.Of(side, heard, rate)
			if got.Lost > heard.Packets+heard.Lost || got.Behind > got.Lost || got.Fraction < 0 || got.Fraction >= 1 ||
				got.Jitter < 0 || got.Jitter > maxJitter || got.RTT < 0 || got.RTT > maxRTT {
				t.Fatalf("%+v of %+v", got, heard)
			}
			if mos := (Leg{Codec: "PCMA", Stats: heard, Near: got, Far: got}).MOS(); mos != 0 && !(mos >= 1 && mos <= 4.5) {
				t.Fatalf("%+v of %+v: MOS %v", got, heard, mos)
			}
		}
	})
}
