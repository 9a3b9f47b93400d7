package trunk

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/resolve"
)

var (
	target1 = netip.MustParseAddrPort("192.0.2.1:5060")
	target2 = netip.MustParseAddrPort("192.0.2.2:5060")
)

// tale is a machine with a clock of its own.
type tale struct {
	*testing.T
	m   machine
	now time.Time
	// attempts and answers are what the window of calls holds.
	attempts, answers int
}

// tell begins a tale of a trunk with the defaults of the config, changed.
func tell(t *testing.T, targets []netip.AddrPort, change func(*Config)) *tale {
	c := goodConfig("a")
	if change != nil {
		change(&c)
	}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	return &tale{T: t, m: newMachine(c.health(targets), now), now: now}
}

func (s *tale) asr(time.Time, time.Duration) (int, int) { return s.attempts, s.answers }

// due is when there is something to do next, or zero.
func (s *tale) due() time.Time {
	probe, change := s.m.due()
	if probe.IsZero() || !change.IsZero() && change.Before(probe) {
		return change
	}
	return probe
}

// until lets time pass; nobody answers a probe meanwhile.
func (s *tale) until(end time.Time) {
	for due := s.due(); !due.IsZero() && due.Before(end); due = s.due() {
		if due.After(s.now) {
			s.now = due
		}
		s.m.tick(s.asr, s.now)
		for _, ok := s.m.ask(s.now); ok; {
			_, ok = s.m.ask(s.now)
		}
	}
	s.now = end
	s.m.tick(s.asr, s.now)
}

// ask passes the time until a target is asked the next time.
func (s *tale) ask(target netip.AddrPort) question {
	s.Helper()
	for range 1000 {
		due := s.due()
		if due.IsZero() {
			break
		}
		if due.After(s.now) {
			s.now = due
		}
		s.m.tick(s.asr, s.now)
		for {
			q, ok := s.m.ask(s.now)
			if !ok {
				break
			}
			if q.target == target {
				return q
			}
			s.m.probed(q, Answer{}, context.Canceled, s.now)
			t := s.m.find(q.target)
			t.due = s.now.Add(time.Minute)
		}
	}
	s.Fatalf("%s is not asked any more", target)
	return question{}
}

// event is something that happens to a trunk.
type event func(*tale)

// answers are n probes in a row that a target answers after 20 ms.
func answers(n int, target netip.AddrPort, status int, retryAfter time.Duration) event {
	return func(s *tale) {
		for range n {
			q := s.ask(target)
			s.now = s.now.Add(20 * time.Millisecond)
			s.m.probed(q, Answer{status, retryAfter, 20 * time.Millisecond}, nil, s.now)
		}
	}
}

func healthy(n int) event { return answers(n, target1, 200, 0) }

// silent are n probes in a row that a target does not answer.
func silent(n int, target netip.AddrPort) event {
	return func(s *tale) {
		for range n {
			q := s.ask(target)
			s.now = s.now.Add(q.timeout)
			s.m.probed(q, Answer{}, fmt.Errorf("OPTIONS: %w", context.DeadlineExceeded), s.now)
		}
	}
}

// failing is a probe that cannot be sent.
func failing(n int, err error) event {
	return func(s *tale) {
		for range n {
			s.m.probed(s.ask(target1), Answer{}, err, s.now)
		}
	}
}

// called are n calls in a row that a target answers so.
func called(n int, target netip.AddrPort, status int, retryAfter time.Duration) event {
	return func(s *tale) {
		for range n {
			s.m.heard(target, status, retryAfter, s.now)
		}
	}
}

// unheard are n calls in a row without any response.
func unheard(n int, target netip.AddrPort) event {
	return func(s *tale) {
		for range n {
			s.m.unheard(target, s.now)
		}
	}
}

func wait(d time.Duration) event { return func(s *tale) { s.until(s.now.Add(d)) } }

func down(reason string) event { return func(s *tale) { s.m.realmDown(reason, s.now) } }

func up(s *tale) { s.m.realmUp(s.now) }

func wanted(state string) event { return func(s *tale) { s.m.administer(state, s.now) } }

// answered has the calls of the window answered so often.
func answered(attempts, answers int) event {
	return func(s *tale) {
		s.attempts, s.answers = attempts, answers
		s.until(s.now.Add(reviewPause + time.Millisecond))
	}
}

