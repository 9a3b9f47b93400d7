package ipsec

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
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
	// stale is true if charon is to be compared with the config.
	stale    bool
	orphans  orphans
	counters *associations

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

// attempt is one that has ended.
type attempt struct {
	tunnel  *tunnel
	started time.Time
	lines   []string
	err     error
}

func newKeeper(r Realm, c *charon, log *slog.Logger, changed func(State)) *keeper {
	k := &keeper{
		realm: r, log: log, changed: changed, charon: c, stale: true,
		counters: newAssociations(r.Namespace, r.Tunnels),
		attempts: make(chan attempt, len(r.Tunnels)), wake: make(chan struct{}, 1), reloads: make(chan chan error),
	}
	for i, t := range r.Tunnels {
		k.tunnels = append(k.tunnels, k.newTunnel(t, i+1))
	}
	k.publish(nil, time.Now())
	return k
}

func (k *keeper) newTunnel(config Tunnel, rank int) *tunnel {
	t := &tunnel{Tunnel: config, rank: rank, log: k.log, failures: make(map[string]uint64), state: call.TunnelDown, since: time.Now()}
	if config.Keying == Manual {
		t.manual = newManual(config, k.realm.Inner, k.realm.Namespace, k.log)
	}
	if target := k.monitored(config); target.IsValid() {
		t.monitor = newMonitor(config.Device, k.realm.Inner, target, config.MonitorInterval, config.MonitorLost, config.Monitor != MonitorAuto)
	}
	return t
}

