package b2bua

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/route"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

const (
	secondPeer = "203.0.113.11:5060"
	thirdPeer  = "203.0.113.12:5060"
)

// dials waits for the next INVITE out, and checks where it goes.
func (b *bench) dials(t *testing.T, want string) dial {
	t.Helper()
	select {
	case d := <-b.dialer.dialled:
		if d.target.Addr.String() != want {
			t.Fatalf("the call goes to %s, want %s", d.target.Addr, want)
		}
		return d
	case <-time.After(15 * time.Second):
		t.Fatalf("no INVITE went out, want one to %s", want)
		return dial{}
	}
}

// told waits for the caller's final response.
func told(t *testing.T, caller *fakeLeg, code int) {
	t.Helper()
	if a := caller.expect(t, "close"); a.code != code {
		t.Errorf("the caller was told %d, want %d", a.code, code)
	}
}

func refuse(l *fakeLeg, r call.Rejection) { l.emit(call.Rejected{Rejection: r}) }

// tried are the targets of the attempts in a record, with their causes.
func tried(rec call.Record) (list []string) {
	for _, a := range rec.Attempts {
		list = append(list, a.Target.String()+" "+a.Cause.Code)
	}
	return list
}

// policy changes the policy of the carriers' group.
func policy(change func(*trunk.GroupConfig)) func(*trunk.Configs, *[]route.Config) {
	return func(c *trunk.Configs, _ *[]route.Config) { change(&c.Groups[0]) }
}

// T7, S20: what a refusal means for the next trunk, and for the caller when there is none.
func TestRefusals(t *testing.T) {
	for _, tc := range []struct {
		name    string
		refusal call.Rejection
		next    bool
		told    int
		code    string
	}{
		{"busy is the called party's", call.Rejection{Code: 486}, false, 486, "busy"},
		{"so with its cause", call.Rejection{Code: 486, Q850: 17}, false, 486, "busy"},
		{"unknown number is the called party's", call.Rejection{Code: 404}, false, 404, "not-found"},
		{"declined everywhere ends the call", call.Rejection{Code: 603}, false, 603, "declined"},
		{"so whatever its cause", call.Rejection{Code: 603, Q850: 34}, false, 603, "declined"},
		{"redirection is a rejection", call.Rejection{Code: 302}, false, 480, "redirected"},
		{"so whatever its cause", call.Rejection{Code: 302, Q850: 34}, false, 480, "redirected"},
		{"our own fault says nothing of the called party", call.Rejection{Code: 400}, false, 503, "request-refused"},
		{"a challenge is between us and the carrier", call.Rejection{Code: 407}, false, 503, "request-refused"},
		{"overload tries the next trunk", call.Rejection{Code: 503}, true, 503, "trunk-failure"},
		{"server failure tries the next trunk", call.Rejection{Code: 500}, true, 503, "trunk-failure"},
		{"the last server failure too", call.Rejection{Code: 599}, true, 503, "trunk-failure"},
		{"request timeout tries the next trunk", call.Rejection{Code: 408}, true, 503, "trunk-failure"},
		{"silence tries the next trunk", call.Rejection{Code: 408, Silent: true}, true, 503, "silent"},
		{"no circuit is not the called party's, whatever it was translated to", call.Rejection{Code: 480, Q850: 34}, true, 503, "trunk-failure"},
		{"nor is congestion", call.Rejection{Code: 486, Q850: 42}, true, 503, "trunk-failure"},
		{"another carrier may know the number", call.Rejection{Code: 404, Q850: 1}, true, 404, "not-found"},
		{"a cause that is not in the list ends the call", call.Rejection{Code: 480, Q850: 19}, false, 480, "unavailable"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			first, second := newFakeLeg("first", carrierPeer), newFakeLeg("second", backupPeer)
			b := newBench(t, first, second)
			caller := b.call(callerSDP)
			b.dials(t, carrierPeer)
			refuse(first, tc.refusal)
			want := []string{carrierPeer + " " + tc.code}
			if tc.next {
				b.dials(t, backupPeer)
				refuse(second, tc.refusal)
				want = append(want, backupPeer+" "+tc.code)
			}
			told(t, caller, tc.told)
			rec := b.record(t)
			if rec.Cause.Code != tc.code {
				t.Errorf("cause %q, want %q", rec.Cause.Code, tc.code)
			}
			if got := tried(rec); !slices.Equal(got, want) {
				t.Errorf("attempts %v, want %v", got, want)
			}
			for _, a := range rec.Attempts {
				if !strings.HasSuffix(a.Cause.Text, ".") || strings.Count(a.Cause.Text, ". ") > 0 {
					t.Errorf("an attempt's cause is not one sentence: %q", a.Cause.Text)
				}
			}
		})
	}
}

