package b2bua

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

// M8: a call that has gone silent is ended by us, both sides are told why, and the record
// says which limit it was. The fake engine's counters stand still after the first packets.
func TestSilenceEndsTheCall(t *testing.T) {
	const soon, never = 10 * time.Millisecond, 0
	for _, row := range []struct {
		name         string
		idle, oneWay time.Duration
		hold         bool
		text         *regexp.Regexp
	}{
		{"two-way", soon, never, false, regexp.MustCompile(`^No media came from either side for [0-9ms]+\.$`)},
		{"on hold", never, soon, true, regexp.MustCompile(`^No media came for [0-9ms]+ on a call that was one-way or on hold\.$`)},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			callee := newFakeLeg("callee", carrierPeer)
			b := newBenchWith(t, func(trunks []trunk.Config) {
				for i := range trunks {
					trunks[i].IdleTimeout, trunks[i].IdleTimeoutOneWay = row.idle, row.oneWay
				}
			}, callee)
			b.patrol(t)
			caller := establish(t, b, callee)
			if row.hold {
				hold(t, caller, callee)
			}
			for _, leg := range []*fakeLeg{callee, caller} {
				if a := leg.expect(t, "close"); a.q850 != 102 {
					t.Errorf("%s is told Q.850 %d, want 102 (recovery on timer expiry)", leg.name, a.q850)
				}
			}
			rec := b.record(t)
			if rec.Cause.Code != "media-timeout" || rec.Cause.By != "tandem" || !row.text.MatchString(rec.Cause.Text) {
				t.Errorf("cause %+v", rec.Cause)
			}
		})
	}
}

// M8: while it rings nobody has to send anything; how long that may last is ring_timeout's.
func TestNoSilenceWhileRinging(t *testing.T) {
	t.Parallel()
	callee := newFakeLeg("callee", carrierPeer)
	b := newBenchWith(t, func(trunks []trunk.Config) {
		for i := range trunks {
			trunks[i].IdleTimeout, trunks[i].RingTimeout = time.Millisecond, 2500*time.Millisecond
		}
	}, callee)
	b.patrol(t)
	caller := b.call(callerSDP)
	<-b.dialer.dialled
	callee.emit(call.Progressed{Code: 183, Body: []byte(calledSDP)})
	caller.expect(t, "progress")
	if rec := b.record(t); rec.Cause.Code != "no-answer" {
		t.Errorf("cause %+v", rec.Cause)
	}
}

// patrol has the media looked at until the test ends.
func (b *bench) patrol(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.media.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// hold has the caller put the callee on hold.
func hold(t *testing.T, caller, callee *fakeLeg) {
	t.Helper()
	caller.emit(call.Reinvited{Body: []byte(holdSDP)})
	callee.expect(t, "reinvite")
	callee.emit(call.Accepted{Body: []byte(strings.Replace(calledSDP, "7 1", "7 2", 1) + "a=recvonly\r\n")})
	callee.expect(t, "ack")
	caller.expect(t, "accept")
	caller.emit(call.Acked{})
}
