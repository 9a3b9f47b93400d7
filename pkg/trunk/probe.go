package trunk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// Prober asks a target whether it is there.
type Prober interface {
	// Probe sends an OPTIONS request from the realm and returns the status of its final
	// response. Without one it returns an error, at the latest when ctx is done.
	Probe(ctx context.Context, realm string, target netip.AddrPort) (status int, err error)
}

// One OPTIONS a second to a target at most, and not the next while one is waited for (I3).
const (
	probeInterval = time.Second
	probeTimeout  = 2 * time.Second
)

// Probe asks the targets of the trunks that are Probing, and puts a trunk in service by the
// first of its targets that answers. It returns nil when ctx is done. A table is probed once.
func (t *Table) Probe(ctx context.Context, prober Prober, log *slog.Logger) error {
	var running sync.WaitGroup
	defer running.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	rounds := make(map[*Trunk]round)
	for {
		for _, tr := range t.trunks {
			now := tr.service.Load()
			if last, known := rounds[tr]; known {
				if last.period == now.period {
					continue
				}
				last.stop()
				delete(rounds, tr)
			}
			if now.State != Probing {
				continue
			}
			ctx, stop := context.WithCancel(ctx)
			r := round{tr, now.period, stop, prober, log.With("trunk", tr.Name(), "realm", tr.Realm())}
			rounds[tr] = r
			for _, target := range tr.targets {
				running.Go(func() { r.ask(ctx, target) })
			}
		}
		select {
		case <-t.told:
		case <-ctx.Done():
			return nil
		}
	}
}

// round is the probing of one trunk in one period.
type round struct {
	*Trunk
	period uint64
	// stop ends it for all targets.
	stop   context.CancelFunc
	prober Prober
	log    *slog.Logger
}

// ask probes one target until the trunk is in service, or not probed any more.
func (r round) ask(ctx context.Context, target netip.AddrPort) {
	turn := time.NewTicker(probeInterval)
	defer turn.Stop()
	for said := false; ; {
		status, err := r.probe(ctx, target)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			if r.arrive() {
				r.log.Info("trunk is in service", "target", target, "status", status)
			}
			r.stop()
			return
		}
		r.explain(err)
		if !said {
			r.log.Warn("trunk is not in service yet", "target", target, "reason", err)
			said = true
		}
		select {
		case <-turn.C:
		case <-ctx.Done():
			return
		}
	}
}

// probe sends one OPTIONS request. An error says in words why it is no proof that calls are taken.
func (r round) probe(ctx context.Context, target netip.AddrPort) (status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	status, err = r.prober.Probe(ctx, r.Realm(), target)
	errno := syscall.Errno(0)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return 0, fmt.Errorf("%s does not answer OPTIONS", target)
	case errors.As(err, &errno):
		return 0, fmt.Errorf("%s cannot be reached: %w", target, errno)
	case err != nil:
		return 0, fmt.Errorf("%s cannot be asked: %w", target, err)
	case status == 408 || status == 503: // it is there, and takes no calls
		return 0, fmt.Errorf("%s answers OPTIONS with %d", target, status)
	}
	return status, nil
}

// arrive puts the trunk in service, unless the round is over.
func (r round) arrive() bool {
	return r.change(func(now service) (service, bool) {
		counts := r.current(now)
		now.Reason = ""
		return now.enter(InService), counts
	})
}

// explain gives the reason why the trunk is not in service yet, unless the round is over.
func (r round) explain(err error) {
	r.change(func(now service) (service, bool) {
		counts := r.current(now)
		now.Reason = err.Error()
		return now, counts
	})
}

// current reports whether what the round finds out still counts: neither was the realm told of
// since, nor did another target answer.
func (r round) current(now service) bool { return now.period == r.period && now.State == Probing }
