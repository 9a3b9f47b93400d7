// Package b2bua connects two legs into a call. Each call is one function on one
// goroutine that owns the call's state; what it takes it gives back in defers.
package b2bua

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/media"
	"github.com/tandem-sbc/tandem/pkg/route"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

// closeTimeout bounds the wait for a peer's answer to our BYE, while media still passes.
// The leg goes on retransmitting behind it (RFC 3261 timer F); the call does not wait so long.
const closeTimeout = 5 * time.Second

// Dialer sends an INVITE from the stack of the target's realm.
type Dialer interface {
	Dial(target call.Target, invite call.Invite) (call.Leg, error)
}

// Recorder keeps the record of an ended call. It may block for a bounded time.
type Recorder interface {
	Write(call.Record)
}

// Config is what a Gateway works with. All fields are needed.
type Config struct {
	// Node names this gateway in records.
	Node string
	// Engine names the media engine in records.
	Engine string
	// MaxCalls is how many calls there may be at once; beyond it INVITEs get 503 (T3).
	MaxCalls int
	// Plan is asked once by each call, which keeps to it until its end.
	Plan    func() Plan
	Media   *media.Media
	Dialer  Dialer
	Records Recorder
	Log     *slog.Logger
}

// Plan is where calls go, in one generation of the config.
type Plan struct {
	Trunks *trunk.Table
	Routes *route.Table
}

// Gateway is the back-to-back user agent: it takes in legs and keeps account of
// the calls made of them.
type Gateway struct {
	cfg Config

	// stop ends every call at once when it is cancelled with an interruption.
	stop   context.Context
	hangup context.CancelCauseFunc

	mu       sync.Mutex
	calls    map[call.ID]*session
	draining bool
	totals   Totals
	// ended adds up the media of answered calls that have ended, by trunk.
	ended map[string]MediaCounters
	// idle is closed when draining and the last call has ended. Calls that come in
	// even later are refused and do not count.
	idle     chan struct{}
	idleOnce sync.Once
}

// Totals counts calls since start, but for Active, which is now. Total and Answered
// count as it happens; Failed are those that ended unanswered.
type Totals struct {
	Active, Total, Answered, Failed int
}

// New returns a Gateway without calls.
func New(cfg Config) *Gateway {
	g := &Gateway{
		cfg: cfg, calls: make(map[call.ID]*session), ended: make(map[string]MediaCounters), idle: make(chan struct{}),
	}
	g.stop, g.hangup = context.WithCancelCause(context.Background())
	return g
}

// Invite carries one call that came in on a realm from its INVITE to its record, on the
// caller's goroutine.
func (g *Gateway) Invite(realm string, leg call.Leg, invite call.Invite) {
	s := &session{
		Gateway: g,
		plan:    g.cfg.Plan(),
		realm:   realm,
		ingress: leg,
		invite:  invite,
		info: call.Info{
			ID:      call.ID(ulid.Make().String()),
			State:   call.Routing,
			From:    invite.From.User,
			To:      invite.Number,
			Started: time.Now(),
		},
	}
	s.log = g.cfg.Log.With("call", s.info.ID)
	s.ctx, s.cut = context.WithCancelCause(g.stop)
	defer s.cut(nil)
	draining := g.enter(s)
	defer g.leave(s)
	s.run(draining)
}

// Drain refuses new calls from now on with 503 (H6).
func (g *Gateway) Drain() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.draining {
		return
	}
	g.draining = true
	g.closeIfIdle()
}

// Draining reports whether Drain was called.
func (g *Gateway) Draining() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.draining
}

// Hangup ends every call, both sides with BYE, and refuses new ones.
func (g *Gateway) Hangup() {
	g.Drain()
	g.hangup(&interruption{cause: causeShutdown()})
}

// Wait blocks until a draining Gateway has no call left, or ctx is done.
func (g *Gateway) Wait(ctx context.Context) error {
	select {
	case <-g.idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%d calls still active: %w", g.Totals().Active, ctx.Err())
	}
}

// Totals returns the counts of calls.
func (g *Gateway) Totals() Totals {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.totals
	t.Active = len(g.calls)
	return t
}

// Calls returns the live calls with their media counters as of now, in no order.
func (g *Gateway) Calls() []call.Info {
	live := g.all()
	infos := make([]call.Info, len(live))
	index := make(map[*media.Session]*call.Info, len(live))
	for i, s := range live {
		s.mu.Lock()
		infos[i] = s.info
		if s.media != nil {
			index[s.media] = &infos[i]
		}
		s.mu.Unlock()
	}
	if err := read(g.cfg.Media, index, func(info *call.Info, sent *[2]call.Media) {
		info.Ingress.Media, info.Egress.Media = sent[call.Ingress], sent[call.Egress]
	}); err != nil {
		g.cfg.Log.Warn("calls are shown without their media counters", "error", err)
	}
	return infos
}

// live lists the calls that are up; mu is held.
func (g *Gateway) live() []*session {
	live := make([]*session, 0, len(g.calls))
	for _, s := range g.calls {
		live = append(live, s)
	}
	return live
}

// enter takes a call into account; it reports whether new calls are refused.
func (g *Gateway) enter(s *session) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.totals.Total++
	g.calls[s.info.ID] = s
	return g.draining
}

func (g *Gateway) countAnswer() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.totals.Answered++
}

func (g *Gateway) leave(s *session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s.isAnswered() {
		for _, leg := range []call.LegRecord{s.info.Ingress, s.info.Egress} {
			sum := g.ended[leg.Trunk]
			sum.add(&leg.Media)
			g.ended[leg.Trunk] = sum
		}
	} else {
		g.totals.Failed++
	}
	// In the same moment, so that Media finds the call's packets in one place.
	delete(g.calls, s.info.ID)
	g.closeIfIdle()
}

// closeIfIdle is called with mu held.
func (g *Gateway) closeIfIdle() {
	if g.draining && len(g.calls) == 0 {
		g.idleOnce.Do(func() { close(g.idle) })
	}
}
