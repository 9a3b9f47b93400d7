package resolve

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// retryAfter is how long a denial holds, and the pause after a failure.
	retryAfter = 10 * time.Second
	// maxAsking bounds how many names are asked about at once.
	maxAsking = 16
	// maxNames bounds the names that nobody watches. Those that are watched are the config's.
	maxNames = 1024
)

// errFull means that more names are being looked up than are kept.
var errFull = fmt.Errorf("resolve: %d names are being looked up already", maxNames)

// Options are what a realm adds to its Config.
type Options struct {
	// Control prepares each socket to the config's servers: it binds it to the realm's
	// device. The servers of /etc/resolv.conf are the host's, and asked without it.
	Control func(network, address string, c syscall.RawConn) error
	// Local is the realm's address, which the config's servers are asked from; the
	// kernel's choice if it is zero.
	Local netip.Addr
	Log   *slog.Logger // nil is silent
}

// Resolver knows the targets of one realm's names. Run asks and keeps what it knows
// fresh; all else reads it and never waits, Lookup apart.
type Resolver struct {
	client   *client
	maxStale time.Duration
	log      *slog.Logger
	wake     chan struct{} // a name may have become due

	mu    sync.Mutex
	names map[name]*entry
}

// name is what entries are found by.
type name struct {
	Target
	via Transport
}

// entry is what is known of a name. set is read at any time; all else is the resolver's
// mutex's.
type entry struct {
	name
	set      atomic.Pointer[Set]
	state    State
	since    time.Time
	answered time.Time
	expires  time.Time
	err      error

	due    time.Time // when to ask again, if anybody wants to know
	asking bool
	again  bool          // ask once more if the question under way fails: it began before Again
	told   chan struct{} // closed when the question under way is settled
	asked  time.Time     // by Lookup: least recently used entries go first
	wanted bool          // by Lookup
	// watches are in the order in which they came.
	watches []*Watch
}

// New makes a resolver, which knows nothing before Run.
func New(cfg Config, o Options) *Resolver {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Resolver{
		client:   &client{cfg: cfg, control: o.Control, local: o.Local, resolvConf: "/etc/resolv.conf"},
		maxStale: cfg.MaxStale,
		log:      o.Log,
		wake:     make(chan struct{}, 1),
		names:    make(map[name]*entry),
	}
}

// settled is the outcome of the questions about one name.
type settled struct {
	entry *entry
	found found
	err   error
}

// Run asks about names when they are new or due, and tells the watches. It returns nil
// when ctx ends, after all questions have; it is called once.
func (r *Resolver) Run(ctx context.Context) error {
	var asking sync.WaitGroup
	defer asking.Wait()
	outcomes := make(chan settled)
	for running := 0; ; {
		due, next := r.due(maxAsking - running)
		for _, e := range due {
			running++
			asking.Go(func() {
				f, err := asker(r.client.ask).find(ctx, e.Target, e.via, *e.set.Load())
				select {
				case outcomes <- settled{e, f, err}:
				case <-ctx.Done():
				}
			})
		}
		select {
		case <-ctx.Done():
			return nil
		case s := <-outcomes:
			running--
			r.settle(s)
		case <-r.wake:
		case <-time.After(next):
		}
	}
}

// due takes up to free entries whose time has come, and says when to look again.
func (r *Resolver) due(free int) (due []*entry, next time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	next = longestTTL
	for _, e := range r.names {
		wait := e.due.Sub(now)
		switch {
		case e.asking || len(e.watches) == 0 && !e.wanted:
		case wait > 0:
			next = min(next, wait)
		case len(due) < free:
			e.asking = true
			due = append(due, e)
		}
	}
	return due, next // those beyond free are looked at again when a question is settled
}

// settle takes an outcome and, if targets or what they are worth have changed, says it and
// calls the watches.
func (r *Resolver) settle(s settled) {
	r.mu.Lock()
	e := s.entry
	before := e.status()
	changed := r.apply(s)
	after := e.status()
	close(e.told)
	if e.again && e.err != nil {
		e.due = time.Time{}
	}
	e.asking, e.again, e.wanted, e.told = false, false, false, make(chan struct{})
	watches := slices.Clone(e.watches)
	r.mu.Unlock()

	if !changed && before.State == after.State && (before.Error == "") == (after.Error == "") {
		return
	}
	r.say(before, after)
	set := *e.set.Load()
	for _, w := range watches {
		if w.changed != nil && !w.closed.Load() {
			w.changed(set)
		}
	}
}