// T7: a group's own lists, alone or as ranges, are what counts.
func TestRetryListsOfAGroup(t *testing.T) {
	own := policy(func(c *trunk.GroupConfig) {
		c.RetrySIP, c.RetryQ850 = []trunk.CodeRange{{First: 486, Last: 487}, {First: 600, Last: 600}}, []trunk.CodeRange{{First: 20, Last: 21}}
	})
	for _, row := range []struct {
		refusal call.Rejection
		next    bool
	}{
		{call.Rejection{Code: 486}, true}, {call.Rejection{Code: 487}, true}, {call.Rejection{Code: 600}, true},
		{call.Rejection{Code: 403, Q850: 21}, true}, {call.Rejection{Code: 500, Q850: 20}, true},
		{call.Rejection{Code: 503}, false}, {call.Rejection{Code: 408}, false}, {call.Rejection{Code: 480, Q850: 34}, false},
		{call.Rejection{Code: 603, Q850: 21}, false},
		// That nobody is there needs no list.
		{call.Rejection{Code: 408, Silent: true}, true},
	} {
		t.Run(fmt.Sprint(row.refusal.Code, row.refusal.Q850, row.refusal.Silent), func(t *testing.T) {
			first, second := newFakeLeg("first", carrierPeer), newFakeLeg("second", backupPeer)
			b := newBenchOf(t, own, first, second)
			caller := b.call(callerSDP)
			b.dials(t, carrierPeer)
			refuse(first, row.refusal)
			if row.next {
				b.dials(t, backupPeer)
				refuse(second, call.Rejection{Code: 404})
			}
			caller.expect(t, "close")
			if rec := b.record(t); row.next != (len(rec.Attempts) == 2) {
				t.Errorf("attempts %v", tried(rec))
			}
		})
	}
}

// T7: a platform fails over by itself. Its other addresses are tried after 503 and 408 only,
// and after silence.
func TestTowardsAPlatform(t *testing.T) {
	const other = "198.51.100.11:5060"
	for _, row := range []struct {
		refusal call.Rejection
		next    bool
		told    int
	}{
		{call.Rejection{Code: 503}, true, 503}, {call.Rejection{Code: 408}, true, 503}, {call.Rejection{Code: 408, Silent: true}, true, 503},
		{call.Rejection{Code: 500}, false, 503}, {call.Rejection{Code: 502}, false, 503}, {call.Rejection{Code: 504}, false, 503},
		{call.Rejection{Code: 480, Q850: 34}, false, 503}, {call.Rejection{Code: 480}, false, 480},
	} {
		t.Run(fmt.Sprint(row.refusal.Code, row.refusal.Q850, row.refusal.Silent), func(t *testing.T) {
			legs := []*fakeLeg{newFakeLeg("first", platformPeer), newFakeLeg("second", other)}
			b := newBenchOf(t, func(c *trunk.Configs, _ *[]route.Config) { c.Trunks[0].Targets = []string{platformPeer, other} }, legs...)
			caller := b.callFrom("outside", carrierPeer, "+15550100", callerSDP)
			b.dials(t, platformPeer)
			refuse(legs[0], row.refusal)
			if row.next {
				b.dials(t, other)
				refuse(legs[1], row.refusal)
			}
			told(t, caller, row.told)
			b.record(t)
		})
	}
}

