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
	"github.com/tandem-sbc/tandem/pkg/resolve"
)

// Kinds of trunks.
const (
	Platform = "platform"
	Carrier  = "carrier"
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
	Targets     []string      `yaml:"targets" json:"targets" required:"true" doc:"The peer's IPv4 addresses or names, with a port if it is not 5060. Calls out take the entries in turn. Of a name without a port the SRV records count with their priorities and weights, and without any its addresses (RFC 3263); of a name with a port its addresses. Calls in are known by the addresses, whatever their source port. An address that DNS gives to two trunks of a realm is the first one's. At most 64; names lead to 64 addresses of a trunk together, and what DNS has beyond is left out. A trunk that a reload gives a name goes on at its former targets until DNS has answered."`
	Codecs      []string      `yaml:"codecs" json:"codecs" doc:"Audio codecs that the peer may be offered and may offer, in any spelling; telephone-event and comfort noise come with them."`
	MaxCalls    int           `yaml:"max_calls" json:"max_calls" range:"0-1000000" doc:"Most calls at once, both directions together; 0 is no limit of the trunk's own. Beyond it calls get 503 with Retry-After."`
	MaxRate     call.Rate     `yaml:"max_rate" json:"max_rate,omitzero" doc:"Most new calls in a time, e.g. 40/5s, each direction by itself; so many may come at once. Left out, there is no limit. Beyond it calls from the trunk get 503 with Retry-After, and calls to it go by another."`
	RingTimeout time.Duration `yaml:"ring_timeout" json:"ring_timeout" range:"1s-10m" doc:"How long an attempt out may ring before it is cancelled."`
	NoResponse  time.Duration `yaml:"no_response" json:"no_response" range:"0s-32s" doc:"How long an attempt out waits for any response at all before the target is left for the next; 0s is until SIP's own timer of 32s, otherwise at least 100ms."`
	State       string        `yaml:"state" json:"state" enum:"in-service,draining,out-of-service" doc:"Whether the trunk is used: draining and out-of-service take no new calls in either direction, and running calls go on. The tandem command can change it at run time; that holds until this key changes or the gateway is started again."`

	MaxRegisterRate call.Rate `yaml:"max_register_rate" json:"max_register_rate,omitzero" doc:"Most REGISTER requests in a time that the trunk may send, e.g. 40/5s; so many may come at once, and a repetition is not one more. Left out, there is no limit. Beyond it they get 503 with Retry-After; within it 405 as long as Tandem has no registrar."`

	Probe         string        `yaml:"probe" json:"probe" enum:"options,none" doc:"How the gateway finds out whether a target is there: options asks each with OPTIONS; any final answer but those of probe_failures says yes. With none, calls alone tell, and a trunk whose realm's tunnel has come up is in service at once."`
	ProbeInterval time.Duration `yaml:"probe_interval" json:"probe_interval" range:"0s-10m" doc:"Time from one OPTIONS to a target to the next; 0s is 25s to 35s by the trunk's name, so that the trunks take turns; otherwise at least 1s. Retry-After of a 429 or 503 makes it longer, and each 429 without one in a row doubles it, up to 10m."`
	ProbeTimeout  time.Duration `yaml:"probe_timeout" json:"probe_timeout" range:"100ms-32s" doc:"How long an answer to OPTIONS is waited for."`
	ProbeRetries  int           `yaml:"probe_retries" json:"probe_retries" range:"0-10" doc:"How many more times a target that does not answer is asked before it counts as dead."`
	ProbeFailures []int         `yaml:"probe_failures" json:"probe_failures" range:"300-699" doc:"Statuses that answer OPTIONS and do not say that calls are taken."`

	HealthFailures int           `yaml:"health_failures" json:"health_failures" range:"0-1000" doc:"How many calls in a row must fail at a target, by silence, 408 or 503, before it is avoided; one 503 with Retry-After has it avoided for that long, at most 10m. With 0 failed calls never have it avoided, whatever their Retry-After; only probes do."`
	HealthASR      int           `yaml:"health_asr" json:"health_asr" range:"0-100" doc:"Percent of answered calls out, over health_window and at least 20 calls, under which the trunk is degraded: it takes calls only when no other member of a group is left. 0 is never."`
	HealthWindow   time.Duration `yaml:"health_window" json:"health_window" range:"1m-15m" doc:"Time that answer rates and delays are taken over."`

	DemandE164          bool   `yaml:"demand_e164" json:"demand_e164" doc:"Whether calls from the trunk get 484 when neither Request-URI nor To has a number of E.164 (RFC 3966 global number)."`
	CountryCode         string `yaml:"country_code" json:"country_code" doc:"Country of the trunk's numbers, in quotes, e.g. \"49\": calls from it that are dialled nationally or internationally are normalised to E.164 before routes see them. Left out, numbers stay as they come."`
	NationalPrefix      string `yaml:"national_prefix" json:"national_prefix" doc:"What the trunk dials before a national number, in quotes."`
	InternationalPrefix string `yaml:"international_prefix" json:"international_prefix" doc:"What the trunk dials before an international number, in quotes."`

	MediaSource   string         `yaml:"media_source" json:"media_source" enum:"strict,latch" doc:"Whose media is let in: strict takes it from the address and port of the peer's SDP only; latch is for a peer behind NAT and takes the first source of media_prefixes that sends RTP within latch_window, for good."`
	LatchWindow   time.Duration  `yaml:"latch_window" json:"latch_window" range:"1s-60s" doc:"With latch: how long the source may be learned after each answer to an offer (183, 200) and each change of the peer's SDP. Once learned it stays until the SDP names another address."`
	MediaPrefixes []netip.Prefix `yaml:"media_prefixes" json:"media_prefixes" doc:"With latch: the IPv4 networks that media may be learned from, at most 8. Left out, these are the addresses of targets, the first 7 by DNS, and the one in the peer's SDP."`

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
	c.NoResponse = 500 * time.Millisecond // T11
	c.State = InService
	c.Probe = ProbeOptions
	c.ProbeTimeout = 5 * time.Second // T6
	c.ProbeRetries = 2
	c.ProbeFailures = []int{408, 503}
	c.HealthFailures = 5
	c.HealthWindow = 5 * time.Minute
	c.NationalPrefix = "0"
	c.InternationalPrefix = "00"
	c.MediaSource = Strict
	c.LatchWindow = 5 * time.Second
	c.DTMF = DTMFEvents
	c.DTMFPayloadType = 101
	c.IdleTimeout = 5 * time.Minute
	c.IdleTimeoutOneWay = 12 * time.Hour
}

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
	if c.NoResponse != 0 && (c.NoResponse < shortestWait || c.NoResponse > sipTimeout) { // T11
		l.Add("no_response", "give 100ms to 32s, or 0s to wait as long as SIP does", "%s is out of range", c.NoResponse)
	}
	l.OneOf("state", c.State, InService, Draining, OutOfService)
	c.validateProbe(&l)
	c.validateHealth(&l)
	c.validateNumbering(&l)
	c.validateSource(&l)
	c.validateDTMF(&l)
	validateIdle(&l, "idle_timeout", c.IdleTimeout, 24*time.Hour)
	validateIdle(&l, "idle_timeout_one_way", c.IdleTimeoutOneWay, 7*24*time.Hour)
	return l
}

