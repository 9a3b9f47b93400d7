package main

import (
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-sbc/tandem/pkg/call"
)

var update = flag.Bool("update", false, "write the golden files anew")

const (
	suiteInUse = "AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_384"
	espInUse   = "AES_GCM_16-256/ECP_384/ESN"
)

// testTunnels are a night's worth: a carrier on its backup, one with manual keys, one
// that is up and not proven, one whose peer refuses us.
func testTunnels() []call.Tunnel {
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	addr := netip.MustParseAddr
	return []call.Tunnel{
		{
			Name: "telecom-nord-fra", Realm: "telecom-nord", Keying: "ike", Rank: 1, State: call.TunnelDown, Since: ago(4*time.Minute + 12*time.Second),
			Cause:  "unreachable",
			Reason: "realm telecom-nord, tunnel telecom-nord-fra: peer 198.51.100.33 does not answer; check that it is there, and the way to it: local, gateway, vlan, and UDP port 500 in its firewall",
			Device: "tdx1-teleco8f1c", Local: addr("198.51.100.34"), Remote: addr("198.51.100.33"),
			IKERekeys: 3, ChildRekeys: 77, In: call.TunnelTraffic{Packets: 310_422_871, Bytes: 53_392_733_812}, Out: call.TunnelTraffic{Packets: 311_009_544, Bytes: 53_493_641_568},
			DPDFailures: 1, Failures: map[string]uint64{"unreachable": 27, "dpd-timeout": 1},
			Monitor: &call.TunnelMonitor{Target: addr("10.8.0.1"), Answers: true, Missed: 841},
		},
		{
			Name: "telecom-nord-ham", Realm: "telecom-nord", Keying: "ike", Rank: 2, Active: true, State: call.TunnelUp, Since: ago(77 * time.Hour),
			Device: "tdx2-teleco8f1c", Local: addr("198.51.100.34"), Remote: addr("198.51.100.65"), Established: ago(5*time.Hour + 20*time.Minute), IKE: suiteInUse, ESP: espInUse,
			IKERekeys: 3, ChildRekeys: 77, In: call.TunnelTraffic{Packets: 12_871, Bytes: 2_213_812}, Out: call.TunnelTraffic{Packets: 12_904, Bytes: 2_219_488},
			Errors: map[string]uint64{"replay": 2, "integrity": 1}, Monitor: &call.TunnelMonitor{Target: addr("10.8.0.1"), Answers: true, RTTMS: 7.24},
		},
		{
			Name: "voice-direct", Realm: "voice-direct", Keying: "manual", Rank: 1, Active: true, State: call.TunnelUp, Since: ago(12 * 24 * time.Hour),
			Device: "tdx1-voice-4d02", Local: addr("203.0.113.2"), Remote: addr("203.0.113.1"), ESP: "AES_GCM_16-256", KeyChanges: 2,
			In: call.TunnelTraffic{Packets: 812, Bytes: 99_500}, Out: call.TunnelTraffic{Packets: 811, Bytes: 999_400},
			Monitor: &call.TunnelMonitor{Target: addr("10.8.0.1")},
		},
		{
			Name: "sud", Realm: "sud", Keying: "ike", Rank: 1, State: call.TunnelUnverified, Since: ago(3 * time.Second), Cause: "monitor-silent",
			Reason: "realm sud, tunnel sud: echo requests through the tunnel have no answer", Device: "tdx1-sud", Local: addr("192.0.2.130"), Remote: addr("192.0.2.129"),
			Established: ago(40 * time.Minute), IKE: "AES_GCM_16-256/PRF_HMAC_SHA2_384/MODP_2048", ESP: espInUse, Out: call.TunnelTraffic{Packets: 9, Bytes: 756},
			Monitor: &call.TunnelMonitor{Target: addr("10.9.0.1"), Answers: true, Missed: 3, RTTMS: 9.1},
		},
		{
			Name: "west", Realm: "west", Keying: "ike", Rank: 1, State: call.TunnelConnecting, Since: ago(26 * time.Hour), Cause: "psk-mismatch",
			Reason: "realm west, tunnel west: pre-shared key or identities differ from those of peer 192.0.2.193; make psk the same on both sides (\x1b[2J)",
			Device: "tdx1-west", Local: addr("192.0.2.194"), Remote: addr("192.0.2.193"), Failures: map[string]uint64{"psk-mismatch": 9360},
		},
	}
}

