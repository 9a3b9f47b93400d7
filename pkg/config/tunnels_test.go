package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tunnelled is the smallest config with tunnels: carriers with equal inner and outer
// addresses (N2), the first with a backup. Rows change one thing in it.
const tunnelled = `node: gw1
realms:
  - {name: platform, interface: eth1, address: 192.0.2.2/24, media_ports: 16384-24575}
  - {name: nord, interface: eth2, vlan: 201, address: 10.8.0.2/32, media_ports: 24576-26623}
  - {name: sud, interface: eth2, vlan: 202, address: 10.8.0.2/32, media_ports: 26624-28671}
tunnels:
  - {name: fra, realm: nord, local: 198.51.100.34/28, remote: 198.51.100.33, networks: [10.8.0.0/24], ike: {psk: "env:FRA"}}
  - {name: sud, realm: sud, local: 198.51.100.34/28, remote: 198.51.100.33, networks: [10.8.0.0/24], ike: {psk: "env:SUD"}}
  - {name: ham, realm: nord, interface: eth3, vlan: 9, local: 198.51.100.50/28, remote: 198.51.100.49, networks: [0.0.0.0/0], ike: {psk: "env:HAM"}}
trunks:
  - {name: genesys, realm: platform, kind: platform, targets: [192.0.2.10]}
  - {name: nord, realm: nord, kind: carrier, targets: [10.8.0.66]}
  - {name: sud, realm: sud, kind: carrier, targets: [10.8.0.66]}
routes:
  - {name: in, trunk: genesys}
`