// reloaded has the config changed.
func reloaded(change func(*Config)) event {
	return func(s *tale) {
		c := goodConfig("a")
		change(&c)
		targets := make([]netip.AddrPort, len(s.m.targets))
		for i, t := range s.m.targets {
			targets[i] = t.addr
		}
		s.m.configure(c.health(targets), s.now)
	}
}

// T1, T6, T9, T11, I3: what happens to a trunk, and the state and the reason that come of it.
func TestHealth(t *testing.T) {
	one, both := []netip.AddrPort{target1}, []netip.AddrPort{target1, target2}
	noProbes := func(c *Config) { c.Probe = ProbeNone }
	const (
		mute     = "192.0.2.1:5060 does not answer OPTIONS"
		unproven = "realm outside is up, and no target has answered OPTIONS since"
		dead     = "192.0.2.1:5060 gave no response to 5 calls in a row"
	)
	for _, row := range []struct {
		name    string
		targets []netip.AddrPort
		change  func(*Config)
		events  []event
		state   string
		reason  string
	}{
		{"at the start: in service until proven otherwise", one, nil, nil, InService, ""},
		{"no target at all", nil, nil, nil, OutOfService, "it has no targets"},

		// Probes (T6).
		{"good probes", one, nil, []event{healthy(5)}, InService, ""},
		{"two retries are left", one, nil, []event{silent(2, target1)}, InService, ""},
		{"retries used up", one, nil, []event{silent(3, target1)}, OutOfService, mute},
		{"a good one in between", one, nil, []event{silent(2, target1), healthy(1), silent(2, target1)}, InService, ""},
		{"a call with life in between", one, nil, []event{silent(2, target1), called(1, target1, 486, 0), silent(2, target1)}, InService, ""},
		{"a call with 180 is no final answer", one, nil, []event{silent(2, target1), called(1, target1, 180, 0), silent(1, target1)}, OutOfService, mute},
		{"no retries wanted", one, func(c *Config) { c.ProbeRetries = 0 }, []event{silent(1, target1)}, OutOfService, mute},
		{"405, 404, 500 and 603 are life", one, nil, []event{
			answers(3, target1, 405, 0), answers(3, target1, 404, 0), answers(3, target1, 500, 0), answers(3, target1, 603, 0),
		}, InService, ""},
		{"408 is none", one, nil, []event{answers(3, target1, 408, 0)}, OutOfService, "192.0.2.1:5060 answers OPTIONS with 408"},
		{"503 is none", one, nil, []event{answers(3, target1, 503, 0)}, OutOfService, "192.0.2.1:5060 answers OPTIONS with 503"},
		{"503 is life if the config says so", one, func(c *Config) { c.ProbeFailures = []int{480} }, []event{answers(3, target1, 503, 0)}, InService, ""},
		{"480 is none if the config says so", one, func(c *Config) { c.ProbeFailures = []int{480} }, []event{answers(3, target1, 480, 0)},
			OutOfService, "192.0.2.1:5060 answers OPTIONS with 480"},
		{"no route", one, nil, []event{failing(3, fmt.Errorf("no way: %w", syscall.EHOSTUNREACH))},
			OutOfService, "192.0.2.1:5060 cannot be reached: no route to host"},
		{"no stack", one, nil, []event{failing(3, errors.New("realm has no SIP stack"))},
			OutOfService, "192.0.2.1:5060 cannot be asked: realm has no SIP stack"},
		{"broken off is no outcome", one, nil, []event{failing(9, context.Canceled)}, InService, ""},

		// Hysteresis.
		{"one good probe is not enough", one, nil, []event{silent(3, target1), healthy(1)}, OutOfService, mute},
		{"two are", one, nil, []event{silent(3, target1), healthy(2)}, InService, ""},
		{"two, but not in a row", one, nil, []event{silent(3, target1), healthy(1), silent(1, target1), healthy(1)}, OutOfService, mute},
		{"a call cannot bring it back", one, nil, []event{silent(3, target1), called(9, target1, 200, 0)}, OutOfService, mute},

		// Several targets (T9).
		{"one of two is dead", both, nil, []event{silent(3, target1)}, InService, ""},
		{"both are", both, nil, []event{silent(3, target1), silent(3, target2)}, OutOfService, mute + "; the same goes for 1 more"},
		{"one of them is back", both, nil, []event{silent(3, target1), silent(3, target2), answers(2, target2, 200, 0)}, InService, ""},

		// Retry-After (T6).
		{"429 is life, with or without", one, nil, []event{answers(3, target1, 429, 0), answers(3, target1, 429, time.Minute)}, InService, ""},
		{"503 with Retry-After", one, nil, []event{answers(1, target1, 503, 2*time.Minute)},
			Degraded, "192.0.2.1:5060 answers OPTIONS with 503 and Retry-After 2m0s"},
		{"and it is over", one, nil, []event{answers(1, target1, 503, 2*time.Minute), wait(2 * time.Minute)}, InService, ""},
		{"429 is no life if the config says so", one, func(c *Config) { c.ProbeFailures, c.ProbeInterval = []int{429}, 30*time.Second },
			[]event{answers(1, target1, 429, 0)}, Degraded, "192.0.2.1:5060 answers OPTIONS with 429 and is left alone for 1m0s"},
		{"but it goes on", one, nil, []event{answers(3, target1, 503, 10*time.Second)}, OutOfService, "192.0.2.1:5060 answers OPTIONS with 503"},
		{"a call with 503 and Retry-After", one, nil, []event{called(1, target1, 503, 18*time.Second)},
			Degraded, "192.0.2.1:5060 answered a call with 503 and Retry-After 18s"},
		{"nobody is believed more than 10 minutes", one, noProbes, []event{called(1, target1, 503, 24*time.Hour), wait(10 * time.Minute)}, InService, ""},
		{"there is another target", both, nil, []event{called(1, target1, 503, 18*time.Second)}, InService, ""},

		// Calls (T11).
		{"four silent calls", one, nil, []event{unheard(4, target1)}, InService, ""},
		{"five", one, nil, []event{unheard(5, target1)}, OutOfService, dead},
		{"not in a row", one, nil, []event{unheard(4, target1), called(1, target1, 404, 0), unheard(4, target1)}, InService, ""},
		{"five with 503: it is there, and better left alone", one, nil, []event{called(5, target1, 503, 0)},
			Degraded, "192.0.2.1:5060 failed 5 calls in a row, the last with 503"},
		{"for half a minute", one, nil, []event{called(5, target1, 503, 0), wait(30 * time.Second)}, InService, ""},
		{"then the first that fails counts", one, nil, []event{called(5, target1, 408, 0), wait(30 * time.Second), called(1, target1, 408, 0)},
			Degraded, "192.0.2.1:5060 failed the first call since it was back, the last with 408"},
		{"unless one has succeeded", one, nil, []event{called(5, target1, 503, 0), wait(30 * time.Second), called(1, target1, 200, 0), called(4, target1, 503, 0)},
			InService, ""},
		{"silence and 503 by turns", one, nil, []event{unheard(4, target1), called(1, target1, 503, 0)},
			Degraded, "192.0.2.1:5060 failed 5 calls in a row, the last with 503"},
		{"503 and silence by turns", one, nil, []event{called(1, target1, 503, 0), unheard(4, target1)},
			Degraded, "192.0.2.1:5060 failed 5 calls in a row, the last without any response"},
		{"other refusals are life", one, nil, []event{called(9, target1, 486, 0), called(9, target1, 500, 0), called(9, target1, 603, 0)}, InService, ""},
		{"limit of the config", one, func(c *Config) { c.HealthFailures = 2 }, []event{unheard(2, target1)},
			OutOfService, "192.0.2.1:5060 gave no response to 2 calls in a row"},
		{"no limit", one, func(c *Config) { c.HealthFailures = 0 }, []event{unheard(99, target1), called(99, target1, 503, 0)}, InService, ""},
		{"no limit, and Retry-After", one, func(c *Config) { c.HealthFailures = 0 }, []event{called(99, target1, 503, time.Minute)}, InService, ""},
		{"one of two targets", both, nil, []event{unheard(5, target1)}, InService, ""},
		{"who is no target", one, nil, []event{unheard(9, target2), called(9, target2, 503, 9*time.Second)}, InService, ""},
		{"two good probes bring it back", one, nil, []event{unheard(5, target1), healthy(2)}, InService, ""},
		{"on trial", one, nil, []event{unheard(5, target1), healthy(2), unheard(1, target1)},
			OutOfService, "192.0.2.1:5060 gave no response to the first call since it was back"},
		{"without probes it is time that brings it back", one, noProbes, []event{unheard(5, target1), wait(29 * time.Second)}, OutOfService, dead},
		{"half a minute", one, noProbes, []event{unheard(5, target1), wait(30 * time.Second)}, InService, ""},

		// Answer-seizure ratio.
		{"no limit of the ratio", one, nil, []event{answered(1000, 0)}, InService, ""},
		{"too few answers", one, func(c *Config) { c.HealthASR = 30 }, []event{answered(100, 29)},
			Degraded, "of 100 calls in 5m0s only 29 were answered, the limit is 30 %"},
		{"enough", one, func(c *Config) { c.HealthASR = 30 }, []event{answered(100, 30)}, InService, ""},
		{"too few calls to tell", one, func(c *Config) { c.HealthASR = 30 }, []event{answered(19, 0)}, InService, ""},
		{"hardly better", one, func(c *Config) { c.HealthASR = 30 }, []event{answered(100, 29), answered(100, 34)},
			Degraded, "of 100 calls in 5m0s only 34 were answered, the limit is 30 %"},
		{"better", one, func(c *Config) { c.HealthASR = 30 }, []event{answered(100, 29), answered(100, 35)}, InService, ""},
		{"its calls are too long ago", one, func(c *Config) { c.HealthASR = 30 }, []event{answered(100, 29), answered(10, 0)}, InService, ""},
		{"forgotten when the realm was down", one, func(c *Config) { c.HealthASR = 30 }, []event{
			answered(100, 0), down("x"), wait(time.Minute), up, healthy(1),
		}, InService, ""},
		{"poor again by the calls since", one, func(c *Config) { c.HealthASR = 30 }, []event{
			down("x"), up, healthy(1), wait(time.Minute), answered(100, 0),
		}, Degraded, "of 100 calls in 1m5s only 0 were answered, the limit is 30 %"},
		{"dead is worse than poor", one, func(c *Config) { c.HealthASR = 30 }, []event{answered(100, 29), unheard(5, target1)}, OutOfService, dead},

		// Realms (I3).
		{"its realm is down", one, nil, []event{down("tunnel x is down: no answer.")}, OutOfService, "tunnel x is down: no answer"},
		{"nobody says why", one, nil, []event{down("")}, OutOfService, "realm outside is down"},
		{"it is up", one, nil, []event{down("x"), up}, Probing, unproven},
		{"nobody answers", one, nil, []event{down("x"), up, silent(1, target1)}, Probing, mute},
		{"one good probe is enough there", one, nil, []event{down("x"), up, silent(5, target1), healthy(1)}, InService, ""},
		{"of any target", both, nil, []event{down("x"), up, silent(1, target1), answers(1, target2, 200, 0)}, InService, ""},
		{"a probe of before does not count", one, nil, []event{func(s *tale) {
			s.m.realmDown("x", s.now)
			s.m.realmUp(s.now)
			q := s.ask(target1)
			s.m.realmDown("x", s.now)
			s.m.realmUp(s.now)
			s.m.probed(q, Answer{Status: 200}, nil, s.now)
		}}, Probing, unproven},
		{"what was known of its targets is of another time", one, nil, []event{unheard(5, target1), down("x"), up, healthy(1), unheard(4, target1)}, InService, ""},
		{"without probes it is in service at once", one, noProbes, []event{unheard(5, target1), down("x"), up}, InService, ""},
		{"up, and was not down", one, nil, []event{silent(3, target1), up}, OutOfService, mute},

		// What people want (T1).
		{"drained by the config", one, func(c *Config) { c.State = Draining }, nil, Draining, "the config says so"},
		{"drained by an operator", one, nil, []event{wanted(Draining)}, Draining, "an operator says so"},
		{"taken out", one, nil, []event{wanted(OutOfService)}, OutOfService, "an operator says so"},
		{"and back", one, nil, []event{wanted(OutOfService), wanted(InService)}, InService, ""},
		{"against the config", one, func(c *Config) { c.State = Draining }, []event{wanted(InService)}, InService, ""},
		{"a reload leaves that alone", one, nil, []event{wanted(Draining), reloaded(func(c *Config) { c.MaxCalls = 7 })}, Draining, "an operator says so"},
		{"unless the key changes", one, nil, []event{wanted(Draining), reloaded(func(c *Config) { c.State = OutOfService })}, OutOfService, "the config says so"},
		{"health goes on below", one, nil, []event{wanted(Draining), silent(3, target1)}, Draining, "an operator says so; besides, " + mute},
		{"and comes out", one, nil, []event{wanted(Draining), silent(3, target1), wanted(InService)}, OutOfService, mute},

		// Reload.
		{"what is known of a target stays", one, nil, []event{silent(3, target1), reloaded(func(*Config) {})}, OutOfService, mute},
		{"probes are turned off", one, nil, []event{silent(3, target1), reloaded(noProbes)}, InService, ""},
		{"while it is probing", one, nil, []event{down("x"), up, reloaded(noProbes)}, InService, ""},
		{"the ratio is turned off", one, func(c *Config) { c.HealthASR = 30 }, []event{answered(100, 0), reloaded(func(*Config) {})}, InService, ""},
		{"a new target", one, nil, []event{silent(3, target1), func(s *tale) { s.m.follow(both, s.now); s.m.settle(s.now) }}, InService, ""},
		{"a new target while it is probing", one, nil, []event{down("x"), up, func(s *tale) { s.m.follow(both, s.now); s.m.settle(s.now) }}, Probing, unproven},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := tell(t, row.targets, row.change)
			for _, e := range row.events {
				e(s)
			}
			if c := s.m.condition; c.State != row.state || c.Reason != row.reason {
				t.Errorf("got %q because %q,\nwant %q because %q", c.State, c.Reason, row.state, row.reason)
			}
		})
	}
}

