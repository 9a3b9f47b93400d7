package trunk

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/resolve"
)

// Names is how the names among the targets become addresses (T9).
type Names struct {
	// Resolvers by the realm's name. The names of a realm without one have no addresses.
	Resolvers map[string]*resolve.Resolver
	// Refuse says in words why an address that DNS has must not be a target in a realm; empty if
	// it may. It must not block, and may be nil.
	Refuse func(realm string, target netip.AddrPort) string
	// Changed is told that a trunk is elsewhere by DNS, and which hosts it has left. It must not
	// block, and may be nil.
	Changed func(t *Trunk, left []netip.Addr)
	Log     *slog.Logger
}

// place is one entry of a trunk's targets. Generations that have the same entry in the same realm
// share it.
type place struct {
	resolve.Target
	realm string
	via   resolve.Transport
	// watch is nil as long as nobody looks the name up, and for addresses.
	watch atomic.Pointer[resolve.Watch]
}

// set is what the entry is at this moment.
func (p *place) set() resolve.Set {
	if at, ok := p.Static(p.via); ok {
		return resolve.SetOf(resolve.Endpoint{Addr: at})
	}
	if w := p.watch.Load(); w != nil {
		return w.Set()
	}
	return resolve.Set{}
}

func (p *place) isName() bool { return p.Host != "" }

// same reports whether both are one entry.
func (p *place) same(o *place) bool {
	return p.Target == o.Target && p.realm == o.realm && p.via == o.via
}

// why says in words what is known of a name.
func (p *place) why() string {
	if w := p.watch.Load(); w != nil {
		return fmt.Sprintf("%s: %s", p.Target, w.Status())
	}
	return fmt.Sprintf("%s: DNS has not been asked yet", p.Target)
}

// isSettled reports whether DNS has been asked and has answered, or has failed to.
func (p *place) isSettled() bool {
	w := p.watch.Load()
	if w == nil {
		return true // nobody asks
	}
	s := w.Status()
	return s.State != resolve.Pending || s.Error != ""
}

// isPending reports whether DNS has never answered for the name, and is being asked.
func (p *place) isPending() bool {
	w := p.watch.Load()
	return w != nil && w.Status().State == resolve.Pending
}

// reach is where a trunk is at one time. It is never changed, only replaced.
type reach struct {
	// sets of the trunk's places, without what is refused. Together they have at most 64 targets.
	sets []resolve.Set
	// targets are all of them, each once.
	targets []netip.AddrPort
	// prefixes that media may be learned from.
	prefixes []netip.Prefix
	// refused are addresses that names have and that do not count, with the reasons in words.
	refused []string
	// why there are no targets, in words; empty if there are.
	why string
	// lent are the targets of the trunk before a reload. They stand in as long as there are no others
	// and DNS has yet to answer for a name that the reload has brought.
	lent []netip.AddrPort
}

// equal reports whether calls and people see the same.
func (r *reach) equal(o *reach) bool {
	return slices.EqualFunc(r.sets, o.sets, resolve.Set.Equal) && slices.Equal(r.refused, o.refused) && r.why == o.why
}

// names keeps the addresses of the current table. All generations share it.
type names struct {
	mu sync.Mutex
	Names
	// table that addresses are kept for; nil as long as nobody looks them up.
	table *Table
	// watched are the places with a watch that is not closed.
	watched []*place
	// ahead are the places with a watch that a table has that is not adopted yet (Await).
	ahead []*place
	// told are the refusals that were logged and still hold.
	told map[refusal]bool
	// news is closed and replaced when what DNS says has changed.
	news chan struct{}
}

func namesOf(former *Table) *names {
	if former != nil {
		return former.names
	}
	return &names{news: make(chan struct{})}
}

// Resolve begins to look up the names among the targets, and keeps their addresses from then on,
// also for the tables that come after this one (Adopt). It is for the first table, once, before it
// is used; the resolvers need not run yet.
func (t *Table) Resolve(n Names) {
	if n.Log == nil {
		n.Log = slog.New(slog.DiscardHandler)
	}
	t.names.mu.Lock()
	t.names.Names, t.names.table = n, t
	t.names.mu.Unlock()
	t.Adopt()
}