// monitored is whom the tunnel's monitor asks; invalid is nobody.
func (k *keeper) monitored(c Tunnel) netip.Addr {
	switch c.Monitor {
	case MonitorNone, "":
		return netip.Addr{}
	case MonitorAuto:
		return k.realm.Monitor
	}
	target, err := netip.ParseAddr(c.Monitor)
	if err != nil {
		return netip.Addr{} // Validate lets none through
	}
	return target
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
			k.ended(a)
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
			k.blocked(t, t.manual.apply(ctx), now)
		}
	}
	if len(k.ike()) > 0 {
		errs = append(errs, k.reach(ctx, now))
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
	var sas []ikeSA
	var problem error
	if len(k.ike()) > 0 {
		sas, problem = k.ask(ctx, now)
	}
	states, err := keyedStates(k.realm.Namespace)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		k.log.Warn("security associations of the kernel cannot be read", "realm", k.realm.Name, "error", err)
	}
	next := lookWhileUp
	for _, t := range k.tunnels {
		if t.manual != nil {
			k.lookManual(ctx, t, now)
		} else {
			k.lookIKE(ctx, t, sas, states, problem, now)
		}
		if t.state != call.TunnelUp {
			next = lookWhileDown
		}
		for _, at := range []time.Time{t.next, t.sweepAt} {
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

// ask makes sure of charon and lists its SAs.
func (k *keeper) ask(ctx context.Context, now time.Time) ([]ikeSA, error) {
	if err := k.reach(ctx, now); err != nil {
		return nil, err
	}
	sas, err := k.client.sas(ctx)
	if err != nil {
		return nil, k.deaf(ctx, err)
	}
	k.silent = 0
	if err := k.rotate(ctx); err != nil {
		k.log.Warn("log of charon is not cut", "realm", k.realm.Name, "error", err)
	}
	// What charon has said about them counts before what is missing is tried again.
	for _, e := range k.watcher.drain() {
		k.notice(e, now)
	}
	return sas, nil
}

// deaf takes in that charon did not answer: a few times in a row are taken for a hung
// process, which is killed. What it has put into the kernel goes on.
func (k *keeper) deaf(ctx context.Context, err error) error {
	k.disconnect()
	if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if k.silent++; k.silent < maxSilent {
		return err
	}
	k.silent = 0
	k.log.Warn("charon does not answer and is killed", "realm", k.realm.Name, "process", k.charon.process.pid)
	return errors.Join(err, k.charon.end(false))
}

func (k *keeper) disconnect() {
	for _, c := range []*client{k.client, k.watcher} {
		if c == nil {
			continue
		}
		if err := c.close(); err != nil {
			k.log.Debug("close of VICI", "realm", k.realm.Name, "error", err)
		}
	}
	k.client, k.watcher = nil, nil
}

// reach makes sure that a charon runs in the realm's namespace, is connected, and knows what it should.
func (k *keeper) reach(ctx context.Context, now time.Time) error {
	if k.client == nil {
		if err := k.connect(ctx, now); err != nil {
			return err
		}
		k.stale = true
	}
	if in, err := k.charon.inPlace(); err != nil {
		return err
	} else if !in {
		k.log.Warn("charon is in a namespace that was deleted, and is replaced", "realm", k.realm.Name)
		k.disconnect()
		if err := k.charon.end(false); err != nil {
			return err
		}
		return k.reach(ctx, now)
	}
	if !k.stale && !k.reviewDue(now) {
		return nil
	}
	if err := k.load(ctx, now); err != nil {
		return k.deaf(ctx, err)
	}
	k.stale = false
	return nil
}

// reviewDue is true if credentials that could not be used are to be read again.
func (k *keeper) reviewDue(now time.Time) bool {
	for _, t := range k.tunnels {
		if t.blocked != nil && !now.Before(t.next) {
			return true
		}
		if t.blocked == nil && !t.until.IsZero() && now.After(t.until) {
			return true
		}
	}
	return false
}

// connect connects to the charon that runs, or to one that it starts.
func (k *keeper) connect(ctx context.Context, now time.Time) error {
	err := k.dial(ctx)
	if err == nil || ctx.Err() != nil {
		return err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return k.deaf(ctx, err)
	}
	if now.Before(k.startAt) {
		return err
	}
	// One without a socket keeps IKE's port from another.
	if err := k.charon.end(false); err != nil {
		return err
	}
	k.starts++
	k.startAt = now.Add(min(time.Duration(k.starts)*time.Second, 10*time.Second))
	if err := k.charon.start(ctx, k.ike()[0].IKE); err != nil {
		return err
	}
	if err := k.dial(ctx); err != nil {
		return err
	}
	k.log.Info("charon is started", "realm", k.realm.Name, "process", k.charon.process.pid)
	return nil
}

func (k *keeper) dial(ctx context.Context) error {
	c, err := dial(ctx, k.charon.socket(), listings[:1])
	if err != nil {
		return err
	}
	w, err := dial(ctx, k.charon.socket(), notices)
	if err != nil {
		return errors.Join(err, c.close())
	}
	if err := k.charon.found(c.pid); err != nil {
		return errors.Join(err, c.close(), w.close())
	}
	k.client, k.watcher = c, w
	return nil
}

// load brings charon in line with the config, and changes nothing that is in line.
func (k *keeper) load(ctx context.Context, now time.Time) error {
	if err := k.settings(ctx); err != nil {
		return err
	}
	l := loader{client: k.client, inner: k.realm.Inner, record: readRecord(k.charon.file(loadedFile), k.charon.process), now: now}
	err := l.load(ctx, k.ike())
	if writeErr := l.record.write(k.charon.file(loadedFile)); writeErr != nil {
		err = errors.Join(err, writeErr)
	}
	for _, name := range l.old {
		k.log.Warn("first keys of the tunnel are without perfect forward secrecy: strongSwan is too old for childless IKE_SAs; install 6.0",
			"realm", k.realm.Name, "tunnel", name)
	}
	for _, t := range k.tunnels {
		blocked := l.failed[t.Name]
		t.until = l.until[t.Name]
		if blocked != nil {
			t.next = now.Add(blockedRetry)
		} else if t.blocked != nil {
			t.next = time.Time{}
		}
		t.blocked = blocked
	}
	if err != nil {
		return err
	}
	return k.retire(ctx, l.replaced)
}

// settings writes strongswan.conf anew and has it read, if it is another one now.
func (k *keeper) settings(ctx context.Context) error {
	want := settings(k.charon.folder, k.ike()[0].IKE)
	have, err := os.ReadFile(k.charon.file(settingsFile))
	if err == nil && string(have) == want {
		return nil
	}
	if err := writeFile(k.charon.file(settingsFile), []byte(want)); err != nil {
		return err
	}
	_, err = k.client.call(ctx, "reload-settings", nil)
	return err
}

// rotate keeps charon's log within bounds: it is on a file system in memory.
func (k *keeper) rotate(ctx context.Context) error {
	info, err := os.Stat(k.charon.file(logFile))
	if err != nil || info.Size() <= maxLog {
		return nil // a log that was removed takes no room
	}
	if err := os.Rename(k.charon.file(logFile), k.charon.file(oldLogFile)); err != nil {
		return err
	}
	_, err = k.client.call(ctx, "reload-settings", nil)
	return err
}

// retire ends the SAs of connections that were changed or are not wanted.
func (k *keeper) retire(ctx context.Context, names []string) error {
	if len(names) == 0 {
		return nil
	}
	sas, err := k.client.sas(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		for _, s := range sas {
			if s.Name == name {
				k.log.Info("tunnel is ended, since its config has changed", "realm", k.realm.Name, "tunnel", name)
				errs = append(errs, k.client.terminate(ctx, "ike-id", s.ID, false))
			}
		}
	}
	return errors.Join(errs...)
}

// lookManual looks at a tunnel without IKE.
func (k *keeper) lookManual(ctx context.Context, t *tunnel, now time.Time) {
	up := t.manual.up()
	if !up && !now.Before(t.next) {
		t.next = now.Add(manualRetry)
		k.blocked(t, t.manual.apply(ctx), now)
		up = t.manual.up()
	}
	again, err := t.manual.sweep(now)
	if err != nil {
		k.log.Warn("old manual security association is left", "realm", k.realm.Name, "tunnel", t.Name, "error", err)
	}
	t.sweepAt = again
	t.move(up, now)
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
	found := carrying(t.Name, sas)
	t.found = len(found) > 0
	if t.found {
		stays, superfluous := settle(found)
		t.current = stays
		t.carryUntil = now.Add(t.IKE.noticed())
		for _, s := range superfluous {
			k.supersede(ctx, t, s)
		}
	} else if t.carryUntil.IsZero() {
		// What an earlier charon has left may carry until it is clear whether the peer is there.
		t.carryUntil = now.Add(t.IKE.noticed())
	}
	if problem != nil {
		k.blame(t, problem, now)
	}
	if t.found && t.NATTraversal == NATNever && t.current.ike.NAT {
		t.found, t.carryUntil = false, now
		t.fail(because(t.Tunnel, causeNAT, ""), now, now)
		k.end(ctx, t.current.ike)
	}
	left := !t.found && now.Before(t.carryUntil) && pair(states, t.IfID, t.Local.Addr(), t.Remote)
	if t.blocked != nil && !t.found {
		k.blame(t, t.blocked, now)
	}
	t.move(t.found || left, now)
	if problem != nil {
		return
	}
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

// abandon ends attempts of ours that the peer has not answered in time.
func (k *keeper) abandon(ctx context.Context, t *tunnel, sas []ikeSA) {
	for _, s := range sas {
		if s.Name == t.Name && s.State == ikeConnecting && s.Ours && !s.answered() && !t.trying {
			k.end(ctx, s)
		}
	}
}

func (k *keeper) end(ctx context.Context, s ikeSA) {
	if err := k.client.terminate(ctx, "ike-id", s.ID, true); err != nil {
		k.log.Debug("IKE_SA was not ended", "realm", k.realm.Name, "tunnel", s.Name, "error", err)
	}
}

// supersede ends one of two SAs that do the same. Before the peer hears of it our policies
// point to the one that stays, so that nothing is under way by the other one.
func (k *keeper) supersede(ctx context.Context, t *tunnel, s sa) {
	if err := steer(k.realm.Namespace, t.IfID, t.current.child.Out); err != nil {
		k.log.Warn("superfluous security association is left", "realm", k.realm.Name, "tunnel", t.Name, "error", err)
		return
	}
	kind, id := "ike-id", s.ike.ID
	if s.ike.ID == t.current.ike.ID {
		kind, id = "child-id", s.child.ID
	}
	k.log.Info("superfluous security association is ended", "realm", k.realm.Name, "tunnel", t.Name, kind, id)
	if err := k.client.terminate(ctx, kind, id, false); err != nil {
		k.log.Debug("superfluous security association was not ended", "realm", k.realm.Name, "tunnel", t.Name, "error", err)
	}
}

// probe asks a silent peer for new keys. If it is gone, or has forgotten us, that
// shows sooner than by the next dead peer detection; if it is there nothing is lost.
func (k *keeper) probe(ctx context.Context, t *tunnel) {
	t.probed = true
	in, err := message("child-id", t.current.child.ID)
	if err == nil {
		_, err = k.client.call(ctx, "rekey", in)
	}
	if err != nil {
		k.log.Debug("silent peer was not asked", "realm", k.realm.Name, "tunnel", t.Name, "error", err)
	}
}

// attempt makes one attempt, in the background since it takes seconds.
func (k *keeper) attempt(ctx context.Context, t *tunnel, now time.Time) {
	t.trying = true
	socket := k.charon.socket()
	k.running.Go(func() {
		lines, err := initiate(ctx, socket, t.Name, attemptTimeout)
		// There is room for one attempt of each tunnel.
		k.attempts <- attempt{t, now, lines, err}
	})
}

// ended takes in an attempt that has ended.
func (k *keeper) ended(a attempt) {
	t := a.tunnel
	t.trying = false
	if a.err == nil {
		return
	}
	answered := false
	for _, l := range a.lines {
		answered = answered || strings.Contains(l, "received packet: from")
	}
	if answered && isTimeout(a.err) {
		if cause, _ := recognise(a.lines); cause == "" {
			return // it is slow, and goes on in charon
		}
	}
	t.fail(explain(t.Tunnel, a.lines, a.err, answered), a.started, time.Now())
}

// notice takes in an event, and reports whether it is a reason to look.
func (k *keeper) notice(e vici.Event, now time.Time) bool {
	switch e.Name {
	case "log":
		k.hear(e.Message, now)
		return false
	case "ike-rekey", "child-rekey":
		for _, s := range sections(e.Message) {
			if t := k.named(clip(s.name)); t != nil && e.Name == "ike-rekey" {
				t.ikeRekeys++
			} else if t != nil {
				t.childRekeys++
			}
		}
	}
	return true
}

func (k *keeper) named(name string) *tunnel {
	for _, t := range k.tunnels {
		if t.Name == name && t.Keying == IKE {
			return t
		}
	}
	return nil
}

// hear takes in a line of charon's log that is about something the peer began, or about
// an SA that was established. What attempts of ours say they say themselves.
func (k *keeper) hear(m *vici.Message, now time.Time) {
	line, id := text(m, "msg"), text(m, "ikesa-uniqueid")
	cause, _ := recognise([]string{line})
	t := k.named(text(m, "ikesa-name"))
	if t == nil && len(k.tunnels) == 1 && k.tunnels[0].Keying == IKE {
		t = k.tunnels[0] // a peer whose identity fits no connection has no name
	}
	if t == nil || cause == "" {
		return
	}
	of := t.current.ike.ID == id && t.current.ike.ID != ""
	switch {
	case of && cause == causeUnreachable && strings.Contains(line, "giving up"):
		t.dpdFailures++
		t.lose(because(t.Tunnel, causeDPD, line), now)
	case of && cause == causeDeleted:
		t.lose(because(t.Tunnel, causeDeleted, line), now)
	case !t.found && !t.trying && unasked[cause]:
		if cause == t.why.cause {
			return
		}
		t.failures[cause]++
		t.why = because(t.Tunnel, cause, line)
		t.report(now)
	}
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
			k.log.Info("security association of an earlier charon is removed", "realm", k.realm.Name, "tunnel", t.Name, "spi", fmt.Sprintf("%#x", s.id.spi))
		}
	}
}

// decide says by which tunnel traffic leaves, and returns when that may change by itself.
func (k *keeper) decide(now time.Time) time.Time {
	candidates := make([]candidate, len(k.tunnels))
	for i, t := range k.tunnels {
		candidates[i] = candidate{name: t.Name, up: t.state == call.TunnelUp, since: t.since}
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
	sums, err := k.counters.read()
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		k.log.Debug("counters of tunnels cannot be read", "realm", k.realm.Name, "error", err)
	}
	k.publish(sums, now)
}

func (k *keeper) publish(sums map[uint32]traffic, now time.Time) {
	list := make([]call.Tunnel, len(k.tunnels))
	for i, t := range k.tunnels {
		list[i] = t.status(now, t.Name == k.state.Active, sums[t.IfID])
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