// N2, I6: realms of one address, tunnels that have their realm's tags or their own.
func TestTunnels(t *testing.T) {
	for _, row := range []struct {
		name     string
		old, new string
		want     string
	}{
		{name: "OK as it is"},
		{name: "OK tunnels of one realm on one device", old: "interface: eth3, vlan: 9, ", new: ""},
		{name: "OK another run folder", new: "ipsec: {run: /run/tdm-a, charon: /opt/strongswan/charon-systemd}"},

		{name: "bad realm", old: "name: fra, realm: nord", new: "name: fra, realm: nrod", want: `:7: tunnels[0].realm: there is no realm "nrod"; did you mean "nord"?`},
		{name: "bad realm exists already", old: "vlan: 201, address: 10.8.0.2/32", new: "vlan: 201, network: existing, address: 10.8.0.3/32",
			want: `:4: realms[1].network: "existing" has tunnels, and their devices are for the daemon to make; say network: managed`},
		{name: "bad outer side is untagged", old: "eth3, vlan: 9", new: "eth3",
			want: `:9: tunnels[2].vlan: is missing: untagged, all of eth3 would have to leave this network namespace; give the VLAN of the tunnel's outer side`},
		{name: "bad two tunnels between the same addresses, said once",
			old:  `interface: eth3, vlan: 9, local: 198.51.100.50/28, remote: 198.51.100.49, networks: [0.0.0.0/0], ike: {psk: "env:HAM"}`,
			new:  `local: 198.51.100.34/28, remote: 198.51.100.33, networks: [10.8.0.0/24], ike: {psk: "env:FRA"}`,
			want: `:9: tunnels[2].remote: 198.51.100.34 to 198.51.100.33 is tunnel "fra"'s already; give each tunnel another peer or another local`},
		{name: "bad outer side is a clear realm's", old: "interface: eth1", new: "interface: eth3, vlan: 9",
			want: `:4: realms[1].vlan: eth3.9 is realm "platform"'s already; give each realm an interface or a vlan of its own`},
		{name: "bad outer side is somebody else's network", old: "interface: eth1", new: "interface: eth3, vlan: 9, network: existing",
			want: `:9: tunnels[2].interface: eth3.9 is realm "platform"'s already, and a device is in one VRF or namespace alone; give each realm an interface or a vlan of its own`},
		{name: "bad outer side is another realm's tunnel's", old: "eth3, vlan: 9", new: "eth2, vlan: 202",
			want: `:5: realms[2].vlan: eth2.202 is realm "nord"'s already; give each realm an interface or a vlan of its own`},
		{name: "bad outer side is inherited and another's", old: "vlan: 202", new: "vlan: 201",
			want: `:5: realms[2].vlan: eth2.201 is realm "nord"'s already; give each realm an interface or a vlan of its own`},
		{name: "bad outer address is the inner one", old: "198.51.100.34/28, remote: 198.51.100.33", new: "10.8.0.2/16, remote: 10.8.1.1",
			want: `:7: tunnels[0].local: 10.8.0.2 is the inner address of realm "nord"; give the address that ESP is sent from`},
		{name: "bad peer behind itself", old: "[10.8.0.0/24]", new: "[10.8.0.0/24, 198.51.100.0/24]",
			want: `:7: tunnels[0].networks[1]: 198.51.100.0/24 holds the peer's outer address 198.51.100.33; give those of SIP and media, without it`},
		{name: "bad target is not behind a tunnel", old: "[10.8.0.0/24]", new: "[10.8.0.0/26]",
			want: `:7: tunnels[0].networks: none of them holds 10.8.0.66, a target of trunk "nord"; add the network that it is in`},
		{name: "bad tunnel's MTU above its realm's (N7)", old: "{name: nord, ", new: "{name: nord, mtu: 1264, ",
			want: `:7: tunnels[0].mtu: 1200 and the 65 that ESP may add are more than the mtu 1264 of realm "nord"; give at most 1199, or raise the realm's` + "\n" +
				`:9: tunnels[2].mtu: 1200 and the 65 that ESP may add are more than the mtu 1264 of realm "nord"; give at most 1199, or raise the realm's`},
		{name: "bad metrics on an outer address (N6)", new: "metrics: {address: \"198.51.100.50:9464\"}",
			want: `:16: metrics.address: 198.51.100.50:9464 is the outer address of tunnel "ham"; give the management network's address, or 127.0.0.1`},
		{name: "bad run folder", new: "ipsec: {run: tandem}", want: `:16: ipsec.run: "tandem" is not an absolute path; give one like /run/tandem/ipsec`},
		{name: "bad run folder for strongSwan", new: "ipsec: {run: \"/run/a b\"}",
			want: `:16: ipsec.run: "/run/a b" has a character that strongSwan would not read; use letters, digits, '.', '-', '_' and '/'`},
		{name: "bad secret is not repeated", old: "env:FRA", new: "hunter2",
			want: `:7: tunnels[0].ike.psk: is not the source of a secret; write it like file:/etc/tandem/name.psk`},
		{name: "bad secret of digits is not repeated", old: `"env:FRA"`, new: "123456",
			want: `:7: tunnels[0].ike.psk: is not the source of a secret; write it like file:/etc/tandem/name.psk`},
	} {
		t.Run(row.name, func(t *testing.T) {
			yaml := tunnelled + row.new
			if row.old != "" {
				yaml = strings.Replace(tunnelled, row.old, row.new, 1)
			}
			got := ""
			if _, err := Parse("", []byte(yaml)); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}

// I6: the order of the file is the rank, and a tunnel without an interface has its
// realm's, with the tags.
func TestTunnelsOf(t *testing.T) {
	c, err := Parse("", []byte(tunnelled))
	if err != nil {
		t.Fatal(err)
	}
	nord := c.TunnelsOf("nord")
	if len(nord) != 2 || nord[0].Name != "fra" || nord[0].Interface != "eth2" || nord[0].VLAN != 201 ||
		nord[1].Name != "ham" || nord[1].Interface != "eth3" || nord[1].VLAN != 9 {
		t.Errorf("tunnels of nord: %+v", nord)
	}
	if c.Tunnels[0].Interface != "" {
		t.Error("the config itself was changed")
	}
	if tunnels := c.TunnelsOf("platform"); tunnels != nil {
		t.Errorf("tunnels of platform: %+v", tunnels)
	}
	networks := c.Networks()
	if len(networks) != 3 || networks[0].Number != 1 || networks[0].Tunnels != nil || networks[1].Name != "nord" ||
		networks[1].Tunnels[0].VLAN != 201 || networks[1].Tunnels[0].MTU != 1200 || networks[1].Tunnels[1].Local.String() != "198.51.100.50/28" {
		t.Errorf("networks: %+v", networks)
	}
}
