package realm

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// carrier is the realm with tunnels of twoRealms; its name is too long for a device.
const carrier = "carrier-with-a-long-name"

// twoRealms are one of each kind.
func twoRealms() []Network {
	a := clearRealm(1, "core", 201, "192.0.2.2/24")
	a.Gateway = addr("192.0.2.1")
	a.Routes = []Route{{prefix("203.0.113.0/24"), addr("192.0.2.9")}}
	b := tunnelRealm(2, carrier, "10.60.0.1/24",
		tunnel("main", 301, "198.51.100.2/30", "198.51.100.1", "10.50.0.0/24", "10.51.0.0/24"),
		tunnel("backup", 302, "198.51.100.6/30", "203.0.113.7", "10.50.0.0/24"))
	b.Tunnels[1].Gateway = addr("198.51.100.5")
	return []Network{a, b}
}

// TestApply: a realm of each kind gets all its objects; a realm with tunnels carries nothing before
// one of them is active (N1, N2, N4).
func TestApply(t *testing.T) {
	r := newRig(t)
	began := time.Now()
	n := r.applied(t, twoRealms()...)
	t.Logf("two realms in %v", time.Since(began))
	if s := status(t, n, "core"); s.State != call.RealmUp || s.VRF != "tdm-core" || s.Table != 11000 {
		t.Errorf("clear realm: %s (%s), VRF %s, table %d", s.State, s.Reason, s.VRF, s.Table)
	}
	if s := status(t, n, carrier); s.State != call.RealmDown || s.Reason != "no tunnel is up" {
		t.Errorf("realm with tunnels: %s (%s)", s.State, s.Reason)
	}
	if err := n.Activate(carrier, "backup"); err != nil {
		t.Fatal(err)
	}
	if s := status(t, n, carrier); s.State != call.RealmUp || s.Tunnel != "backup" {
		t.Errorf("realm with a tunnel that is up: %s (%s), by %q", s.State, s.Reason, s.Tunnel)
	}
	if got := r.home.IP(t, "route get vrf tdm-carrie-c58d 10.50.0.10"); !strings.Contains(got, "dev tdx2-carri-c58d") {
		t.Errorf("route by the tunnel: %s", got)
	}
	// What the tunnel does not reach goes nowhere, least of all to the host's own routes (N4).
	r.home.IP(t, "route add default dev "+trunk)
	r.home.Do(func() {
		for _, to := range []string{"10.51.0.10", "192.0.2.1", "8.8.8.8"} {
			if out, err := ip("route get vrf tdm-carrie-c58d " + to); err == nil {
				t.Errorf("there is a way to %s: %s", to, out)
			}
		}
	})
	var points []int
	for _, a := range n.Attachments() {
		points = append(points, len(a.Points))
	}
	if want := []int{1, 4}; !slices.Equal(points, want) {
		t.Errorf("points of the realms: %v, want %v", points, want)
	}
	if a := n.Attachments()[1]; a.Device != "tdm-carrie-c58d" || a.AddressIfindex != 12000 || a.Points[3] != (Point{Ifindex: 12002, Bare: true}) {
		t.Errorf("attachment of the realm with tunnels: %+v", a)
	}
}

// TestPriorities: 802.1p priorities are those of the packets, both ways (N1).
func TestPriorities(t *testing.T) {
	r := newRig(t)
	r.applied(t, twoRealms()...)
	for device, in := range map[string]string{trunk + ".201": "", trunk + ".301": "-n " + NamespaceName(r.node, carrier) + " "} {
		got := r.home.IP(t, in+"-d link show "+device)
		if !strings.Contains(got, "egress-qos-map { 1:1 2:2 3:3 4:4 5:5 6:6 7:7 }") || !strings.Contains(got, "ingress-qos-map { 1:1 2:2 3:3 4:4 5:5 6:6 7:7 }") {
			t.Errorf("%s: %s", device, got)
		}
	}
}

