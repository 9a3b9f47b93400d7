package trunk

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tandem-sbc/tandem/pkg/resolve"
)

// States of a trunk (T1).
const (
	// InService takes calls.
	InService = "in-service"
	// Degraded takes calls out only when no member of a group is left that is in service.
	Degraded = "degraded"
	// Probing has its network back and takes no calls out until a target has answered.
	Probing = "probing"
	// OutOfService takes no calls out.
	OutOfService = "out-of-service"
	// Draining takes no new calls because somebody wants it so; those that run go on.
	Draining = "draining"
)

// Condition says whether calls go out by a trunk, and if not, why. Calls that come in are not
// asked for it, unless somebody wants the trunk drained or out of service: whoever got here is there.
type Condition struct {
	// State is one of the states above, since Since.
	State string
	// Reason says in words why the state is not InService, without a full stop; else it is empty.
	Reason string
	Since  time.Time
}

// Health is a trunk's health as seen from outside.
type Health struct {
	State  string    `json:"state"`
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"`
	// Admin is what people want of the trunk: InService, Draining or OutOfService.
	Admin string `json:"admin"`
	// Share of the calls, in per cent of the trunk's weight, that it gets since it is back: 10-100.
	Share int `json:"share"`
	// Changes of State since start.
	Changes uint64         `json:"changes"`
	Targets []TargetHealth `json:"targets"`
}

// TargetHealth is the health of one address.
type TargetHealth struct {
	Address netip.AddrPort `json:"address"`
	// State is InService, Degraded or OutOfService, since Since.
	State  string    `json:"state"`
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"`
	// Probes that have an outcome, and Failures among them, since start.
	Probes   uint64 `json:"probes"`
	Failures uint64 `json:"failures"`
	// RoundTrip of the last probe that was answered; 0 is none yet.
	RoundTrip time.Duration `json:"round_trip_ns,omitempty"`
	// Next probe.
	Next time.Time `json:"next,omitzero"`
}

// health is a trunk's machine at work. It outlives the generations of the trunk's config, and
// is safe for use by several goroutines. What a call asks of it takes no lock.
type health struct {
	// bell wakes the supervisor; nil is none.
	bell bell
	// asr counts calls out in a window that ends now; nil is unknown.
	asr func(now time.Time, window time.Duration) (attempts, answers int)

	// word has one of the words below in its lower bits, and above them when the trunk came back,
	// in Unix time by the millisecond; 0 is long ago.
	word atomic.Uint64
	view atomic.Pointer[view]
	turn atomic.Uint32

	mu sync.Mutex
	m  machine
}

const (
	wordBits = 2
	wordMask = 1<<wordBits - 1

	wordUnusable  uint64 = 0
	wordInService uint64 = 1
	wordDegraded  uint64 = 2
	wordClosed    uint64 = 3
)

// view is what calls see. It is never changed, only replaced.
type view struct {
	Condition
	dead, weak []netip.AddrPort
}

func newHealth(s settings, now time.Time) *health {
	h := &health{m: newMachine(s, now)}
	h.publish()
	return h
}

// health settings of the config, for the addresses that its targets are now.
func (c Config) health(targets []netip.AddrPort) settings {
	s := settings{
		name: c.Name, realm: c.Realm, targets: targets, admin: c.State,
		probe: c.Probe != ProbeNone, rhythm: newRhythm(c.Name, c.ProbeInterval),
		timeout: c.ProbeTimeout, retries: c.ProbeRetries, failures: c.ProbeFailures,
		callFailures: c.HealthFailures, asr: c.HealthASR, window: c.HealthWindow,
	}
	if s.admin == "" {
		s.admin = InService
	}
	return s
}

// do changes the machine, and lets readers and the supervisor know if that concerns them.
func (h *health) do(change func(m *machine, now time.Time)) {
	h.mu.Lock()
	change(&h.m, time.Now())
	told := h.publish()
	h.mu.Unlock()
	if told {
		h.bell.ring()
	}
}

// publish replaces what readers see if it has changed; mu is held, or nobody else knows h.
func (h *health) publish() bool {
	if !h.m.dirty {
		return false
	}
	h.m.dirty = false
	v := &view{Condition: h.m.condition}
	for i := range h.m.targets {
		switch t := &h.m.targets[i]; {
		case !t.alive:
			v.dead = append(v.dead, t.addr)
		case !t.weakUntil.IsZero():
			v.weak = append(v.weak, t.addr)
		}
	}
	h.view.Store(v)
	word := wordUnusable
	switch {
	case h.m.closed():
		word = wordClosed
	case v.State == InService:
		word = wordInService
	case v.State == Degraded:
		word = wordDegraded
	}
	if !h.m.comeback.IsZero() {
		word |= uint64(h.m.comeback.UnixMilli()) << wordBits
	}
	h.word.Store(word)
	return true
}

