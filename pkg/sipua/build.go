package sipua

import (
	"crypto/rand"
	"net/netip"
	"strconv"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/header"
)

// newTag and newBranch cannot be guessed (RFC 3261 section 19.3).
func newTag() string    { return rand.Text() }
func newBranch() string { return header.Cookie + rand.Text() }

func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}

func appendNumber(b []byte, name string, n uint64) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = strconv.AppendUint(b, n, 10)
	return append(b, "\r\n"...)
}

// appendBody ends the header section.
func appendBody(b, body []byte) []byte {
	if len(body) > 0 {
		b = append(b, "Content-Type: application/sdp\r\n"...)
	}
	b = appendNumber(b, "Content-Length", uint64(len(body)))
	b = append(b, "\r\n"...)
	return append(b, body...)
}

func appendReason(b []byte, q850 int) []byte {
	if q850 <= 0 {
		return b
	}
	b = append(b, "Reason: "...)
	b = header.AppendReason(b, q850)
	return append(b, "\r\n"...)
}

// replyTo is where the response to m goes (RFC 3261 section 18.2.2).
func (m *message) replyTo() netip.AddrPort {
	if m.via.Text == "" { // malformed
		return m.src
	}
	return m.via.ReplyTo(m.src)
}

// appendResponse appends a response up to its own fields: what it has to repeat of
// the request stands there as it came (S9).
func (s *Stack) appendResponse(b []byte, m *message, status int, phrase, tag string) []byte {
	b = append(b, "SIP/2.0 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	b = append(b, phrase...)
	b = append(b, "\r\n"...)
	top := true
	for i := range m.fields {
		switch f := &m.fields[i]; f.id {
		case fVia:
			b = append(b, "Via: "...)
			if top && m.via.Text != "" {
				b = m.via.AppendEcho(b, m.src)
				if m.via.Rest != "" {
					b = append(b, "\r\nVia: "...)
					b = append(b, m.via.Rest...)
				}
			} else {
				b = append(b, f.value...)
			}
			top = false
			b = append(b, "\r\n"...)
		case fTo:
			b = append(b, "To: "...)
			b = append(b, f.value...)
			if m.toTag == "" && status != 100 {
				b = append(b, ";tag="...)
				b = append(b, tag...)
			}
			b = append(b, "\r\n"...)
		case fFrom, fCallID, fCSeq:
			b = appendField(b, f.name, f.value)
		case fTimestamp:
			if status == 100 {
				b = appendField(b, f.name, f.value)
			}
		case fRecordRoute:
			if m.method == methodInvite && status > 100 && status < 300 {
				b = appendField(b, f.name, f.value)
			}
		}
	}
	if s.agent != "" {
		b = append(b, "Server: "...)
		b = append(b, s.agent...)
	}
	return b
}

// appendRequest appends a request of a dialog up to its own fields.
func (s *Stack) appendRequest(b []byte, method string, d *dialog, seq uint32, branch string, maxForwards int) []byte {
	uri, routes := d.path()
	b = append(b, method...)
	b = append(b, ' ')
	b = append(b, uri...)
	b = append(b, " SIP/2.0\r\nVia: SIP/2.0/UDP "...)
	b = append(b, s.hostPort...)
	b = append(b, ";branch="...)
	b = append(b, branch...)
	b = append(b, "\r\n"...)
	for _, r := range routes {
		b = appendField(b, "Route", r)
	}
	b = appendNumber(b, "Max-Forwards", uint64(maxForwards))
	b = appendField(b, "From", d.local)
	b = appendField(b, "To", d.remote)
	b = appendField(b, "Call-ID", d.callID)
	b = append(b, "CSeq: "...)
	b = strconv.AppendUint(b, uint64(seq), 10)
	b = append(b, ' ')
	b = append(b, method...)
	b = append(b, "\r\n"...)
	if method == methodInvite {
		b = appendField(b, "Contact", d.contact)
		b = append(b, allowField...)
	}
	if s.agent != "" {
		b = append(b, "User-Agent: "...)
		b = append(b, s.agent...)
	}
	return b
}

// appendInvite appends the fields of an initial INVITE that stand for the call.
func (s *Stack) appendInvite(b []byte, inv *call.Invite) []byte {
	if inv.Asserted != nil {
		b = append(b, "P-Asserted-Identity: "...)
		b = header.AppendParty(b, *inv.Asserted, s.host)
		b = append(b, "\r\n"...)
	}
	switch {
	case inv.Privacy != "":
		b = appendField(b, "Privacy", header.Phrase(inv.Privacy))
	case inv.From.Anonymous && inv.Asserted != nil:
		b = append(b, "Privacy: id\r\n"...)
	}
	for _, h := range inv.Headers {
		if header.Token(h.Name) {
			b = appendField(b, h.Name, header.CarriedValue(h, s.host))
		}
	}
	return b
}

// phrases are for responses that come without one.
var phrases = map[int]string{
	180: "Ringing", 181: "Call Is Being Forwarded", 182: "Queued", 183: "Session Progress",
	400: "Bad Request", 403: "Forbidden", 404: "Not Found", 408: "Request Timeout", 410: "Gone",
	480: "Temporarily Unavailable", 481: "Call/Transaction Does Not Exist", 482: "Loop Detected", 483: "Too Many Hops",
	484: "Address Incomplete", 486: "Busy Here", 487: "Request Terminated", 488: "Not Acceptable Here",
	491: "Request Pending", 500: "Server Internal Error", 501: "Not Implemented", 502: "Bad Gateway",
	503: "Service Unavailable", 504: "Server Time-out", 600: "Busy Everywhere", 603: "Decline",
	604: "Does Not Exist Anywhere", 606: "Not Acceptable",
}

func phraseOf(status int, given string) string {
	if given = header.Phrase(given); given != "" {
		return given
	}
	if p, ok := phrases[status]; ok {
		return p
	}
	return "Status " + strconv.Itoa(status)
}
