package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tandem-sbc/tandem/pkg/admin"
	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// now is when every command of these tests runs.
var now = time.Date(2026, 3, 1, 3, 0, 0, 0, time.UTC)

// result is what a command line came to.
type result struct {
	status         int
	stdout, stderr string
}

// tandem runs a command line; socket is what the environment names, or empty.
func tandem(t *testing.T, socket string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	getenv := func(key string) string {
		if key == socketEnv {
			return socket
		}
		return ""
	}
	status := run(t.Context(), env{stdout: &stdout, stderr: &stderr, getenv: getenv, now: func() time.Time { return now }, version: "1.2.3"}, args)
	return result{status, stdout.String(), stderr.String()}
}

// daemon serves an admin API until the test ends and returns its socket.
func daemon(t *testing.T) string {
	t.Helper()
	return serveSources(t, admin.Sources{
		Version: "1.2.4",
		Started: time.Now().Add(-90 * time.Second),
		Status: func() (admin.Status, error) {
			return admin.Status{
				Node: "gw1", State: admin.Running, EngineReason: "kernel 5.10 is older than 6.1",
				Engine: call.EngineStats{Engine: call.EngineUserspace, Flows: 4, UserspacePackets: 700, Exits: []call.Exit{
					{Realm: 1, Reason: "forwarded", Verdict: "forward", Packets: 700}, {Realm: 2, Reason: "source-refused", Verdict: "drop", Packets: 3},
					{Reason: "not-ipv4", Verdict: "stack", Packets: 2}, {Realm: 1, Reason: "hold", Verdict: "drop"},
				}, EventsLost: 6},
				Realms: []string{"platform", "carrier-a"},
				Kernel: &admin.Kernel{ABI: 2, Pins: "/sys/fs/bpf/tdm-gw1", Adopted: 8, Attachments: []admin.Attachment{
					{Device: "eth1", Hook: "xdp", Mode: "native"}, {Device: "eth1", Hook: "tcx"}, {Device: "tun0", Hook: "tcx"},
				}},
				Calls:     admin.Calls{Active: 1, Total: 12, Answered: 9, Failed: 2},
				Resources: admin.Resources{PortsInUse: 2, Flows: 4, Transactions: 3},
			}, nil
		},
		Calls: func() []call.Info {
			media := call.Media{Codec: "PCMA/8000", Packets: 490, Lost: 10, JitterMS: 0.25, MOS: 3.876, RTTMS: 31.4, Digits: 16}
			return []call.Info{{
				ID: "01KAV5C1P0000000000000000A", State: call.Answered, From: "+4930\x1b[2J111", To: "+4930222", Started: now.Add(-26 * time.Hour),
				Ingress: call.LegRecord{Trunk: "genesys", Local: netip.MustParseAddrPort("192.0.2.2:5060"), Media: media},
				Egress:  call.LegRecord{Trunk: "carrier-a"},
			}}
		},
		Trunks: testTrunks, Groups: testGroups, SetTrunk: setTestTrunk, Reload: reloadTest,
		Realms:  testRealms,
		Tunnels: testTunnels,
		Route:   testRoute,
	})
}

// serveSources serves what sources say until the test ends.
func serveSources(t *testing.T, sources admin.Sources) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "admin.sock")
	s, err := admin.New(admin.Config{Socket: socket}, sources)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return socket
}

// TestShow (O5): what people read. Nothing that a peer wrote steers the terminal.
func TestShow(t *testing.T) {
	socket := daemon(t)
	for _, tt := range []struct {
		command string
		want    []string
	}{
		{"status", []string{
			"node       gw1\n", "version    1.2.4\n", "state      running\n", "engine     userspace (kernel 5.10 is older than 6.1)\n",
			"calls      1 active, 12 total, 9 answered, 2 failed\n", "packets    0 in the kernel, 700 in user space\n", "3 to drop: source-refused (carrier-a)\n",
			"2 to stack: not-ipv4\n", "events     6 lost\n", "attached   eth1: xdp native, tcx\n           tun0: tcx\n",
			"pins       /sys/fs/bpf/tdm-gw1 (ABI 2, 8 flows adopted)\n",
		}},
		{"calls", []string{
			"ID                          STATE     FROM           TO        AGE    INGRESS  EGRESS     CODEC      PACKETS IN  LOST  JITTER  MOS  PACKETS OUT  LOST  JITTER  MOS  RTT\n",
			"01KAV5C1P0000000000000000A  answered  +4930?[2J111  +4930222  1d2h0m  genesys  carrier-a  PCMA/8000|  490  10 (2.0%)  0.2 ms  3.88  0  0  -  -  31 ms|-\n",
		}},
		{"version", []string{"tandem   1.2.3", "tandemd  1.2.4"}},
	} {
		got := tandem(t, "", "--socket", socket, tt.command)
		if got.status != exitOK || got.stderr != "" {
			t.Errorf("%s: exit %d, %s", tt.command, got.status, got.stderr)
		}
		for _, want := range tt.want {
			if !strings.Contains(squeeze(got.stdout), squeeze(want)) {
				t.Errorf("%s: %q is not in\n%s", tt.command, want, got.stdout)
			}
		}
		if strings.ContainsRune(got.stdout, '\x1b') {
			t.Errorf("%s: an escape sequence of a peer reached the terminal", tt.command)
		}
	}
}

// squeeze makes runs of spaces one: how wide a column is depends on its rows.
func squeeze(s string) string {
	for strings.Contains(s, "  ") {
		s = strings.ReplaceAll(s, "  ", " ")
	}
	return s
}

