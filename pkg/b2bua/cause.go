package b2bua

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/media"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

// byTandem is who ended a call when neither peer did.
const byTandem = "tandem"

// Q.850 causes that we send of our own accord.
const (
	q850NoRoute          = 3
	q850NoUserResponding = 18
	q850NoAnswer         = 19
	q850InvalidNumber    = 28
	q850NetworkFailure   = 38
	q850TemporaryFailure = 41
	q850NoCircuit        = 34
	q850Incompatible     = 88
	q850TimerExpiry      = 102
)

func causeNoRoute(ingress string) call.Cause {
	return call.Cause{
		Code: "no-route", By: byTandem, SIP: 503, Q850: q850NoRoute,
		Text: fmt.Sprintf("No route of the config takes a call from trunk %q to this number.", ingress),
	}
}

// causeIncomplete refuses a call whose trunk has to dial numbers of E.164 (T12).
func causeIncomplete(ingress string) call.Cause {
	return call.Cause{
		Code: "no-e164-number", By: byTandem, SIP: 484, Q850: q850InvalidNumber,
		Text: fmt.Sprintf("Trunk %q has to give a number of E.164 (demand_e164), and neither Request-URI nor To has one.", ingress),
	}
}

func causeNoTrunk() call.Cause {
	return call.Cause{
		Code: "no-trunk", By: byTandem, SIP: 503, Q850: q850NoCircuit,
		Text: "The group that the route names has no trunk to offer.",
	}
}

// causeUnreachable explains an INVITE that did not leave. Where the kernel refused it, its
// word is all of the error that is of use to people.
func causeUnreachable(t *trunk.Trunk, err error) call.Cause {
	cause := call.Cause{Code: "unreachable", By: byTandem, SIP: 503, Q850: q850NetworkFailure}
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		cause.Text = fmt.Sprintf("Trunk %q cannot be reached by realm %q: %v.", t.Name(), t.Realm(), errno)
	} else {
		cause.Text = fmt.Sprintf("The INVITE to trunk %q could not be sent: %v.", t.Name(), err)
	}
	return cause
}

// causeOutOfService explains a trunk that is not tried.
func causeOutOfService(name string, c trunk.Condition) call.Cause {
	cause := call.Cause{
		Code: "trunk-out-of-service", By: byTandem, SIP: 503, Q850: q850NetworkFailure,
		Text: fmt.Sprintf("Trunk %q was out of service.", name),
	}
	if state, still := states[c.State]; still {
		cause.Text = fmt.Sprintf("Trunk %q is %s: %s.", name, state, c.Reason)
	}
	return cause
}

// states of a trunk that takes no calls, in the words of a sentence.
var states = map[string]string{
	trunk.OutOfService: "out of service",
	trunk.Probing:      "not in service yet",
	trunk.Draining:     "draining",
}

// causeLeft explains a try that was broken off because the trunk went out of service.
func causeLeft(name, reason string) call.Cause {
	return call.Cause{
		Code: "trunk-out-of-service", By: byTandem, SIP: 503, Q850: q850NetworkFailure,
		Text: fmt.Sprintf("Trunk %q went out of service before it answered: %s.", name, strings.TrimSuffix(reason, ".")),
	}
}

func causeShutdown() call.Cause {
	return call.Cause{
		Code: "shutdown", By: byTandem, SIP: 503, Q850: q850TemporaryFailure,
		Text: "The gateway was stopped while the call was up.",
	}
}

// causeSilence ends a call that nobody talks on any more (M8). Both sides get Q.850 102
// with their BYE: a timer of ours ran out, and neither hung up. 504 goes with it (RFC 3398
// section 8.2.6.1); a BYE has no status, so only the record has that.
func causeSilence(s media.Silence) call.Cause {
	text := fmt.Sprintf("No media came from either side for %s.", s.For.Round(time.Second))
	if s.OneWay {
		text = fmt.Sprintf("No media came for %s on a call that was one-way or on hold.", s.For.Round(time.Second))
	}
	return call.Cause{Code: "media-timeout", By: byTandem, SIP: 504, Q850: q850TimerExpiry, Text: text}
}

