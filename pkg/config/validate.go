package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/invalid"
	"github.com/tandem-sbc/tandem/pkg/ipsec"
	"github.com/tandem-sbc/tandem/pkg/realm"
	"github.com/tandem-sbc/tandem/pkg/resolve"
	"github.com/tandem-sbc/tandem/pkg/route"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

// Validate checks every part by its own rules, and then what the parts say of each
// other. Keys are paths in the file.
func (c *Config) Validate() invalid.List {
	var l invalid.List
	l.Name("node", c.Node)
	l.OneOf("engine", c.Engine, call.EngineAuto, call.EngineKernel, call.EngineUserspace)
	l.Between("max_calls", c.MaxCalls, 1, 262_144)
	validateEmergency(&l, c.Emergency)
	validatePins(&l, c.Pins)
	within(&l, "drain", c.Drain, 0, 24*time.Hour)
	l.OneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	l.OneOf("log.format", c.Log.Format, "auto", "human", "json")
	within(&l, "media.quarantine", c.Media.Quarantine, 0, 10*time.Minute)
	l.Under("admin", c.Admin.Validate())
	l.Under("metrics", c.Metrics.Validate())
	l.Under("cdr", c.CDR.Validate())

	if len(c.Realms) == 0 {
		l.Add("realms", "describe at least one network attachment", "is missing")
	}
	l.Under("realms", realm.ValidateAll(c.Realms))
	l.Under("tunnels", ipsec.ValidateAll(c.Tunnels))
	c.validateTunnels(&l)
	c.validateAttachments(&l)
	validateIPsec(&l, c.IPsec)
	if len(c.Trunks) == 0 {
		l.Add("trunks", "describe at least one SIP peer", "is missing")
	}
	l.Under("trunks", trunk.ValidateAll(c.Trunks))
	for i, t := range c.Trunks {
		l.Under(fmt.Sprintf("trunks[%d]", i), c.validateReach(t))
	}
	l.Under("guard", c.Guard.Validate())
	c.validateGuard(&l)
	l.Under("groups", trunk.ValidateGroups(c.Groups, c.Trunks))
	if len(c.Routes) == 0 {
		l.Add("routes", "without one no call can go anywhere", "is missing")
	}
	l.Under("routes", route.ValidateAll(c.Routes, trunkNames(c.Trunks), groupNames(c.Groups)))
	c.validateManagement(&l)
	return l
}

// maxNumber is well above the 15 digits of E.164.
const maxNumber = 32

// validateEmergency checks the numbers that no limit holds up (T3).
func validateEmergency(l *invalid.List, numbers []string) {
	for i, number := range numbers {
		key := fmt.Sprintf("emergency[%d]", i)
		switch {
		case number == "" || len(number) > maxNumber || strings.Trim(strings.TrimPrefix(number, "+"), "0123456789*#") != "":
			l.Add(key, `give a number in quotes, e.g. "112"`, "%q is not a number", number)
		case slices.Contains(numbers[:i], number):
			l.Add(key, "leave it out", "%q is listed twice", number)
		}
	}
}

func within(l *invalid.List, key string, d, low, high time.Duration) {
	if d < low || d > high {
		l.Add(key, fmt.Sprintf("give %s to %s", short(low), short(high)), "%s is out of range", d)
	}
}

// validateReach checks that a trunk's realm exists and that the trunk is not ourselves.
// Whether there is a way to the targets is for the kernel's routes to say (N8).
func (c *Config) validateReach(t trunk.Config) invalid.List {
	var l invalid.List
	if t.Realm == "" {
		return nil // said by the trunk itself
	}
	r, found := c.realm(t.Realm)
	if !found {
		l.Add("realm", invalid.Suggest(t.Realm, realmNames(c.Realms), "name one of the realms"), "there is no realm %q", t.Realm)
		return l
	}
	for i, text := range t.Targets {
		target, err := resolve.ParseTarget(text)
		at, isAddr := target.Static(resolve.Transport(t.Transport))
		if err != nil || !isAddr || !r.Address.IsValid() {
			continue // said where it was read, or for DNS to say
		}
		if at == r.SIPAddr() {
			l.Add(fmt.Sprintf("targets[%d]", i), "give the peer's", "%s is this gateway's own address in realm %q", at, r.Name)
		}
	}
	return l
}

// validateGuard keeps the deny list off the trunks (S13).
func (c *Config) validateGuard(l *invalid.List) {
	for i, denied := range c.Guard.Deny {
		if t, target, covered := c.targetIn(denied); covered {
			l.Add(fmt.Sprintf("guard.deny[%d]", i), fmt.Sprintf("deny smaller prefixes that leave %s out, or remove the target", target),
				"%s covers %s, a target of trunk %q", denied, target, t)
		}
	}
}

// targetIn finds the first trunk that has a target in a prefix.
func (c *Config) targetIn(p netip.Prefix) (trunkName string, target netip.Addr, found bool) {
	for _, t := range c.Trunks {
		for _, text := range t.Targets {
			if target, err := resolve.ParseTarget(text); err == nil && p.Contains(target.Addr) {
				return t.Name, target.Addr, true
			}
		}
	}
	return "", netip.Addr{}, false
}

// validateManagement keeps metrics off the realms (N6). Loopback cannot be reached
// from any of them.
func (c *Config) validateManagement(l *invalid.List) {
	address, err := netip.ParseAddrPort(c.Metrics.Address)
	if err != nil || address.Addr().IsLoopback() {
		return
	}
	if address.Addr().IsUnspecified() {
		l.Add("metrics.address", "give the management network's address, or 127.0.0.1", "%s can be reached from every realm", c.Metrics.Address)
		return
	}
	const remedy = "give the management network's address, or 127.0.0.1"
	at := address.Addr().Unmap()
	for _, r := range c.Realms {
		switch {
		case r.Address.Addr() == at:
			l.Add("metrics.address", remedy, "%s can be reached from realm %q", c.Metrics.Address, r.Name)
		case r.Network == realm.Existing && r.Address.IsValid() && r.Address.Contains(at):
			// A managed realm's subnet is in its VRF, whatever its addresses.
			l.Add("metrics.address", remedy, "%s is in the subnet of realm %q", c.Metrics.Address, r.Name)
		}
	}
	for _, t := range c.Tunnels {
		if t.Local.Addr() == at {
			l.Add("metrics.address", remedy, "%s is the outer address of tunnel %q", c.Metrics.Address, t.Name)
		}
	}
}

func realmNames(realms []realm.Config) []string {
	names := make([]string, len(realms))
	for i, r := range realms {
		names[i] = r.Name
	}
	return names
}

func trunkNames(trunks []trunk.Config) []string {
	names := make([]string, len(trunks))
	for i, t := range trunks {
		names[i] = t.Name
	}
	return names
}

func groupNames(groups []trunk.GroupConfig) []string {
	names := make([]string, len(groups))
	for i, g := range groups {
		names[i] = g.Name
	}
	return names
}
