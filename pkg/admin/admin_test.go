package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"github.com/tandem-sbc/tandem/pkg/call"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testSources() Sources {
	return Sources{
		Version: "1.2.3",
		Started: time.Now().Add(-time.Hour),
		Status: func() (Status, error) {
			return Status{
				Node: "gw1", State: Draining, EngineReason: "no CAP_BPF",
				Engine: call.EngineStats{
					Engine: call.EngineUserspace, Flows: 4, UserspacePackets: 700,
					Exits:      []call.Exit{{Realm: 1, Reason: "forwarded", Verdict: "forward", Packets: 700}},
					EventsLost: 5,
				},
				Realms:    []string{"platform"},
				Kernel:    &Kernel{ABI: 2, Pins: "/sys/fs/bpf/tdm-gw1", Adopted: 8, Attachments: []Attachment{{Device: "eth1", Hook: "xdp", Mode: "native", Pinned: true}}},
				Calls:     Calls{Active: 1, Total: 12, Answered: 9, Failed: 2},
				Resources: Resources{PortsInUse: 2, Flows: 4, Transactions: 3},
			}, nil
		},
		Calls: func() []call.Info {
			return []call.Info{{ID: "02", State: call.Ringing}, {ID: "01", State: call.Answered}}
		},
		Trunks:  func() []TrunkStatus { return nil },
		Realms:  func() []call.Realm { return nil },
		Tunnels: func() []call.Tunnel { return nil },
	}
}

// serve runs a server on a socket of its own until the test ends.
func serve(t *testing.T, sources Sources) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "admin.sock")
	s, err := New(Config{Socket: socket}, sources)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		if _, err := os.Stat(socket); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the socket is left behind: %v", err)
		}
	})
	return socket
}

// TestClientReadsAll (O5): what the daemon says arrives in the client's types.
func TestClientReadsAll(t *testing.T) {
	sources := testSources()
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	sources.Trunks = func() []TrunkStatus {
		return []TrunkStatus{{
			Name: "genesys", Realm: "platform", Kind: "platform", State: "probing", Since: noon, Reason: "no answer yet", MaxCalls: 100,
			In: TrunkDirection{Active: 1, Attempts: 12, Answers: 9, Failures: 2},
		}}
	}
	sources.Realms = func() []call.Realm {
		return []call.Realm{{
			Name: "carrier-a", Number: 2, Network: "managed", State: call.RealmDegraded, Since: noon, Reason: "a route is missing",
			Address: netip.MustParsePrefix("10.8.0.2/32"), VRF: "tdm-carrier-a", Table: 24576, Namespace: "tdm-gw1-carrier-a", Tunnel: "fra",
			Objects: []call.NetworkObject{{Kind: "route", Name: "default", Want: "unreachable", State: call.ObjectMissing, Problem: "network is down"}},
			Repairs: 3, Leaks: map[string]uint64{"clear-text": 9},
		}}
	}
	sources.Tunnels = func() []call.Tunnel {
		return []call.Tunnel{{
			Name: "fra", Realm: "carrier-a", Keying: "ike", Rank: 1, Active: true, State: call.TunnelUp, Since: noon, Device: "tdx1-carrier-a",
			Local: netip.MustParseAddr("192.0.2.2"), Remote: netip.MustParseAddr("192.0.2.1"), Established: noon, IKE: "AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_384",
			IKERekeys: 1, ChildRekeys: 24, In: call.TunnelTraffic{Packets: 5, Bytes: 900}, Errors: map[string]uint64{"replay": 2}, DPDFailures: 1,
			Failures: map[string]uint64{"no-answer": 4}, Monitor: &call.TunnelMonitor{Target: netip.MustParseAddr("10.8.0.1"), Answers: true, RTTMS: 7.5},
		}, {Name: "ham", Realm: "carrier-a", Keying: "manual", Rank: 2, State: call.TunnelDown, Cause: "no-key", Reason: "no key"}}
	}
	addresses := cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})
	calls := []call.Info{
		{ID: "01", State: call.Answered, From: "+4930111", To: "+4930222", Started: time.Now().UTC().Truncate(time.Millisecond), Ingress: call.LegRecord{
			Trunk: "genesys", Local: netip.MustParseAddrPort("192.0.2.2:5060"), Media: call.Media{Codec: "PCMA/8000", Packets: 500, JitterMS: 0.5},
		}},
		{ID: "02", State: call.Ringing},
	}
	sources.Calls = func() []call.Info { return []call.Info{calls[1], calls[0]} }
	c := NewClient(serve(t, sources))
	ctx := t.Context()

	st, err := c.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := sources.Status()
	want.Version = "1.2.3"
	if diff := cmp.Diff(want, st, cmpopts.IgnoreFields(Status{}, "Started", "UptimeMS", "Resources.Goroutines", "Resources.OpenFDs")); diff != "" {
		t.Errorf("status: -want +got:\n%s", diff)
	}
	if st.UptimeMS < time.Hour.Milliseconds() || !st.Started.Equal(sources.Started) || st.Resources.Goroutines < 2 || st.Resources.OpenFDs < 3 {
		t.Errorf("what the server knows itself: %+v", st)
	}
	gotCalls, err := c.Calls(ctx)
	if diff := cmp.Diff(calls, gotCalls, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" || err != nil {
		t.Errorf("calls, oldest first: %v, -want +got:\n%s", err, diff)
	}
	gotTrunks, err := c.Trunks(ctx)
	if diff := cmp.Diff(sources.Trunks(), gotTrunks); diff != "" || err != nil {
		t.Errorf("trunks: %v, -want +got:\n%s", err, diff)
	}
	gotRealms, err := c.Realms(ctx)
	if diff := cmp.Diff(sources.Realms(), gotRealms, addresses); diff != "" || err != nil {
		t.Errorf("realms: %v, -want +got:\n%s", err, diff)
	}
	gotTunnels, err := c.Tunnels(ctx)
	if diff := cmp.Diff(sources.Tunnels(), gotTunnels, addresses); diff != "" || err != nil {
		t.Errorf("tunnels: %v, -want +got:\n%s", err, diff)
	}
	v, err := c.Version(ctx)
	if err != nil || v != ThisVersion("1.2.3") || v.Go == "" || v.Kernel == "" {
		t.Errorf("version: %+v, %v", v, err)
	}
}

