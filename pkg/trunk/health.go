package trunk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	// maxTargets of a trunk that are watched.
	maxTargets = 64
	// fastPause is the shortest time between two probes of a target, and fastTimeout how long
	// an answer is waited for while the trunk is Probing (I3).
	fastPause   = time.Second
	fastTimeout = 2 * time.Second
	// confirmPause is between the good probes that bring a target back.
	confirmPause = 5 * time.Second
	// goodProbes in a row bring a target back, or one if its realm was down.
	goodProbes = 2
	// longestRest bounds what a Retry-After is believed, and how far 429 without one moves the
	// next probe away (T6).
	longestRest = 10 * time.Minute
	// shortestHold is how long a target is not trusted after calls have failed, where nothing
	// else proves it good; it doubles up to longestHold with each time that it is not good yet.
	shortestHold = 30 * time.Second
	longestHold  = 5 * time.Minute
	// reviewPause is between two looks at the answer-seizure ratio. It is judged by at least
	// fewestCalls, and is good again when it is asrMargin per cent above its limit.
	reviewPause = 5 * time.Second
	fewestCalls = 20
	asrMargin   = 5
	// rampTime is the slow return: the weight of a trunk that is back grows from rampFloor
	// permille to all of it.
	rampTime  = 30 * time.Second
	rampFloor = 100
	fullShare = 1000
)

// settings are what the config says of a trunk's health.
type settings struct {
	name, realm string
	targets     []netip.AddrPort
	// nowhere says why there are no targets. unknown: nobody looks names up, and there are no
	// others; the trunk counts as if they were known and alive.
	nowhere string
	unknown bool
	// admin is InService, Draining or OutOfService.
	admin string
	// probe: OPTIONS is sent, by rhythm, each with timeout. retries is how many more fail before
	// a target is dead, failures are the codes that are no sign of life.
	probe    bool
	rhythm   rhythm
	timeout  time.Duration
	retries  int
	failures []int
	// callFailures is how many calls in a row must fail; 0 is off.
	callFailures int
	// asr is the answer-seizure ratio in per cent under which the trunk is degraded; 0 is off.
	// window is what it is counted over.
	asr    int
	window time.Duration
}

// machine is the health of one trunk. It knows no clock and does nothing by itself: whoever
// changes it calls settle then. Health proper is that of the realm, the targets and the answers;
// what people want of the trunk (wanted) is laid over it.
type machine struct {
	set     settings
	targets []target
	// wanted overrides the state of the config, or is empty.
	wanted string
	// down says why the realm is down; empty if it is up.
	down string
	// probing: the realm was down, and no target has answered since. probingWhy says what is
	// waited for.
	probing    bool
	probingWhy string
	// asked counts the probes that were sent.
	asked uint64
	// poor says that too few calls are answered; empty if not. It is looked at again at review.
	poor   string
	review time.Time
	// up is when the realm came up: the calls of before say nothing of the carrier.
	up time.Time

	condition Condition
	// well is whether health alone would have the trunk in service. It has been so since
	// comeback, which is zero when the slow return is over.
	well     bool
	comeback time.Time
	// met: it has had targets. Who gets the first ones does not come back from anywhere.
	met     bool
	changes uint64
	// dirty: what the readers see has changed since somebody last looked.
	dirty bool
}

// target is one address of the trunk. A dead one gets no calls. One that is weak gets them only
// if all others are weak or dead.
type target struct {
	addr   netip.AddrPort
	alive  bool
	reason string
	since  time.Time

	// asked is the number of the probe whose answer is waited for, or 0.
	asked     uint64
	sent, due time.Time
	// bad and good count probes in a row; need is how many good ones bring it back.
	bad, good, need  int
	probes, failures uint64
	roundTrip        time.Duration
	// rest is until when the peer wants no probes, by its Retry-After.
	rest time.Time
	// pause is the distance to the next probe after 429 without Retry-After, or 0.
	pause time.Duration

	// silent counts calls in a row without response, failed these and those with 408 or 503.
	silent, failed int
	// trial: it has come back from what calls have shown, and none has succeeded since.
	trial bool
	// weakUntil is zero if it is not weak.
	weakUntil time.Time
	// notBefore is when a dead one may come back, which was hold after it died.
	notBefore time.Time
	hold      time.Duration
}

// question is a probe that is to be sent.
type question struct {
	target netip.AddrPort
	// number tells it from all others to the trunk.
	number  uint64
	timeout time.Duration
}

