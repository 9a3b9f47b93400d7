package b2bua

import (
	"log/slog"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/route"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

// moody is a dialer whose peers do anything.
type moody struct{}

// moods are what happens on a leg out, all of it at once.
var moods = [][]call.Event{
	{},
	{call.Trying{}},
	{call.Progressed{Code: 180}},
	{call.Trying{}, call.Progressed{Code: 183, Body: []byte(calledSDP)}, call.Rejected{Rejection: call.Rejection{Code: 503, RetryAfter: 1}}},
	{call.Rejected{Rejection: call.Rejection{Code: 500}}},
	{call.Rejected{Rejection: call.Rejection{Code: 480, Q850: 34}}},
	{call.Rejected{Rejection: call.Rejection{Code: 486}}},
	{call.Rejected{Rejection: call.Rejection{Code: 408, Silent: true}}},
	{call.Ended{Cause: call.Cause{Code: "unreachable", SIP: 503, Text: "There is no way any more."}}},
	{call.Progressed{Code: 180}, call.Accepted{Body: []byte(calledSDP)}, call.Ended{Cause: call.Cause{Code: "normal-clearing", SIP: 200}}},
	{call.Accepted{Body: []byte(calledSDP)}, call.Reinvited{Body: []byte(holdSDP)}, call.Ended{Cause: call.Cause{Code: "normal-clearing", SIP: 200}}},
	{call.Accepted{Body: []byte(noAudioSDP)}},
}

func (moody) Dial(target call.Target, _ call.Invite) (call.Leg, error) {
	mood := rand.IntN(len(moods) + 1)
	if mood == len(moods) {
		return nil, syscall.EHOSTUNREACH
	}
	leg := newFakeLeg("callee", target.Addr.String())
	for _, ev := range moods[mood] {
		leg.events <- ev
	}
	return leg, nil
}

// T3: whatever happens to calls, and while realms come and go and configs are replaced under
// them, no slot, no port, no flow and no call is left.
func TestNothingLeaks(t *testing.T) {
	configs, routeConfigs := testConfigs()
	tune := func(c *trunk.Configs) {
		c.Emergency = []string{"+49112"}
		for i := range c.Trunks {
			tr := &c.Trunks[i]
			tr.MaxCalls, tr.NoResponse, tr.RingTimeout = 1+rand.IntN(4), time.Millisecond, 3*time.Millisecond
			tr.Probe, tr.HealthFailures = trunk.ProbeNone, 1000
		}
		c.Trunks[0].MaxCalls += 4
		c.Trunks[1].Targets = []string{carrierPeer, secondPeer}
		c.Groups[0].Tries, c.Groups[0].Pause = 1+rand.IntN(4), time.Duration(rand.IntN(2))*time.Millisecond
		c.Realms = []trunk.Limit{{Name: "outside", MaxCalls: 1 + rand.IntN(6)}}
	}
	b := newBenchOf(t, func(c *trunk.Configs, _ *[]route.Config) { tune(c) })
	b.cfg.Dialer, b.cfg.Records, b.cfg.Log = moody{}, forgetful{}, slog.New(slog.DiscardHandler)

	over := make(chan struct{})
	var others, calls sync.WaitGroup
	others.Go(func() {
		for {
			select {
			case <-over:
				return
			case <-time.After(time.Millisecond):
			}
			table := b.plan.Load().Trunks
			switch rand.IntN(4) {
			case 0:
				table.RealmDown("outside", tunnelDown)
				b.RealmDown("outside", tunnelDown)
				table.RealmUp("outside")
			case 1:
				b.HangupRealm("inside", causeTunnelDown)
			default:
				tune(&configs)
				next, err := trunk.New(configs, table)
				if err != nil {
					t.Error(err)
					return
				}
				routes, err := route.New(routeConfigs)
				if err != nil {
					t.Error(err)
					return
				}
				b.plan.Store(&Plan{Trunks: next, Routes: routes})
				next.Adopt()
			}
		}
	})
	numbers := []string{"+4930123456", "+4830123456", "+49112", "+331"}
	for range 8 {
		calls.Go(func() {
			for range 250 {
				caller := newFakeLeg("caller", platformPeer)
				if rand.IntN(8) == 0 {
					caller.events <- call.Ended{Cause: call.Cause{Code: "cancelled", SIP: 487}}
				}
				b.Invite("inside", caller, call.Invite{Number: numbers[rand.IntN(len(numbers))], MaxForwards: 70, Body: []byte(callerSDP)})
			}
		})
	}
	calls.Wait()
	close(over)
	others.Wait()

	for _, s := range b.plan.Load().Trunks.All() {
		if st := s.Status(); st.In.Active != 0 || st.Out.Active != 0 {
			t.Errorf("trunk %s holds slots: %d in, %d out", st.Name, st.In.Active, st.Out.Active)
		} else if st.Out.Attempts != st.Out.Answers+st.Out.Failures {
			t.Errorf("trunk %s: of %d attempts out %d were answered and %d failed", st.Name, st.Out.Attempts, st.Out.Answers, st.Out.Failures)
		}
	}
	if n := b.engine.installed(); n != 0 {
		t.Errorf("%d flows are left", n)
	}
	if n := b.media.PortsInUse(); n != 0 {
		t.Errorf("%d ports are left", n)
	}
	if totals := b.Totals(); totals.Active != 0 || totals.Total != 2000 || totals.Answered+totals.Failed != 2000 || totals.Answered == 0 {
		t.Errorf("totals %+v", totals)
	}
}

// forgetful keeps no records.
type forgetful struct{}

func (forgetful) Write(call.Record) {}
