// Package trunk holds the trunks and their groups: who a peer is, how many calls it
// may have, and in which order the trunks of a group are tried.
package trunk

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/invalid"
)

// Kinds of trunks.
const (
	Platform = "platform"
	Carrier  = "carrier"
)

// Strategies of groups (T2).
const (
	RoundRobin = "round_robin"
	Priority   = "priority"
)

// Sources of media (M7).
const (
	Strict = "strict"
	Latch  = "latch"
)

// Ways that keys travel (M5).
const (
	DTMFEvents = "events"
	DTMFInband = "inband"
	DTMFNone   = "none"
)

// Ways to find out whether the peer takes calls, after its realm's tunnel was down.
const (
	ProbeOptions = "options"
	ProbeNone    = "none"
)

// defaultPort of SIP over UDP (RFC 3261 section 19.1.2).
const defaultPort = 5060

// codecs in their registered spelling that a description may name for audio. What
// Tandem does not know cannot be checked against a slip of the finger.
var codecs = []string{
	"opus", "PCMA", "PCMU", "G722", "G729", "G723", "G728", "GSM", "iLBC", "L16", "speex", "AMR", "AMR-WB", "EVS",
	"G726-16", "G726-24", "G726-32", "G726-40", "G7221", "G729D", "G729E", "GSM-EFR", "GSM-HR-08", "SILK",
}

// Config is one SIP peer inside a realm (T1).
type Config struct {
	Name        string        `yaml:"name" json:"name" required:"true" doc:"Name of the trunk, as groups, routes, records and metrics use it."`
	Realm       string        `yaml:"realm" json:"realm" required:"true" doc:"Realm that the peer is reached through."`
	Kind        string        `yaml:"kind" json:"kind" required:"true" enum:"platform,carrier" doc:"What the peer is: the contact centre's platform, or a carrier."`
	Transport   string        `yaml:"transport" json:"transport" enum:"udp" doc:"SIP transport."`
	Targets     []string      `yaml:"targets" json:"targets" required:"true" doc:"The peer's IPv4 addresses, with a port if it is not 5060. Calls out take them in turn; calls in are known by them, whatever their source port."`
	Codecs      []string      `yaml:"codecs" json:"codecs" doc:"Audio codecs that the peer may be offered and may offer, in any spelling; telephone-event and comfort noise come with them."`
	MaxCalls    int           `yaml:"max_calls" json:"max_calls" range:"0-1000000" doc:"Most calls at once, both directions together; 0 is no limit of the trunk's own. Beyond it calls get 503 with Retry-After."`
	RingTimeout time.Duration `yaml:"ring_timeout" json:"ring_timeout" range:"1s-10m" doc:"How long an attempt out may ring before it is cancelled."`
	Probe       string        `yaml:"probe" json:"probe" enum:"options,none" doc:"How the trunk of a realm with tunnels goes into service when a tunnel has come up: options asks each target with OPTIONS, once a second at most, until one gives a final answer other than 408 and 503; none needs no answer. Realms without tunnels are always in service."`

	MediaSource   string         `yaml:"media_source" json:"media_source" enum:"strict,latch" doc:"Whose media is let in: strict takes it from the address and port of the peer's SDP only; latch is for a peer behind NAT and takes the first source of media_prefixes that sends RTP within latch_window, for good."`
	LatchWindow   time.Duration  `yaml:"latch_window" json:"latch_window" range:"1s-60s" doc:"With latch: how long the source may be learned after each answer to an offer (183, 200) and each change of the peer's SDP. Once learned it stays until the SDP names another address."`
	MediaPrefixes []netip.Prefix `yaml:"media_prefixes" json:"media_prefixes" doc:"With latch: the IPv4 networks that media may be learned from, at most 8. Left out, these are the addresses of targets and the one in the peer's SDP."`

	DTMF            string `yaml:"dtmf" json:"dtmf" enum:"events,inband,none" doc:"How keys travel: events are telephone-events (RFC 4733); inband leaves them to the audio, which is then PCMA or PCMU only; none offers nothing for them."`
	DTMFPayloadType uint8  `yaml:"dtmf_payload_type" json:"dtmf_payload_type" range:"96-127" doc:"RTP payload type that telephone-event is offered with. A peer that offers it keeps its own."`

	IdleTimeout       time.Duration `yaml:"idle_timeout" json:"idle_timeout" range:"0s-24h" doc:"How long neither side of a two-way call may send audio before the call is ended; 0s is never, otherwise at least 10s. Of both trunks the shorter time counts."`
	IdleTimeoutOneWay time.Duration `yaml:"idle_timeout_one_way" json:"idle_timeout_one_way" range:"0s-168h" doc:"The same for a call that is on hold or one-way, and for one side alone of a two-way call; 0s is never, otherwise at least 10s."`
}

