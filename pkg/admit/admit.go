// Package admit decides whether an inbound call may come in, and says why not.
package admit

import (
	"fmt"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// ITU-T Q.850 causes of refusals.
const (
	q850Rejected   = 21
	q850NoCircuit  = 34
	q850Temporary  = 41
	q850Congestion = 42
	q850Routing    = 25 // exchange routing error, as RFC 3398 section 8.2.6.1 has it for 483
)

// Trunk is what admission needs to know of a trunk.
type Trunk interface {
	// Name is empty for a source that is no trunk.
	Name() string
}

// Request is an inbound call that asks to come in.
type Request struct {
	// Trunk that it comes from; nil, or one without a name, is a stranger.
	Trunk Trunk
	// Draining is true when the gateway takes no new calls.
	Draining bool
	// Emergency calls are let in although the gateway is full (T3).
	Emergency bool
	// Active and MaxCalls are the calls of the whole gateway, the asking one
	// included, and its limit; 0 is none.
	Active, MaxCalls int
	// MaxForwards of the INVITE as it arrived.
	MaxForwards int
}

// Admit returns nil if the call may come in, or the cause of its refusal: 403 for a
// stranger, 483 when the hops are used up (RFC 3261 section 16.3), 503 when the
// gateway drains or is full. A 503 goes out with Retry-After (call.Cause.Rejection).
// The trunk's own limit is taken by its slot; Refused has the cause when there is none.
func Admit(r Request) *call.Cause {
	switch {
	case r.Trunk == nil || r.Trunk.Name() == "":
		// First, so that a stranger learns nothing of the gateway's state.
		return refuse("unknown-trunk", 403, q850Rejected, "The source address belongs to no trunk of this realm.")
	case r.MaxForwards <= 0:
		return refuse("too-many-hops", 483, q850Routing, "Max-Forwards has reached 0: the call may be going in circles.")
	case r.Draining:
		return refuse("draining", 503, q850Temporary, "The gateway is shutting down and takes no new calls.")
	case r.MaxCalls > 0 && !r.Emergency && r.Active > r.MaxCalls:
		return refuse("gateway-full", 503, q850Congestion, fmt.Sprintf("The gateway already carries its maximum of %d calls (max_calls).", r.MaxCalls))
	}
	return nil
}

// Limits explain a trunk that has no slot for a call, by the words of trunk.Reason.
var limits = map[string]struct {
	code string
	q850 int
	text string
}{
	"full":       {"trunk-full", q850NoCircuit, "already has its maximum of calls (max_calls)"},
	"realm-full": {"realm-full", q850NoCircuit, "is in a realm that already has its maximum of calls (max_calls)"},
	"rate":       {"trunk-rate", q850Congestion, "has had its maximum of new calls for now (max_rate)"},
	"realm-rate": {"realm-rate", q850Congestion, "is in a realm that has had its maximum of new calls for now (max_rate)"},
	"closed":     {"trunk-closed", q850Temporary, "takes no new calls (state)"},
}

// longestWait that a peer is asked for: by then the limits may be others.
const longestWait = time.Hour

// Refused is the cause of a call that a trunk has no slot for (T3, T4); reason is a word of
// trunk.Reason, and wait is until the next call may have one.
func Refused(t Trunk, reason string, wait time.Duration) call.Cause {
	l, known := limits[reason]
	if !known {
		l = limits["closed"]
	}
	cause := refuse(l.code, 503, l.q850, fmt.Sprintf("Trunk %q %s.", t.Name(), l.text))
	cause.RetryAfter = int((min(wait, longestWait) + time.Second - 1) / time.Second)
	return *cause
}

func refuse(code string, sip, q850 int, text string) *call.Cause {
	return &call.Cause{Code: code, By: "tandem", SIP: sip, Q850: q850, Text: text}
}
