package realm

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// maxRounds bounds how often a pass looks again at what it has changed: what was enslaved or
// made anew loses routes and addresses, without a word from the kernel.
const maxRounds = 5

// Apply makes everything as it is wanted, each realm by itself: the error joins those of
// realms, and the others are up all the same. What the config no longer has is removed.
func (n *Networks) Apply() error {
	if err := n.pass(); err != nil {
		return err
	}
	var errs []error
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, k := range n.realms {
		for _, o := range k.outcomes {
			if o.Problem != "" {
				errs = append(errs, fmt.Errorf("realm %s: %s %s: %s", k.Name, o.Kind, o.Name, o.Problem))
			}
		}
		if (!k.managed() && len(k.attachment.Points) == 0 || k.unread != nil) && k.state == call.RealmDown {
			errs = append(errs, fmt.Errorf("realm %s: %s", k.Name, k.reason))
		}
	}
	return errors.Join(errs...)
}

// pass compares everything with what is wanted, and mends it. Its error is one that concerns
// all realms.
func (n *Networks) pass() error {
	n.passing.Lock()
	defer n.passing.Unlock()
	settled := false
	for round := 0; round < maxRounds && !settled; round++ {
		changed, err := n.round()
		if err != nil {
			return err
		}
		settled = !changed
	}
	names, tables := n.devicesOfInterest()
	n.concerned.set(n.home, names, tables)
	n.mu.Lock()
	for _, k := range n.realms {
		if !settled && k.unread == nil {
			k.doubt()
		}
		k.judge()
		k.remember()
	}
	n.mu.Unlock()
	signal(n.changed)
	return nil
}

// round is one reading and what follows from it.
func (n *Networks) round() (changed bool, err error) {
	if err := n.readAll(); err != nil {
		return false, err
	}
	removed, err := n.sweep()
	if err != nil {
		n.log.Warn("network objects that nobody wants could not be removed", "error", err)
	}
	changed = removed > 0
	for _, k := range n.realms {
		n.mu.Lock()
		switch {
		case !k.managed():
			n.look(k)
		case k.unread == nil:
			changed = n.settle(k) || changed
		}
		n.mu.Unlock()
	}
	return changed, nil
}

// readAll reads each namespace once. One that cannot be read concerns its realm alone.
func (n *Networks) readAll() error {
	var tables []int
	for _, k := range n.realms {
		if k.managed() {
			tables = append(tables, k.table())
		}
	}
	if len(tables) == 0 {
		tables = []int{noTable} // only ours: there may be a million others
	}
	if err := n.home.read(tables...); err != nil {
		return fmt.Errorf("read the network: %w", err)
	}
	if err := n.openOuters(); err != nil {
		return err
	}
	for _, k := range n.realms {
		if k.outer == nil {
			continue
		}
		if err := k.outer.read(); err != nil {
			n.unreadable(k, fmt.Errorf("read network namespace %s: %w", NamespaceName(n.node, k.Name), err))
		}
	}
	return nil
}

// unreadable keeps why the outer side of a realm cannot be read, until the next round.
func (n *Networks) unreadable(k *keeper, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if k.unread = err; err.Error() != k.reason {
		n.log.Error("realm cannot be kept as the config wants it", "realm", k.Name, "error", err)
	}
	k.judge()
}

