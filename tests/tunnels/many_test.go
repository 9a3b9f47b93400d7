package tunnels

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/tests/netlab"
)

// many is the number of realms, each with a VLAN, a VRF and a tunnel.
const many = 20

// TestManyRealms: N1, N2, N9. 20 realms come up from one config. Whatever of one is deleted by
// hand is put back; a realm that the config has no more goes with all that is its own, and
// nothing else; --unload leaves nothing.
func TestManyRealms(t *testing.T) {
	sites := netlab.ManySites(many)
	topology, all := netlab.TrunkedToOne(sites)
	need(t)
	l := wireTo(t, topology, sites, []netlab.Site{all})
	var connections []netlab.Connection
	trunks, tunnels := map[string][]string{}, map[string][]string{}
	for i, s := range sites {
		c := s.Connections()[0]
		c.IfID = uint32(i + 1)
		connections = append(connections, c)
		// One host plays all carriers, and has one route back: only one of them could answer.
		trunks[s.Name] = []string{"probe: none"}
		tunnels[s.Uplinks[0].Name] = []string{"monitor: none"}
	}
	if err := l.peers[all.Name].Load(t.Context(), connections...); err != nil {
		t.Fatal(err)
	}
	clean := l.kernel(t)
	l.run(t, netlab.TrunkOptions{Sites: sites, Trunks: trunks, Tunnels: tunnels})
	start := time.Now()
	awaitWithin(t, 4*patience, "all tunnels up", func() string { return l.down(t) })
	t.Logf("%d tunnels up after %v", many, time.Since(start).Round(time.Millisecond))
	ok := t.Run("repair", func(t *testing.T) { repair(t, l) })
	ok = ok && t.Run("remove one", func(t *testing.T) { removeOne(t, l, sites, trunks, tunnels) })
	if !ok {
		return
	}
	l.stop(t)
	said, err := l.daemon.Unload(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if now := l.kernel(t); !slices.Equal(now, clean) {
		t.Errorf("after --unload, which said %q, there is\n%s\nat first there was\n%s", said, strings.Join(now, "\n"), strings.Join(clean, "\n"))
	}
}

// down says which tunnels and realms are not up.
func (l *lab) down(t *testing.T) string {
	t.Helper()
	var left []string
	tunnels, err := l.api.Tunnels(t.Context())
	if err != nil {
		return err.Error() // while 20 charons start, an emulated machine has time for nothing else
	}
	for _, tunnel := range tunnels {
		if tunnel.State != call.TunnelUp {
			left = append(left, fmt.Sprintf("%s is %s: %s", tunnel.Name, tunnel.State, tunnel.Reason))
		}
	}
	for _, realm := range l.realms(t) {
		if realm.State != call.RealmUp {
			left = append(left, fmt.Sprintf("%s is %s: %s", realm.Name, realm.State, realm.Reason))
		}
	}
	return strings.Join(left, "; ")
}

// volatile is what may differ between two looks at the same thing: indexes of devices, ids of
// programs, addresses made up by the kernel. The rule that sends VRFs' packets to their tables
// is the kernel's own: it comes with the first VRF, and stays.
var volatile = regexp.MustCompile(`^\d+: |.*l3mdev-table.*|prog/xdp id \d+|@\S+|link-netns\S* \S+|link/ether \S+|(qlen|state|mode|group) \S+|<\S+>|\\`)

// kernel lists all that the gateway could have made: devices, addresses, routes, rules of the
// gateway's host, and the same of namespaces with its name.
func (l *lab) kernel(t *testing.T) []string {
	t.Helper()
	var lines []string
	look := func(place, command string) {
		for line := range strings.Lines(l.sh(t, netlab.Gateway, command)) {
			line = strings.Join(strings.Fields(volatile.ReplaceAllString(line, "")), " ")
			if line != "" {
				lines = append(lines, place+": "+line)
			}
		}
	}
	places := []string{""}
	for line := range strings.Lines(l.sh(t, netlab.Gateway, "ip netns list")) {
		if name := strings.Fields(line)[0]; strings.HasPrefix(name, "tdm-"+l.ID()+"-") {
			places = append(places, name)
		}
	}
	for _, place := range places {
		ip := "ip "
		if place != "" {
			ip += "-n " + place + " "
		}
		look(place, ip+"-o link show")
		look(place, ip+"-o -4 addr show")
		look(place, ip+"-4 route show table all")
		look(place, ip+"-4 rule show")
	}
	slices.Sort(lines)
	return lines
}

// repair deletes a thing of each kind of one realm by hand; pkg/realm does so with every one.
func repair(t *testing.T, l *lab) {
	const realm, vrf, device = "carrier-07", "tdm-carrier-07", "tdx1-carrier-07"
	s := l.site(realm)
	outer := fmt.Sprintf("%s.%d", netlab.TrunkDevice, s.Uplinks[0].VLAN)
	ns := fmt.Sprintf("tdm-%s-%s", l.ID(), realm)
	before := l.kernel(t)
	for _, harm := range []string{
		"ip link del " + device,
		"ip link del " + vrf,
		fmt.Sprintf("ip addr del %v dev %s", s.Gateway, vrf),
		fmt.Sprintf("ip route del %v table %d", netlab.CarrierNetwork, s.FirstPort),
		fmt.Sprintf("ip -n %s link del %s", ns, outer),
		"ip rule del pref 32765",
		"ip netns del " + ns,
	} {
		repairs := l.realm(t, realm).Repairs
		start := time.Now()
		l.sh(t, netlab.Gateway, harm)
		done := time.Since(start)
		l.await(t, "repaired: "+harm, func() string {
			if strings.HasPrefix(harm, "ip rule") { // the host's own, not the realm's
				if now := l.kernel(t); !slices.Equal(now, before) {
					return differs(before, now)
				}
				return ""
			}
			if l.realm(t, realm).Repairs == repairs {
				return "nobody has noticed"
			}
			if left := l.down(t); left != "" {
				return left
			}
			return ""
		})
		if now := l.kernel(t); !slices.Equal(now, before) {
			t.Errorf("after %q: %s", harm, differs(before, now))
		}
		t.Logf("%s took %v, repaired after %v", harm, done.Round(time.Millisecond), time.Since(start).Round(time.Millisecond))
	}
}

// differs lists the lines that are in one of two lists only.
func differs(before, now []string) string {
	var lines []string
	for _, line := range before {
		if !slices.Contains(now, line) {
			lines = append(lines, "- "+line)
		}
	}
	for _, line := range now {
		if !slices.Contains(before, line) {
			lines = append(lines, "+ "+line)
		}
	}
	return strings.Join(lines, "\n")
}

// removeOne takes the last realm out of the config and starts the daemon anew.
func removeOne(t *testing.T, l *lab, sites []netlab.Site, trunks, tunnels map[string][]string) {
	gone, stay := sites[many-1], sites[:many-1]
	before := l.kernel(t)
	charons, established := map[string][]int{}, map[string]time.Time{}
	for _, s := range stay {
		charons[s.Name] = l.charons(t, s.Name)
	}
	for _, tunnel := range l.tunnels(t) {
		established[tunnel.Name] = tunnel.Established
	}
	orphan := l.charons(t, gone.Name)
	l.stop(t)
	if now := l.kernel(t); !slices.Equal(now, before) {
		t.Errorf("a daemon that ends changes something:\n%s", differs(before, now))
	}
	l.run(t, netlab.TrunkOptions{Sites: stay, Trunks: trunks, Tunnels: tunnels})
	awaitWithin(t, 4*patience, "the others up", func() string { return l.down(t) })
	now := l.kernel(t)
	own := regexp.MustCompile(fmt.Sprintf(`%s|table %d\b|\btrunk0\.%d\b`, gone.Name, gone.FirstPort, gone.Uplinks[0].VLAN))
	for _, line := range before {
		if own.MatchString(line) == slices.Contains(now, line) {
			t.Errorf("of the removed realm: %v; there still: %v: %s", own.MatchString(line), slices.Contains(now, line), line)
		}
	}
	for _, line := range now {
		if !slices.Contains(before, line) {
			t.Errorf("new: %s", line)
		}
	}
	for _, pid := range orphan {
		if alive(pid) {
			t.Errorf("the charon of %s lives, %d", gone.Name, pid)
		}
	}
	for _, s := range stay {
		if now := l.charons(t, s.Name); !slices.Equal(now, charons[s.Name]) {
			t.Errorf("%s has charons %v, it had %v", s.Name, now, charons[s.Name])
		}
	}
	for _, tunnel := range l.tunnels(t) {
		if tunnel.Established.Sub(established[tunnel.Name]).Abs() > 2*time.Second {
			t.Errorf("%s was established anew: %v, before %v", tunnel.Name, tunnel.Established, established[tunnel.Name])
		}
	}
}