// TestServiceTag: two realms share the device of a service tag (N1).
func TestServiceTag(t *testing.T) {
	r := newRig(t)
	a, b := clearRealm(1, "a", 201, "192.0.2.2/24"), clearRealm(2, "b", 202, "192.0.2.2/24")
	a.OuterVLAN, b.OuterVLAN = 100, 100
	r.applied(t, a, b)
	if got := r.home.IP(t, "-d link show "+trunk+".100"); !strings.Contains(got, "protocol 802.1ad id 100") {
		t.Errorf("device of the service tag: %s", got)
	}
	// The one that marks it goes; the other goes on.
	r.applied(t, b)
	if got := r.home.IP(t, "link show "+trunk+".100"); !strings.Contains(got, "alias tandem "+r.node+" b") {
		t.Errorf("device of the service tag without its first realm: %s", got)
	}
	if got := r.home.IP(t, "-br link"); strings.Contains(got, trunk+".100.201") {
		t.Errorf("device of the realm that is gone:\n%s", got)
	}
}

// TestUntagged: an interface that is not ours is put into the VRF, and let go without our
// address; with an address of somebody else it is left alone.
func TestUntagged(t *testing.T) {
	r := newRig(t)
	a := clearRealm(1, "a", 0, "192.0.2.2/24")
	a.Gateway, a.MTU = addr("192.0.2.1"), 1400
	n := r.applied(t, a)
	if got := r.home.IP(t, "addr show "+trunk); !strings.Contains(got, "master tdm-a") || !strings.Contains(got, "scope global proto 0x74 "+trunk+":tdm") ||
		!strings.Contains(got, "mtu 1400") {
		t.Errorf("interface of the realm: %s", got)
	}
	if p := n.Attachments()[0].Points; len(p) != 1 || p[0].Bare || p[0].VLAN != 0 {
		t.Errorf("points: %+v", p)
	}
	r.applied(t)
	if got := r.home.IP(t, "addr show "+trunk); strings.Contains(got, "192.0.2.2") || strings.Contains(got, "master") {
		t.Errorf("interface after the realm: %s", got)
	}

	r.home.IP(t, "addr add 203.0.113.1/24 dev "+trunk)
	r.refused(t, "addresses that would go into the realm's VRF with it (203.0.113.1/24)", a)
	if got := r.home.IP(t, "addr show "+trunk); !strings.Contains(got, "203.0.113.1/24") || strings.Contains(got, "master") {
		t.Errorf("somebody else's interface: %s", got)
	}
}

// refused applies realms of which one cannot be made, for a reason.
func (r *rig) refused(t *testing.T, reason string, list ...Network) *Networks {
	t.Helper()
	n := r.networks(t, list...)
	var err error
	r.home.Do(func() { err = n.Apply() })
	if err == nil || !strings.Contains(err.Error(), reason) {
		t.Errorf("error: %v; want one that says %q", err, reason)
	}
	return n
}

// heard counts what the kernel tells of changes in a namespace.
type heard struct {
	mu       sync.Mutex
	messages []syscall.NetlinkMessage
}

// hear listens until the test ends.
func hear(t *testing.T, s *space) *heard {
	t.Helper()
	h := &heard{}
	var socket *nl.NetlinkSocket
	err := s.do(func() (err error) {
		socket, err = nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE,
			unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_NETCONF)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			messages, _, err := socket.Receive()
			if err != nil {
				return
			}
			h.mu.Lock()
			h.messages = append(h.messages, messages...)
			h.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		socket.Close()
		<-done
	})
	return h
}

func (h *heard) all() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []string
	for _, m := range h.messages {
		list = append(list, fmt.Sprintf("type %d: %x", m.Header.Type, m.Data))
	}
	return list
}

// finish has a last event come, so that all before it have.
func (h *heard) finish(t *testing.T, s *space) []syscall.NetlinkMessage {
	t.Helper()
	last := rule{priority: 4000, action: actionTable, table: unix.RT_TABLE_MAIN, proto: unix.RTPROT_STATIC}
	if err := s.addRule(last); err != nil {
		t.Fatal(err)
	}
	var messages []syscall.NetlinkMessage
	poll(t, "the last event", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		messages = slices.Clone(h.messages)
		return slices.ContainsFunc(messages, func(m syscall.NetlinkMessage) bool {
			r, err := parseRule(m.Data)
			return m.Header.Type == unix.RTM_NEWRULE && err == nil && r.priority == last.priority
		})
	})
	return messages
}

