package ipsec

import (
	"cmp"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

const (
	// settleAfter is how long two CHILD_SAs of one tunnel both carry before one is ended: by
	// then the other one is in use at both ends.
	settleAfter = 5 * time.Second
	// sameTime is the difference of age below which two IKE_SAs count as made at once, by
	// both ends.
	sameTime = 10 * time.Second
	// repeatAfter is how often an unchanged failure is logged.
	repeatAfter = time.Minute
)

// tunnel is one tunnel with its history. Only its keeper's goroutine touches it.
type tunnel struct {
	Tunnel
	rank    int
	log     *slog.Logger
	monitor *monitor
	manual  *manual

	state string
	since time.Time
	// why is the last failure; nothing while the tunnel is up.
	why failure
	// lost is true if that is how an SA ended that carried.
	lost bool

	// current is what carries now; found is false if none does, several is true if others do too.
	current        sa
	found, several bool
	// carriesSince is when the IKE_SA that carries was first seen, rekeying aside; emptySince is
	// the first listing in a row without one.
	carriesSince, emptySince time.Time
	// gone is the IKE_SA, by its initiator's SPI, that charon has said to be at its end: it may be
	// in one more listing.
	gone string
	// carryUntil is how long states in the kernel count that no charon answers for.
	carryUntil time.Time
	// steered is the SPI that policies were pointed at to end a superfluous SA.
	steered   uint32
	steeredAt time.Time
	// unread counts looks in a row at which manual associations could not be read.
	unread int

	// trying is true while an attempt is running; next is when the next one may, after tries
	// failures in a row.
	trying bool
	next   time.Time
	tries  int
	// blocked is why there is nothing to attempt with; until is when our certificate expires.
	blocked error
	until   time.Time
	// sweepAt is when old manual keys have had their time; zero is never.
	sweepAt time.Time
	// failed is what the last attempt came to, and is counted if nothing carries all the same.
	failed      *failure
	failedSince time.Time
	// probed is true if a rekeying has asked whether a silent peer is there.
	probed bool

	ikeRekeys, childRekeys, dpdFailures uint64
	failures                            map[string]uint64

	// logged is the failure that was logged last, repeats how often it came since.
	logged   failure
	loggedAt time.Time
	repeats  int
}

// sa is a CHILD_SA with its IKE_SA.
type sa struct {
	ike   ikeSA
	child childSA
}

// carrying are the SAs of a tunnel that traffic can take, without those of the IKE_SA gone.
func carrying(name, gone string, sas []ikeSA) []sa {
	var found []sa
	for _, ike := range sas {
		if ike.Name != name || gone != "" && ike.Initiator == gone || ike.State == ikeConnecting || ike.State == "DELETING" || ike.State == "DESTROYING" {
			continue
		}
		for _, child := range ike.Children {
			if child.Name == name && (child.State == childInstalled || child.State == "REKEYING") {
				found = append(found, sa{ike, child})
			}
		}
	}
	return found
}

// settle chooses which of several SAs stays, and which have been superfluous for long enough
// to be ended. Both ends come to the same choice: of IKE_SAs that were made at about the same
// time the one with the larger initiator's SPI stays, else the younger one.
func settle(found []sa) (stays sa, superfluous []sa) {
	stays = slices.MaxFunc(found, func(a, b sa) int {
		if a.ike.ID == b.ike.ID {
			return cmp.Or(cmp.Compare(b.child.Age, a.child.Age), cmp.Compare(a.child.In, b.child.In))
		}
		if (a.ike.Age - b.ike.Age).Abs() >= sameTime {
			return cmp.Compare(b.ike.Age, a.ike.Age)
		}
		return cmp.Or(cmp.Compare(a.ike.Initiator, b.ike.Initiator), cmp.Compare(a.ike.ID, b.ike.ID))
	})
	for _, s := range found {
		if s.child.ID != stays.child.ID && stays.child.Age >= settleAfter && s.child.Age >= settleAfter {
			superfluous = append(superfluous, s)
		}
	}
	return stays, superfluous
}

// leastCarry is how long SAs in the kernel may do without a charon at least: a new one has to
// start, and to negotiate new ones.
const leastCarry = 15 * time.Second

// carry is how long SAs count as carrying that no charon answers for. A peer that has gone
// meanwhile goes unnoticed for as long.
func (t *tunnel) carry() time.Duration { return max(t.IKE.noticed(), leastCarry) }

// dueAttempt is true if a new attempt is to be made: nothing carries, nobody is trying, and
// the last failure was long enough ago.
func (t *tunnel) dueAttempt(sas []ikeSA, now time.Time) bool {
	if t.found || t.trying || t.blocked != nil || now.Before(t.next) {
		return false
	}
	for _, s := range sas {
		// The peer has answered, or makes an attempt of its own: that comes to an end by itself.
		if s.Name == t.Name && s.State == ikeConnecting && (s.answered() || !s.Ours) {
			return false
		}
	}
	return true
}

// take takes over what carries now.
func (t *tunnel) take(s sa, now time.Time) {
	if s.ike.Initiator != t.current.ike.Initiator {
		t.carriesSince = now
	}
	t.current, t.carryUntil = s, now.Add(t.carry())
}

// confirmAfter is how long after a first listing without SAs a second one has to say the same.
const confirmAfter = 300 * time.Millisecond

// confirm puts the next attempt off until a second listing is without SAs that the kernel has:
// during a rekeying of IKE one may have the old IKE_SA without its children, and not the new one.
func (t *tunnel) confirm(paired bool, now time.Time) {
	if t.found {
		t.emptySince = time.Time{}
		return
	}
	if t.emptySince.IsZero() {
		t.emptySince = now
	}
	if sure := t.emptySince.Add(confirmAfter); paired && now.Before(sure) {
		t.next = later(t.next, sure)
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// fail takes in an attempt that came to nothing, or the end of what there was.
func (t *tunnel) fail(f failure, started, now time.Time) {
	t.failures[f.cause]++
	if f.cause == t.why.cause {
		t.tries++
	} else {
		t.tries = 1
	}
	t.why = f
	// An attempt that has waited in vain has been patient already.
	t.next = later(started.Add(patience(f.cause, t.tries)), now.Add(time.Second))
	t.report(now)
}

const (
	// lasting is how long an SA has to carry for its end to be no failure of its attempt.
	lasting = 10 * time.Second
	// removal is how long charon may take to remove what it had in the kernel.
	removal = time.Second
)

// lose takes in why an SA that carried is gone; whether the tunnel is down by that is seen at
// the next look. The next attempt need not wait, unless the peer takes back what it agrees to.
func (t *tunnel) lose(f failure, now time.Time) {
	t.gone, t.current.ike.ID = t.current.ike.Initiator, ""
	// What is in the kernel after that is another one's.
	if end := now.Add(removal); t.carryUntil.After(end) {
		t.carryUntil = end
	}
	t.why, t.lost = f, true
	// To give a peer up takes a while by itself.
	if f.cause == causeDPD || now.Sub(t.carriesSince) >= lasting {
		t.tries, t.next = 0, now
	} else {
		t.tries++
		t.next = later(t.next, now.Add(patience(f.cause, t.tries)))
	}
	if !t.carries() {
		// Its end was seen before its reason was heard.
		t.failures[f.cause]++
		t.report(now)
	}
}

// report logs a failure: a new one at once, the same one again once a minute.
func (t *tunnel) report(now time.Time) {
	if t.why.cause == t.logged.cause && now.Sub(t.loggedAt) < repeatAfter {
		t.repeats++
		return
	}
	attrs := []any{"realm", t.Realm, "tunnel", t.Name, "cause", t.why.cause, "reason", t.why.reason}
	if t.repeats > 0 && t.why.cause == t.logged.cause {
		attrs = append(attrs, "times", t.repeats+1)
	}
	t.log.Warn("tunnel is not up", attrs...)
	t.logged, t.loggedAt, t.repeats = t.why, now, 0
}

// move brings the state up to date and logs a change.
func (t *tunnel) move(installed bool, now time.Time) {
	state, why := call.TunnelDown, t.why
	switch {
	case installed && t.verified():
		state, why = call.TunnelUp, failure{}
	case installed:
		state, why = call.TunnelUnverified, because(t.Tunnel, causeMonitor, t.silence())
	case t.Keying == IKE && t.why == failure{}:
		// An attempt after a failure is no other state: who watches would see it flicker.
		state = call.TunnelConnecting
	}
	if state == t.state {
		t.why, t.lost = why, false
		return
	}
	carried := t.carries()
	defer func() { t.lost = false }()
	t.state, t.since, t.why = state, now, why
	switch state {
	case call.TunnelUp:
		t.probed = false
		t.logged, t.repeats = failure{}, 0
		t.log.Info("tunnel is up", "realm", t.Realm, "tunnel", t.Name, "ike", t.current.ike.Proposal, "esp", t.current.child.Proposal)
	case call.TunnelUnverified:
		t.failures[why.cause]++
		t.report(now)
	default:
		if !carried {
			return
		}
		if why == (failure{}) {
			t.log.Warn("tunnel is not up", "realm", t.Realm, "tunnel", t.Name, "state", state)
			return
		}
		if t.lost {
			t.failures[why.cause]++
		}
		t.report(now)
	}
}

// carries is true if the tunnel was found to be installed.
func (t *tunnel) carries() bool { return t.state == call.TunnelUp || t.state == call.TunnelUnverified }

// heed takes in what the monitor has heard since the last look, with all else as it was.
func (t *tunnel) heed(now time.Time) {
	if t.carries() && !t.lost && t.verified() != (t.state == call.TunnelUp) {
		t.move(true, now)
	}
}

// candidate is the tunnel as one that traffic could leave by. The current one gets the time for an
// answer before it counts as silent: the daemon may just have started.
func (t *tunnel) candidate(current bool) candidate {
	c := candidate{name: t.Name, up: t.state == call.TunnelUp, since: t.since}
	if t.monitor != nil {
		first := t.monitor.firstAnswer()
		c.since = later(c.since, first)
		c.silent = first.IsZero() && (!current || t.monitor.status().Missed >= t.MonitorLost)
	}
	return c
}

// verified is true if the monitor has nothing against the tunnel.
func (t *tunnel) verified() bool { return t.monitor == nil || t.monitor.alive() }

func (t *tunnel) silence() string {
	s := t.monitor.status()
	return fmt.Sprintf("%s, %d without an answer", s.Target, s.Missed)
}

// status is the tunnel as it is told.
func (t *tunnel) status(now time.Time, active bool, carried traffic) call.Tunnel {
	s := call.Tunnel{
		Name: t.Name, Realm: t.Realm, Keying: t.Keying, Rank: t.rank, Active: active,
		State: t.state, Since: t.since, Cause: t.why.cause, Reason: t.why.reason,
		Device: t.Device, Local: t.Local.Addr(), Remote: t.Remote,
		IKERekeys: t.ikeRekeys, ChildRekeys: t.childRekeys, DPDFailures: t.dpdFailures,
		In: carried.In, Out: carried.Out, Errors: carried.Errors,
		Failures: make(map[string]uint64, len(t.failures)),
	}
	for cause, n := range t.failures {
		s.Failures[cause] = n
	}
	if t.found {
		s.Established = now.Add(-t.current.ike.Age).Truncate(time.Second)
		s.IKE, s.ESP = t.current.ike.Proposal, t.current.child.Proposal
	}
	if t.manual != nil {
		s.KeyChanges = t.manual.changes()
	}
	if t.monitor != nil {
		m := t.monitor.status()
		s.Monitor = &m
	}
	return s
}
