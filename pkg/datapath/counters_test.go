package datapath

import (
	"slices"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

func upTo(last uint16) (list []uint16) {
	for seq := uint16(1); seq <= last; seq++ {
		list = append(list, seq)
	}
	return list
}

// from is a stream's packets with another SSRC.
func from(ssrc uint32, ps []packetOf) []packetOf {
	for i := range ps {
		ps[i].ssrc = ssrc
	}
	return ps
}

// TestDuplicates: a packet that comes again is told from a late one as far as 64 sequence numbers back; it makes up for
// no loss, and neither does a stray one. Every SSRC after the first is a change, and begins numbers of its own (M11,
// RFC 3550 A.1, A.3).
func TestDuplicates(t *testing.T) {
	rows := []struct {
		name    string
		packets []packetOf
		want    call.FlowStats
	}{
		{"twice", seqs(1, 2, 2, 3), call.FlowStats{Duplicated: 1}},
		{"the very first twice", seqs(1, 1, 2), call.FlowStats{Duplicated: 1}},
		{"five times", seqs(1, 2, 2, 2, 2, 2), call.FlowStats{Duplicated: 4}},
		{"makes up for no loss", seqs(1, 2, 2, 4), call.FlowStats{Duplicated: 1, Lost: 1}},
		{"late, and again", seqs(1, 3, 2, 2, 4), call.FlowStats{Duplicated: 1, Reordered: 1}},
		{"across the wrap", seqs(65534, 65535, 0, 65535, 1), call.FlowStats{Duplicated: 1}},
		{"63 back", seqs(append(upTo(64), 1)...), call.FlowStats{Duplicated: 1}},
		{"64 back is late, for all that is known", seqs(append(upTo(65), 1)...), call.FlowStats{Reordered: 1}},
		{"both ends of a gap again", seqs(1, 61, 61, 1), call.FlowStats{Duplicated: 2, Lost: 59}},
		{"all of a second stream's numbers again", slices.Concat(seqs(1, 2, 3), from(2, seqs(1, 2, 3))), call.FlowStats{SSRCChanges: 1}},
		{"there and back", slices.Concat(seqs(1), from(2, seqs(1)), seqs(2)), call.FlowStats{SSRCChanges: 2}},
		{"SSRC zero is one", slices.Concat(from(0, seqs(1, 2)), seqs(3)), call.FlowStats{SSRCChanges: 1}},
		{"a stray one makes up for no loss", seqs(1, 2, 30000, 4), call.FlowStats{Lost: 1}},
		{"two stray ones that do not follow", seqs(1, 2, 30000, 20000, 3), call.FlowStats{}},
		{"a stray one twice", seqs(1, 2, 30000, 30000, 3), call.FlowStats{}},
		{"starts anew, and one twice", seqs(1, 2, 30000, 30001, 30001, 30002), call.FlowStats{Duplicated: 1}},
		{"starts anew, and its first twice", seqs(1, 2, 30000, 30001, 30000, 30002), call.FlowStats{Duplicated: 1}},
		{"2,999 ahead is a loss", seqs(1, 3000), call.FlowStats{Lost: 2998}},
		{"3,000 ahead is a stray", seqs(1, 3001, 2), call.FlowStats{}},
		{"99 back is late", seqs(append(upTo(100), 1)...), call.FlowStats{Reordered: 1}},
	}
	b := newBench(t, 100)
	f := toCarrier(20000)
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			b.install(t, f)
			for _, p := range row.packets {
				b.run(t, frame{src: f.Remote, dst: f.Key.Local, payload: rtp(p.seq, p.ts, p.ssrc)}.build(t))
			}
			s := b.remove(t, f.Key)
			got := call.FlowStats{Lost: s.Lost, Reordered: s.Reordered, Duplicated: s.Duplicated, SSRCChanges: s.SSRCChanges}
			if got != row.want {
				t.Errorf("lost, reordered, duplicated, SSRC changes: %d %d %d %d; want %d %d %d %d", got.Lost, got.Reordered,
					got.Duplicated, got.SSRCChanges, row.want.Lost, row.want.Reordered, row.want.Duplicated, row.want.SSRCChanges)
			}
			if last := row.packets[len(row.packets)-1].ssrc; s.SSRC != last || s.Packets != uint64(len(row.packets)) {
				t.Errorf("SSRC %d, %d packets; want %d, %d", s.SSRC, s.Packets, last, len(row.packets))
			}
		})
	}
}

