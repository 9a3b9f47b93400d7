package sipua

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/tandem-sbc/tandem/pkg/header"
)

// drop is the fault of a message that gets no answer.
var drop = &fault{}

// parse reads one datagram. It returns nil for a keep-alive (RFC 5626 section 3.5.1);
// a fault's message is as complete as could be read.
func parse(data []byte, src netip.AddrPort) (*message, *fault) {
	for len(data) > 0 && (data[0] == '\r' || data[0] == '\n') {
		data = data[1:]
	}
	if len(data) == 0 {
		return nil, nil
	}
	m, start, flaw := split(string(data))
	m.src = src
	if len(start) >= 4 && strings.EqualFold(start[:4], "SIP/") {
		// No answer may go to a response, so each flaw is the same.
		if flaw == nil && m.statusLine(start) && m.common() == nil {
			return m, nil
		}
		return m, drop
	}
	lineFlaw := m.requestLine(start)
	commonFlaw := m.common()
	switch {
	case commonFlaw == drop || lineFlaw == drop || m.method == methodACK && (lineFlaw != nil || flaw != nil || commonFlaw != nil):
		return m, drop
	case lineFlaw != nil:
		return m, lineFlaw
	case flaw != nil:
		return m, flaw
	case commonFlaw != nil:
		return m, commonFlaw
	}
	return m, nil
}

// requestLine reads "METHOD URI SIP/2.0", with exactly one blank between the parts.
func (m *message) requestLine(line string) *fault {
	method, rest, _ := strings.Cut(line, " ")
	uri, version, ok := strings.Cut(rest, " ")
	if !header.Token(method) {
		return drop
	}
	m.method, m.uri = method, uri
	if !ok || !strings.HasPrefix(strings.ToUpper(version), "SIP/") {
		// Three words that end in another protocol, or two words, are not SIP; a URI
		// with blanks in it is, and deserves to hear what is wrong.
		if i := strings.LastIndex(rest, " SIP/"); i < 0 {
			return drop
		}
		return bad("Malformed Request-Line")
	}
	if !strings.EqualFold(version, "SIP/2.0") {
		if strings.ContainsAny(version, " \t") {
			return bad("Malformed Request-Line")
		}
		return &fault{status: 505, phrase: "Version Not Supported"}
	}
	if len(uri) > maxURI {
		return &fault{status: 414, phrase: "Request-URI Too Long"}
	}
	if _, err := header.ParseURI(uri); err != nil {
		return bad("Malformed Request-URI")
	}
	return nil
}

// statusLine reads "SIP/2.0 CODE [PHRASE]".
func (m *message) statusLine(line string) bool {
	version, rest, _ := strings.Cut(line, " ")
	code, phrase, _ := strings.Cut(rest, " ")
	n, err := strconv.ParseUint(code, 10, 16)
	m.status, m.phrase = int(n), phrase
	return err == nil && len(code) == 3 && n >= 100 && n < 700 && strings.EqualFold(version, "SIP/2.0")
}

// common checks what requests and responses share. Via comes first: without it
// there is nobody to answer.
func (m *message) common() (flaw *fault) {
	note := func(f *fault) {
		if flaw == nil {
			flaw = f
		}
	}
	via := m.get(fVia)
	if via == nil {
		return drop
	}
	var err error
	if m.via, err = header.ParseVia(via.value); err != nil {
		m.via = header.Via{}
		note(bad("Malformed Via"))
	} else if m.via.Branch == header.Cookie {
		note(bad("Via Branch Has Nothing After Its Cookie"))
	}
	m.cseqField(note)
	m.addresses(note)
	if m.callID = m.value(fCallID); m.callID == "" || strings.ContainsAny(m.callID, " \t") {
		note(bad("Missing Or Malformed Call-ID"))
	}
	if f := m.get(fMaxForwards); f != nil {
		n, err := strconv.ParseUint(f.value, 10, 8)
		if m.maxForwards = int(n); err != nil {
			note(bad("Malformed Max-Forwards"))
		}
	}
	m.length(note)
	return flaw
}

func (m *message) cseqField(note func(*fault)) {
	number, method, _ := strings.Cut(strings.ReplaceAll(m.value(fCSeq), "\t", " "), " ")
	m.cseqMethod = header.Trim(method)
	n, err := strconv.ParseUint(number, 10, 31)
	m.cseq = uint32(n)
	switch {
	case err != nil || !header.Token(m.cseqMethod):
		note(bad("Missing Or Malformed CSeq"))
	case m.status == 0 && m.cseqMethod != m.method:
		// Who does not know the method need not look at CSeq (RFC 4475 section 3.1.2.18).
		if !known(m.method) {
			note(notImplemented)
			return
		}
		note(bad("CSeq Does Not Match The Method"))
	}
}

func (m *message) addresses(note func(*fault)) {
	for _, part := range [...]struct {
		id  fieldID
		to  *header.Address
		tag *string
	}{{fFrom, &m.from, &m.fromTag}, {fTo, &m.to, &m.toTag}} {
		f := m.get(part.id)
		if f == nil {
			note(bad("Missing " + fieldName[part.id]))
			continue
		}
		var err error
		if *part.to, err = header.ParseAddress(f.value); err != nil {
			note(bad("Malformed " + fieldName[part.id]))
		}
		*part.tag = part.to.Tag()
	}
	contacts := 0
	for i := range m.fields {
		if m.fields[i].id != fContact {
			continue
		}
		for list := m.fields[i].value; list != "" && list != "*"; contacts++ {
			a, rest, err := header.NextAddress(list)
			if err != nil {
				note(bad("Malformed Contact"))
				return
			}
			if !m.hasContact {
				m.contact, m.hasContact = a, true
			}
			list = rest
		}
	}
	if contacts > 1 && m.method == methodInvite {
		note(bad("Multiple Contact"))
	}
}

// length cuts the body to its Content-Length; what lies behind it in the datagram
// is ignored (RFC 3261 section 18.3).
func (m *message) length(note func(*fault)) {
	if f := m.get(fContentLength); f != nil {
		n, err := strconv.ParseUint(f.value, 10, 31)
		switch {
		case err != nil:
			note(bad("Malformed Content-Length"))
		case n > uint64(len(m.body)):
			note(bad("Body Shorter Than Content-Length"))
		default:
			m.body = m.body[:n]
		}
	}
	if len(m.body) > maxBody {
		note(&fault{status: 413, phrase: "Request Entity Too Large"})
	}
}
