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

// lingering is how long a peer is known at least after it was taken out of the config: a
// call may just have begun, and SIP's transactions last for 32 s (RFC 3261 section 17).
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
	mu   sync.RWMutex
	list map[source]leaver
}

// begin takes those that former has and next has not; end takes back what was begun for a
// plan that does not come.
func (l *leavers) begin(former, next *trunk.Table, now time.Time) (end func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var began []source
	for _, t := range former.All() {
		for _, target := range t.Health().Targets {
			s := source{t.Realm(), target.Address.Addr()}
			if next.ByPeer(s.realm, s.addr) != nil {
				continue
			}
			if l.list == nil {
				l.list = make(map[source]leaver)
			}
			l.list[s] = leaver{t, now.Add(lingering)}
			began = append(began, s)
		}
	}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, s := range began {
			delete(l.list, s)
		}
	}
}

// of finds who has left from a source, or nil.
func (l *leavers) of(realm string, src netip.Addr) *trunk.Trunk {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.list[source{realm, src.Unmap()}].Trunk
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
	for _, t := range l.list {
		if table.Trunk(t.Name()) == nil && !seen[t.Name()] && active(t.Trunk) > 0 {
			seen[t.Name()] = true
			list = append(list, t.Trunk)
		}
	}
	slices.SortFunc(list, func(a, b *trunk.Trunk) int { return strings.Compare(a.Name(), b.Name()) })
	return list
}

func active(t *trunk.Trunk) int {
	s := t.Status()
	return s.In.Active + s.Out.Active
}

// look forgets those whose last call has ended, and reports whether there were any.
func (l *leavers) look(now time.Time) (gone bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s, t := range l.list {
		if now.After(t.until) && active(t.Trunk) == 0 {
			delete(l.list, s)
			gone = true
		}
	}
	return gone
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
			if !d.leaving.look(now) {
				continue
			}
			if err := d.relist(d.plan.Load()); err != nil {
				d.log.Error("the kernel engine still knows peers that have left", "error", err)
			}
		}
	}
}
