package app

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tandem-sbc/tandem/pkg/b2bua"
	"github.com/tandem-sbc/tandem/pkg/config"
	"github.com/tandem-sbc/tandem/pkg/realm"
	"github.com/tandem-sbc/tandem/pkg/route"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

// plan is where calls go in one generation of the config. A call keeps the one that it
// began with.
type plan struct {
	cfg    *config.Config
	trunks *trunk.Table
	routes *route.Table
}

// newPlan changes nothing of the former one, which is nil at the start.
func newPlan(cfg *config.Config, former *plan) (*plan, error) {
	var table *trunk.Table
	if former != nil {
		table = former.trunks
	}
	trunks, err := trunk.New(trunk.Configs{Trunks: cfg.Trunks, Groups: cfg.Groups, Realms: limits(cfg.Realms), Emergency: cfg.Emergency}, table)
	if err != nil {
		return nil, err
	}
	routes, err := route.New(cfg.Routes)
	if err != nil {
		return nil, err
	}
	return &plan{cfg, trunks, routes}, nil
}

// limits of the realms on all their trunks together (T3, T4).
func limits(realms []realm.Config) []trunk.Limit {
	list := make([]trunk.Limit, len(realms))
	for i, r := range realms {
		list[i] = trunk.Limit{Name: r.Name, MaxCalls: r.MaxCalls, MaxRate: r.MaxRate}
	}
	return list
}

// trunks of the config as it is now.
func (d *daemon) trunks() *trunk.Table { return d.plan.Load().trunks }

// callPlan is for the calls that begin now.
func (d *daemon) callPlan() b2bua.Plan {
	p := d.plan.Load()
	return b2bua.Plan{Trunks: p.trunks, Routes: p.routes}
}

// lingering is how long a peer is known at least after it was taken out of the config, and after
// no call had to do with it any more: SIP's transactions last for 32 s (RFC 3261 section 17), and
// who got CANCEL may answer with 200 for as long.
const lingering = 40 * time.Second

// lookEvery is the time between two looks at who has left.
const lookEvery = 5 * time.Second

// source is where a peer is.
type source struct {
	realm string
	addr  netip.Addr
}

// leaver is a trunk that is not reached at a source any more.
type leaver struct {
	*trunk.Trunk
	until time.Time
}

// leavers are peers that a reload has taken out of the config. What they send for their
// running calls is heard until the last one has ended; new calls of theirs are a stranger's.
type leavers struct {
	mu sync.RWMutex
	// list has whoever has left a source, the last one last.
	list map[source][]leaver
}

// begin takes those that former has and next has not; end takes back what was begun for a
// plan that does not come.
func (l *leavers) begin(former, next *trunk.Table, now time.Time) (end func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	began := make(map[source]*trunk.Trunk)
	for _, t := range former.All() {
		for _, target := range t.Health().Targets {
			s := source{t.Realm(), target.Address.Addr()}
			if next.ByPeer(s.realm, s.addr) == nil && l.add(s, t, now) {
				began[s] = t
			}
		}
	}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for s, t := range began {
			l.drop(s, func(o leaver) bool { return o.Trunk == t })
		}
	}
}

// add takes one, or gives it its time anew: then it was there already. mu is held.
func (l *leavers) add(s source, t *trunk.Trunk, now time.Time) (isNew bool) {
	at := l.list[s]
	if i := slices.IndexFunc(at, func(o leaver) bool { return o.Trunk == t }); i >= 0 {
		at[i].until = now.Add(lingering)
		return false
	}
	if l.list == nil {
		l.list = make(map[source][]leaver)
	}
	l.list[s] = append(at, leaver{t, now.Add(lingering)})
	return true
}

// drop forgets some of a source, and reports whether nobody is left there. mu is held.
func (l *leavers) drop(s source, which func(leaver) bool) (gone bool) {
	at := slices.DeleteFunc(l.list[s], which)
	if len(at) > 0 {
		l.list[s] = at
		return false
	}
	delete(l.list, s)
	return true
}

// of finds who has left from a source last, or nil.
func (l *leavers) of(realm string, src netip.Addr) *trunk.Trunk {
	l.mu.RLock()
	defer l.mu.RUnlock()
	at := l.list[source{realm, src.Unmap()}]
	if len(at) == 0 {
		return nil
	}
	return at[len(at)-1].Trunk
}

// in lists the addresses that are still known in a realm.
func (l *leavers) in(realm string) []netip.Addr {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var list []netip.Addr
	for s := range l.list {
		if s.realm == realm {
			list = append(list, s.addr)
		}
	}
	return list
}

// removed are the trunks that are not in the table and still have calls.
func (l *leavers) removed(table *trunk.Table) []*trunk.Trunk {
	l.mu.RLock()
	defer l.mu.RUnlock()
	seen := make(map[string]bool)
	var list []*trunk.Trunk
	for _, at := range l.list {
		for _, t := range at {
			if table.Trunk(t.Name()) == nil && !seen[t.Name()] && active(t.Trunk) > 0 {
				seen[t.Name()] = true
				list = append(list, t.Trunk)
			}
		}
	}
	slices.SortFunc(list, func(a, b *trunk.Trunk) int { return strings.Compare(a.Name(), b.Name()) })
	return list
}

func active(t *trunk.Trunk) int {
	s := t.Status()
	return s.In.Active + s.Out.Active
}

// look forgets the sources that no call has had to do with for a while, and reports whether
// there were any. A call has to do with whom it speaks with and, as long as it is not answered,
// with all that its plan may still lead it to.
func (l *leavers) look(now time.Time, inUse func() b2bua.InUse) (gone bool) {
	if l.isEmpty() {
		return false
	}
	use := inUse()
	l.mu.Lock()
	defer l.mu.Unlock()
	for s, at := range l.list {
		if s.isUsed(use) {
			for i := range at {
				at[i].until = now.Add(lingering)
			}
			continue
		}
		if l.drop(s, func(t leaver) bool { return now.After(t.until) }) {
			gone = true
		}
	}
	return gone
}

func (l *leavers) isEmpty() bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return len(l.list) == 0
}

func (s source) isUsed(use b2bua.InUse) bool {
	if _, speaks := use.Peers[b2bua.Peer{Realm: s.realm, Addr: s.addr}]; speaks {
		return true
	}
	for table := range use.Hunting {
		if table.ByPeer(s.realm, s.addr) != nil {
			return true
		}
	}
	return false
}

// followLeavers has the kernel engine forget who has left.
func (d *daemon) followLeavers(ctx context.Context) error {
	turn := time.NewTicker(lookEvery)
	defer turn.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-turn.C:
			if !d.leaving.look(now, d.gateway.InUse) {
				continue
			}
			if err := d.relist(); err != nil {
				d.log.Error("the kernel engine still knows peers that have left", "error", err)
			}
		}
	}
}