// T1: the time is that of the state's change, whatever happens to its reason, and changes are counted.
func TestHealthTellsSince(t *testing.T) {
	s := tell(t, []netip.AddrPort{target1}, nil)
	start := s.now
	silent(3, target1)(s)
	out := s.now
	if c := s.m.condition; !c.Since.Equal(out) || s.m.changes != 1 || !out.After(start) {
		t.Errorf("out since %s after %d changes, want %s", c.Since, s.m.changes, out)
	}
	answers(1, target1, 503, 0)(s)
	if c := s.m.condition; !c.Since.Equal(out) || c.Reason != "192.0.2.1:5060 answers OPTIONS with 503" || s.m.changes != 1 {
		t.Errorf("another reason: %+v after %d changes", c, s.m.changes)
	}
	healthy(2)(s)
	if c := s.m.condition; !c.Since.Equal(s.now) || s.m.changes != 2 {
		t.Errorf("back: %+v after %d changes", c, s.m.changes)
	}
}

// T6: when a target is asked: by its turn; at once after a timeout, but once a second at most;
// not before a Retry-After is over, at most 10 minutes; each 429 without one doubles the distance; a
// good answer is confirmed 5 s later.
func TestProbeTimes(t *testing.T) {
	turn := func(s *tale) time.Duration { return s.m.set.rhythm.next(s.now, 0, 1).Sub(s.now) }
	exactly := func(d time.Duration) func(*tale) time.Duration { return func(*tale) time.Duration { return d } }
	intervals := func(n time.Duration) func(*tale) time.Duration {
		return func(s *tale) time.Duration { return n * s.m.set.rhythm.interval }
	}
	for _, row := range []struct {
		name   string
		events []event
		want   func(*tale) time.Duration // after the last event
	}{
		{"start", nil, turn},
		{"good", []event{healthy(3)}, turn},
		{"no answer in 5 s", []event{silent(1, target1)}, exactly(0)},
		{"a bad answer at once", []event{answers(1, target1, 503, 0)}, exactly(time.Second - 20*time.Millisecond)},
		{"dead", []event{silent(3, target1)}, turn},
		{"dead and still silent", []event{silent(4, target1)}, turn},
		{"dead and good once", []event{silent(3, target1), healthy(1)}, exactly(5 * time.Second)},
		{"429 with Retry-After", []event{answers(1, target1, 429, 2*time.Minute)}, exactly(2 * time.Minute)},
		{"429 with a short one", []event{answers(1, target1, 429, time.Millisecond)}, turn},
		{"429 without", []event{answers(1, target1, 429, 0)}, intervals(2)},
		{"again and again", []event{answers(3, target1, 429, 0)}, intervals(8)},
		{"429 for an hour", []event{answers(9, target1, 429, 0)}, exactly(10 * time.Minute)},
		{"429, then 200", []event{answers(3, target1, 429, 0), healthy(1)}, turn},
		{"429, 200 and 429", []event{answers(3, target1, 429, 0), healthy(1), answers(1, target1, 429, 0)}, intervals(2)},
		{"429, then 503", []event{answers(3, target1, 429, 0), answers(1, target1, 503, 0)}, exactly(time.Second - 20*time.Millisecond)},
		{"429 between silence", []event{answers(1, target1, 429, 0), silent(1, target1), answers(1, target1, 429, 0)}, intervals(4)},
		{"dead and 503 with a short Retry-After", []event{silent(3, target1), answers(1, target1, 503, time.Second)}, turn},
		{"dead and 503 with a long one", []event{silent(3, target1), answers(1, target1, 503, 5*time.Minute)}, exactly(5 * time.Minute)},
		{"503 with Retry-After", []event{answers(1, target1, 503, 3*time.Second)}, exactly(3 * time.Second)},
		{"503 with a very long one", []event{answers(1, target1, 503, 24*time.Hour)}, exactly(10 * time.Minute)},
		{"200 with Retry-After", []event{answers(1, target1, 200, time.Hour)}, turn},
		{"a silent call", []event{healthy(1), wait(2 * time.Second), unheard(1, target1)}, exactly(0)},
		{"a silent call right after a probe", []event{healthy(1), unheard(1, target1)}, exactly(time.Second - 20*time.Millisecond)},
		{"dead by calls", []event{healthy(1), wait(2 * time.Second), unheard(5, target1)}, exactly(0)},
		{"a silent call while the peer rests", []event{answers(1, target1, 429, time.Minute), wait(50 * time.Second), unheard(1, target1)},
			exactly(10 * time.Second)},
		{"dead by calls while the peer rests", []event{answers(1, target1, 503, time.Minute), wait(50 * time.Second), unheard(5, target1)},
			exactly(10 * time.Second)},
		{"a silent call after 429 without Retry-After", []event{answers(3, target1, 429, 0), wait(50 * time.Second), unheard(1, target1)}, exactly(0)},
		{"another interval while the peer rests", []event{answers(1, target1, 429, 5*time.Minute), reloaded(func(c *Config) { c.ProbeInterval = time.Second })},
			exactly(5 * time.Minute)},
		{"its realm is back while the peer rests", []event{answers(1, target1, 429, 5*time.Minute), down("x"), up}, exactly(0)},
		{"its realm is back", []event{down("x"), up}, exactly(0)},
		{"its realm is back, and it is silent", []event{down("x"), up, silent(1, target1)}, exactly(0)},
		{"its realm is back, and it answers badly", []event{down("x"), up, answers(1, target1, 503, 0)}, exactly(time.Second - 20*time.Millisecond)},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := tell(t, []netip.AddrPort{target1}, nil)
			for _, e := range row.events {
				e(s)
			}
			want, from := row.want(s), s.now
			s.ask(target1)
			if got := s.now.Sub(from); got != want {
				t.Errorf("asked after %s, want %s", got, want)
			}
		})
	}
	s := tell(t, []netip.AddrPort{target1}, nil)
	s.m.realmDown("x", s.now)
	if due := s.due(); !due.IsZero() {
		t.Errorf("something is due in %s while the realm is down", due.Sub(s.now))
	}
}