// T7: no more tries than the group has; the last one's cause is the call's.
func TestTries(t *testing.T) {
	first, second := newFakeLeg("first", carrierPeer), newFakeLeg("second", backupPeer)
	b := newBenchOf(t, policy(func(c *trunk.GroupConfig) { c.Tries = 1 }), first, second)
	caller := b.call(callerSDP)
	b.dials(t, carrierPeer)
	refuse(first, call.Rejection{Code: 500})
	told(t, caller, 503)
	if rec := b.record(t); !slices.Equal(tried(rec), []string{carrierPeer + " trunk-failure"}) || rec.Cause.Code != "trunk-failure" {
		t.Errorf("record %+v", rec)
	}
}

// T7: the pause between two tries is kept, and a caller that gives up, or a gateway that stops,
// does not wait for its end.
func TestPause(t *testing.T) {
	t.Run("is kept", func(t *testing.T) {
		first, second := newFakeLeg("first", carrierPeer), newFakeLeg("second", backupPeer)
		b := newBenchOf(t, policy(func(c *trunk.GroupConfig) { c.Pause = 50 * time.Millisecond }), first, second)
		caller := b.call(callerSDP)
		b.dials(t, carrierPeer)
		refused := time.Now()
		refuse(first, call.Rejection{Code: 500})
		b.dials(t, backupPeer)
		if after := time.Since(refused); after < 50*time.Millisecond {
			t.Errorf("the next trunk was tried after %s", after)
		}
		refuse(second, call.Rejection{Code: 486})
		told(t, caller, 486)
		b.record(t)
	})
	long := policy(func(c *trunk.GroupConfig) { c.Pause = 10 * time.Second })
	for name, row := range map[string]struct {
		end  func(*bench, *fakeLeg)
		code string
	}{
		"the caller gives up": {func(_ *bench, caller *fakeLeg) {
			caller.emit(call.Ended{Cause: call.Cause{Code: "cancelled", SIP: 487, Text: "The caller gave up."}})
		}, "cancelled"},
		"the gateway stops": {func(b *bench, _ *fakeLeg) { b.Hangup() }, "shutdown"},
	} {
		t.Run(name, func(t *testing.T) {
			first := newFakeLeg("first", carrierPeer)
			b := newBenchOf(t, long, first)
			caller := b.call(callerSDP)
			b.dials(t, carrierPeer)
			refuse(first, call.Rejection{Code: 500})
			first.expect(t, "close")
			row.end(b, caller)
			if rec := b.record(t); rec.Cause.Code != row.code || len(rec.Attempts) != 1 || rec.Ended.Sub(rec.Started) > 5*time.Second {
				t.Errorf("record %+v", rec)
			}
		})
	}
}

// T7: no try begins when the hunt has lasted for its whole time.
func TestTotalTime(t *testing.T) {
	first := newFakeLeg("first", carrierPeer)
	b := newBenchOf(t, policy(func(c *trunk.GroupConfig) { c.Pause, c.Total = 50*time.Millisecond, 40*time.Millisecond }), first)
	caller := b.call(callerSDP)
	b.dials(t, carrierPeer)
	refuse(first, call.Rejection{Code: 500})
	told(t, caller, 503)
	if rec := b.record(t); !slices.Equal(tried(rec), []string{carrierPeer + " trunk-failure"}) {
		t.Errorf("attempts %v", tried(rec))
	}
}