// SetDefaults fills in what the config may leave out.
func (c *Config) SetDefaults() {
	c.Transport = "udp"
	c.Codecs = []string{"opus", "PCMA", "PCMU", "G722", "G729"}
	c.RingTimeout = 180 * time.Second
	c.Probe = ProbeOptions
	c.MediaSource = Strict
	c.LatchWindow = 5 * time.Second
	c.DTMF = DTMFEvents
	c.DTMFPayloadType = 101
	c.IdleTimeout = 5 * time.Minute
	c.IdleTimeoutOneWay = 12 * time.Hour
}

// GroupConfig is a set of trunks that can stand in for each other (T2).
type GroupConfig struct {
	Name     string   `yaml:"name" json:"name" required:"true" doc:"Name of the group, as routes use it."`
	Trunks   []string `yaml:"trunks" json:"trunks" required:"true" doc:"Members, all of one kind. A call tries each of them once at most."`
	Strategy string   `yaml:"strategy" json:"strategy" enum:"round_robin,priority" doc:"round_robin starts each call at the next member; priority always at the first."`
}

// SetDefaults fills in what the config may leave out.
func (c *GroupConfig) SetDefaults() { c.Strategy = RoundRobin }

// Validate checks the trunk by itself; keys are those of the trunk. That its realm
// exists is for whoever knows the realms.
func (c Config) Validate() invalid.List {
	var l invalid.List
	l.Name("name", c.Name)
	if c.Realm == "" {
		l.Add("realm", "name one of the realms", "is missing")
	}
	l.OneOf("kind", c.Kind, Platform, Carrier)
	l.OneOf("transport", c.Transport, "udp")
	c.validateTargets(&l)
	c.validateCodecs(&l)
	l.Between("max_calls", c.MaxCalls, 0, 1_000_000)
	if c.RingTimeout < time.Second || c.RingTimeout > 10*time.Minute { // T10
		l.Add("ring_timeout", "give 1s to 10m", "%s is out of range", c.RingTimeout)
	}
	l.OneOf("probe", c.Probe, ProbeOptions, ProbeNone)
	c.validateSource(&l)
	c.validateDTMF(&l)
	validateIdle(&l, "idle_timeout", c.IdleTimeout, 24*time.Hour)
	validateIdle(&l, "idle_timeout_one_way", c.IdleTimeoutOneWay, 7*24*time.Hour)
	return l
}

// minPrefixBits is how long a prefix must be. Whoever may learn from everywhere lets
// everybody take a call's media over.
const minPrefixBits = 8

// validateSource checks whose media is let in (M7).
func (c Config) validateSource(l *invalid.List) {
	l.OneOf("media_source", c.MediaSource, Strict, Latch)
	if c.LatchWindow < time.Second || c.LatchWindow > time.Minute {
		l.Add("latch_window", "give 1s to 60s", "%s is out of range", c.LatchWindow)
	}
	switch {
	case c.MediaSource == Strict && len(c.MediaPrefixes) > 0:
		l.Add("media_prefixes", "set media_source: latch, or leave it out", "has no meaning while media_source is strict")
	case len(c.MediaPrefixes) > call.MaxPrefixes:
		l.Add("media_prefixes", fmt.Sprintf("give at most %d, wider ones", call.MaxPrefixes), "has %d entries", len(c.MediaPrefixes))
	case c.MediaSource == Latch && len(c.MediaPrefixes) == 0 && c.hosts() >= call.MaxPrefixes:
		l.Add("media_prefixes", fmt.Sprintf("give at most %d networks that media may be learned from", call.MaxPrefixes),
			"is missing, and %d targets are too many to stand in", c.hosts())
	}
	for i, p := range c.MediaPrefixes {
		key := fmt.Sprintf("media_prefixes[%d]", i)
		switch {
		case !p.IsValid():
			l.Add(key, "write it like 192.0.2.0/24", "is no network")
		case !p.Addr().Is4():
			l.Add(key, "give an IPv4 network", "%s is IPv6, and only IPv4 is carried so far", p)
		case p.Bits() < minPrefixBits:
			l.Add(key, "give the networks that the peer's media comes from", "%s lets nearly everybody take over a call's media", p)
		case p != p.Masked():
			l.Add(key, "write "+p.Masked().String()+", or "+p.Addr().String()+"/32 for one host", "%s has bits behind its length", p)
		case p.Addr().IsMulticast() || p.Addr().IsUnspecified():
			l.Add(key, "give the networks that the peer's media comes from", "%s has no hosts", p)
		case slices.Contains(c.MediaPrefixes[:i], p):
			l.Add(key, "leave it out", "%s is listed twice", p)
		}
	}
}

// hosts is the number of addresses among the targets.
func (c Config) hosts() int {
	hosts := make(map[netip.Addr]bool, len(c.Targets))
	for _, text := range c.Targets {
		if target, err := ParseTarget(text); err == nil {
			hosts[target.Addr()] = true
		}
	}
	return len(hosts)
}

