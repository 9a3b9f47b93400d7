package trunk

import (
	"fmt"
	"strings"
	"time"
)

// States of a trunk (T1).
const (
	// InService takes calls.
	InService = "in-service"
	// Probing has its network back and takes no calls out until a target has answered.
	Probing = "probing"
	// OutOfService takes no calls out.
	OutOfService = "out-of-service"
)

// Condition says whether calls go out by a trunk, and if not, why. Calls that come in are not
// asked for it: whoever got here is there.
type Condition struct {
	// State is one of the states above, since Since.
	State string
	// Reason says in words why the state is not InService, without a full stop; else it is empty.
	Reason string
	Since  time.Time
}

// service is a Condition with the period it belongs to. It is never changed, only replaced.
type service struct {
	Condition
	// period counts what was told of the realm: an answer to a probe counts in the period in
	// which the probe was sent only.
	period uint64
}

// Condition of the trunk now.
func (t *Trunk) Condition() Condition { return t.service.Load().Condition }

// InService reports whether calls may go out by the trunk.
func (t *Trunk) InService() bool { return t.service.Load().State == InService }

// RealmDown takes the realm's trunks out of service at once (I3). Reason is words for people:
// "tunnel a-primary is down: peer does not answer"; a full stop at the end is left out. Told
// again it changes the reason only.
func (t *Table) RealmDown(realm, reason string) {
	t.tell(realm, func(_ *Trunk, now service) (service, bool) {
		now.Reason = strings.TrimSuffix(reason, ".")
		return now.enter(OutOfService), true
	})
}

// RealmUp lets the realm's trunks that are not in service be probed, or puts them in service if
// their config wants no probes. What is in service stays there: another tunnel of the realm may
// have taken over.
func (t *Table) RealmUp(realm string) {
	t.tell(realm, func(tr *Trunk, now service) (service, bool) {
		switch {
		case now.State == InService:
			return now, false
		case tr.config.Probe == ProbeNone:
			now.Reason = ""
			return now.enter(InService), true
		}
		now.Reason = fmt.Sprintf("realm %s is up, and no target has answered OPTIONS since", realm)
		return now.enter(Probing), true
	})
}

// tell begins another period for those of the realm's trunks that next changes.
func (t *Table) tell(realm string, next func(*Trunk, service) (service, bool)) {
	for _, tr := range t.trunks {
		if tr.Realm() != realm {
			continue
		}
		tr.change(func(now service) (service, bool) {
			now.period++
			return next(tr, now)
		})
	}
	select {
	case t.told <- struct{}{}:
	default: // Probe has yet to look after the last time
	}
}

// enter changes the state, and the time if it was another one.
func (s service) enter(state string) service {
	if s.State != state {
		s.State, s.Since = state, time.Now()
	}
	return s
}

// change replaces the trunk's service by what next makes of it, unless that declines. next may
// be called several times.
func (t *Trunk) change(next func(service) (service, bool)) bool {
	for {
		old := t.service.Load()
		now, ok := next(*old)
		if !ok {
			return false
		}
		if t.service.CompareAndSwap(old, &now) {
			return true
		}
	}
}