// S20, T7: a trunk that cannot be offered the call, for want of a common codec, is no try. What the
// others said counts; the call itself is at fault only if it fits nobody.
func TestTrunkThatDoesNotFit(t *testing.T) {
	var third trunk.Config
	third.SetDefaults()
	third.Name, third.Realm, third.Kind, third.Targets = "third", "outside", trunk.Carrier, []string{thirdPeer}
	for _, row := range []struct {
		name    string
		unfit   []int // places in the config
		tries   int
		dialled []string
		told    int
		code    string
	}{
		{"the second does not fit", []int{2}, 2, []string{carrierPeer, thirdPeer}, 503, "trunk-failure"},
		{"the last does not fit", []int{3}, 3, []string{carrierPeer, backupPeer}, 503, "trunk-failure"},
		{"none fits", []int{1, 2, 3}, 3, nil, 488, "no-common-codec"},
	} {
		t.Run(row.name, func(t *testing.T) {
			legs := make([]*fakeLeg, len(row.dialled))
			for i, peer := range row.dialled {
				legs[i] = newFakeLeg(fmt.Sprint("leg", i), peer)
			}
			b := newBenchOf(t, func(c *trunk.Configs, _ *[]route.Config) {
				c.Trunks = append(c.Trunks, third)
				c.Groups[0].Trunks, c.Groups[0].Tries = append(c.Groups[0].Trunks, "third"), row.tries
				for _, i := range row.unfit {
					c.Trunks[i].Codecs = []string{"iLBC"}
				}
			}, legs...)
			caller := b.call(callerSDP)
			for i, peer := range row.dialled {
				b.dials(t, peer)
				refuse(legs[i], call.Rejection{Code: 503})
			}
			told(t, caller, row.told)
			if rec := b.record(t); rec.Cause.Code != row.code || len(rec.Attempts) != len(row.dialled)+len(row.unfit) {
				t.Errorf("cause %q after %v, want %q", rec.Cause.Code, tried(rec), row.code)
			}
		})
	}
	t.Run("the other is out of service", func(t *testing.T) {
		b := newBenchOf(t, func(c *trunk.Configs, _ *[]route.Config) {
			c.Trunks[1].State, c.Trunks[2].Codecs = trunk.OutOfService, []string{"iLBC"}
		})
		caller := b.call(callerSDP)
		told(t, caller, 503)
		if rec := b.record(t); rec.Cause.Code != "trunk-out-of-service" {
			t.Errorf("cause %+v", rec.Cause)
		}
	})
}

// T10: each attempt has its own ring_timeout. One that only says that it tries is left for the
// next; one that rings has found the called party, and nobody else is tried.
func TestRingTimeoutIsPerAttempt(t *testing.T) {
	first, second := newFakeLeg("first", carrierPeer), newFakeLeg("second", backupPeer)
	b := newBenchOf(t, func(c *trunk.Configs, _ *[]route.Config) {
		c.Trunks[1].RingTimeout, c.Trunks[2].RingTimeout = 100*time.Millisecond, 200*time.Millisecond
	}, first, second)
	begun := time.Now()
	caller := b.call(callerSDP)
	b.dials(t, carrierPeer)
	first.emit(call.Trying{})
	b.dials(t, backupPeer)
	if after := time.Since(begun); after < 100*time.Millisecond {
		t.Errorf("the first was left after %s", after)
	}
	second.emit(call.Progressed{Code: 180})
	caller.expect(t, "progress")
	told(t, caller, 480)
	if after := time.Since(begun); after < 300*time.Millisecond {
		t.Errorf("the second was left after %s in all", after)
	}
	rec := b.record(t)
	if !slices.Equal(tried(rec), []string{carrierPeer + " no-progress", backupPeer + " no-answer"}) {
		t.Errorf("attempts %v", tried(rec))
	}
	if w := b.trunks.Trunk("backup").Status().Out.Window; w.Classes["no-answer"] != 1 {
		t.Errorf("the backup's outcomes: %v", w.Classes)
	}
}

