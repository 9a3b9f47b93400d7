package app

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/b2bua"
	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/config"
	"github.com/tandem-sbc/tandem/pkg/datapath"
	"github.com/tandem-sbc/tandem/pkg/media"
	"github.com/tandem-sbc/tandem/pkg/metrics"
	"github.com/tandem-sbc/tandem/pkg/realm"
	"github.com/tandem-sbc/tandem/tests/netspace"
	"github.com/tandem-sbc/tandem/tests/yardstick"
)

// scrapeLimit is what one scrape over 10,000 calls may take (O1).
const scrapeLimit = 50 * time.Millisecond

// O1, M11: a scrape over 10,000 calls is short, and has the media of each of them.
func TestScrapeOf10000Calls(t *testing.T) {
	const calls = 10_000
	for _, row := range []struct {
		name   string
		engine func(testing.TB) engine
		line   string
	}{
		{"counters in memory", func(testing.TB) engine { return newManyFlows() },
			fmt.Sprintf(`tandem_trunk_media_packets_total{realm="outside",trunk="carrier"} %g`, 5000.0*calls)},
		{"counters in the kernel", kernelEngine, fmt.Sprintf("tandem_engine_flows %d", 4*calls)},
	} {
		t.Run(row.name, func(t *testing.T) {
			scrape := scraperOf(t, row.engine(t), calls)
			var body string
			yardstick.Holds(t, fmt.Sprintf("a scrape of %d calls", calls), scrapeLimit*slowdown, func() { body = scrape() })
			for _, line := range []string{row.line, "tandem_collection_errors_total 0"} {
				if !strings.Contains(body, line+"\n") {
					t.Errorf("%s is not in the scrape", line)
				}
			}
			if n := legs(t, body, "carrier"); n != calls {
				t.Errorf("%d legs of the carrier are in the scrape, want %d", n, calls)
			}
		})
	}
}