// A target that answers OPTIONS and takes no calls stays out the longer, the oftener it has
// come back in vain, until a call succeeds.
func TestFlappingTargetIsTrustedLater(t *testing.T) {
	for _, probe := range []string{ProbeOptions, ProbeNone} {
		s := tell(t, []netip.AddrPort{target1}, func(c *Config) { c.Probe = probe })
		back := func() time.Duration {
			from := s.now
			for s.m.condition.State != InService && s.now.Sub(from) < time.Hour {
				if probe == ProbeOptions {
					healthy(1)(s)
				} else {
					wait(time.Second)(s)
				}
			}
			return s.now.Sub(from).Round(5 * time.Second)
		}
		unheard(5, target1)(s)
		var out []string
		for range 6 {
			out = append(out, back().String())
			unheard(1, target1)(s)
		}
		back()
		called(1, target1, 404, 0)(s)
		unheard(5, target1)(s)
		out = append(out, back().String())
		want := map[string]string{ProbeOptions: "5s 30s 1m0s 2m0s 4m0s 5m0s 5s", ProbeNone: "30s 1m0s 2m0s 4m0s 5m0s 5m0s 30s"}[probe]
		if got := strings.Join(out, " "); got != want {
			t.Errorf("probe %s: out for %s, want %s", probe, got, want)
		}
	}
}

