package metrics

import (
	"context"
	"errors"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"go.uber.org/goleak"

	"github.com/tandem-sbc/tandem/pkg/call"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testSources() Sources {
	return Sources{
		Node: "gw1", Version: "1.2.3", Realms: []string{"platform", "carrier-a"},
		Engine: func() (call.EngineStats, error) {
			return call.EngineStats{
				Engine: call.EngineKernel, Flows: 4, KernelPackets: 1000, UserspacePackets: 2,
				Exits: []call.Exit{
					{Realm: 1, Reason: "forwarded", Verdict: "forward", Packets: 600}, {Realm: 2, Reason: "forwarded", Verdict: "forward", Packets: 400},
					{Realm: 2, Reason: "source-refused", Verdict: "drop", Packets: 3}, {Reason: "not-ipv4", Verdict: "stack", Packets: 5},
				},
				EventsLost: 8,
			}, nil
		},
		Attachments: func() []Attachment {
			return []Attachment{{Device: "eth1", Mode: "native", Hook: "xdp"}, {Device: "ipsec1", Hook: "tcx"}}
		},
		Media: func() ([]TrunkMedia, error) {
			return []TrunkMedia{{
				Trunk: "genesys", Realm: "platform",
				Counters: MediaCounters{Packets: 5000, Bytes: 860_000, Lost: 50, Reordered: 4, Duplicated: 3, Refused: 2, OutOfPolicy: 1, RemoteLost: 6},
				Live:     []LegQuality{{MOS: 4.4, JitterMS: 1, RTTMS: 20}, {MOS: 3.6, JitterMS: 11}, {JitterMS: 3, RTTMS: 40}, {}},
			}}, nil
		},
		Ended: endedCalls(),
		Calls: func() Calls { return Calls{Active: 1, Total: 12, Answered: 9, Failed: 2} },
		Trunks: func() []Trunk {
			return []Trunk{{
				Name: "genesys", Realm: "platform", Kind: "platform", InService: true, State: "in-service", Changes: 2, MaxCalls: 100, MaxRate: 8,
				In: TrunkDirection{
					Active: 1, Attempts: 12, Answers: 9, Failures: 2, Outcomes: map[string]uint64{"answered": 9, "busy": 1, "silent": 1}, Refused: map[string]uint64{"rate": 3},
					Recent: TrunkRecent{Decided: 10, ASR: 0.8, NER: 0.9, PDD: 1.5, ACD: 90},
				},
				Out:     TrunkDirection{Attempts: 5, Answers: 5},
				Targets: []TrunkTarget{{Address: "192.0.2.10:5060", Alive: true, RoundTrip: 0.004}, {Address: "192.0.2.11:5060", Failures: 3}},
			}}
		},
		Groups: func() []GroupMember {
			return []GroupMember{{Group: "carriers", Trunk: "carrier-a", Share: 0.75, Multiplier: 1}, {Group: "carriers", Trunk: "carrier-b", Share: 0.25, Multiplier: 0.8}}
		},
		Networks: testNetworks,
		Tunnels:  testTunnels,
		SIP: func() []SIP {
			s := SIP{
				Realm: "platform", Requests: map[string]InOut{"INVITE": {In: 12, Out: 5}}, Retransmissions: InOut{In: 1, Out: 2},
				UnknownSources: 7, ParseErrors: 6, Strays: 5, Oversize: 4, SendErrors: 3, ReadErrors: 2, Legs: 1, Transactions: 3,
			}
			s.Responses[2] = InOut{In: 5, Out: 9}
			return []SIP{s}
		},
		PortsInUse: func() int { return 2 },
		CDR: func() CDR {
			return CDR{Written: 11, WriteErrors: 1, Dropped: 0, Queued: 2, Causes: map[string]uint64{"normal-clearing": 9, "busy": 2}}
		},
	}
}

// endedCalls are an answered call without and one with trouble, and one that nobody answered.
func endedCalls() *Ended {
	d := NewEnded()
	good := call.Media{Packets: 1000, MOS: 4.4, JitterMS: 1, RTTMS: 30}
	bad := call.Media{Packets: 990, Lost: 20, Duplicated: 10, MOS: 2.5, JitterMS: 40}
	leg := func(m call.Media) call.LegRecord {
		return call.LegRecord{Trunk: "genesys", Realm: "platform", Media: m}
	}
	answered := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	d.Observe(call.Record{Answered: answered, Ingress: leg(good), Egress: leg(bad)})
	d.Observe(call.Record{Answered: answered, Ingress: leg(call.Media{}), Egress: leg(call.Media{})})
	d.Observe(call.Record{Ingress: leg(bad), Egress: leg(bad)})
	return d
}

var update = flag.Bool("update", false, "write the golden files anew")

// scrape returns our own lines of /metrics.
func scrape(t *testing.T, sources Sources) string {
	t.Helper()
	h, err := Handler(sources)
	if err != nil {
		t.Fatal(err)
	}
	return read(t, h)
}

func read(t *testing.T, h http.Handler) string {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	var ours strings.Builder
	for line := range strings.Lines(w.Body.String()) {
		if strings.Contains(line, "tandem_") {
			ours.WriteString(line)
		}
	}
	return ours.String()
}

// TestFamilies (O1): every family with its help, type and labels, in and out apart.
func TestFamilies(t *testing.T) {
	const golden = "testdata/families.txt"
	got := strings.ReplaceAll(scrape(t, testSources()), runtime.Version(), "GO")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	// Describe has to name what Collect sends, or a registry refuses it.
	for _, f := range families {
		if name := nameOf(f); !strings.Contains(got, "\n# TYPE "+name+" ") {
			t.Errorf("%s has no sample here", name)
		}
	}
}

// TestConventions (O1): names, units and types are as Prometheus' own linter wants them.
func TestConventions(t *testing.T) {
	problems, err := promlint.New(strings.NewReader(scrape(t, testSources()))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestREADMEHasTrunkMetrics: the table of the README has each family about trunks and groups, but
// those of media, and no other.
func TestREADMEHasTrunkMetrics(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	told := make(map[string]bool)
	for _, name := range regexp.MustCompile("`(tandem_(?:trunk|group)_[a-z_]+)`").FindAllStringSubmatch(string(text), -1) {
		told[name[1]] = true
	}
	for _, f := range families {
		name := nameOf(f)
		if (strings.HasPrefix(name, "tandem_trunk_") || strings.HasPrefix(name, "tandem_group_")) && !strings.HasPrefix(name, "tandem_trunk_media_") && !told[name] {
			t.Errorf("README.md does not tell of %s", name)
		}
		delete(told, name)
	}
	for name := range told {
		if strings.HasPrefix(name, "tandem_trunk_call_") {
			continue // histograms of ended calls
		}
		t.Errorf("README.md tells of %s, which is not there", name)
	}
}

// nameOf reads a family's name: a Desc gives it only in its text.
func nameOf(f family) string {
	_, rest, _ := strings.Cut(f.desc.String(), `fqName: "`)
	name, _, _ := strings.Cut(rest, `"`)
	return name
}

// TestNeverLabelledByCall (O1): a label has few values, whatever peers send.
func TestNeverLabelledByCall(t *testing.T) {
	known := []string{
		"version", "goversion", "node", "trunk", "realm", "kind", "direction", "result", "engine", "path", "reason", "verdict", "method", "class", "cause",
		"device", "hook", "mode", "quality", "le", "state", "tunnel", "keying", "rank", "target", "group",
	}
	for _, sample := range regexp.MustCompile(`\{.*\}`).FindAllString(scrape(t, testSources()), -1) {
		for _, label := range regexp.MustCompile(`(\w+)="`).FindAllStringSubmatch(sample, -1) {
			if !slices.Contains(known, label[1]) {
				t.Errorf("label %s: is it bounded?", label[1])
			}
		}
	}
}

// TestBrokenSource: a source that fails is counted and costs only its own metrics.
func TestBrokenSource(t *testing.T) {
	sources := testSources()
	sources.Engine = func() (call.EngineStats, error) { return call.EngineStats{}, errors.New("gone") }
	got := scrape(t, sources)
	if strings.Contains(got, "tandem_engine_") || !strings.Contains(got, "\ntandem_calls_active 1\n") || !strings.Contains(got, "\ntandem_collection_errors_total 1\n") {
		t.Errorf("scrape:\n%s", got)
	}
}

// TestErrorsComeLast: the count of errors is of the scrape that shows it.
func TestErrorsComeLast(t *testing.T) {
	samples := make(chan prometheus.Metric, 1000)
	New(testSources()).Collect(samples)
	close(samples)
	var last prometheus.Metric
	for m := range samples {
		last = m
	}
	if last.Desc() != collectionErrors.desc {
		t.Errorf("the last sample is of %s", last.Desc())
	}
}

// TestNoSources: a part that is not there leaves its metrics out.
func TestNoSources(t *testing.T) {
	if got := scrape(t, Sources{}); strings.Count(got, "# TYPE") != 2 {
		t.Errorf("not only build_info and collection_errors_total:\n%s", got)
	}
}

// TestSameSampleTwice: a source's slip costs a sample, not the scrape.
func TestSameSampleTwice(t *testing.T) {
	sources := testSources()
	sources.Trunks = func() []Trunk { return []Trunk{{Name: "a"}, {Name: "a"}} }
	if got := scrape(t, sources); !strings.Contains(got, "\ntandem_calls_active 1\n") {
		t.Errorf("scrape:\n%s", got)
	}
}

// TestExporter (O1): Prometheus reads over TCP, a load balancer is told of draining, and
// nothing is left at the end.
func TestExporter(t *testing.T) {
	sources, draining := testSources(), make(chan bool, 2)
	sources.Draining = func() bool { return <-draining }
	x, err := Listen(Config{Address: "127.0.0.1:0"}, sources)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := Listen(Config{Address: x.Addr().String()}, sources); err == nil {
		t.Errorf("two exporters on one address: %v", second.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- x.Run(ctx) }()

	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(path string) (int, string) {
		resp, err := client.Get("http://" + x.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	status, body := get("/metrics")
	for _, part := range []string{
		`tandem_build_info{goversion="go`, `tandem_trunk_calls_total{direction="in",realm="platform",result="answered",trunk="genesys"} 9`,
		"go_goroutines ", "process_open_fds ", "tandem_collection_errors_total 0",
	} {
		if status != 200 || !strings.Contains(body, part) {
			t.Errorf("%d, without %s", status, part)
		}
	}
	for state, want := range map[bool]int{false: 200, true: 503} {
		draining <- state
		if status, body := get("/healthz"); status != want {
			t.Errorf("draining %t: %d %s", state, status, body)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := x.Close(); err != nil {
		t.Errorf("Close after Run: %v", err)
	}
}
