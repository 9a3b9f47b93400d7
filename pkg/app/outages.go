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

	mu      sync.Mutex
	running map[string]*outage // of realms that are down
	closed  bool
	ending  sync.WaitGroup
}

// outage is one time that a realm is down.
type outage struct{ timer *time.Timer }

func newOutages(realms []realm.Config, hangup func(string, call.Cause) int) *outages {
	o := &outages{patience: make(map[string]time.Duration, len(realms)), hangup: hangup, running: make(map[string]*outage)}
	for _, r := range realms {
		o.patience[r.Name] = r.KeepCalls
	}
	return o
}

// begin counts from the first of several calls for one outage.
func (o *outages) begin(realm, reason string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || o.running[realm] != nil {
		return
	}
	patience := o.patience[realm]
	this := &outage{}
	o.running[realm] = this
	this.timer = time.AfterFunc(patience, func() { o.expire(realm, this, causeTunnelDown(realm, reason, patience)) })
}

// expire ends the calls if that outage still lasts: its timer may be late, and another have begun.
func (o *outages) expire(realm string, this *outage, cause call.Cause) {
	o.mu.Lock()
	lasts := !o.closed && o.running[realm] == this
	if lasts {
		o.ending.Add(1)
	}
	o.mu.Unlock()
	if !lasts {
		return
	}
	defer o.ending.Done()
	o.hangup(realm, cause)
}

// end keeps the calls.
func (o *outages) end(realm string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if this := o.running[realm]; this != nil {
		this.timer.Stop()
		delete(o.running, realm)
	}
}

// close ends no call any more, and waits for those who are at it.
func (o *outages) close() error {
	o.mu.Lock()
	o.closed = true
	for _, this := range o.running {
		this.timer.Stop()
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
