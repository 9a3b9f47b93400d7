package e2e

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/tests/netlab"
)

// The scenarios of signalling wait for timers, not for processors.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// ringTimeout of the signalling lab's trunks.
const ringTimeout = 3 * time.Second

// registersB is how many REGISTER requests carrier-b may send in an hour (T5); the others any
// number.
const registersB = 3

// scenario is one requirement, shown with raw SIP peers on a lab that it shares with
// the others; its name begins with the requirement's id.
type scenario struct {
	name string
	run  func(t *testing.T, s *stage)
}

// What a peer may say at all, against the real daemon: every scenario runs beside the
// others, and in the end the daemon holds nothing of any of them.
func TestSignalling(t *testing.T) {
	// The scenarios share the trunks, so nothing that one of them does may change a trunk's
	// health, and a peer that waits for its processor is not to be left.
	steady := []string{"health_failures: 0", "no_response: 0s"}
	s := newStage(t, start(t, netlab.GatewayOptions{
		Engine: call.EngineUserspace, RingTimeout: ringTimeout, Strategy: "priority",
		Trunks: map[string][]string{
			netlab.Platform: steady, netlab.CarrierA: steady,
			netlab.CarrierB: append(steady[:len(steady):len(steady)], fmt.Sprintf("max_register_rate: %d/1h", registersB)),
		},
	}))
	before := s.status(t)
	t.Run("all", func(t *testing.T) {
		// Those that wait for long timers come first.
		for _, part := range [][]scenario{
			lossScenarios, hostileScenarios, failoverScenarios, cancelScenarios, setupScenarios, hidingScenarios, dialogScenarios, methodScenarios, bodyScenarios,
		} {
			for _, sc := range part {
				t.Run(sc.name, func(t *testing.T) {
					t.Parallel()
					sc.run(t, s)
				})
			}
		}
	})
	s.settled(t, before)
}
