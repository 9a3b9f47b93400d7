package ipsec

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/strongswan/govici/vici"

	"github.com/tandem-sbc/tandem/pkg/call"
)

const (
	// lookWhileUp and lookWhileDown are how often a realm is looked at when nothing happens.
	lookWhileUp   = 5 * time.Second
	lookWhileDown = time.Second
	// attemptTimeout is how long a peer may take to answer at all. Then a new attempt begins,
	// rather than the next of ever the same packet whenever charon's timer has it.
	attemptTimeout = 3 * time.Second
	// maxSilent is how many requests a charon may leave without an answer before it is killed.
	maxSilent = 3
	// blockedRetry is how often credentials that cannot be used are read again.
	blockedRetry = 10 * time.Second
	// manualRetry is how often manual associations are compared with what they should be.
	manualRetry = 5 * time.Second
	// maxUnread is how many looks in a row may fail to read manual associations before their
	// tunnel is taken for down.
	maxUnread = 3
)

// keeper keeps the tunnels of one realm: it looks at what is there, on each event and from
// time to time, and does what is missing. It never believes that what it did has worked.
type keeper struct {
	realm   Realm
	log     *slog.Logger
	changed func(State)

	charon  *charon
	client  *client
	watcher *client
	// silent counts requests without an answer in a row.
	silent int
	// startAt is when charon may be started again, after starts without success.
	startAt time.Time
	starts  int
	// met is the process that SAs were listed of, record what was loaded into it.
	met    process
	record record
	// stale is true if charon is to be compared with the config; told is what kept it from being
	// in line the last time.
	stale bool
	told  string
	// replaced are connections whose SAs are to be ended.
	replaced []string
	// swept is true once nothing is left of manual keying where there is none.
	swept    bool
	orphans  orphans
	counters *associations
	// sums are the counters as they were last read, by interface identifier.
	sums map[uint32]traffic

	tunnels []*tunnel
	// state is what was told last, causes why no tunnel is up in it; begun is true once it was told.
	state  State
	causes string
	begun  bool

	attempts chan attempt
	wake     chan struct{}
	reloads  chan chan error
	running  sync.WaitGroup

	// status is what Status returns, behind mu.
	mu     sync.Mutex
	status []call.Tunnel
}

func newKeeper(r Realm, c *charon, log *slog.Logger, changed func(State)) *keeper {
	k := &keeper{
		realm: r, log: log, changed: changed, charon: c, stale: true,
		counters: newAssociations(r.Namespace, r.Tunnels),
		attempts: make(chan attempt, len(r.Tunnels)), wake: make(chan struct{}, 1), reloads: make(chan chan error),
	}
	for i, t := range r.Tunnels {
		k.tunnels = append(k.tunnels, k.newTunnel(t, i+1))
		if t.Name == r.Active {
			k.state.Active = t.Name
		}
	}
	k.publish(time.Now())
	return k
}

func (k *keeper) newTunnel(config Tunnel, rank int) *tunnel {
	t := &tunnel{Tunnel: config, rank: rank, log: k.log, failures: make(map[string]uint64), state: call.TunnelDown, since: time.Now()}
	if config.Keying == Manual {
		t.manual = newManual(config, k.realm.Inner, k.realm.Namespace, k.log)
	}
	if whom := k.monitored(config); whom != nil {
		t.monitor = newMonitor(config.Device, k.realm.Inner, whom(), config.MonitorInterval, config.MonitorLost, config.Monitor != MonitorAuto)
		t.monitor.whom = whom
	}
	return t
}

// monitored is whom the tunnel's monitor asks; nil is nobody.
func (k *keeper) monitored(c Tunnel) func() netip.Addr {
	switch c.Monitor {
	case MonitorNone, "":
		return nil
	case MonitorAuto:
		return k.realm.Monitor
	}
	target, err := netip.ParseAddr(c.Monitor)
	if err != nil {
		return nil // Validate lets none through
	}
	return func() netip.Addr { return target }
}

// ike are the tunnels that charon is for.
func (k *keeper) ike() []Tunnel {
	var tunnels []Tunnel
	for _, t := range k.tunnels {
		if t.Keying == IKE {
			tunnels = append(tunnels, t.Tunnel)
		}
	}
	return tunnels
}

