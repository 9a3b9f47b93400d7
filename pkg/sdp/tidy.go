package sdp

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// tidied is a body put in order.
type tidied struct {
	// text is for pion/sdp: regular, in the order of RFC 4566 section 5, and with
	// nothing in it that Tandem does not act on.
	text string
	// streams are the m= lines as they came. The carried fields are still empty.
	streams []call.Stream
	remarks []string
}

func (t *tidied) remark(what string) {
	if len(t.remarks) < maxSetAside {
		t.remarks = append(t.remarks, what)
	}
}

// section is the part of a body that belongs to the session or to one m= line.
type section struct {
	media      string // what follows "m=", for pion/sdp
	connection string // what follows "c=", empty if there is none
	attributes []string
}

// tidy reads line by line and keeps what is needed. pion/sdp rejects a whole body
// for one line that it does not know, or that stands in another place than usual;
// real peers send such bodies, and mean them well.
func tidy(body []byte) (*tidied, error) {
	if len(body) > MaxBody {
		return nil, syntax("%d bytes, at most %d are read", len(body), MaxBody)
	}
	if bytes.IndexByte(body, 0) >= 0 {
		return nil, syntax("it contains a NUL byte")
	}
	t := &tidied{}
	sections := make([]section, 1, 4)
	version := false
	for line := range strings.FieldsFuncSeq(string(body), func(r rune) bool { return r == '\n' || r == '\r' }) {
		line = strings.TrimRight(line, " \t")
		if len(line) < 2 || line[1] != '=' {
			if line != "" {
				t.remark("a line that is not of the form x=value")
			}
			continue
		}
		value := strings.TrimLeft(line[2:], " \t")
		if !version {
			if line[0] != 'v' || value != "0" {
				return nil, syntax("it does not begin with v=0")
			}
			version = true
			continue
		}
		current := &sections[len(sections)-1]
		switch line[0] {
		case 'm':
			if len(sections) > MaxStreams {
				return nil, syntax("more than %d m= lines", MaxStreams)
			}
			media, err := t.media(value)
			if err != nil {
				return nil, err
			}
			sections = append(sections, section{media: media})
		case 'c':
			t.connection(current, value)
		case 'a':
			t.attribute(current, value)
		case 'o', 's', 'i', 'u', 'e', 'p', 'b', 't', 'r', 'z', 'k':
			// Known, and nothing that Tandem acts on.
		default:
			t.remark("a line of unknown type")
		}
	}
	if !version {
		return nil, syntax("it is empty")
	}
	t.text = assemble(sections)
	return t, nil
}

// media notes an m= line and returns its regular form.
func (t *tidied) media(value string) (string, error) {
	f := strings.Fields(value)
	if len(f) < 4 {
		return "", syntax("an m= line without media, port, transport and format")
	}
	if len(f)-3 > MaxFormats {
		return "", syntax("more than %d formats in an m= line", MaxFormats)
	}
	for _, token := range f {
		if !visible(token) {
			return "", syntax("a control or non-ASCII character in an m= line")
		}
	}
	s := call.Stream{Media: f[0], Proto: f[2], Formats: f[3:], Refused: true}
	t.streams = append(t.streams, s)

	// A stream that is not carried stays in its place without its words, which
	// pion/sdp may not know.
	const placeholder = "application 0 UDP 0"
	if !strings.EqualFold(s.Media, "audio") {
		t.remark(clip(s.Media) + " is not carried")
		return placeholder, nil
	}
	if !strings.EqualFold(s.Proto, "RTP/AVP") {
		t.remark("audio over " + clip(s.Proto) + " is not carried")
		return placeholder, nil
	}
	// In their registered spelling, for a peer as strict as pion/sdp is.
	last := &t.streams[len(t.streams)-1]
	last.Media, last.Proto = "audio", "RTP/AVP"
	port, count, _ := strings.Cut(f[1], "/")
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.remark("a port that is not from 0 to 65535")
		return placeholder, nil
	}
	if number == 0 {
		return placeholder, nil
	}
	if count != "" && count != "1" {
		t.remark("only the first port of several in an m= line is used")
	}
	return "audio " + strconv.FormatUint(number, 10) + " RTP/AVP " + strings.Join(s.Formats, " "), nil
}

// connection keeps the first c= line of a section in its plain form.
func (t *tidied) connection(s *section, value string) {
	if s.connection != "" {
		t.remark("a second c= line")
		return
	}
	f := strings.Fields(value)
	if len(f) != 3 || !strings.EqualFold(f[0], "IN") || !visible(f[2]) {
		t.remark("a c= line that is not of the form IN, type, address")
		return
	}
	kind := strings.ToUpper(f[1])
	if kind != "IP4" && kind != "IP6" {
		t.remark("a c= line of another type than IP4 and IP6")
		return
	}
	s.connection = "IN " + kind + " " + f[2]
}

// attribute keeps those a= lines that Tandem acts on.
func (t *tidied) attribute(s *section, value string) {
	key, _, _ := strings.Cut(value, ":")
	switch key {
	case "rtpmap", "fmtp", "ptime", "maxptime", "rtcp", "rtcp-mux", "sendrecv", "sendonly", "recvonly", "inactive":
	default:
		return
	}
	if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		t.remark("a control character in a=" + key)
		return
	}
	s.attributes = append(s.attributes, value)
}

// assemble writes the sections as RFC 4566 section 5 orders them. The o=, s= and
// t= lines are required there but not used here, so fixed ones stand in.
func assemble(sections []section) string {
	var b strings.Builder
	for i, s := range sections {
		if i == 0 {
			b.WriteString("v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\n")
		} else {
			b.WriteString("m=" + s.media + "\r\n")
		}
		if s.connection != "" {
			b.WriteString("c=" + s.connection + "\r\n")
		}
		if i == 0 {
			b.WriteString("t=0 0\r\n")
		}
		for _, a := range s.attributes {
			b.WriteString("a=" + a + "\r\n")
		}
	}
	return b.String()
}

// visible reports whether a token has only printable ASCII in it.
func visible(token string) bool {
	for i := range len(token) {
		if token[i] <= ' ' || token[i] > '~' {
			return false
		}
	}
	return true
}

// clip shortens a peer's word for a remark.
func clip(word string) string {
	if len(word) > 32 {
		return word[:32] + "..."
	}
	return word
}