// Slow return: whoever comes back from anything but the will of people gets a tenth of its
// share, and all of it after 30 s.
func TestSlowReturn(t *testing.T) {
	one := []netip.AddrPort{target1}
	shares := func(s *tale) string {
		h := &health{m: s.m}
		h.m.dirty = true
		h.publish()
		var list []string
		for _, d := range []time.Duration{-time.Second, 0, 10 * time.Second, 20 * time.Second, 30 * time.Second, time.Hour} {
			tier, share := h.usable(s.now.Add(d))
			list = append(list, fmt.Sprintf("%d:%d", tier, share))
		}
		return strings.Join(list, " ")
	}
	const full, slow = "0:1000 0:1000 0:1000 0:1000 0:1000 0:1000", "0:100 0:100 0:400 0:700 0:1000 0:1000"
	for _, row := range []struct {
		name   string
		change func(*Config)
		events []event
		want   string
	}{
		{"start", nil, nil, full},
		{"after failed probes", nil, []event{silent(3, target1), healthy(2)}, slow},
		{"after failed calls", nil, []event{unheard(5, target1), healthy(2)}, slow},
		{"after 503", nil, []event{called(5, target1, 503, 0), wait(30 * time.Second)}, slow},
		{"after few answers", func(c *Config) { c.HealthASR = 30 }, []event{answered(50, 0), wait(time.Second), func(s *tale) {
			s.answers = 50
			s.until(s.now.Add(reviewPause - time.Second))
		}}, slow},
		{"after the realm was down", nil, []event{down("x"), up, healthy(1)}, slow},
		{"after draining", nil, []event{wanted(Draining), wait(time.Minute), wanted(InService)}, full},
		{"degraded", nil, []event{called(5, target1, 503, 0)}, "2:1000 2:1000 2:1000 2:1000 2:1000 2:1000"},
		{"out", nil, []event{unheard(5, target1)}, "-1:0 -1:0 -1:0 -1:0 -1:0 -1:0"},
		{"drained", nil, []event{wanted(Draining)}, "-1:0 -1:0 -1:0 -1:0 -1:0 -1:0"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := tell(t, one, row.change)
			for _, e := range row.events {
				e(s)
			}
			if got := shares(s); got != row.want {
				t.Errorf("tier and share %s, want %s", got, row.want)
			}
		})
	}
}