// T11: a target that gives no response at all is left after no_response, is closed, so that its
// leg cleans up what still comes, and its health hears of it. Any response keeps it.
func TestNoResponse(t *testing.T) {
	const wait = 100 * time.Millisecond
	for _, row := range []struct {
		name     string
		wait     time.Duration
		response call.Event
		left     bool
	}{
		{"nothing", wait, nil, true},
		{"100 keeps it", wait, call.Trying{}, false},
		{"ringing keeps it", wait, call.Progressed{Code: 180}, false},
		{"no_response: 0s waits for SIP's own timer", 0, nil, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			first, second := newFakeLeg("first", carrierPeer), newFakeLeg("second", backupPeer)
			b := newBenchOf(t, func(c *trunk.Configs, _ *[]route.Config) { c.Trunks[1].NoResponse = row.wait }, first, second)
			caller := b.call(callerSDP)
			begun := time.Now()
			b.dials(t, carrierPeer)
			if row.response != nil {
				first.emit(row.response)
			}
			if !row.left {
				select {
				case d := <-b.dialer.dialled:
					t.Errorf("went on to %s", d.target.Addr)
				case <-time.After(3 * wait):
				}
				first.emit(call.Accepted{Body: []byte(calledSDP)})
				first.expect(t, "ack")
				bye(caller)
				b.record(t)
				return
			}
			b.dials(t, backupPeer)
			if after := time.Since(begun); after < wait || after > wait+time.Second {
				t.Errorf("left after %s", after)
			}
			first.expect(t, "close")
			// The late one is nobody's business any more: it is the leg's.
			first.emit(call.Progressed{Code: 180})
			first.emit(call.Accepted{Body: []byte(calledSDP)})
			second.emit(call.Accepted{Body: []byte(calledSDP)})
			second.expect(t, "ack")
			if a := caller.expect(t, "accept"); strings.Contains(string(a.body), "203.0.113") {
				t.Errorf("the answer tells of a carrier (S18):\n%s", a.body)
			}
			bye(caller)
			second.expect(t, "close")
			rec := b.record(t)
			if !slices.Equal(tried(rec), []string{carrierPeer + " silent"}) || !strings.Contains(rec.Attempts[0].Cause.Text, "no response at all within 1") {
				t.Errorf("attempts %+v", rec.Attempts)
			}
			if w := b.trunks.Trunk("carrier").Status().Out.Window; w.Classes["silent"] != 1 {
				t.Errorf("outcomes %v", w.Classes)
			}
		})
	}
}

// T11: calls that get no response take a target out by themselves, and one that is heard brings
// the count back to nothing.
func TestSilenceFeedsHealth(t *testing.T) {
	b := newBenchOf(t, func(c *trunk.Configs, _ *[]route.Config) {
		c.Trunks[1].HealthFailures = 2
		c.Groups[0].Trunks = []string{"carrier"}
	})
	carrier := b.trunks.Trunk("carrier")
	failed := func(failure error, what string) {
		t.Helper()
		b.dialer.failure = failure
		caller := b.call(callerSDP)
		b.dials(t, carrierPeer)
		told(t, caller, 503)
		if rec := b.record(t); rec.Cause.Code != what {
			t.Errorf("cause %+v", rec.Cause)
		}
	}
	failed(syscall.EHOSTUNREACH, "unreachable")
	b.dialer.legs = []*fakeLeg{newFakeLeg("busy", carrierPeer)}
	refuse(b.dialer.legs[0], call.Rejection{Code: 486})
	caller := b.call(callerSDP)
	b.dials(t, carrierPeer)
	told(t, caller, 486)
	b.record(t)
	failed(syscall.EHOSTUNREACH, "unreachable")
	for range 3 {
		failed(errors.New("there is no SIP stack"), "unreachable") // nothing the target can do about
	}
	if !carrier.InService() {
		t.Fatalf("out of service too early: %+v", carrier.Condition())
	}
	failed(syscall.EHOSTUNREACH, "unreachable")
	if carrier.InService() {
		t.Error("still in service after two calls in a row that got no response")
	}
	caller = b.call(callerSDP)
	told(t, caller, 503)
	if rec := b.record(t); rec.Cause.Code != "trunk-out-of-service" || !strings.Contains(rec.Cause.Text, "no response to 2 calls in a row") {
		t.Errorf("cause %+v", rec.Cause)
	}
}

