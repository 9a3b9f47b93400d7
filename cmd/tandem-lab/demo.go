package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/tandem-sbc/tandem/pkg/admin"
	"github.com/tandem-sbc/tandem/tests/netlab"
	"github.com/tandem-sbc/tandem/tests/sipp"
)

// The demo's calls: enough to be seen, few enough for two cores, and for two that are emulated.
const (
	demoCalls, machineCalls = 240, 24
	demoRate, machineRate   = 12.0, 1.0         // per second, over all directions
	demoPackets             = 300               // of 20 ms, each way: calls outlast the cut
	demoTalk                = 10 * time.Second  // a call, with time to spare for a machine that is late
	demoTimeout             = 150 * time.Second // for all of it
	readyTimeout            = 60 * time.Second  // for tunnels and trunks
	endGrace                = 8 * time.Second   // for the callees to see their last BYE
	idleTimeout             = 20 * time.Second  // for the gateway to have no call left
)

// What happens to the primary tunnel in mid-demo, in parts of the time in which calls begin.
const (
	cutAt, cutFor = 0.3, 0.3
	// cutPackets have passed before it, and calls are up.
	cutPackets = 200
	// awayLeast is less than any fault of a tunnel takes to be noticed: who was away for less
	// had no media there.
	awayLeast = 200 * time.Millisecond
	// awayLimit is how long running calls' media may be away (I6).
	awayLimit = 2 * time.Second
)

// directions in which the demo calls. A host's callers and its callee share nothing.
var directions = []struct {
	from, to string
	prefix   string
	sipPort  uint16
	rtpPort  uint16
}{
	{netlab.Platform, netlab.CarrierA, netlab.PrefixA + "1", 5061, 10000},
	{netlab.Platform, netlab.CarrierB, netlab.PrefixB + "2", 5062, 11000},
	{netlab.CarrierA, netlab.Platform, netlab.PrefixPlatform + "3", 5061, 10000},
	{netlab.CarrierB, netlab.Platform, netlab.PrefixPlatform + "4", 5061, 10000},
	{netlab.CarrierB, netlab.CarrierA, netlab.PrefixA + "5", 5062, 11000},
}

func demoCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Make calls between a platform and two carriers behind tunnels, and cut one of them",
		Long: `Make calls in all directions between a platform and two carriers with the same addresses, each
behind its tunnel; cut one's primary tunnel in mid-demo; count what arrives, byte for byte.

It runs on this machine if its kernel has what it takes, else in a virtual machine.`,
		Args: cobra.NoArgs,
	}
	daemon, engine := daemonFlag(cmd), engineFlag(cmd)
	flags := cmd.Flags()
	out := flags.String("out", "out/demo.json", "where the result is written")
	calls := flags.Int("calls", 0, fmt.Sprintf("number of calls, over all directions (default %d, %d in a virtual machine)", demoCalls, machineCalls))
	rate := flags.Float64("rate", 0, fmt.Sprintf("calls per second, over all directions (default %.0f, %.0f in a virtual machine)", demoRate, machineRate))
	here := flags.Bool("here", false, "no virtual machine, whatever this machine's kernel has")
	live := flags.Bool("live", false, "draw the table in place (default: if the output is a terminal)")
	written := flags.String("written", "", "")
	// For the demo within the machine: where the result is in the end.
	if err := flags.MarkHidden("written"); err != nil {
		panic(err) // it was defined a moment ago
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		// A failed run must not leave the numbers of an earlier one.
		if err := removeIfThere(*out); err != nil {
			return err
		}
		if file, ok := cmd.OutOrStdout().(*os.File); ok && !flags.Changed("live") {
			*live = term.IsTerminal(int(file.Fd()))
		}
		d := &demo{daemon: *daemon, engine: string(*engine), live: *live, calls: *calls, rate: *rate, out: cmd.OutOrStdout()}
		lack, err := netlab.TunnelsLack()
		if err != nil {
			return err
		}
		if len(lack) > 0 && !*here {
			fmt.Fprintf(d.out, "this machine lacks %s: the demo runs in a virtual one\n", strings.Join(lack, ", "))
			d.calls, d.rate = cmp.Or(d.calls, machineCalls), cmp.Or(d.rate, machineRate)
			return demoInMachine(cmd.Context(), cmd, d, *out)
		}
		d.calls, d.rate = cmp.Or(d.calls, demoCalls), cmp.Or(d.rate, demoRate)
		ctx, cancel := context.WithTimeout(cmd.Context(), demoTimeout)
		defer cancel()
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
		outcome.print(cmd.OutOrStdout(), cmp.Or(*written, *out))
		return outcome.failure()
	}
	return cmd
}

// demo is one run.
type demo struct {
	daemon, engine string
	calls          int
	rate           float64
	live           bool
	out            io.Writer

	lab      *netlab.Lab
	gateway  *netlab.Daemon
	api      *admin.Client
	view     *table
	wire     *netlab.Capture
	captures map[string][]*netlab.Capture // by host
	callers  []*sipp.Agent
	callees  []*sipp.Agent
	started  time.Time
	// cut and mended are when the primary tunnel's cable was; zero before.
	cut, mended time.Time
}

