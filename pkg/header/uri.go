package header

import (
	"fmt"
	"strconv"
	"strings"
)

// URI is a SIP, SIPS or tel URI in its parts, each as it stood.
type URI struct {
	// Scheme is lower case; of any other than sip, sips and tel only it is set.
	Scheme string
	// User is escaped, without the password; for tel it is the number.
	User string
	Host string
	// Port is 0 if there is none.
	Port uint16
	// Params start with the first semicolon, Headers with the question mark.
	Params, Headers string
}

// Known reports whether the scheme is one that names a party.
func (u URI) Known() bool { return u.Scheme == "sip" || u.Scheme == "sips" || u.Scheme == "tel" }

// Number is the user part without escapes and without the parameters of a
// telephone-subscriber (RFC 3261 section 19.1.6).
func (u URI) Number() string {
	user, _, _ := strings.Cut(u.User, ";")
	return Unescape(user)
}

// ParseURI checks and splits a URI. Every well-formed scheme is let in, so that the
// caller can answer 416; only the characters of an unknown one's rest are checked.
func ParseURI(s string) (URI, error) {
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok || !isScheme(scheme) || rest == "" || !all(rest, isURI) {
		return URI{}, fmt.Errorf("%w: %.64q is not a URI", ErrSyntax, s)
	}
	u := URI{Scheme: strings.ToLower(scheme)}
	switch u.Scheme {
	case "sip", "sips":
		return u, u.parseSIP(rest)
	case "tel":
		u.User, u.Params = cutBefore(rest, ';')
		if u.User == "" || !validEscapes(u.User) {
			return u, fmt.Errorf("%w: %.64q has no number", ErrSyntax, s)
		}
	}
	return u, nil
}

func (u *URI) parseSIP(rest string) error {
	if i := strings.IndexByte(rest, '@'); i >= 0 {
		u.User, _, _ = strings.Cut(rest[:i], ":")
		if u.User == "" || !validEscapes(rest[:i]) {
			return fmt.Errorf("%w: bad user part in a URI", ErrSyntax)
		}
		rest = rest[i+1:]
	}
	rest, u.Headers = cutBefore(rest, '?')
	host, params := cutBefore(rest, ';')
	if u.Params = params; !validParams(params) {
		return fmt.Errorf("%w: bad URI parameters", ErrSyntax)
	}
	var err error
	u.Host, u.Port, err = hostPort(host)
	return err
}

// cutBefore splits s before the first c, which stays in the second part.
func cutBefore(s string, c byte) (string, string) {
	if i := strings.IndexByte(s, c); i >= 0 {
		return s[:i], s[i:]
	}
	return s, ""
}

func isScheme(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20
		if (c < 'a' || c > 'z') && (i == 0 || !strings.ContainsRune("0123456789+-.", rune(s[i]))) {
			return false
		}
	}
	return s != ""
}

func validParams(s string) bool {
	for i := range len(s) {
		if s[i] == '@' || s[i] == ';' && (i+1 == len(s) || s[i+1] == ';') {
			return false
		}
	}
	return validEscapes(s)
}

func validEscapes(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] == '%' {
			if i+2 >= len(s) || unhex(s[i+1]) < 0 || unhex(s[i+2]) < 0 {
				return false
			}
			i += 2
		}
	}
	return true
}

func hostPort(s string) (host string, port uint16, err error) {
	host = s
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return "", 0, fmt.Errorf("%w: open IPv6 reference", ErrSyntax)
		}
		host, s = s[:end+1], s[end+1:]
		if s == "" {
			return host, 0, nil
		}
	} else {
		host, s = cutBefore(s, ':')
		if host == "" || !all(host, isHost) {
			return "", 0, fmt.Errorf("%w: %.64q is not a host", ErrSyntax, host)
		}
		if s == "" {
			return host, 0, nil
		}
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(s, ":"), 10, 16)
	if err != nil || s[0] != ':' || n == 0 {
		return "", 0, fmt.Errorf("%w: bad port %.16q", ErrSyntax, s)
	}
	return host, uint16(n), nil
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// Unescape resolves %HH; what is no escape stays as it is.
func Unescape(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) && unhex(s[i+1]) >= 0 && unhex(s[i+2]) >= 0 {
			b.WriteByte(byte(unhex(s[i+1])<<4 | unhex(s[i+2])))
			i += 2
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// AppendUser appends s as the user part of a URI. More is escaped than RFC 3261
// demands, so that no reader can take a part of a number for something else.
func AppendUser(b []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	for i := range len(s) {
		if c := s[i]; class[c]&isUser != 0 {
			b = append(b, c)
		} else {
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return b
}