// TestIdempotent: applying what is there changes nothing, not even by another process: no event
// comes of it (N9). The tunnel that the first process's traffic left by is the second's too.
func TestIdempotent(t *testing.T) {
	r := newRig(t)
	first := r.applied(t, twoRealms()...)
	if err := first.Activate(carrier, "main"); err != nil {
		t.Fatal(err)
	}
	r.apply(t, first)
	var all []*heard
	for _, s := range []*space{first.home, first.realms[1].outer} {
		all = append(all, hear(t, s))
	}
	r.apply(t, first)
	second := r.applied(t, twoRealms()...)
	if s := status(t, second, carrier); s.Tunnel != "main" || s.Repairs != 0 {
		t.Errorf("the second process: traffic by %q, %d repairs", s.Tunnel, s.Repairs)
	}
	// The last event is ours, so that all before it have come.
	for i, s := range []*space{first.home, first.realms[1].outer} {
		if err := s.addRule(rule{priority: 4000, action: actionTable, table: unix.RT_TABLE_MAIN}); err != nil {
			t.Fatal(err)
		}
		poll(t, "the last event", func() bool { return len(all[i].all()) > 0 })
		if list := all[i].all(); len(list) != 1 || !strings.HasPrefix(list[0], fmt.Sprintf("type %d:", unix.RTM_NEWRULE)) {
			t.Errorf("namespace %d was changed:\n%s", i, strings.Join(list, "\n"))
		}
	}
}

// TestRemoval: a realm that the config no longer has goes with all its objects, and nothing else
// goes (N9).
func TestRemoval(t *testing.T) {
	r := newRig(t)
	base := r.everything(t)
	realms := twoRealms()
	r.applied(t, realms[0])
	one := r.everything(t)
	// What others made is left alone, also what looks like ours.
	r.home.IP(t, "link add tdm-other type veth peer name tdm-other2")
	r.home.IP(t, "route add 203.0.113.128/25 dev lo table 777")
	r.home.IP(t, "addr add 192.0.2.77/24 dev "+trunk+".201")
	foreign := r.everything(t)
	n := r.applied(t, realms...)
	if err := n.Activate(carrier, "main"); err != nil {
		t.Fatal(err)
	}
	r.applied(t, realms[0])
	same(t, "after the removal of a realm", foreign, r.everything(t))
	if _, err := os.Stat(NamespacePath(r.node, carrier)); err == nil {
		t.Error("the namespace is left")
	}

	r.home.IP(t, "link delete tdm-other")
	r.home.IP(t, "route delete 203.0.113.128/25 dev lo table 777")
	r.home.IP(t, "addr delete 192.0.2.77/24 dev "+trunk+".201")
	same(t, "after others took theirs away", one, r.everything(t))
	r.applied(t, realms...)
	var removed int
	var err error
	r.home.Do(func() { removed, err = Remove(r.node) })
	if err != nil || removed == 0 {
		t.Errorf("remove: %d things, %v", removed, err)
	}
	// The kernel's own rule for VRFs stays, as it does after any VRF.
	left := slices.DeleteFunc(r.everything(t), func(line string) bool { return strings.HasPrefix(line, "1000:") })
	same(t, "after all was removed", base, left)
	r.home.Do(func() { removed, err = Remove(r.node) })
	if err != nil || removed != 0 {
		t.Errorf("remove again: %d things, %v", removed, err)
	}
}

// everything is what iproute2 shows of the gateway's namespace, sorted.
func (r *rig) everything(t *testing.T) []string {
	t.Helper()
	var list []string
	for _, command := range []string{"-o link", "-o -4 addr", "-4 route show table all", "rule"} {
		for line := range strings.Lines(r.home.IP(t, command)) {
			if line = strings.TrimSpace(line); strings.Contains(line, ": "+trunk+"@") {
				line = "trunk" // it was set up
			}
			list = append(list, strings.Replace(line, " state UNKNOWN ", " state UP ", 1)) // the kernel finds out later
		}
	}
	slices.Sort(list)
	return list
}