// AwaitNames waits until DNS has answered for each name of a realm's trunks, or has failed to, or
// until ctx is done.
func (t *Table) AwaitNames(ctx context.Context, realm string) {
	for {
		t.names.mu.Lock()
		settled, news := t.isSettled(realm), t.names.news
		t.names.mu.Unlock()
		if settled {
			return
		}
		select {
		case <-news:
		case <-ctx.Done():
			return
		}
	}
}

func (t *Table) isSettled(realm string) bool {
	waits := func(p *place) bool { return !p.isSettled() }
	return !slices.ContainsFunc(t.trunks, func(tr *Trunk) bool { return tr.Realm() == realm && slices.ContainsFunc(tr.places, waits) })
}

// Await begins to look up the names that the table in use does not have, and waits until DNS has
// answered for each of them, or has failed to, or until ctx is done, so that no trunk of this table
// is without targets only because nobody has asked yet. Names of a realm that is down are not waited
// for. It changes nothing for the table in use, and is for one with a former table before that is
// replaced; Adopt or Drop follows.
//
// A trunk that has no target by then for want of an answer goes on at those that it had before, like
// at the last known ones of a name whose DNS is dead: whoever reloads under load wants no calls to
// fail, and should the old targets be gone their health says so. That ends when DNS answers, even if
// it is that there are none.
func (t *Table) Await(ctx context.Context) {
	n := t.names
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.table == nil || n.table == t {
		return
	}
	var waited []*place
	for _, p := range t.named() {
		if n.begin(p) {
			n.ahead = append(n.ahead, p)
		}
		if slices.Contains(n.ahead, p) && !t.news.isDown(p.realm) {
			waited = append(waited, p)
		}
	}
	for ctx.Err() == nil && slices.ContainsFunc(waited, func(p *place) bool { return !p.isSettled() }) {
		news := n.news
		n.mu.Unlock()
		select {
		case <-news:
		case <-ctx.Done():
		}
		n.mu.Lock()
	}
	t.borrow(n.table)
	t.locate("")
	for _, tr := range t.trunks {
		if old := n.table.byName[tr.Name()]; old == nil || old.state != tr.state { // nobody uses it yet
			tr.health.do(func(m *machine, now time.Time) { m.configure(tr.settings(), now) })
		}
	}
}

// Drop ends the look-ups that Await has begun, for a table that is not adopted after all.
func (t *Table) Drop() {
	n := t.names
	n.mu.Lock()
	defer n.mu.Unlock()
	mine := t.named()
	n.ahead = slices.DeleteFunc(n.ahead, func(p *place) bool {
		isMine := slices.Contains(mine, p)
		if isMine {
			p.watch.Load().Close()
		}
		return isMine
	})
}

// named are the places of the table that are names.
func (t *Table) named() []*place {
	var list []*place
	for _, tr := range t.trunks {
		for _, p := range tr.places {
			if p.isName() {
				list = append(list, p)
			}
		}
	}
	return list
}

// borrow keeps the targets of the former table's trunks at hand for those without any.
func (t *Table) borrow(former *Table) {
	for _, tr := range t.trunks {
		old, now := former.byName[tr.Name()], *tr.reach.Load()
		if old == nil || old.Realm() != tr.Realm() || len(now.targets) > 0 {
			continue
		}
		now.lent = old.reach.Load().targets
		tr.reach.Store(&now)
	}
}

// adopt makes a table the one that addresses are kept for. mu is held.
func (n *names) adopt(t *Table) {
	if n.table == nil {
		return // nobody has called Resolve
	}
	former, wanted := n.table, t.named()
	n.table = t
	for _, p := range wanted {
		n.begin(p)
	}
	// After those that are new have begun: what is known of a name goes from one to the other.
	for _, p := range slices.Concat(n.watched, n.ahead) {
		if !slices.Contains(wanted, p) {
			p.watch.Load().Close()
		}
	}
	n.ahead = nil
	n.watched = slices.DeleteFunc(wanted, func(p *place) bool { return p.watch.Load() == nil })
	if former != t {
		t.borrow(former)
	}
	for _, m := range t.locate("") { // DNS may have answered since Await
		if n.Changed == nil || m.from == nil {
			continue
		}
		if left := m.from.left(m.reach.Load()); len(left) > 0 {
			n.Changed(m.Trunk, left)
		}
	}
	n.say()
	for _, tr := range t.trunks {
		if r := tr.reach.Load(); r.lent != nil && len(r.targets) > 0 {
			n.Log.Warn("DNS has not answered for a trunk's new names: its former targets go on being used",
				"trunk", tr.Name(), "realm", tr.Realm(), "targets", r.targets)
		}
	}
}

