package app

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/realm"
	"github.com/tandem-sbc/tandem/pkg/resolve"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

// namesTimeout is how long a realm's SIP waits at the start for DNS to answer for the names of its
// trunks, and a reload for those that it brings. What comes meanwhile waits in the socket, or goes
// by the former config.
const namesTimeout = 2 * time.Second

// maxLeft bounds how many addresses are known for the running calls of one trunk whose names do
// not lead there any more: DNS may give others each time.
const maxLeft = 64

// buildNames begins to look up the names among the targets, in each realm by its own DNS (T9).
func (d *daemon) buildNames(attached []realm.Attachment) []task {
	resolvers := make(map[string]*resolve.Resolver, len(d.networkList))
	tasks := make([]task, len(d.networkList))
	for i, n := range d.networkList {
		o := resolve.Options{Local: n.Address.Addr(), Log: d.log.With("realm", n.Name)}
		if device := attached[i].Device; device != "" {
			o.Control = bindTo(device)
		}
		r := resolve.New(n.DNS, o)
		resolvers[n.Name], tasks[i] = r, task{"DNS of realm " + n.Name, r.Run}
	}
	d.renamed = make(chan struct{}, 1)
	tasks = append(tasks, task{"peers by DNS", d.followNames})
	d.trunks().Resolve(trunk.Names{Resolvers: resolvers, Refuse: d.refuse, Changed: d.moved, Log: d.log})
	return tasks
}

// bindTo has a socket use a realm's device alone. If it is not there the question fails, and is
// asked again.
func bindTo(device string) func(string, string, syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var bound error
		err := c.Control(func(fd uintptr) { bound = unix.BindToDevice(int(fd), device) })
		return cmp.Or(err, bound)
	}
}

// refuse says why DNS must not lead a trunk of a realm to an address.
func (d *daemon) refuse(realm string, target netip.AddrPort) string {
	cfg := d.plan.Load().cfg
	for _, r := range cfg.Realms {
		if r.Name == realm && target == r.SIPAddr() {
			return "is this gateway's own address"
		}
	}
	for _, p := range cfg.Guard.Deny {
		if p.Contains(target.Addr()) {
			return fmt.Sprintf("guard.deny has with %s", p)
		}
	}
	return ""
}

// moved takes that DNS leads a trunk elsewhere: its running calls go on where they are.
func (d *daemon) moved(t *trunk.Trunk, left []netip.Addr) {
	d.leaving.leave(t, left, time.Now())
	select {
	case d.renamed <- struct{}{}:
	default: // it was told already
	}
}

// renamedPause is the shortest time between two lists for the kernel engine: DNS may give other
// addresses each time.
const renamedPause = 100 * time.Millisecond

// followNames tells the kernel engine who is known by DNS.
func (d *daemon) followNames(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.renamed:
		}
		if err := d.relist(); err != nil {
			d.log.Error("the kernel engine does not know the peers that DNS says", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(renamedPause):
		}
	}
}

// leave is begin for one trunk that has left addresses by DNS.
func (l *leavers) leave(t *trunk.Trunk, left []netip.Addr, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, addr := range left {
		l.add(source{t.Realm(), addr}, t, now)
	}
	// The oldest of the trunk's own go.
	until := make(map[source]time.Time)
	var all []source
	for s, at := range l.list {
		for _, o := range at {
			if o.Name() != t.Name() {
				continue
			}
			if _, seen := until[s]; !seen {
				all = append(all, s)
			}
			until[s] = o.until
		}
	}
	if len(all) <= maxLeft {
		return
	}
	slices.SortFunc(all, func(a, b source) int { return until[a].Compare(until[b]) })
	for _, s := range all[:len(all)-maxLeft] {
		l.drop(s, func(o leaver) bool { return o.Name() == t.Name() })
	}
}

// awaitNames waits until DNS has answered for the names of the realms' trunks, or has had its time.
func (d *daemon) awaitNames(ctx context.Context, realms ...string) {
	ctx, cancel := context.WithTimeout(ctx, namesTimeout)
	defer cancel()
	for _, realm := range realms {
		d.trunks().AwaitNames(ctx, realm)
	}
}

// firstPeer is whom the monitors of a realm's tunnels ask; zero if DNS has not answered yet.
func (d *daemon) firstPeer(realm string) netip.Addr {
	if list := d.trunks().Peers(realm); len(list) > 0 {
		return list[0]
	}
	return netip.Addr{}
}
