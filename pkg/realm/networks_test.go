package realm

import (
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// twoRealms are one of each kind.
func twoRealms() []Network {
	a := clearRealm(1, "core", 201, "192.0.2.2/24")
	a.Gateway, a.PCP = addr("192.0.2.1"), 5
	a.Routes = []Route{{prefix("203.0.113.0/24"), addr("192.0.2.9")}}
	b := tunnelRealm(2, "carrier-with-a-long-name", "10.60.0.1/24",
		tunnel("main", 301, "198.51.100.2/30", "198.51.100.1", "10.50.0.0/24", "10.51.0.0/24"),
		tunnel("backup", 302, "198.51.100.6/30", "203.0.113.7", "10.50.0.0/24"))
	b.Tunnels[1].Gateway = addr("198.51.100.5")
	return []Network{a, b}
}

// TestApply: a realm of each kind gets all its objects; a realm with tunnels carries nothing before
// one of them is active (N1, N2, N4).
func TestApply(t *testing.T) {
	r := newRig(t)
	n := r.applied(t, twoRealms()...)
	if s := status(t, n, "core"); s.State != call.RealmUp || s.VRF != "tdm-core" || s.Table != 11000 {
		t.Errorf("clear realm: %s (%s), VRF %s, table %d", s.State, s.Reason, s.VRF, s.Table)
	}
	if s := status(t, n, "carrier-with-a-long-name"); s.State != call.RealmDown || s.Reason != "no tunnel is up" {
		t.Errorf("realm with tunnels: %s (%s)", s.State, s.Reason)
	}
	if err := n.Activate("carrier-with-a-long-name", "backup"); err != nil {
		t.Fatal(err)
	}
	if s := status(t, n, "carrier-with-a-long-name"); s.State != call.RealmUp || s.Tunnel != "backup" {
		t.Errorf("realm with a tunnel that is up: %s (%s), by %q", s.State, s.Reason, s.Tunnel)
	}
	for _, s := range n.Status() {
		for _, o := range s.Objects {
			t.Logf("%-24s %-9s %-32s %-70s %s", s.Name, o.Kind, o.Name, o.Want, o.State)
		}
	}
	t.Log(r.home.IP(t, "-d -br link"), r.home.IP(t, "addr"), r.home.IP(t, "route show table all"), r.home.IP(t, "rule"))
	_ = time.Second
}
