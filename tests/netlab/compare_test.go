package netlab

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// wire makes the logs of a caller and a callee with a gateway between them.
type wire struct {
	t        *testing.T
	now      time.Time
	caller   Log
	callee   Log
	callerIP netip.AddrPort
	calleeIP netip.AddrPort
	gwCaller netip.AddrPort
	gwCallee netip.AddrPort
}

func newWire(t *testing.T) *wire {
	return &wire{
		t: t, now: time.Unix(1000, 0), caller: newLog(Platform), callee: newLog(CarrierA),
		callerIP: netip.MustParseAddrPort("10.71.0.10:6000"), calleeIP: netip.MustParseAddrPort("10.72.0.10:6000"),
		gwCaller: netip.MustParseAddrPort("10.71.0.2:16384"), gwCallee: netip.MustParseAddrPort("10.72.0.2:24576"),
	}
}

func (w *wire) sip(l *Log, out bool, start, id, cseq string, audio netip.AddrPort, after time.Duration) {
	w.t.Helper()
	w.now = w.now.Add(after)
	raw := start + "\r\nCall-ID: " + id + "\r\nCSeq: " + cseq + "\r\n\r\n"
	if audio.IsValid() {
		raw += fmt.Sprintf("v=0\r\nc=IN IP4 %v\r\nm=audio %d RTP/AVP 8\r\n", audio.Addr(), audio.Port())
	}
	m, ok := parseSIP(w.now, out, datagram{payload: []byte(raw)})
	if !ok {
		w.t.Fatalf("message not read:\n%s", raw)
	}
	l.Messages = append(l.Messages, m)
}

// call is a call through the gateway, which takes 1 ms for the INVITE and 2 for the 200.
func (w *wire) call() {
	none := netip.AddrPort{}
	invite := "INVITE sip:+49891@x SIP/2.0"
	w.sip(&w.caller, true, invite, "a", "1 INVITE", w.callerIP, 0)
	w.sip(&w.callee, false, invite, "b", "7 INVITE", w.gwCallee, time.Millisecond)
	w.sip(&w.callee, true, "SIP/2.0 180 Ringing", "b", "7 INVITE", none, 10*time.Millisecond)
	w.sip(&w.callee, true, "SIP/2.0 200 OK", "b", "7 INVITE", w.calleeIP, 10*time.Millisecond)
	w.sip(&w.caller, false, "SIP/2.0 200 OK", "a", "1 INVITE", w.gwCaller, 2*time.Millisecond)
}

func (w *wire) rtp(l *Log, out bool, src, dst netip.AddrPort, packet []byte) {
	w.now = w.now.Add(20 * time.Millisecond)
	l.addRTP(w.now, out, datagram{src: src, dst: dst, dscp: 46, ttl: 63, checksumOK: true, payload: packet})
}

func (w *wire) sent(seq uint16, payload string) {
	w.rtp(&w.caller, true, w.callerIP, w.gwCaller, rtpPacket(seq, 1, []byte(payload)))
}

func (w *wire) received(seq uint16, payload string) {
	w.rtp(&w.callee, false, w.gwCallee, w.calleeIP, rtpPacket(seq, 1, []byte(payload)))
}

func (w *wire) report() MediaReport {
	return CompareMedia(Calls(&w.caller, &w.callee), &w.caller, &w.callee)
}

