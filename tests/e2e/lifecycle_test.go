package e2e

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/tests/netlab"
	"github.com/tandem-sbc/tandem/tests/sipp"
)

// H5: a daemon killed in mid-call leaves its program and its flows to its successor, which
// starts on the same devices, ports and files, knows nothing of the calls, and carries new
// ones.
func TestKilledInMidCall(t *testing.T) {
	g := start(t, netlab.GatewayOptions{Engine: call.EngineKernel})
	g.agent(t, netlab.CarrierA, sipp.Config{Scenario: sipp.Answer, Audio: sipp.Audio{Packets: 500}})
	g.agent(t, netlab.Platform, sipp.Config{
		Scenario: sipp.Call, SIPPort: 5070, MediaPort: 6010, Number: netlab.PrefixA, Calls: 5, Rate: 50, Audio: sipp.Audio{Packets: 500},
	})
	g.await(t, "five calls with media", func() bool {
		s := g.status(t)
		return s.Calls.Active == 5 && s.Engine.KernelPackets > 100
	})
	if err := g.daemon.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-g.daemon.Done()
	attached := g.pinned(t)
	// The crash may have torn the last line.
	torn, err := os.OpenFile(g.CDRFile(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := torn.WriteString(`{"id":"torn`); err != nil {
		t.Fatal(err)
	}
	if err := torn.Close(); err != nil {
		t.Fatal(err)
	}

	g.startDaemon(t, netlab.GatewayOptions{Engine: call.EngineKernel})
	before := g.status(t)
	if before.Engine.Flows != 5*4 || before.Kernel == nil || before.Kernel.Adopted != 5*4 || before.Calls.Active != 0 {
		t.Errorf("the successor found %d flows, %d calls and in the kernel %+v, want the 20 flows of 5 calls",
			before.Engine.Flows, before.Calls.Active, before.Kernel)
	}
	if now := g.pinned(t); !slices.Equal(now, attached) {
		t.Errorf("the program is attached by links %v, it was by %v", now, attached)
	}
	callee := g.agent(t, netlab.CarrierB, sipp.Config{Scenario: sipp.Answer})
	caller := g.agent(t, netlab.Platform, sipp.Config{Scenario: sipp.Call, SIPPort: 5080, MediaPort: 6030, Number: netlab.PrefixB, Calls: 3, Rate: 10})
	finish(t, caller, callee)
	if records := g.records(t); len(records) != 3 {
		t.Errorf("%d records can be read, want the 3 calls of the successor", len(records))
	}
	data, err := os.ReadFile(g.CDRFile())
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(data, []byte("torn")) {
		t.Error("the torn line is still in the record file")
	}
	if err := g.daemon.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	g.ended(t, 10*time.Second)
	g.unload(t)
	g.detached(t)
}

// H6: SIGTERM refuses new calls with 503 and lets the running ones end by themselves.
func TestDrain(t *testing.T) {
	g := start(t, netlab.GatewayOptions{Drain: 20 * time.Second})
	callee := g.agent(t, netlab.CarrierA, sipp.Config{Scenario: sipp.Answer, Audio: sipp.Audio{Packets: 150}})
	running := g.agent(t, netlab.Platform, sipp.Config{
		Scenario: sipp.Call, SIPPort: 5070, MediaPort: 6010, Number: netlab.PrefixA, Calls: 3, Rate: 50, Audio: sipp.Audio{Packets: 150},
	})
	g.await(t, "three calls", func() bool { return g.status(t).Calls.Active == 3 })
	if err := g.daemon.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	g.await(t, "draining", func() bool { return g.status(t).State == "draining" })
	// A reload is no second request to stop.
	if err := g.daemon.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	late := g.agent(t, netlab.Platform, sipp.Config{Scenario: sipp.CallUnavailable, SIPPort: 5071, MediaPort: 6020, Number: netlab.PrefixB, Calls: 1})
	finish(t, late)
	finish(t, running, callee)
	g.ended(t, 10*time.Second)
	if records := g.records(t); len(records) != 4 {
		t.Errorf("%d records, want 4", len(records))
	}
}

// H6: when drain is over, both sides of what is left get a BYE.
func TestDrainRunsOut(t *testing.T) {
	g := start(t, netlab.GatewayOptions{Drain: time.Second})
	callee := g.agent(t, netlab.CarrierA, sipp.Config{Scenario: sipp.Answer, Audio: sipp.Audio{Packets: 10}})
	caller := g.agent(t, netlab.Platform, sipp.Config{
		Scenario: sipp.CallAndWait, SIPPort: 5070, MediaPort: 6010, Number: netlab.PrefixA, Calls: 2, Rate: 50, Audio: sipp.Audio{Packets: 10},
	})
	g.await(t, "two calls", func() bool { return g.status(t).Calls.Active == 2 })
	if err := g.daemon.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	finish(t, caller, callee)
	g.ended(t, 10*time.Second)
	for _, r := range g.records(t) {
		if r.Cause.Code != "shutdown" {
			t.Errorf("cause %+v", r.Cause)
		}
	}
}

// A second signal does not wait for the drain.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	g := start(t, netlab.GatewayOptions{Drain: time.Minute})
	callee := g.agent(t, netlab.CarrierA, sipp.Config{Scenario: sipp.Answer, Audio: sipp.Audio{Packets: 10}})
	caller := g.agent(t, netlab.Platform, sipp.Config{
		Scenario: sipp.CallAndWait, SIPPort: 5070, MediaPort: 6010, Number: netlab.PrefixA, Calls: 1, Audio: sipp.Audio{Packets: 10},
	})
	g.await(t, "a call", func() bool { return g.status(t).Calls.Active == 1 })
	for range 2 {
		if err := g.daemon.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		g.await(t, "draining, or the end", func() bool {
			select {
			case <-g.daemon.Done():
				return true
			default:
			}
			s, err := g.api.Status(t.Context())
			return err != nil || s.State == "draining"
		})
	}
	g.ended(t, 5*time.Second)
	finish(t, caller, callee)
}

// Media ports that the kernel may give to any program are said at the start, by realm.
func TestLocalPortsClash(t *testing.T) {
	const warning = "media ports may be given to other programs"
	g := start(t, netlab.GatewayOptions{})
	if strings.Contains(g.daemon.Said(), warning) {
		t.Errorf("the lab's own ports are blamed:\n%s", g.daemon.Said())
	}
	if err := g.daemon.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	g.ended(t, 10*time.Second)
	if err := g.Do(netlab.Gateway, func() error {
		return os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("24000 28671"), 0)
	}); err != nil {
		t.Fatal(err)
	}
	g.startDaemon(t, netlab.GatewayOptions{})
	if n := strings.Count(g.daemon.Said(), warning); n != 2 {
		t.Errorf("%d realms are blamed, want platform and carrier-a:\n%s", n, g.daemon.Said())
	}
}

// await polls until a condition holds.
func (g *gateway) await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(15 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// ended waits for the daemon to end by itself, without an error.
func (g *gateway) ended(t *testing.T, within time.Duration) {
	t.Helper()
	select {
	case <-g.daemon.Done():
	case <-time.After(within):
		t.Fatal("the daemon goes on")
	}
	if code := g.daemon.ExitCode(); code != 0 {
		t.Errorf("the daemon ended with %d:\n%s", code, g.daemon.Said())
	}
}