// setsOf are the sets of targets that are addresses.
func setsOf(list ...netip.AddrPort) []resolve.Set {
	sets := make([]resolve.Set, len(list))
	for i, at := range list {
		sets[i] = resolve.SetOf(resolve.Endpoint{Addr: at})
	}
	return sets
}

// T9: calls take the targets that are alive in turn, weak ones if there is no other, and none
// twice.
func TestPick(t *testing.T) {
	var list []netip.AddrPort
	for i := range 4 {
		list = append(list, netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), 5060))
	}
	c := goodConfig("a")
	h := newHealth(c.health(list), time.Now())
	picks := func(n int, tried ...netip.AddrPort) string {
		var b strings.Builder
		for range n {
			if target, ok := h.pick(setsOf(list...), tried...); ok {
				fmt.Fprint(&b, target.Addr().As4()[3])
			} else {
				b.WriteString("-")
			}
		}
		return b.String()
	}
	check := func(when, want, got string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: targets %s, want %s", when, got, want)
		}
	}
	fail := func(i int) {
		h.do(func(m *machine, now time.Time) {
			for range 5 {
				m.unheard(list[i], now)
			}
		})
	}
	check("all alive", "12341234", picks(8))
	check("two tried", "3434", picks(4, list[0], list[1]))
	fail(1)
	check("one dead", "134134134", picks(9))
	h.do(func(m *machine, now time.Time) { m.heard(list[2], 503, time.Minute, now) })
	check("one dead, one weak", "414141", picks(6))
	check("both good ones tried", "333", picks(3, list[0], list[3]))
	fail(0)
	fail(3)
	check("one weak left", "333", picks(3))
	check("tried too", "---", picks(3, list[2]))
	fail(2)
	check("all dead", "---", picks(3))
	if h.alive(list[0]) || !h.alive(netip.MustParseAddrPort("192.0.2.99:5060")) {
		t.Error("the dead are alive, or strangers are not")
	}
	if target, ok := h.pick(nil); ok {
		t.Errorf("no targets: picked %s", target)
	}
}

