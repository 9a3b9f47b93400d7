package realm

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-sbc/tandem/pkg/call"
)

func goodConfig() Config {
	c := Config{
		Name: "carrier-a", Interface: "eth2", VLAN: 201,
		Address: netip.MustParsePrefix("198.51.100.2/29"), Gateway: netip.MustParseAddr("198.51.100.1"),
		MediaPorts: call.PortRange{First: 24576, Last: 32767},
	}
	c.SetDefaults()
	return c
}

func TestConfigValidate(t *testing.T) {
	address := func(s string) func(*Config) {
		return func(c *Config) { c.Address, c.Gateway = netip.MustParsePrefix(s), netip.Addr{} }
	}
	ports := func(first, last uint16) func(*Config) {
		return func(c *Config) { c.MediaPorts = call.PortRange{First: first, Last: last} }
	}
	routes := func(to, via string) func(*Config) {
		return func(c *Config) { c.Routes = []Route{{netip.MustParsePrefix(to), netip.MustParseAddr(via)}} }
	}
	for _, row := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"OK as it is", func(*Config) {}, ""},
		{"OK untagged", func(c *Config) { c.VLAN = 0 }, ""},
		{"OK highest tag", func(c *Config) { c.VLAN = 4094 }, ""},
		{"OK two tags", func(c *Config) { c.OuterVLAN = 4094 }, ""},
		{"OK highest priority", func(c *Config) { c.PCP = 7 }, ""},
		{"OK point to point", address("198.51.100.2/31"), ""},
		{"OK host route", address("198.51.100.2/32"), ""},
		{"OK one pair", ports(1024, 1025), ""},
		{"OK to the last port", ports(65000, 65535), ""},

		{"bad no name", func(c *Config) { c.Name = "" }, `name: is missing; give 1 to 63 letters, digits, '.', '-' or '_', a letter or digit first`},
		{"bad tag (N1)", func(c *Config) { c.VLAN = 4095 }, "vlan: 4095 is out of range; give a number from 0 to 4094"},
		{"bad no interface", func(c *Config) { c.Interface = "" }, "interface: is missing; give the name that `ip link` shows, e.g. eth1"},
		{"bad interface", func(c *Config) { c.Interface = "eth/1" }, "interface: \"eth/1\" is not an interface name; give the name that `ip link` shows, e.g. eth1"},
		{"bad long interface", func(c *Config) { c.Interface = "abcdefghijklmnop" }, `interface: "abcdefghijklmnop" has 16 characters; Linux allows 15`},
		{"bad long VLAN device", func(c *Config) { c.Interface = "enp101s0f1np1" }, `interface: its VLAN device would be called "enp101s0f1np1.201", 17 characters; Linux allows 15: rename the interface`},
		{"bad VLAN device as interface", func(c *Config) { c.Interface, c.VLAN = "eth2.201", 0 }, `interface: "eth2.201" is a VLAN device; write interface: eth2 and vlan: 201`},

		{"bad double VLAN device as interface", func(c *Config) { c.Interface, c.VLAN = "eth2.100.201", 0 }, `interface: "eth2.100.201" is a VLAN device; write interface: eth2, outer_vlan: 100 and vlan: 201`},
		{"bad outer tag (N1)", func(c *Config) { c.OuterVLAN = 4095 }, "outer_vlan: 4095 is out of range; give a number from 0 to 4094"},
		{"bad outer tag alone", func(c *Config) { c.VLAN, c.OuterVLAN = 0, 100 }, "outer_vlan: 100 has no tag inside; give the inner tag as vlan; a single tag is vlan alone"},
		{"bad long double VLAN device", func(c *Config) { c.Interface, c.OuterVLAN = "enp3s0f0", 1000 }, `interface: its VLAN device would be called "enp3s0f0.1000.201", 17 characters; Linux allows 15: rename the interface`},
		{"bad priority (N1)", func(c *Config) { c.PCP = 8 }, "pcp: 8 is out of range; give a number from 0 to 7"},

		{"bad no address", func(c *Config) { c.Address = netip.Prefix{} }, "address: is missing; give the realm's own address with its prefix length, e.g. 192.0.2.2/24"},
		{"bad IPv6", address("2001:db8::2/64"), "address: 2001:db8::2/64 is not IPv4, and only that is carried so far; give an IPv4 address"},
		{"bad unspecified", address("0.0.0.0/24"), "address: 0.0.0.0/24 is no host's address; give the realm's own address"},
		{"bad multicast", address("224.0.0.1/24"), "address: 224.0.0.1/24 is no host's address; give the realm's own address"},
		{"bad short prefix", address("10.0.0.2/7"), "address: /7 would make most of the world the realm's own subnet; give a prefix length from 8 to 32"},
		{"bad subnet", address("198.51.100.0/29"), "address: 198.51.100.0/29 is the subnet itself; give a host's address in it, e.g. 198.51.100.1/29"},
		{"bad broadcast", address("198.51.100.7/29"), "address: 198.51.100.7/29 is the subnet's broadcast address; give a host's address in it, e.g. 198.51.100.6/29"},
		{"bad gateway outside", func(c *Config) { c.Gateway = netip.MustParseAddr("198.51.100.9") }, "gateway: 198.51.100.9 is outside 198.51.100.0/29; give a router of that subnet"},
		{"bad gateway is ourselves", func(c *Config) { c.Gateway = c.Address.Addr() }, "gateway: 198.51.100.2 is the realm's own address; give the router's address"},

		{"bad no ports", ports(0, 0), "media_ports: is missing; give FIRST-LAST, e.g. 16384-24575"},
		{"bad low ports (M9)", ports(1022, 2047), "media_ports: 1022-2047 holds ports below 1024; start at 1024 or above"},
		{"bad odd first (M9)", ports(16385, 24575), "media_ports: 16385-24575 starts at an odd port; RTP takes the even port of a pair: start at 16386"},
		{"bad even last", ports(16384, 24576), "media_ports: 16384-24576 ends at an even port; RTCP takes the odd port of a pair: end at 24577"},
		{"bad single port", ports(65535, 65535), "media_ports: 65535-65535 is not even a pair of ports; give FIRST-LAST, e.g. 16384-24575"},
		{"bad SIP among media", func(c *Config) { c.SIPPort = 24576 }, "sip_port: 24576 lies in the realm's media_ports 24576-32767; move one of the two"},
		{"bad SIP port", func(c *Config) { c.SIPPort = 0 }, "sip_port: 0 is out of range; give a number from 1024 to 65535"},
		{"OK existing", func(c *Config) { c.Network = Existing }, ""},
		{"OK MTU", func(c *Config) { c.MTU = 9000 }, ""},
		{"OK route (N8)", routes("203.0.113.0/24", "198.51.100.3"), ""},
		{"OK untagged with a short name", func(c *Config) { c.VLAN, c.Interface = 0, "enp101s0f1n" }, ""},
		{"OK untagged with a long name, existing", func(c *Config) { c.VLAN, c.Interface, c.Network = 0, "enp101s0f1np1", Existing }, ""},
		{"bad network", func(c *Config) { c.Network = "managd" }, `network: "managd" is not known here; did you mean "managed"?`},
		{"bad long name for a label", func(c *Config) { c.VLAN, c.Interface = 0, "enp101s0f1np1" }, `interface: "enp101s0f1np1" has 13 characters, too many for the label "enp101s0f1np1:tdm" of the realm's address; rename it to at most 11 characters`},
		{"bad MTU", func(c *Config) { c.MTU = 575 }, "mtu: 575 is out of range; give a number from 576 to 9000"},
		{"bad SIP priority (N1)", func(c *Config) { c.SIPPCP = 8 }, "sip_pcp: 8 is out of range; give a number from 0 to 7"},
		{"bad patience", func(c *Config) { c.KeepCalls = 25 * time.Hour }, "keep_calls: 25h0m0s is out of range; give 0s to 24h"},
		{"bad return", func(c *Config) { c.ReturnAfter = -1 }, "return_after: -1ns is out of range; give 0s to 24h"},
		{"bad route of nothing", func(c *Config) { c.Routes = []Route{{}} }, "routes[0].to: is missing; give an IPv4 prefix, e.g. 203.0.113.0/24\nroutes[0].via: is missing; give the router's address"},
		{"bad route's bits", routes("203.0.113.1/24", "198.51.100.3"), "routes[0].to: 203.0.113.1/24 has bits behind its length; write 203.0.113.0/24"},
		{"bad default route", routes("0.0.0.0/0", "198.51.100.3"), "routes[0].to: 0.0.0.0/0 is the default route; give the router as gateway"},
		{"bad IPv6 route", routes("2001:db8::/32", "198.51.100.3"), "routes[0].to: 2001:db8::/32 is not IPv4; give an IPv4 prefix"},
		{"bad router", routes("203.0.113.0/24", "198.51.100.9"), "routes[0].via: 198.51.100.9 is outside 198.51.100.0/29; give a router of that subnet"},
		{"bad router is ourselves", routes("203.0.113.0/24", "198.51.100.2"), "routes[0].via: 198.51.100.2 is the realm's own address; give the router's address"},
		{"bad route twice", func(c *Config) {
			routes("203.0.113.0/24", "198.51.100.3")(c)
			c.Routes = append(c.Routes, c.Routes[0])
		}, "routes[1].to: 203.0.113.0/24 has a route already; give each prefix once"},
		{"bad routes of somebody else", func(c *Config) {
			routes("203.0.113.0/24", "198.51.100.3")(c)
			c.Network = Existing
		}, "routes: are somebody else's business with network: existing; make them yourself, or say network: managed"},
		{"bad DSCP (M3)", func(c *Config) { c.DSCP = 64 }, "dscp: 64 is out of range; give a number from 0 to 63"},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := goodConfig()
			row.change(&c)
			got := ""
			if err := c.Validate().Err(); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}