// TestSSRCIsTold: each SSRC that replaces another is told with its number, the first one is not (M11).
func TestSSRCIsTold(t *testing.T) {
	b := newBench(t, 100)
	f := toCarrier(20000)
	b.install(t, f)
	for i, ssrc := range []uint32{0xcafe0001, 0xcafe0001, 2, 2, 0xcafe0001} {
		b.run(t, frame{src: f.Remote, dst: f.Key.Local, payload: rtp(uint16(i), 0, ssrc)}.build(t))
	}
	var told []call.MediaEvent
	for range 3 {
		select {
		case event := <-b.Events():
			event.At = time.Time{}
			told = append(told, event)
		case <-time.After(5 * time.Second):
			t.Fatalf("only %+v", told)
		}
	}
	for i, want := range []call.MediaEvent{
		{Key: f.Key, Source: f.Remote, Kind: call.MediaStarted},
		{Key: f.Key, Source: f.Remote, Kind: call.MediaSSRC, SSRC: 2},
		{Key: f.Key, Source: f.Remote, Kind: call.MediaSSRC, SSRC: 0xcafe0001},
	} {
		if got := told[i]; got.Key != want.Key || got.Source != want.Source || got.Kind != want.Kind || got.SSRC != want.SSRC {
			t.Errorf("event %+v, want %+v", got, want)
		}
	}
}

// TestOutOfPolicy: what the right source may not send is counted as such and as nothing else; what others send is
// refused whatever it is (M7, M11).
func TestOutOfPolicy(t *testing.T) {
	policed := func(f *call.Flow) { f.Payloads = []call.Payload{{In: 8, Out: 8}} }
	control := func(f *call.Flow) { f.RTCP = true }
	held := func(f *call.Flow) { f.Hold, f.Payloads = true, []call.Payload{{In: 8, Out: 8}} }
	rows := []struct {
		name    string
		change  func(*call.Flow)
		payload []byte
		source  string // the flow's remote, unless it says another
		want    call.FlowStats
	}{
		{"payload type", policed, typed(0, 0, 1), "", call.FlowStats{OutOfPolicy: 1}},
		{"payload type, on hold", held, typed(0, 0, 1), "", call.FlowStats{OutOfPolicy: 1}},
		{"RTP version 1", policed, patch(rtp(1, 1, 1), 0, 0x40), "", call.FlowStats{OutOfPolicy: 1}},
		{"shorter than its contributors", policed, patch(typed(8, 0), 0, 0x81), "", call.FlowStats{OutOfPolicy: 1}},
		{"empty", policed, nil, "", call.FlowStats{OutOfPolicy: 1}},
		{"RTP on the RTCP port", control, rtp(1, 1, 1), "", call.FlowStats{OutOfPolicy: 1}},
		{"what was agreed on", policed, typed(8, 0, 1), "", call.FlowStats{Packets: 1}},
		{"what was agreed on, on hold", held, typed(8, 0, 1), "", call.FlowStats{Packets: 1}},
		{"RTCP among RTP", policed, rtcp(), "", call.FlowStats{Packets: 1}},
		{"a stranger's payload type", policed, typed(0, 0, 1), "192.0.2.10:9", call.FlowStats{Refused: 1}},
		{"a stranger's RTP", policed, typed(8, 0, 1), "192.0.2.66:20000", call.FlowStats{Refused: 1}},
		{"a stranger's nonsense", control, []byte{1, 2, 3}, "192.0.2.66:20000", call.FlowStats{Refused: 1}},
	}
	b := newBench(t, 100)
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			f := toCarrier(20000)
			row.change(&f)
			b.install(t, f)
			in := gateIn(t, 20000, withPayload(row.payload), func(f *frame) {
				if row.source != "" {
					withSource(row.source)(f)
				}
			})
			b.run(t, in)
			s := b.remove(t, f.Key)
			got := call.FlowStats{Packets: s.Packets, Refused: s.Refused, OutOfPolicy: s.OutOfPolicy}
			if got != row.want {
				t.Errorf("packets, refused, out of policy: %d %d %d, want %d %d %d",
					got.Packets, got.Refused, got.OutOfPolicy, row.want.Packets, row.want.Refused, row.want.OutOfPolicy)
			}
			if counted := row.want.Packets != 0; s.First.IsZero() == counted || s.Last.IsZero() == counted || (s.Bytes != 0) != counted {
				t.Errorf("%d bytes, first %v, last %v", s.Bytes, s.First, s.Last)
			}
		})
	}
}