// TestAnswersOfTheAPI: an empty list is a list, and errors are JSON with a fitting status.
func TestAnswersOfTheAPI(t *testing.T) {
	sources := testSources()
	sources.Status = func() (Status, error) { return Status{}, errors.New("the engine is gone") }
	socket := serve(t, sources)
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", socket) },
	}}
	for _, tt := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "/v1/trunks", 200, "[]\n"},
		{"GET", "/v1/realms", 200, "[]\n"},
		{"GET", "/v1/tunnels", 200, "[]\n"},
		{"GET", "/v1/status", 500, `{"error":"the engine is gone"}` + "\n"},
		{"GET", "/v1/nothing", 404, `{"error":"no such resource: /v1/nothing"}` + "\n"},
		{"POST", "/v1/calls", 405, `{"error":"nothing can be changed here: use GET"}` + "\n"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tt.method, "http://tandem"+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != tt.status || string(body) != tt.body || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s: %s, %s, %q, %v", tt.method, tt.path, resp.Status, resp.Header.Get("Content-Type"), body, err)
		}
	}
	if _, err := NewClient(socket).Status(t.Context()); err == nil || !strings.Contains(err.Error(), "the engine is gone") {
		t.Errorf("the client says %v", err)
	}
}

// TestSocketIsGuarded (N6): only the owner and the group may connect.
func TestSocketIsGuarded(t *testing.T) {
	info, err := os.Stat(serve(t, testSources()))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v", info.Mode())
	}
}

// TestSocketInTheWay: a stale socket is replaced; one that answers, and a file that is
// no socket, stay.
func TestSocketInTheWay(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale.sock")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	// As kill -9 leaves it: bound, and nobody there.
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: stale}), syscall.Close(fd)); err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Socket: stale}, testSources())
	if err != nil {
		t.Fatal(err)
	}
	if second, err := New(Config{Socket: stale}, testSources()); !errors.Is(err, ErrInUse) {
		t.Errorf("a second daemon: %v, %v", second, err)
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Errorf("close twice: %v", err)
	}

	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{file: "not a socket", filepath.Join(dir, "absent", "s"): "mkdir -p"} {
		if _, err := New(Config{Socket: path}, testSources()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "precious" {
		t.Errorf("the file was touched: %q, %v", text, err)
	}
}

// TestClientWithoutDaemon: the error says what to do.
func TestClientWithoutDaemon(t *testing.T) {
	if _, err := NewClient(filepath.Join(t.TempDir(), "absent")).Status(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("%v", err)
	}
}

// TestClientIsBounded: neither a daemon that hangs nor nonsense holds the client.
func TestClientIsBounded(t *testing.T) {
	sources := testSources()
	release := make(chan struct{})
	sources.Calls = func() []call.Info { <-release; return nil }
	socket := serve(t, sources)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := NewClient(socket).Calls(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	close(release)
}

// TestJSONKeys: programs read these names; a change of one breaks them.
func TestJSONKeys(t *testing.T) {
	st, _ := testSources().Status()
	text, err := json.Marshal(st)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{
		`"node":"gw1"`, `"state":"draining"`, `"uptime_ms":0`, `"engine_reason":"no CAP_BPF"`, `"active":1`, `"ports_in_use":2`,
		`"userspace_packets":700`, `"verdict":"forward"`, `"open_fds":0`, `"realm":1`, `"realms":["platform"]`, `"events_lost":5`, `"abi":2`, `"pins":"/sys/fs/bpf/tdm-gw1"`, `"adopted":8`,
		`"attachments":[{"device":"eth1","hook":"xdp","mode":"native","pinned":true}]`,
	} {
		if !strings.Contains(string(text), key) {
			t.Errorf("%s is not in %s", key, text)
		}
	}
}
