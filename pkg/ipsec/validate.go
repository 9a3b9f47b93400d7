package ipsec

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tandem-sbc/tandem/pkg/invalid"
)

const (
	// maxInterface is IFNAMSIZ without its final zero.
	maxInterface = 15
	// maxNetworks bounds the traffic selectors of a tunnel (RFC 7296 section 3.13: a byte counts them).
	maxNetworks = 128
	// maxProposals is a bound of ours; peers refuse long lists.
	maxProposals = 32
	maxID        = 255
	// maxTunnels bounds the tunnels of a realm.
	maxTunnels = 8
)

// Algorithms by what they are for, in strongSwan's words. Those that are broken or weak
// (DES, MD5, SHA-1, groups below 2048 bits) are not among them.
var (
	aeads       = []string{"aes256gcm16", "aes192gcm16", "aes128gcm16"}
	ciphers     = []string{"aes256", "aes192", "aes128"}
	integrities = []string{"sha256", "sha384", "sha512"}
	prfs        = []string{"prfsha256", "prfsha384", "prfsha512"}
	groups      = []string{"ecp384", "ecp256", "ecp521", "x25519", "modp2048", "modp3072", "modp4096"}
	numbers     = []string{"esn", "noesn"}
)

// Validate checks the tunnel by itself; keys are those of the tunnel. What it has to do with
// realms and trunks is for whoever knows them.
func (c Config) Validate() invalid.List {
	var l invalid.List
	l.Name("name", c.Name)
	if c.Realm == "" {
		l.Add("realm", "name one of the realms", "is missing")
	}
	c.validateDevice(&l)
	c.validateAddresses(&l)
	c.validateNetworks(&l)
	l.Between("mtu", int(c.MTU), 576, 9000)
	l.OneOf("keying", c.Keying, IKE, Manual)
	l.OneOf("nat_traversal", c.NATTraversal, NATAuto, NATAlways, NATNever)
	c.validateMonitor(&l)
	// Both parts are checked for what would not work; only the one in use for what is missing.
	l.Under("ike", c.IKE.validate(c.Keying == IKE))
	l.Under("manual", c.Manual.validate(c.Keying == Manual))
	return l
}

func (c Config) validateDevice(l *invalid.List) {
	l.Between("vlan", int(c.VLAN), 0, 4094)
	l.Between("outer_vlan", int(c.OuterVLAN), 0, 4094)
	if c.Interface == "" {
		const remedy = "give interface as well, or leave it out for that of the realm"
		if c.VLAN != 0 {
			l.Add("vlan", remedy, "%d has no meaning without interface", c.VLAN)
		}
		if c.OuterVLAN != 0 {
			l.Add("outer_vlan", remedy, "%d has no meaning without interface", c.OuterVLAN)
		}
		return
	}
	if c.OuterVLAN != 0 && c.VLAN == 0 {
		l.Add("outer_vlan", "give the inner tag as vlan; a single tag is vlan alone", "%d has no tag inside", c.OuterVLAN)
	}
	device := c.Interface
	for _, tag := range []uint16{c.OuterVLAN, c.VLAN} {
		if tag != 0 {
			device = fmt.Sprintf("%s.%d", device, tag)
		}
	}
	switch {
	case c.Interface == "." || c.Interface == ".." || strings.ContainsAny(c.Interface, "/: \t\n\x00"):
		l.Add("interface", "give the name that `ip link` shows, e.g. eth1", "%q is not an interface name", c.Interface)
	case len(device) > maxInterface:
		l.Add("interface", fmt.Sprintf("Linux allows %d: rename the interface", maxInterface), "%q has %d characters", device, len(device))
	}
}

