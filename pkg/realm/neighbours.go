package realm

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// Neighbours keeps the next hops of realms fresh from netlink's link, address, route and
// neighbour events, so that no packet waits for ARP (M1). It only asks the kernel to
// resolve; it leaves no entry of its own.
type Neighbours struct {
	log             *slog.Logger
	refreshInterval time.Duration

	mu           sync.Mutex
	realms       []realmLink
	destinations map[realmAddr]*destination
	hops         map[realmAddr]*hop
	// due are the destinations whose way has to be looked up again.
	due map[*destination]struct{}
}

// realmAddr is an address as a realm, by its number, reaches it.
type realmAddr struct {
	realm uint16
	addr  netip.Addr
}

// destination is an address that somebody watches.
type destination struct {
	realmAddr
	// asking puts look-ups of the way in order, so that none undoes a later one.
	asking sync.Mutex

	lead
	watchers map[*watcher]struct{}
}

// lead is where packets are handed to.
type lead struct {
	// neighbour is invalid while there is no route.
	neighbour netip.Addr
	// tunnel is the ifindex of the xfrm interface that the route leads by, and mtu its MTU; 0 for realms
	// without tunnels.
	tunnel, mtu int
}

// hop is a neighbour that destinations are reached by.
type hop struct {
	mac net.HardwareAddr // empty while unresolved
	// read is true once the kernel has told its entry, or that it has none.
	read bool
	// fixed is true for an entry that somebody else keeps, e.g. an operator's static one: it
	// needs no refresh, and telling the kernel that it is in use would turn it into one
	// that ages (since Linux 5.16).
	fixed bool
	// told counts events: an answer that was asked for before one must not undo it.
	told uint64
	// doubted is true when the kernel has given the neighbour up, or deleted its entry. It is
	// asked once more by broadcast, and media goes on by what was known until that fails too:
	// a flush tells nothing of the neighbour, and looks the same.
	doubted bool
	// kept is true for a configured gateway: it is resolved before the first call.
	kept         bool
	destinations map[*destination]struct{}
}

// watcher is one user of a destination. Its own lock makes updates come one at a time and
// none after stop.
type watcher struct {
	mu     sync.Mutex
	update func(call.NextHop)
	told   bool
	last   call.NextHop
}

