package realm

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/invalid"
)

// Bounds of what a realm may ask for.
const (
	minMTU, maxMTU = 576, 9000 // bytes; RFC 791 has every host take 576
	maxPatience    = 24 * time.Hour
)

// Validate checks the realm by itself; keys are those of the realm.
func (c Config) Validate() invalid.List {
	var l invalid.List
	l.Name("name", c.Name)
	l.OneOf("network", c.Network, Managed, Existing)
	c.validateDevice(&l)
	c.validateAddress(&l)
	c.validateRoutes(&l)
	l.Between("sip_port", int(c.SIPPort), 1024, 65535)
	l.Between("sip_dscp", int(c.SIPDSCP), 0, 63)
	l.Between("dscp", int(c.DSCP), 0, 63)
	l.Between("pcp", int(c.PCP), 0, maxPriority)
	l.Between("sip_pcp", int(c.SIPPCP), 0, maxPriority)
	if c.MTU != 0 {
		l.Between("mtu", int(c.MTU), minMTU, maxMTU)
	}
	l.Between("max_calls", c.MaxCalls, 0, 1_000_000)
	l.Under("dns", c.DNS.Validate())
	patience(&l, "keep_calls", c.KeepCalls)
	patience(&l, "return_after", c.ReturnAfter)
	c.validatePorts(&l)
	return l
}

func patience(l *invalid.List, key string, d time.Duration) {
	if d < 0 || d > maxPatience {
		l.Add(key, "give 0s to 24h", "%s is out of range", d)
	}
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
	case c.VLAN == 0 && c.Network == Managed && len(c.Interface)+len(labelSuffix) > maxInterface:
		l.Add("interface", fmt.Sprintf("rename it to at most %d characters", maxInterface-len(labelSuffix)),
			"%q has %d characters, too many for the label %q of the realm's address", c.Interface, len(c.Interface), c.Interface+labelSuffix)
	}
}

// validateRoutes checks the static routes (N8).
func (c Config) validateRoutes(l *invalid.List) {
	if len(c.Routes) > 0 && c.Network == Existing {
		l.Add("routes", "make them yourself, or say network: managed", "are somebody else's business with network: existing")
		return
	}
	for i, r := range c.Routes {
		under := fmt.Sprintf("routes[%d]", i)
		switch {
		case !r.To.IsValid():
			l.Add(under+".to", "give an IPv4 prefix, e.g. 203.0.113.0/24", "is missing")
		case !r.To.Addr().Is4():
			l.Add(under+".to", "give an IPv4 prefix", "%s is not IPv4", r.To)
		case r.To != r.To.Masked():
			l.Add(under+".to", fmt.Sprintf("write %s", r.To.Masked()), "%s has bits behind its length", r.To)
		case r.To.Bits() == 0:
			l.Add(under+".to", "give the router as gateway", "%s is the default route", r.To)
		case slices.ContainsFunc(c.Routes[:i], func(o Route) bool { return o.To == r.To }):
			l.Add(under+".to", "give each prefix once", "%s has a route already", r.To)
		}
		switch {
		case !r.Via.IsValid():
			l.Add(under+".via", "give the router's address", "is missing")
		case c.Address.IsValid() && !c.Address.Contains(r.Via):
			l.Add(under+".via", "give a router of that subnet", "%s is outside %s", r.Via, c.Address.Masked())
		case r.Via == c.Address.Addr():
			l.Add(under+".via", "give the router's address", "%s is the realm's own address", r.Via)
		}
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
	apart := c.Network == Managed && o.Network == Managed // each in its VRF (N2)
	if a := c.Address.Addr(); a.IsValid() && a == o.Address.Addr() && !apart {
		l.Add("address", "give each realm an address of its own, or say network: managed for both", "%s is realm %q's already", a, o.Name) // N3
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

// ValidateNetworks checks what realms and their tunnels ask of each other. Keys start with the
// realm's index, and "[1].tunnels[0].vlan" is that of its first tunnel.
func ValidateNetworks(list []Network) invalid.List {
	var l invalid.List
	for i, n := range list {
		under := fmt.Sprintf("[%d]", i)
		l.Under(under, n.validateTunnels())
		if !n.managed() {
			continue
		}
		for _, o := range list[:i] {
			if o.managed() {
				l.Under(under, n.clashes(o))
			}
		}
	}
	return l
}

// validateTunnels checks the tunnels of a realm.
func (n Network) validateTunnels() invalid.List {
	var l invalid.List
	if !n.tunnelled() {
		return nil
	}
	if !n.managed() {
		l.Add("network", "say network: managed", "%q has tunnels, and their devices are for the daemon to make", n.Network)
	}
	if n.Gateway.IsValid() {
		l.Add("gateway", "remove it; a tunnel has a gateway of its own", "%s leads past the realm's tunnels", n.Gateway)
	}
	if len(n.Routes) > 0 {
		l.Add("routes", "remove them, and give the prefixes as networks of the tunnels", "they lead past the realm's tunnels")
	}
	for i, t := range n.Tunnels {
		under := fmt.Sprintf("tunnels[%d]", i)
		if t.VLAN == 0 {
			l.Add(under+".vlan", "give the VLAN of the tunnel's outer side", "is missing: untagged, all of %s would have to leave this network namespace", t.Interface)
		}
		for j, o := range n.Tunnels[:i] {
			switch {
			case t.Local.Addr() == o.Local.Addr() && t.attachment().Device() != o.attachment().Device():
				l.Add(under+".local", "give each VLAN an address of its own", "%s is on %s already, for tunnel %q",
					t.Local.Addr(), o.attachment().Device(), o.Name)
			case t.Local.Overlaps(o.Local) && t.attachment().Device() != o.attachment().Device(): // strict rp_filter would drop what one of them gets
				l.Add(under+".local", "give each VLAN a subnet of its own", "%s overlaps %s on %s, for tunnel %q",
					t.Local, o.Local, o.attachment().Device(), o.Name)
			case t.Local.Addr() == o.Local.Addr() && t.Remote == o.Remote:
				l.Add(under+".remote", "give one of the two another local or remote address", "%s to %s is tunnel %q (number %d) already",
					t.Local.Addr(), t.Remote, o.Name, j+1)
			}
		}
	}
	return l
}

// clashes finds devices that an earlier realm makes.
func (n Network) clashes(o Network) invalid.List {
	var l invalid.List
	for _, c := range n.places() {
		for _, other := range o.places() {
			if c.Interface == other.Interface && c.VLAN == other.VLAN && c.OuterVLAN == other.OuterVLAN {
				l.Add("vlan", "give each realm an interface or a vlan of its own", "%s is realm %q's already", c.Device(), o.Name)
				return l
			}
		}
	}
	if VRFName(n.Name) == VRFName(o.Name) || TunnelDevice(n.Name, 1) == TunnelDevice(o.Name, 1) {
		l.Add("name", "rename one of the two", "devices of %q and of realm %q would have the same names", n.Name, o.Name)
	}
	return l
}
