package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/tandem-sbc/tandem/pkg/admin"
	"github.com/tandem-sbc/tandem/tests/netlab"
	"github.com/tandem-sbc/tandem/tests/sipp"
)

// The demo's calls: enough to be seen, few enough for two cores.
const (
	demoCalls   = 240
	demoRate    = 12.0             // per second, over all directions
	demoPackets = 150              // of 20 ms, each way
	demoTimeout = 80 * time.Second // for all of it
	endGrace    = 8 * time.Second  // for the callees to see their last BYE
	idleTimeout = 5 * time.Second  // for the gateway to have no call left
)

// directions in which the demo calls. A host's callers and its callee share nothing.
var directions = []struct {
	from, to string
	prefix   string
	sipPort  uint16
	rtpPort  uint16
}{
	{netlab.Platform, netlab.CarrierA, netlab.PrefixA, 5061, 7000},
	{netlab.Platform, netlab.CarrierB, netlab.PrefixB, 5062, 8000},
	{netlab.CarrierA, netlab.Platform, netlab.PrefixPlatform + "1", 5061, 7000},
	{netlab.CarrierB, netlab.Platform, netlab.PrefixPlatform + "2", 5061, 7000},
}

func demoCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Make calls through the gateway in both directions and count what arrives",
		Args:  cobra.NoArgs,
	}
	daemon, engine := daemonFlag(cmd), engineFlag(cmd)
	out := cmd.Flags().String("out", "out/demo.json", "where the result is written")
	calls := cmd.Flags().Int("calls", demoCalls, "number of calls, over all directions")
	rate := cmd.Flags().Float64("rate", demoRate, "calls per second, over all directions")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		// A failed run must not leave the numbers of an earlier one.
		if err := os.Remove(*out); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), demoTimeout)
		defer cancel()
		d := &demo{daemon: *daemon, engine: string(*engine), calls: *calls, rate: *rate, out: cmd.OutOrStdout()}
		outcome, err := d.run(ctx)
		if err != nil {
			if errors.Is(err, context.Canceled) {
				return errors.New("interrupted; everything is cleaned up")
			}
			return err
		}
		if err := outcome.write(*out); err != nil {
			return err
		}
		outcome.print(cmd.OutOrStdout(), *out)
		return outcome.failure()
	}
	return cmd
}

// demo is one run.
type demo struct {
	daemon, engine string
	calls          int
	rate           float64
	out            io.Writer

	lab      *netlab.Lab
	gateway  *netlab.Daemon
	api      *admin.Client
	captures []*netlab.Capture
	callers  []*sipp.Agent
	callees  []*sipp.Agent
	started  time.Time
}

func (d *demo) run(ctx context.Context) (_ *outcome, err error) {
	if _, err := sweep(d.out); err != nil {
		return nil, err
	}
	if d.lab, err = netlab.Up(ctx, netlab.Default(false)); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.lab.Close()) }()
	fmt.Fprintf(d.out, "lab %s: %s, %s and %s around the gateway\n", d.lab.ID(), netlab.Platform, netlab.CarrierA, netlab.CarrierB)

	if d.gateway, err = d.lab.StartGateway(ctx, d.daemon, netlab.GatewayOptions{Engine: d.engine}, nil); err != nil {
		return nil, err
	}
	d.api = admin.NewClient(d.gateway.Socket)
	status, err := d.api.Status(ctx)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(d.out, "tandemd %s: engine %s\n", status.Version, status.Engine.Engine)
	if status.EngineReason != "" {
		fmt.Fprintf(d.out, "  because %s\n", status.EngineReason)
	}
	if err := d.start(ctx); err != nil {
		return nil, err
	}
	if err := d.watch(ctx); err != nil {
		return nil, d.explain(err)
	}
	result, err := d.finish(ctx)
	if err != nil {
		return nil, d.explain(err)
	}
	return result, nil
}

// explain adds the end of the daemon's log to an error that it may be the cause of.
func (d *demo) explain(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%w\nthe daemon said:\n%s", err, d.gateway.Said())
}

// start opens the captures, then the callees, then the callers.
func (d *demo) start(ctx context.Context) error {
	for _, r := range netlab.Realms() {
		c, err := d.lab.Capture(r.Name, netlab.PeerDevice)
		if err != nil {
			return err
		}
		d.captures = append(d.captures, c)
	}
	var seed uint64
	audio := func() sipp.Audio {
		seed++
		return sipp.Audio{Seed: seed, Packets: demoPackets}
	}
	for _, r := range netlab.Realms() {
		callee, err := sipp.Start(ctx, d.lab, r.Name, sipp.Config{Scenario: sipp.Answer, Local: r.Peer, Audio: audio()})
		if err != nil {
			return err
		}
		d.callees = append(d.callees, callee)
	}
	d.started = time.Now()
	share := splitCalls(d.calls, len(directions))
	for i, way := range directions {
		if share[i] == 0 {
			continue
		}
		from := netlab.RealmOf(way.from)
		caller, err := sipp.Start(ctx, d.lab, way.from, sipp.Config{
			Scenario:  sipp.Call,
			Local:     from.Peer,
			SIPPort:   way.sipPort,
			MediaPort: way.rtpPort,
			Remote:    netip.AddrPortFrom(from.Gateway, 5060),
			Number:    way.prefix,
			Calls:     share[i],
			Rate:      d.rate / float64(len(directions)),
			Audio:     audio(),
		})
		if err != nil {
			return err
		}
		d.callers = append(d.callers, caller)
	}
	return nil
}