func (c Config) validateAddresses(l *invalid.List) {
	local, remote := c.Local.Addr(), c.Remote
	switch {
	case !c.Local.IsValid():
		l.Add("local", "give the own outer address with its prefix length, e.g. 192.0.2.2/30", "is missing")
	case !isHost(local):
		l.Add("local", "give the own outer IPv4 address", "%s is no IPv4 host's address", c.Local)
	case c.Local.Bits() < 8:
		l.Add("local", "give a prefix length from 8 to 32", "/%d would make most of the world the tunnel's own subnet", c.Local.Bits())
	}
	switch {
	case !remote.IsValid():
		l.Add("remote", "give the peer's outer address, e.g. 192.0.2.1", "is missing")
		return
	case !isHost(remote):
		l.Add("remote", "give the peer's outer IPv4 address", "%s is no IPv4 host's address", remote)
		return
	case remote == local:
		l.Add("remote", "give the peer's address", "%s is the tunnel's own address", remote)
	}
	if !local.Is4() {
		return
	}
	switch g := c.Gateway; {
	case !g.IsValid() && !c.Local.Contains(remote):
		l.Add("gateway", "give the router to it", "is missing, and %s is outside %s", remote, c.Local.Masked())
	case !g.IsValid():
	case !c.Local.Contains(g):
		l.Add("gateway", "give a router of that subnet", "%s is outside %s", g, c.Local.Masked())
	case g == local:
		l.Add("gateway", "give the router's address", "%s is the tunnel's own address", g)
	}
}

