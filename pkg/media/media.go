// Package media turns the offers and answers of a call into flows of an engine. A
// Session takes the ports, rewrites each session description for the other side,
// applies the codec policy (M4) and keeps the engine's flows in step with what the
// two sides agreed on (RFC 3264): addresses, payload types (M5), which law of G.711
// becomes the other (M14), multiplexed RTCP (M2), and sources that may be learned (M7).
//
// Run follows all calls together: it takes in what engines learn and peers report, and
// tells which calls have been silent for too long (M8).
package media

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/ports"
)

// Errors that callers tell apart.
var (
	// ErrBadSDP means that a description cannot be read, or does not fit the offer (400, 488).
	ErrBadSDP = errors.New("unusable session description")
	// ErrNoCommonCodec means that no codec is left after the policy (488, M4).
	ErrNoCommonCodec = errors.New("no common codec")
	// ErrNoAudio means that there is no stream that Tandem carries, e.g. T.38 alone
	// (M10). It is an ErrNoCommonCodec too: the peer is told the same, 488.
	ErrNoAudio = fmt.Errorf("no audio stream that is carried: %w", ErrNoCommonCodec)
	// ErrEarlyMedia means that the caller was given early media by a try that came to nothing,
	// and that the other trunk can do nothing with its codec (503): see Session.SetEgress.
	ErrEarlyMedia = errors.New("no codec fits the early media that the caller has had")
	// ErrNoPorts means that a realm's media range is used up (503).
	ErrNoPorts = errors.New("no media port left")
	// ErrState means that a method does not fit what went before, e.g. an answer
	// without an offer, or anything after Close.
	ErrState = errors.New("out of order")
)

// Engine moves media. Packages datapath and relay implement it.
type Engine interface {
	// Install puts all flows in place or none. A flow whose key is there already is
	// updated in place and keeps its counters.
	Install(flows []call.Flow) error
	// Remove takes flows out and returns their final counters, in the order of keys.
	Remove(keys []call.FlowKey) ([]call.FlowStats, error)
	// Snapshot returns counters as of now, in the order of keys.
	Snapshot(keys []call.FlowKey) ([]call.FlowStats, error)
	// Events yields what was seen on flows. The engine drops events that nobody reads.
	Events() <-chan call.MediaEvent
}

// Realm is where one side's media arrives and leaves.
type Realm struct {
	Name string
	// Number is the realm's number in flow keys, from 1.
	Number uint16
	// Addr is our IPv4 address in descriptions and on packets.
	Addr netip.Addr
	// Ports is the range that even port pairs are taken from (M9).
	Ports call.PortRange
	// DSCP marks packets that leave in this realm, 0-63 (M3).
	DSCP uint8
}

// Config is what Media works with.
type Config struct {
	Realms []Realm
	// Quarantine is how long a port pair rests after a call (M9).
	Quarantine time.Duration
	Engine     Engine
	// Adopted are flows that a former process left in the engine. No session gets their
	// ports; a flow is removed when it has been silent for adoptedIdle.
	Adopted []call.FlowKey
	// Log may be nil.
	Log *slog.Logger
}

// Media opens sessions. Its methods may be called from any goroutine.
type Media struct {
	realms map[string]*realm
	engine Engine
	log    *slog.Logger
	// adopted belongs to the goroutine of Run.
	adopted []*adopted

	// mu is taken with a session's held, never the other way round.
	mu       sync.RWMutex
	sessions map[*Session]struct{}
	// pairs finds a side of a session by its RTP port.
	pairs map[call.FlowKey]owner
	// stuck are flows of ended sessions that could not be removed, until Run takes them over.
	stuck []*adopted
}

// owner is whose a port pair is.
type owner struct {
	session *Session
	side    call.Side
}

// realm is a Realm with its ports.
type realm struct {
	Realm
	pool *ports.Pool
}

// New returns a Media without sessions. It fails if a realm cannot carry media.
func New(cfg Config) (*Media, error) {
	if cfg.Engine == nil {
		return nil, errors.New("media without an engine")
	}
	m := &Media{
		realms: make(map[string]*realm, len(cfg.Realms)), engine: cfg.Engine, log: cfg.Log,
		sessions: make(map[*Session]struct{}), pairs: make(map[call.FlowKey]owner),
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	numbers := make(map[uint16]string, len(cfg.Realms))
	for _, r := range cfg.Realms {
		pool := ports.New(r.Ports, cfg.Quarantine, time.Now)
		switch {
		case !r.Addr.Is4():
			return nil, fmt.Errorf("realm %q: address %v is not IPv4", r.Name, r.Addr)
		case r.DSCP > 63:
			return nil, fmt.Errorf("realm %q: DSCP %d is not from 0 to 63", r.Name, r.DSCP)
		case pool.Size() == 0:
			return nil, fmt.Errorf("realm %q: no even port pair from 1024 on in %v", r.Name, r.Ports)
		case m.realms[r.Name] != nil:
			return nil, fmt.Errorf("realm %q: given twice", r.Name)
		case numbers[r.Number] != "":
			return nil, fmt.Errorf("realm %q: number %d is that of realm %q", r.Name, r.Number, numbers[r.Number])
		}
		m.realms[r.Name], numbers[r.Number] = &realm{Realm: r, pool: pool}, r.Name
	}
	m.adopt(cfg.Adopted)
	return m, nil
}

// Open begins the media of a call that came in on a realm, under its trunk's terms.
func (m *Media) Open(realm string, terms Terms) (*Session, error) {
	r, err := m.realm(realm)
	if err != nil {
		return nil, err
	}
	s := &Session{media: m}
	s.sides[call.Ingress] = newSide(r, terms)
	return s, nil
}

// PortsInUse is the number of port pairs that sessions, adopted flows and flows that could
// not be removed hold now, over all realms.
func (m *Media) PortsInUse() int {
	n := 0
	for _, r := range m.realms {
		n += r.pool.InUse()
	}
	return n
}

func (m *Media) realm(name string) (*realm, error) {
	r := m.realms[name]
	if r == nil {
		return nil, fmt.Errorf("realm %q is unknown", name)
	}
	return r, nil
}

// enter makes a session found by the ports of its sides.
func (m *Media) enter(s *Session) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sessions[s] = struct{}{}
	for i, side := range s.sides {
		m.pairs[side.key()] = owner{s, call.Side(i)}
	}
}

// leave undoes enter for one side, before its ports may be another's.
func (m *Media) leave(side *side) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.pairs, side.key())
}

// forget undoes enter for the session itself.
func (m *Media) forget(s *Session) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.sessions, s)
}

// owner is whose flow has a key, RTP or RTCP.
func (m *Media) owner(key call.FlowKey) (owner, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	o, ok := m.pairs[pair(key)]
	return o, ok
}

// pair is the key of the RTP port that a key's port belongs to.
func pair(key call.FlowKey) call.FlowKey {
	key.Local = netip.AddrPortFrom(key.Local.Addr(), key.Local.Port()&^1)
	return key
}

// ours reports whether a is a media port of our own. A peer that names one would
// have packets go round between two of our flows.
func (m *Media) ours(a netip.AddrPort) bool {
	for _, r := range m.realms {
		if r.Addr == a.Addr() && r.Ports.Contains(a.Port()) {
			return true
		}
	}
	return false
}

// newSessionID makes the id of an o= line: unguessable, and without the top bit,
// since peers read it as a signed number.
func newSessionID() uint64 { return rand.Uint64() >> 1 }