// begin has a name looked up, unless it is already.
func (n *names) begin(p *place) bool {
	resolver := n.Resolvers[p.realm]
	if resolver == nil || slices.Contains(n.watched, p) || slices.Contains(n.ahead, p) {
		return false
	}
	p.watch.Store(resolver.Watch(p.Target, p.via, func(resolve.Set) { n.changed(p.realm) }))
	return true
}

// changed takes that DNS says something else of a realm's names.
func (n *names) changed(realm string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, m := range n.table.locate(realm) {
		now := m.reach.Load()
		m.health.follow(now.targets, now.why)
		if n.Changed != nil {
			n.Changed(m.Trunk, m.from.left(now))
		}
	}
	n.say()
	close(n.news)
	n.news = make(chan struct{})
}

// move is a trunk that is elsewhere than it was; from is nil for one that is new.
type move struct {
	*Trunk
	from *reach
}

// left are the hosts that are no targets any more.
func (r *reach) left(now *reach) []netip.Addr {
	var list []netip.Addr
	for _, target := range r.targets {
		host := target.Addr()
		still := func(o netip.AddrPort) bool { return o.Addr() == host }
		if !slices.ContainsFunc(now.targets, still) && !slices.Contains(list, host) {
			list = append(list, host)
		}
	}
	return list
}

// again has the names of a realm asked about at once: its network may be back.
func (n *names) again(realm string) {
	n.mu.Lock()
	resolver := n.Resolvers[realm]
	n.mu.Unlock()
	if resolver != nil {
		resolver.Again()
	}
}

// owners says whose an address is.
type owners map[peer]*Trunk

// locate finds out where the trunks of a realm are, or of all realms if it is empty, and returns
// those that are elsewhere than they were. An address belongs to the trunk that has it in the
// config, or else to the first one with a name for it, so that a call from it can only be one's.
// names.mu is held.
func (t *Table) locate(realm string) (moves []move) {
	owned := make(owners, len(t.trunks))
	for _, tr := range t.trunks {
		for _, p := range tr.places {
			if !p.isName() {
				owned[peer{tr.Realm(), p.Addr}] = tr
			}
		}
	}
	for _, tr := range t.trunks {
		before := tr.reach.Load()
		if realm != "" && tr.Realm() != realm {
			before.hold(owned, tr)
			continue
		}
		now := t.find(owned, tr, before)
		if before != nil && before.equal(now) {
			continue
		}
		tr.reach.Store(now)
		moves = append(moves, move{tr, before})
	}
	t.byPeer.Store(&owned)
	return moves
}

// hold keeps what a trunk has.
func (r *reach) hold(owned owners, tr *Trunk) {
	for _, target := range r.targets {
		owned[peer{tr.Realm(), target.Addr()}] = tr
	}
}

// find draws together where a trunk is that was elsewhere before, which may be nil. It takes the
// addresses of its names into owned.
func (t *Table) find(owned owners, tr *Trunk, before *reach) *reach {
	r := &reach{sets: make([]resolve.Set, len(tr.places))}
	unknown := ""
	for i, p := range tr.places {
		whole := p.set()
		if whole.Len() == 0 && unknown == "" {
			unknown = p.why()
		}
		part := make([]resolve.Endpoint, 0, whole.Len())
		for j := range whole.Len() {
			e := whole.At(j)
			at := peer{p.realm, e.Addr.Addr()}
			if why := t.refuses(owned[at], tr, p, e.Addr); why != "" {
				r.refused = append(r.refused, why)
				continue
			}
			isNew := !slices.Contains(r.targets, e.Addr)
			if isNew && len(r.targets) == maxTargets {
				continue
			}
			owned[at] = tr
			part = append(part, e)
			if isNew {
				r.targets = append(r.targets, e.Addr)
			}
		}
		r.sets[i] = resolve.SetOf(part...)
	}
	if len(r.targets) == 0 && before != nil {
		t.standIn(owned, tr, r, before.lent)
	}
	if len(r.targets) == 0 && t.names.table != nil {
		r.why = append(r.refused, unknown)[0]
	}
	r.prefixes = tr.config.prefixes(r.targets)
	return r
}