// splitCalls divides n as evenly as it goes.
func splitCalls(n, parts int) []int {
	share := make([]int, parts)
	for i := range share {
		share[i] = (n + parts - 1 - i) / parts
	}
	return share
}

// watch shows the table until the last caller has ended.
func (d *demo) watch(ctx context.Context) error {
	interval := 2 * time.Second
	file, ok := d.out.(*os.File)
	live := ok && term.IsTerminal(int(file.Fd()))
	if live {
		interval = 500 * time.Millisecond
	}
	view := &table{out: d.out, live: live}
	tick := time.NewTicker(interval)
	defer tick.Stop()

	callersDone := make(chan error, 1)
	go func() {
		var errs []error
		for _, c := range d.callers {
			// How calls failed is counted and told by the outcome; here it is SIPp itself.
			if _, err := c.Wait(); err != nil && c.ExitCode() != 1 {
				errs = append(errs, err)
			}
		}
		callersDone <- errors.Join(errs...)
	}()
	for {
		select {
		case err := <-callersDone:
			if ctx.Err() != nil {
				return fmt.Errorf("the calls did not end: %w", ctx.Err())
			}
			s, sampleErr := d.sample(ctx)
			if err := errors.Join(err, sampleErr); err != nil {
				return err
			}
			view.show(s)
			return nil
		case <-d.gateway.Done():
			d.stopCallers()
			<-callersDone
			return fmt.Errorf("the daemon ended in mid-call: %w", d.gateway.Wait())
		case <-tick.C:
			s, err := d.sample(ctx)
			if ctx.Err() != nil {
				continue // the context kills the callers
			}
			if err != nil {
				// Without the daemon its end is what there is to tell.
				select {
				case <-d.gateway.Done():
					continue
				case <-time.After(time.Second):
				}
				d.stopCallers()
				<-callersDone
				return err
			}
			view.show(s)
		}
	}
}

func (d *demo) stopCallers() {
	for _, c := range d.callers {
		_ = c.Process.Stop(syscall.SIGKILL, time.Second) // the cause is reported instead
	}
}

// sample reads what the gateway and the captures say now.
func (d *demo) sample(ctx context.Context) (sample, error) {
	status, err := d.api.Status(ctx)
	if err != nil {
		return sample{}, err
	}
	calls, err := d.api.Calls(ctx)
	if err != nil {
		return sample{}, err
	}
	s := sample{
		elapsed: time.Since(d.started),
		active:  len(calls), answered: status.Calls.Answered, failed: status.Calls.Failed,
		kernel: status.Engine.KernelPackets, userspace: status.Engine.UserspacePackets,
	}
	for _, c := range d.captures {
		t := c.Totals()
		s.missing += t.Missing
		s.jitter = max(s.jitter, t.Jitter)
		s.worstJitter = max(s.worstJitter, t.MaxJitter)
	}
	return s, nil
}

// finish lets everything come to rest, ends it in order, and counts.
func (d *demo) finish(ctx context.Context) (*outcome, error) {
	status, err := d.idle(ctx)
	if err != nil {
		return nil, err
	}
	o := &outcome{engine: status.Engine.Engine, wanted: d.calls}
	o.KernelPackets, o.UserspacePackets = status.Engine.KernelPackets, status.Engine.UserspacePackets
	for _, c := range d.callers {
		stats, err := c.Stats()
		if err != nil {
			return nil, err
		}
		o.failedAtCallers += int(stats.Failed)
	}
	for _, c := range d.callees {
		stats, err := c.Stop(endGrace)
		if err != nil {
			o.findings = append(o.findings, err.Error())
		}
		o.failedAtCallees += int(stats.Failed)
	}
	var logs []*netlab.Log
	for _, c := range d.captures {
		log, err := c.Stop()
		if err != nil {
			return nil, err
		}
		logs = append(logs, log)
	}
	if err := d.gateway.Stop(syscall.SIGTERM, stopGrace); err != nil {
		return nil, err
	}
	if err := d.gateway.Wait(); err != nil {
		return nil, fmt.Errorf("the daemon did not end well: %w", err)
	}
	calls := netlab.Calls(logs...)
	o.count(calls, netlab.CompareMedia(calls, logs...))
	o.duration = time.Since(d.started)
	return o, nil
}

// idle waits until the gateway has no call left.
func (d *demo) idle(ctx context.Context) (admin.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, idleTimeout)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		status, err := d.api.Status(ctx)
		if err != nil {
			return admin.Status{}, err
		}
		if status.Calls.Active == 0 {
			return status, nil
		}
		select {
		case <-ctx.Done():
			return admin.Status{}, fmt.Errorf("%d calls are still there %v after the last one ended: %w", status.Calls.Active, idleTimeout, ctx.Err())
		case <-tick.C:
		}
	}
}