// run keeps the tunnels until ctx ends. Then they stay as they are.
func (k *keeper) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer k.running.Wait()
	defer cancel()
	defer k.disconnect()
	defer k.counters.close()
	for _, t := range k.tunnels {
		if t.monitor != nil {
			k.running.Go(func() {
				if err := t.monitor.run(ctx, k.poke); err != nil && ctx.Err() == nil {
					k.log.Error("monitor has ended", "realm", k.realm.Name, "tunnel", t.Name, "error", err)
				}
			})
		}
	}
	if len(k.ike()) == 0 {
		// Its tunnels were IKE's once.
		if err := k.charon.sweep(); err != nil {
			k.log.Warn("charon of a realm without IKE is left", "realm", k.realm.Name, "error", err)
		}
	}
	for {
		timer := time.NewTimer(k.look(ctx))
		k.await(ctx, timer.C)
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// poke has the realm looked at soon.
func (k *keeper) poke() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// await returns when there is a reason to look.
func (k *keeper) await(ctx context.Context, timer <-chan time.Time) {
	for {
		var events chan vici.Event
		if k.watcher != nil {
			events = k.watcher.items
		}
		select {
		case <-ctx.Done():
			return
		case <-timer:
			return
		case <-k.wake:
			return
		case a := <-k.attempts:
			k.ended(a, time.Now())
			return
		case done := <-k.reloads:
			k.stale = true
			for _, t := range k.tunnels {
				t.blocked, t.next = nil, time.Time{}
			}
			done <- k.apply(ctx)
			return
		case e, ok := <-events:
			if !ok {
				k.disconnect() // charon has ended, or does not follow
				return
			}
			if k.notice(e, time.Now()) {
				return
			}
		}
	}
}

// apply brings charon and manual associations in line with what files say now.
func (k *keeper) apply(ctx context.Context) error {
	now := time.Now()
	var errs []error
	for _, t := range k.tunnels {
		if t.manual != nil {
			k.rekey(ctx, t, now)
		}
	}
	if len(k.ike()) > 0 {
		err := k.reach(ctx, now)
		if err == nil {
			err = k.update(ctx, now)
		}
		errs = append(errs, err)
	}
	for _, t := range k.tunnels {
		errs = append(errs, t.blocked)
	}
	return errors.Join(errs...)
}

// look compares what is there with what should be, does the next thing about it, and
// returns when to look again.
func (k *keeper) look(ctx context.Context) time.Duration {
	now := time.Now()
	k.sweepManual()
	k.follow(now)
	var sas []ikeSA
	var problem error
	if len(k.ike()) > 0 {
		sas, problem = k.ask(ctx, now)
	}
	if ctx.Err() != nil {
		return 0 // what could not be asked any more is no failure
	}
	states, err := keyedStates(k.realm.Namespace)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		k.log.Warn("security associations of the kernel cannot be read", "realm", k.realm.Name, "error", err)
	}
	next := lookWhileUp
	if problem != nil {
		next = lookWhileDown
	}
	for _, t := range k.tunnels {
		if t.manual != nil {
			k.lookManual(ctx, t, now)
		} else {
			k.lookIKE(ctx, t, sas, states, problem, now)
		}
		if t.state != call.TunnelUp || t.several {
			next = lookWhileDown
		}
		for _, at := range []time.Time{t.next, t.sweepAt, t.carryUntil} {
			if wait := at.Sub(now); wait > 0 {
				next = min(next, wait)
			}
		}
	}
	if problem == nil && err == nil {
		k.clean(states, sas, now)
	}
	again := k.decide(now)
	if wait := again.Sub(now); !again.IsZero() {
		next = min(next, max(wait, 0))
	}
	k.count(now)
	return max(next, 50*time.Millisecond)
}

// follow has traffic follow the monitors by what was known at the last look: charon may take
// seconds for its answer.
func (k *keeper) follow(now time.Time) {
	if !k.begun {
		return
	}
	for _, t := range k.tunnels {
		t.heed(now)
	}
	k.decide(now)
}

