package media_test

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pion/rtcp"
	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/media"
	"github.com/tandem-sbc/tandem/tests/yardstick"
)

// TestStatistics: what the engine counted of a side's RTP is what its record says (M11).
func TestStatistics(t *testing.T) {
	b := newBench(t)
	k := b.open()
	offered, answered := k.established()
	first := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	b.engine.count(b.engine.from(t, callerRTP).Key, call.FlowStats{
		Packets: 1000, Bytes: 172000, Lost: 10, Reordered: 3, Duplicated: 2, Refused: 4, OutOfPolicy: 5, Digits: 6,
		SSRC: 7, SSRCChanges: 1, Gap: 120 * time.Millisecond, Jitter: 1500 * time.Microsecond, First: first, Last: first.Add(20 * time.Second),
	})
	ingress, egress, err := k.Media()
	if err != nil {
		t.Fatal(err)
	}
	// 1 % lost at little jitter is a MOS of more than 4 with G.711 (G.107, O2).
	if ingress.MOS < 4 || ingress.MOS > 4.4 || egress.MOS != 0 {
		t.Errorf("MOS %.2f and %.2f, want about 4.3, and 0 where nothing came", ingress.MOS, egress.MOS)
	}
	ingress.MOS = 0
	want := call.Media{
		Local: answered.desc.Audio().RTP, Remote: netip.MustParseAddrPort(callerRTP), Codec: "PCMA/8000",
		Packets: 1000, Bytes: 172000, Lost: 10, Reordered: 3, Duplicated: 2, Refused: 4, OutOfPolicy: 5, Digits: 6,
		SSRCChanges: 1, GapMS: 120, JitterMS: 1.5, First: first, Last: first.Add(20 * time.Second),
	}
	if diff := cmp.Diff(want, ingress, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if egress.Local != offered.desc.Audio().RTP || egress.Packets != 0 {
		t.Errorf("egress %+v", egress)
	}
}

// TestControlIsNoSpeech: RTCP among the RTP of a peer that did not ask for it counts neither
// as packets of its speech nor against loss (M2, M11).
func TestControlIsNoSpeech(t *testing.T) {
	b := newBench(t)
	k := b.open()
	k.established()
	b.engine.count(b.engine.from(t, callerRTP).Key, call.FlowStats{Packets: 1000, Control: 100, Lost: 100})
	if ingress, _ := k.Close(); ingress.Packets != 900 || ingress.LossRatio() != 0.1 {
		t.Errorf("%d packets, %g lost; want 900, 0.1", ingress.Packets, ingress.LossRatio())
	}
}

// TestFinite: a number that JSON cannot say is 0, so that no call is without its record (M11, O3).
func TestFinite(t *testing.T) {
	for _, x := range []float64{math.Inf(1), math.Inf(-1), math.NaN()} {
		if got := media.Finite(x); got != 0 {
			t.Errorf("%v is %v, want 0", x, got)
		}
	}
	if got := media.Finite(4.2); got != 4.2 {
		t.Errorf("4.2 is %v", got)
	}
}

// TestStatisticsOverTries: what the caller sent during tries that came to nothing is not
// lost with their flows (M11, T7).
func TestStatisticsOverTries(t *testing.T) {
	b := newBench(t)
	k := b.open()
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	try := func(at time.Time, gap time.Duration) {
		k.established()
		b.engine.count(b.engine.from(t, callerRTP).Key, call.FlowStats{
			Packets: 10, Bytes: 1720, Lost: 1, Reordered: 2, Duplicated: 3, Refused: 4, OutOfPolicy: 5, Digits: 6, SSRCChanges: 7,
			Gap: gap, First: at, Last: at.Add(time.Second),
		})
	}
	try(begin, 300*time.Millisecond)
	for _, silent := range []bool{false, true} {
		if err := k.SetEgress("outside3", media.Terms{}); err != nil {
			t.Fatal(err)
		}
		if !silent {
			try(begin.Add(time.Minute), 200*time.Millisecond)
		}
	}
	got, _ := k.Close()
	want := call.Media{
		Local: got.Local, Remote: netip.MustParseAddrPort(callerRTP), Packets: 20, Bytes: 3440, Lost: 2, Reordered: 4,
		Duplicated: 6, Refused: 8, OutOfPolicy: 10, Digits: 12, SSRCChanges: 14, GapMS: 300, First: begin, Last: begin.Add(61 * time.Second),
	}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestReports: the RTCP of both sides gives round trip, and loss and jitter behind us (M2,
// M11). The caller's sender report passes us; 80 ms later the callee says that it had it
// for 30 ms.
func TestReports(t *testing.T) {
	for _, mux := range []bool{false, true} {
		t.Run(fmt.Sprintf("mux %t", mux), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.run()
				k := b.open()
				offer, from := caller, callerRTCP
				if mux {
					offer, from = caller+muxLine, callerRTP // RTCP comes in at the RTP port
				}
				k.offer(call.Ingress, offer)
				k.answer(call.Egress, callee)
				b.engine.count(b.engine.from(t, callerRTP).Key, call.FlowStats{Packets: 990, Lost: 10, SSRC: 7})

				b.reports(from, &rtcp.SenderReport{SSRC: 7, NTPTime: 0x1122334455667788})
				time.Sleep(80 * time.Millisecond)
				b.reports(calleeRTCP, &rtcp.ReceiverReport{SSRC: 9, Reports: []rtcp.ReceptionReport{{
					SSRC: 7, TotalLost: 30, Jitter: 40, LastSenderReport: 0x33445566, Delay: 30 * 65536 / 1000,
				}}})

				ingress, egress, err := k.Media()
				if err != nil {
					t.Fatal(err)
				}
				// Jitter is in ticks of 8000 Hz.
				if egress.RemoteLost != 30 || egress.RemoteJitterMS != 5 || egress.RTTMS < 49.9 || egress.RTTMS > 50.1 {
					t.Errorf("the callee reports %+v", egress)
				}
				if ingress.RTTMS != 0 || ingress.RemoteLost != 0 {
					t.Errorf("the caller reported nothing, but %+v", ingress)
				}
				// 3 % lost on the whole way, a third of it before us.
				if ingress.MOS < 3.8 || ingress.MOS > 4.2 {
					t.Errorf("MOS of what the caller sent is %.2f", ingress.MOS)
				}

				// The next trunk's side starts with a clean slate.
				if err := k.SetEgress("outside3", media.Terms{}); err != nil {
					t.Fatal(err)
				}
				if _, egress, err := k.Media(); err != nil || egress.RTTMS != 0 || egress.RemoteLost != 0 {
					t.Errorf("after failover: %+v, %v", egress, err)
				}
			})
		})
	}
}