// T6, T7: Retry-After of a 503 reaches the trunk's health: the target is avoided that long.
func TestRetryAfterReachesHealth(t *testing.T) {
	for _, seconds := range []int{0, 120} {
		first, second := newFakeLeg("first", carrierPeer), newFakeLeg("second", backupPeer)
		b := newBenchOf(t, func(c *trunk.Configs, _ *[]route.Config) { c.Trunks[1].HealthFailures = 5 }, first, second)
		caller := b.call(callerSDP)
		b.dials(t, carrierPeer)
		refuse(first, call.Rejection{Code: 503, RetryAfter: seconds})
		b.dials(t, backupPeer)
		refuse(second, call.Rejection{Code: 486})
		told(t, caller, 486)
		b.record(t)
		c := b.trunks.Trunk("carrier").Condition()
		if want := map[int]string{0: trunk.InService, 120: trunk.Degraded}[seconds]; c.State != want {
			t.Errorf("Retry-After %d: %+v, want %s", seconds, c, want)
		}
	}
}

// T11, RFC 3263 section 4.3: after a target that failed the trunk's others are tried, and then
// the next trunk. The last try is kept for another trunk, if there is one.
func TestNextTargetOfTheTrunk(t *testing.T) {
	silent, failed, busy := call.Rejection{Code: 408, Silent: true}, call.Rejection{Code: 500}, call.Rejection{Code: 486}
	for _, row := range []struct {
		name   string
		number string
		tries  int
		// refusals in their order; so many of them are the carrier's.
		refusals []call.Rejection
		carriers int
	}{
		{"the last try is another trunk's", "+4930123456", 3, []call.Rejection{silent, silent, busy}, 2},
		{"all targets, then the next trunk", "+4930123456", 5, []call.Rejection{silent, silent, silent, busy}, 3},
		{"what is no fault of the target goes to the next trunk", "+4930123456", 5, []call.Rejection{failed, busy}, 1},
		{"503 is the target's", "+4930123456", 5, []call.Rejection{{Code: 503}, busy}, 2},
		{"a route with one trunk has all tries for it", "+4830123456", 3, []call.Rejection{silent, silent, silent}, 3},
	} {
		t.Run(row.name, func(t *testing.T) {
			legs := make([]*fakeLeg, len(row.refusals))
			for i, r := range row.refusals {
				legs[i] = newFakeLeg(fmt.Sprint("leg ", i), carrierPeer)
				refuse(legs[i], r)
			}
			b := newBenchOf(t, func(c *trunk.Configs, _ *[]route.Config) {
				c.Trunks[1].Targets = []string{carrierPeer, secondPeer, thirdPeer}
				c.Groups[0].Tries = row.tries
			}, legs...)
			b.callFrom("inside", platformPeer, row.number, callerSDP).expect(t, "close")
			rec := b.record(t)
			if len(rec.Attempts) != len(row.refusals) || len(b.dialer.dialled) != len(row.refusals) {
				t.Fatalf("attempts %v, want %d", tried(rec), len(row.refusals))
			}
			seen := make(map[string]bool)
			for i, a := range rec.Attempts {
				if want := map[bool]string{true: "carrier", false: "backup"}[i < row.carriers]; a.Trunk != want {
					t.Errorf("attempt %d goes to trunk %s, want %s", i+1, a.Trunk, want)
				}
				seen[a.Target.String()] = true
			}
			if len(seen) != len(rec.Attempts) {
				t.Errorf("a target was tried twice: %v", tried(rec))
			}
		})
	}
}