func TestCompareMedia(t *testing.T) {
	for _, tt := range []struct {
		name    string
		traffic func(*wire)
		want    MediaReport
		problem string
	}{
		{"OK over the wrap of the sequence number", func(w *wire) {
			for _, seq := range []uint16{65534, 65535, 0, 1} {
				w.sent(seq, "x")
				w.received(seq, "x")
			}
		}, MediaReport{Sent: 4, Received: 4}, ""},
		{"OK in another order", func(w *wire) {
			w.sent(1, "a")
			w.sent(2, "b")
			w.received(2, "b")
			w.received(1, "a")
		}, MediaReport{Sent: 2, Received: 2}, ""},
		{"a packet is lost", func(w *wire) {
			w.sent(1, "a")
			w.sent(2, "b")
			w.received(1, "a")
		}, MediaReport{Sent: 2, Received: 1, Lost: 1}, "1 of 2 packets did not arrive"},
		{"the whole stream is lost", func(w *wire) {
			w.sent(1, "a")
		}, MediaReport{Sent: 1, Lost: 1}, "1 of 1"},
		{"a byte differs", func(w *wire) {
			w.sent(1, "a")
			w.received(1, "b")
		}, MediaReport{Sent: 1, Received: 1, Altered: 1}, "altered"},
		{"a packet comes twice", func(w *wire) {
			w.sent(1, "a")
			w.received(1, "a")
			w.received(1, "a")
		}, MediaReport{Sent: 1, Received: 2, Duplicated: 1}, "twice"},
		{"a packet that nobody sent", func(w *wire) {
			w.sent(1, "a")
			w.received(1, "a")
			w.received(2, "a")
		}, MediaReport{Sent: 1, Received: 2, Foreign: 1}, "not sent"},
		{"a stream of another call", func(w *wire) {
			w.rtp(&w.callee, false, w.gwCallee, w.calleeIP, rtpPacket(1, 99, nil))
		}, MediaReport{Received: 1, Foreign: 1}, "not sent by the other end"},
		{"a stream beside any call", func(w *wire) {
			w.rtp(&w.caller, true, w.callerIP, netip.MustParseAddrPort("10.71.0.2:20000"), rtpPacket(1, 1, nil))
		}, MediaReport{Sent: 1, Lost: 1}, "no answered call"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWire(t)
			w.call()
			tt.traffic(w)
			got := w.report()
			if got.Sent != tt.want.Sent || got.Received != tt.want.Received || got.Lost != tt.want.Lost ||
				got.Altered != tt.want.Altered || got.Duplicated != tt.want.Duplicated || got.Foreign != tt.want.Foreign {
				t.Errorf("got %+v", got)
			}
			if got.Clean() != (tt.problem == "") || !strings.Contains(strings.Join(got.Problems, "\n"), tt.problem) {
				t.Errorf("clean %v, problems %q, want %q", got.Clean(), got.Problems, tt.problem)
			}
			if got.DSCPOnly(46) != (got.Received > 0) || got.DSCPOnly(0) {
				t.Errorf("DSCP %v", got.DSCP)
			}
		})
	}
}

func TestCallsAndSetup(t *testing.T) {
	w := newWire(t)
	w.call()
	w.sip(&w.caller, false, "SIP/2.0 180 Ringing", "a", "1 INVITE", netip.AddrPort{}, 0)
	// A re-INVITE's ringing is none of the first INVITE's.
	w.sip(&w.caller, false, "SIP/2.0 180 Ringing", "a", "2 INVITE", netip.AddrPort{}, 0)
	calls := Calls(&w.callee, &w.caller)
	if len(calls) != 1 || calls[0].Callee() == nil {
		t.Fatalf("calls: %+v", calls)
	}
	c := calls[0]
	if c.Number != "+49891" || c.Caller.Status != 200 || c.Caller.Peer != w.callerIP || c.Caller.Gateway != w.gwCaller {
		t.Errorf("caller's leg: %+v", c.Caller)
	}
	if got := c.Callee(); got.CallID != "b" || got.Peer != w.calleeIP || got.Gateway != w.gwCallee || got.Rang.IsZero() {
		t.Errorf("callee's leg: %+v", got)
	}
	if c.Caller.Disordered != 1 {
		t.Errorf("%d responses out of order, want the 180 after the 200", c.Caller.Disordered)
	}
	if got, want := SetupAdded(calls), (Percentiles{Count: 1, P50: 3 * time.Millisecond, P99: 3 * time.Millisecond, Max: 3 * time.Millisecond}); got != want {
		t.Errorf("set-up added %+v, want %+v", got, want)
	}
}