// NewNeighbours takes in the realms' devices; realm number n is networks[n-1]. Those that are not
// there may come later.
func NewNeighbours(networks []Network, log *slog.Logger) (*Neighbours, error) {
	n := &Neighbours{
		log:             log,
		refreshInterval: refreshInterval,
		destinations:    make(map[realmAddr]*destination),
		hops:            make(map[realmAddr]*hop),
		due:             make(map[*destination]struct{}),
	}
	var errs []error
	for i, r := range networks {
		now, err := readLink(&realmLink{Network: r})
		if err != nil && !absent(err) { // Run takes in one that comes later
			errs = append(errs, fmt.Errorf("realm %s: %w", r.Name, err))
			continue
		}
		n.realms = append(n.realms, now)
		if r.Gateway.IsValid() {
			n.hops[realmAddr{uint16(i + 1), r.Gateway}] = &hop{kept: true, destinations: make(map[*destination]struct{})}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return n, nil
}

// Watch calls update at once with what is known of the way to dst, and again at each
// change, one call at a time, until stop has returned. It does not wait for
// resolution; the first watcher of a neighbour starts it. No route is no error: one may
// come while the call lasts. Errors are an unknown realm, and netlink's own.
func (n *Neighbours) Watch(realm uint16, dst netip.Addr, update func(call.NextHop)) (stop func(), err error) {
	if realm == 0 || int(realm) > len(n.realms) {
		return nil, fmt.Errorf("there is no realm %d", realm)
	}
	key := realmAddr{realm, dst}
	w := &watcher{update: update}
	n.mu.Lock()
	d, known := n.destinations[key]
	if !known {
		d = &destination{realmAddr: key, watchers: make(map[*watcher]struct{})}
		n.destinations[key] = d
	}
	d.watchers[w] = struct{}{}
	n.mu.Unlock()

	if !known {
		if err := n.lookUp(d); err != nil {
			n.unwatch(d, w)
			return nil, fmt.Errorf("way to %s: %w", dst, err)
		}
	}
	n.deliver([]pending{{w, d}})
	return func() { n.unwatch(d, w) }, nil
}

func (n *Neighbours) unwatch(d *destination, w *watcher) {
	n.mu.Lock()
	delete(d.watchers, w)
	if len(d.watchers) == 0 && n.destinations[d.realmAddr] == d {
		n.detach(d)
		delete(n.destinations, d.realmAddr)
		delete(n.due, d)
	}
	n.mu.Unlock()
	w.mu.Lock()
	w.update = nil
	w.mu.Unlock()
}

// attach hands a destination's packets to a neighbour, or to none, by the lead; the caller
// holds mu. It returns the updates that are owed, and whether the neighbour has to be resolved.
func (n *Neighbours) attach(d *destination, to lead) (updates []pending, unread bool) {
	if n.destinations[d.realmAddr] != d { // nobody watches it any more
		return nil, false
	}
	if d.lead != to {
		n.detach(d)
		d.lead = to
		updates = d.collect()
	}
	if !to.neighbour.IsValid() {
		return updates, false
	}
	key := realmAddr{d.realm, to.neighbour}
	h := n.hops[key]
	if h == nil {
		h = &hop{destinations: make(map[*destination]struct{})}
		n.hops[key] = h
	}
	h.destinations[d] = struct{}{}
	return updates, !h.read
}

// detach undoes attach; the last destination's ends the interest in the neighbour. The
// caller holds mu.
func (n *Neighbours) detach(d *destination) {
	key := realmAddr{d.realm, d.neighbour}
	if h := n.hops[key]; h != nil {
		delete(h.destinations, d)
		if len(h.destinations) == 0 && !h.kept {
			delete(n.hops, key)
		}
	}
}

// pending is an update that a watcher is owed.
type pending struct {
	to    *watcher
	about *destination
}

// collect lists the updates for a changed way; the caller holds mu.
func (d *destination) collect() []pending {
	list := make([]pending, 0, len(d.watchers))
	for w := range d.watchers {
		list = append(list, pending{w, d})
	}
	return list
}

// collect lists the updates for a changed neighbour; the caller holds mu.
func (h *hop) collect() []pending {
	var list []pending
	for d := range h.destinations {
		list = append(list, d.collect()...)
	}
	return list
}

// deliver calls the watchers without n.mu, which they may need. Each gets what is known
// by then, so that updates cannot overtake each other.
func (n *Neighbours) deliver(updates []pending) {
	for _, u := range updates {
		u.to.tell(func() call.NextHop { return n.current(u.about) })
	}
}

// tell passes on what is new to the watcher.
func (w *watcher) tell(current func() call.NextHop) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.update == nil {
		return
	}
	next := current()
	if w.told && equal(next, w.last) {
		return
	}
	w.told, w.last = true, next
	w.update(next)
}

func equal(a, b call.NextHop) bool {
	return a.Ifindex == b.Ifindex && a.Bare == b.Bare && a.Neighbour == b.Neighbour &&
		a.NeighbourIfindex == b.NeighbourIfindex && a.MTU == b.MTU && a.PCP == b.PCP && bytes.Equal(a.L2, b.L2)
}

// current is what is known of the way to a destination.
func (n *Neighbours) current(d *destination) call.NextHop {
	n.mu.Lock()
	defer n.mu.Unlock()
	r := &n.realms[d.realm-1]
	if h := n.hops[realmAddr{d.realm, d.neighbour}]; h != nil {
		return r.nextHop(d.lead, h.mac)
	}
	return r.nextHop(d.lead, nil)
}