// T7: early media of a try that failed binds the tries after it, and is gone with it. The caller
// keeps port and codec, and a trunk that has nothing to go with them is passed over.
func TestEarlyMediaThenNextTrunk(t *testing.T) {
	early := func(t *testing.T, legs ...*fakeLeg) (b *bench, caller *fakeLeg, answer []byte) {
		b = newBench(t, legs...)
		caller = b.call(callerSDP)
		b.dials(t, carrierPeer)
		legs[0].emit(call.Progressed{Code: 183, Body: []byte(calledSDP)})
		answer = caller.expect(t, "progress").body
		if answer == nil {
			t.Fatal("the early media was not passed on")
		}
		return b, caller, answer
	}
	t.Run("the caller's answer stays", func(t *testing.T) {
		first, second := newFakeLeg("first", carrierPeer), newFakeLeg("second", backupPeer)
		b, caller, answer := early(t, first, second)
		refuse(first, call.Rejection{Code: 503})
		if d := b.dials(t, backupPeer); !strings.Contains(string(d.invite.Body), "RTP/AVP 8\r\n") {
			t.Errorf("offered more than PCMA, which the caller was told of:\n%s", d.invite.Body)
		}
		if n := b.engine.installed(); n != 0 {
			t.Errorf("%d flows are left of the failed try", n)
		}
		second.emit(call.Progressed{Code: 180})
		if a := caller.expect(t, "progress"); a.body != nil {
			t.Errorf("ringing has the media of the failed try:\n%s", a.body)
		}
		second.emit(call.Accepted{Body: []byte(strings.ReplaceAll(calledSDP, "203.0.113.10", "203.0.113.20"))})
		second.expect(t, "ack")
		if a := caller.expect(t, "accept"); string(a.body) != string(answer) {
			t.Errorf("the caller was told\n%s\nand then\n%s", answer, a.body)
		}
		bye(caller)
		second.expect(t, "close")
		b.record(t)
	})
	t.Run("an answer that cannot match ends the call", func(t *testing.T) {
		first, second := newFakeLeg("first", carrierPeer), newFakeLeg("second", backupPeer)
		b, caller, _ := early(t, first, second)
		refuse(first, call.Rejection{Code: 503})
		b.dials(t, backupPeer)
		second.emit(call.Progressed{Code: 183, Body: []byte(opusSDP)})
		if a := caller.expect(t, "progress"); a.body != nil {
			t.Errorf("early media that cannot match was passed on:\n%s", a.body)
		}
		second.emit(call.Accepted{Body: []byte(opusSDP)})
		second.expect(t, "ack")
		second.expect(t, "close")
		told(t, caller, 503)
		if rec := b.record(t); rec.Cause.Code != "bad-answer" || !rec.Answered.IsZero() {
			t.Errorf("record %+v", rec)
		}
	})
	t.Run("a trunk without the codec is not dialled", func(t *testing.T) {
		first := newFakeLeg("first", carrierPeer)
		b := newBenchOf(t, func(c *trunk.Configs, _ *[]route.Config) {
			for i := range c.Trunks {
				c.Trunks[i].Codecs = []string{"G722", "PCMA"}
			}
			c.Trunks[2].Codecs = []string{"PCMA"}
		}, first)
		caller := b.call(strings.Replace(callerSDP, "AVP 8 0", "AVP 9 8", 1))
		b.dials(t, carrierPeer)
		first.emit(call.Progressed{Code: 183, Body: []byte(strings.Replace(calledSDP, "AVP 8", "AVP 9", 1))})
		caller.expect(t, "progress")
		refuse(first, call.Rejection{Code: 503})
		told(t, caller, 503)
		rec := b.record(t)
		if !slices.Equal(tried(rec), []string{carrierPeer + " trunk-failure", backupPeer + " early-media-codec"}) {
			t.Errorf("attempts %v", tried(rec))
		}
		if out := b.trunks.Trunk("backup").Status().Out; out.Attempts != 0 {
			t.Errorf("an attempt was counted that nobody was sent: %+v", out)
		}
	})
}

