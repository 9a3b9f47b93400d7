package ipsec

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

// validConfig is the least that a config has to say.
func validConfig() Config {
	var c Config
	c.SetDefaults()
	c.Name, c.Realm = "primary", "carrier-a"
	c.Local, c.Remote = netip.MustParsePrefix("192.0.2.1/30"), netip.MustParseAddr("192.0.2.2")
	c.Networks = []netip.Prefix{netip.MustParsePrefix("10.50.0.0/24")}
	c.IKE.PSK = mustSecret("file:/etc/tandem/carrier-a.psk")
	return c
}

func mustSecret(source string) Secret {
	s, err := NewSecret(source)
	if err != nil {
		panic(err)
	}
	return s
}

// I1, I2, I3, I4, N7: the defaults are those of the requirements.
func TestDefaults(t *testing.T) {
	c := validConfig()
	if l := c.Validate(); l != nil {
		t.Errorf("findings: %v", l.Err())
	}
	if c.MTU != 1200 || c.IKE.ChildLifetime != 3600*time.Second || c.IKE.Lifetime != 86400*time.Second || c.NATTraversal != NATAuto {
		t.Errorf("%+v", c)
	}
	if c.IKE.DPDDelay != 30*time.Second || c.IKE.DPDTries != 3 || c.IKE.ReplayWindow < 128 {
		t.Errorf("%+v", c.IKE)
	}
	for _, p := range c.IKE.Proposals {
		if !strings.HasPrefix(p, "aes256gcm16-prfsha384-") {
			t.Errorf("IKE proposal %s", p)
		}
	}
	if c.localID() != "192.0.2.1" || c.remoteID() != "192.0.2.2" {
		t.Errorf("identities %s and %s", c.localID(), c.remoteID())
	}
	if got := c.IKE.noticed(); got != 38*time.Second {
		t.Errorf("a dead peer is noticed after %s", got)
	}
}

// Each finding names its key and says what would be right.
func TestValidate(t *testing.T) {
	for _, c := range []struct {
		key    string
		change func(*Config)
		remedy string
	}{
		{"name", func(c *Config) { c.Name = "" }, "letters"},
		{"realm", func(c *Config) { c.Realm = "" }, "realms"},
		{"vlan", func(c *Config) { c.VLAN = 101 }, "interface"},
		{"vlan", func(c *Config) { c.Interface, c.VLAN = "eth1", 4095 }, "4094"},
		{"outer_vlan", func(c *Config) { c.Interface, c.OuterVLAN = "eth1", 100 }, "vlan"},
		{"interface", func(c *Config) { c.Interface = "eth/1" }, "ip link"},
		{"interface", func(c *Config) { c.Interface, c.VLAN = "enp101s0f1np12", 101 }, "rename"},
		{"local", func(c *Config) { c.Local = netip.Prefix{} }, "192.0.2.2/30"},
		{"local", func(c *Config) { c.Local = netip.MustParsePrefix("2001:db8::1/64") }, "IPv4"},
		{"remote", func(c *Config) { c.Remote = netip.Addr{} }, "192.0.2.1"},
		{"remote", func(c *Config) { c.Remote = netip.MustParseAddr("192.0.2.1") }, "peer"},
		{"remote", func(c *Config) { c.Remote = netip.MustParseAddr("0.0.0.0") }, "peer"},
		{"gateway", func(c *Config) { c.Remote = netip.MustParseAddr("198.51.100.1") }, "router"},
		{"gateway", func(c *Config) { c.Gateway = netip.MustParseAddr("198.51.100.1") }, "router"},
		{"gateway", func(c *Config) { c.Gateway = netip.MustParseAddr("192.0.2.1") }, "router"},
		{"networks", func(c *Config) { c.Networks = nil }, "10.50.0.0/24"},
		{"networks[0]", func(c *Config) { c.Networks[0] = netip.MustParsePrefix("10.50.0.1/24") }, "10.50.0.0/24"},
		{"networks[0]", func(c *Config) { c.Networks[0] = netip.MustParsePrefix("2001:db8::/64") }, "IPv4"},
		{"networks[0]", func(c *Config) { c.Networks[0] = netip.MustParsePrefix("224.0.0.0/4") }, "behind"},
		{"networks[1]", func(c *Config) { c.Networks = append(c.Networks, c.Networks[0]) }, "leave"},
		{"mtu", func(c *Config) { c.MTU = 575 }, "576"},
		{"keying", func(c *Config) { c.Keying = "ikev1" }, "ike"},
		{"nat_traversal", func(c *Config) { c.NATTraversal = "yes" }, "auto"},
		{"monitor", func(c *Config) { c.Monitor = "atuo" }, "auto"},
		{"monitor", func(c *Config) { c.Monitor = "10.51.0.1" }, "one of them"},
		{"monitor_interval", func(c *Config) { c.MonitorInterval = time.Millisecond }, "100ms"},
		{"monitor_lost", func(c *Config) { c.MonitorLost = 0 }, "1"},
		{"ike.local_id", func(c *Config) { c.IKE.LocalID = "%any" }, "one identity"},
		{"ike.remote_id", func(c *Config) { c.IKE.RemoteID = "*@example.net" }, "one identity"},
		{"ike.remote_id", func(c *Config) { c.IKE.RemoteID = "a\nb" }, "control"},
		{"ike.auth", func(c *Config) { c.IKE.Auth = "eap" }, "psk"},
		{"ike.psk", func(c *Config) { c.IKE.PSK = Secret{} }, "file:/path"},
		{"ike.ca", func(c *Config) { c.IKE.CA = "/ca.pem" }, "certificate"},
		{"ike.certificate", func(c *Config) {
			c.IKE.Auth, c.IKE.PSK, c.IKE.Key, c.IKE.CA = Certificate, Secret{}, mustSecret("env:KEY"), "/ca.pem"
		}, "PEM"},
		{"ike.ca", func(c *Config) {
			c.IKE.Auth, c.IKE.PSK, c.IKE.Key, c.IKE.Certificate, c.IKE.CA = Certificate, Secret{}, mustSecret("env:KEY"), "/gw.pem", "ca.pem"
		}, "whole path"},
		{"ike.proposals", func(c *Config) { c.IKE.Proposals = nil }, "at least one"},
		{"ike.proposals[0]", func(c *Config) { c.IKE.Proposals[0] = "aes256gcm16-prfsha384-ecp348" }, "ecp384"},
		{"ike.proposals[0]", func(c *Config) { c.IKE.Proposals[0] = "aes256gcm16-ecp384" }, "prfsha384"},
		{"ike.proposals[0]", func(c *Config) { c.IKE.Proposals[0] = "aes256gcm16-sha384-ecp384" }, "prfsha384"},
		{"ike.proposals[0]", func(c *Config) { c.IKE.Proposals[0] = "aes256-prfsha384-ecp384" }, "sha256"},
		{"ike.proposals[0]", func(c *Config) { c.IKE.Proposals[0] = "aes256gcm16-prfsha384" }, "ecp384"},
		{"ike.proposals[0]", func(c *Config) { c.IKE.Proposals[0] = "aes256gcm16-prfsha384-ecp384-esn" }, "esn"},
		{"ike.proposals[1]", func(c *Config) { c.IKE.Proposals[1] = c.IKE.Proposals[0] }, "leave"},
		{"ike.esp_proposals[0]", func(c *Config) { c.IKE.ESPProposals[0] = "aes256gcm16-esn" }, "ecp384"},
		{"ike.esp_proposals[0]", func(c *Config) { c.IKE.ESPProposals[0] = "3des-sha1" }, "known"},
		{"ike.lifetime", func(c *Config) { c.IKE.Lifetime = 200 * time.Hour }, "168h"},
		{"ike.child_lifetime", func(c *Config) { c.IKE.ChildLifetime = time.Second }, "30s"},
		{"ike.child_lifetime", func(c *Config) { c.IKE.Lifetime = 30 * time.Minute }, "at most"},
		{"ike.dpd_delay", func(c *Config) { c.IKE.DPDDelay = 0 }, "1s"},
		{"ike.dpd_tries", func(c *Config) { c.IKE.DPDTries = 0 }, "1"},
		{"ike.dpd_timeout", func(c *Config) { c.IKE.DPDTimeout = time.Hour }, "1m"},
		{"ike.replay_window", func(c *Config) { c.IKE.ReplayWindow = 64 }, "128"},
		{"manual.inbound", func(c *Config) { c.Manual.Inbound = mustSecret("env:IN") }, "manual"},
		{"manual.inbound", func(c *Config) { c.Keying, c.Manual.Outbound = Manual, mustSecret("env:OUT") }, "file:/path"},
		{"manual.grace", func(c *Config) { c.Manual.Grace = 0 }, "1s"},
	} {
		cfg := validConfig()
		c.change(&cfg)
		l := cfg.Validate()
		if len(l) != 1 || l[0].Key != c.key || !strings.Contains(l[0].Remedy, c.remedy) {
			t.Errorf("want one finding about %s with %q, got %v", c.key, c.remedy, l.Err())
		}
	}
}