// sweepManual removes, once, what manual keying has made for tunnels that are IKE's now, or that
// are no more: the kernel would prefer its policies to charon's.
func (k *keeper) sweepManual() {
	if k.swept {
		return
	}
	keep := make(map[uint32]bool)
	for _, t := range k.tunnels {
		if t.manual != nil {
			keep[t.IfID] = true
		}
	}
	removed, err := removeManual(k.realm.Namespace, keep)
	switch {
	case err == nil:
		k.swept = true
	case !errors.Is(err, os.ErrNotExist):
		k.log.Warn("manual security associations and policies of former tunnels are left", "realm", k.realm.Name, "error", err)
	}
	if removed > 0 {
		k.log.Info("manual security associations and policies of former tunnels are removed", "realm", k.realm.Name, "number", removed)
	}
}

// lookManual looks at a tunnel without IKE.
func (k *keeper) lookManual(ctx context.Context, t *tunnel, now time.Time) {
	up, err := t.manual.up()
	if err != nil && t.carries() && t.unread < maxUnread && !errors.Is(err, os.ErrNotExist) {
		t.unread++
		k.log.Warn("manual security associations cannot be read", "realm", k.realm.Name, "tunnel", t.Name, "error", err)
		t.move(true, now)
		return
	}
	t.unread = 0
	if !up && !now.Before(t.next) {
		t.next = now.Add(manualRetry)
		k.blocked(t, t.manual.apply(ctx), now)
		up, _ = t.manual.up() // apply has said what is wrong
	}
	again, err := t.manual.sweep(now)
	if err != nil {
		k.log.Warn("old manual security association is left", "realm", k.realm.Name, "tunnel", t.Name, "error", err)
	}
	t.sweepAt = again
	t.move(up, now)
}

// rekey takes in manual keys that may have changed. While those before them are all there the
// tunnel goes on with these.
func (k *keeper) rekey(ctx context.Context, t *tunnel, now time.Time) {
	err := t.manual.apply(ctx)
	if up, upErr := t.manual.up(); err == nil || upErr != nil || !up {
		k.blocked(t, err, now)
		return
	}
	f := because(t.Tunnel, manualCause(err), err.Error())
	t.blocked = f
	t.failures[f.cause]++
	k.log.Warn("tunnel goes on with its old keys", "realm", k.realm.Name, "tunnel", t.Name, "error", err)
}

// blocked takes in what came of applying manual keys.
func (k *keeper) blocked(t *tunnel, err error, now time.Time) {
	t.blocked = err
	if err == nil {
		return
	}
	f := because(t.Tunnel, manualCause(err), err.Error())
	t.failures[f.cause]++
	t.why = f
	t.report(now)
}

func manualCause(err error) string {
	if errors.Is(err, os.ErrNotExist) && strings.Contains(err.Error(), "network namespace") {
		return causeNamespace
	}
	return causeKey
}

// lookIKE looks at a tunnel with IKE.
func (k *keeper) lookIKE(ctx context.Context, t *tunnel, sas []ikeSA, states []state, problem error, now time.Time) {
	if problem == nil && !slices.ContainsFunc(sas, func(s ikeSA) bool { return s.Initiator == t.gone }) {
		t.gone = ""
	}
	found := carrying(t.Name, t.gone, sas)
	t.found, t.several = len(found) > 0, len(found) > 1
	if t.found {
		stays, superfluous := settle(found)
		t.take(stays, now)
		k.supersede(ctx, t, superfluous, sas, states, now)
	} else if t.carryUntil.IsZero() {
		// What an earlier charon has left may carry until it is clear whether the peer is there.
		t.carryUntil = now.Add(t.carry())
	}
	if problem != nil {
		k.blame(t, problem, now)
	}
	if t.found && t.NATTraversal == NATNever && t.current.ike.NAT {
		t.found, t.carryUntil = false, now
		t.fail(because(t.Tunnel, causeNAT, ""), now, now)
		k.end(ctx, t.current.ike)
	}
	if f := t.failed; f != nil {
		t.failed = nil
		// What the attempt was for may have come by another one, the peer's for instance.
		if !t.found {
			t.fail(*f, t.failedSince, now)
		}
	}
	paired := pair(states, t.IfID, t.Local.Addr(), t.Remote)
	left := !t.found && now.Before(t.carryUntil) && paired
	if t.blocked != nil && !t.found {
		k.blame(t, t.blocked, now)
	}
	// What charon said to be at its end may be in the kernel for another moment.
	if !left || !t.lost {
		t.move(t.found || left, now)
	}
	if problem != nil {
		return
	}
	t.confirm(paired, now)
	k.abandon(ctx, t, sas)
	if t.state == call.TunnelUnverified && t.found && !t.probed {
		k.probe(ctx, t)
	}
	if t.dueAttempt(sas, now) {
		k.attempt(ctx, t, now)
	}
}

