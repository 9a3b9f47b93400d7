// Package e2e holds the scenarios: real SIPp peers in namespaces call each other
// through a real tandemd, and packet captures at the peers say what became of it.
// It needs root and bin/tandemd (make build).
package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/admin"
	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/cdr"
	"github.com/tandem-sbc/tandem/tests/netlab"
	"github.com/tandem-sbc/tandem/tests/sipp"
)

// binaries are built by `make build`.
const binaries = "../../bin"

// settleTimeout is longer than any timer of a call that has ended: SIP transactions
// stay for 64*T1 (32 s) to answer retransmissions.
const settleTimeout = 45 * time.Second

// gateway is a lab with a running daemon.
type gateway struct {
	*netlab.Lab
	daemon *netlab.Daemon
	api    *admin.Client
	// binary is the daemon's.
	binary string
}

// engines runs a scenario with each media engine.
func engines(t *testing.T, scenario func(t *testing.T, engine string)) {
	t.Helper()
	for _, engine := range []string{call.EngineKernel, call.EngineUserspace} {
		t.Run(engine, func(t *testing.T) { scenario(t, engine) })
	}
}

func start(t *testing.T, o netlab.GatewayOptions) *gateway {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("namespaces and XDP need root: use `make test`")
	}
	lab, err := netlab.Up(t.Context(), netlab.Default(false))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Errorf("the lab left something behind: %v", err)
		}
		if _, err := os.Stat(lab.Pins()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the gateway's pins are there still: %v", err)
		}
	})
	g := &gateway{Lab: lab}
	g.startDaemon(t, o)
	return g
}

func (g *gateway) startDaemon(t *testing.T, o netlab.GatewayOptions) {
	t.Helper()
	binary, err := filepath.Abs(filepath.Join(binaries, "tandemd"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(binary); err != nil {
		t.Fatalf("%v: use `make test`, or `make build` first", err)
	}
	g.binary = binary
	g.daemon, err = g.StartGateway(t.Context(), binary, o, nil)
	if err != nil {
		t.Fatal(err)
	}
	g.api = admin.NewClient(g.daemon.Socket)
	daemon := g.daemon
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the daemon said:\n%s", daemon.Said())
		}
	})
	g.steady(t)
}

// agent starts a SIPp process at a host; callers are aimed at the gateway.
func (g *gateway) agent(t *testing.T, host string, c sipp.Config) *sipp.Agent {
	t.Helper()
	realm := netlab.RealmOf(host)
	c.Local = realm.Peer
	if !c.Remote.IsValid() {
		c.Remote = netip.AddrPortFrom(realm.Gateway, 5060)
	}
	agent, err := sipp.Start(t.Context(), g.Lab, host, c)
	if err != nil {
		t.Fatal(err)
	}
	return agent
}

// capture records at the peers until its result is called.
func (g *gateway) capture(t *testing.T, hosts ...string) func() []*netlab.Log {
	t.Helper()
	var captures []*netlab.Capture
	for _, host := range hosts {
		c, err := g.Capture(host, netlab.PeerDevice)
		if err != nil {
			t.Fatal(err)
		}
		captures = append(captures, c)
	}
	return func() []*netlab.Log {
		t.Helper()
		var logs []*netlab.Log
		for _, c := range captures {
			log, err := c.Stop()
			if err != nil {
				t.Fatal(err)
			}
			logs = append(logs, log)
		}
		return logs
	}
}

func (g *gateway) status(t *testing.T) admin.Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	status, err := g.api.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return status
}

// settled waits until nothing of any call is left in the daemon.
func (g *gateway) settled(t *testing.T, before admin.Status) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), settleTimeout)
	defer cancel()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		now := g.status(t)
		left := leftovers(before.Resources, now.Resources, now.Calls.Active)
		if left == "" {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("after the calls the daemon still holds: %s", left)
		}
	}
}

func leftovers(before, now admin.Resources, calls int) string {
	var left []string
	check := func(what string, before, now int) {
		if now > before {
			left = append(left, fmt.Sprintf("%s: %d, before %d", what, now, before))
		}
	}
	check("calls", 0, calls)
	check("flows", 0, now.Flows)
	check("ports", 0, now.PortsInUse)
	check("transactions", 0, now.Transactions)
	check("goroutines", before.Goroutines, now.Goroutines)
	check("file descriptors", before.OpenFDs, now.OpenFDs)
	return strings.Join(left, "; ")
}

// steady waits until the daemon has begun all that it does without calls: its API answers before
// the last goroutine runs.
func (g *gateway) steady(t *testing.T) {
	t.Helper()
	const looks, pause = 5, 20 * time.Millisecond
	deadline := time.Now().Add(settleTimeout)
	for last, same := 0, 0; same < looks; time.Sleep(pause) {
		now := g.status(t).Resources.Goroutines
		if same++; now != last {
			last, same = now, 0
		}
		if time.Now().After(deadline) {
			t.Fatalf("the number of goroutines changes all the time, it is %d now", now)
		}
	}
}

// ip runs iproute2 in a host and returns what it printed.
func (g *gateway) ip(t *testing.T, host string, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	p := g.Command(t.Context(), host, "ip", args...)
	p.Stdout, p.Stderr = &out, &out
	if err := p.Run(); err != nil {
		t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out.Bytes())
	}
	return out.String()
}

// records reads the gateway's CDRs.
func (g *gateway) records(t *testing.T) []call.Record {
	t.Helper()
	var records []call.Record
	err := cdr.Read(g.CDRFile(), func(r call.Record) error {
		records = append(records, r)
		return nil
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return records
}

// finish waits for a caller's calls and lets the callees end.
func finish(t *testing.T, caller *sipp.Agent, callees ...*sipp.Agent) sipp.Stats {
	t.Helper()
	stats, err := caller.Wait()
	if err != nil {
		t.Errorf("caller: %v", err)
	}
	for _, callee := range callees {
		if _, err := callee.Stop(10 * time.Second); err != nil {
			t.Errorf("callee: %v", err)
		}
	}
	return stats
}
