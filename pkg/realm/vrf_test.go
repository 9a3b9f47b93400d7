package realm

import (
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// device is what iproute2 says of a device at home.
func (r *rig) device(t *testing.T, name string) string {
	t.Helper()
	return r.home.IP(t, "-o addr show "+name) + r.home.IP(t, "-o link show "+name)
}

// contained fails unless a device of ours is where no traffic comes of it: down, without address.
func (r *rig) contained(t *testing.T, name, address string) {
	t.Helper()
	if got := r.device(t, name); strings.Contains(got, address) || strings.Contains(got, ",UP") {
		t.Errorf("traffic comes in by a device outside of its VRF: %s", got)
	}
}

// TestSharedTrunk: an interface is an untagged realm's and carries the VLANs of another realm, and
// of another node's: none of them takes the realm's address away.
func TestSharedTrunk(t *testing.T) {
	r := newRig(t)
	n := r.applied(t, clearRealm(1, "a", 0, "192.0.2.2/24"), clearRealm(2, "b", 202, "198.51.100.2/24"))
	other := &rig{home: r.home, far: r.far, node: r.node + "x", log: r.log}
	t.Cleanup(func() {
		r.home.Do(func() {
			if _, err := Remove(other.node); err != nil {
				t.Error(err)
			}
		})
	})
	other.applied(t, clearRealm(3, "c", 203, "203.0.113.2/24"))
	if got := r.device(t, trunk); !strings.Contains(got, "192.0.2.2/24") {
		t.Errorf("interface of the untagged realm: %s", got)
	}
	r.apply(t, n)
	for _, s := range n.Status() {
		if s.Repairs != 0 {
			t.Errorf("realm %s was repaired %d times", s.Name, s.Repairs)
		}
	}
}

// TestInterfaceMoves: an untagged realm that moves to another interface, or onto a VLAN, lets go of
// the one that it had; two realms may swap theirs.
func TestInterfaceMoves(t *testing.T) {
	r := newRig(t)
	const other = "tdmu"
	r.home.IP(t, "link add "+other+" type veth peer name tdmfar2 netns "+r.far.Path)
	r.far.IP(t, "link set tdmfar2 up")
	a, b := clearRealm(1, "a", 0, "192.0.2.2/24"), clearRealm(2, "b", 0, "198.51.100.2/24")
	r.applied(t, a)
	a.Interface = other
	r.applied(t, a)
	r.free(t, trunk)
	if got := r.home.IP(t, "route show table 11000 192.0.2.0/24"); strings.Contains(got, trunk) || !strings.Contains(got, other) {
		t.Errorf("routes of the subnet: %s", got)
	}

	r.applied(t, a, b)
	a.Interface, b.Interface = trunk, other
	n := r.applied(t, a, b)
	for _, s := range n.Status() {
		if s.State != call.RealmUp {
			t.Errorf("realm %s with the other's interface is %s (%s)", s.Name, s.State, s.Reason)
		}
	}
	a.VLAN = 201
	r.applied(t, a, b)
	r.free(t, trunk)
}

// free fails unless an interface is in no VRF and has no address of ours.
func (r *rig) free(t *testing.T, name string) {
	t.Helper()
	if got := r.device(t, name); strings.Contains(got, "master") || strings.Contains(got, name+labelSuffix) {
		t.Errorf("interface that the realm does not want any more: %s", got)
	}
}

// TestUnreadable: a realm whose namespace cannot be read is down and says why, and the others are
// mended all the same.
func TestUnreadable(t *testing.T) {
	r := newRig(t)
	path := NamespacePath(r.node, carrier)
	if err := shareFolder(namespaceFolder); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path, path); err != nil { // ELOOP, whatever is done with it
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(path) }) // it has gone already, or is a namespace by now
	n := r.refused(t, "realm "+carrier+": network namespace: ", twoRealms()...)
	r.onlyCore(t, n, "network namespace: ")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	r.apply(t, n)

	n.realms[1].outer.socket.Close()
	r.home.IP(t, "link delete "+trunk+".201")
	r.home.Do(func() {
		if err := n.Apply(); err == nil {
			t.Error("no error")
		}
	})
	r.onlyCore(t, n, "read network namespace "+NamespaceName(r.node, carrier))
}

// onlyCore fails unless of twoRealms the first is up and the other down for a reason.
func (r *rig) onlyCore(t *testing.T, n *Networks, reason string) {
	t.Helper()
	if s := status(t, n, "core"); s.State != call.RealmUp {
		t.Errorf("the other realm is %s (%s)", s.State, s.Reason)
	}
	if s := status(t, n, carrier); s.State != call.RealmDown || !strings.Contains(s.Reason, reason) {
		t.Errorf("realm is %s (%s)", s.State, s.Reason)
	}
}