func isHost(a netip.Addr) bool {
	return a.Is4() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func (c Config) validateNetworks(l *invalid.List) {
	switch {
	case len(c.Networks) == 0:
		l.Add("networks", "list the networks behind the peer, e.g. [10.50.0.0/24]", "is missing")
	case len(c.Networks) > maxNetworks:
		l.Add("networks", fmt.Sprintf("give at most %d, wider ones", maxNetworks), "has %d entries", len(c.Networks))
	}
	for i, p := range c.Networks {
		key := fmt.Sprintf("networks[%d]", i)
		switch {
		case !p.IsValid():
			l.Add(key, "write it like 10.50.0.0/24", "is no network")
		case !p.Addr().Is4():
			l.Add(key, "give an IPv4 network", "%s is IPv6, and only IPv4 is carried so far", p)
		case p != p.Masked():
			l.Add(key, "write "+p.Masked().String()+", or "+p.Addr().String()+"/32 for one host", "%s has bits behind its length", p)
		case p.Addr().IsMulticast() || p.Addr().IsLoopback():
			l.Add(key, "give the networks behind the peer", "%s cannot be behind a tunnel", p)
		case slices.Contains(c.Networks[:i], p):
			l.Add(key, "leave it out", "%s is listed twice", p)
		}
	}
}

func (c Config) validateMonitor(l *invalid.List) {
	if c.Monitor != MonitorAuto && c.Monitor != MonitorNone {
		a, err := netip.ParseAddr(c.Monitor)
		switch {
		case err != nil:
			l.Add("monitor", invalid.Suggest(c.Monitor, []string{MonitorAuto, MonitorNone}, "give auto, none or an IPv4 address"),
				"%q is no address", c.Monitor)
		case !isHost(a):
			l.Add("monitor", "give an IPv4 address behind the peer", "%s is no IPv4 host's address", a)
		case !slices.ContainsFunc(c.Networks, func(p netip.Prefix) bool { return p.Contains(a) }):
			l.Add("monitor", "give an address of one of them", "%s is in none of networks", a)
		}
	}
	within(l, "monitor_interval", c.MonitorInterval, 100*time.Millisecond, time.Minute, "100ms to 1m")
	l.Between("monitor_lost", c.MonitorLost, 1, 100)
}

func within(l *invalid.List, key string, d, low, high time.Duration, words string) {
	if d < low || d > high {
		l.Add(key, "give "+words, "%s is out of range", d)
	}
}

func (c IKEConfig) validate(used bool) invalid.List {
	var l invalid.List
	validateID(&l, "local_id", c.LocalID)
	validateID(&l, "remote_id", c.RemoteID)
	l.OneOf("auth", c.Auth, PSK, Certificate)
	if used {
		c.validateCredentials(&l)
	}
	validateProposals(&l, "proposals", c.Proposals, ikeProposal)
	validateProposals(&l, "esp_proposals", c.ESPProposals, espProposal)
	within(&l, "lifetime", c.Lifetime, time.Minute, 168*time.Hour, "1m to 168h")
	within(&l, "child_lifetime", c.ChildLifetime, 30*time.Second, 24*time.Hour, "30s to 24h")
	if c.ChildLifetime > c.Lifetime {
		l.Add("child_lifetime", "give at most that", "%s is longer than lifetime (%s)", c.ChildLifetime, c.Lifetime)
	}
	within(&l, "dpd_delay", c.DPDDelay, time.Second, time.Hour, "1s to 1h")
	l.Between("dpd_tries", c.DPDTries, 1, 10)
	within(&l, "dpd_timeout", c.DPDTimeout, 100*time.Millisecond, time.Minute, "100ms to 1m")
	l.Between("replay_window", c.ReplayWindow, 128, 4096)
	return l
}

// validateID keeps out what charon would read as a pattern for any peer's identity.
func validateID(l *invalid.List, key, id string) {
	switch {
	case len(id) > maxID:
		l.Add(key, fmt.Sprintf("give at most %d characters", maxID), "has %d characters", len(id))
	case strings.ContainsAny(id, "*%"):
		l.Add(key, "give one identity; any and patterns are not allowed", "%q is a pattern", id)
	case strings.IndexFunc(id, func(r rune) bool { return r < ' ' || r == 0x7f }) >= 0 || id != strings.TrimSpace(id):
		l.Add(key, "give it without blanks around it and without control characters", "%q is no identity", id)
	}
}

func (c IKEConfig) validateCredentials(l *invalid.List) {
	file := func(key, path string) {
		switch {
		case path == "":
			l.Add(key, "give the path of a PEM file", "is missing")
		case !filepath.IsAbs(path):
			l.Add(key, "give the whole path, from /", "%q is no absolute path", path)
		}
	}
	switch c.Auth {
	case PSK:
		if c.PSK.IsZero() {
			l.Add("psk", "give file:/path or env:NAME", "is missing")
		}
		for i, given := range []bool{c.Certificate != "", !c.Key.IsZero(), c.CA != ""} {
			if given {
				l.Add([]string{"certificate", "key", "ca"}[i], "set auth: certificate, or leave it out", "has no meaning while auth is psk")
			}
		}
	case Certificate:
		file("certificate", c.Certificate)
		if c.Key.IsZero() {
			l.Add("key", "give file:/path or env:NAME", "is missing")
		}
		file("ca", c.CA)
		if !c.PSK.IsZero() {
			l.Add("psk", "set auth: psk, or leave it out", "has no meaning while auth is certificate")
		}
	}
}

func validateProposals(l *invalid.List, key string, proposals []string, check func(words []string) (problem, remedy string)) {
	switch {
	case len(proposals) == 0:
		l.Add(key, "list at least one, or leave the key out for the usual ones", "is empty")
	case len(proposals) > maxProposals:
		l.Add(key, fmt.Sprintf("give at most %d", maxProposals), "has %d entries", len(proposals))
	}
	for i, p := range proposals {
		at := fmt.Sprintf("%s[%d]", key, i)
		words := strings.Split(p, "-")
		known := slices.Concat(aeads, ciphers, integrities, prfs, groups, numbers)
		if j := slices.IndexFunc(words, func(w string) bool { return !slices.Contains(known, w) }); j >= 0 {
			l.Add(at, invalid.Suggest(words[j], known, "known are "+strings.Join(known, ", ")), "no algorithm %q is known in %q", words[j], p)
			continue
		}
		if slices.Contains(proposals[:i], p) {
			l.Add(at, "leave it out", "%s is listed twice", p)
			continue
		}
		if problem, remedy := check(words); problem != "" {
			l.Add(at, remedy, "%q %s", p, problem)
		}
	}
}

func has(words, of []string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return slices.Contains(of, w) })
}

func ikeProposal(words []string) (problem, remedy string) {
	switch {
	case has(words, aeads) == has(words, ciphers):
		return "has not one kind of encryption", "give one of " + strings.Join(slices.Concat(aeads, ciphers), ", ")
	case has(words, aeads) && has(words, integrities):
		return "has an integrity algorithm beside AES-GCM, which is one", "leave it out, or write it as a PRF: prfsha384"
	case has(words, aeads) && !has(words, prfs):
		return "has no PRF, which AES-GCM needs beside it", "add one of " + strings.Join(prfs, ", ")
	case has(words, ciphers) && !has(words, integrities):
		return "has no integrity algorithm", "add one of " + strings.Join(integrities, ", ")
	case !has(words, groups):
		return "has no group", "add one of " + strings.Join(groups, ", ")
	case has(words, numbers):
		return "has sequence numbers, which are ESP's", "leave esn out"
	}
	return "", ""
}

