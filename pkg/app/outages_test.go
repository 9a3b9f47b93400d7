package app

import (
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/realm"
)

// I3: the timer of an outage that is over comes late, when the next one has begun: it ends no call, which
// has the patience of the outage that lasts.
func TestLateTimerOfAnOutage(t *testing.T) {
	ended := 0
	o := newOutages([]realm.Config{{Name: "carrier", KeepCalls: time.Hour}}, func(string, call.Cause) int { ended++; return 0 })
	defer func() {
		if err := o.close(); err != nil {
			t.Error(err)
		}
	}()
	o.begin("carrier", "the first")
	first := o.running["carrier"]
	o.end("carrier")
	o.expire("carrier", first, call.Cause{})
	o.begin("carrier", "the second")
	o.expire("carrier", first, call.Cause{})
	if ended != 0 {
		t.Errorf("the first outage ended calls %d times after its end", ended)
	}
	o.expire("carrier", o.running["carrier"], call.Cause{})
	if ended != 1 {
		t.Errorf("the second outage ended calls %d times", ended)
	}
}
