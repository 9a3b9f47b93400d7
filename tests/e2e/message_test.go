package e2e

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// message is a SIP message as a peer received it, or one that it is about to send.
type message struct {
	raw    string
	start  string
	fields []string // "Name: value", in their order
	body   string
}

// read takes a well-formed message of the gateway apart.
func read(raw string) *message {
	head, body, _ := strings.Cut(raw, "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	return &message{raw: raw, start: lines[0], fields: lines[1:], body: body}
}

// all returns the values of a field.
func (m *message) all(name string) []string {
	var values []string
	for _, f := range m.fields {
		if n, v, _ := strings.Cut(f, ":"); strings.EqualFold(n, name) {
			values = append(values, strings.TrimSpace(v))
		}
	}
	return values
}

func (m *message) get(name string) string {
	if all := m.all(name); len(all) > 0 {
		return all[0]
	}
	return ""
}

func (m *message) status() int {
	if !strings.HasPrefix(m.start, "SIP/2.0 ") {
		return 0
	}
	n, _ := strconv.Atoi(m.start[8:11])
	return n
}

// what is "BYE" of a request and "200 BYE" of its response.
func (m *message) what() string {
	_, method, _ := strings.Cut(m.get("CSeq"), " ")
	if s := m.status(); s != 0 {
		return strconv.Itoa(s) + " " + method
	}
	return method
}

// uri is a request's Request-URI.
func (m *message) uri() string { return strings.Fields(m.start)[1] }

// number is the user part of the Request-URI.
func (m *message) number() string {
	_, rest, _ := strings.Cut(m.uri(), ":")
	user, _, _ := strings.Cut(rest, "@")
	return user
}

// set replaces a field, or removes it when the value is empty.
func (m *message) set(name, value string) *message {
	m.fields = slices.DeleteFunc(m.fields, func(f string) bool {
		n, _, _ := strings.Cut(f, ":")
		return strings.EqualFold(n, name)
	})
	if value != "" {
		m.fields = append(m.fields, name+": "+value)
	}
	return m
}

// add appends whole fields, "Name: value".
func (m *message) add(fields ...string) *message {
	m.fields = append(m.fields, fields...)
	return m
}

// with gives the message an SDP body.
func (m *message) with(sdp string) *message {
	m.body = sdp
	return m.set("Content-Type", "application/sdp")
}

func (m *message) bytes() []byte {
	var b strings.Builder
	b.WriteString(m.start + "\r\n")
	for _, f := range m.fields {
		b.WriteString(f + "\r\n")
	}
	fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(m.body), m.body)
	return []byte(b.String())
}

// addrURI is the URI of a header field's address.
func addrURI(value string) string {
	if _, rest, ok := strings.Cut(value, "<"); ok {
		value, _, _ = strings.Cut(rest, ">")
	}
	return value
}

func tagOf(value string) string {
	_, tag, _ := strings.Cut(value, ";tag=")
	tag, _, _ = strings.Cut(tag, ";")
	return tag
}

// response repeats of a request what a response has to.
func response(m *message, status int, phrase, tag string) *message {
	r := &message{start: fmt.Sprintf("SIP/2.0 %d %s", status, phrase)}
	for _, f := range m.fields {
		name, value, _ := strings.Cut(f, ":")
		switch strings.ToLower(name) {
		case "to":
			if !strings.Contains(value, ";tag=") && status > 100 {
				f += ";tag=" + tag
			}
			r.add(f)
		case "via", "from", "call-id", "cseq", "record-route":
			r.add(f)
		}
	}
	return r
}

// wants fails the test unless the text has each of the parts.
func wants(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s lacks %q:\n%s", what, part, text)
		}
	}
}

// lacks fails the test if the text has any of the parts.
func lacks(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if strings.Contains(text, part) {
			t.Errorf("%s has %q:\n%s", what, part, text)
		}
	}
}