func espProposal(words []string) (problem, remedy string) {
	switch {
	case has(words, aeads) == has(words, ciphers):
		return "has not one kind of encryption", "give one of " + strings.Join(slices.Concat(aeads, ciphers), ", ")
	case has(words, aeads) && has(words, integrities):
		return "has an integrity algorithm beside AES-GCM, which is one", "leave it out"
	case has(words, ciphers) && !has(words, integrities):
		return "has no integrity algorithm", "add one of " + strings.Join(integrities, ", ")
	case has(words, prfs):
		return "has a PRF, which is IKE's", "leave it out"
	case !has(words, groups):
		return "has no group, so keys would not have perfect forward secrecy", "add one of " + strings.Join(groups, ", ")
	}
	return "", ""
}

func (c ManualConfig) validate(used bool) invalid.List {
	var l invalid.List
	for i, s := range []Secret{c.Inbound, c.Outbound} {
		key := []string{"inbound", "outbound"}[i]
		if used && s.IsZero() {
			l.Add(key, "give file:/path or env:NAME", "is missing")
		}
		if !used && !s.IsZero() {
			l.Add(key, "set keying: manual, or leave it out", "has no meaning while keying is ike")
		}
	}
	within(&l, "grace", c.Grace, time.Second, time.Hour, "1s to 1h")
	return l
}

// ValidateAll checks each tunnel and all of them together; keys start with an index:
// "[1].remote".
func ValidateAll(tunnels []Config) invalid.List {
	var l invalid.List
	ofRealm := make(map[string][]Config)
	for i, c := range tunnels {
		under := fmt.Sprintf("[%d]", i)
		l.Under(under, c.Validate())
		if slices.ContainsFunc(tunnels[:i], func(o Config) bool { return c.Name != "" && o.Name == c.Name }) {
			l.Add(under+".name", "give each tunnel a name of its own", "%q is another tunnel's already", c.Name)
		}
		others := ofRealm[c.Realm]
		for _, o := range others {
			l.Under(under, c.conflicts(o))
		}
		if c.Realm != "" {
			ofRealm[c.Realm] = append(others, c)
		}
		if len(others) == maxTunnels {
			l.Add(under+".realm", fmt.Sprintf("give a realm at most %d", maxTunnels), "%q has more tunnels", c.Realm)
		}
	}
	return l
}

// conflicts finds what c may not have beside o, an earlier tunnel of its realm: one charon
// and one namespace are for both.
func (c Config) conflicts(o Config) invalid.List {
	var l invalid.List
	if c.Remote.IsValid() && c.Remote == o.Remote && c.Local.Addr() == o.Local.Addr() {
		l.Add("remote", "give each tunnel another peer or another local", "%s to %s is tunnel %q's already", c.Local.Addr(), c.Remote, o.Name)
	}
	if c.Keying != IKE || o.Keying != IKE {
		return l
	}
	same := func(key string, equal bool, value, other any) {
		if !equal {
			l.Add("ike."+key, "give the same in all tunnels of a realm", "%v differs from that of tunnel %q (%v)", value, o.Name, other)
		}
	}
	a, b := c.IKE, o.IKE
	same("dpd_delay", a.DPDDelay == b.DPDDelay, a.DPDDelay, b.DPDDelay)
	same("dpd_tries", a.DPDTries == b.DPDTries, a.DPDTries, b.DPDTries)
	same("dpd_timeout", a.DPDTimeout == b.DPDTimeout, a.DPDTimeout, b.DPDTimeout)
	if a.Auth == PSK && b.Auth == PSK && c.localID() == o.localID() && c.remoteID() == o.remoteID() && a.PSK != b.PSK {
		l.Add("ike.psk", "give the same, or other identities", "belongs to the same two identities as that of tunnel %q", o.Name)
	}
	return l
}
