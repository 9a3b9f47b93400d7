// Package realm is the network side of a realm: its addresses and its neighbours.
package realm

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/invalid"
)

// maxInterface is IFNAMSIZ without its final zero.
const maxInterface = 15

// Config is one realm: one network attachment with one address of its own for
// signalling and media (N3).
type Config struct {
	Name      string `yaml:"name" json:"name" required:"true" doc:"Name of the realm, as trunks, logs and metrics use it."`
	Interface string `yaml:"interface" json:"interface" required:"true" doc:"Network interface that the kernel engine attaches to: the physical one, without the VLAN."`
	// VLAN is the 802.1Q tag, 1-4094, or 0 for untagged frames (N1).
	VLAN uint16 `yaml:"vlan" json:"vlan" range:"0-4094" doc:"802.1Q tag; 0 is untagged. The tagged device is called interface.vlan, e.g. eth1.201, and has to exist."`
	// OuterVLAN is the service tag (S-VLAN) around VLAN, 1-4094, or 0 for at most one tag.
	OuterVLAN uint16 `yaml:"outer_vlan" json:"outer_vlan" range:"0-4094" doc:"802.1ad service tag around vlan; 0 is none. The devices are then called interface.outer_vlan and interface.outer_vlan.vlan, e.g. eth1.100 and eth1.100.201, and have to exist."`
	// PCP is the priority code point of IEEE 802.1Q section 9.6, the same in both tags (N1).
	PCP     uint8        `yaml:"pcp" json:"pcp" range:"0-7" doc:"802.1p priority of media frames that the kernel engine sends tagged; 5 is voice. SIP follows the egress-qos-map of the VLAN device."`
	Address netip.Prefix `yaml:"address" json:"address" required:"true" doc:"Own IPv4 address with its prefix length, for SIP and RTP alike. It has to be on the device already."`
	// Gateway is the next hop beyond the subnet; invalid (zero) leaves that to the kernel's routes.
	Gateway    netip.Addr     `yaml:"gateway" json:"gateway,omitzero" doc:"Next hop to peers outside the subnet, whatever the kernel's routes say. Without it media follows the kernel's routes on the realm's device, and their changes; peers with no such route are not reached."`
	SIPPort    uint16         `yaml:"sip_port" json:"sip_port" range:"1024-65535" doc:"UDP port that SIP is sent from and received on."`
	SIPDSCP    uint8          `yaml:"sip_dscp" json:"sip_dscp" range:"0-63" doc:"DSCP of SIP; 24 is CS3."`
	MediaPorts call.PortRange `yaml:"media_ports" json:"media_ports" required:"true" doc:"UDP ports of RTP (even) and RTCP (odd), at least 1024. No two realms may share a port. Keep them out of net.ipv4.ip_local_port_range."`
	DSCP       uint8          `yaml:"dscp" json:"dscp" range:"0-63" doc:"DSCP of RTP and RTCP; 46 is EF."`
}

// SetDefaults fills in what the config may leave out.
func (c *Config) SetDefaults() {
	c.SIPPort = 5060
	c.SIPDSCP = 24
	c.DSCP = 46
	c.PCP = 5
}

// Device is the device that has the realm's address: the interface, or "interface.vlan"
// for a tagged realm, or "interface.outer_vlan.vlan" for one with two tags.
func (c Config) Device() string {
	if c.VLAN == 0 {
		return c.Interface
	}
	return fmt.Sprintf("%s.%d", c.outerDevice(), c.VLAN)
}

// outerDevice is what the device of the inner tag stands on: the interface, or
// "interface.outer_vlan".
func (c Config) outerDevice() string {
	if c.OuterVLAN == 0 {
		return c.Interface
	}
	return fmt.Sprintf("%s.%d", c.Interface, c.OuterVLAN)
}

// SIPAddr is where the realm's SIP stack listens.
func (c Config) SIPAddr() netip.AddrPort { return netip.AddrPortFrom(c.Address.Addr(), c.SIPPort) }

// Validate checks the realm by itself; keys are those of the realm.
func (c Config) Validate() invalid.List {
	var l invalid.List
	l.Name("name", c.Name)
	c.validateDevice(&l)
	c.validateAddress(&l)
	l.Between("sip_port", int(c.SIPPort), 1024, 65535)
	l.Between("sip_dscp", int(c.SIPDSCP), 0, 63)
	l.Between("dscp", int(c.DSCP), 0, 63)
	l.Between("pcp", int(c.PCP), 0, 7)
	c.validatePorts(&l)
	return l
}

func (c Config) validateDevice(l *invalid.List) {
	l.Between("vlan", int(c.VLAN), 0, 4094)
	l.Between("outer_vlan", int(c.OuterVLAN), 0, 4094)
	if c.OuterVLAN != 0 && c.VLAN == 0 {
		l.Add("outer_vlan", "give the inner tag as vlan; a single tag is vlan alone", "%d has no tag inside", c.OuterVLAN)
	}
	switch {
	case c.Interface == "":
		l.Add("interface", "give the name that `ip link` shows, e.g. eth1", "is missing")
	case c.Interface == "." || c.Interface == ".." || strings.ContainsAny(c.Interface, "/: \t\n\x00"):
		l.Add("interface", "give the name that `ip link` shows, e.g. eth1", "%q is not an interface name", c.Interface)
	case len(c.Interface) > maxInterface:
		l.Add("interface", fmt.Sprintf("Linux allows %d", maxInterface), "%q has %d characters", c.Interface, len(c.Interface))
	case len(c.Device()) > maxInterface:
		l.Add("interface", fmt.Sprintf("Linux allows %d: rename the interface", maxInterface),
			"its VLAN device would be called %q, %d characters", c.Device(), len(c.Device()))
	case c.VLAN == 0 && strings.Contains(c.Interface, "."):
		base, tags, _ := strings.Cut(c.Interface, ".")
		remedy := fmt.Sprintf("write interface: %s and vlan: %s", base, tags)
		if outer, inner, double := strings.Cut(tags, "."); double {
			remedy = fmt.Sprintf("write interface: %s, outer_vlan: %s and vlan: %s", base, outer, inner)
		}
		l.Add("interface", remedy, "%q is a VLAN device", c.Interface)
	}
}