// blame takes in what keeps a tunnel from being tried at all.
func (k *keeper) blame(t *tunnel, problem error, now time.Time) {
	var f failure
	switch {
	case errors.As(problem, &f):
	case errors.Is(problem, errNoNamespace):
		f = because(t.Tunnel, causeNamespace, "")
	case errors.Is(problem, errNoCharon):
		f = because(t.Tunnel, causeCharon, problem.Error())
	default:
		f = because(t.Tunnel, causeInternal, problem.Error())
	}
	if f.cause != t.why.cause {
		t.failures[f.cause]++
	}
	if t.found {
		return
	}
	t.why = f
	t.report(now)
}

// clean removes states that no charon answers for, when the tunnel has others or when
// they have carried for long enough without.
func (k *keeper) clean(states []state, sas []ikeSA, now time.Time) {
	for _, s := range k.orphans.sort(states, sas, now) {
		for _, t := range k.tunnels {
			if t.Keying != IKE || t.IfID != s.ifID || !t.found && now.Before(t.carryUntil) {
				continue
			}
			if err := deleteState(k.realm.Namespace, s); err != nil {
				k.log.Warn("security association of an earlier charon is left", "realm", k.realm.Name, "tunnel", t.Name, "error", err)
				continue
			}
			k.log.Info("security association of an earlier charon is removed",
				"realm", k.realm.Name, "tunnel", t.Name, "spi", fmt.Sprintf("%#x", s.id.spi))
		}
	}
}

// decide says by which tunnel traffic leaves, and returns when that may change by itself.
func (k *keeper) decide(now time.Time) time.Time {
	candidates := make([]candidate, len(k.tunnels))
	for i, t := range k.tunnels {
		candidates[i] = t.candidate(t.Name == k.state.Active)
	}
	active, again := choose(candidates, k.state.Active, now, k.realm.ReturnAfter)
	next, causes := State{Active: active}, ""
	if active == "" {
		next.Reason, causes = k.reason()
	}
	if k.begun && next.Active == k.state.Active && causes == k.causes {
		return again
	}
	if next.Active != k.state.Active {
		k.log.Info("realm has changed its tunnel", "realm", k.realm.Name, "from", k.state.Active, "to", active, "reason", next.Reason)
	}
	k.state, k.causes, k.begun = next, causes, true
	// Before anybody acts on it: who sees a trunk out of service finds the cause in Status.
	k.publish(now)
	k.changed(next)
	return again
}

// reason is why no tunnel of the realm is up, in sentences and in words. Sentences have details
// that differ with each attempt.
func (k *keeper) reason() (sentences, causes string) {
	var reasons, words []string
	for _, t := range k.tunnels {
		if t.why.reason != "" {
			reasons = append(reasons, t.why.reason)
		}
		words = append(words, t.why.cause)
	}
	if len(reasons) == 0 {
		return fmt.Sprintf("realm %s: no tunnel is up", k.realm.Name), ""
	}
	return strings.Join(reasons, "; "), strings.Join(words, " ")
}

// count reads the counters and publishes what Status tells.
func (k *keeper) count(now time.Time) {
	var err error
	if k.sums, err = k.counters.read(); err != nil && !errors.Is(err, os.ErrNotExist) {
		k.log.Debug("counters of tunnels cannot be read", "realm", k.realm.Name, "error", err)
	}
	k.publish(now)
}

func (k *keeper) publish(now time.Time) {
	list := make([]call.Tunnel, len(k.tunnels))
	for i, t := range k.tunnels {
		list[i] = t.status(now, t.Name == k.state.Active, k.sums[t.IfID])
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.status = list
}

// reload has everything read again, and returns when that is done.
func (k *keeper) reload(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case k.reloads <- done:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
