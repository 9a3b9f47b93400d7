package b2bua

import (
	"fmt"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// dispositions are the refusals that tell of the called party (RFC 3261 section 21,
// S20): they end the call and reach the caller as they are.
var dispositions = map[int]struct {
	code string
	q850 int
	text string
}{
	403: {"forbidden", 21, "refused the call as not allowed"},
	404: {"not-found", 1, "does not know the number"},
	410: {"gone", 22, "says the number is out of use"},
	480: {"unavailable", 18, "says the called party cannot be reached now"},
	484: {"incomplete-number", 28, "says the number is incomplete"},
	485: {"ambiguous-number", 1, "says the number is ambiguous"},
	486: {"busy", 17, "says the called party is busy"},
	487: {"terminated", 31, "ended the request"},
	488: {"not-acceptable", 88, "accepts none of the media offered"},
	600: {"busy-everywhere", 17, "says the called party is busy everywhere"},
	603: {"declined", 21, "says the called party declined"},
	604: {"not-anywhere", 1, "says the number exists nowhere"},
	606: {"not-acceptable-anywhere", 88, "accepts none of the media offered anywhere"},
	607: {"unwanted", 21, "says the called party does not want the call"},
	608: {"rejected", 21, "says the call was rejected on the called party's behalf"},
}

// causeRejected explains a final response of an egress trunk. Everything that says nothing of
// the called party becomes 503, so that a platform can fail over (S20).
func causeRejected(name string, r call.Rejection) call.Cause {
	cause := call.Cause{By: call.Egress.String(), SIP: 503, Q850: r.Q850}
	known, isKnown := dispositions[r.Code]
	switch {
	case r.Silent:
		cause.Code, cause.By = "silent", byTandem
		cause.Text = fmt.Sprintf("Trunk %q gave no response at all until SIP's own timer ran out.", name)
	case isKnown && r.Code < 600 && lacksResource(r.Q850):
		cause.Code = "trunk-failure"
		cause.Text = fmt.Sprintf("Trunk %q refused the call with %d for want of its own resources (Q.850 cause %d).", name, r.Code, r.Q850)
	case isKnown:
		cause.Code, cause.SIP = known.code, r.Code
		cause.Text = fmt.Sprintf("Trunk %q %s (%d).", name, known.text, r.Code)
		if cause.Q850 == 0 {
			cause.Q850 = known.q850
		}
	case r.Code >= 600:
		cause.Code, cause.SIP = "rejected-everywhere", 603
		cause.Text = fmt.Sprintf("Trunk %q refused the call for good with %d.", name, r.Code)
	case r.Code >= 500 || r.Code == 408:
		cause.Code = "trunk-failure"
		cause.Text = fmt.Sprintf("Trunk %q failed with %d %s.", name, r.Code, r.Reason)
	case r.Code >= 400:
		cause.Code = "request-refused"
		cause.Text = fmt.Sprintf("Trunk %q refused the request itself with %d %s, which says nothing of the called party.", name, r.Code, r.Reason)
	default:
		// Redirection is a rejection (001 section 2.6.2): the called party is elsewhere.
		cause.Code, cause.SIP = "redirected", 480
		cause.Text = fmt.Sprintf("Trunk %q redirects with %d, which is not followed.", name, r.Code)
	}
	if cause.Q850 == 0 {
		cause.Q850 = q850TemporaryFailure
	}
	return cause
}

// lacksResource reports whether a cause is one of the network and not of the called party,
// whatever status it was translated to: those of ITU-T Q.850's class "resource unavailable".
func lacksResource(q850 int) bool { return q850 >= 32 && q850 <= 47 }