// T9: a name may lead elsewhere from one moment to the next: what is known of an address stays
// with it, and a new one is good until proven otherwise. No more than 64 are watched.
func TestTargetsChange(t *testing.T) {
	c := goodConfig("a")
	h := newHealth(c.health([]netip.AddrPort{target1}), time.Now())
	state := func() string { return h.view.Load().State }
	h.do(func(m *machine, now time.Time) {
		for range 5 {
			m.unheard(target1, now)
		}
	})
	h.follow([]netip.AddrPort{target2, target1}, "")
	if state() != InService || !h.alive(target2) || h.alive(target1) {
		t.Errorf("a new target beside a dead one: %s", state())
	}
	h.follow([]netip.AddrPort{target1}, "")
	if state() != OutOfService {
		t.Errorf("the dead one alone: %s", state())
	}
	h.follow(nil, "sip.example.com: DNS has no targets")
	if got := h.view.Load().Reason; got != "sip.example.com: DNS has no targets" {
		t.Errorf("none: %q", got)
	}
	var list []netip.AddrPort
	for i := range 100 {
		list = append(list, netip.AddrPortFrom(target1.Addr(), uint16(5000+i)))
	}
	h.follow(list, "")
	if n := len(h.m.targets); n != 64 || state() != InService {
		t.Errorf("%d targets are watched: %s", n, state())
	}
}

