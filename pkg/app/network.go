package app

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/ipsec"
	"github.com/tandem-sbc/tandem/pkg/realm"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

// buildNetworks makes what the realms need of the kernel. A realm that cannot be had keeps
// nobody else waiting; only if there is none at all does the daemon not start.
func (d *daemon) buildNetworks() ([]task, error) {
	owner, err := d.lock()
	if err != nil {
		return nil, err
	}
	list := d.cfg.Networks()
	networks, err := realm.NewNetworks(owner, list, d.log)
	if err != nil {
		return nil, err
	}
	d.onClose("networks", networks.Close)
	d.networkList, d.networks, d.bells = list, networks, newBells(list)
	err = networks.Apply()
	if err != nil && !slices.ContainsFunc(networks.Attachments(), isThere) {
		return nil, err
	}
	if err != nil {
		d.log.Error("realms are down: the others work, and these are tried again", "error", err)
	}
	networks.Watch(func(r call.Realm) {
		d.bells.ring(r)
		d.linkChanged(r)
	})
	return []task{{"networks", networks.Run}}, nil
}

// nobody is a node that has made nothing: no mark has its name.
const nobody = ""

// lock takes the node for this process, and returns as whom to look for what a former one has made.
// Who only looks at networks may do without the privilege to lock, and leaves all of it alone.
func (d *daemon) lock() (owner string, err error) {
	unlock, err := lockNode(d.cfg.Node)
	managed := slices.ContainsFunc(d.cfg.Realms, func(r realm.Config) bool { return r.Network == realm.Managed })
	if errors.Is(err, errMayNotLock) && !managed {
		d.log.Warn("what a former process of this node has left is not looked for: it could be another's that runs", "reason", err)
		return nobody, nil
	}
	if err != nil {
		return "", err
	}
	d.locked = true
	d.onClose("lock of the node", unlock)
	return d.cfg.Node, nil
}

// isThere reports whether a realm has its devices. Whether it is up is another question: that
// takes a carrier, or a tunnel.
func isThere(a realm.Attachment) bool { return len(a.Points) > 0 }

// bells tell the parts of the daemon that a realm's network has changed.
type bells struct {
	realms  map[string]chan struct{}
	devices chan struct{}
}

func newBells(list []realm.Network) bells {
	b := bells{realms: make(map[string]chan struct{}, len(list)), devices: make(chan struct{}, 1)}
	for _, n := range list {
		b.realms[n.Name] = make(chan struct{}, 1)
	}
	return b
}

// ring never waits: who has not answered the last ring will see this change too.
func (b bells) ring(r call.Realm) {
	for _, bell := range []chan struct{}{b.realms[r.Name], b.devices} {
		select {
		case bell <- struct{}{}:
		default:
		}
	}
}

// attachAgain is the pause between attempts to serve devices that the kernel engine is not on.
const attachAgain = 3 * time.Second

// changed rings for the devices alone: what is at them may be another.
func (b bells) changed() {
	select {
	case b.devices <- struct{}{}:
	default:
	}
}

// followDevices keeps the kernel engine's programs on the devices of the realms as they are.
func (d *daemon) followDevices(ctx context.Context) error {
	var told lastError
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.bells.devices:
		case <-again:
		}
		again = nil
		err := d.update()
		if err != nil {
			again = time.After(attachAgain)
		}
		if told.changes(err) {
			d.log.Error("the kernel engine is not on all devices: it is tried again", "error", err)
		}
	}
}

// buildTunnels starts the supervision of the tunnels, if there are any. Until a realm's
// tunnel is known to be up its trunks are out of service (I3).
func (d *daemon) buildTunnels() ([]task, error) {
	d.outages = newOutages(d.cfg.Realms, d.gateway.HangupRealm)
	d.onClose("outages", d.outages.close)
	options := ipsec.Options{Node: d.cfg.Node, Run: d.cfg.IPsec.Run, Charon: d.cfg.IPsec.Charon, Changed: d.tunnelChanged, Log: d.log}
	active := make(map[string]string)
	for _, r := range d.networks.Status() {
		active[r.Name] = r.Tunnel
	}
	var withIKE []string
	for _, n := range d.networkList {
		if len(n.Tunnels) == 0 {
			continue
		}
		r := d.tunnelsOf(n, active[n.Name])
		options.Realms = append(options.Realms, r)
		if slices.ContainsFunc(r.Tunnels, func(t ipsec.Tunnel) bool { return t.Keying == ipsec.IKE }) {
			withIKE = append(withIKE, n.Name)
		}
		d.trunks().RealmDown(n.Name, "its tunnel is not known to be up yet")
	}
	if d.locked {
		d.sweepIKE(withIKE)
	}
	if len(options.Realms) == 0 {
		return nil, nil
	}
	supervisor, err := ipsec.New(options)
	if err != nil {
		return nil, err
	}
	d.tunnels = supervisor
	return []task{{"tunnels", supervisor.Run}}, nil
}

