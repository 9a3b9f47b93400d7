package metrics

import (
	"net/netip"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// testNetworks are a realm that drifts, with a leak refused, and somebody else's network.
func testNetworks() []call.Realm {
	return []call.Realm{
		{
			Name: "carrier-a", Number: 2, Network: "managed", State: call.RealmDegraded, Repairs: 3, Leaks: map[string]uint64{"clear-text": 17, "wrong-realm": 0},
			Objects: []call.NetworkObject{{State: call.ObjectOK}, {State: call.ObjectOK}, {State: call.ObjectDiffers}, {State: call.ObjectFailed}},
		},
		{Name: "platform", Number: 1, Network: "existing", State: call.RealmUp},
	}
}

// testTunnels are a primary that is down and a backup that carries the traffic.
func testTunnels() []call.Tunnel {
	return []call.Tunnel{
		{
			Name: "fra", Realm: "carrier-a", Keying: "ike", Rank: 1, State: call.TunnelDown, Cause: "dpd-timeout", Reason: "peer 192.0.2.1 is silent",
			IKERekeys: 3, ChildRekeys: 77, In: call.TunnelTraffic{Packets: 40, Bytes: 6880}, Out: call.TunnelTraffic{Packets: 41, Bytes: 7052},
			DPDFailures: 1, Failures: map[string]uint64{"unreachable": 27}, Monitor: &call.TunnelMonitor{Missed: 8},
		},
		{
			Name: "ham", Realm: "carrier-a", Keying: "manual", Rank: 2, Active: true, State: call.TunnelUp, KeyChanges: 2,
			Established: time.UnixMilli(1_772_323_200_500), Errors: map[string]uint64{"replay": 2, "no_policy": 1},
			Monitor: &call.TunnelMonitor{Target: netip.MustParseAddr("10.8.0.1"), Answers: true, RTTMS: 7.5},
		},
	}
}

// I7: what has no value has no sample: an RTT of 0 would be a good one, and a time of 0
// 56 years ago.
func TestTunnelWithoutValues(t *testing.T) {
	tunnels := func(list ...call.Tunnel) Sources {
		return Sources{Tunnels: func() []call.Tunnel { return list }}
	}
	expect(t, tunnels(call.Tunnel{Name: "fra", Realm: "a", Rank: 1, State: call.TunnelConnecting}), []string{
		`tandem_tunnel_up{realm="a",tunnel="fra"} 0`,
		`tandem_tunnel_state{realm="a",state="connecting",tunnel="fra"} 1`, `tandem_tunnel_state{realm="a",state="up",tunnel="fra"} 0`,
	}, []string{"tandem_tunnel_established", "tandem_tunnel_monitor", "tandem_tunnel_cause"})
}

// I7, O1: the series that alerts are about are there before the first of its kind, so that a
// rate sees it, and one that came up is there once.
func TestTunnelErrorsFromTheStart(t *testing.T) {
	expect(t, Sources{Tunnels: func() []call.Tunnel {
		return []call.Tunnel{{Name: "fra", Realm: "a", Errors: map[string]uint64{"replay": 5}}}
	}}, []string{
		`tandem_tunnel_errors_total{kind="replay",realm="a",tunnel="fra"} 5`, `tandem_tunnel_errors_total{kind="integrity",realm="a",tunnel="fra"} 0`,
		`tandem_tunnel_dpd_failures_total{realm="a",tunnel="fra"} 0`, `tandem_collection_errors_total 0`,
	}, nil)
}

// N9: a degraded realm carries calls and is told from one that is well; a network that
// is not ours has no objects that could be missing.
func TestRealmStates(t *testing.T) {
	realms := func(list ...call.Realm) Sources {
		return Sources{Networks: func() []call.Realm { return list }}
	}
	degraded := call.Realm{Name: "a", State: call.RealmDegraded, Objects: []call.NetworkObject{{State: call.ObjectMissing}}}
	down := call.Realm{Name: "b", Network: "existing", State: call.RealmDown}
	expect(t, realms(degraded, down), []string{
		`tandem_realm_up{realm="a"} 1`, `tandem_realm_state{realm="a",state="up"} 0`, `tandem_realm_state{realm="a",state="degraded"} 1`,
		`tandem_realm_objects{realm="a",state="missing"} 1`, `tandem_realm_objects{realm="a",state="ok"} 0`,
		`tandem_realm_up{realm="b"} 0`, `tandem_realm_state{realm="b",state="down"} 1`,
	}, []string{`tandem_realm_objects{realm="b"`, "tandem_realm_leaks"})
}