// usable says whether calls may go out by the trunk: tier is inService, degraded or none. share is how much of its weight counts, in permille: it grows from 100 to 1000 while the
// trunk returns.
func (h *health) usable(now time.Time) (tier, share int) {
	if h.word.Load() != wordInService {
		return h.partly(now)
	}
	return 0, fullShare // nearly always, and short enough to be inlined
}

func (h *health) partly(now time.Time) (tier, share int) {
	word := h.word.Load()
	switch word & wordMask {
	case wordUnusable, wordClosed:
		return -1, 0
	case wordDegraded:
		tier = degraded
	}
	if comeback := int64(word >> wordBits); comeback != 0 {
		if gone := now.UnixMilli() - comeback; gone < rampTime.Milliseconds() {
			return tier, rampFloor + int(max(gone, 0)*(fullShare-rampFloor)/rampTime.Milliseconds())
		}
	}
	return tier, fullShare
}

// closed reports whether people want no new calls from or to the trunk.
func (h *health) closed() bool { return h.word.Load()&wordMask == wordClosed }

// alive reports whether a target may get calls. One that is not known may.
func (h *health) alive(target netip.AddrPort) bool {
	return !slices.Contains(h.view.Load().dead, target)
}

// pick returns a target without those that are dead or were tried; those that are weak only if
// there is no other. The sets take turns; within one it is by priority and weight (RFC 2782). ok is
// false if there is none at all.
func (h *health) pick(sets []resolve.Set, tried ...netip.AddrPort) (target netip.AddrPort, ok bool) {
	v := h.view.Load()
	for rank := range 2 {
		n := uint32(0)
		for _, s := range sets {
			if v.has(s, rank, tried) {
				n++
			}
		}
		if n == 0 {
			continue
		}
		skip := (h.turn.Add(1) - 1) % n
		for _, s := range sets {
			if !v.has(s, rank, tried) {
				continue
			}
			if skip == 0 {
				return s.Pick(rand.Uint32N, func(target netip.AddrPort) bool { return v.rank(target, tried) == rank })
			}
			skip--
		}
	}
	return netip.AddrPort{}, false
}

// has reports whether a set has a target of a rank.
func (v *view) has(s resolve.Set, rank int, tried []netip.AddrPort) bool {
	for i := range s.Len() {
		if v.rank(s.At(i).Addr, tried) == rank {
			return true
		}
	}
	return false
}

// rank of a target is 0 for one that takes calls, 1 for a weak one, -1 for one that gets none.
func (v *view) rank(target netip.AddrPort, tried []netip.AddrPort) int {
	switch {
	case slices.Contains(tried, target) || slices.Contains(v.dead, target):
		return -1
	case slices.Contains(v.weak, target):
		return 1
	}
	return 0
}

// NextTarget is where the next attempt goes, with all of its retries: the entries of the trunk's
// targets that have one alive take turns, and of a name's it is by priority and weight (T9, RFC
// 3263 section 4.2). Those that the call has tried are left out; ok is false if there is none left.
func (t *Trunk) NextTarget(tried ...netip.AddrPort) (target netip.AddrPort, ok bool) {
	return t.health.pick(t.reach.Load().sets, tried...)
}

// Condition of the trunk now.
func (t *Trunk) Condition() Condition { return t.health.view.Load().Condition }

// InService reports whether calls may go out by the trunk, however few.
func (t *Trunk) InService() bool {
	tier, _ := t.health.usable(time.Time{})
	return tier >= 0
}

// Heard takes a response that a call out got from a target, status 100-699, with its
// Retry-After or 0: 408 and 503 speak against the target, any other final one for it. The final
// response is enough.
func (t *Trunk) Heard(target netip.AddrPort, status int, retryAfter time.Duration) {
	t.health.do(func(m *machine, now time.Time) { m.heard(target, status, retryAfter, now) })
}

// Unheard takes that a call out got no response at all from a target, or could not be sent (T11).
func (t *Trunk) Unheard(target netip.AddrPort) {
	t.health.do(func(m *machine, now time.Time) { m.unheard(target, now) })
}

// Administer sets what an operator wants of the trunk: InService, Draining or OutOfService. It
// holds until the config says something else than it did.
func (t *Trunk) Administer(state string) error {
	switch state {
	case InService, Draining, OutOfService:
	default:
		return fmt.Errorf("trunk %s cannot be set to %q: choose %s, %s or %s", t.Name(), state, InService, Draining, OutOfService)
	}
	t.health.do(func(m *machine, now time.Time) { m.administer(state, now) })
	return nil
}