// tunnelsOf a realm are as they are supervised; active is the one that its traffic leaves by.
func (d *daemon) tunnelsOf(n realm.Network, active string) ipsec.Realm {
	r := ipsec.Realm{
		Name: n.Name, Namespace: realm.NamespacePath(d.cfg.Node, n.Name), Inner: n.Address.Addr(), ReturnAfter: n.ReturnAfter, Active: active,
		// Also for a realm without trunks: they may come with a reload.
		Monitor: func() netip.Addr { return d.firstPeer(n.Name) },
	}
	for i, t := range d.cfg.TunnelsOf(n.Name) {
		rank := i + 1
		r.Tunnels = append(r.Tunnels, ipsec.Tunnel{Config: t, Device: realm.TunnelDevice(n.Name, rank), IfID: uint32(rank)})
	}
	return r
}

// linkChanged has a realm's trunks follow its network. Where there are tunnels these tell more.
func (d *daemon) linkChanged(r call.Realm) {
	i := slices.IndexFunc(d.networkList, func(n realm.Network) bool { return n.Name == r.Name })
	switch {
	case i >= 0 && len(d.networkList[i].Tunnels) > 0:
	case r.State == call.RealmDown:
		reason := "the network is down: " + r.Reason
		d.trunks().RealmDown(r.Name, reason)
		d.gateway.RealmDown(r.Name, reason)
	default:
		d.trunks().RealmUp(r.Name)
	}
}

// superviseTrunks keeps the trunks' health (T6).
func (d *daemon) superviseTrunks(ctx context.Context) error {
	d.awaitNames(ctx, d.realmNames()...)
	return trunk.Supervise(ctx, d.stacks, d.trunks, d.log)
}

// adaptTrunks has the weights of adaptive groups follow what their members do (T14).
func (d *daemon) adaptTrunks(ctx context.Context) error {
	turn := time.NewTicker(trunk.AdaptEvery)
	defer turn.Stop()
	for {
		select {
		case now := <-turn.C:
			d.trunks().Adapt(now)
		case <-ctx.Done():
			return nil
		}
	}
}

// sweepIKE ends the IKE daemons of realms but those.
func (d *daemon) sweepIKE(keep []string) {
	if ended, err := ipsec.Sweep(d.cfg.IPsec.Run, d.cfg.Node, keep); err != nil {
		d.log.Error("IKE daemons of realms that have none any more may be left", "error", err)
	} else if ended > 0 {
		d.log.Info("IKE daemons of realms that have none any more were ended", "daemons", ended)
	}
}

// tunnelChanged has a realm's traffic and its trunks follow its tunnels.
func (d *daemon) tunnelChanged(name string, s ipsec.State) {
	if s.Active == "" {
		d.trunks().RealmDown(name, s.Reason)
	}
	if err := d.networks.Activate(name, s.Active); err != nil {
		d.log.Error("a realm's routes do not follow its tunnels", "realm", name, "tunnel", s.Active, "error", err)
	}
	if s.Active == "" {
		d.gateway.RealmDown(name, s.Reason)
		d.outages.begin(name, s.Reason)
		return
	}
	d.outages.end(name)
	d.trunks().RealmUp(name)
}

// tunnelStatus is empty without tunnels.
func (d *daemon) tunnelStatus() []call.Tunnel {
	if d.tunnels == nil {
		return nil
	}
	return d.tunnels.Status()
}

// realmStatus are the realms with what the tunnels and the engine know of them.
func (d *daemon) realmStatus() []call.Realm {
	list := d.networks.Status()
	for _, t := range d.tunnelStatus() {
		if i := slices.IndexFunc(list, func(r call.Realm) bool { return r.Name == t.Realm }); i >= 0 && t.Active {
			list[i].Tunnel = t.Name
		}
	}
	stats, err := d.engine.Stats()
	if err != nil {
		d.log.Warn("realms are shown without their leaks", "error", err)
		return list
	}
	for i := range list {
		list[i].Leaks = leaks(stats, list[i].Number)
	}
	return list
}