// One charon and one namespace are for all tunnels of a realm.
func TestValidateAll(t *testing.T) {
	backup := func() Config {
		c := validConfig()
		c.Name, c.Remote = "backup", netip.MustParseAddr("192.0.2.2").Next()
		c.Local = netip.MustParsePrefix("192.0.2.1/29")
		return c
	}
	if l := ValidateAll([]Config{validConfig(), backup()}); l != nil {
		t.Fatal(l.Err())
	}
	for _, c := range []struct {
		key    string
		change func(*Config)
	}{
		{"[1].name", func(c *Config) { c.Name = "primary" }},
		{"[1].remote", func(c *Config) { c.Remote = netip.MustParseAddr("192.0.2.2") }},
		{"[1].ike.dpd_delay", func(c *Config) { c.IKE.DPDDelay = time.Minute }},
		{"[1].ike.dpd_tries", func(c *Config) { c.IKE.DPDTries = 5 }},
		{"[1].ike.dpd_timeout", func(c *Config) { c.IKE.DPDTimeout = time.Second }},
		{"[1].ike.psk", func(c *Config) { c.IKE.RemoteID, c.IKE.PSK = "192.0.2.2", mustSecret("env:OTHER") }},
	} {
		b := backup()
		c.change(&b)
		l := ValidateAll([]Config{validConfig(), b})
		if len(l) != 1 || l[0].Key != c.key || l[0].Remedy == "" {
			t.Errorf("want one finding about %s, got %v", c.key, l.Err())
		}
	}
	other := backup()
	other.Realm, other.IKE.DPDDelay = "carrier-b", time.Minute
	other.Remote = netip.MustParseAddr("192.0.2.2")
	if l := ValidateAll([]Config{validConfig(), other}); l != nil {
		t.Errorf("another realm has a charon and a namespace of its own: %v", l.Err())
	}
	var many []Config
	for i := range maxTunnels + 1 {
		c := validConfig()
		c.Name, c.Local = "t"+strings.Repeat("x", i), netip.MustParsePrefix("192.0.2.1/24")
		c.Remote = netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 2)})
		many = append(many, c)
	}
	if l := ValidateAll(many); len(l) != 1 || l[0].Key != "[8].realm" {
		t.Errorf("nine tunnels of a realm: %v", l.Err())
	}
}
