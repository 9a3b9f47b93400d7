package trunk

import (
	"net/netip"
	"sync/atomic"
	"time"
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

// Trunk is one SIP peer at work. It is safe for use by several goroutines.
type Trunk struct {
	config  Config
	targets []netip.AddrPort
	// prefixes that media may be learned from.
	prefixes []netip.Prefix

	// slots holds the active calls, inbound ones in the upper half and outbound
	// ones in the lower: one word, so that the limit is on both together (T3)
	// and no reader sees half a change.
	slots  atomic.Uint64
	cursor atomic.Uint32
	counts [2]counts

	service atomic.Pointer[service]
}

type counts struct{ attempts, answers, failures atomic.Uint64 }

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

// LatchWindow is how long the peer's media source may be learned; 0 is never (M7).
func (t *Trunk) LatchWindow() time.Duration {
	if t.config.MediaSource != Latch {
		return 0
	}
	return t.config.LatchWindow
}

// MediaPrefixes are what the peer's media may be learned from: those of the config, or
// else the targets' addresses. explicit is true for those of the config; otherwise the
// address in the peer's SDP counts too. The caller must not change them.
func (t *Trunk) MediaPrefixes() (prefixes []netip.Prefix, explicit bool) {
	return t.prefixes, len(t.config.MediaPrefixes) > 0
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

// Target is where the next attempt goes; the trunk's targets take turns. The whole
// attempt stays with it.
func (t *Trunk) Target() netip.AddrPort {
	next := t.cursor.Add(1) - 1
	return t.targets[next%uint32(len(t.targets))]
}

// Acquire takes a slot for one call. ok is false if the trunk has max_calls calls
// already, in both directions together (T3); release is then nil. Otherwise release
// gives the slot back; calling it again does nothing.
func (t *Trunk) Acquire(dir Direction) (release func(), ok bool) {
	one := uint64(1)
	if dir == In {
		one <<= 32
	}
	for {
		held := t.slots.Load()
		in, out := unpack(held)
		if t.config.MaxCalls > 0 && in+out >= t.config.MaxCalls {
			return nil, false
		}
		if t.slots.CompareAndSwap(held, held+one) {
			break
		}
	}
	var released atomic.Bool
	return func() {
		if released.CompareAndSwap(false, true) {
			t.slots.Add(-one)
		}
	}, true
}

func unpack(slots uint64) (in, out int) { return int(slots >> 32), int(slots & 0xffffffff) }

// Attempt counts a call that has a slot.
func (t *Trunk) Attempt(dir Direction) { t.counts[dir].attempts.Add(1) }

// Answered counts an attempt that was answered.
func (t *Trunk) Answered(dir Direction) { t.counts[dir].answers.Add(1) }

// Failed counts an attempt that was not.
func (t *Trunk) Failed(dir Direction) { t.counts[dir].failures.Add(1) }

// Status is a trunk as seen from outside.
type Status struct {
	Name  string `json:"name"`
	Realm string `json:"realm"`
	Kind  string `json:"kind"`
	// State, Reason and Since: see Condition.
	State  string    `json:"state"`
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since,omitzero"`
	// MaxCalls is the limit on both directions together; 0 is none.
	MaxCalls int           `json:"max_calls"`
	In       DirectionStat `json:"in"`
	Out      DirectionStat `json:"out"`
}

// DirectionStat counts the calls of one direction: those that have a slot now, and
// since start what was tried and what came of it.
type DirectionStat struct {
	Active   int    `json:"active"`
	Attempts uint64 `json:"attempts"`
	Answers  uint64 `json:"answers"`
	Failures uint64 `json:"failures"`
}

// Status reads the trunk's state.
func (t *Trunk) Status() Status {
	in, out := unpack(t.slots.Load())
	c := t.Condition()
	return Status{
		Name: t.config.Name, Realm: t.config.Realm, Kind: t.config.Kind,
		State: c.State, Reason: c.Reason, Since: c.Since, MaxCalls: t.config.MaxCalls,
		In: t.counts[In].stat(in), Out: t.counts[Out].stat(out),
	}
}

func (c *counts) stat(active int) DirectionStat {
	return DirectionStat{Active: active, Attempts: c.attempts.Load(), Answers: c.answers.Load(), Failures: c.failures.Load()}
}
