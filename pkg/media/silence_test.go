package media_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/media"
)

// idle are the limits of Genesys (M8): 5 minutes, 12 hours one way.
var idle = media.Terms{Idle: 5 * time.Minute, IdleOneWay: 12 * time.Hour}

const hold0 = "c=IN IP4 0.0.0.0"

// TestSilence (M8): which calls are ended for want of media, and after how long. The
// clock is the test's own, so 12 hours take no time.
func TestSilence(t *testing.T) {
	var (
		sendonly = func(body string) string { return body + "a=sendonly\r\n" }
		recvonly = func(body string) string { return body + "a=recvonly\r\n" }
		inactive = func(body string) string { return body + "a=inactive\r\n" }
		oldHold  = func(body string) string { return strings.Replace(body, "c=IN IP4 "+callerAddr, hold0, 1) }
		as       = func(body string) string { return body }
	)
	for _, tt := range []struct {
		name            string
		caller, callee  func(string) string // their descriptions in a re-INVITE by the caller
		ingress, egress media.Terms
		sends           []string // who sends all the time
		want            media.Silence
	}{
		{"nobody sends", as, as, idle, idle, nil, media.Silence{For: 5 * time.Minute}},
		{"both send", as, as, idle, idle, []string{callerRTP, calleeRTP}, media.Silence{}},
		{"only the caller sends", as, as, idle, idle, []string{callerRTP}, media.Silence{OneWay: true, For: 12 * time.Hour}},
		{"only the callee sends", as, as, idle, idle, []string{calleeRTP}, media.Silence{OneWay: true, For: 12 * time.Hour}},
		{"only RTCP comes", as, as, idle, idle, []string{callerRTCP, calleeRTCP}, media.Silence{For: 5 * time.Minute}},

		{"held with music", sendonly, recvonly, idle, idle, []string{callerRTP}, media.Silence{}},
		{"held without music", sendonly, recvonly, idle, idle, nil, media.Silence{OneWay: true, For: 12 * time.Hour}},
		{"held, and only who should not sends", sendonly, recvonly, idle, idle, []string{calleeRTP}, media.Silence{OneWay: true, For: 12 * time.Hour}},
		{"held by both", inactive, inactive, idle, idle, nil, media.Silence{OneWay: true, For: 12 * time.Hour}},
		{"held by both, and one sends", inactive, inactive, idle, idle, []string{calleeRTP}, media.Silence{}},
		{"held in the old form with music", oldHold, as, idle, idle, []string{callerRTP}, media.Silence{}},
		{"held in the old form without", oldHold, as, idle, idle, nil, media.Silence{OneWay: true, For: 12 * time.Hour}},

		{"the shorter limit counts", as, as, idle, media.Terms{Idle: time.Minute, IdleOneWay: time.Hour}, nil, media.Silence{For: time.Minute}},
		{"one way too", sendonly, recvonly, media.Terms{IdleOneWay: time.Hour}, idle, nil, media.Silence{OneWay: true, For: time.Hour}},
		{"a limit of one trunk", as, as, media.Terms{}, media.Terms{Idle: time.Minute}, nil, media.Silence{For: time.Minute}},
		{"no limit", as, as, media.Terms{}, media.Terms{}, nil, media.Silence{}},
		{"only the limit one way", as, as, media.Terms{IdleOneWay: time.Hour}, media.Terms{}, nil, media.Silence{OneWay: true, For: time.Hour}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.run()
				k := b.openWith(tt.ingress, tt.egress)
				k.established()
				k.offer(call.Ingress, tt.caller(caller))
				k.answer(call.Egress, tt.callee(callee))
				got := k.listen(13*time.Hour, tt.sends...)
				// Looked at once a second; the first look may come a moment after the begin.
				if got.OneWay != tt.want.OneWay || got.For < tt.want.For || got.For > tt.want.For+time.Second {
					t.Errorf("got %+v, want %+v", got, tt.want)
				}
			})
		})
	}
}