// testRealms are those of the tunnels, a clear one and one of somebody else's making.
func testRealms() []call.Realm {
	ok := func(kind, name, want string) call.NetworkObject {
		return call.NetworkObject{Kind: kind, Name: name, Want: want, Have: want, State: call.ObjectOK}
	}
	return []call.Realm{
		{
			Name: "platform", Number: 1, Network: "managed", State: call.RealmUp, Since: now.Add(-300 * time.Hour), Address: netip.MustParsePrefix("192.0.2.2/24"),
			VRF: "tdm-platform", Table: 16384, Leaks: map[string]uint64{"wrong-realm": 0}, Objects: []call.NetworkObject{ok("link", "tdm-platform", "vrf, table 16384")},
		},
		{
			Name: "telecom-nord", Number: 2, Network: "managed", State: call.RealmDegraded, Since: now.Add(-9 * time.Second), Reason: "route 10.8.0.0/24 is missing: network is down",
			Address: netip.MustParsePrefix("10.8.0.2/32"), VRF: "tdm-teleco8f1c", Table: 24576, Namespace: "tdm-gw1-telecom-nord", Tunnel: "telecom-nord-ham",
			Repairs: 5, Leaks: map[string]uint64{"clear-text": 17, "wrong-realm": 4},
			Objects: []call.NetworkObject{
				ok("namespace", "tdm-gw1-telecom-nord", "/run/netns/tdm-gw1-telecom-nord"),
				ok("link", "eth2.201", "vlan 201 on eth2 in tdm-gw1-telecom-nord, mtu 1500, up"),
				ok("link", "tdm-teleco8f1c", "vrf, table 24576, up"),
				{Kind: "link", Name: "tdx1-teleco8f1c", Want: "xfrm, if_id 1, mtu 1200, in tdm-teleco8f1c, up", Have: "xfrm, if_id 1, mtu 1500, in tdm-teleco8f1c, up", State: call.ObjectDiffers},
				ok("link", "tdx2-teleco8f1c", "xfrm, if_id 2, mtu 1200, in tdm-teleco8f1c, up"),
				ok("address", "10.8.0.2/32", "on tdm-teleco8f1c"),
				{Kind: "route", Name: "10.8.0.0/24", Want: "dev tdx2-teleco8f1c table 24576", State: call.ObjectFailed, Problem: "network is down"},
				ok("route", "default", "unreachable metric 4278198272 table 24576"),
				{Kind: "sysctl", Name: "net.ipv4.conf.eth2/201.rp_filter", Want: "1", State: call.ObjectMissing},
			},
		},
		{
			Name: "west", Number: 3, Network: "managed", State: call.RealmDown, Since: now.Add(-26 * time.Hour), Reason: "no tunnel is up: west is connecting",
			Address: netip.MustParsePrefix("10.8.0.2/32"), VRF: "tdm-west", Table: 28672, Namespace: "tdm-gw1-west",
			Objects: []call.NetworkObject{ok("link", "tdm-west", "vrf, table 28672, up")},
		},
		{Name: "lab", Number: 4, Network: "existing", State: call.RealmUp, Address: netip.MustParsePrefix("198.51.100.2/29")},
	}
}

// TestTables (N9, I7, T1): what an operator reads, to the byte.
func TestTables(t *testing.T) {
	socket := daemon(t)
	for _, args := range [][]string{
		{"trunks"}, {"trunks", "telecom-nord"}, {"trunks", "genesys"}, {"groups"}, {"realms"}, {"realms", "telecom-nord"}, {"realms", "lab"},
		{"tunnels"}, {"tunnels", "telecom-nord-fra"}, {"tunnels", "telecom-nord-ham"}, {"tunnels", "voice-direct"}, {"tunnels", "west"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			got := tandem(t, socket, args...)
			if got.status != exitOK || got.stderr != "" {
				t.Fatalf("exit %d, %s", got.status, got.stderr)
			}
			golden := "testdata/" + strings.Join(args, "-") + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(got.stdout), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got.stdout); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestOneOfAList: a name gives that one alone, as JSON too; a name that nothing has is
// said, and is no empty answer.
func TestOneOfAList(t *testing.T) {
	socket := daemon(t)
	got := tandem(t, socket, "tunnels", "sud", "--json")
	var one call.Tunnel
	if err := json.Unmarshal([]byte(got.stdout), &one); err != nil || one.Name != "sud" || one.Monitor.Missed != 3 {
		t.Errorf("%v in %+v", err, got)
	}
	for _, command := range []string{"tunnels", "realms", "trunks", "groups"} {
		got := tandem(t, socket, command, "sued")
		if got.status != exitFailure || got.stdout != "" || !strings.Contains(got.stderr, `"sued"; see tandem `+command) {
			t.Errorf("%s: %+v", command, got)
		}
	}
}

// TestSize: three digits whatever the size.
func TestSize(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0 B", 999: "999 B", 1000: "1.00 kB", 9994: "9.99 kB", 9995: "10.0 kB", 99_949: "99.9 kB", 99_951: "100 kB", 999_499: "999 kB", 999_500: "1.00 MB",
		53_392_733_812: "53.4 GB", 1 << 63: "9.22 EB",
	} {
		if got := size(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
