package realm

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// Networks makes and keeps the networks of all realms as the config wants them (N9). What it
// makes stays when it ends.
type Networks struct {
	node string
	log  *slog.Logger
	home *space
	// shared are the devices of service tags, by name, and the realms that mark them.
	shared  map[string]string
	watcher func(call.Realm)
	// changed wakes Run to tell the watcher.
	changed chan struct{}
	// retry has Run begin a pass at once.
	retry chan struct{}

	// passing makes passes come one at a time; it guards home's snapshot and what is removed.
	passing sync.Mutex
	// searched is set once namespaces without a name were looked for: while we hold them none is lost.
	searched bool
	// concerned are the devices whose events matter, by ifindex.
	concerned concerned

	mu     sync.Mutex
	realms []*keeper
}

// keeper is a realm and what is known of its network. The lock of Networks guards it.
type keeper struct {
	Network
	// outer is the namespace of the tunnels' outer side, or nil.
	outer *space
	// active is the rank of the tunnel that traffic leaves by, or 0. Until Activate has said so it
	// is what a former process has left.
	active int
	told   bool
	// unread is why the namespace could not be read in this pass, or nil.
	unread error

	outcomes   []outcome
	was        map[string]string // states of the objects after the last pass, by kind and name
	repairs    uint64
	state      string
	since      time.Time
	reason     string
	silent     string // the device without a carrier, if that stops the realm
	attachment Attachment
	// version counts changes that watchers are told of; notified is the last one that they know.
	version, notified uint64
}

// Attachment is a realm's place in the network as it is now.
type Attachment struct {
	// Device is what sockets of the realm are bound to.
	Device string
	// AddressIfindex is the device with the realm's address, 0 if there is none.
	AddressIfindex int
	// Points are where its packets come and go; empty while its devices are missing.
	Points []Point
}

// Point is a device that the kernel engine attaches to, and the tags there.
type Point struct {
	Ifindex         int
	VLAN, OuterVLAN uint16
	// Bare means that the device has no link layer (tun, ipip, xfrm): packets come as IP.
	Bare bool
	// Underlay means that the realm's tunnels have their outer side here.
	Underlay bool
}

// NewNetworks takes the realms of a node in the order of the config. It belongs to the
// network namespace of the calling thread, where Run has to be called too. Errors are those
// of ValidateNetworks, and netlink's own.
func NewNetworks(node string, list []Network, log *slog.Logger) (*Networks, error) {
	if err := ValidateNetworks(list).Err(); err != nil {
		return nil, err
	}
	home, err := hereSpace()
	if err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	n := &Networks{node: node, log: log, home: home, shared: make(map[string]string), changed: make(chan struct{}, 1), retry: make(chan struct{}, 1)}
	for _, r := range list {
		n.realms = append(n.realms, &keeper{
			Network: r, state: call.RealmDown, reason: "its network was not made yet", since: time.Now(),
			attachment: Attachment{Device: r.device()}, was: make(map[string]string),
		})
		if !r.managed() {
			continue
		}
		for _, c := range r.places() {
			if _, taken := n.shared[c.outerDevice()]; c.OuterVLAN != 0 && !taken {
				n.shared[c.outerDevice()] = r.Name
			}
		}
	}
	return n, nil
}

// places are where a realm's frames come and go.
func (n Network) places() []Config {
	if !n.tunnelled() {
		return []Config{n.Config}
	}
	var list []Config
	for _, t := range n.Tunnels {
		list = append(list, t.attachment())
	}
	return list
}

// Watch has f called, one call at a time and from Run, at each change of a realm's state or
// of its devices. Call it before Run.
func (n *Networks) Watch(f func(call.Realm)) { n.watcher = f }

// Activate has a realm's traffic leave by a tunnel, or by none if tunnel is "". Routes are
// replaced in place: there is no moment without. After an error Run tries again at once, and then
// with each pass.
func (n *Networks) Activate(realm, tunnel string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	i := slices.IndexFunc(n.realms, func(k *keeper) bool { return k.Name == realm })
	if i < 0 {
		return fmt.Errorf("there is no realm %q", realm)
	}
	k := n.realms[i]
	rank := k.rank(tunnel)
	if rank == 0 && tunnel != "" {
		return fmt.Errorf("realm %s has no tunnel %q", realm, tunnel)
	}
	if k.told && k.active == rank {
		return nil
	}
	k.told, k.active = true, rank
	err := k.reroute(n.home)
	k.judge()
	k.version++
	signal(n.changed)
	if err != nil {
		signal(n.retry)
		return fmt.Errorf("realm %s: routes by tunnel %q: %w", realm, tunnel, err)
	}
	return nil
}

