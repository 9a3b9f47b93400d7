package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/tests/netlab"
)

// output is a buffer that may be read while it is written.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func requireRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a lab of network namespaces needs root")
	}
}

// requireNoRemains: nothing that a lab of this process made is left.
func requireNoRemains(t *testing.T) {
	t.Helper()
	for _, dir := range []string{"/run/netns", "/run/tandem-lab"} {
		left, err := filepath.Glob(fmt.Sprintf("%s/tdm%dx*", dir, os.Getpid()))
		if err != nil {
			t.Fatal(err)
		}
		if len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"demo", "--engine", "magic"}, {"fly"}, {"up", "extra"}, {"demo", "--no-such"}} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), &stdout, &stderr, args); code != 2 {
			t.Errorf("%v: exit %d, want 2", args, code)
		}
		if stderr.Len() == 0 {
			t.Errorf("%v: nothing on stderr", args)
		}
	}
}

// TestInterruptTakesTheLabDown: Ctrl-C ends "up" well, and nothing of it stays.
func TestInterruptTakesTheLabDown(t *testing.T) {
	requireRoot(t)
	ctx, interrupt := context.WithTimeout(t.Context(), 20*time.Second)
	defer interrupt()
	var stdout, stderr output
	code := make(chan int, 1)
	go func() { code <- run(ctx, &stdout, &stderr, []string{"up", "--router"}) }()
	for !strings.Contains(stdout.String(), "Ctrl-C takes it all down") {
		select {
		case got := <-code:
			t.Fatalf("exit %d: %s", got, stderr.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
	interrupt()
	if got := <-code; got != 0 {
		t.Errorf("exit %d: %s", got, stderr.String())
	}
	requireNoRemains(t)
}

// TestDemoFailsCleanly: a daemon that does not come up is an error that says so, and
// nothing stays.
func TestDemoFailsCleanly(t *testing.T) {
	requireRoot(t)
	lack, err := netlab.TunnelsLack()
	if err != nil {
		t.Fatal(err)
	}
	if len(lack) > 0 {
		t.Skipf("this machine lacks %s: use `make test-vm`", strings.Join(lack, ", "))
	}
	daemon := filepath.Join(t.TempDir(), "tandemd")
	if err := os.WriteFile(daemon, []byte("#!/bin/sh\necho no engine today >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	result := filepath.Join(t.TempDir(), "demo.json")
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), &stdout, &stderr, []string{"demo", "--daemon", daemon, "--out", result}); code != 1 {
		t.Errorf("exit %d, want 1", code)
	}
	if !strings.Contains(stderr.String(), "no engine today") {
		t.Errorf("stderr does not have the daemon's words: %s", stderr.String())
	}
	if _, err := os.Stat(result); err == nil {
		t.Error("a result was written")
	}
	requireNoRemains(t)
}

// good is the outcome of a run without fault.
func good() outcome {
	cut := time.Now()
	return outcome{
		Calls: 240, Answered: 240, RTPSent: 72000, RTPReceived: 71960, RTPLostInCut: 40, KernelPackets: 72000, DSCPOK: true,
		MediaAwayMS: 1100, Cut: "a-primary", Backup: "a-backup", TunnelsUp: 1, WireESP: 50000, WireIKE: 100, WireARP: 10,
		engine: "kernel", wanted: 240, clean: true, tunnels: []call.Tunnel{{Name: "a-primary", State: call.TunnelUp}},
		cutAt: cut, mendedAt: cut.Add(5 * time.Second),
	}
}

func TestOutcome(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(*outcome)
		want  string
	}{
		{"OK in the kernel", func(*outcome) {}, ""},
		{"OK in user space", func(o *outcome) {
			o.engine, o.KernelPackets, o.UserspacePackets = "userspace", 0, 72000
		}, ""},
		{"a call failed", func(o *outcome) { o.Answered, o.Failed = 239, 1 }, "239 of 240"},
		{"a call is missing", func(o *outcome) { o.Calls, o.Answered = 239, 239 }, "239 calls were made"},
		{"a callee complains", func(o *outcome) { o.failedAtCallees = 1 }, "at the callees"},
		{"a packet is lost", func(o *outcome) { o.RTPLost = 1 }, "1 RTP packets were lost"},
		{"no media at all", func(o *outcome) { o.RTPSent, o.RTPReceived, o.KernelPackets = 0, 0, 0 }, "no RTP"},
		{"a packet is altered", func(o *outcome) { o.clean = false }, "as it was sent"},
		{"not marked", func(o *outcome) { o.DSCPOK = false }, "DSCP 46"},
		{"one packet went through user space", func(o *outcome) { o.UserspacePackets = 1 }, "through user space"},
		{"the engine missed packets", func(o *outcome) { o.KernelPackets = 71959 }, "the engine counted"},
		{"media was away for too long", func(o *outcome) { o.MediaAwayMS = 2001 }, "2001 ms"},
		{"the cut hit nobody", func(o *outcome) { o.MediaAwayMS = 0 }, "hit no running call"},
		{"the cut did not come", func(o *outcome) { o.cutAt = time.Time{} }, "not cut"},
		{"a tunnel stays down", func(o *outcome) { o.TunnelsUp = 0 }, "0 of 1 tunnels"},
		{"clear text on the wire", func(o *outcome) { o.WireOther = 1 }, "neither ESP"},
		{"no ESP at all", func(o *outcome) { o.WireESP = 0 }, "no ESP"},
		{"a 180 behind its 200", func(o *outcome) { o.disordered = 1 }, "behind the final"},
	} {
		o := good()
		tt.spoil(&o)
		err := o.failure()
		if (err != nil) != (tt.want != "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestResultKeys: other programs read the file by exactly these names.
func TestResultKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "demo.json")
	o := good()
	if err := o.write(path); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"answered", "backup", "calls", "cut", "dscp_ok", "failed", "kernel_packets", "media_away_ms",
		"rtp_lost", "rtp_lost_in_cut", "rtp_received", "rtp_sent", "tunnels_up", "userspace_packets",
		"wire_arp", "wire_esp", "wire_ike", "wire_other",
	}
	if keys := slices.Sorted(maps.Keys(got)); !slices.Equal(keys, want) {
		t.Errorf("keys %v, want %v", keys, want)
	}
}

func TestTable(t *testing.T) {
	s := sample{
		elapsed: 61 * time.Second, active: 5, answered: 30, failed: 10, kernel: 1234567, jitter: 1500 * time.Microsecond,
		tunnels: []call.Tunnel{{Name: "a-primary", State: call.TunnelDown}, {Name: "a-backup", State: call.TunnelUp, Active: true}},
	}
	var plain bytes.Buffer
	(&table{out: &plain}).show(s)
	for _, want := range []string{"5 active", "30 answered", "75.0 %", "1 234 567 kernel", "1.50 ms", "a-primary down, a-backup up*"} {
		if !strings.Contains(plain.String(), want) {
			t.Errorf("no %q in %q", want, plain.String())
		}
	}
	if strings.Contains(plain.String(), "\x1b") || strings.Count(plain.String(), "\n") != 1 {
		t.Errorf("not a plain line: %q", plain.String())
	}

	var screen bytes.Buffer
	live := &table{out: &screen, live: true}
	live.show(s)
	lines := strings.Count(screen.String(), "\n")
	screen.Reset()
	live.show(s)
	if up := fmt.Sprintf("\x1b[%dA", lines); !strings.HasPrefix(screen.String(), up) {
		t.Errorf("the second table begins with %q, want %q", screen.String()[:8], up)
	}
	if got := rate(0, 0); got != "-" {
		t.Errorf("rate of no calls: %q", got)
	}
}

func TestSplitCalls(t *testing.T) {
	for n, want := range map[int][]int{0: {0, 0, 0, 0}, 1: {1, 0, 0, 0}, 240: {60, 60, 60, 60}, 242: {61, 61, 60, 60}} {
		if got := splitCalls(n, 4); !slices.Equal(got, want) {
			t.Errorf("%d calls: %v, want %v", n, got, want)
		}
	}
}
