// Package ipsec sets up and keeps the tunnels of the realms: one charon per tunnelled
// realm for those with IKE, and security associations of its own for those without.
package ipsec

import (
	"net/netip"
	"time"
)

// Keyings of tunnels.
const (
	IKE    = "ike"
	Manual = "manual"
)

// Ways of NAT traversal (I4).
const (
	NATAuto   = "auto"
	NATAlways = "always"
	NATNever  = "never"
)

// Ways of authentication (I1).
const (
	PSK         = "psk"
	Certificate = "certificate"
)

// Monitors that are no address.
const (
	MonitorAuto = "auto"
	MonitorNone = "none"
)

// Config is one tunnel of a realm (I6). The order of a realm's tunnels in the list is
// their rank: the first is the primary one, the others are its backups.
type Config struct {
	Name  string `yaml:"name" json:"name" required:"true" doc:"Name of the tunnel, as logs, metrics and the CLI use it. Unique among all tunnels."`
	Realm string `yaml:"realm" json:"realm" required:"true" doc:"Realm whose traffic the tunnel carries. The first tunnel of a realm is its primary one, the others are backups in their order."`
	// Interface, VLAN and OuterVLAN are the outer side's.
	Interface string       `yaml:"interface" json:"interface" doc:"Network interface of the outer side: the physical one, without the VLAN. Left out, it is the realm's, with the realm's tags."`
	VLAN      uint16       `yaml:"vlan" json:"vlan" range:"1-4094" doc:"802.1Q tag of the outer side: with interface it has to be given, without it is the realm's."`
	OuterVLAN uint16       `yaml:"outer_vlan" json:"outer_vlan" range:"0-4094" doc:"802.1ad service tag around vlan; 0 is none. Only with interface."`
	Local     netip.Prefix `yaml:"local" json:"local" required:"true" doc:"Own outer IPv4 address with its prefix length: where ESP and IKE are sent from."`
	Gateway   netip.Addr   `yaml:"gateway" json:"gateway,omitzero" doc:"Next hop to remote if that is beyond the subnet of local."`
	Remote    netip.Addr   `yaml:"remote" json:"remote" required:"true" doc:"The peer's outer IPv4 address."`

	Networks []netip.Prefix `yaml:"networks" json:"networks" required:"true" doc:"IPv4 networks behind the peer: the remote traffic selectors, and the realm's routes into the tunnel. The local selector is the realm's address alone."`
	MTU      uint16         `yaml:"mtu" json:"mtu" range:"576-9000" doc:"Largest inner IP packet. ESP takes up to 54 bytes more, with NAT traversal up to 66: on an outer side with 1500 at most 1400 is safe."` // N7

	Keying       string `yaml:"keying" json:"keying" enum:"ike,manual" doc:"Where keys come from: ike negotiates them (IKEv2); manual takes them from manual, for peers without IKE."`
	NATTraversal string `yaml:"nat_traversal" json:"nat_traversal" enum:"auto,always,never" doc:"With ike: ESP inside UDP port 4500 when a NAT is found (auto), or always. never does not carry traffic by a tunnel in which a NAT was found: it is ended, with the cause nat-detected."` // I4

	Monitor         string        `yaml:"monitor" json:"monitor" doc:"Whom to send echo requests (ICMP) to, through the tunnel: auto is the first target of the realm's first trunk, of a name its first address, and its silence counts only once it has answered (where that is a name whose DNS servers are behind the tunnel, give an address instead: DNS could not tell of another one once the tunnel is taken for dead); none is nobody; or an IPv4 address, which has to answer. With auto all tunnels of a realm ask the same host: if that alone falls silent none of them is used, and the realm is out of service. Where that host may fail by itself, give an address behind the peer that does not."`
	MonitorInterval time.Duration `yaml:"monitor_interval" json:"monitor_interval" range:"100ms-1m" doc:"Time between two echo requests."`
	MonitorLost     int           `yaml:"monitor_lost" json:"monitor_lost" range:"1-100" doc:"Echo requests in a row without an answer after which the tunnel is not used."`

	IKE    IKEConfig    `yaml:"ike" json:"ike" doc:"How keys are negotiated."`
	Manual ManualConfig `yaml:"manual" json:"manual" doc:"Where manual keys are."`
}

