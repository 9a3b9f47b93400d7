package app

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/realm"
)

// outages ends the running calls of realms whose tunnels stay down for longer than the
// realm's keep_calls: until then their media may come back.
type outages struct {
	patience map[string]time.Duration
	hangup   func(realm string, cause call.Cause) int

	mu     sync.Mutex
	timers map[string]*time.Timer // of realms that are down
	closed bool
	ending sync.WaitGroup
}

func newOutages(realms []realm.Config, hangup func(string, call.Cause) int) *outages {
	o := &outages{patience: make(map[string]time.Duration, len(realms)), hangup: hangup, timers: make(map[string]*time.Timer)}
	for _, r := range realms {
		o.patience[r.Name] = r.KeepCalls
	}
	return o
}

// begin counts from the first of several calls for one outage.
func (o *outages) begin(realm, reason string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || o.timers[realm] != nil {
		return
	}
	patience := o.patience[realm]
	o.timers[realm] = time.AfterFunc(patience, func() {
		o.mu.Lock()
		over := o.closed || o.timers[realm] == nil
		if !over {
			o.ending.Add(1)
		}
		o.mu.Unlock()
		if over {
			return
		}
		defer o.ending.Done()
		o.hangup(realm, causeTunnelDown(realm, reason, patience))
	})
}

// end keeps the calls.
func (o *outages) end(realm string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if t := o.timers[realm]; t != nil {
		t.Stop()
		delete(o.timers, realm)
	}
}

// close ends no call any more, and waits for those who are at it.
func (o *outages) close() error {
	o.mu.Lock()
	o.closed = true
	for _, t := range o.timers {
		t.Stop()
	}
	o.mu.Unlock()
	o.ending.Wait()
	return nil
}

// q850OutOfOrder tells the other side that its call's network is out of order (ITU-T Q.850).
const q850OutOfOrder = 38

// causeTunnelDown ends the calls of a realm that has been without a tunnel for too long.
func causeTunnelDown(realm, reason string, patience time.Duration) call.Cause {
	text := fmt.Sprintf("Realm %q has had no tunnel for %s: %s.", realm, patience, strings.TrimSuffix(reason, "."))
	return call.Cause{Code: "tunnel-down", By: "tandem", SIP: 503, Q850: q850OutOfOrder, Text: text}
}