// causeMedia explains an offer that media refused.
func causeMedia(err error) call.Cause {
	switch {
	case errors.Is(err, media.ErrNoCommonCodec):
		return call.Cause{
			Code: "no-common-codec", By: byTandem, SIP: 488, Q850: q850Incompatible,
			Text: fmt.Sprintf("The two trunks have no codec in common for this offer: %v.", err),
		}
	case errors.Is(err, media.ErrEarlyMedia):
		return call.Cause{
			Code: "early-media-codec", By: byTandem, SIP: 503, Q850: q850Incompatible,
			Text: "The trunk has no codec that fits the early media of an earlier attempt, and the caller goes by that.",
		}
	case errors.Is(err, media.ErrBadSDP):
		return call.Cause{
			Code: "bad-sdp", By: byTandem, SIP: 488, Q850: q850Incompatible,
			Text: fmt.Sprintf("The session description cannot be used: %v.", err),
		}
	case errors.Is(err, media.ErrNoPorts):
		return call.Cause{
			Code: "no-ports", By: byTandem, SIP: 503, Q850: q850NoCircuit,
			Text: fmt.Sprintf("No RTP port is free: %v.", err),
		}
	default:
		return call.Cause{
			Code: "media-failure", By: byTandem, SIP: 503, Q850: q850TemporaryFailure,
			Text: fmt.Sprintf("The media path could not be set up: %v.", err),
		}
	}
}

// causeBadAnswer explains a 2xx or an ACK whose session description cannot be used. The
// called party picked up, but no words can pass; the platform may try elsewhere (S20).
func causeBadAnswer(side call.Side, err error) call.Cause {
	who := "caller"
	if side == call.Egress {
		who = "called side"
	}
	return call.Cause{
		Code: "bad-answer", By: byTandem, SIP: 503, Q850: q850Incompatible,
		Text: fmt.Sprintf("The %s answered with a session description that cannot be used: %v.", who, err),
	}
}

// causeLegFailed explains a leg that refused to go on. Mostly it has ended in the very
// moment, a CANCEL that crossed the answer for one, and then that is the reason.
func causeLegFailed(leg call.Leg, side call.Side, err error) call.Cause {
	for {
		select {
		case ev := <-leg.Events():
			if ended, ok := ev.(call.Ended); ok {
				return endedBy(side, ended.Cause)
			}
		default:
			return call.Cause{
				Code: "signalling-failure", By: byTandem, SIP: 503, Q850: q850TemporaryFailure,
				Text: fmt.Sprintf("The %s leg could not be told of the answer: %v.", side, err),
			}
		}
	}
}

func causeLegLost(name string, cause call.Cause) call.Cause {
	return call.Cause{
		Code: cause.Code, By: call.Egress.String(), SIP: 503, Q850: q850NetworkFailure,
		Text: fmt.Sprintf("Trunk %q was lost before it answered: %s", name, cause.Text),
	}
}

// causeNoAnswer is the end of patience. Whether the called party is known to have been
// reached decides what the caller is told (S20).
func causeNoAnswer(name string, patience time.Duration, rang bool) call.Cause {
	if rang {
		return call.Cause{
			Code: "no-answer", By: byTandem, SIP: 480, Q850: q850NoAnswer,
			Text: fmt.Sprintf("The called party rang at trunk %q for %s and nobody answered.", name, patience),
		}
	}
	return call.Cause{
		Code: "no-progress", By: byTandem, SIP: 503, Q850: q850NoUserResponding,
		Text: fmt.Sprintf("Trunk %q neither rang nor answered within %s.", name, patience),
	}
}

// causeSilent explains a target that gave no response at all (T11).
func causeSilent(name string, wait time.Duration) call.Cause {
	return call.Cause{
		Code: "silent", By: byTandem, SIP: 503, Q850: q850TemporaryFailure,
		Text: fmt.Sprintf("Trunk %q gave no response at all within %s.", name, wait),
	}
}

// endedBy completes the cause of a leg that was ended by its peer or was lost.
func endedBy(side call.Side, cause call.Cause) call.Cause {
	cause.By = side.String()
	if cause.Code == "normal-clearing" {
		cause.Text = "The caller hung up."
		if side == call.Egress {
			cause.Text = "The called side hung up."
		}
	}
	return cause
}
