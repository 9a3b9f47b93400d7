package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tandem-sbc/tandem/pkg/admin"
	"github.com/tandem-sbc/tandem/tests/netlab"
	"github.com/tandem-sbc/tandem/tests/sipp"
)

// The load of the signalling bench. The rate is the one that the aim is stated for;
// CPU per call falls as the rate rises, so only the same rate may be compared.
const (
	benchRate     = 100.0
	benchCalls    = 2000
	warmUpCalls   = 200
	benchTalk     = 500 * time.Millisecond
	rampStep      = 200.0
	rampLimit     = 2000.0
	rampSeconds   = 4
	benchTimeout  = 10 * time.Minute
	benchEndGrace = 15 * time.Second
)

// benchPart is the value of --part.
type benchPart string

const (
	partAll        benchPart = "all"
	partMedia      benchPart = "media"
	partSignalling benchPart = "signalling"
)

func (p *benchPart) String() string { return string(*p) }
func (p *benchPart) Type() string   { return "part" }

func (p *benchPart) Set(value string) error {
	switch benchPart(value) {
	case partAll, partMedia, partSignalling:
		*p = benchPart(value)
		return nil
	}
	return fmt.Errorf("want %s, %s or %s", partMedia, partSignalling, partAll)
}

// figure is one line of out/bench.json.
type figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
}

func benchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure what packets and calls cost: packets and calls per second, CPU, latency",
		Args:  cobra.NoArgs,
	}
	daemon, engine := daemonFlag(cmd), engineFlag(cmd)
	out := cmd.Flags().String("out", "out/bench.json", "where the figures are written")
	part := partAll
	cmd.Flags().Var(&part, "part", "what is measured: media, signalling or all")
	goBench := cmd.Flags().String("go-bench", "", "output of `go test -bench` whose metrics are added")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, cancel := context.WithTimeout(cmd.Context(), benchTimeout)
		defer cancel()
		b := &bench{daemon: *daemon, engine: string(*engine), part: part, out: cmd.OutOrStdout()}
		err := b.run(ctx, *goBench)
		if len(b.figures) == 0 {
			return err
		}
		return errors.Join(err, b.write(*out)) // what was measured before an error is not lost
	}
	return cmd
}

// bench collects figures.
type bench struct {
	daemon, engine string
	part           benchPart
	out            io.Writer
	figures        []figure
}

// record adds a figure; add shows it as well.
func (b *bench) record(name string, value float64, unit string) {
	b.figures = append(b.figures, figure{name, value, unit})
}

func (b *bench) add(name string, value float64, unit string) {
	b.record(name, value, unit)
	fmt.Fprintf(b.out, "  %-28s %10.3f %s\n", name, value, unit)
}

func (b *bench) run(ctx context.Context, goBench string) error {
	if goBench != "" {
		data, err := os.ReadFile(goBench)
		if err != nil {
			return err
		}
		if err := b.addGoBench(string(data)); err != nil {
			return err
		}
	}
	b.add("yardstick_sha256_ns_per_kb", sha256Yardstick(), "ns")
	if b.part != partSignalling {
		if err := b.media(ctx); err != nil {
			return fmt.Errorf("media: %w", err)
		}
	}
	if b.part == partMedia {
		return nil
	}
	if err := b.floor(ctx); err != nil {
		return fmt.Errorf("peers without a gateway: %w", err)
	}
	if err := b.signalling(ctx); err != nil {
		return fmt.Errorf("signalling: %w", err)
	}
	return nil
}

// addGoBench takes over the metrics that Go benchmarks named themselves, such as
// "82.1 xdp_plain_ns", the median of each.
func (b *bench) addGoBench(text string) error {
	values, units := make(map[string][]float64), make(map[string]string)
	var names []string
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		for i := 2; i+1 < len(fields); i += 2 {
			name := fields[i+1]
			unit := goBenchUnit(name)
			if unit == "" {
				continue
			}
			units[name] = unit
			value, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return fmt.Errorf("benchmark line %q: %w", strings.TrimSpace(line), err)
			}
			if values[name] == nil {
				names = append(names, name)
			}
			values[name] = append(values[name], value)
		}
	}
	if len(names) == 0 {
		return errors.New("the Go benchmarks printed no metric")
	}
	for _, name := range names {
		slices.Sort(values[name])
		b.add(name, values[name][len(values[name])/2], units[name])
	}
	return nil
}

// goBenchUnit tells the unit of a metric by its name; what ends otherwise is not ours.
func goBenchUnit(name string) string {
	switch {
	case strings.HasSuffix(name, "_ns"):
		return "ns"
	case strings.HasSuffix(name, "_allocs"):
		return "allocations"
	}
	return ""
}

// sha256Yardstick is what this machine takes now for a piece of plain computing, to
// set the other figures of the run against.
func sha256Yardstick() float64 {
	block := make([]byte, 1<<20)
	best := time.Duration(1<<63 - 1)
	for range 20 {
		begun := time.Now()
		sha256.Sum256(block)
		best = min(best, time.Since(begun))
	}
	return float64(best.Nanoseconds()) / 1024
}

// floor measures the peers against each other, the gateway's host only routing: what
// the set-up time would be without a gateway, noise of the measurement included.
func (b *bench) floor(ctx context.Context) (err error) {
	lab, err := netlab.Up(ctx, netlab.Default(true))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	setup, _, err := load(ctx, lab, netlab.RealmOf(netlab.CarrierA).Peer, benchRate, warmUpCalls, true)
	if err != nil {
		return err
	}
	b.add("sip_setup_floor_ms_p50", ms(setup.P50), "ms")
	b.add("sip_setup_floor_ms_p99", ms(setup.P99), "ms")
	return nil
}

