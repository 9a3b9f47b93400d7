package call

import (
	"cmp"
	"fmt"
)

// usualRetryAfter a 503, in seconds.
const usualRetryAfter = 5

// Cause says why a call, or an attempt of one, ended: for the peer (SIP status,
// Q.850), for machines (Code) and for people (Text, one sentence).
type Cause struct {
	// Code is stable and lower case, e.g. "answered", "busy", "no-common-codec".
	Code string `json:"code"`
	// By says who ended it: "ingress", "egress" or "tandem".
	By string `json:"by"`
	// SIP is the status that was given or got; 200 for a normal end.
	SIP int `json:"sip"`
	// Q850 is the cause value (ITU-T Q.850) sent in Reason, or 0.
	Q850 int `json:"q850,omitempty"`
	// Text explains it in one sentence, without personal data.
	Text string `json:"text"`
	// RetryAfter is in how many seconds a peer may try again that gets 503; 0 is the usual 5.
	RetryAfter int `json:"-"`
}

func (c Cause) String() string {
	return fmt.Sprintf("%s (%d, by %s): %s", c.Code, c.SIP, c.By, c.Text)
}

// Rejection is the final response that tells a peer of the cause.
func (c Cause) Rejection() Rejection {
	code := c.SIP
	if code < 300 {
		code = 503
	}
	r := Rejection{Code: code, Q850: c.Q850}
	if code == 503 {
		r.RetryAfter = cmp.Or(c.RetryAfter, usualRetryAfter)
	}
	return r
}