// listen waits for the silence of a call in which some peers send now and then; the zero
// value is that there was none.
func (k *talk) listen(patience time.Duration, sends ...string) media.Silence {
	k.Helper()
	silent := k.Silent()
	for begun := time.Now(); time.Since(begun) < patience; {
		for _, peer := range sends {
			k.engine.send(k.T, peer, 1)
		}
		select {
		case s := <-silent:
			return s
		case <-time.After(30 * time.Second):
		}
	}
	return media.Silence{}
}

// TestSilenceBegins: ringing is not watched, what is agreed on anew gives time anew, and
// a repeated re-INVITE does not (M8).
func TestSilenceBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run()
		k := b.openWith(idle, idle)
		k.established()
		time.Sleep(time.Hour) // it rings
		silent := k.Silent()
		nothing := func(d time.Duration) {
			t.Helper()
			select {
			case s := <-silent:
				t.Fatalf("%+v", s)
			case <-time.After(d):
			}
		}
		nothing(4 * time.Minute)
		k.offer(call.Ingress, caller+"a=inactive\r\n")
		k.answer(call.Egress, callee+"a=inactive\r\n")
		nothing(time.Hour)
		k.established() // back from hold
		nothing(4 * time.Minute)
		k.established() // a session refresh
		begun := time.Now()
		if s := <-silent; s.OneWay || time.Since(begun) > time.Minute+time.Second {
			t.Errorf("%+v, %v after the refresh", s, time.Since(begun))
		}
		nothing(24 * time.Hour) // once is enough
	})
}

// TestSilenceAmongControl: RTCP of a peer that multiplexes it unasked is no sign of life (M8).
func TestSilenceAmongControl(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run()
		k := b.openWith(idle, idle)
		k.established()
		silent, key, begun := k.Silent(), k.inbound(), time.Now()
		for n := uint64(0); time.Since(begun) < 2*idle.Idle; n++ {
			b.engine.count(key, call.FlowStats{Packets: 1000 + n, Control: n})
			select {
			case s := <-silent:
				if s.OneWay || time.Since(begun) < idle.Idle {
					t.Errorf("%+v after %v", s, time.Since(begun))
				}
				return
			case <-time.After(5 * time.Second):
			}
		}
		t.Error("a dead call goes on")
	})
}

// TestSilenceNeedsCounters: an engine that cannot say ends no call (M8).
func TestSilenceNeedsCounters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run()
		k := b.openWith(idle, idle)
		k.established()
		silent := k.Silent()
		b.engine.mu.Lock()
		b.engine.unreadable = errEngine
		b.engine.mu.Unlock()
		select {
		case s := <-silent:
			t.Errorf("%+v", s)
		case <-time.After(time.Hour):
		}
		b.engine.mu.Lock()
		b.engine.unreadable = nil
		b.engine.mu.Unlock()
		<-silent
	})
}

// TestSilenceIsCheap: the counters of all calls are asked for at once (M8).
func TestSilenceIsCheap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		for range 5 {
			k := b.openWith(idle, idle)
			k.established()
			k.Silent()
		}
		b.run()
		time.Sleep(10*time.Second + time.Millisecond)
		synctest.Wait()
		if b.engine.snapshots != 10 {
			t.Errorf("%d times asked in 10 s", b.engine.snapshots)
		}
	})
}

// TestSilenceOverRefreshes: a re-INVITE that says the same is no sign of life, though it opens
// the window for a source that was never learned (M7, M8).
func TestSilenceOverRefreshes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run()
		terms := behindNAT()
		terms.Idle = 5 * time.Minute
		k := b.openWith(idle, terms)
		k.established()
		silent := k.Silent()
		for range 4 {
			time.Sleep(time.Minute)
			k.established()
		}
		time.Sleep(time.Minute + time.Second)
		synctest.Wait()
		select {
		case <-silent:
		default:
			t.Error("the call is not silent after 5 minutes without a packet")
		}
	})
}
