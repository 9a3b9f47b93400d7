package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tandem-sbc/tandem/pkg/invalid"
	"github.com/tandem-sbc/tandem/pkg/ipsec"
	"github.com/tandem-sbc/tandem/pkg/realm"
	"github.com/tandem-sbc/tandem/pkg/resolve"
)

// TunnelsOf returns a realm's tunnels in the order of their rank. One that names no
// interface has the realm's, with its tags.
func (c *Config) TunnelsOf(realmName string) []ipsec.Config {
	var tunnels []ipsec.Config
	for _, t := range c.Tunnels {
		if t.Realm != realmName {
			continue
		}
		if r, found := c.realm(realmName); found && t.Interface == "" {
			t.Interface, t.VLAN, t.OuterVLAN = r.Interface, r.VLAN, r.OuterVLAN
		}
		tunnels = append(tunnels, t)
	}
	return tunnels
}

func (c *Config) realm(name string) (realm.Config, bool) {
	i := slices.IndexFunc(c.Realms, func(r realm.Config) bool { return r.Name == name })
	if i < 0 {
		return realm.Config{}, false
	}
	return c.Realms[i], true
}

// Networks are the realms' networks with their tunnels, in the order of the config and
// numbered from 1.
func (c *Config) Networks() []realm.Network {
	list := make([]realm.Network, len(c.Realms))
	for i, r := range c.Realms {
		list[i] = realm.Network{Number: uint16(i + 1), Config: r}
		for _, t := range c.TunnelsOf(r.Name) {
			list[i].Tunnels = append(list[i].Tunnels, realm.Tunnel{
				Name: t.Name, Interface: t.Interface, VLAN: t.VLAN, OuterVLAN: t.OuterVLAN,
				Local: t.Local, Gateway: t.Gateway, Remote: t.Remote, Networks: t.Networks, MTU: int(t.MTU),
			})
		}
	}
	return list
}

// validateTunnels checks what tunnels, realms and trunks say of each other.
func (c *Config) validateTunnels(l *invalid.List) {
	for i, t := range c.Tunnels {
		l.Under(fmt.Sprintf("tunnels[%d]", i), c.validateTunnel(t))
	}
	said := make(map[string]bool)
	for _, f := range *l {
		said[f.Key] = true
	}
	keys := c.tunnelKeys()
	for _, f := range realm.ValidateNetworks(c.Networks()) {
		key := "realms" + f.Key
		if steps := strings.SplitAfterN(f.Key, "]", 3); len(steps) == 3 && keys[steps[0]+steps[1]] != "" {
			key = keys[steps[0]+steps[1]] + steps[2]
		}
		// A tunnel may have been refused for the same by itself.
		if !said[key] {
			said[key] = true
			l.Add(key, f.Remedy, "%s", f.Problem)
		}
	}
}

// tunnelKeys are the file's keys of tunnels by those of package realm, for which tunnels
// are part of their realm: "[1].tunnels[0]" is the first tunnel of the second realm.
func (c *Config) tunnelKeys() map[string]string {
	numbers := make(map[string]int, len(c.Realms))
	for i, r := range c.Realms {
		numbers[r.Name] = i
	}
	keys, ranks := make(map[string]string), make(map[string]int)
	for i, t := range c.Tunnels {
		if number, found := numbers[t.Realm]; found {
			keys[fmt.Sprintf("[%d].tunnels[%d]", number, ranks[t.Realm])] = fmt.Sprintf("tunnels[%d]", i)
			ranks[t.Realm]++
		}
	}
	return keys
}

func (c *Config) validateTunnel(t ipsec.Config) invalid.List {
	var l invalid.List
	if t.Realm == "" {
		return nil // said by the tunnel itself
	}
	r, found := c.realm(t.Realm)
	if !found {
		l.Add("realm", invalid.Suggest(t.Realm, realmNames(c.Realms), "name one of the realms"), "there is no realm %q", t.Realm)
		return l
	}
	if a := t.Local.Addr(); a.IsValid() && a == r.Address.Addr() {
		l.Add("local", "give the address that ESP is sent from", "%s is the inner address of realm %q", a, r.Name)
	}
	for i, n := range t.Networks {
		// Everything may be behind the peer: ESP itself is routed in a namespace of its own.
		if n.IsValid() && n.Bits() > 0 && n.Contains(t.Remote) {
			l.Add(fmt.Sprintf("networks[%d]", i),
				"give those of SIP and media, without it", "%s holds the peer's outer address %s", n, t.Remote)
		}
	}
	c.validateBehind(&l, t)
	if most := int(r.MTU) - espOverhead; r.MTU != 0 && int(t.MTU) > most {
		l.Add("mtu", fmt.Sprintf("give at most %d, or raise the realm's", most),
			"%d and the %d that ESP may add are more than the mtu %d of realm %q", t.MTU, espOverhead, r.MTU, r.Name)
	}
	return l
}

// espOverhead is the most that ESP adds to an inner packet with AES-GCM, in bytes: IPv4 20,
// UDP 8 with NAT traversal, SPI and sequence number 8, IV 8, padding and trailer 5, ICV 16
// (RFC 4303 section 2, RFC 4106 section 3, RFC 3948 section 2.1).
const espOverhead = 65

// validateBehind checks that all targets of the realm's trunks are behind the peer: each
// tunnel of a realm stands in for the others.
func (c *Config) validateBehind(l *invalid.List, t ipsec.Config) {
	if len(t.Networks) == 0 {
		return // said by the tunnel itself
	}
	for _, tr := range c.Trunks {
		if tr.Realm != t.Realm {
			continue
		}
		for _, text := range tr.Targets {
			target, err := resolve.ParseTarget(text)
			if err != nil || !target.Addr.IsValid() || slices.ContainsFunc(t.Networks, func(n netip.Prefix) bool { return n.Contains(target.Addr) }) {
				continue
			}
			l.Add("networks", "add the network that it is in", "none of them holds %s, a target of trunk %q", target.Addr, tr.Name)
		}
	}
}

func validateIPsec(l *invalid.List, c IPsec) {
	for _, path := range []struct{ key, value, example string }{
		{"ipsec.run", c.Run, ipsec.DefaultRun}, {"ipsec.charon", c.Charon, ipsec.DefaultCharon},
	} {
		// strongSwan's config has no way to quote what is special in it.
		switch special := strings.IndexFunc(path.value, func(r rune) bool { return !isPathRune(r) }); {
		case path.value == "":
			l.Add(path.key, "give a path, e.g. "+path.example, "is empty")
		case !filepath.IsAbs(path.value) || filepath.Clean(path.value) != path.value || path.value == "/":
			l.Add(path.key, "give one like "+path.example, "%q is not an absolute path", path.value)
		case special >= 0:
			l.Add(path.key, "use letters, digits, '.', '-', '_' and '/'", "%q has a character that strongSwan would not read", path.value)
		}
	}
}

func isPathRune(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("./-_", r)
}
