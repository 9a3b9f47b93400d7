package realm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/call"
)

const (
	// refreshInterval is well below the kernel's base_reachable_time (30 s): frames that
	// XDP sends do not tell the kernel that a neighbour is in use, so we do, and it asks
	// the neighbour before the entry goes stale for long.
	refreshInterval = 5 * time.Second
	// resubscribeDelay spaces attempts after netlink ended a subscription.
	resubscribeDelay = 100 * time.Millisecond
)

// ErrNoRoute means that the address is beyond the realm's subnet and the realm has no gateway.
var ErrNoRoute = errors.New("no route")

// Neighbours keeps the next hops of realms fresh from netlink's link and neighbour
// events, so that no packet waits for ARP. It only asks the kernel to resolve; it
// leaves no entry of its own.
type Neighbours struct {
	log    *slog.Logger
	realms []realmLink

	mu   sync.Mutex
	hops map[hopKey]*hop
}

// realmLink is a realm with its devices as they are now.
type realmLink struct {
	Config
	Attachment
	// mac is the source of our frames; up is false while the device cannot send.
	mac net.HardwareAddr
	up  bool
}

// hopKey is a neighbour: a realm by its number, and an address on its link.
type hopKey struct {
	realm uint16
	addr  netip.Addr
}

// hop is a neighbour that somebody watches.
type hop struct {
	mac net.HardwareAddr // empty while unresolved
	// fixed is true for an operator's static entry: it needs no refresh, and telling the
	// kernel that it is in use would turn it into one that ages (since Linux 5.16).
	fixed bool
	// heard is true once an event told of the neighbour: a list that was asked for before
	// must not undo it.
	heard bool
	// doubted is true when the kernel has given the neighbour up, or deleted its entry. It is
	// asked once more by broadcast, and media goes on by what was known until that fails too:
	// a flush tells nothing of the neighbour, and looks the same.
	doubted  bool
	watchers map[*watcher]struct{}
}

// watcher is one user of a hop. Its own lock makes updates come one at a time and
// none after stop.
type watcher struct {
	mu     sync.Mutex
	update func(call.NextHop)
}

// NewNeighbours takes in the realms' devices; realm number n is realms[n-1].
func NewNeighbours(realms []Config, log *slog.Logger) (*Neighbours, error) {
	attached, err := Attach(realms)
	if err != nil {
		return nil, err
	}
	n := &Neighbours{log: log, hops: make(map[hopKey]*hop)}
	for i, r := range realms {
		link, err := netlink.LinkByIndex(attached[i].AddressIfindex)
		if err != nil {
			return nil, fmt.Errorf("realm %s: %w", r.Name, err)
		}
		rl := realmLink{Config: r, Attachment: attached[i]}
		rl.take(link.Attrs())
		n.realms = append(n.realms, rl)
	}
	return n, nil
}

func (r *realmLink) take(attrs *netlink.LinkAttrs) {
	r.mac = attrs.HardwareAddr
	r.up = attrs.Flags&net.FlagUp != 0 && attrs.OperState != netlink.OperDown && attrs.OperState != netlink.OperLowerLayerDown
}

// nextHop is the full header of a frame to a neighbour, or unresolved.
func (r *realmLink) nextHop(neighbour net.HardwareAddr) call.NextHop {
	if !r.up || len(neighbour) != 6 || len(r.mac) != 6 {
		return call.NextHop{}
	}
	l2 := make([]byte, 0, 18)
	l2 = append(append(l2, neighbour...), r.mac...)
	if r.VLAN != 0 {
		l2 = binary.BigEndian.AppendUint16(l2, unix.ETH_P_8021Q)
		l2 = binary.BigEndian.AppendUint16(l2, r.VLAN)
	}
	l2 = binary.BigEndian.AppendUint16(l2, unix.ETH_P_IP)
	return call.NextHop{Ifindex: r.Ifindex, L2: l2}
}

// Watch calls update at once with what is known of the way to dst, and again at each
// change, one call at a time, until stop has returned. It does not wait for
// resolution; the first watcher of a neighbour starts it. Errors wrap ErrNoRoute.
func (n *Neighbours) Watch(realm uint16, dst netip.Addr, update func(call.NextHop)) (stop func(), err error) {
	if realm == 0 || int(realm) > len(n.realms) {
		return nil, fmt.Errorf("there is no realm %d", realm)
	}
	n.mu.Lock()
	r := n.realms[realm-1]
	key := hopKey{realm, dst}
	if !r.Address.Contains(dst) {
		if !r.Gateway.IsValid() {
			n.mu.Unlock()
			return nil, fmt.Errorf("%w: %s is outside %s and realm %s has no gateway", ErrNoRoute, dst, r.Address.Masked(), r.Name)
		}
		key.addr = r.Gateway
	}
	h, known := n.hops[key]
	if !known {
		h = &hop{watchers: make(map[*watcher]struct{})}
		n.hops[key] = h
	}
	w := &watcher{update: update}
	h.watchers[w] = struct{}{}
	n.mu.Unlock()

	if !known {
		n.resolve(key)
	}
	n.deliver([]pending{{w, key}})
	return func() { n.unwatch(key, w) }, nil
}

