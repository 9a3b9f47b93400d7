package admit

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/tandem-sbc/tandem/pkg/invalid"
)

// maxPerSecond bounds the budgets: beyond it one source may send what a link carries.
const maxPerSecond = 1_000_000

// GuardConfig says what the kernel engine drops at the wire, before a socket or a parser
// sees it (S13, A3). Targets of trunks are known peers: neither the budgets nor the deny
// list, which may not cover them, apply to them.
type GuardConfig struct {
	Deny         []netip.Prefix `yaml:"deny" json:"deny" reload:"hot" doc:"IPv4 prefixes whose packets are dropped on every realm's device, media included. None may cover a trunk's target."`
	SIPPerSecond uint32         `yaml:"sip_per_second" json:"sip_per_second" range:"0-1000000" doc:"Packets a second to a realm's sip_port that one source address may send which is no target of the realm's trunks; a second's worth may come at once. 0 is no limit."`
	UDPPerSecond uint32         `yaml:"udp_per_second" json:"udp_per_second" range:"0-1000000" doc:"The same for UDP packets to a realm's other ports, media_ports aside: what comes there without a call is always dropped."`
}

// SetDefaults fills in what the config may leave out.
func (c *GuardConfig) SetDefaults() { c.SIPPerSecond, c.UDPPerSecond = 50, 100 }

// Validate checks the guard by itself; keys are its own. That no trunk is denied is for
// whoever knows the trunks.
func (c GuardConfig) Validate() invalid.List {
	var l invalid.List
	for i, p := range c.Deny {
		key := fmt.Sprintf("deny[%d]", i)
		switch {
		case !p.IsValid(): // said where it was read
		case !p.Addr().Is4():
			l.Add(key, "give an IPv4 prefix, e.g. 203.0.113.0/24", "%s is not IPv4, and only that is carried so far", p)
		case p != p.Masked():
			l.Add(key, fmt.Sprintf("write %s for the subnet, or %s/32 for the one host", p.Masked(), p.Addr()), "%s is a host in a subnet", p)
		case slices.Contains(c.Deny[:i], p):
			l.Add(key, "leave it out", "%s is listed twice", p)
		}
	}
	l.Between("sip_per_second", int(c.SIPPerSecond), 0, maxPerSecond)
	l.Between("udp_per_second", int(c.UDPPerSecond), 0, maxPerSecond)
	return l
}