// apply is the state machine of a name.
func (r *Resolver) apply(s settled) (changed bool) {
	e, now := s.entry, time.Now()
	e.due = now.Add(retryAfter)
	set, state := *e.set.Load(), Known
	switch {
	case s.err != nil:
		state = e.state
		if state == Known {
			state = Stale
		}
		if state == Stale && r.maxStale > 0 && now.Sub(e.expires) >= r.maxStale {
			set, state = Set{}, Expired
		}
		e.err = s.err
	case s.found.denied != nil:
		set, state = Set{}, Denied
		e.answered, e.expires, e.err = now, e.due, s.found.denied
	default:
		set = s.found.set
		e.answered, e.expires, e.err = now, now.Add(s.found.ttl), s.found.missing
		if e.err == nil {
			e.due = e.expires
		}
	}
	if state != e.state {
		e.state, e.since = state, now
	}
	changed = !set.Equal(*e.set.Load())
	e.set.Store(&set)
	return changed
}

// say logs a change once.
func (r *Resolver) say(before, after Status) {
	level, message := slog.LevelWarn, ""
	switch after.State {
	case Pending:
		message = "DNS does not answer, and no target is known"
	case Stale:
		message = "DNS does not answer: the last known targets go on being used"
	case Expired:
		message = "DNS has not answered for longer than max_stale: the last known targets are no longer used"
	case Denied:
		message = "DNS says that there are no targets"
	default:
		level, message = slog.LevelInfo, "targets by DNS"
		if after.Error != "" {
			level, message = slog.LevelWarn, "DNS does not answer for some of the targets"
		}
	}
	attrs := []any{"target", after.Target, "transport", string(after.Transport), "targets", Set{after.Endpoints}.String()}
	if was := (Set{before.Endpoints}); !was.Equal(Set{after.Endpoints}) {
		attrs = append(attrs, "before", was.String())
	}
	if after.State != Pending && after.State != Known {
		attrs = append(attrs, "age", time.Since(after.Answered).Round(time.Second))
	}
	if after.Error != "" {
		attrs = append(attrs, "error", after.Error)
	}
	r.log.Log(context.Background(), level, message, attrs...)
}

// entry returns that of a name, and makes it if need be. The mutex is held.
func (r *Resolver) entry(n name) *entry {
	e := r.names[n]
	if e == nil {
		e = newEntry(n, Pending, Set{})
		r.names[n] = e
	}
	return e
}

func newEntry(n name, state State, set Set) *entry {
	e := &entry{name: n, state: state, since: time.Now(), told: make(chan struct{})}
	e.set.Store(&set)
	return e
}

// status is what is told of an entry. The mutex is held.
func (e *entry) status() Status {
	s := Status{
		Target: e.Target.String(), Transport: e.via, State: e.state, Since: e.since,
		Answered: e.answered, Expires: e.expires, Endpoints: slices.Clone(e.set.Load().endpoints),
	}
	if e.err != nil {
		s.Error = e.err.Error()
	}
	return s
}

// Status tells of all targets that are watched, by name.
func (r *Resolver) Status() []Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []Status
	for _, e := range r.names {
		if len(e.watches) > 0 {
			all = append(all, e.status())
		}
	}
	slices.SortFunc(all, func(a, b Status) int {
		return cmp.Or(cmp.Compare(a.Target, b.Target), cmp.Compare(a.Transport, b.Transport))
	})
	return all
}

// Lookup finds the targets of what is not watched, and waits for it until ctx ends; what
// is known is returned at once, and asked anew in the background if it has expired. An
// error comes with an empty set.
func (r *Resolver) Lookup(ctx context.Context, t Target, via Transport) (Set, error) {
	if at, ok := t.Static(via); ok {
		return fixed(at), nil
	}
	for {
		told, set, err := r.look(t, via)
		if told == nil {
			return set, err
		}
		select {
		case <-told:
		case <-ctx.Done():
			return Set{}, fmt.Errorf("resolve: %s: %w", t, ctx.Err())
		}
	}
}