func (c Config) validateAddress(l *invalid.List) {
	a := c.Address.Addr()
	switch {
	case !c.Address.IsValid():
		l.Add("address", "give the realm's own address with its prefix length, e.g. 192.0.2.2/24", "is missing")
		return
	case !a.Is4():
		l.Add("address", "give an IPv4 address", "%s is not IPv4, and only that is carried so far", c.Address)
		return
	case a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		l.Add("address", "give the realm's own address", "%s is no host's address", c.Address)
		return
	case c.Address.Bits() < 8:
		l.Add("address", "give a prefix length from 8 to 32", "/%d would make most of the world the realm's own subnet", c.Address.Bits())
	case c.Address.Bits() < 31 && a == c.Address.Masked().Addr():
		l.Add("address", fmt.Sprintf("give a host's address in it, e.g. %s/%d", a.Next(), c.Address.Bits()), "%s is the subnet itself", c.Address)
	case c.Address.Bits() < 31 && a == lastAddr(c.Address):
		l.Add("address", fmt.Sprintf("give a host's address in it, e.g. %s/%d", a.Prev(), c.Address.Bits()), "%s is the subnet's broadcast address", c.Address)
	}
	switch g := c.Gateway; {
	case !g.IsValid():
	case !c.Address.Contains(g):
		l.Add("gateway", "give a router of that subnet", "%s is outside %s", g, c.Address.Masked())
	case g == a:
		l.Add("gateway", "give the router's address", "%s is the realm's own address", g)
	}
}

func (c Config) validatePorts(l *invalid.List) {
	r := c.MediaPorts
	switch {
	case r == call.PortRange{}:
		l.Add("media_ports", "give FIRST-LAST, e.g. 16384-24575", "is missing")
	case r.First < 1024:
		l.Add("media_ports", "start at 1024 or above", "%s holds ports below 1024", r) // M9
	case r.First == r.Last:
		l.Add("media_ports", "give FIRST-LAST, e.g. 16384-24575", "%s is not even a pair of ports", r)
	case r.First%2 != 0:
		l.Add("media_ports", fmt.Sprintf("RTP takes the even port of a pair: start at %d", r.First+1), "%s starts at an odd port", r)
	case r.Last%2 == 0:
		l.Add("media_ports", fmt.Sprintf("RTCP takes the odd port of a pair: end at %d", r.Last+1), "%s ends at an even port", r)
	}
	if r.Contains(c.SIPPort) {
		l.Add("sip_port", "move one of the two", "%d lies in the realm's media_ports %s", c.SIPPort, r)
	}
}

// ValidateAll checks each realm and all of them together; keys start with an
// index: "[1].media_ports".
func ValidateAll(realms []Config) invalid.List {
	var l invalid.List
	for i, c := range realms {
		under := fmt.Sprintf("[%d]", i)
		l.Under(under, c.Validate())
		for _, o := range realms[:i] {
			l.Under(under, c.conflicts(o))
		}
		if j := overlapping(realms[:i], c.MediaPorts); j >= 0 {
			l.Add(under+".media_ports", "give each realm a range of its own"+example(realms, i),
				"%s overlaps realm %q (%s)", c.MediaPorts, realms[j].Name, realms[j].MediaPorts)
		}
	}
	return l
}

// conflicts finds what c may not share with an earlier realm.
func (c Config) conflicts(o Config) invalid.List {
	var l invalid.List
	if c.Name != "" && c.Name == o.Name {
		l.Add("name", "give each realm a name of its own", "%q is another realm's already", c.Name)
	}
	if a := c.Address.Addr(); a.IsValid() && a == o.Address.Addr() {
		l.Add("address", "give each realm an address of its own", "%s is realm %q's already", a, o.Name) // N3
	}
	return l
}

// overlapping returns the first realm that has a port of r, or -1.
func overlapping(realms []Config, r call.PortRange) int {
	if r == (call.PortRange{}) {
		return -1
	}
	return slices.IndexFunc(realms, func(o Config) bool {
		return o.MediaPorts != call.PortRange{} && o.MediaPorts.Overlaps(r)
	})
}

// example finds a free range for realm i, of its size and starting right behind
// another, and says ", e.g. ..."; empty if there is none.
func example(realms []Config, i int) string {
	size := int(realms[i].MediaPorts.Last) - int(realms[i].MediaPorts.First)
	starts := []int{16384}
	for _, o := range realms {
		starts = append(starts, int(o.MediaPorts.Last)+1)
	}
	slices.Sort(starts)
	others := slices.Concat(realms[:i], realms[i+1:])
	for _, first := range starts {
		last := first + size
		if first < 1024 || first%2 != 0 || last > 65535 {
			continue
		}
		free := call.PortRange{First: uint16(first), Last: uint16(last)}
		if overlapping(others, free) < 0 && !free.Contains(realms[i].SIPPort) {
			return ", e.g. " + free.String()
		}
	}
	return ""
}

func lastAddr(p netip.Prefix) netip.Addr {
	a := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		a[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(a)
}