// T14, O2: both trunks' windows have what calls came to, how long they took to ring and lasted.
func TestOutcomesAreCounted(t *testing.T) {
	first, second := newFakeLeg("first", carrierPeer), newFakeLeg("second", backupPeer)
	b := newBench(t, first, second)
	caller := b.call(callerSDP)
	b.dials(t, carrierPeer)
	refuse(first, call.Rejection{Code: 500, Q850: 38})
	b.dials(t, backupPeer)
	time.Sleep(2 * time.Millisecond) // a delay to be counted
	second.emit(call.Progressed{Code: 180})
	caller.expect(t, "progress")
	second.emit(call.Accepted{Body: []byte(calledSDP)})
	caller.expect(t, "accept")
	time.Sleep(2 * time.Millisecond) // and some talk
	bye(caller)
	b.record(t)
	in, failed, out := b.trunks.Trunk("platform").Status().In, b.trunks.Trunk("carrier").Status().Out, b.trunks.Trunk("backup").Status().Out
	if failed.Attempts != 1 || failed.Failures != 1 || failed.Window.Classes["failed"] != 1 || failed.Window.PDDMS != 0 {
		t.Errorf("the trunk that failed: %+v", failed)
	}
	for name, s := range map[string]trunk.DirectionStat{"in": in, "out": out} {
		if s.Attempts != 1 || s.Answers != 1 || s.Window.ASR != 100 || s.Window.PDDMS < 2 || s.Window.PDDMS > 2000 || s.Window.ACDMS < 2 || s.Window.MOS < 4 {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

// T3, T4: a trunk whose limit is reached is passed over without counting as a try; when all are,
// the caller hears 503 with Retry-After. Emergency calls are held up by no limit.
func TestLimitsOut(t *testing.T) {
	limit := func(change func(*trunk.Config)) func(*trunk.Configs, *[]route.Config) {
		return func(c *trunk.Configs, _ *[]route.Config) {
			change(&c.Trunks[1])
			c.Groups[0].Tries = 1
			c.Emergency = []string{"+49112"}
			c.Trunks[0].MaxCalls = 1
		}
	}
	rate, err := call.ParseRate("1/1h")
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		change func(*trunk.Config)
		code   string
	}{
		"max_calls": {func(c *trunk.Config) { c.MaxCalls = 1 }, "trunk-full"},
		"max_rate":  {func(c *trunk.Config) { c.MaxRate = rate }, "trunk-rate"},
	} {
		t.Run(name, func(t *testing.T) {
			one, two, three := newFakeLeg("one", carrierPeer), newFakeLeg("two", backupPeer), newFakeLeg("three", carrierPeer)
			b := newBenchOf(t, limit(row.change), one, two, three)
			first := b.callFrom("outside", backupPeer, "+4930123456", callerSDP) // no route: takes a slot in only
			first.expect(t, "close")
			<-b.records
			<-b.done

			caller := b.call(callerSDP)
			b.dials(t, carrierPeer)
			one.emit(call.Accepted{Body: []byte(calledSDP)})
			caller.expect(t, "accept")

			refused := b.call(callerSDP)
			told(t, refused, 503)
			if rec := <-b.records; rec.Cause.Code != "trunk-full" || rec.Cause.Rejection().RetryAfter != 5 || len(rec.Attempts) != 0 {
				t.Errorf("the second call in: %+v", rec.Cause)
			}
			<-b.done

			urgent := b.callFrom("inside", platformPeer, "+49112", callerSDP)
			b.dials(t, carrierPeer)
			two.emit(call.Accepted{Body: []byte(calledSDP)})
			urgent.expect(t, "accept")
			for _, leg := range []*fakeLeg{caller, urgent} {
				bye(leg)
				<-b.records
				<-b.done
			}
			if name == "max_calls" {
				return
			}
			third := b.callFrom("inside", platformPeer, "+4830123456", callerSDP)
			told(t, third, 503)
			if rec := b.record(t); rec.Cause.Code != row.code || rec.Cause.Rejection().RetryAfter < 3590 || len(rec.Attempts) != 0 {
				t.Errorf("cause %+v", rec.Cause)
			}
		})
	}
}