func newMachine(s settings, now time.Time) machine {
	m := machine{well: true, condition: Condition{State: InService, Since: now}}
	m.configure(s, now)
	m.changes = 0
	return m
}

// configure takes the settings of another generation. A changed state in the config overrules
// what an operator asked for.
func (m *machine) configure(s settings, now time.Time) {
	if s.admin != m.set.admin {
		m.wanted = ""
	}
	before := m.set
	m.set = s
	m.follow(s.targets, now)
	switch {
	case before.probe && !s.probe:
		m.endProbing()
		m.renew(now)
	case before.rhythm != s.rhythm && !m.probing:
		for i := range m.targets {
			m.later(&m.targets[i], 0, now)
		}
	}
	if s.asr == 0 {
		m.poor = ""
	}
	m.review = now
	m.settle(now)
}

// follow takes another list of targets; what is known of those that stay is kept.
func (m *machine) follow(addrs []netip.AddrPort, now time.Time) {
	addrs = addrs[:min(len(addrs), maxTargets)]
	before := m.targets
	m.targets = make([]target, 0, len(addrs))
	for i, addr := range addrs {
		if at := slices.IndexFunc(before, func(t target) bool { return t.addr == addr }); at >= 0 {
			m.targets = append(m.targets, before[at])
			continue
		}
		t := m.fresh(addr, i, len(addrs), now)
		if m.probing || m.down != "" {
			m.unproven(&t, now)
		}
		m.targets = append(m.targets, t)
	}
	m.dirty = true
}

// fresh is target i of n of which nothing is known: it is good until proven otherwise.
func (m *machine) fresh(addr netip.AddrPort, i, n int, now time.Time) target {
	return target{addr: addr, alive: true, since: now, due: m.set.rhythm.next(now, i, n)}
}

// unproven has a target wait for one good probe, at once.
func (m *machine) unproven(t *target, now time.Time) {
	*t = target{
		addr: t.addr, since: now, due: now, need: 1, probes: t.probes, failures: t.failures, roundTrip: t.roundTrip,
		reason: fmt.Sprintf("%s has not answered OPTIONS since realm %s is up", t.addr, m.set.realm),
	}
}

func (m *machine) find(addr netip.AddrPort) *target {
	for i := range m.targets {
		if m.targets[i].addr == addr {
			return &m.targets[i]
		}
	}
	return nil
}

// administer takes what an operator wants of the trunk.
func (m *machine) administer(state string, now time.Time) {
	m.wanted, m.dirty = state, true
	m.settle(now)
}

// realmDown takes the trunk out of service, whatever its targets say.
func (m *machine) realmDown(reason string, now time.Time) {
	m.forget()
	m.down = cmp.Or(strings.TrimSuffix(reason, "."), fmt.Sprintf("realm %s is down", m.set.realm))
	m.endProbing()
	m.settle(now)
}

// realmUp has the targets of a trunk whose realm was down prove themselves, if they are probed.
func (m *machine) realmUp(now time.Time) {
	if m.down == "" {
		return
	}
	m.forget()
	m.down, m.poor, m.up = "", "", now
	if m.set.probe {
		m.probing = true
		m.probingWhy = fmt.Sprintf("realm %s is up, and no target has answered OPTIONS since", m.set.realm)
	}
	m.renew(now)
	m.settle(now)
}

// renew forgets what is known of the targets. They have to prove themselves if they are probed
// for that.
func (m *machine) renew(now time.Time) {
	for i := range m.targets {
		t := &m.targets[i]
		if m.probing {
			m.unproven(t, now)
		} else {
			*t = m.fresh(t.addr, i, len(m.targets), now)
		}
	}
	m.dirty = true
}

func (m *machine) endProbing() { m.probing, m.probingWhy = false, "" }

// forget makes what was asked before worthless: an answer to a probe says nothing of the time
// after the last news of the realm.
func (m *machine) forget() {
	for i := range m.targets {
		m.targets[i].asked = 0
	}
	m.dirty = true
}

// ask hands out a probe that is due; its answer goes to probed.
func (m *machine) ask(now time.Time) (question, bool) {
	if !m.set.probe || m.down != "" {
		return question{}, false
	}
	for i := range m.targets {
		t := &m.targets[i]
		if t.asked != 0 || t.due.After(now) {
			continue
		}
		m.asked++
		t.asked, t.sent = m.asked, now
		q := question{t.addr, m.asked, m.set.timeout}
		if m.probing {
			q.timeout = min(q.timeout, fastTimeout)
		}
		return q, true
	}
	return question{}, false
}

