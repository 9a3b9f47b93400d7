// Package header reads and writes the values of SIP header fields: addresses,
// URIs, Via, Reason, identities, and the few fields that are carried from leg to
// leg. It is pure. What it writes is built from call values and our own host only,
// so that nothing of a peer's network can appear on the other side (S18).
package header

import (
	"errors"
	"strings"
)

// ErrSyntax is wrapped by all errors of this package: the value does not follow
// the grammar of RFC 3261 section 25.
var ErrSyntax = errors.New("malformed header")

// Character classes of RFC 3261 section 25.1.
const (
	isToken = 1 << iota
	isHost
	isUser // may stand unescaped in what we write as the user part of a URI
	isURI  // may stand somewhere in a URI
)

var class = func() (t [256]uint8) {
	set := func(bit uint8, chars string) {
		for i := range len(chars) {
			t[chars[i]] |= bit
		}
	}
	const alnum = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	set(isToken, alnum+"-.!%*_+`'~")
	set(isHost, alnum+"-._") // the underscore is not RFC 1123, but is met
	set(isUser, alnum+"-_.!~*'()+")
	set(isURI, alnum+"-_.!~*'()&=+$,;?/%:@[]#`|^{}\\")
	return t
}()

// all reports whether s has characters of a class only; the empty string does.
func all(s string, bit uint8) bool {
	for i := range len(s) {
		if class[s[i]]&bit == 0 {
			return false
		}
	}
	return true
}

// Token reports whether s is a token: a method, a header name, a tag.
func Token(s string) bool { return s != "" && all(s, isToken) }

func isLWS(c byte) bool { return c == ' ' || c == '\t' }

// Trim removes linear white space at both ends.
func Trim(s string) string {
	for len(s) > 0 && isLWS(s[0]) {
		s = s[1:]
	}
	for len(s) > 0 && isLWS(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	return s
}

func skipLWS(s string, i int) int {
	for i < len(s) && isLWS(s[i]) {
		i++
	}
	return i
}

// quoted returns the index behind the quoted-string that starts at i, or -1 if it
// is not closed.
func quoted(s string, i int) int {
	for i++; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

func unquote(s string) string {
	if len(s) < 2 || s[0] != '"' {
		return s
	}
	s = s[1 : len(s)-1]
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// param reads one ";name[=value]" that starts at i, which is at the semicolon or
// white space before it. It returns the index behind it, or -1. A value may be a
// token, a host, an IPv6 reference or a quoted string.
func param(s string, i int) (name, value string, next int) {
	i = skipLWS(s, i)
	if i >= len(s) || s[i] != ';' {
		return "", "", -1
	}
	start := skipLWS(s, i+1)
	for i = start; i < len(s) && class[s[i]]&isToken != 0; i++ {
	}
	if i == start {
		return "", "", -1
	}
	name = s[start:i]
	eq := skipLWS(s, i)
	if eq >= len(s) || s[eq] != '=' {
		return name, "", i
	}
	start = skipLWS(s, eq+1)
	if start < len(s) && s[start] == '"' {
		end := quoted(s, start)
		if end < 0 {
			return "", "", -1
		}
		return name, s[start:end], end
	}
	for i = start; i < len(s) && (class[s[i]]&isToken != 0 || s[i] == ':' || s[i] == '[' || s[i] == ']'); i++ {
	}
	if i == start {
		return "", "", -1
	}
	return name, s[start:i], i
}

// params returns the index behind the parameters that start at i: the end of s or
// a comma. -1 means that something else stands there.
func params(s string, i int) int {
	for {
		j := skipLWS(s, i)
		if j == len(s) || s[j] == ',' {
			return j
		}
		if _, _, i = param(s, j); i < 0 {
			return -1
		}
	}
}

// Param returns the value of a parameter in a checked parameter list, unquoted.
func Param(list, name string) (value string, ok bool) {
	for i := 0; i < len(list); {
		n, v, next := param(list, i)
		if next < 0 {
			return "", false
		}
		if strings.EqualFold(n, name) {
			return unquote(v), true
		}
		i = next
	}
	return "", false
}

// Tokens splits a comma-separated list of tokens, such as that of Require.
func Tokens(s string) []string {
	var out []string
	for part := range strings.SplitSeq(s, ",") {
		if part = Trim(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}
