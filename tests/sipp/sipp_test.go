package sipp

import (
	"bytes"
	"context"
	"fmt"
	"net"
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

// TestCalleesAnswerOptions: the gateway asks a peer with OPTIONS before it calls it; that
// disturbs no call and fails none.
func TestCalleesAnswerOptions(t *testing.T) {
	lab := routed(t)
	platform, carrier := netlab.RealmOf(netlab.Platform), netlab.RealmOf(netlab.CarrierA)
	uas, err := Start(t.Context(), lab, netlab.CarrierA, Config{Scenario: Answer, Local: carrier.Peer})
	if err != nil {
		t.Fatal(err)
	}
	var prober net.Conn
	err = lab.Do(netlab.Platform, func() (err error) {
		prober, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(carrier.Peer, 5060)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer prober.Close()
	if err := prober.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for n := range 2 {
		_, err := fmt.Fprintf(prober, "OPTIONS sip:%[1]s SIP/2.0\r\nVia: SIP/2.0/UDP %[2]s;branch=z9hG4bK%[3]d\r\nMax-Forwards: 70\r\n"+
			"From: <sip:p@%[2]s>;tag=p%[3]d\r\nTo: <sip:%[1]s>\r\nCall-ID: probe%[3]d\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
			carrier.Peer, prober.LocalAddr(), n)
		if err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 1500)
		got, err := prober.Read(answer)
		if err != nil || !bytes.HasPrefix(answer[:got], []byte("SIP/2.0 200 ")) {
			t.Fatalf("OPTIONS got %q, %v", answer[:got], err)
		}
	}
	uac, err := Start(t.Context(), lab, netlab.Platform, Config{
		Scenario: Call, Local: platform.Peer, Remote: netip.AddrPortFrom(carrier.Peer, 5060), Number: netlab.PrefixA, Calls: 1, Audio: Audio{Packets: 10},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := uac.Wait(); err != nil {
		t.Error(err)
	}
	if stats, err := uas.Stop(5 * time.Second); err != nil || stats.Failed != 0 {
		t.Errorf("the callee: %+v, %v", stats, err)
	}
}
