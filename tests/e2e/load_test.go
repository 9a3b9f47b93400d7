package e2e

import (
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/tests/netlab"
	"github.com/tandem-sbc/tandem/tests/sipp"
)

// S7, T3, M9: 500 calls at 50 a second with media, ended by either side, cancelled,
// busy and unanswered: what should succeed does, and nothing is left of any of them.
func TestFiveHundredCalls(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		g := start(t, netlab.GatewayOptions{Engine: engine, RingTimeout: 3 * time.Second})
		before := g.status(t)
		logs := g.capture(t, netlab.Platform, netlab.CarrierA, netlab.CarrierB)

		// Each kind of callee is a host and port of its own; a carrier is one address, so
		// the kinds run side by side on the two carriers and one after the other on each.
		speech := sipp.Audio{Packets: 50}
		type group struct {
			caller, callee sipp.Scenario
			calls          int
			audio          sipp.Audio
			talk           time.Duration
		}
		run := func(carrier, prefix string, port uint16, groups []group) {
			for _, k := range groups {
				callee := g.agent(t, carrier, sipp.Config{Scenario: k.callee, Audio: k.audio})
				caller := g.agent(t, netlab.Platform, sipp.Config{
					Scenario: k.caller, SIPPort: port, MediaPort: port + 1000, Number: prefix, Calls: k.calls, Rate: 25, Audio: k.audio, Talk: k.talk,
				})
				if stats := finish(t, caller, callee); stats.Successful != uint64(k.calls) {
					t.Errorf("%s to %s at %s: %d of %d calls went as they should: %+v", k.caller, k.callee, carrier, stats.Successful, k.calls, stats)
				}
				port++
				prefix += "0"
			}
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			run(netlab.CarrierA, netlab.PrefixA, 5070, []group{
				{caller: sipp.Call, callee: sipp.Answer, calls: 150, audio: speech},
				{caller: sipp.CallBusy, callee: sipp.Busy, calls: 50},
				{caller: sipp.CallUnanswered, callee: sipp.Ring, calls: 50},
			})
		}()
		run(netlab.CarrierB, netlab.PrefixB, 5170, []group{
			{caller: sipp.CallAndWait, callee: sipp.AnswerAndEnd, calls: 150, audio: speech},
			{caller: sipp.CallAndCancel, callee: sipp.Ring, calls: 100, talk: 200 * time.Millisecond},
		})
		<-done

		captured := logs()
		calls := netlab.Calls(captured...)
		if report := netlab.CompareMedia(calls, captured...); !report.Clean() {
			t.Errorf("media did not come through: %+v", report)
		}
		for _, c := range calls {
			if c.Caller.Disordered > 0 {
				t.Errorf("call %s: a provisional response came after the final one", c.Number)
			}
		}
		records := g.records(t)
		causes := make(map[string]int)
		for _, r := range records {
			causes[r.Cause.Code]++
		}
		if len(records) != 500 || causes["busy"] != 50 || causes["no-answer"] != 50 || causes["cancelled"] != 100 {
			t.Errorf("%d records by cause: %v", len(records), causes)
		}
		g.settled(t, before)
	})
}