func (n *Neighbours) unwatch(key hopKey, w *watcher) {
	n.mu.Lock()
	if h := n.hops[key]; h != nil {
		delete(h.watchers, w)
		if len(h.watchers) == 0 {
			delete(n.hops, key)
		}
	}
	n.mu.Unlock()
	w.mu.Lock()
	w.update = nil
	w.mu.Unlock()
}

// resolve takes over what the kernel knows of a neighbour and asks it to find out.
func (n *Neighbours) resolve(key hopKey) {
	name, device := n.realms[key.realm-1].Name, n.realms[key.realm-1].AddressIfindex
	entries, err := netlink.NeighList(device, syscall.AF_INET)
	if err != nil {
		// Without the list a static entry might be there: refresh asks, once events have told.
		n.log.Warn("neighbours not listed", "realm", name, "error", err)
		return
	}
	for i := range entries {
		if addr, ok := netip.AddrFromSlice(entries[i].IP.To4()); ok && addr == key.addr {
			n.neighbour(&entries[i], true)
		}
	}
	n.mu.Lock()
	h := n.hops[key]
	fixed := h != nil && h.fixed
	n.mu.Unlock()
	if fixed {
		return
	}
	if err := use(device, key.addr); err != nil {
		n.log.Warn("neighbour not probed", "realm", name, "address", key.addr, "error", err)
	}
}

// use tells the kernel that a neighbour is in use, as sending to it would: an unknown
// one is asked for, a stale one is asked again.
func use(device int, addr netip.Addr) error {
	return netlink.NeighSet(&netlink.Neigh{
		LinkIndex: device, Family: syscall.AF_INET, IP: addr.AsSlice(), Flags: netlink.NTF_USE, State: netlink.NUD_NONE,
	})
}

// Run follows the kernel's events until ctx is done.
func (n *Neighbours) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := n.follow(ctx); err != nil {
			n.log.Warn("neighbour events interrupted: reading everything again", "error", err)
			select {
			case <-time.After(resubscribeDelay):
			case <-ctx.Done():
			}
		}
	}
	return nil
}

// follow is one subscription, from a full reading to its end.
func (n *Neighbours) follow(ctx context.Context) error {
	done := make(chan struct{})
	failed := make(chan error, 1)
	fail := func(err error) {
		select {
		case failed <- err:
		default:
		}
	}
	links := make(chan netlink.LinkUpdate, 64)
	neighbours := make(chan netlink.NeighUpdate, 256)
	if err := netlink.LinkSubscribeWithOptions(links, done, netlink.LinkSubscribeOptions{ErrorCallback: fail, ListExisting: true}); err != nil {
		close(done)
		return fmt.Errorf("link events: %w", err)
	}
	// The library's readers end when done is closed, and close their channels; until then one
	// may be handing over an event.
	defer func() {
		close(done)
		drain(links)
		drain(neighbours)
	}()
	if err := netlink.NeighSubscribeWithOptions(neighbours, done, netlink.NeighSubscribeOptions{ErrorCallback: fail, ListExisting: true}); err != nil {
		close(neighbours)
		return fmt.Errorf("neighbour events: %w", err)
	}
	tick := time.NewTicker(refreshInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case u, ok := <-links:
			if !ok {
				return errors.New("link events ended")
			}
			if n.link(u.Attrs()) {
				n.refresh() // a device that is up again has forgotten its neighbours
			}
		case u, ok := <-neighbours:
			if !ok {
				return errors.New("neighbour events ended")
			}
			if u.Type == unix.RTM_DELNEIGH {
				n.deleted(&u.Neigh)
			} else {
				n.neighbour(&u.Neigh, false)
			}
		case <-tick.C:
			n.refresh()
		}
	}
}

// drain empties a channel until its sender closes it.
func drain[T any](events <-chan T) {
	for range events { // of no use any more
	}
}

// States of the kernel's entries.
const (
	usable = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE | netlink.NUD_PERMANENT | netlink.NUD_NOARP
	fixed  = netlink.NUD_PERMANENT | netlink.NUD_NOARP
)