func same(t *testing.T, when string, want, got []string) {
	t.Helper()
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("%s, missing: %s", when, line)
		}
	}
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("%s, left: %s", when, line)
		}
	}
}

// TestForeign: a name, a tag, a table or a route that somebody else has is not taken from them; the
// error says how to make room, and the other realm is up all the same (N9).
func TestForeign(t *testing.T) {
	for _, row := range []struct{ what, make, unmake, says string }{
		{"VLAN device", "link add link " + trunk + " name " + trunk + ".201 type vlan id 201", "link delete " + trunk + ".201",
			"a device " + trunk + ".201 is there and is not ours: remove it with: ip link delete " + trunk + ".201, or say network: existing"},
		{"tag", "link add link " + trunk + " name tdmother type vlan id 201", "link delete tdmother",
			"802.1q VLAN 201 of " + trunk + " is tdmother's, which is not ours"},
		{"VRF", "link add tdm-core type vrf table 5", "link delete tdm-core", "a device tdm-core is there and is not ours"},
		{"table", "link add tdmother type vrf table 11000", "link delete tdmother", "table 11000 is that of the VRF tdmother"},
		{"rule", "rule add pref 10 lookup local", "rule delete pref 10", "has carriers reach the host's own addresses: remove it with: ip rule delete pref 10"},
		{"namespace", "netns add NAMESPACE", "netns delete NAMESPACE", "is there and is not ours: remove it with: ip netns delete"},
	} {
		t.Run(row.what, func(t *testing.T) {
			r := newRig(t)
			named := func(command string) string {
				return strings.ReplaceAll(command, "NAMESPACE", NamespaceName(r.node, carrier))
			}
			r.home.IP(t, named(row.make))
			r.home.IP(t, "link set "+trunk+" up") // and with it the kernel sets up its VLAN devices
			was := r.everything(t)
			n := r.refused(t, row.says, twoRealms()...)
			now := r.everything(t)
			for _, line := range was {
				if !slices.Contains(now, line) && line != "trunk" && !strings.HasPrefix(line, "0:") {
					t.Errorf("somebody else's is gone: %s\n%s", line, strings.Join(now, "\n"))
				}
			}
			if row.what != "rule" { // which all realms need
				hurt := 0
				for _, s := range n.Status() {
					if slices.ContainsFunc(s.Objects, func(o call.NetworkObject) bool { return o.State != call.ObjectOK }) {
						hurt++
					}
				}
				if hurt != 1 {
					t.Errorf("%d realms are hurt by one object:\n%s", hurt, drift(n))
				}
			}
			r.home.IP(t, named(row.unmake))
			r.apply(t, n)
		})
	}
}

// TestForeignRoute: a route of somebody else that ours would replace is left alone.
func TestForeignRoute(t *testing.T) {
	r := newRig(t)
	realms := twoRealms()
	plain := clearRealm(1, "core", 201, "192.0.2.2/24")
	r.applied(t, plain)
	r.home.IP(t, "route add default via 192.0.2.200 dev "+trunk+".201 table 11000")
	n := r.refused(t, `a route "default via 192.0.2.200 dev `+trunk+`.201 table 11000" is not ours`, realms[0])
	if s := status(t, n, "core"); s.State != call.RealmDegraded || !strings.Contains(s.Reason, "192.0.2.200") {
		t.Errorf("realm is %s (%s)", s.State, s.Reason)
	}
}