// TestJSON (O5): programs get the API's own types, and find the socket in the environment.
func TestJSON(t *testing.T) {
	socket := daemon(t)
	parse := func(command string, value any) {
		t.Helper()
		got := tandem(t, socket, command, "--json")
		if got.status != exitOK {
			t.Fatalf("%s: exit %d, %s", command, got.status, got.stderr)
		}
		if err := json.Unmarshal([]byte(got.stdout), value); err != nil {
			t.Fatalf("%s: %v in %s", command, err, got.stdout)
		}
	}
	var status admin.Status
	var calls []call.Info
	var trunks []admin.TrunkStatus
	var v versions
	parse("status", &status)
	parse("calls", &calls)
	parse("trunks", &trunks)
	parse("version", &v)
	var realms []call.Realm
	var tunnels []call.Tunnel
	parse("realms", &realms)
	parse("tunnels", &tunnels)
	if len(realms) != len(testRealms()) || len(tunnels) != len(testTunnels()) || tunnels[1].Errors["replay"] != 2 || realms[1].Leaks["clear-text"] != 17 {
		t.Errorf("%+v\n%+v", realms, tunnels)
	}
	if status.Calls.Answered != 9 || status.UptimeMS < 90_000 || len(calls) != 1 || calls[0].From != "+4930\x1b[2J111" || len(trunks) != 4 || trunks[0].In.Attempts != 12 ||
		calls[0].Ingress.Media.MOS != 3.876 || calls[0].Ingress.Media.Digits != 16 || status.Engine.EventsLost != 6 || status.Kernel.Attachments[2].Hook != "tcx" {
		t.Errorf("%+v\n%+v\n%+v", status, calls, trunks)
	}
	if v.Client.Version != "1.2.3" || v.Daemon == nil || v.Daemon.Version != "1.2.4" {
		t.Errorf("%+v", v)
	}
}

// TestNoDaemon: the error says what to do; the version of the command is known without.
func TestNoDaemon(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "absent.sock")
	for _, command := range []string{"status", "calls", "trunks", "groups", "realms", "tunnels", "reload"} {
		got := tandem(t, socket, command)
		if got.status != exitFailure || got.stdout != "" || !strings.Contains(got.stderr, "start tandemd") || !strings.Contains(got.stderr, "--socket") {
			t.Errorf("%s: %+v", command, got)
		}
	}
	if got := tandem(t, socket, "version"); got.status != exitOK || !strings.Contains(got.stdout, "does not answer on "+socket) {
		t.Errorf("version: %+v", got)
	}
}

// TestCheck: every finding with its place, all at once, on standard error; a program
// gets them as a list on standard output.
func TestCheck(t *testing.T) {
	const good = "../../docs/tandem.yaml"
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	text, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bad, append(text, "\nnoode: gw1\nadmin2: {}\n"...), 0o600); err != nil {
		t.Fatal(err)
	}

	if got := tandem(t, "", "check", good); got.status != exitOK || !strings.HasPrefix(got.stdout, good+": ok") || got.stderr != "" {
		t.Errorf("good: %+v", got)
	}
	if got := tandem(t, "", "check", good, "--json"); got.status != exitOK || got.stdout != "[]\n" {
		t.Errorf("good as JSON: %+v", got)
	}
	got := tandem(t, "", "check", bad)
	if lines := strings.Split(strings.TrimSpace(got.stderr), "\n"); got.status != exitFailure || got.stdout != "" || len(lines) != 2 {
		t.Errorf("bad: %+v", got)
	} else {
		for i, key := range []string{"noode", "admin2"} {
			if !strings.HasPrefix(lines[i], bad+":") || !strings.Contains(lines[i], ": "+key+": ") {
				t.Errorf("%s is not FILE:LINE: %s: ...", lines[i], key)
			}
		}
	}
	got = tandem(t, "", "check", "--json", bad)
	var findings []config.Finding
	if err := json.Unmarshal([]byte(got.stdout), &findings); err != nil {
		t.Fatalf("%v in %+v", err, got)
	}
	if got.status != exitFailure || got.stderr != "" || len(findings) != 2 || findings[0].Key != "noode" || findings[0].Remedy == "" {
		t.Errorf("bad as JSON: %+v", got)
	}
	if got := tandem(t, "", "check", bad+".absent"); got.status != exitFailure || !strings.Contains(got.stderr, "no such file") {
		t.Errorf("absent: %+v", got)
	}
}

// TestUsage: a command line that makes no sense ends with 2, whatever the daemon does.
func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{"route", "1"}, {"route", "1", "2"}, {"route", "1", "2", "--trunk", "a", "--header", "x"}, {"route", "1", "2", "--trunk", "a", "--at", "noon"},
		{"clals"}, {"check"}, {"check", "a", "b"}, {"status", "now"}, {"tunnels", "a", "b"}, {"trunks", "a", "drain", "b"}, {"trunks", "a", "fold"}, {"groups", "a", "b"}, {"reload", "now"}, {"--colour"}, {"calls", "--socket"},
	} {
		if got := tandem(t, "", args...); got.status != exitUsage || !strings.Contains(got.stderr, "tandem --help") {
			t.Errorf("%v: %+v", args, got)
		}
	}
	for _, args := range [][]string{{"--help"}, {"check", "--help"}, {"status", "--help"}} {
		if got := tandem(t, "", args...); got.status != exitOK || !strings.Contains(got.stdout, "Usage:") {
			t.Errorf("%v: %+v", args, got)
		}
	}
}

// TestShortDuration: a time that can be read at a glance, also after a clock was set back.
func TestShortDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 1500 * time.Millisecond: "1s", 83 * time.Second: "1m23s", 77*time.Hour + 5*time.Minute: "3d5h5m",
	} {
		if got := shortDuration(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}