// neighbour takes in one entry of the kernel's table, told by an event or read from a list.
func (n *Neighbours) neighbour(entry *netlink.Neigh, listed bool) {
	var updates []pending
	ask := false
	n.eachHop(entry, func(key hopKey, h *hop) {
		if listed && h.heard {
			return
		}
		h.heard = h.heard || !listed
		h.fixed = entry.State&fixed != 0
		mac := h.mac
		switch {
		case entry.State&usable != 0:
			mac, h.doubted = entry.HardwareAddr, false
		case entry.State&netlink.NUD_FAILED == 0: // the kernel is asking
		case h.doubted:
			mac = nil
		default:
			h.doubted, ask = true, true
		}
		if string(mac) != string(h.mac) {
			h.mac = mac
			updates = append(updates, h.collect(key)...)
		}
	})
	n.deliver(updates)
	if ask && !listed {
		n.ask(entry)
	}
}

// deleted takes in that an entry is gone: flushed, or removed by the kernel to make room.
func (n *Neighbours) deleted(entry *netlink.Neigh) {
	ask := false
	n.eachHop(entry, func(_ hopKey, h *hop) {
		h.fixed, h.doubted, ask = false, true, true
	})
	if ask {
		n.ask(entry)
	}
}

// eachHop calls f, with n.mu held, for each hop that an entry of the kernel is about.
func (n *Neighbours) eachHop(entry *netlink.Neigh, f func(hopKey, *hop)) {
	addr, ok := netip.AddrFromSlice(entry.IP.To4())
	if !ok {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := range n.realms {
		key := hopKey{uint16(i + 1), addr}
		if h := n.hops[key]; h != nil && n.realms[i].AddressIfindex == entry.LinkIndex {
			f(key, h)
		}
	}
}

// ask has the kernel look for a neighbour by broadcast, since it has no use for what it
// knew.
func (n *Neighbours) ask(entry *netlink.Neigh) {
	addr, _ := netip.AddrFromSlice(entry.IP.To4())
	if err := use(entry.LinkIndex, addr); err != nil {
		n.log.Debug("neighbour not probed", "address", addr, "error", err)
	}
}

// link takes in a change of a device: down, up, or another address. It returns whether
// there was one.
func (n *Neighbours) link(attrs *netlink.LinkAttrs) (changed bool) {
	n.mu.Lock()
	var updates []pending
	for i := range n.realms {
		r := &n.realms[i]
		if r.AddressIfindex != attrs.Index {
			continue
		}
		was, wasUp := string(r.mac), r.up
		r.take(attrs)
		if was == string(r.mac) && wasUp == r.up {
			continue
		}
		changed = true
		n.log.Info("realm's device changed", "realm", r.Name, "up", r.up, "mac", r.mac.String())
		for key, h := range n.hops {
			if int(key.realm) == i+1 {
				updates = append(updates, h.collect(key)...)
			}
		}
	}
	n.mu.Unlock()
	n.deliver(updates)
	return changed
}

// pending is an update that a watcher is owed.
type pending struct {
	to  *watcher
	key hopKey
}

// collect lists the updates for a changed hop; the caller holds mu.
func (h *hop) collect(key hopKey) []pending {
	list := make([]pending, 0, len(h.watchers))
	for w := range h.watchers {
		list = append(list, pending{w, key})
	}
	return list
}

// deliver calls the watchers without n.mu, which they may need. Each gets what is known
// by then, so that updates cannot overtake each other.
func (n *Neighbours) deliver(updates []pending) {
	for _, u := range updates {
		u.to.mu.Lock()
		if u.to.update != nil {
			u.to.update(n.current(u.key))
		}
		u.to.mu.Unlock()
	}
}

// current is what is known of a neighbour.
func (n *Neighbours) current(key hopKey) call.NextHop {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hops[key]
	if h == nil {
		return call.NextHop{}
	}
	return n.realms[key.realm-1].nextHop(h.mac)
}

// refresh keeps every watched neighbour in use.
func (n *Neighbours) refresh() {
	n.mu.Lock()
	type target struct {
		device int
		addr   netip.Addr
	}
	targets := make([]target, 0, len(n.hops))
	for key, h := range n.hops {
		if h.fixed {
			continue
		}
		targets = append(targets, target{n.realms[key.realm-1].AddressIfindex, key.addr})
	}
	n.mu.Unlock()
	for _, t := range targets {
		if err := use(t.device, t.addr); err != nil {
			n.log.Debug("neighbour not probed", "address", t.addr, "error", err)
		}
	}
}