// TestGap: the longest pause in a stream is that between two of its packets; RTCP, and what is not let in, is no end to
// it, an update of the flow neither, and packets on hold go on as the stream does. A new flow has had none (M9, M11).
func TestGap(t *testing.T) {
	b := newBench(t, 100)
	f := toCarrier(20000)
	f.Payloads = []call.Payload{{In: 8, Out: 8}}
	b.install(t, f)
	send := func(payload []byte, change ...func(*frame)) {
		b.run(t, gateIn(t, 20000, append(change, withPayload(payload))...))
	}
	gap := func() time.Duration {
		t.Helper()
		stats, err := b.Snapshot([]call.FlowKey{f.Key})
		if err != nil {
			t.Fatal(err)
		}
		return stats[0].Gap
	}
	const pause = 20 * time.Millisecond
	seq := uint16(0)
	next := func() { seq++; send(rtp(seq, uint32(seq)*160, 1)) }

	started := time.Now()
	next()
	if got := gap(); got != 0 {
		t.Errorf("a gap of %s before the second packet", got)
	}
	time.Sleep(pause)
	next()
	if got, most := gap(), time.Since(started); got < pause-time.Microsecond || got > most {
		t.Errorf("gap %s, want %s to %s", got, pause, most)
	}
	before, began := gap(), time.Now()
	next()
	if got := gap(); got != before && got > time.Since(began) { // this machine may have been busy
		t.Errorf("a shorter pause makes the longest %s, which was %s", got, before)
	}
	for range 3 {
		time.Sleep(pause)
		send(rtcp())
		send(rtp(seq, 0, 1), withSource("192.0.2.66:20000"))
		send(typed(18, 0, 1))
		b.install(t, f)
	}
	next()
	if got := gap(); got < 3*pause-time.Microsecond {
		t.Errorf("gap %s with packets in between that are not the stream's, want %s", got, 3*pause)
	}
	before = gap()
	f.Hold = true
	b.install(t, f)
	longest := before
	for began, last := time.Now(), time.Now(); time.Since(began) < before+pause; time.Sleep(time.Millisecond) {
		start := time.Now()
		next()
		longest, last = max(longest, time.Since(last)), start
	}
	if got := gap(); got > longest {
		t.Errorf("gap %s over a hold in which packets came, want %s at most", got, longest)
	}
	if s := b.remove(t, f.Key); s.OutOfPolicy != 3 || s.Refused != 3 {
		t.Errorf("%d out of policy and %d refused, want 3 each", s.OutOfPolicy, s.Refused)
	}
	b.install(t, f)
	next()
	if got := gap(); got != 0 {
		t.Errorf("a new flow has a gap of %s", got)
	}
}