// standIn gives a trunk, whose names nothing is known of yet, the targets that are lent to it.
func (t *Table) standIn(owned owners, tr *Trunk, r *reach, lent []netip.AddrPort) {
	i := slices.IndexFunc(tr.places, (*place).isPending)
	if i < 0 {
		return
	}
	var part []resolve.Endpoint
	for _, target := range lent {
		at := peer{tr.Realm(), target.Addr()}
		if t.refuses(owned[at], tr, tr.places[i], target) != "" { // the config gives it to another, or denies it
			continue
		}
		owned[at] = tr
		part = append(part, resolve.Endpoint{Addr: target})
		r.targets = append(r.targets, target)
	}
	if len(part) > 0 {
		r.sets[i], r.lent = resolve.SetOf(part...), lent
	}
}

// refuses says in words why an address that a name has does not count.
func (t *Table) refuses(owner, tr *Trunk, p *place, target netip.AddrPort) string {
	if !p.isName() {
		return "" // the config was checked
	}
	if owner != nil && owner != tr {
		return fmt.Sprintf("%s is %s by DNS, which is trunk %s's already", p.Target, target.Addr(), owner.Name())
	}
	if t.names.Refuse != nil {
		if why := t.names.Refuse(p.realm, target); why != "" {
			return fmt.Sprintf("%s is %s by DNS, which %s", p.Target, target, why)
		}
	}
	return ""
}

// refusal is one that was said.
type refusal struct{ trunk, why string }

// say logs what is refused and was not before. mu is held.
func (n *names) say() {
	told := n.told
	n.told = make(map[refusal]bool)
	for _, tr := range n.table.trunks {
		for _, why := range tr.reach.Load().refused {
			now := refusal{tr.Name(), why}
			if n.told[now] = true; !told[now] {
				n.Log.Warn("a target by DNS is not used", "trunk", tr.Name(), "realm", tr.Realm(), "reason", why)
			}
		}
	}
}

// prefixes that media may be learned from (M7): those of the config, or else the targets' hosts, as
// many as there is room for besides the one in the peer's description.
func (c Config) prefixes(targets []netip.AddrPort) []netip.Prefix {
	if len(c.MediaPrefixes) > 0 {
		return c.MediaPrefixes
	}
	var list []netip.Prefix
	for _, target := range targets {
		host := netip.PrefixFrom(target.Addr(), 32)
		if !slices.Contains(list, host) && (c.MediaSource != Latch || len(list) < call.MaxPrefixes-1) {
			list = append(list, host)
		}
	}
	return list
}

// Names tells of the names among the trunk's targets, in the order of the config.
func (t *Trunk) Names() []resolve.Status {
	var list []resolve.Status
	for _, p := range t.places {
		if w := p.watch.Load(); w != nil {
			list = append(list, w.Status())
		}
	}
	return list
}

// Peers are the addresses of a realm's trunks, each once, in the order of the config.
func (t *Table) Peers(realm string) []netip.Addr {
	var list []netip.Addr
	for _, tr := range t.trunks {
		if tr.Realm() != realm {
			continue
		}
		for _, target := range tr.reach.Load().targets {
			if !slices.Contains(list, target.Addr()) {
				list = append(list, target.Addr())
			}
		}
	}
	return list
}

// MorePeers is how many addresses a realm's trunks may come to have: names can lead to 64 each.
func (t *Table) MorePeers(realm string) int {
	n := 0
	for _, tr := range t.trunks {
		switch {
		case tr.Realm() != realm:
		case slices.ContainsFunc(tr.places, (*place).isName):
			n += maxTargets
		default:
			n += len(tr.places)
		}
	}
	return n
}

// settings of the trunk's health at this moment.
func (t *Trunk) settings() settings {
	r := t.reach.Load()
	s := t.config.health(r.targets)
	s.nowhere = r.why
	s.unknown = len(r.targets) == 0 && r.why == ""
	return s
}

// follow takes the addresses that the trunk's targets are now, or why there are none; at most 64
// are watched. One that is new is asked soon.
func (h *health) follow(targets []netip.AddrPort, nowhere string) {
	h.do(func(m *machine, now time.Time) {
		m.set.nowhere, m.set.unknown = nowhere, false
		before := m.targets
		m.follow(targets, now)
		for i := range m.targets {
			t := &m.targets[i]
			if !slices.ContainsFunc(before, func(o target) bool { return o.addr == t.addr }) {
				t.due = now
			}
		}
		m.settle(now)
	})
}
