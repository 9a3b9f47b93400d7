package trunk

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/resolve"
)

// Direction of a call as the gateway sees it.
type Direction uint8

// In comes from the trunk, Out goes to it.
const (
	In Direction = iota
	Out
)

func (d Direction) String() string {
	if d == In {
		return "in"
	}
	return "out"
}

// Trunk is one SIP peer at work, as one generation of the config has it. It is safe for use
// by several goroutines.
type Trunk struct {
	config Config
	// places are the entries of targets, and reach is where they are.
	places []*place
	reach  atomic.Pointer[reach]
	limits limits
	realm  *realm
	// epoch is what the times of buckets are counted from.
	epoch time.Time
	// index in the table.
	index int
	*state
}

// state is what a trunk has over all generations of the config that it is in.
type state struct {
	quota  *quota
	totals *[2]totals
	health *health

	// registers bounds REGISTER requests. Times count from the epoch on, so a zero bucket has room.
	registers bucket
}

// again is the state of a trunk that was away: its running calls count, and nothing is known of
// its health. Nil is that of one that was never there.
func (s *state) again() *state {
	if s == nil {
		return &state{quota: newQuota(), totals: new([2]totals)}
	}
	return &state{quota: s.quota, totals: s.totals}
}

// Name of the trunk. A nil Trunk, which is what ByPeer has for a stranger, has none.
func (t *Trunk) Name() string {
	if t == nil {
		return ""
	}
	return t.config.Name
}

// Realm is the name of the realm the peer is reached through.
func (t *Trunk) Realm() string { return t.config.Realm }

// Kind is Platform or Carrier.
func (t *Trunk) Kind() string { return t.config.Kind }

// Transport is "udp".
func (t *Trunk) Transport() string { return t.config.Transport }

// Codecs are the names that may be offered, in order. The caller must not change them.
func (t *Trunk) Codecs() []string { return t.config.Codecs }

// RingTimeout bounds one attempt from INVITE to answer (T10).
func (t *Trunk) RingTimeout() time.Duration { return t.config.RingTimeout }

// NoResponse is how long an attempt waits for any response, 100 ms to 32 s; 0 is for as
// long as SIP does (T11).
func (t *Trunk) NoResponse() time.Duration { return t.config.NoResponse }

// DemandE164 reports whether calls from the trunk need a number of E.164 in Request-URI or
// To (T12, S20).
func (t *Trunk) DemandE164() bool { return t.config.DemandE164 }

// Numbering is how a peer dials.
type Numbering struct {
	// CountryCode has 1 to 3 digits; without one numbers stay as they come.
	CountryCode string
	// NationalPrefix and InternationalPrefix are digits, or empty.
	NationalPrefix, InternationalPrefix string
}

// Numbering is how the peer dials (T12).
func (t *Trunk) Numbering() Numbering {
	return Numbering{t.config.CountryCode, t.config.NationalPrefix, t.config.InternationalPrefix}
}

// LatchWindow is how long the peer's media source may be learned; 0 is never (M7).
func (t *Trunk) LatchWindow() time.Duration {
	if t.config.MediaSource != Latch {
		return 0
	}
	return t.config.LatchWindow
}

// MediaPrefixes are what the peer's media may be learned from: those of the config, or
// else the targets' addresses as they are now. explicit is true for those of the config; otherwise the
// address in the peer's SDP counts too. The caller must not change them.
func (t *Trunk) MediaPrefixes() (prefixes []netip.Prefix, explicit bool) {
	return t.reach.Load().prefixes, len(t.config.MediaPrefixes) > 0
}

// DTMF is how keys travel: DTMFEvents, DTMFInband or DTMFNone (M5).
func (t *Trunk) DTMF() string { return t.config.DTMF }

// DTMFPayloadType is what telephone-event is offered with, 96-127 (M5).
func (t *Trunk) DTMFPayloadType() uint8 { return t.config.DTMFPayloadType }

// IdleTimeout bounds the silence of a two-way call, IdleTimeoutOneWay that of one that
// is on hold or one-way (M8); 0 is no bound.
func (t *Trunk) IdleTimeout() time.Duration { return t.config.IdleTimeout }

// IdleTimeoutOneWay: see IdleTimeout.
func (t *Trunk) IdleTimeoutOneWay() time.Duration { return t.config.IdleTimeoutOneWay }

// Status is a trunk as seen from outside.
type Status struct {
	Name  string `json:"name"`
	Realm string `json:"realm"`
	Kind  string `json:"kind"`
	// State, Reason and Since: see Condition.
	State  string    `json:"state"`
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since,omitzero"`
	// MaxCalls is the limit on both directions together, MaxRate that on each; 0 is none.
	MaxCalls int           `json:"max_calls"`
	MaxRate  call.Rate     `json:"max_rate,omitzero"`
	In       DirectionStat `json:"in"`
	Out      DirectionStat `json:"out"`
	// Names among the targets, and in words which of their addresses are not used (T9).
	Names   []resolve.Status `json:"names,omitempty"`
	Refused []string         `json:"refused_targets,omitempty"`
}

// Status reads the trunk's state.
func (t *Trunk) Status() Status {
	now, window := time.Now(), t.config.HealthWindow
	in, out := t.quota.active()
	c := t.Condition()
	return Status{
		Name: t.config.Name, Realm: t.config.Realm, Kind: t.config.Kind,
		State: c.State, Reason: c.Reason, Since: c.Since, MaxCalls: t.config.MaxCalls, MaxRate: t.config.MaxRate,
		In: t.totals[In].stat(in, now, window), Out: t.totals[Out].stat(out, now, window),
		Names: t.Names(), Refused: t.reach.Load().refused,
	}
}