// waits reports whether the answer to a question still counts.
func (m *machine) waits(q question) bool {
	t := m.find(q.target)
	return t != nil && t.asked == q.number
}

// probed takes the outcome of a probe.
func (m *machine) probed(q question, a Answer, err error, now time.Time) {
	if !m.waits(q) {
		return
	}
	t := m.find(q.target)
	t.asked = 0
	if errors.Is(err, context.Canceled) {
		t.due = soon(t.sent, now)
		return
	}
	t.probes++
	rest := time.Duration(0)
	if err == nil {
		t.roundTrip = a.RoundTrip
		rest = m.backOff(t, a, now)
	}
	if why := m.verdict(t.addr, a, err); why != "" {
		m.probeFailed(t, why, rest, now)
	} else {
		m.probeGood(t, rest, now)
	}
	m.settle(now)
}

// backOff is for how long a target is left alone after an answer (T6): what its 429 or 503 asks for,
// or, with 429 alone, twice the interval and each further time twice as long as before.
func (m *machine) backOff(t *target, a Answer, now time.Time) time.Duration {
	before := t.pause
	t.pause = 0
	switch {
	case a.Status != 429 && a.Status != 503:
		return 0
	case a.RetryAfter > 0:
		rest := min(a.RetryAfter, longestRest)
		t.rest = now.Add(rest)
		return rest
	case a.Status == 429:
		t.pause = min(2*max(before, m.set.rhythm.interval), longestRest)
	}
	return t.pause
}

// verdict says in words why a probe's outcome is no sign of life; empty if it is one.
func (m *machine) verdict(addr netip.AddrPort, a Answer, err error) string {
	errno := syscall.Errno(0)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("%s does not answer OPTIONS", addr)
	case errors.As(err, &errno):
		return fmt.Sprintf("%s cannot be reached: %s", addr, errno)
	case err != nil:
		return fmt.Sprintf("%s cannot be asked: %s", addr, err)
	case slices.Contains(m.set.failures, a.Status): // it is there, and takes no calls
		return fmt.Sprintf("%s answers OPTIONS with %d", addr, a.Status)
	}
	return ""
}

func (m *machine) probeFailed(t *target, why string, rest time.Duration, now time.Time) {
	t.failures++
	t.bad++
	t.good = 0
	if m.probing {
		m.probingWhy = why
	}
	switch {
	case t.alive && t.bad > m.set.retries:
		m.kill(t, why, now)
		m.later(t, rest, now)
	case !t.alive && !m.probing: // a short rest does not have it asked more often than its turn
		m.later(t, rest, now)
	case rest > 0:
		t.due = now.Add(rest)
		if t.alive {
			words := "and Retry-After"
			if t.pause > 0 {
				words = "and is left alone for"
			}
			m.weaken(t, fmt.Sprintf("%s %s %s", why, words, rest), rest, now)
		}
	default:
		t.due = soon(t.sent, now)
	}
	if !t.alive {
		t.reason = why
		m.dirty = true
	}
}

func (m *machine) probeGood(t *target, rest time.Duration, now time.Time) {
	t.bad = 0
	t.good++
	m.later(t, rest, now)
	switch {
	case t.alive:
	case t.good >= t.need && !now.Before(t.notBefore):
		m.revive(t, now)
		m.endProbing()
	case rest == 0:
		t.due = now.Add(max(confirmPause, t.notBefore.Sub(now)))
	}
}

// later sets the target's next probe to its turn, or to the end of a rest if that is later.
func (m *machine) later(t *target, rest time.Duration, now time.Time) {
	i := slices.IndexFunc(m.targets, func(o target) bool { return o.addr == t.addr })
	t.due = latest(m.set.rhythm.next(now, i, len(m.targets)), now.Add(rest), t.rest)
}

// sooner has a target asked at once, but not before the end of a Retry-After. A 429 without one
// names no time.
func (m *machine) sooner(t *target, now time.Time) {
	if next := latest(soon(t.sent, now), t.rest); next.Before(t.due) {
		t.due = next
		m.dirty = true
	}
}

func latest(times ...time.Time) time.Time { return slices.MaxFunc(times, time.Time.Compare) }

