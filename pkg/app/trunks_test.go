package app

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tandem-sbc/tandem/pkg/config"
	"github.com/tandem-sbc/tandem/pkg/metrics"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

// T7, T11: whatever an attempt comes to is a sample of its own, for Prometheus and in the API; a
// class that trunk gets and metrics does not know would be missing here.
func TestTrunkOutcomes(t *testing.T) {
	cfg, err := config.Parse("gw.yaml", []byte(strings.Replace(scrapeConfig, "routes:\n",
		"groups:\n  - {name: carriers, strategy: weighted, members: [{trunk: carrier, weight: 3}]}\nroutes:\n", 1)))
	if err != nil {
		t.Fatal(err)
	}
	first, err := newPlan(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	d := new(daemon)
	d.plan.Store(first)
	tr := first.trunks.Trunk("carrier")
	seen := make(map[trunk.Class]bool)
	for _, o := range []trunk.Outcome{
		{Answered: true}, {SIP: 486}, {SIP: 480}, {SIP: 603}, {SIP: 404}, {SIP: 403}, {SIP: 500}, {}, {Moved: true},
	} {
		tr.Outcome(trunk.Out, o)
		seen[o.Class()] = true
	}
	handler, err := metrics.Handler(metrics.Sources{Trunks: d.trunkMetrics, Groups: d.groupMetrics})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	text := w.Body.String()
	for class := range seen {
		line := fmt.Sprintf("tandem_trunk_outcomes_total{class=%q,direction=\"out\",realm=\"outside\",trunk=\"carrier\"} 1\n", class)
		if !strings.Contains(text, line) {
			t.Errorf("there is no %s", line)
		}
	}
	if n := strings.Count(text, `direction="out",realm="outside",trunk="carrier"} 1`+"\n"); len(seen) < 9 || n < len(seen) {
		t.Errorf("%d classes, and %d samples", len(seen), n)
	}
	for _, line := range []string{
		"tandem_group_member_share{group=\"carriers\",trunk=\"carrier\"} 1\n", "tandem_group_member_multiplier{group=\"carriers\",trunk=\"carrier\"} 1\n",
		"tandem_trunk_target_probe_failures_total{realm=\"outside\",target=\"198.51.100.10:5060\",trunk=\"carrier\"} 0\n",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("there is no %s", line)
		}
	}
	for _, s := range d.trunkStatus() {
		if s.Name == "carrier" && (len(s.Out.Outcomes) != len(seen) || s.Out.Outcomes["moved"] != 1) {
			t.Errorf("the API has %v", s.Out.Outcomes)
		}
	}
}