// IKEConfig is how keys are negotiated (I1, I2, I3).
type IKEConfig struct {
	LocalID     string `yaml:"local_id" json:"local_id,omitempty" doc:"Own identity: an address, a name, user@name, or a certificate's subject. Left out, it is the address of local."`
	RemoteID    string `yaml:"remote_id" json:"remote_id,omitempty" doc:"The peer's identity, in the same forms. Left out, it is remote."`
	Auth        string `yaml:"auth" json:"auth" enum:"psk,certificate" doc:"How both sides prove who they are."`
	PSK         Secret `yaml:"psk" json:"psk" doc:"With psk: where the pre-shared key is, file:/path or env:NAME."`
	Certificate string `yaml:"certificate" json:"certificate,omitempty" doc:"With certificate: file with our own, PEM, the issuing authorities behind it if there are any in between."`
	Key         Secret `yaml:"key" json:"key" doc:"With certificate: where its private key is, PEM without a password, file:/path or env:NAME."`
	CA          string `yaml:"ca" json:"ca,omitempty" doc:"With certificate: file with the authority that issued the peer's certificate, PEM."`

	Proposals    []string `yaml:"proposals" json:"proposals" doc:"Algorithms of IKE in order of preference: encryption, PRF and group, joined by dashes."`
	ESPProposals []string `yaml:"esp_proposals" json:"esp_proposals" doc:"Algorithms of ESP in order of preference: encryption, the group of perfect forward secrecy, and esn for extended sequence numbers."`

	Lifetime      time.Duration `yaml:"lifetime" json:"lifetime" range:"1m-168h" doc:"Longest life of an IKE security association. New keys come some time before."`
	ChildLifetime time.Duration `yaml:"child_lifetime" json:"child_lifetime" range:"30s-24h" doc:"Longest life of an ESP security association. New keys come some time before."`

	DPDDelay   time.Duration `yaml:"dpd_delay" json:"dpd_delay" range:"1s-1h" doc:"Silence after which the peer is asked for a sign of life. This and the next two are the same in all tunnels of a realm."`
	DPDTries   int           `yaml:"dpd_tries" json:"dpd_tries" range:"1-10" doc:"How often a request without an answer is repeated before the peer is given up."`
	DPDTimeout time.Duration `yaml:"dpd_timeout" json:"dpd_timeout" range:"100ms-1m" doc:"How long each try waits for the answer."`

	ReplayWindow int `yaml:"replay_window" json:"replay_window" range:"128-4096" doc:"Packets that may be late without being taken for replayed ones."`
}

// ManualConfig is where the keys of a tunnel without IKE are (I5).
type ManualConfig struct {
	Inbound  Secret        `yaml:"inbound" json:"inbound" doc:"Where the inbound keys are, file:/path or env:NAME: lines of SPI and KEY. SPI is 256 or more, KEY 72 hex digits: AES-256 key and salt (RFC 4106)."`
	Outbound Secret        `yaml:"outbound" json:"outbound" doc:"Where the outbound key is: one such line."`
	Grace    time.Duration `yaml:"grace" json:"grace" range:"1s-1h" doc:"How long old keys are still good for after a change."`
}

// SetDefaults fills in what the config may leave out.
func (c *Config) SetDefaults() {
	c.MTU = 1200
	c.Keying = IKE
	c.NATTraversal = NATAuto
	c.Monitor = MonitorAuto
	c.MonitorInterval = 300 * time.Millisecond
	c.MonitorLost = 3
	c.IKE = IKEConfig{
		Auth: PSK,
		Proposals: []string{
			"aes256gcm16-prfsha384-ecp384", "aes256gcm16-prfsha384-ecp256", "aes256gcm16-prfsha384-ecp521", "aes256gcm16-prfsha384-modp2048",
		},
		// A proposal with esn is refused by peers that know only short sequence numbers,
		// so each group is offered with and without.
		ESPProposals: []string{
			"aes256gcm16-ecp384-esn", "aes256gcm16-ecp256-esn", "aes256gcm16-ecp521-esn", "aes256gcm16-modp2048-esn",
			"aes256gcm16-ecp384", "aes256gcm16-ecp256", "aes256gcm16-ecp521", "aes256gcm16-modp2048",
		},
		Lifetime: 24 * time.Hour, ChildLifetime: time.Hour,
		DPDDelay: 30 * time.Second, DPDTries: 3, DPDTimeout: 2 * time.Second,
		ReplayWindow: 256,
	}
	c.Manual.Grace = 30 * time.Second
}

// localID is the identity that we go by.
func (c Config) localID() string {
	if c.IKE.LocalID != "" {
		return c.IKE.LocalID
	}
	return c.Local.Addr().String()
}

// remoteID is the identity that the peer has to prove.
func (c Config) remoteID() string {
	if c.IKE.RemoteID != "" {
		return c.IKE.RemoteID
	}
	return c.Remote.String()
}

// noticed is how long a peer that is gone may be taken for alive (I3).
func (c IKEConfig) noticed() time.Duration {
	return c.DPDDelay + time.Duration(c.DPDTries+1)*c.DPDTimeout
}
