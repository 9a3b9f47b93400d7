package realm

import (
	"testing"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/tests/netspace"
)

// TestCarrierLost: the network of a realm is somebody else's, and its cable is pulled: the realm is
// down, with the reason, until it is plugged in again (issue 5: down through a link is at once).
func TestCarrierLost(t *testing.T) {
	home, peer := netspace.New(t), netspace.New(t)
	home.IP(t, "link add tdmt type veth peer name tdmp netns "+peer.Path)
	home.IP(t, "addr add 192.0.2.2/24 dev tdmt")
	home.IP(t, "link set tdmt up")
	peer.IP(t, "link set tdmp up")
	existing := clearRealm(1, "core", 0, "192.0.2.2/24")
	existing.Network, existing.Interface = Existing, "tdmt"
	n := hereNetworks(t, home, existing)
	for _, step := range []struct{ cable, state, reason string }{
		{"up", call.RealmUp, ""}, {"down", call.RealmDown, "tdmt has no carrier"}, {"up", call.RealmUp, ""},
	} {
		peer.IP(t, "link set tdmp "+step.cable)
		poll(t, "the realm with its cable "+step.cable, func() bool {
			var err error
			home.Do(func() { err = n.pass() })
			if err != nil {
				t.Fatal(err)
			}
			s := n.Status()[0]
			return s.State == step.state && s.Reason == step.reason
		})
	}
}