// Health reads the trunk's health.
func (t *Trunk) Health() Health {
	h := t.health
	_, share := h.usable(time.Now())
	h.mu.Lock()
	defer h.mu.Unlock()
	m := &h.m
	s := Health{
		State: m.condition.State, Reason: m.condition.Reason, Since: m.condition.Since,
		Admin: m.admin(), Share: share / (fullShare / 100), Changes: m.changes, Targets: make([]TargetHealth, len(m.targets)),
	}
	for i := range m.targets {
		s.Targets[i] = m.targets[i].health(m)
	}
	return s
}

func (t *target) health(m *machine) TargetHealth {
	h := TargetHealth{
		Address: t.addr, State: InService, Reason: t.reason, Since: t.since,
		Probes: t.probes, Failures: t.failures, RoundTrip: t.roundTrip,
	}
	switch {
	case !t.alive:
		h.State = OutOfService
	case !t.weakUntil.IsZero():
		h.State = Degraded
	}
	if m.set.probe && m.down == "" {
		h.Next = t.due
	}
	return h
}

// news is what is known of the realms, shared by all generations of a Table.
type news struct {
	bell bell

	mu sync.Mutex
	// down says why a realm is down, by its name.
	down map[string]string
	// table was adopted last, and its trunks are told. It is nil before the first Adopt.
	table *Table
}

// newsOf the former table, or of a world that is up.
func newsOf(former *Table) *news {
	if former != nil {
		return former.news
	}
	return &news{bell: make(bell, 1), down: make(map[string]string)}
}

func (n *news) isDown(realm string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, down := n.down[realm]
	return down
}

// place gives a trunk that was not there before its place in the world: its realm may be down.
func (t *Table) place(tr *Trunk, now time.Time) {
	t.news.mu.Lock()
	defer t.news.mu.Unlock()
	tr.health.bell = t.news.bell
	if reason, down := t.news.down[tr.Realm()]; down {
		tr.health.do(func(m *machine, _ time.Time) { m.realmDown(reason, now) })
	}
}

// Adopt makes this the table that health goes by: its targets, its limits, its administrative
// states; and the one whose names are looked up. It is for a table with a former one, once that is
// replaced.
func (t *Table) Adopt() {
	t.names.mu.Lock()
	defer t.names.mu.Unlock()
	t.names.adopt(t)
	t.news.mu.Lock()
	defer t.news.mu.Unlock()
	t.news.table = t
	for _, tr := range t.trunks {
		reason, down := t.news.down[tr.Realm()]
		tr.health.do(func(m *machine, now time.Time) {
			m.configure(tr.settings(), now)
			switch {
			case down && m.down == "": // it went down after the trunk was placed
				m.realmDown(reason, now)
			case !down:
				m.realmUp(now)
			}
		})
	}
	t.news.bell.ring()
}

// RealmDown takes the realm's trunks out of service at once (I3). Reason is words for people:
// "tunnel a-primary is down: peer does not answer"; a full stop at the end is left out. Told
// again it changes the reason only. Whoever has an older table at hand may tell that one.
func (t *Table) RealmDown(realm, reason string) {
	t.news.mu.Lock()
	defer t.news.mu.Unlock()
	t.news.down[realm] = reason
	t.tell(realm, func(m *machine, now time.Time) { m.realmDown(reason, now) })
}

// RealmUp lets the realm's trunks that are not in service be probed, or puts them in service if
// their config wants no probes. What is in service stays there: another tunnel of the realm may
// have taken over.
func (t *Table) RealmUp(realm string) {
	defer t.names.again(realm) // after all locks
	t.news.mu.Lock()
	defer t.news.mu.Unlock()
	delete(t.news.down, realm)
	t.tell(realm, func(m *machine, now time.Time) { m.realmUp(now) })
}

// tell has the realm's trunks hear that are in use now: a reload may have come between the caller's
// look at the table and the news. news.mu is held.
func (t *Table) tell(realm string, change func(m *machine, now time.Time)) {
	if t.news.table != nil {
		t = t.news.table
	}
	for _, tr := range t.trunks {
		if tr.Realm() == realm {
			tr.health.do(change)
		}
	}
}

// bell is heard once, however often it was rung meanwhile. A nil one is silent.
type bell chan struct{}

func (b bell) ring() {
	select {
	case b <- struct{}{}:
	default:
	}
}