// validateDTMF checks how keys travel (M5).
func (c Config) validateDTMF(l *invalid.List) {
	l.OneOf("dtmf", c.DTMF, DTMFEvents, DTMFInband, DTMFNone)
	l.Between("dtmf_payload_type", int(c.DTMFPayloadType), 96, 127)
	g711 := func(name string) bool { return strings.EqualFold(name, "PCMA") || strings.EqualFold(name, "PCMU") }
	if c.DTMF == DTMFInband && !slices.ContainsFunc(c.Codecs, g711) {
		l.Add("dtmf", "add one of them to codecs, or choose another way", "inband tones need PCMA or PCMU, and codecs has neither")
	}
}

// shortestIdle leaves a peer that suppresses silence time to say something.
const shortestIdle = 10 * time.Second

// validateIdle checks a bound on silence; 0 is none (M8).
func validateIdle(l *invalid.List, key string, d, most time.Duration) {
	if d != 0 && (d < shortestIdle || d > most) {
		l.Add(key, fmt.Sprintf("give 10s to %dh, or 0s for never", int(most.Hours())), "%s is out of range", d)
	}
}

func (c Config) validateTargets(l *invalid.List) {
	if len(c.Targets) == 0 {
		l.Add("targets", "give at least one address, e.g. [192.0.2.10:5060]", "is missing")
	}
	seen := make(map[netip.AddrPort]bool)
	for i, text := range c.Targets {
		key := fmt.Sprintf("targets[%d]", i)
		target, err := ParseTarget(text)
		if f := (invalid.Field{}); errors.As(err, &f) {
			l.Under(key, invalid.List{f})
			continue
		}
		if seen[target] {
			l.Add(key, "leave it out", "%s is listed twice", target)
		}
		seen[target] = true
	}
}

func (c Config) validateCodecs(l *invalid.List) {
	if len(c.Codecs) == 0 {
		l.Add("codecs", "list at least one, or leave the key out for the usual ones", "is empty")
	}
	for i, name := range c.Codecs {
		key := fmt.Sprintf("codecs[%d]", i)
		same := func(o string) bool { return strings.EqualFold(o, name) }
		switch {
		case same("telephone-event") || same("CN"):
			l.Add(key, "leave it out", "%s goes along with every codec by itself", name)
		case !slices.ContainsFunc(codecs, same):
			l.Add(key, invalid.Suggest(name, codecs, "codecs are "+strings.Join(codecs, ", ")), "no codec %q is known", name)
		case slices.ContainsFunc(c.Codecs[:i], same):
			l.Add(key, "leave it out", "%s is listed twice", name)
		}
	}
}

// ParseTarget reads "ADDRESS" or "ADDRESS:PORT"; the port is 5060 if left out. Its
// error is an invalid.Field without a key.
func ParseTarget(text string) (netip.AddrPort, error) {
	host, port, hasPort := strings.Cut(text, ":")
	addr, err := netip.ParseAddr(host)
	switch {
	case text == "":
		return netip.AddrPort{}, invalid.Field{Problem: "is empty", Remedy: "give an IPv4 address, e.g. 192.0.2.10:5060"}
	case err != nil && looksIPv6(text):
		return netip.AddrPort{}, invalid.Field{Problem: fmt.Sprintf("%q is IPv6, and only IPv4 is carried so far", text), Remedy: "give an IPv4 address"}
	case err != nil && strings.Trim(host, "0123456789.") != "":
		return netip.AddrPort{}, invalid.Field{
			Problem: fmt.Sprintf("%q is a name, and names are not resolved yet", host),
			Remedy:  "give the peer's IPv4 addresses, e.g. 192.0.2.10:5060",
		}
	case err != nil:
		return netip.AddrPort{}, invalid.Field{Problem: fmt.Sprintf("%q is not an IPv4 address", host), Remedy: "write it like 192.0.2.10:5060"}
	case addr.IsUnspecified() || addr.IsMulticast() || addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return netip.AddrPort{}, invalid.Field{Problem: fmt.Sprintf("%s is no host's address", addr), Remedy: "give the peer's own address"}
	case !hasPort:
		return netip.AddrPortFrom(addr, defaultPort), nil
	}
	target, err := netip.ParseAddrPort(text)
	if err != nil || target.Port() == 0 {
		return netip.AddrPort{}, invalid.Field{Problem: fmt.Sprintf("%q is not a port", port), Remedy: "give a port from 1 to 65535, or leave it out for 5060"}
	}
	return target, nil
}

// looksIPv6 reports whether text is an IPv6 address, with or without a port.
func looksIPv6(text string) bool {
	_, err := netip.ParseAddr(text)
	_, portErr := netip.ParseAddrPort(text)
	return err == nil || portErr == nil
}
