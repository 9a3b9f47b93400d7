package sipua

import (
	"net/netip"
	"strings"

	"github.com/tandem-sbc/tandem/pkg/header"
)

// Bounds of a message. The socket reads at most maxDatagram bytes.
const (
	maxDatagram = 65535
	maxLines    = 512
	maxURI      = 2048
	maxBody     = 32 << 10
)

// field is one header field, unfolded.
type field struct {
	id          fieldID
	name, value string
}

// message is a request or a response that was read and checked. All its strings
// are parts of one copy of the datagram.
type message struct {
	src netip.AddrPort

	// method and uri are set in a request, status (100-699) and phrase in a response.
	method, uri string
	status      int
	phrase      string

	fields []field
	body   string

	via         header.Via // the topmost
	vias        int        // Via fields
	from, to    header.Address
	fromTag     string
	toTag       string
	callID      string
	cseq        uint32
	cseqMethod  string
	maxForwards int // 70 if there is none
	contact     header.Address
	hasContact  bool
}

// get returns the first field of an id, or nil.
func (m *message) get(id fieldID) *field {
	for i := range m.fields {
		if m.fields[i].id == id {
			return &m.fields[i]
		}
	}
	return nil
}

// value returns the first field's value, or empty.
func (m *message) value(id fieldID) string {
	if f := m.get(id); f != nil {
		return f.value
	}
	return ""
}

// list returns all fields of an id as one comma-separated list.
func (m *message) list(id fieldID) string {
	return m.join(func(f *field) bool { return f.id == id })
}

// named does so with all fields of a name, in any case.
func (m *message) named(name string) string {
	return m.join(func(f *field) bool { return strings.EqualFold(f.name, name) })
}

func (m *message) join(wanted func(*field) bool) string {
	var first string
	var more []string
	for i := range m.fields {
		switch {
		case !wanted(&m.fields[i]):
		case more != nil:
			more = append(more, m.fields[i].value)
		case first == "":
			first = m.fields[i].value
		default:
			more = append(more, first, m.fields[i].value)
		}
	}
	if more != nil {
		return strings.Join(more, ",")
	}
	return first
}

// fault is why a message is not taken: the status of the answer to a request, or 0
// for no answer at all.
type fault struct {
	status int
	phrase string
	// extra is a header field that explains, e.g. "Unsupported: 100rel\r\n".
	extra string
}

func bad(phrase string) *fault { return &fault{status: 400, phrase: phrase} }

// split cuts a datagram into start line, fields and body. A fault does not stop
// it, so that there is something to answer with; the first one is returned.
func split(text string) (m *message, start string, f *fault) {
	m = &message{maxForwards: 70, fields: make([]field, 0, 16)}
	flaw := func(phrase string) {
		if f == nil {
			f = bad(phrase)
		}
	}
	start, text, ok := cutLine(text)
	if !ok {
		flaw("Start Line Not Closed")
	}
	for n := 0; ; n++ {
		if n == maxLines {
			return m, start, &fault{status: 513, phrase: "Message Too Large"}
		}
		var line string
		if line, text, ok = cutLine(text); !ok {
			flaw("Header Section Not Closed")
			if line == "" {
				return m, start, f
			}
		}
		if line == "" {
			break
		}
		if text != "" && (text[0] == ' ' || text[0] == '\t') {
			var b strings.Builder
			b.WriteString(header.Trim(line))
			for ; text != "" && (text[0] == ' ' || text[0] == '\t') && n < maxLines-1; n++ {
				var more string
				if more, text, ok = cutLine(text); !ok {
					flaw("Header Section Not Closed")
				}
				b.WriteByte(' ')
				b.WriteString(header.Trim(more))
			}
			line = b.String()
		}
		name, value, ok := strings.Cut(line, ":")
		name = header.Trim(name)
		if !ok || !header.Token(name) {
			flaw("Malformed Header Field")
			continue
		}
		value = header.Trim(value)
		if strings.IndexByte(value, '\r') >= 0 || strings.IndexByte(value, '\n') >= 0 {
			flaw("Stray Line Break")
			continue
		}
		id, name := identify(name)
		if single[id] && m.get(id) != nil {
			flaw("Multiple " + name)
			continue
		}
		if id == fVia {
			m.vias++
		}
		m.fields = append(m.fields, field{id, name, value})
	}
	m.body = text
	return m, start, f
}

// cutLine returns the text before the first CRLF and behind it; ok is false if
// there is none.
func cutLine(s string) (line, rest string, ok bool) {
	return strings.Cut(s, "\r\n")
}

// sdp returns the session description of the body, or nil; unsupported is true if
// the body is something else that must be understood.
func (m *message) sdp() (body []byte, unsupported bool) {
	if m.body == "" {
		return nil, false
	}
	kind, params, _ := strings.Cut(m.value(fContentType), ";")
	if e := m.value(fContentEncoding); e != "" && !strings.EqualFold(e, "identity") {
		return nil, true
	}
	kind = header.Trim(kind)
	switch {
	case strings.EqualFold(kind, "application/sdp"):
		return []byte(m.body), false
	case len(kind) > 10 && strings.EqualFold(kind[:10], "multipart/"):
		boundary, _ := header.Param(";"+params, "boundary")
		if part, ok := findSDP(m.body, boundary); ok {
			return []byte(part), false
		}
	}
	return nil, true
}

// findSDP returns the first application/sdp part of a multipart body (RFC 2046
// section 5.1). Nested parts are not looked into.
func findSDP(body, boundary string) (string, bool) {
	if boundary == "" || len(boundary) > 70 {
		return "", false
	}
	_, body, ok := strings.Cut("\r\n"+body, "\r\n--"+boundary)
	for ok && !strings.HasPrefix(body, "--") {
		var part string
		// The line break before the next boundary belongs to that one.
		if part, body, ok = strings.Cut(body, "\r\n--"+boundary); !ok {
			return "", false
		}
		_, part, _ = cutLine(part)
		head, content, found := strings.Cut("\r\n"+part, "\r\n\r\n")
		if !found {
			continue
		}
		for line := range strings.SplitSeq(head, "\r\n") {
			name, value, _ := strings.Cut(line, ":")
			kind, _, _ := strings.Cut(value, ";")
			if id, _ := identify(header.Trim(name)); id == fContentType && strings.EqualFold(header.Trim(kind), "application/sdp") {
				return content, true
			}
		}
	}
	return "", false
}
