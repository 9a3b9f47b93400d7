package number

import "strings"

// FromURI finds the number in what people copy from a trace: a SIP or tel URI, in angle
// brackets or not, or a user part alone. Escapes are resolved, parameters, password and
// host are left out (RFC 3261 section 19.1.6, RFC 3966).
func FromURI(text string) string {
	text = strings.TrimSpace(text)
	if i := strings.IndexByte(text, '<'); i >= 0 {
		text, _, _ = strings.Cut(text[i+1:], ">")
	}
	for _, scheme := range []string{"sip:", "sips:", "tel:"} {
		if len(text) >= len(scheme) && strings.EqualFold(text[:len(scheme)], scheme) {
			text = text[len(scheme):]
			break
		}
	}
	text, _, _ = strings.Cut(text, "@")
	text, _, _ = strings.Cut(text, ";")
	text, _, _ = strings.Cut(text, ":")
	return unescape(text)
}

// unescape resolves %HH; what is no escape stays as it is.
func unescape(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			high, low := unhex(s[i+1]), unhex(s[i+2])
			if high >= 0 && low >= 0 {
				b.WriteByte(byte(high<<4 | low))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func unhex(c byte) int { return strings.IndexByte("0123456789abcdef", c|lower(c)) }

// lower is the bit that makes a letter small.
func lower(c byte) byte {
	if 'A' <= c && c <= 'F' {
		return 0x20
	}
	return 0
}
