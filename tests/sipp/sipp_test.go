package sipp

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/tests/netlab"
)

// routed is the default topology with a plain router in the gateway's place, so that
// the peers can be tried without Tandem.
func routed(t *testing.T) *netlab.Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a lab of network namespaces needs root")
	}
	lab, err := netlab.Up(t.Context(), netlab.Default(true))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	return lab
}

func capture(t *testing.T, lab *netlab.Lab, host string) func() *netlab.Log {
	t.Helper()
	c, err := lab.Capture(host, netlab.PeerDevice)
	if err != nil {
		t.Fatal(err)
	}
	return func() *netlab.Log {
		t.Helper()
		log, err := c.Stop()
		if err != nil {
			t.Fatal(err)
		}
		return log
	}
}

// pair runs one scenario against another and returns what was on the wire.
func pair(t *testing.T, lab *netlab.Lab, caller, callee Config) ([]netlab.Call, netlab.MediaReport) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	platform, carrier := netlab.RealmOf(netlab.Platform), netlab.RealmOf(netlab.CarrierA)
	stopA, stopB := capture(t, lab, netlab.Platform), capture(t, lab, netlab.CarrierA)

	callee.Local = carrier.Peer
	uas, err := Start(ctx, lab, netlab.CarrierA, callee)
	if err != nil {
		t.Fatal(err)
	}
	caller.Local, caller.Remote = platform.Peer, netip.AddrPortFrom(carrier.Peer, 5060)
	caller.Number = netlab.PrefixA + "1"
	uac, err := Start(ctx, lab, netlab.Platform, caller)
	if err != nil {
		t.Fatal(err)
	}
	stats, err := uac.Wait()
	if err != nil {
		t.Error(err)
	}
	if want := uint64(caller.Calls); stats.Successful != want || stats.Failed != 0 {
		t.Errorf("caller: %d calls good, %d failed, want %d and 0", stats.Successful, stats.Failed, want)
	}
	if stats, err = uas.Stop(5 * time.Second); err != nil {
		t.Error(err)
	}
	if stats.Failed != 0 {
		t.Errorf("callee: %d calls failed", stats.Failed)
	}
	a, b := stopA(), stopB()
	calls := netlab.Calls(a, b)
	if len(calls) != caller.Calls {
		t.Errorf("%d calls on the wire, want %d", len(calls), caller.Calls)
	}
	return calls, netlab.CompareMedia(calls, a, b)
}

// TestScenarios tries every scenario of a caller with the callee that it is for. The
// peers must be right before they may say that the gateway is wrong.
func TestScenarios(t *testing.T) {
	lab := routed(t)
	short := Audio{Packets: 20}
	for _, tt := range []struct {
		caller, callee Scenario
		status         int
		streams        int // per call, both ways
		packets        int // per stream
	}{
		{caller: Call, callee: Answer, status: 200, streams: 2, packets: 20},
		{caller: CallAndWait, callee: AnswerAndEnd, status: 200, streams: 2, packets: 20},
		{caller: CallSignal, callee: AnswerSignal, status: 200},
		{caller: CallAndCancel, callee: Ring, status: 487},
		{caller: CallBusy, callee: Busy, status: 486},
		{caller: CallUnavailable, callee: Unavailable, status: 503},
		{caller: CallAndHold, callee: AnswerHold, status: 200, streams: 2, packets: 40},
	} {
		t.Run(fmt.Sprintf("%s to %s", tt.caller, tt.callee), func(t *testing.T) {
			const n = 3
			caller := Config{Scenario: tt.caller, Audio: short, Calls: n, Rate: 10}
			calls, media := pair(t, lab, caller, Config{Scenario: tt.callee, Audio: short})
			for _, c := range calls {
				if c.Caller.Status != tt.status || len(c.Callees) != 1 {
					t.Errorf("%s: status %d and %d callees, want %d and 1", c.Number, c.Caller.Status, len(c.Callees), tt.status)
				}
			}
			if want := uint64(n * tt.streams * tt.packets); media.Sent != want || media.Received != want {
				t.Errorf("%d packets sent, %d received, want %d", media.Sent, media.Received, want)
			}
			if media.Streams != n*tt.streams || !media.Clean() {
				t.Errorf("%d streams, want %d; %q", media.Streams, n*tt.streams, media.Problems)
			}
		})
	}
}