func TestPercentiles(t *testing.T) {
	var d []time.Duration
	for i := 200; i > 0; i-- {
		d = append(d, time.Duration(i))
	}
	if got, want := percentiles(d), (Percentiles{Count: 200, P50: 100, P99: 198, Max: 200}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := percentiles(nil); got != (Percentiles{}) {
		t.Errorf("of nothing: %+v", got)
	}
}

func TestTotalsCountGaps(t *testing.T) {
	w := newWire(t)
	for _, seq := range []uint16{65535, 0, 3, 2} { // 1 is missing
		w.received(seq, "")
	}
	if got := w.callee.Totals(); got.Received != 4 || got.Missing != 1 || got.Sent != 0 {
		t.Errorf("totals %+v, want 4 received and 1 missing", got)
	}
}

func TestAudioAddr(t *testing.T) {
	for _, tt := range []struct {
		name string
		sdp  []string
		want string
	}{
		{"session address", []string{"c=IN IP4 192.0.2.1", "m=audio 4000 RTP/AVP 8"}, "192.0.2.1:4000"},
		{"media address", []string{"c=IN IP4 192.0.2.1", "m=audio 4000 RTP/AVP 8", "c=IN IP4 192.0.2.2"}, "192.0.2.2:4000"},
		{"that of another line", []string{"c=IN IP4 192.0.2.1", "m=audio 4000 RTP/AVP 8", "m=video 5000 RTP/AVP 99", "c=IN IP4 192.0.2.2"}, "192.0.2.1:4000"},
		{"refused", []string{"c=IN IP4 192.0.2.1", "m=audio 0 RTP/AVP 8"}, ""},
		{"no audio", []string{"c=IN IP4 192.0.2.1"}, ""},
		{"empty", nil, ""},
	} {
		var sdp bytes.Buffer
		for _, line := range tt.sdp {
			sdp.WriteString(line + "\r\n")
		}
		got, ok := AudioAddr(sdp.Bytes())
		if ok != (tt.want != "") || ok && got.String() != tt.want {
			t.Errorf("%s: %v %v, want %q", tt.name, got, ok, tt.want)
		}
	}
}

// TestAway: media that never comes back, or never comes, is away until its sender ends.
func TestAway(t *testing.T) {
	for arriving, want := range map[int]time.Duration{4: 40 * time.Millisecond, 2: 60 * time.Millisecond, 0: 120 * time.Millisecond} {
		w := newWire(t)
		w.call()
		from := w.now
		for seq := range 4 {
			w.sent(uint16(seq), "x")
			if seq < arriving {
				w.received(uint16(seq), "x")
			} else {
				w.now = w.now.Add(20 * time.Millisecond)
			}
		}
		calls := Calls(&w.caller, &w.callee)
		if got := calls[0].Away(from, from.Add(time.Second), &w.caller, &w.callee); got != want {
			t.Errorf("%d of 4 packets arrive: away for %v, want %v", arriving, got, want)
		}
	}
}

// TestMerge: a stream that moves from one device to another is one stream; what is away is
// seen across the two.
func TestMerge(t *testing.T) {
	start := time.Unix(1000, 0)
	key := StreamKey{Src: netip.MustParseAddrPort("10.60.0.1:17408"), Dst: netip.MustParseAddrPort("10.50.0.10:6000"), SSRC: 7}
	device := func(seqs ...uint16) *Log {
		log := newLog(CarrierA)
		s := &Stream{}
		for _, seq := range seqs {
			s.add(Packet{Time: start.Add(time.Duration(seq) * 20 * time.Millisecond), Seq: seq, Timestamp: uint32(seq) * 160})
		}
		log.Streams[key] = s
		log.Messages = []Message{{Time: start.Add(time.Duration(seqs[0]) * time.Millisecond), CallID: fmt.Sprint(seqs[0])}}
		return &log
	}
	all := Merge(device(50, 51, 52), device(0, 1, 2, 3, 53))
	s := all.Streams[key]
	for i, want := range []uint16{0, 1, 2, 3, 50, 51, 52, 53} {
		if s.Packets[i].Seq != want {
			t.Fatalf("packet %d is %d, want %d", i, s.Packets[i].Seq, want)
		}
	}
	if got := all.Totals().Missing; got != 46 {
		t.Errorf("%d are missing, want 46", got)
	}
	if all.Host != CarrierA || len(all.Messages) != 2 || all.Messages[0].CallID != "0" {
		t.Errorf("messages of %s: %+v", all.Host, all.Messages)
	}
	second := start.Add(time.Second)
	last := start.Add(53 * 20 * time.Millisecond)
	for _, tt := range []struct {
		from, until, ended time.Time
		want               time.Duration
	}{
		{start, second, last, 47 * 20 * time.Millisecond},
		{start.Add(500 * time.Millisecond), second, last, 47 * 20 * time.Millisecond}, // begun before
		{second, last, last, 20 * time.Millisecond},
		{second, second.Add(time.Second), last.Add(time.Minute), time.Minute}, // never comes back
		{last.Add(time.Minute), last.Add(time.Hour), last, 0},
	} {
		if got := s.gap(tt.from, tt.until, tt.ended); got != tt.want {
			t.Errorf("gap from %v to %v: %v, want %v", tt.from.Sub(start), tt.until.Sub(start), got, tt.want)
		}
	}
}

// TestOverrule: more lines of a config take the place of those with their key.
func TestOverrule(t *testing.T) {
	got := overrule([]string{"auth: psk", "psk: file:/x", "dpd_delay: 2s"}, []string{"psk:", "auth: certificate", "ca: /y"})
	if want := []string{"dpd_delay: 2s", "auth: certificate", "ca: /y"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
