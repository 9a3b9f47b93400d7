// Package app builds the daemon from a config and runs it: what is opened first is
// closed last, and nothing of it stays when Run returns.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tandem-sbc/tandem/pkg/config"
)

// hangupTimeout bounds the end of the calls that are left when draining is over:
// both sides get a BYE and a few seconds to answer it.
const hangupTimeout = 12 * time.Second

// hurriedTimeout is the same when somebody sent a second signal.
const hurriedTimeout = time.Second

// task is a part of the daemon that runs until its context is done and then returns nil.
type task struct {
	name string
	run  func(context.Context) error
}

// Run carries calls until a signal asks it to stop. SIGTERM and SIGINT refuse new
// calls, wait up to the config's drain for the last one, then hang up both sides of
// what is left; a second signal does so at once and hardly waits for the answers.
// SIGHUP and the admin API have it read its config again by reread; that may be nil.
// Errors name what could not be started, or what failed while it ran.
func Run(ctx context.Context, cfg *config.Config, reread func() (*config.Config, error), version string, signals <-chan os.Signal) (err error) {
	log, err := newLogger(cfg.Log, os.Stderr)
	if err != nil {
		return err
	}
	d := &daemon{cfg: cfg, reread: reread, version: version, log: log, started: time.Now()}
	defer func() { err = errors.Join(err, d.close()) }()
	tasks, err := d.build()
	if err != nil {
		return err
	}

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	for _, t := range tasks {
		group.Go(func() error {
			if err := t.run(ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			return nil
		})
	}
	group.Go(func() error {
		defer stop()
		d.awaitStop(ctx, signals)
		return nil
	})
	log.Info("tandem is up", "version", version, "node", cfg.Node, "engine", d.engineName, "realms", len(cfg.Realms), "trunks", len(cfg.Trunks))
	return group.Wait()
}

// awaitStop returns when the calls have ended and the tasks may be stopped.
func (d *daemon) awaitStop(ctx context.Context, signals <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			// A task failed: there is nothing to drain with.
			d.hangup(hurriedTimeout, signals)
			return
		case sig := <-signals:
			if sig == syscall.SIGHUP {
				d.hup(ctx)
				continue
			}
			d.gateway.Drain()
			drain := d.plan.Load().cfg.Drain
			d.log.Info("draining: new calls get 503", "signal", sig.String(), "calls", d.gateway.Totals().Active, "longest", drain.String())
			patience := hangupTimeout
			if idle, interrupted := d.awaitIdle(drain, signals); !idle {
				d.log.Warn("hanging up the calls that are left", "calls", d.gateway.Totals().Active)
				if interrupted {
					patience = hurriedTimeout
				}
			}
			d.hangup(patience, signals)
			return
		}
	}
}

// hangup ends every call, and gives both sides time to answer; another signal cuts it short.
func (d *daemon) hangup(patience time.Duration, signals <-chan os.Signal) {
	d.gateway.Hangup()
	if idle, _ := d.awaitIdle(patience, signals); !idle {
		d.log.Error("calls did not end in time", "calls", d.gateway.Totals().Active)
	}
}

// awaitIdle waits for the last call; interrupted means that another signal to stop
// came first.
func (d *daemon) awaitIdle(patience time.Duration, signals <-chan os.Signal) (idle, interrupted bool) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for {
			select {
			case sig := <-signals:
				if sig != syscall.SIGHUP {
					interrupted = true
					cancel()
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	err := d.gateway.Wait(ctx)
	cancel()
	<-watched
	return err == nil, interrupted
}

// daemon is what Run holds together.
type daemon struct {
	// cfg is what the daemon was started with. What may change without a restart is the
	// plan's.
	cfg        *config.Config
	reread     func() (*config.Config, error)
	version    string
	log        *slog.Logger
	started    time.Time
	engineName string
	// engineReason says why media does not run in the kernel, or is empty.
	engineReason string

	plan atomic.Pointer[plan]
	// reloading is held by the one reload that runs.
	reloading sync.Mutex
	leaving   leavers
	// listing is held while the kernel engine is told of the plan's peers, and the plan changes.
	listing sync.Mutex

	parts
	closers []closer
}

type closer struct {
	name  string
	close func() error
}

// onClose registers what undoes a step of build.
func (d *daemon) onClose(name string, f func() error) {
	d.closers = append(d.closers, closer{name, f})
}

// close undoes build, last step first.
func (d *daemon) close() error {
	var errs []error
	for i := len(d.closers) - 1; i >= 0; i-- {
		if err := d.closers[i].close(); err != nil {
			errs = append(errs, fmt.Errorf("close %s: %w", d.closers[i].name, err))
		}
	}
	d.closers = nil
	return errors.Join(errs...)
}
