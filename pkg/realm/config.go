// Package realm is the network side of a realm: its devices, VRF, addresses, routes and
// neighbours (N1 to N9).
package realm

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/resolve"
)

// Whose business a realm's devices, addresses and routes are.
const (
	// Managed are made, kept and removed by the daemon, in a VRF of the realm's own.
	Managed = "managed"
	// Existing are somebody else's: the daemon only looks.
	Existing = "existing"
)

// maxInterface is IFNAMSIZ without its final zero.
const maxInterface = 15

// Config is one realm: one network attachment with one address of its own for
// signalling and media (N3).
type Config struct {
	Name string `yaml:"name" json:"name" required:"true" doc:"Name of the realm, as trunks, logs and metrics use it."`
	// Network says whose business devices, addresses and routes are: Managed or Existing (N9).
	Network   string `yaml:"network" json:"network" enum:"managed,existing" doc:"managed: the daemon makes the VLAN device, a VRF, addresses and routes, puts back what is missing and removes what the config no longer has. existing: all of it is there already, and nothing is changed; no tunnels then."`
	Interface string `yaml:"interface" json:"interface" required:"true" doc:"Network interface that the kernel engine attaches to: the physical one, without the VLAN."`
	// VLAN is the 802.1Q tag, 1-4094, or 0 for untagged frames (N1).
	VLAN uint16 `yaml:"vlan" json:"vlan" range:"0-4094" doc:"802.1Q tag; 0 is untagged. The tagged device is called interface.vlan, e.g. eth1.201."`
	// OuterVLAN is the service tag (S-VLAN) around VLAN, 1-4094, or 0 for at most one tag.
	OuterVLAN uint16 `yaml:"outer_vlan" json:"outer_vlan" range:"0-4094" doc:"802.1ad service tag around vlan; 0 is none. The devices are then called interface.outer_vlan and interface.outer_vlan.vlan, e.g. eth1.100 and eth1.100.201."`
	// PCP is the priority code point of IEEE 802.1Q section 9.6, the same in both tags (N1).
	PCP uint8 `yaml:"pcp" json:"pcp" range:"0-7" doc:"802.1p priority of media frames that the kernel engine sends tagged; 5 is voice."`
	// SIPPCP is that of SIP, by the egress map of the VLAN device.
	SIPPCP  uint8        `yaml:"sip_pcp" json:"sip_pcp" range:"0-7" doc:"802.1p priority of SIP; 3 is critical applications. With network: existing, the egress-qos-map of the VLAN device decides what becomes of it."`
	Address netip.Prefix `yaml:"address" json:"address" required:"true" doc:"Own IPv4 address with its prefix length, for SIP and RTP alike. Managed realms may have equal ones: each has a VRF of its own."`
	// Gateway is the next hop beyond the subnet; invalid (zero) leaves that to the kernel's routes.
	Gateway    netip.Addr     `yaml:"gateway" json:"gateway,omitzero" doc:"Next hop to peers outside the subnet. Managed: the default route of the realm's VRF. Existing: whatever the kernel's routes say; without it media follows the kernel's routes on the realm's device, and their changes. Peers with no route are not reached."`
	SIPPort    uint16         `yaml:"sip_port" json:"sip_port" range:"1024-65535" doc:"UDP port that SIP is sent from and received on."`
	SIPDSCP    uint8          `yaml:"sip_dscp" json:"sip_dscp" range:"0-63" doc:"DSCP of SIP; 24 is CS3."`
	MediaPorts call.PortRange `yaml:"media_ports" json:"media_ports" required:"true" doc:"UDP ports of RTP (even) and RTCP (odd), at least 1024. No two realms may share a port. Keep them out of net.ipv4.ip_local_port_range."`
	DSCP       uint8          `yaml:"dscp" json:"dscp" range:"0-63" doc:"DSCP of RTP and RTCP; 46 is EF."`
	// MTU is that of the device with the realm's address, or of the tunnels' outer side, in bytes.
	MTU uint16 `yaml:"mtu" json:"mtu" range:"0-9000" doc:"MTU of the realm's device, 576-9000 bytes; 0 leaves it as it is. That of a tunnel is the tunnel's own."`
	// MaxCalls and MaxRate bound all trunks of the realm together (T3, T4).
	MaxCalls int       `yaml:"max_calls" json:"max_calls" range:"0-1000000" reload:"hot" doc:"Most calls at once of all trunks of the realm together, both directions: a call between two trunks of the realm counts twice. 0 is no limit of the realm's own. Beyond it calls from the realm get 503 with Retry-After, and calls to it go by trunks of others."`
	MaxRate  call.Rate `yaml:"max_rate" json:"max_rate,omitzero" reload:"hot" doc:"Most new calls in a time of all trunks of the realm together, e.g. 40/5s, each direction by itself; so many may come at once. Left out, there is no limit."`
	// DNS is for names among the targets of the realm's trunks (T9).
	DNS resolve.Config `yaml:"dns" json:"dns,omitzero" doc:"DNS that names among the targets of the realm's trunks are looked up by."`
	// Routes are static ones besides the gateway's (N8).
	Routes []Route `yaml:"routes" json:"routes,omitempty" doc:"Static routes of the realm, by routers in its subnet."`
	// KeepCalls is how long running calls are kept while no tunnel of the realm is up.
	KeepCalls time.Duration `yaml:"keep_calls" json:"keep_calls" range:"0s-24h" doc:"How long running calls are kept while no tunnel of the realm is up. Realms without tunnels do not use it."`
	// ReturnAfter is how long the primary tunnel must have been up before traffic returns to it.
	ReturnAfter time.Duration `yaml:"return_after" json:"return_after" range:"0s-24h" doc:"How long a tunnel of better rank has to be up before traffic returns to it."`
}

// Route is a static route of a realm (N8).
type Route struct {
	To  netip.Prefix `yaml:"to" json:"to" required:"true" doc:"IPv4 prefix that the route is for."`
	Via netip.Addr   `yaml:"via" json:"via" required:"true" doc:"Router in the realm's subnet."`
}

// SetDefaults fills in what the config may leave out.
func (c *Config) SetDefaults() {
	c.Network = Managed
	c.SIPPort = 5060
	c.SIPDSCP = 24
	c.DSCP = 46
	c.PCP = 5
	c.SIPPCP = 3
	c.KeepCalls = time.Minute
	c.ReturnAfter = 10 * time.Second
	c.DNS.SetDefaults()
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