// legs adds up a trunk's legs over all categories of quality.
func legs(t *testing.T, scrape, trunk string) int {
	t.Helper()
	sum := 0
	for _, found := range regexp.MustCompile(`tandem_trunk_media_legs\{.*trunk="`+trunk+`"\} ([0-9]+)`).FindAllStringSubmatch(scrape, -1) {
		n, err := strconv.Atoi(found[1])
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}

func BenchmarkScrape10000Calls(b *testing.B) {
	scrape := scraperOf(b, newManyFlows(), 10_000)
	for b.Loop() {
		scrape()
	}
}

var scrapeConfig = `
node: ` + testNode + `
realms:
  - {name: inside, network: existing, interface: tdmin, address: 192.0.2.1/24, media_ports: 10000-29999}
  - {name: outside, network: existing, interface: tdmout, address: 198.51.100.1/24, media_ports: 30000-49999}
trunks:
  - {name: platform, realm: inside, kind: platform, targets: [192.0.2.10]}
  - {name: carrier, realm: outside, kind: carrier, targets: [198.51.100.10]}
routes:
  - {name: out, trunk: carrier}
`

// kernelEngine is one on two devices of a namespace, with no way to any peer.
func kernelEngine(t testing.TB) engine {
	t.Helper()
	cfg, err := config.Parse("scrape.yaml", []byte(scrapeConfig))
	if err != nil {
		t.Fatal(err)
	}
	space := netspace.New(t)
	space.IP(t, "link add tdmin type veth peer name tdmout")
	var e *datapath.Engine
	first, err := newPlan(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	space.Do(func() {
		attached := make([]realm.Attachment, len(cfg.Realms))
		for i, r := range cfg.Realms {
			var device *net.Interface
			if device, err = net.InterfaceByName(r.Interface); err != nil {
				return
			}
			attached[i].Points = []realm.Point{{Ifindex: device.Index}}
		}
		e, err = datapath.Open(datapath.Config{Realms: kernelRealms(cfg, first.trunks, attached), MaxCalls: cfg.MaxCalls, NextHops: nowhere{}})
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// nowhere knows no next hop.
type nowhere struct{}

func (nowhere) Watch(_ uint16, _ netip.Addr, update func(call.NextHop)) (stop func(), err error) {
	update(call.NextHop{})
	return func() {}, nil
}

// scraperOf sets up calls in a gateway whose peers are fakes, and returns what reads
// /metrics. The calls end with the test.
func scraperOf(t testing.TB, e engine, calls int) (scrape func() string) {
	t.Helper()
	cfg, err := config.Parse("scrape.yaml", []byte(scrapeConfig))
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{cfg: cfg, log: slog.New(slog.DiscardHandler)}
	d.engine, d.ended, d.stacks = e, metrics.NewEnded(), newStacks()
	if d.networks, err = realm.NewNetworks(cfg.Node, cfg.Networks(), d.log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.networks.Close(); err != nil {
			t.Error(err)
		}
	})
	first, err := newPlan(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	d.plan.Store(first)
	if d.media, err = media.New(media.Config{Realms: mediaRealms(cfg.Realms), Engine: e}); err != nil {
		t.Fatal(err)
	}
	d.gateway = b2bua.New(b2bua.Config{
		MaxCalls: calls, Media: d.media, Dialer: willing{}, Records: forgetful{}, Log: d.log,
		Plan: d.callPlan,
	})
	var up sync.WaitGroup
	for range calls {
		up.Go(func() {
			caller := newWillingLeg("192.0.2.10:5060")
			d.gateway.Invite("inside", caller, call.Invite{Number: "+4930123456", MaxForwards: 70, Body: willingSDP("192.0.2.10", 40000)})
		})
	}
	t.Cleanup(func() { d.gateway.Hangup(); up.Wait() })
	deadline := time.Now().Add(3 * time.Minute)
	for d.gateway.Totals().Answered < calls {
		if time.Now().After(deadline) {
			t.Fatalf("%+v after 3 minutes", d.gateway.Totals())
		}
		time.Sleep(10 * time.Millisecond)
	}

	sources := d.metricsSources()
	sources.SIP, sources.CDR = nil, nil // neither grows with the calls
	handler, err := metrics.Handler(sources)
	if err != nil {
		t.Fatal(err)
	}
	return func() string {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		return w.Body.String()
	}
}

// manyFlows is an engine in which each flow has carried 100 s of G.711.
type manyFlows struct {
	mu    sync.Mutex
	flows map[call.FlowKey]call.FlowStats
}

func newManyFlows() *manyFlows { return &manyFlows{flows: make(map[call.FlowKey]call.FlowStats)} }

func (e *manyFlows) Install(flows []call.Flow) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, f := range flows {
		e.flows[f.Key] = call.FlowStats{
			Key: f.Key, Packets: 5000, Bytes: 860_000, Jitter: 2 * time.Millisecond, Gap: 40 * time.Millisecond,
			SSRC: 1, First: time.Now().Add(-100 * time.Second), Last: time.Now(),
		}
	}
	return nil
}

func (e *manyFlows) Remove(keys []call.FlowKey) ([]call.FlowStats, error) {
	stats, err := e.Snapshot(keys)
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, k := range keys {
		delete(e.flows, k)
	}
	return stats, err
}

func (e *manyFlows) Snapshot(keys []call.FlowKey) ([]call.FlowStats, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	stats := make([]call.FlowStats, len(keys))
	for i, k := range keys {
		stats[i] = e.flows[k]
	}
	return stats, nil
}

func (e *manyFlows) Events() <-chan call.MediaEvent { return nil }
func (e *manyFlows) Close() error                   { return nil }
func (e *manyFlows) Stats() (call.EngineStats, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return call.EngineStats{Engine: call.EngineUserspace, Flows: len(e.flows)}, nil
}

// willing dials peers that answer at once.
type willing struct{}

func (willing) Dial(target call.Target, _ call.Invite) (call.Leg, error) {
	leg := newWillingLeg(target.Addr.String())
	leg.events <- call.Accepted{Body: willingSDP(target.Addr.Addr().String(), 50000)}
	return leg, nil
}

// willingLeg agrees to everything.
type willingLeg struct {
	peer   netip.AddrPort
	events chan call.Event
}

func newWillingLeg(peer string) *willingLeg {
	return &willingLeg{peer: netip.MustParseAddrPort(peer), events: make(chan call.Event, 2)}
}

func (l *willingLeg) CallID() string                     { return "" }
func (l *willingLeg) Peer() netip.AddrPort               { return l.peer }
func (l *willingLeg) Local() netip.AddrPort              { return netip.AddrPort{} }
func (l *willingLeg) Events() <-chan call.Event          { return l.events }
func (l *willingLeg) Progress(int, string, []byte) error { return nil }
func (l *willingLeg) Accept([]byte) error                { l.events <- call.Acked{}; return nil }
func (l *willingLeg) Reject(call.Rejection) error        { return nil }
func (l *willingLeg) Ack([]byte) error                   { return nil }
func (l *willingLeg) Reinvite([]byte) error              { return nil }
func (l *willingLeg) Close(context.Context, call.Cause)  {}

func willingSDP(addr string, port int) []byte {
	return fmt.Appendf(nil, "v=0\r\no=- 1 1 IN IP4 %s\r\ns=-\r\nc=IN IP4 %s\r\nt=0 0\r\nm=audio %d RTP/AVP 8\r\n", addr, addr, port)
}

// forgetful takes records and keeps none.
type forgetful struct{}

func (forgetful) Write(call.Record) {}