// reports makes the engine copy RTCP of the peer at remote.
func (b *bench) reports(remote string, packet rtcp.Packet) {
	b.Helper()
	raw, err := packet.Marshal()
	if err != nil {
		b.Fatal(err)
	}
	from := netip.MustParseAddrPort(remote)
	b.engine.events <- call.MediaEvent{
		Kind: call.MediaReport, Key: b.engine.from(b.T, remote).Key, Source: from, At: time.Now(), Packet: raw,
	}
	synctest.Wait()
}

// TestEach: the counters of all calls in one go, each call's on its own (M11).
func TestEach(t *testing.T) {
	b := newBench(t)
	want := map[*media.Session]uint64{}
	for i := range uint64(4) {
		k := b.open()
		k.established()
		key := k.inbound()
		b.engine.count(key, call.FlowStats{Packets: 100 + i})
		want[k.Session] = 100 + i
	}
	held := b.open() // has ports and no flows yet
	want[held.Session] = 0
	closed := b.open()
	closed.Close()

	got := map[*media.Session]uint64{}
	before := b.engine.snapshots
	if err := b.m.Each(func(s *media.Session, ingress, _ call.Media) {
		got[s] = ingress.Packets
		if _, _, err := s.Media(); err != nil { // f may call what it likes
			t.Error(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if n := b.engine.snapshots - before; n != 1+4 {
		t.Errorf("the engine was asked %d times, want once beside f's 4", n)
	}
	b.engine.unreadable = errEngine
	if err := b.m.Each(func(*media.Session, call.Media, call.Media) { t.Error("counters that are none") }); err == nil {
		t.Error("no error though the engine cannot say")
	}
	b.engine.unreadable = nil
}

// TestEachMeanwhile: calls that change or end while the engine is asked are counted as they
// are, or not at all.
func TestEachMeanwhile(t *testing.T) {
	b := newBench(t)
	moved, ended := b.open(), b.open()
	moved.established()
	ended.established()
	b.engine.count(moved.inbound(), call.FlowStats{Packets: 7})
	b.engine.onSnapshot = func() {
		ended.Close()
		if err := moved.SetEgress("outside3", media.Terms{}); err != nil {
			t.Error(err)
		}
		moved.established()
		b.engine.count(moved.inbound(), call.FlowStats{Packets: 5})
	}
	calls := 0
	if err := b.m.Each(func(s *media.Session, ingress, _ call.Media) {
		if calls++; s != moved.Session || ingress.Packets != 12 {
			t.Errorf("%d packets, want 7 of the first try and 5 of the second", ingress.Packets)
		}
	}); err != nil || calls != 1 {
		t.Errorf("%d calls, %v; want the one that is left", calls, err)
	}
	b.engine.onSnapshot = func() { // the second time the engine fails
		b.engine.unreadable = errEngine
		if err := moved.SetEgress("outside", media.Terms{}); err != nil {
			t.Error(err)
		}
		moved.established()
	}
	if err := b.m.Each(func(*media.Session, call.Media, call.Media) {}); !errors.Is(err, errEngine) {
		t.Errorf("got %v, want the engine's error", err)
	}
	b.engine.unreadable = nil
}

// TestConcurrent: everything at once, for the race detector.
func TestConcurrent(t *testing.T) {
	b := newBench(t)
	b.run()
	k := b.openWith(idle, behindNAT())
	k.established()
	rtp, rtcp := k.calleeFlows()
	k.Silent()
	var all sync.WaitGroup
	repeat := func(what func(i int)) {
		all.Go(func() {
			for i := range 200 {
				what(i)
			}
		})
	}
	repeat(func(i int) {
		body := strings.Replace(callee, "50000", strconv.Itoa(50000+2*i), 1)
		if _, err := k.Offer(call.Egress, []byte(body)); err != nil {
			t.Error(err)
		}
		if _, err := k.Answer(call.Ingress, []byte(caller)); err != nil {
			t.Error(err)
		}
	})
	repeat(func(i int) {
		b.engine.learn(rtp.Key, natRTP)
		b.engine.events <- call.MediaEvent{Kind: call.MediaLatched, Key: rtp.Key, Source: natRTP, At: time.Now()}
		b.engine.events <- call.MediaEvent{Kind: call.MediaReport, Key: rtcp.Key, Packet: []byte{0x80, 201, 0, 1, 1, 2, 3, 4}, At: time.Now()}
	})
	repeat(func(int) {
		if _, _, err := k.Media(); err != nil {
			t.Error(err)
		}
	})
	repeat(func(int) {
		if err := b.m.Each(func(*media.Session, call.Media, call.Media) {}); err != nil {
			t.Error(err)
		}
	})
	repeat(func(int) {
		s, err := b.m.Open("inside", media.Terms{})
		if err != nil {
			t.Error(err)
			return
		}
		defer s.Close()
		if err := s.SetEgress("outside3", media.Terms{}); err != nil {
			t.Error(err)
		}
	})
	all.Wait()
}

// inbound is the flow of the caller's RTP.
func (k *talk) inbound() call.FlowKey {
	k.Helper()
	ingress, _, err := k.Media()
	if err != nil {
		k.Fatal(err)
	}
	return call.FlowKey{Realm: 1, Local: ingress.Local}
}

// thousands is a Media with that many calls over a fake engine.
func thousands(tb testing.TB, calls int) (*media.Media, *fakeEngine) {
	tb.Helper()
	engine := newFakeEngine()
	m, err := media.New(media.Config{Engine: engine, Realms: []media.Realm{
		{Name: "inside", Number: 1, Addr: netip.MustParseAddr(inside), Ports: call.PortRange{First: 10000, Last: 65535}},
		{Name: "outside", Number: 2, Addr: netip.MustParseAddr(outside), Ports: call.PortRange{First: 10000, Last: 65535}},
	}})
	if err != nil {
		tb.Fatal(err)
	}
	offer, answer := []byte(caller), []byte(callee)
	for range calls {
		s, err := m.Open("inside", idle)
		if err != nil {
			tb.Fatal(err)
		}
		if err := s.SetEgress("outside", idle); err != nil {
			tb.Fatal(err)
		}
		if _, err := s.Offer(call.Ingress, offer); err != nil {
			tb.Fatal(err)
		}
		if _, err := s.Answer(call.Egress, answer); err != nil {
			tb.Fatal(err)
		}
		s.Silent()
	}
	for key, f := range engine.flows {
		if !f.RTCP {
			engine.stats[key] = call.FlowStats{Packets: 1000, Lost: 3, Jitter: 2 * time.Millisecond}
		}
	}
	return m, engine
}

// TestScrapeOf10000Calls: one scrape takes under 50 ms of CPU, and so does one look for silence
// (M8, M11).
func TestScrapeOf10000Calls(t *testing.T) {
	const calls = 10_000
	m, engine := thousands(t, calls)
	limit := 50 * time.Millisecond
	if raceDetector {
		limit *= 10 // times slower
	}
	yardstick.Holds(t, "a scrape", limit, func() {
		seen, before := 0, engine.snapshots
		if err := m.Each(func(_ *media.Session, ingress, egress call.Media) {
			if ingress.MOS > 4 && egress.MOS > 4 {
				seen++
			}
		}); err != nil || seen != calls || engine.snapshots > before+calls/100 {
			t.Fatalf("%d calls seen, the engine asked %d times, %v", seen, engine.snapshots-before, err)
		}
	})
	yardstick.Holds(t, "a look for silence", limit, func() {
		if err := m.Look(); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkScrape10000(b *testing.B) {
	m, _ := thousands(b, 10_000)
	for b.Loop() {
		if err := m.Each(func(*media.Session, call.Media, call.Media) {}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLook10000(b *testing.B) {
	m, _ := thousands(b, 10_000)
	for b.Loop() {
		if err := m.Look(); err != nil {
			b.Fatal(err)
		}
	}
}
