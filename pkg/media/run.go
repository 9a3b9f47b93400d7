package media

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// refusalLogGap is the least time between two lines about refused media.
const refusalLogGap = time.Second

// patrolGap is the time between two looks at the counters of all calls.
const patrolGap = time.Second

// Run follows the engine until ctx is done: sources that were learned (M7), reports of
// peers (M2), silence (M8), and flows of a former process. Media flows without it, but
// to nobody behind NAT.
func (m *Media) Run(ctx context.Context) error {
	var patrol sync.WaitGroup
	// Apart from the events, so that none is lost while 10,000 calls are looked at.
	patrol.Go(func() { m.patrol(ctx) })
	m.listen(ctx)
	patrol.Wait()
	return nil
}

// listen takes in what the engine sees on flows. It must not wait: the engine drops events
// that nobody reads.
func (m *Media) listen(ctx context.Context) {
	var learners sync.WaitGroup
	defer learners.Wait()
	refused := refusals{log: m.log}
	for events := m.engine.Events(); ; {
		select {
		case <-ctx.Done():
			return
		case ev, open := <-events:
			if !open {
				events = nil
				continue
			}
			switch ev.Kind {
			case call.MediaLatched:
				// The engine may have to find the way to the new place first.
				learners.Go(func() { m.latched(ev.Key, ev.Source) })
			case call.MediaReport:
				m.report(ev)
			case call.MediaRefused:
				refused.add(ev)
			}
		}
	}
}

func (m *Media) latched(key call.FlowKey, source netip.AddrPort) {
	if o, ok := m.owner(key); ok {
		o.session.latched(o.side, key, source)
	}
}

func (m *Media) report(ev call.MediaEvent) {
	o, ok := m.owner(ev.Key)
	if !ok {
		return
	}
	if err := o.session.reports.add(o.side, ev); err != nil {
		// It was forwarded all the same, and the other peer may understand it.
		m.log.Debug("RTCP not understood", "realm", ev.Key.Realm, "local", ev.Key.Local, "source", ev.Source, "error", err)
	}
}

// refusals logs who sends to where he may not: a peer behind NAT, or a sprayer. Each
// source is told of once, but forged ones can be many.
type refusals struct {
	log    *slog.Logger
	said   time.Time
	unsaid int
}

func (r *refusals) add(ev call.MediaEvent) {
	if time.Since(r.said) < refusalLogGap {
		r.unsaid++
		return
	}
	r.log.Warn("media of a foreign source refused",
		"realm", ev.Key.Realm, "local", ev.Key.Local, "source", ev.Source, "sources_unsaid", r.unsaid)
	r.said, r.unsaid = time.Now(), 0
}

// patrol looks at the counters of all calls, and of adopted flows, once in patrolGap. Learned
// sources that no event has told of are found by it, too, and flows that could not be removed
// are tried again.
func (m *Media) patrol(ctx context.Context) {
	tick := time.NewTicker(patrolGap)
	defer tick.Stop()
	var b batch
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := m.look(&b)
		switch {
		case err != nil && !failing:
			m.log.Error("silent calls are not noticed: no counters", "error", err)
		case err == nil && failing:
			m.log.Info("silent calls are noticed again")
		}
		failing = err != nil
	}
}

// look is one round of patrol; b is kept for its memory.
func (m *Media) look(b *batch) error {
	b.views, b.keys, b.latches = b.views[:0], b.keys[:0], b.latches[:0]
	b.gather(m.all(), (*batch).patrolled)
	watched := len(b.keys)
	m.takeStuck()
	for _, a := range m.adopted {
		b.keys = append(b.keys, a.keys...)
	}
	stats, err := m.snapshot(b)
	if err != nil {
		return err
	}
	now := time.Now()
	var learners sync.WaitGroup
	for _, v := range b.views {
		v.look(stats, now)
	}
	for _, l := range b.latches {
		if remote := stats[l.at].Remote; remote.IsValid() && remote != l.remote {
			learners.Go(func() { m.latched(b.keys[l.at], remote) })
		}
	}
	m.sweep(stats[watched:], now)
	learners.Wait()
	return nil
}