// look returns what is known of a name, or else a channel that is closed when it is.
func (r *Resolver) look(t Target, via Transport) (told <-chan struct{}, set Set, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := name{t, via}
	if r.names[n] == nil && !r.makeRoom() {
		return nil, Set{}, errFull
	}
	e := r.entry(n)
	e.asked = time.Now()
	isOld := !e.asked.Before(e.due)
	if isOld {
		e.wanted = true
		r.rouse()
	}
	set = *e.set.Load()
	// What nobody has watched for hours is asked first, and used only if DNS is dead.
	isAncient := isOld && e.asked.Sub(e.expires) > longestTTL
	switch {
	case set.Len() > 0 && !isAncient:
		return nil, set, nil
	case isOld:
		return e.told, Set{}, nil
	default:
		return nil, Set{}, fmt.Errorf("resolve: %s: %w", t, e.err)
	}
}

// makeRoom drops the name that was asked longest ago if there are too many. The mutex is
// held.
func (r *Resolver) makeRoom() bool {
	var oldest *entry
	idle := 0
	for _, e := range r.names {
		if len(e.watches) > 0 {
			continue
		}
		idle++
		if !e.asking && !e.wanted && (oldest == nil || e.asked.Before(oldest.asked)) {
			oldest = e
		}
	}
	if idle < maxNames {
		return true
	}
	if oldest == nil {
		return false
	}
	delete(r.names, oldest.name)
	return true
}

// Again has all names asked about at once that DNS has not answered for: the network may be
// back. Those that are being asked about are asked about once more if that fails.
func (r *Resolver) Again() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.names {
		e.again = e.asking
		if e.err != nil {
			e.due = time.Time{}
		}
	}
	r.rouse()
}

// rouse makes Run look at what is due.
func (r *Resolver) rouse() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Watch keeps the targets of one target of a trunk at hand.
type Watch struct {
	resolver *Resolver
	entry    *entry
	changed  func(Set)
	closed   atomic.Bool
}

// Watch begins to keep a target's set fresh, which Run does until Close. changed may be
// nil. It is called by Run's goroutine, one call at a time over all watches, whenever the
// targets become others than before; it must not block, and may use the resolver. What is
// known when Watch returns is not called back: Set has it. It is called as well when the
// targets are the same and what they are worth has changed (Status).
func (r *Resolver) Watch(t Target, via Transport, changed func(Set)) *Watch {
	w := &Watch{resolver: r, changed: changed}
	if at, ok := t.Static(via); ok {
		w.entry = newEntry(name{t, via}, Fixed, fixed(at))
		return w
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	n := name{t, via}
	// A failure or a denial of when somebody else wanted to know, such as a config before the last
	// reload, is no reason to wait now.
	if e := r.names[n]; e != nil && len(e.watches) == 0 && !e.asking && !e.wanted && e.set.Load().Len() == 0 {
		delete(r.names, n)
	}
	w.entry = r.entry(n)
	w.entry.watches = append(w.entry.watches, w)
	r.rouse()
	return w
}

func fixed(at netip.AddrPort) Set { return Set{[]Endpoint{{Addr: at}}} }

// Set is what counts now. It does not wait and does not allocate.
func (w *Watch) Set() Set { return *w.entry.set.Load() }

// Status tells what the set is worth.
func (w *Watch) Status() Status {
	w.resolver.mu.Lock()
	defer w.resolver.mu.Unlock()
	return w.entry.status()
}

// Close ends the watch. A call back that is under way may end after it; none begins.
// What is known of the name is kept for a while, for whoever watches it next.
func (w *Watch) Close() {
	w.resolver.mu.Lock()
	defer w.resolver.mu.Unlock()
	w.closed.Store(true)
	w.entry.watches = slices.DeleteFunc(w.entry.watches, func(o *Watch) bool { return o == w })
	w.entry.asked = time.Now()
}
