package app

import (
	"log/slog"
	"net/netip"
	"testing"

	"github.com/tandem-sbc/tandem/pkg/b2bua"
	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/config"
	"github.com/tandem-sbc/tandem/pkg/realm"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

// T1, issue 5: a trunk is out of service as soon as its realm's link is down, with the reason,
// and is probed when it is up. A realm with tunnels goes by these alone.
func TestTrunksFollowTheLink(t *testing.T) {
	var configs []trunk.Config
	for name, address := range map[string]string{"clear": "192.0.2.10", "tunnelled": "192.0.2.20"} {
		c := trunk.Config{Name: name, Realm: name, Kind: trunk.Carrier, Targets: []string{address}}
		c.SetDefaults()
		configs = append(configs, c)
	}
	table, err := trunk.New(trunk.Configs{Trunks: configs}, nil)
	if err != nil {
		t.Fatal(err)
	}
	networks := make([]realm.Network, 2)
	networks[0].Name, networks[1].Name = "clear", "tunnelled"
	networks[1].Tunnels = make([]realm.Tunnel, 1)
	d := new(daemon)
	d.networkList = networks
	d.plan.Store(&plan{trunks: table})
	d.gateway = b2bua.New(b2bua.Config{Log: slog.New(slog.DiscardHandler)})
	want := func(when, name, state, reason string) {
		t.Helper()
		if c := table.Trunk(name).Condition(); c.State != state || c.Reason != reason {
			t.Errorf("%s: trunk %s is %s because %q, want %s because %q", when, name, c.State, c.Reason, state, reason)
		}
	}
	for _, name := range []string{"clear", "tunnelled"} {
		d.linkChanged(call.Realm{Name: name, State: call.RealmUp})
		want("start", name, trunk.InService, "")
		d.linkChanged(call.Realm{Name: name, State: call.RealmDown, Reason: "eth1.200 has no carrier"})
	}
	want("link down", "clear", trunk.OutOfService, "the network is down: eth1.200 has no carrier")
	want("link down", "tunnelled", trunk.InService, "")
	d.linkChanged(call.Realm{Name: "clear", State: call.RealmDegraded, Reason: "a route is missing"})
	want("link up", "clear", trunk.Probing, "realm clear is up, and no target has answered OPTIONS since")
}

// I7: the monitor of a realm's tunnels finds the trunks that a reload brings, also into a realm
// that had none.
func TestMonitorOfARealmWithoutTrunks(t *testing.T) {
	table := func(trunks ...trunk.Config) *plan {
		t.Helper()
		tb, err := trunk.New(trunk.Configs{Trunks: trunks}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return &plan{trunks: tb}
	}
	d := &daemon{cfg: new(config.Config)}
	d.plan.Store(table())
	var n realm.Network
	n.Name = "outside"
	r := d.tunnelsOf(n, "")
	if r.Monitor == nil || r.Monitor().IsValid() {
		t.Fatal("without trunks there is no monitor, or one that asks somebody")
	}
	c := trunk.Config{Name: "late", Realm: "outside", Kind: trunk.Carrier, Targets: []string{"198.51.100.9"}}
	c.SetDefaults()
	d.plan.Store(table(c))
	if got := r.Monitor(); got != netip.MustParseAddr("198.51.100.9") {
		t.Errorf("with a trunk it asks %s", got)
	}
}
