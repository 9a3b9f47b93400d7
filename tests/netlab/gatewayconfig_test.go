package netlab

import (
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/config"
)

// TestGatewayConfigIsValid: what the lab gives the daemon passes the daemon's own check.
func TestGatewayConfigIsValid(t *testing.T) {
	lab := &Lab{dir: "/run/tandem-lab/tdm1x0"}
	for name, o := range map[string]GatewayOptions{
		"default": {},
		"all options": {
			Engine: "userspace", MaxCalls: 100, TrunkCalls: 10, RingTimeout: 2 * time.Second, Drain: time.Minute,
			Quarantine: 5 * time.Second, Metrics: "127.0.0.1:9464", LogLevel: "debug", Strategy: "priority",
		},
	} {
		data, err := lab.GatewayConfig(o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := config.Parse("tandem.yaml", data); err != nil {
			t.Errorf("%s: %v\n%s", name, err, data)
		}
	}
}