// reroute changes the routes to those of the active tunnel, which has the standby routes of all.
func (k *keeper) reroute(home *space) error {
	there, err := home.filterRoutes(route{table: k.table()})
	if err != nil {
		return err
	}
	var errs []error
	keep := make(map[key]bool)
	for _, w := range k.activeRoutes(k.active) {
		keep[w.key()] = true
		device, err := home.handle.LinkByName(w.device)
		if w.priority != 0 && absent(err) { // a standby route's, which the pass reports
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", w.device, err))
			continue
		}
		r := w.route
		r.index, r.proto = device.Attrs().Index, protocol
		if slices.Contains(there, r) {
			continue
		}
		if i := slices.IndexFunc(there, func(o route) bool { return o.key() == r.key() && o.proto != protocol }); i >= 0 {
			errs = append(errs, fmt.Errorf("a route %q %w", there[i].words(w.device), errForeign))
			continue
		}
		if err := home.replaceRoute(r); err != nil {
			errs = append(errs, fmt.Errorf("route %s: %w", w.want(), err))
		}
	}
	// Standby routes go first: without the active one they would lead on.
	slices.SortFunc(there, func(a, b route) int { return cmp.Compare(b.priority, a.priority) })
	for _, r := range there {
		if r.proto != protocol || r.typ != unix.RTN_UNICAST || keep[r.key()] || !k.behindTunnels(r.to) {
			continue
		}
		if err := home.removeRoute(r); err != nil {
			errs = append(errs, fmt.Errorf("remove route to %s: %w", r.to, err))
		}
	}
	return errors.Join(errs...)
}

// activeRoutes are the routes when the tunnel of a rank is active; those of 0 are none.
func (n Network) activeRoutes(rank int) []way {
	p := planner{Network: n}
	if rank > 0 {
		p.networks(rank)
	}
	list := make([]way, len(p.list))
	for i, w := range p.list {
		list[i] = w.object.(way)
	}
	return list
}

// behindTunnels reports whether a prefix is one of those of the realm's tunnels.
func (n Network) behindTunnels(to netip.Prefix) bool {
	for _, t := range n.Tunnels {
		for _, p := range t.Networks {
			if p.Masked() == to {
				return true
			}
		}
	}
	return false
}

// signal wakes who waits for a channel with room for one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Status is all realms as they were after the last pass, in the order of the list.
func (n *Networks) Status() []call.Realm {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := make([]call.Realm, len(n.realms))
	for i, k := range n.realms {
		list[i] = k.status(n.node)
	}
	return list
}

func (k *keeper) status(node string) call.Realm {
	r := call.Realm{
		Name: k.Name, Number: k.Number, Network: k.Network.Network, State: k.state, Since: k.since, Reason: k.reason,
		Address: k.Address, Repairs: k.repairs,
	}
	if k.managed() {
		r.VRF, r.Table = VRFName(k.Name), uint32(k.table())
	}
	if k.tunnelled() {
		r.Namespace = NamespaceName(node, k.Name)
	}
	if k.active > 0 {
		r.Tunnel = k.Tunnels[k.active-1].Name
	}
	for _, o := range k.outcomes {
		r.Objects = append(r.Objects, o.NetworkObject)
	}
	return r
}

// Attachments are the realms' places in the network, in the order of the list.
func (n *Networks) Attachments() []Attachment {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := make([]Attachment, len(n.realms))
	for i, k := range n.realms {
		list[i] = k.attachment
		list[i].Points = slices.Clone(k.attachment.Points)
	}
	return list
}

// Close lets go of the namespaces; it takes nothing away.
func (n *Networks) Close() error {
	n.passing.Lock()
	defer n.passing.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, k := range n.realms {
		if k.outer != nil {
			k.outer.close()
			k.outer = nil
		}
	}
	n.home.close()
	return nil
}