// signalling measures calls through the gateway: INVITE to BYE, media set up and torn down.
func (b *bench) signalling(ctx context.Context) (err error) {
	lab, err := netlab.Up(ctx, netlab.Default(false))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	gateway, err := lab.StartGateway(ctx, b.daemon, netlab.GatewayOptions{Engine: b.engine, MaxCalls: 16384, LogLevel: "warn"}, nil)
	if err != nil {
		return err
	}
	api := admin.NewClient(gateway.Socket)
	target := netlab.RealmOf(netlab.Platform).Gateway

	if _, _, err := load(ctx, lab, target, benchRate, warmUpCalls, false); err != nil {
		return fmt.Errorf("warming up: %w", err)
	}
	if err := awaitNoCall(ctx, api); err != nil {
		return err
	}
	before, err := netlab.CPUTime(gateway.PID())
	if err != nil {
		return err
	}
	// Without a capture: the daemon's CPU must not share the machine with it.
	if _, _, err := load(ctx, lab, target, benchRate, benchCalls, false); err != nil {
		return err
	}
	if err := awaitNoCall(ctx, api); err != nil {
		return err
	}
	after, err := netlab.CPUTime(gateway.PID())
	if err != nil {
		return err
	}
	b.add("sip_cpu_ms_per_call", ms(after-before)/benchCalls, "ms")

	setup, disordered, err := load(ctx, lab, target, benchRate, benchCalls, true)
	if err != nil {
		return err
	}
	b.add("sip_setup_added_ms_p50", ms(setup.P50), "ms")
	b.add("sip_setup_added_ms_p99", ms(setup.P99), "ms")
	b.add("sip_disordered", float64(disordered), "responses")

	cps, err := ramp(ctx, lab, target, api)
	if err != nil {
		return err
	}
	b.add("sip_cps", cps, "calls/s")
	if err := gateway.Stop(syscall.SIGTERM, stopGrace); err != nil {
		return err
	}
	return gateway.Wait()
}

// ramp raises the rate until a call fails or the peers have to repeat themselves, and
// returns the highest rate that went well. The peers share the machine's cores.
func ramp(ctx context.Context, lab *netlab.Lab, target netip.Addr, api *admin.Client) (float64, error) {
	best := benchRate
	for rate := rampStep; rate <= rampLimit; rate += rampStep {
		_, _, err := load(ctx, lab, target, rate, int(rate*rampSeconds), false)
		if idle := awaitNoCall(ctx, api); idle != nil {
			return 0, idle
		}
		if err != nil {
			break
		}
		best = rate
	}
	return best, nil
}

// errStrained means that calls went through, but not at ease.
var errStrained = errors.New("messages had to be repeated")

// load makes calls from the platform to carrier-a. With captures it returns the set-up
// time added between the two interfaces, and how many provisional responses came late.
func load(ctx context.Context, lab *netlab.Lab, target netip.Addr, rate float64, calls int, captured bool) (setup netlab.Percentiles, disordered int, err error) {
	var captures []*netlab.Capture
	if captured {
		for _, host := range []string{netlab.Platform, netlab.CarrierA} {
			c, err := lab.Capture(host, netlab.PeerDevice)
			if err != nil {
				return setup, 0, err
			}
			captures = append(captures, c)
		}
	}
	callee, err := sipp.Start(ctx, lab, netlab.CarrierA, sipp.Config{Scenario: sipp.AnswerSignal, Local: netlab.RealmOf(netlab.CarrierA).Peer})
	if err != nil {
		return setup, 0, err
	}
	caller, err := sipp.Start(ctx, lab, netlab.Platform, sipp.Config{
		Scenario: sipp.CallSignal, Local: netlab.RealmOf(netlab.Platform).Peer, SIPPort: 5061, MediaPort: 7000,
		Remote: netip.AddrPortFrom(target, 5060), Number: netlab.PrefixA, Calls: calls, Rate: rate, Talk: benchTalk,
	})
	if err != nil {
		return setup, 0, errors.Join(err, callee.Process.Stop(syscall.SIGKILL, time.Second))
	}
	stats, err := caller.Wait()
	_, calleeErr := callee.Stop(benchEndGrace)
	if err := errors.Join(err, calleeErr); err != nil {
		return setup, 0, err
	}
	if stats.Retransmissions > 0 {
		return setup, 0, fmt.Errorf("%w: %d times", errStrained, stats.Retransmissions)
	}
	if !captured {
		return setup, 0, nil
	}
	var logs []*netlab.Log
	for _, c := range captures {
		log, err := c.Stop()
		if err != nil {
			return setup, 0, err
		}
		logs = append(logs, log)
	}
	seen := netlab.Calls(logs...)
	if len(seen) != calls {
		return setup, 0, fmt.Errorf("captured %d of %d calls", len(seen), calls)
	}
	for _, c := range seen {
		disordered += c.Caller.Disordered
	}
	return netlab.SetupAdded(seen), disordered, nil
}

// awaitNoCall waits until the gateway has ended every call.
func awaitNoCall(ctx context.Context, api *admin.Client) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		status, err := api.Status(ctx)
		if err != nil {
			return err
		}
		if status.Calls.Active == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%d calls do not end: %w", status.Calls.Active, ctx.Err())
		}
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func (b *bench) write(path string) error {
	data, err := json.MarshalIndent(b.figures, "", "  ")
	if err != nil {
		return fmt.Errorf("figures: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("figures: %w", err)
	}
	if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("figures: %w", err)
	}
	fmt.Fprintf(b.out, "\nwritten to %s\n", path)
	return nil
}