// TestLateTrunk: a realm whose interface does not exist is down, says so, and comes up with the
// interface; the others are up meanwhile.
func TestLateTrunk(t *testing.T) {
	r := newRig(t)
	late := twoRealms()[1]
	for i := range late.Tunnels {
		late.Tunnels[i].Interface = "tdmlate"
	}
	n := r.refused(t, "interface tdmlate does not exist", twoRealms()[0], late)
	if s := status(t, n, "core"); s.State != call.RealmUp {
		t.Errorf("the other realm is %s (%s)", s.State, s.Reason)
	}
	if s := status(t, n, carrier); s.State != call.RealmDown || !strings.Contains(s.Reason, "interface tdmlate does not exist") {
		t.Errorf("realm is %s (%s)", s.State, s.Reason)
	}
	var mu sync.Mutex
	var told []call.Realm
	n.Watch(func(s call.Realm) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, s)
	})
	r.run(t, n)
	if err := n.Activate(carrier, "main"); err == nil {
		t.Error("routes by an interface that does not exist")
	}
	r.home.IP(t, "link add tdmlate type veth peer name tdmlate2")
	r.home.IP(t, "link set tdmlate2 up")
	poll(t, "the watcher is told", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return slices.ContainsFunc(told, func(s call.Realm) bool { return s.Name == carrier && s.State == call.RealmUp })
	})
	if got := r.home.IP(t, "route get vrf tdm-carrie-c58d 10.50.0.10"); !strings.Contains(got, "dev tdx1-carri-c58d") {
		t.Errorf("route by the tunnel that was activated meanwhile: %s", got)
	}
}

// TestActivate: a change of tunnel replaces routes in place: no event tells of one that was taken
// away, and a look at any time finds a route.
func TestActivate(t *testing.T) {
	r := newRig(t)
	n := r.applied(t, twoRealms()...)
	if err := n.Activate(carrier, "main"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	events := hear(t, n.home)
	if err := n.Activate(carrier, "backup"); err != nil {
		t.Fatal(err)
	}
	t.Logf("changed in %v", time.Since(began))
	for _, m := range events.finish(t, n.home) {
		if m.Header.Type != unix.RTM_DELROUTE {
			continue
		}
		if gone, err := parseRoute(m.Data); err != nil || gone.to != prefix("10.51.0.0/24") { // which only the first tunnel has
			t.Errorf("the route to %s was taken away (%v)", gone.to, err)
		}
	}
	if got := r.home.IP(t, "route show table 12000 proto 116"); !strings.Contains(got, "10.50.0.0/24 dev tdx2-carri-c58d") || strings.Contains(got, "10.51.0.0") {
		t.Errorf("routes: %s", got)
	}
	if err := n.Activate(carrier, ""); err != nil {
		t.Fatal(err)
	}
	if got := r.home.IP(t, "route show table 12000 proto 116"); strings.Contains(got, "dev tdx") {
		t.Errorf("routes by no tunnel: %s", got)
	}
	for _, row := range [][2]string{{"nobody", "main"}, {carrier, "nothing"}} {
		if err := n.Activate(row[0], row[1]); err == nil {
			t.Errorf("activated %q of %q", row[1], row[0])
		}
	}
}

// TestTwenty: 20 realms with a tunnel each are quickly made, and more quickly checked.
func TestTwenty(t *testing.T) {
	r := newRig(t)
	var list []Network
	for i := range 20 {
		name := fmt.Sprintf("r%02d", i+1)
		list = append(list, tunnelRealm(i+1, name, "10.60.0.1/24",
			tunnel("t", 100+i, "198.51.100.2/30", "198.51.100.1", "10.50.0.0/24")))
	}
	began := time.Now()
	n := r.applied(t, list...)
	made := time.Since(began)
	for _, k := range list {
		if err := n.Activate(k.Name, "t"); err != nil {
			t.Error(err)
		}
	}
	began = time.Now()
	r.apply(t, n)
	checked := time.Since(began)
	t.Logf("20 realms made in %v, checked in %v", made, checked)
	for _, s := range n.Status() {
		if s.State != call.RealmUp {
			t.Errorf("realm %s is %s (%s)", s.Name, s.State, s.Reason)
		}
	}
	began = time.Now()
	r.applied(t)
	t.Logf("removed in %v", time.Since(began))
	if got := r.home.IP(t, "-br link"); strings.Contains(got, "tdx") || strings.Contains(got, "tdm-") {
		t.Errorf("left:\n%s", got)
	}
}