// TestTableMoves: two realms swap their media ports, and with them the tables of their VRFs; while
// these are made anew no device is up outside of one.
func TestTableMoves(t *testing.T) {
	r := newRig(t)
	a, b := clearRealm(1, "a", 201, "192.0.2.2/24"), clearRealm(2, "b", 202, "198.51.100.2/24")
	n := r.applied(t, a, b)
	events := hear(t, n.home)
	a.MediaPorts, b.MediaPorts = b.MediaPorts, a.MediaPorts
	r.applied(t, a, b)
	if got := r.home.IP(t, "route get vrf tdm-a 192.0.2.10"); !strings.Contains(got, "table 12000") {
		t.Errorf("route of the realm: %s", got)
	}
	moves := 0
	for _, m := range events.finish(t, n.home) {
		if m.Header.Type != unix.RTM_NEWLINK {
			continue
		}
		link, err := netlink.LinkDeserialize((*unix.NlMsghdr)(&m.Header), m.Data)
		if err != nil {
			t.Fatal(err)
		}
		is := link.Attrs()
		if is.Name != a.Device() && is.Name != b.Device() {
			continue
		}
		moves++
		if is.MasterIndex == 0 && is.Flags&net.FlagUp != 0 {
			t.Errorf("%s was up outside of its VRF", is.Name)
		}
	}
	if moves == 0 {
		t.Error("no device moved")
	}
}

// TestOutOfVRF: a device whose VRF cannot be made is stopped: outside of it the carrier would
// reach the host itself (N6).
func TestOutOfVRF(t *testing.T) {
	r := newRig(t)
	a := clearRealm(1, "a", 201, "192.0.2.2/24")
	r.applied(t, a)
	r.home.IP(t, "link delete tdm-a")
	r.home.IP(t, "link add tdmother type vrf table 11000")
	n := r.refused(t, "table 11000 is that of the VRF tdmother", a)
	r.contained(t, a.Device(), "192.0.2.2")
	r.home.IP(t, "link delete tdmother")
	r.apply(t, n)
	if s := status(t, n, "a"); s.State != call.RealmUp {
		t.Errorf("realm with its VRF is %s (%s)", s.State, s.Reason)
	}
}

// TestGuard: as long as carriers would reach the host's own addresses, none is let in (N6).
func TestGuard(t *testing.T) {
	r := newRig(t)
	r.home.IP(t, "rule add pref 10 lookup local")
	a := clearRealm(1, "a", 201, "192.0.2.2/24")
	n := r.refused(t, "has carriers reach the host's own addresses", a)
	if s := status(t, n, "a"); s.State != call.RealmDown || !strings.Contains(s.Reason, "rule local: ") {
		t.Errorf("realm is %s (%s)", s.State, s.Reason)
	}
	r.contained(t, a.Device(), "192.0.2.2")
	r.home.IP(t, "rule delete pref 10")
	r.apply(t, n)
	if s := status(t, n, "a"); s.State != call.RealmUp {
		t.Errorf("realm is %s (%s) with the rule out of the way", s.State, s.Reason)
	}
}

// TestReplacement: a device that is not as it is wanted is removed only if it can be made anew.
func TestReplacement(t *testing.T) {
	t.Run("VRF whose new table is taken", func(t *testing.T) {
		r := newRig(t)
		a := clearRealm(1, "a", 201, "192.0.2.2/24")
		r.applied(t, a)
		r.home.IP(t, "link add tdmother type vrf table 12000")
		a.MediaPorts = call.PortRange{First: 12000, Last: 12099}
		r.refused(t, "table 12000 is that of the VRF tdmother", a)
		if got := r.device(t, a.Device()); !strings.Contains(got, "192.0.2.2/24") || !strings.Contains(got, ",UP") || !strings.Contains(got, "master tdm-a") {
			t.Errorf("device of the realm: %s", got)
		}
	})
	t.Run("VLAN device whose parent is not fit", func(t *testing.T) {
		r := newRig(t)
		a := clearRealm(1, "a", 201, "192.0.2.2/24")
		n := r.applied(t, a)
		v := &view{node: r.node, realm: a.Name, home: n.home, unfit: map[spot]bool{{home, trunk}: true}}
		i := slices.IndexFunc(a.plan(r.node, 0, nil), func(w wanted) bool { _, name := w.id(); return name == a.Device() })
		l := a.plan(r.node, 0, nil)[i].object.(link)
		l.vlan++
		if err := l.mend(v); !errors.Is(err, errWaiting) {
			t.Errorf("error: %v", err)
		}
		r.device(t, a.Device())
	})
	t.Run("xfrm interface whose namespace is not known", func(t *testing.T) {
		r := newRig(t)
		n := r.applied(t, twoRealms()...)
		r.home.IP(t, "link set tdx1-carri-c58d txqueuelen 77") // a new one would not have that
		n.realms[1].outer.file.Close()
		r.home.Do(func() {
			if err := n.Apply(); err == nil || !strings.Contains(err.Error(), "link tdx1-carri-c58d: number of network namespace") {
				t.Errorf("error: %v", err)
			}
		})
		if got := r.device(t, "tdx1-carri-c58d"); !strings.Contains(got, "qlen 77") {
			t.Errorf("the interface was made anew: %s", got)
		}
	})
}