// soon is now, or as much later as keeps the pace.
func soon(sent, now time.Time) time.Time {
	if next := sent.Add(fastPause); next.After(now) {
		return next
	}
	return now
}

// heard takes a response to a call, 100-699. 408 and 503 say that the target takes no calls;
// any other final one is life.
func (m *machine) heard(addr netip.AddrPort, status int, retryAfter time.Duration, now time.Time) {
	t := m.find(addr)
	if t == nil {
		return
	}
	t.silent = 0
	switch {
	case status < 200:
		return
	case status != 408 && status != 503:
		t.failed = 0
		if t.alive {
			t.bad, t.trial, t.hold = 0, false, 0
		}
		return
	}
	t.failed++
	switch {
	case !t.alive || m.set.callFailures == 0:
	case status == 503 && retryAfter > 0:
		rest := min(retryAfter, longestRest)
		m.weaken(t, fmt.Sprintf("%s answered a call with 503 and Retry-After %s", addr, rest), rest, now)
	case m.tooMany(t, t.failed):
		m.weaken(t, fmt.Sprintf("%s failed %s, the last with %d", addr, calls(t.failed), status), shortestHold, now)
	}
	m.settle(now)
}

// unheard takes that a call got no response at all.
func (m *machine) unheard(addr netip.AddrPort, now time.Time) {
	t := m.find(addr)
	if t == nil {
		return
	}
	t.silent++
	t.failed++
	switch {
	case !t.alive:
		return
	case m.tooMany(t, t.silent):
		why := fmt.Sprintf("%s gave no response to %s", addr, calls(t.silent))
		m.distrust(t, now)
		m.kill(t, why, now)
	case m.tooMany(t, t.failed):
		m.weaken(t, fmt.Sprintf("%s failed %s, the last without any response", addr, calls(t.failed)), shortestHold, now)
	}
	m.sooner(t, now)
	m.settle(now)
}

func calls(n int) string {
	if n == 1 {
		return "the first call since it was back"
	}
	return fmt.Sprintf("%d calls in a row", n)
}

// tooMany judges failed calls in a row. Whoever has just come back is out at once.
func (m *machine) tooMany(t *target, n int) bool {
	return m.set.callFailures > 0 && (n >= m.set.callFailures || t.trial && n > 0)
}

// distrust sets how long a target stays out that has failed calls: the longer, the oftener it
// has come back too early. Where it is probed the first time is left to the probes.
func (m *machine) distrust(t *target, now time.Time) {
	switch {
	case t.trial:
		t.hold = min(max(2*t.hold, shortestHold), longestHold)
	case m.set.probe:
		t.hold = 0
	default:
		t.hold = shortestHold
	}
	t.notBefore = now.Add(t.hold)
}

func (m *machine) kill(t *target, why string, now time.Time) {
	t.alive, t.reason, t.since = false, why, now
	t.good, t.need, t.weakUntil = 0, goodProbes, time.Time{}
	m.dirty = true
}

// revive brings a target back. If calls have failed there it is on trial.
func (m *machine) revive(t *target, now time.Time) {
	t.trial = t.failed > 0
	t.alive, t.reason, t.since = true, "", now
	t.bad, t.silent, t.failed, t.notBefore = 0, 0, 0, time.Time{}
	m.dirty = true
}

// strengthen ends what weaken began. If calls have failed the target is on trial.
func (m *machine) strengthen(t *target, now time.Time) {
	t.trial = t.failed > 0
	t.weakUntil, t.reason, t.since = time.Time{}, "", now
	t.silent, t.failed = 0, 0
	m.dirty = true
}

func (m *machine) weaken(t *target, why string, d time.Duration, now time.Time) {
	if t.weakUntil.IsZero() {
		t.since = now
	}
	t.reason = why
	if until := now.Add(d); until.After(t.weakUntil) {
		t.weakUntil = until
	}
	m.dirty = true
}

// tick does what is due by time alone.
func (m *machine) tick(asr func(now time.Time, window time.Duration) (attempts, answers int), now time.Time) {
	for i := range m.targets {
		t := &m.targets[i]
		switch {
		case t.alive && !t.weakUntil.IsZero() && !now.Before(t.weakUntil):
			m.strengthen(t, now)
		case !t.alive && !m.set.probe && m.down == "" && !now.Before(t.notBefore):
			m.revive(t, now)
		}
	}
	if !m.comeback.IsZero() && !now.Before(m.comeback.Add(rampTime)) {
		m.comeback, m.dirty = time.Time{}, true
	}
	if m.set.asr > 0 && !now.Before(m.review) {
		m.review = now.Add(reviewPause)
		if asr != nil {
			m.judgeAnswers(asr, now)
		}
	}
	m.settle(now)
}

