package b2bua

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

var hungUp = call.Ended{Cause: call.Cause{Code: "normal-clearing", SIP: 200, Text: "The peer hung up."}}

// packets are what each trunk's peers sent so far, and its live legs.
func packets(t *testing.T, b *bench) (sent map[string]uint64, legs map[string]int) {
	t.Helper()
	list, err := b.Media()
	if err != nil {
		t.Error(err)
	}
	sent, legs = make(map[string]uint64), make(map[string]int)
	for _, m := range list {
		sent[m.Trunk], legs[m.Trunk] = m.Counters.Packets, len(m.Live)
	}
	return sent, legs
}

// awaitLegs waits until so many calls to the carrier are answered.
func awaitLegs(t *testing.T, b *bench, want int) {
	t.Helper()
	deadline := time.After(5 * time.Second)
	for {
		_, live := packets(t, b)
		if live["carrier"] == want {
			return
		}
		select {
		case <-time.After(time.Millisecond):
		case <-deadline:
			t.Fatalf("%d live legs, want %d", live["carrier"], want)
		}
	}
}

// M11, O1: a trunk's counters have each answered call once, while it is up, in the moment
// in which it ends, and after it. The fake engine counts 100 packets a side.
func TestMediaCountsEachCallOnce(t *testing.T) {
	const rounds, atOnce = 20, 4
	var legs []*fakeLeg
	for range rounds * atOnce {
		legs = append(legs, newFakeLeg("callee", carrierPeer))
	}
	b := newBenchWith(t, func(trunks []trunk.Config) { trunks[0].MaxCalls = 0 }, legs...)
	for round := range rounds {
		var callers []*fakeLeg
		for i := range atOnce {
			callers = append(callers, establish(t, b, legs[round*atOnce+i]))
		}
		want := uint64(100 * atOnce * (round + 1))
		awaitLegs(t, b, atOnce)
		var ended sync.WaitGroup
		ended.Go(func() {
			for _, caller := range callers {
				caller.emit(hungUp)
			}
			for range callers {
				<-b.records
				<-b.done
			}
		})
		over := make(chan struct{})
		go func() { ended.Wait(); close(over) }()
		for ending := true; ending; {
			select {
			case <-over:
				ending = false
			default:
			}
			if sent, _ := packets(t, b); sent["platform"] != want || sent["carrier"] != want || sent["backup"] != 0 {
				t.Fatalf("%v packets while calls end, want %d of the platform and of the carrier", sent, want)
			}
		}
	}
	awaitLegs(t, b, 0)
}

// M11: the announcement of a trunk that did not take the call is not its call's media. What
// the caller sent meanwhile is, once another trunk has answered.
func TestMediaOfFailedTryDoesNotCount(t *testing.T) {
	first, second := newFakeLeg("first", carrierPeer), newFakeLeg("second", backupPeer)
	b := newBench(t, first, second)
	caller := b.call(callerSDP)
	<-b.dialer.dialled
	first.emit(call.Progressed{Code: 183, Body: []byte(calledSDP)})
	caller.expect(t, "progress")
	if sent, _ := packets(t, b); sent["carrier"] != 0 || sent["platform"] != 0 {
		t.Errorf("early media of a call that is not answered counts: %v", sent)
	}
	first.emit(call.Rejected{Rejection: call.Rejection{Code: 503}})
	<-b.dialer.dialled
	second.emit(call.Accepted{Body: []byte(calledSDP)})
	caller.expect(t, "accept")
	b.live(t, call.Answered)
	if sent, _ := packets(t, b); sent["carrier"] != 0 || sent["backup"] != 100 || sent["platform"] != 200 {
		t.Errorf("sent %v, want 100 of the trunk that answered and 200 of the caller's", sent)
	}
	caller.emit(hungUp)
	b.record(t)
}

// O1: an engine that cannot be read is an error, not a call without packets.
func TestMediaOfBrokenEngine(t *testing.T) {
	callee := newFakeLeg("callee", carrierPeer)
	b := newBench(t, callee)
	caller := establish(t, b, callee)
	gone := errors.New("the engine is gone")
	b.engine.breakDown(gone)
	if list, err := b.Media(); !errors.Is(err, gone) || len(list) != 3 || list[0].Live != nil {
		t.Errorf("%+v, %v", list, err)
	}
	b.engine.breakDown(nil)
	caller.emit(hungUp)
	b.record(t)
}
