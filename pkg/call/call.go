// Package call holds the values that the rest of Tandem speaks in: legs and what
// happens on them, media descriptions, flows and their statistics, causes and
// records. It imports nothing of Tandem and does nothing by itself.
package call

import (
	"context"
	"net/netip"
)

// ID names one call, on every leg, in logs, records and the API. It is made by
// Tandem (26 characters, sortable by time) and never taken from the network.
type ID string

// Side is one of the two legs of a call.
type Side uint8

// The leg that brought the call in, and the leg that took it on.
const (
	Ingress Side = iota
	Egress
)

// Other returns the opposite side.
func (s Side) Other() Side { return 1 - s }

func (s Side) String() string {
	if s == Ingress {
		return "ingress"
	}
	return "egress"
}

// Party is a From, To or identity: what may cross from one leg to the other. The
// host part never does (topology hiding, S18).
type Party struct {
	Display string
	User    string
	// Anonymous asks for the caller's identity to be withheld (RFC 3323, S12).
	Anonymous bool
}

// Header is one SIP header field that is carried from leg to leg unread.
type Header struct {
	Name, Value string
}

// Invite is what an initial INVITE asks for, without anything that belongs to one
// leg alone (Via, Route, Contact, tags, Call-ID).
type Invite struct {
	// Number is the user part of the Request-URI.
	Number string
	From   Party
	To     Party
	// Asserted is the P-Asserted-Identity, if there was one (RFC 3325).
	Asserted *Party
	// Privacy is the value of the Privacy header (RFC 3323), or empty.
	Privacy string
	// Headers are carried end to end: User-to-User, x-inin-cnv and the like (S15).
	Headers []Header
	// Field gives the value of any header field of the INVITE as it came, carried on or not, by
	// its name in any case; several of one name are joined by commas. It is empty if there is
	// none, and nil in an INVITE that is to be sent.
	Field func(name string) string
	// MaxForwards of the request as it arrived, or to be sent (RFC 3261 section 20.22).
	MaxForwards int
	// Body is the SDP, or nil for a delayed offer (S8).
	Body []byte
}

// Target is where an INVITE is sent: one address, for the whole of an attempt.
type Target struct {
	// Realm is the realm whose stack sends.
	Realm string
	// Addr is the next hop.
	Addr netip.AddrPort
	// Transport is "udp" (others come as additions).
	Transport string
}

// Leg is one SIP dialog as the goroutine of its call sees it. Methods do not block
// on the network except Close; they may be called from that one goroutine only. An
// error means that nothing was sent; a leg that is gone says so by Ended.
// Package sipua implements it.
type Leg interface {
	// CallID is the leg's own Call-ID, for records and logs.
	CallID() string
	// Peer is the address the leg talks to; Local is ours.
	Peer() netip.AddrPort
	Local() netip.AddrPort
	// Events yields what happens on the leg, in order. It is never closed; after
	// an Ended nothing more comes.
	Events() <-chan Event

	// Progress sends a provisional response, 101-199, on an inbound leg (RFC 3261
	// section 13.3.1.1). The same after a final response is an error.
	Progress(code int, reason string, body []byte) error
	// Accept answers the INVITE or the pending re-INVITE with 200. The leg
	// retransmits it until the ACK comes (Acked), and ends itself with BYE if none
	// does within 64*T1 (Ended).
	Accept(body []byte) error
	// Reject answers the INVITE or the pending re-INVITE with a final response, 300-699.
	Reject(r Rejection) error

	// Ack acknowledges the last 2xx that Accepted reported; body carries the answer
	// to a delayed offer, else nil.
	Ack(body []byte) error
	// Reinvite sends a re-INVITE; its outcome comes as Accepted or Rejected.
	Reinvite(body []byte) error

	// Close ends the leg whatever its state: CANCEL for an outbound leg that has
	// no final response, the cause's SIP status for an inbound one that gave none,
	// BYE for a confirmed one, nothing for an ended one. It returns when the peer has
	// answered or ctx is done. Late answers of the peer (a 2xx that crossed the CANCEL,
	// a forked 2xx) are cleaned up by the leg on its own for 32 s.
	Close(ctx context.Context, cause Cause)
}

// Event is what happened on a leg: one of the types below.
type Event interface{ event() }

type (
	// Trying is a first 100 to our INVITE: the peer has it, and says nothing else.
	Trying struct{}
	// Progressed is a provisional response to our INVITE, 101-199.
	Progressed struct {
		Code   int
		Reason string
		Body   []byte
	}
	// Accepted is a 2xx to our INVITE or re-INVITE; the receiver owes an Ack.
	Accepted struct{ Body []byte }
	// Rejected is a final response, 300-699, to our INVITE or re-INVITE (already
	// acknowledged), or its timeout as 408.
	Rejected struct{ Rejection }
	// Acked is the ACK for our 2xx.
	Acked struct{ Body []byte }
	// Reinvited is a re-INVITE of the peer: answer with Accept or Reject.
	Reinvited struct{ Body []byte }
	// Ended is the end of the dialog from the other side (BYE, CANCEL) or by
	// failure (no ACK, peer gone). The leg has answered what was to be answered.
	Ended struct{ Cause Cause }
)

func (Trying) event()     {}
func (Progressed) event() {}
func (Accepted) event()   {}
func (Rejected) event()   {}
func (Acked) event()      {}
func (Reinvited) event()  {}
func (Ended) event()      {}

// Rejection is a final response that refuses.
type Rejection struct {
	Code   int
	Reason string
	// Q850 is the cause of a Reason header (RFC 3326), or 0.
	Q850 int
	// RetryAfter is in seconds, or 0.
	RetryAfter int
	// Silent means that no response came at all (Code is 408 then).
	Silent bool
}