// judgeAnswers compares the answer-seizure ratio with its limit, over the window or since the realm
// is up.
func (m *machine) judgeAnswers(asr func(now time.Time, window time.Duration) (attempts, answers int), now time.Time) {
	window := min(m.set.window, now.Sub(m.up))
	attempts, answers := asr(now, window)
	limit := m.set.asr
	if m.poor != "" {
		limit = min(limit+asrMargin, 100)
	}
	m.poor = ""
	if attempts >= fewestCalls && answers*100 < limit*attempts {
		m.poor = fmt.Sprintf("of %d calls in %s only %d were answered, the limit is %d %%", attempts, window.Round(time.Second), answers, m.set.asr)
	}
}

// due is when there is a probe to send next, and when something changes by time alone; the zero
// time is not before somebody changes something.
func (m *machine) due() (probe, change time.Time) {
	earlier := func(first *time.Time, t time.Time) {
		if first.IsZero() || t.Before(*first) {
			*first = t
		}
	}
	for i := range m.targets {
		t := &m.targets[i]
		if m.set.probe && m.down == "" && t.asked == 0 {
			earlier(&probe, t.due)
		}
		if !t.weakUntil.IsZero() {
			earlier(&change, t.weakUntil)
		}
		if !t.alive && !m.set.probe && m.down == "" {
			earlier(&change, t.notBefore)
		}
	}
	if m.set.asr > 0 {
		earlier(&change, m.review)
	}
	if !m.comeback.IsZero() {
		earlier(&change, m.comeback.Add(rampTime))
	}
	return probe, change
}

// settle draws the trunk's state from what is known.
func (m *machine) settle(now time.Time) {
	state, reason := m.judge()
	if well := state == InService; well != m.well {
		m.well, m.dirty = well, true
		if well && m.met {
			m.comeback = now
		}
	}
	m.met = m.met || len(m.targets) > 0
	state, reason = m.overlay(state, reason)
	if state != m.condition.State {
		m.condition.State, m.condition.Since = state, now
		m.changes++
		m.dirty = true
	}
	if reason != m.condition.Reason {
		m.condition.Reason, m.dirty = reason, true
	}
}

// judge is the state by health alone.
func (m *machine) judge() (state, reason string) {
	switch {
	case m.down != "":
		return OutOfService, m.down
	case m.set.unknown:
		return InService, ""
	case len(m.targets) == 0:
		return OutOfService, cmp.Or(m.set.nowhere, "it has no targets")
	case m.probing:
		return Probing, m.probingWhy
	}
	alive := func(t target) bool { return t.alive }
	strong := func(t target) bool { return t.alive && t.weakUntil.IsZero() }
	switch {
	case !slices.ContainsFunc(m.targets, alive):
		return OutOfService, m.reasons(func(t target) bool { return !t.alive })
	case !slices.ContainsFunc(m.targets, strong):
		return Degraded, m.reasons(alive)
	case m.poor != "":
		return Degraded, m.poor
	}
	return InService, ""
}

// admin is what people want of the trunk.
func (m *machine) admin() string {
	if m.wanted != "" {
		return m.wanted
	}
	return m.set.admin
}

// closed reports whether people want no new calls from or to the trunk.
func (m *machine) closed() bool { return m.admin() != InService }

// overlay puts over health what the config or an operator wants.
func (m *machine) overlay(state, reason string) (string, string) {
	if !m.closed() {
		return state, reason
	}
	words := "the config says so"
	if m.wanted != "" {
		words = "an operator says so"
	}
	if reason != "" {
		words += "; besides, " + reason
	}
	return m.admin(), words
}

// reasons of the targets that are meant: that of the first, and how many more there are.
func (m *machine) reasons(which func(target) bool) string {
	var first string
	n := 0
	for _, t := range m.targets {
		if !which(t) {
			continue
		}
		if n == 0 {
			first = t.reason
		}
		n++
	}
	switch n {
	case 1:
		return first
	}
	return fmt.Sprintf("%s; the same goes for %d more", first, n-1)
}