// T6: 200 trunks are spread over their intervals of 25 s to 35 s: no second has more than three
// times the mean of probes, neither of the first period nor of the hour.
func TestSpread(t *testing.T) {
	const trunks = 200
	for _, names := range []string{"trunk-%d", "carrier%03d", "%d-west.example", "sbc-fra-%02d"} {
		start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		perSecond := make([]int, 3600)
		probes := 0
		for i := range trunks {
			r := newRhythm(fmt.Sprintf(names, i), 0)
			if r.interval < 25*time.Second || r.interval > 35*time.Second || r.offset < 0 || r.offset >= r.interval {
				t.Errorf("interval %s, offset %s", r.interval, r.offset)
			}
			for at := r.next(start, 0, 1); at.Sub(start) < time.Hour; at = r.next(at, 0, 1) {
				perSecond[int(at.Sub(start)/time.Second)]++
				probes++
			}
		}
		mean, most := float64(probes)/3600, slices.Max(perSecond)
		t.Logf("%s: %.2f probes a second, at most %d, in the first 30 s at most %d", names, mean, most, slices.Max(perSecond[:30]))
		if float64(most) > 3*mean {
			t.Errorf("%s: %d probes in one second, the mean is %.2f", names, most, mean)
		}
	}
}

// T6: the same name has the same turn after a restart, targets of a trunk take turns within the
// interval, and the next turn is never now.
func TestRhythm(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	r := newRhythm("a", 30*time.Second)
	if r != newRhythm("a", 30*time.Second) || r == newRhythm("b", 30*time.Second) || r.interval != 30*time.Second {
		t.Errorf("rhythm %+v", r)
	}
	at := r.next(start, 0, 1)
	for range 100 {
		if r.next(at.Add(-time.Nanosecond), 0, 1) != at {
			t.Fatalf("a moment before %s the next turn is another one", at)
		}
		next := r.next(at, 0, 1)
		if next.Sub(at) != r.interval {
			t.Fatalf("from one turn to the next it is %s", next.Sub(at))
		}
		at = next
	}
	var turns []time.Duration
	for i := range 3 {
		turns = append(turns, r.next(start, i, 3).Sub(r.next(start, 0, 3))+r.interval)
	}
	for i, turn := range turns {
		if want := time.Duration(i) * 10 * time.Second; turn%r.interval != want {
			t.Errorf("target %d has its turn %s after the first, want %s", i, turn%r.interval, want)
		}
	}
	if at := r.next(time.Unix(-100, 0), 0, 1); !at.After(time.Unix(-100, 0)) {
		t.Errorf("before 1970: %s", at)
	}
}

// BenchmarkUsable is what a hunt asks of each member.
func BenchmarkUsable(b *testing.B) {
	c := goodConfig("a")
	h := newHealth(c.health([]netip.AddrPort{target1}), time.Now())
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		h.usable(now)
	}
}

// BenchmarkPick is the choice of a target for one attempt.
func BenchmarkPick(b *testing.B) {
	list := []netip.AddrPort{target1, target2}
	c := goodConfig("a")
	h := newHealth(c.health(list), time.Now())
	sets := setsOf(list...)
	b.ReportAllocs()
	for b.Loop() {
		h.pick(sets, target1)
	}
}