// Bounds of waiting for a response: a shorter wait would leave peers that are only far away
// or busy; after the longest SIP itself gives up (RFC 3261 timer B).
const (
	shortestWait = 100 * time.Millisecond
	sipTimeout   = 32 * time.Second
)

// validateProbe checks how the trunk is asked whether it is there (T6).
func (c Config) validateProbe(l *invalid.List) {
	l.OneOf("probe", c.Probe, ProbeOptions, ProbeNone)
	if c.ProbeInterval != 0 && (c.ProbeInterval < time.Second || c.ProbeInterval > 10*time.Minute) {
		l.Add("probe_interval", "give 1s to 10m, or 0s for 25s to 35s by the trunk's name", "%s is out of range", c.ProbeInterval)
	}
	if c.ProbeTimeout < shortestWait || c.ProbeTimeout > sipTimeout {
		l.Add("probe_timeout", "give 100ms to 32s", "%s is out of range", c.ProbeTimeout)
	}
	l.Between("probe_retries", c.ProbeRetries, 0, 10)
	for i, status := range c.ProbeFailures {
		key := fmt.Sprintf("probe_failures[%d]", i)
		l.Between(key, status, 300, 699)
		if slices.Contains(c.ProbeFailures[:i], status) {
			l.Add(key, "leave it out", "%d is listed twice", status)
		}
	}
}

// maxWindow that answer rates are taken over.
const maxWindow = 15 * time.Minute

// validateHealth checks what calls tell of the trunk.
func (c Config) validateHealth(l *invalid.List) {
	l.Between("health_failures", c.HealthFailures, 0, 1000)
	l.Between("health_asr", c.HealthASR, 0, 100)
	if c.HealthWindow < time.Minute || c.HealthWindow > maxWindow {
		l.Add("health_window", "give 1m to 15m", "%s is out of range", c.HealthWindow)
	}
}

// validateNumbering checks how the trunk dials (T12).
func (c Config) validateNumbering(l *invalid.List) {
	if code := c.CountryCode; code != "" && (!isDialled(code, 3) || code[0] == '0') { // ITU-T E.164 section 6.2.1
		l.Add("country_code", `give 1 to 3 digits without + or 00, e.g. "49"`, "%q is no country code", code)
	}
	prefix := func(key, prefix string) {
		if prefix != "" && !isDialled(prefix, 5) {
			l.Add(key, `give up to 5 digits, e.g. "0" or "011"`, "%q cannot be dialled", prefix)
		}
	}
	prefix("national_prefix", c.NationalPrefix)
	prefix("international_prefix", c.InternationalPrefix)
	if c.CountryCode != "" && c.NationalPrefix == c.InternationalPrefix {
		l.Add("international_prefix", "give what the trunk dials before the country code", "%q is the national prefix too", c.InternationalPrefix)
	}
}

// isDialled reports whether text is 1 to most digits.
func isDialled(text string, most int) bool {
	return text != "" && len(text) <= most && strings.Trim(text, "0123456789") == ""
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
		if target, err := resolve.ParseTarget(text); err == nil && target.Addr.IsValid() {
			hosts[target.Addr] = true
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
		l.Add("targets", "give at least one address or name, e.g. [192.0.2.10:5060]", "is missing")
	}
	if len(c.Targets) > maxTargets {
		l.Add("targets", fmt.Sprintf("give at most %d, and the others to a second trunk of the same group", maxTargets), "has %d entries", len(c.Targets))
	}
	seen := make(map[resolve.Target]bool)
	for i, text := range c.Targets {
		key := fmt.Sprintf("targets[%d]", i)
		target, err := resolve.ParseTarget(text)
		if f := (invalid.Field{}); errors.As(err, &f) {
			l.Under(key, invalid.List{f})
			continue
		}
		if at, ok := target.Static(resolve.Transport(c.Transport)); ok {
			target.Port = at.Port() // the default one may be written or not
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
