package relay

import (
	"bytes"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// TestGap: the longest time between two packets of the stream in a row (M8, M11).
func TestGap(t *testing.T) {
	d := newDoor(t, call.Flow{Remote: alice})
	for i, after := range []time.Duration{0, 20 * time.Millisecond, 3 * time.Second, 40 * time.Millisecond} {
		d.wait(after - time.Millisecond)
		d.want(alice, rtp(uint16(i)), exitForwarded)
	}
	if got := d.f.snapshot().Gap; got != 3*time.Second {
		t.Errorf("gap is %v, want 3s", got)
	}
}

// TestFirstAndLast are when packets came, not when they were handled (M8).
func TestFirstAndLast(t *testing.T) {
	d := newDoor(t, call.Flow{Remote: alice})
	if s := d.f.snapshot(); !s.First.IsZero() || !s.Last.IsZero() {
		t.Errorf("nothing came, at %v and %v", s.First, s.Last)
	}
	d.want(alice, rtp(1), exitForwarded)
	first := d.now
	if ev := <-d.e.Events(); !ev.At.Equal(first) {
		t.Errorf("the event is of %v, want %v", ev.At, first)
	}
	d.wait(time.Hour)
	d.want(alice, rtp(2), exitForwarded)
	if s := d.f.snapshot(); !s.First.Equal(first) || !s.Last.Equal(d.now) {
		t.Errorf("from %v to %v, want %v to %v", s.First, s.Last, first, d.now)
	}
}

// TestSSRC: another source in a stream that had one is counted and told of; the first one
// is no change (M11).
func TestSSRC(t *testing.T) {
	d := newDoor(t, call.Flow{Remote: alice})
	for _, ssrc := range []uint32{0, 0, 7, 7, 0} {
		d.want(alice, stream{ssrc: ssrc}.packet(), exitForwarded)
	}
	wantEvents(t, d.e,
		call.MediaEvent{Key: d.f.key, Kind: call.MediaStarted, Source: alice},
		call.MediaEvent{Key: d.f.key, Kind: call.MediaSSRC, Source: alice, SSRC: 7},
		call.MediaEvent{Key: d.f.key, Kind: call.MediaSSRC, Source: alice})
	if s := d.f.snapshot(); s.SSRC != 0 || s.SSRCChanges != 2 {
		t.Errorf("SSRC %d, %d changes; want 0, 2", s.SSRC, s.SSRCChanges)
	}
}

// TestDuplicates: a network that doubles every packet loses none, and makes up for none
// that is lost (M11).
func TestDuplicates(t *testing.T) {
	d := newDoor(t, call.Flow{Remote: alice})
	for _, seq := range []uint16{1, 1, 2, 2, 5, 5} {
		d.want(alice, rtp(seq), exitForwarded)
	}
	if s := d.f.snapshot(); s.Packets != 6 || s.Duplicated != 3 || s.Lost != 2 || s.Reordered != 0 {
		t.Errorf("%d packets, %d twice, %d lost, %d reordered; want 6, 3, 2, 0", s.Packets, s.Duplicated, s.Lost, s.Reordered)
	}
}

// TestJitterWithoutEvents: telephone-events carry the time of the key, so that they say
// nothing of the network (M11).
func TestJitterWithoutEvents(t *testing.T) {
	d := newDoor(t, call.Flow{Remote: alice, ClockRate: 8000, Payloads: []call.Payload{
		{In: 8, Out: 8}, {In: 101, Out: 101, Treatment: call.TelephoneEvent}}})
	start := d.now
	for i := range uint32(200) {
		d.now = start.Add(time.Duration(i)*20*time.Millisecond - time.Millisecond)
		s := stream{payloadType: 8, seq: uint16(i), timestamp: i * 160}
		if i%50 >= 40 { // a key is held for 200 ms
			// It was pressed 40 ms before its first packet.
			s = stream{payloadType: 101, seq: uint16(i), timestamp: (i/50*50 + 38) * 160, payload: []byte{5, 10, 0, 160}}
		}
		d.want(alice, s.packet(), exitForwarded)
	}
	if s := d.f.snapshot(); s.Jitter != 0 || s.Digits != 4 || s.Lost != 0 {
		t.Errorf("jitter %v, %d keys, %d lost; want 0s, 4, 0", s.Jitter, s.Digits, s.Lost)
	}
}

// TestRTCPAmongRTP: what a peer multiplexes unasked passes, and is no packet of the
// stream's sequence (M2, RFC 5761).
func TestRTCPAmongRTP(t *testing.T) {
	d := newDoor(t, call.Flow{Remote: alice, ClockRate: 8000, Payloads: []call.Payload{{In: 8, Out: 0}}})
	d.want(alice, rtp(1), exitForwarded)
	report := receiverReport()
	d.want(alice, report, exitForwarded)
	if !bytes.Equal(report, receiverReport()) {
		t.Errorf("left as % x", report)
	}
	d.want(alice, rtp(2), exitForwarded)
	s := d.f.snapshot()
	if s.Packets != 3 || s.Bytes != 2*172+8 || s.Lost != 0 || s.Duplicated != 0 || s.SSRCChanges != 0 || s.OutOfPolicy != 0 {
		t.Errorf("%+v", s)
	}
	if s.Gap != 2*time.Millisecond {
		t.Errorf("gap is %v, want 2ms: from RTP to RTP", s.Gap)
	}
}

// TestReports: RTCP is copied as it came, at a rate that no peer can raise; what is not
// copied is counted, and all of it is forwarded (M2).
func TestReports(t *testing.T) {
	d := newDoor(t, call.Flow{Remote: alice, RTCP: true})
	long := append(receiverReport(), make([]byte, call.MaxReport)...)
	d.want(alice, receiverReport(), exitForwarded)
	for range 3 {
		d.want(alice, receiverReport(), exitForwarded)
	}
	d.wait(call.ReportGap)
	d.want(alice, long, exitForwarded)
	clear(long) // the copy is no view of the packet
	want := append(receiverReport(), make([]byte, call.MaxReport-8)...)
	wantEvents(t, d.e,
		call.MediaEvent{Key: d.f.key, Kind: call.MediaStarted, Source: alice},
		call.MediaEvent{Key: d.f.key, Kind: call.MediaReport, Source: alice, Packet: receiverReport()},
		call.MediaEvent{Key: d.f.key, Kind: call.MediaReport, Source: alice, Packet: want})
	if s, err := d.e.Stats(); err != nil || s.EventsLost != 3 {
		t.Errorf("%d events lost, %v; want 3", s.EventsLost, err)
	}
}

// TestOutOfPolicy: what the right peer may not send either is dropped and counted apart
// from what strangers send (M7).
func TestOutOfPolicy(t *testing.T) {
	d := newDoor(t, call.Flow{Remote: alice})
	d.want(alice, []byte("no RTP"), exitNotRTP)
	d.want(outsider, []byte("no RTP"), exitSourceRefused)
	if s := d.f.snapshot(); s.OutOfPolicy != 1 || s.Refused != 1 || s.Packets != 0 {
		t.Errorf("%+v", s)
	}
	d = newDoor(t, call.Flow{Remote: alice, RTCP: true})
	d.want(alice, rtp(1), exitNotRTCP)
	if s := d.f.snapshot(); s.OutOfPolicy != 1 || s.Packets != 0 {
		t.Errorf("%+v", s)
	}
}

// TestEnded: once the final counters were given nothing is forwarded or counted, also of
// a batch that was read before.
func TestEnded(t *testing.T) {
	d := newDoor(t, call.Flow{Remote: alice})
	d.want(alice, rtp(1), exitForwarded)
	final, _ := d.f.end()
	d.want(alice, rtp(2), exitNoFlow)
	d.want(outsider, rtp(3), exitNoFlow)
	if x, way := d.f.cross(d.e, &packet{data: rtp(4), from: alice, at: d.now}); x != exitNoFlow || way != nil {
		t.Errorf("%s by %v", exitNames[x].Reason, way)
	}
	if s := d.f.snapshot(); s != final {
		t.Errorf("counted on: %+v, final %+v", s, final)
	}
}

// TestHoldCounts: on hold nothing leaves, everything is counted, and no key is heard (S7, M8).
func TestHoldCounts(t *testing.T) {
	d := newDoor(t, call.Flow{Remote: alice, Hold: true, Payloads: []call.Payload{
		{In: 101, Out: 101, Treatment: call.TelephoneEvent}}})
	d.want(alice, dtmf(5, 800).packet(), exitHold)
	d.want(alice, rtp(1), exitPayloadType)
	if s := d.f.snapshot(); s.Packets != 1 || s.Digits != 0 {
		t.Errorf("%d packets, %d keys; want 1, 0", s.Packets, s.Digits)
	}
}