func TestValidateAll(t *testing.T) {
	realms := []Config{goodConfig(), goodConfig(), goodConfig()}
	realms[1].Name, realms[1].Address = "carrier-b", netip.MustParsePrefix("203.0.113.2/24")
	realms[1].Gateway, realms[1].MediaPorts = netip.Addr{}, call.PortRange{First: 16384, Last: 24575}
	if err := ValidateAll(realms[:2]).Err(); err != nil {
		t.Errorf("two realms side by side: %v", err)
	}
	// Each in its VRF: carriers may use the same addresses (N2).
	realms[1].Address = realms[0].Address
	if err := ValidateAll(realms[:2]).Err(); err != nil {
		t.Errorf("two managed realms with one address: %v", err)
	}
	realms[1].Address = netip.MustParsePrefix("203.0.113.2/24")
	realms[2].Network = Existing
	const want = `[2].name: "carrier-a" is another realm's already; give each realm a name of its own
[2].address: 198.51.100.2 is realm "carrier-a"'s already; give each realm an address of its own, or say network: managed for both
[2].media_ports: 24576-32767 overlaps realm "carrier-a" (24576-32767); give each realm a range of its own, e.g. 32768-40959`
	if diff := cmp.Diff(want, ValidateAll(realms).Err().Error()); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
	// The example is a range that would be accepted, and none is given when none is free.
	realms[1].MediaPorts.Last, realms[2].MediaPorts = 24575, call.PortRange{First: 1024, Last: 65535}
	last := ValidateAll(realms)
	if got := last[len(last)-1].Remedy; got != "give each realm a range of its own" {
		t.Errorf("remedy is %q", got)
	}
}

func TestDevice(t *testing.T) {
	c := goodConfig()
	if got := c.Device(); got != "eth2.201" {
		t.Errorf("tagged realm: %s", got)
	}
	c.OuterVLAN = 100
	if got := c.Device(); got != "eth2.100.201" {
		t.Errorf("realm with two tags: %s", got)
	}
	c.VLAN, c.OuterVLAN = 0, 0
	if got := c.Device(); got != "eth2" {
		t.Errorf("untagged realm: %s", got)
	}
	if got := c.SIPAddr().String(); got != "198.51.100.2:5060" {
		t.Errorf("SIP address: %s", got)
	}
}