// openOuters opens the namespaces that realms with tunnels have already.
func (n *Networks) openOuters() error {
	missing := make(map[mark]*keeper)
	for _, k := range n.realms {
		n.mu.Lock()
		k.unread = nil
		n.mu.Unlock()
		if !k.tunnelled() || k.outer != nil {
			continue
		}
		m := mark{n.node, k.Name, ""}
		outer, err := openOuter(NamespacePath(n.node, k.Name), m)
		switch {
		case outer != nil:
			n.mu.Lock()
			k.outer = outer
			n.mu.Unlock()
		case err == nil:
			missing[m] = k
		case !errors.Is(err, errForeign): // which its object says
			n.unreadable(k, fmt.Errorf("network namespace: %w", err))
		}
	}
	if n.searched || len(missing) == 0 {
		return nil
	}
	n.searched = true
	lost, err := lostSpaces(n.node, func(m mark) bool { return missing[m] != nil })
	if err != nil {
		return fmt.Errorf("look for network namespaces without a name: %w", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for m, s := range lost {
		missing[m].outer = s
		n.log.Warn("network namespace without a name taken over from the processes in it", "realm", m.realm)
	}
	return nil
}

// settle compares a realm with what there is, and mends it.
func (n *Networks) settle(k *keeper) (changed bool) {
	v := &view{node: n.node, realm: k.Name, home: n.home, outer: k.outer, unfit: make(map[spot]bool)}
	v.log = func(object string, args ...any) {
		n.log.Info("network object made", append([]any{"realm", k.Name, "object", object}, args...)...)
	}
	if k.tunnelled() && !k.told {
		k.active = k.rankInUse(n.home)
	}
	list := k.plan(n.node, k.active, n.shared)
	if err := v.prune(k.Network, list); err != nil {
		n.log.Warn("network objects that the realm does not want could not be removed", "realm", k.Name, "error", err)
	}
	before := make(map[string]string, len(k.outcomes))
	for _, o := range k.outcomes {
		before[o.Kind+" "+o.Name] = o.Problem
	}
	k.outcomes = k.outcomes[:0:0]
	for _, w := range list {
		o := w.settle(v)
		id := o.Kind + " " + o.Name
		if o.mended {
			changed = true
			if k.was[id] == call.ObjectOK {
				k.repairs++
				n.log.Warn("network object put back", "realm", k.Name, "object", id)
			}
		}
		if o.Problem != "" && o.Problem != before[id] {
			n.log.Error("network object cannot be made as the config wants it", "realm", k.Name, "object", id, "error", o.Problem)
		}
		k.outcomes = append(k.outcomes, o)
	}
	k.outer = v.outer
	if v.made {
		k.version++
	}
	k.take(n.attachment(k))
	k.silent = v.silence(k.Network)
	return changed || v.removed
}

// rankInUse is the tunnel that the routes in the kernel lead by, or 0.
func (k *keeper) rankInUse(home *space) int {
	inUse, metric := 0, uint32(lastMetric)
	for _, r := range home.routes {
		if r.table != k.table() || r.proto != protocol || r.priority >= metric || !k.behindTunnels(r.to) {
			continue
		}
		for rank := range len(k.Tunnels) {
			if d := home.devices[TunnelDevice(k.Name, rank+1)]; d != nil && d.index == r.index {
				inUse, metric = rank+1, r.priority
			}
		}
	}
	return inUse
}

// look finds the devices of a realm whose network is somebody else's.
func (n *Networks) look(k *keeper) {
	var at place
	err := n.home.do(func() (err error) {
		at, err = attach(k.Config)
		return err
	})
	now := Attachment{Device: k.device()}
	if err != nil {
		k.enter(call.RealmDown, err.Error())
		k.take(now)
		return
	}
	now.AddressIfindex = at.AddressIfindex
	now.Points = []Point{{Ifindex: at.Ifindex, VLAN: k.VLAN, OuterVLAN: k.OuterVLAN, Bare: at.Bare}}
	if d := n.home.devices[k.Device()]; d != nil && !d.running {
		k.enter(call.RealmDown, d.name+noCarrier)
	} else {
		k.enter(call.RealmUp, "")
	}
	k.take(now)
}

// attachment is where a managed realm is now.
func (n *Networks) attachment(k *keeper) Attachment {
	a := Attachment{Device: k.device()}
	index := func(name string) int {
		if d := n.home.devices[name]; d != nil {
			return d.index
		}
		return 0
	}
	if !k.tunnelled() {
		physical := index(k.Interface)
		if a.AddressIfindex = index(k.Device()); physical != 0 && a.AddressIfindex != 0 {
			a.Points = []Point{{Ifindex: physical, VLAN: k.VLAN, OuterVLAN: k.OuterVLAN}}
		}
		return a
	}
	a.AddressIfindex = index(VRFName(k.Name))
	for _, c := range k.places() {
		p := Point{Ifindex: index(c.Interface), VLAN: c.VLAN, OuterVLAN: c.OuterVLAN, Underlay: true}
		if p.Ifindex != 0 && !slices.Contains(a.Points, p) {
			a.Points = append(a.Points, p)
		}
	}
	for rank := range k.Tunnels {
		if i := index(TunnelDevice(k.Name, rank+1)); i != 0 {
			a.Points = append(a.Points, Point{Ifindex: i, Bare: true})
		}
	}
	return a
}

// take takes over where the realm is now.
func (k *keeper) take(a Attachment) {
	if a.AddressIfindex != k.attachment.AddressIfindex || !slices.Equal(a.Points, k.attachment.Points) {
		k.version++
	}
	k.attachment = a
}

// judge says what the realm's objects come to.
func (k *keeper) judge() {
	if !k.managed() {
		return
	}
	if k.unread != nil {
		k.enter(call.RealmDown, k.unread.Error())
		return
	}
	active := ""
	if k.active > 0 {
		active = k.Tunnels[k.active-1].Name
	}
	k.enter(judge(k.outcomes, len(k.Tunnels), active, k.silent))
}

const noCarrier = " has no carrier"

// judge says the state of a realm with so many tunnels, of which one may be active. silent is
// the device without a carrier that nothing can leave by, if there is one.
func judge(list []outcome, tunnels int, active, silent string) (state, reason string) {
	var all, vital []outcome
	dead := make(map[int]bool)
	for _, o := range list {
		if o.State == call.ObjectOK {
			continue
		}
		all = append(all, o)
		if o.vital && len(o.ranks) == 0 {
			vital = append(vital, o)
		}
		for _, rank := range o.ranks {
			dead[rank] = dead[rank] || o.vital
		}
	}
	maps.DeleteFunc(dead, func(_ int, dead bool) bool { return !dead })
	switch {
	case len(vital) > 0:
		return call.RealmDown, why(vital)
	case tunnels > 0 && len(dead) == tunnels:
		return call.RealmDown, why(all)
	case silent != "":
		return call.RealmDown, silent + noCarrier
	case tunnels > 0 && active == "":
		return call.RealmDown, "no tunnel is up"
	case len(all) > 0:
		return call.RealmDegraded, why(all)
	default:
		return call.RealmUp, ""
	}
}

// why is the first problem of a list; what waits for another has none of its own.
func why(list []outcome) string {
	for _, o := range list {
		if o.Problem != "" {
			return fmt.Sprintf("%s %s: %s", o.Kind, o.Name, o.Problem)
		}
	}
	return fmt.Sprintf("%s %s is %s", list[0].Kind, list[0].Name, list[0].State)
}

// silence names the device without a carrier if nothing of the realm can leave for it.
func (v *view) silence(n Network) (device string) {
	if !n.tunnelled() {
		if d := v.home.devices[n.Device()]; d != nil && !d.running {
			return d.name
		}
		return ""
	}
	for _, c := range n.places() {
		_, d := v.device(outer, c.Device())
		if d == nil || d.running {
			return ""
		}
		device = d.name
	}
	return device
}

// enter changes the state.
func (k *keeper) enter(state, reason string) {
	if state != k.state {
		k.since = time.Now()
	}
	if state != k.state || reason != k.reason {
		k.version++
	}
	k.state, k.reason = state, reason
}

// doubt reports what was put right again in the last round of a pass too: something else
// changes it each time.
func (k *keeper) doubt() {
	for i := range k.outcomes {
		if o := &k.outcomes[i]; o.mended {
			o.State, o.Have = call.ObjectDiffers, o.had
			o.Problem = fmt.Sprintf("was put right %d times in a row: something else changes it", maxRounds)
		}
	}
}

// remember keeps what the pass has come to, so that the next one knows what was put back.
func (k *keeper) remember() {
	clear(k.was)
	for _, o := range k.outcomes {
		k.was[o.Kind+" "+o.Name] = o.State
	}
}