func (d *demo) run(ctx context.Context) (_ *outcome, err error) {
	if _, err := sweep(d.out); err != nil {
		return nil, err
	}
	sites := carrierSites()
	if d.lab, err = upCarriers(ctx, sites); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.lab.Close()) }()
	describeCarriers(d.out, d.lab, sites)
	o := netlab.TrunkOptions{
		Sites: sites, Engine: d.engine,
		Realms: map[string][]string{netlab.CarrierA: {"return_after: 2s"}},
		// An emulated machine is late itself; the default is 300 ms.
		Tunnels: map[string][]string{"a-primary": {"monitor_interval: 200ms"}},
	}
	if d.gateway, err = d.lab.StartTrunkGateway(ctx, d.daemon, o, nil); err != nil {
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
		return nil, d.explain(err)
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

// start opens the captures, then the callees, waits for the tunnels, and starts the callers.
func (d *demo) start(ctx context.Context) (err error) {
	if d.wire, err = d.lab.CaptureWire(netlab.Switch, netlab.TrunkPort); err != nil {
		return err
	}
	d.captures = map[string][]*netlab.Capture{}
	for _, s := range carrierSites() {
		for _, device := range innerDevices(s) {
			c, err := d.lab.Capture(s.Name, device)
			if err != nil {
				return err
			}
			d.captures[s.Name] = append(d.captures[s.Name], c)
		}
	}
	var seed uint64
	audio := func() sipp.Audio {
		seed++
		return sipp.Audio{Seed: seed, Packets: demoPackets}
	}
	for _, s := range carrierSites() {
		callee, err := sipp.Start(ctx, d.lab, s.Name, sipp.Config{Scenario: sipp.Answer, Local: s.Peer, Audio: audio()})
		if err != nil {
			return err
		}
		d.callees = append(d.callees, callee)
	}
	if err := d.ready(ctx); err != nil {
		return err
	}
	d.started = time.Now()
	share := splitCalls(d.calls, len(directions))
	for i, way := range directions {
		if share[i] == 0 {
			continue
		}
		from := netlab.SiteOf(way.from)
		caller, err := sipp.Start(ctx, d.lab, way.from, sipp.Config{
			Scenario:  sipp.Call,
			Local:     from.Peer,
			SIPPort:   way.sipPort,
			MediaPort: way.rtpPort,
			Remote:    netip.AddrPortFrom(from.Gateway.Addr(), 5060),
			Number:    way.prefix,
			Calls:     share[i],
			Rate:      d.rate / float64(len(directions)),
			Audio:     audio(),
			Talk:      demoTalk,
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
	if d.live {
		interval = 500 * time.Millisecond
	}
	d.view = &table{out: d.out, live: d.live}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	calling := time.Duration(float64(d.calls) / d.rate * float64(time.Second))
	var mend <-chan time.Time

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
			d.view.show(s)
			return nil
		case <-d.gateway.Done():
			d.stopCallers()
			<-callersDone
			return fmt.Errorf("the daemon ended in mid-call: %w", d.gateway.Wait())
		case <-mend:
			if err := d.mendPrimary(); err != nil {
				return err
			}
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
			d.view.show(s)
			// A slow machine takes a while to its first media; a cut that hits none shows nothing.
			due := s.elapsed >= time.Duration(cutAt*float64(calling))
			if talking := s.kernel+s.userspace >= cutPackets; d.cut.IsZero() && due && talking && s.active > 0 {
				if err := d.cutPrimary(); err != nil {
					return err
				}
				mend = time.After(time.Duration(cutFor * float64(calling)))
			}
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
	if s.tunnels, err = d.api.Tunnels(ctx); err != nil {
		return sample{}, err
	}
	for _, captures := range d.captures {
		// One device after the other: what is missing at one has passed the other.
		logs := make([]netlab.Totals, len(captures))
		for i, c := range captures {
			logs[i] = c.Totals()
			s.jitter = max(s.jitter, logs[i].Jitter)
			s.worstJitter = max(s.worstJitter, logs[i].MaxJitter)
		}
		if len(logs) == 1 {
			s.missing += logs[0].Missing
		}
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
	if o.tunnels, err = d.api.Tunnels(ctx); err != nil {
		return nil, err
	}
	var logs []*netlab.Log
	for _, s := range carrierSites() {
		var parts []*netlab.Log
		for _, c := range d.captures[s.Name] {
			log, err := c.Stop()
			if err != nil {
				return nil, err
			}
			parts = append(parts, log)
		}
		logs = append(logs, netlab.Merge(parts...))
	}
	wire, err := d.wire.Stop()
	if err != nil {
		return nil, err
	}
	if err := d.gateway.Stop(syscall.SIGTERM, stopGrace); err != nil {
		return nil, err
	}
	if err := d.gateway.Wait(); err != nil {
		return nil, fmt.Errorf("the daemon did not end well: %w", err)
	}
	// Tunnels outlive the daemon by design; the lab's must not.
	if _, err := d.gateway.Unload(ctx); err != nil {
		return nil, err
	}
	calls := netlab.Calls(logs...)
	o.countCut(d.cut, d.mended, calls, logs)
	o.count(calls, netlab.CompareMedia(calls, logs...))
	o.countWire(wire.Wire, carrierSites())
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
