package netlab

import (
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/config"
)

// TestGatewayConfigIsValid: what the lab gives the daemon passes the daemon's own check.
func TestGatewayConfigIsValid(t *testing.T) {
	lab := &Lab{id: "tdm1x0", dir: "/run/tandem-lab/tdm1x0"}
	for name, o := range map[string]GatewayOptions{
		"default": {},
		"all options": {
			Engine: "userspace", MaxCalls: 100, TrunkCalls: 10, RingTimeout: 2 * time.Second, Drain: time.Minute,
			Quarantine: 5 * time.Second, Metrics: "127.0.0.1:9464", LogLevel: "debug", Strategy: "priority",
			Trunks: map[string][]string{CarrierA: {"media_source: latch", "codecs: [PCMA]"}, Platform: {"idle_timeout: 10s"}},
			Guard:  "{deny: [10.72.0.66/32], sip_per_second: 20}",
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

// TestTrunkConfigIsValid: of the trunk topology too, with tunnels keyed either way.
func TestTrunkConfigIsValid(t *testing.T) {
	lab := &Lab{id: "tdm1x0", dir: t.TempDir()}
	for name, o := range map[string]TrunkOptions{
		"the lab's":  {Sites: Sites()},
		"many":       {Sites: ManySites(20)},
		"overruled":  {Sites: Sites(), IKE: map[string][]string{"b-primary": {"dpd_delay: 7s", "child_lifetime: 30s"}}},
		"by hand":    {Sites: Sites(), Tunnels: map[string][]string{"b-primary": {"keying: manual", "manual: {inbound: \"file:/in\", outbound: \"file:/out\"}"}}},
		"one clear":  {Sites: []Site{SiteOf(Platform), SiteOf(CarrierC)}},
		"no keepers": {Sites: Sites(), Realms: map[string][]string{CarrierA: {"keep_calls: 5s", "return_after: 3s"}}},
	} {
		text, err := lab.TrunkConfig(o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := config.Parse("lab.yaml", text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
