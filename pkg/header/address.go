package header

import (
	"fmt"
	"strings"
)

// Address is the value of From, To, Contact, Route and the like (RFC 3261 section 20.10).
type Address struct {
	// Display is the display name without quotes, or empty.
	Display string
	// URI is what stood between the brackets.
	URI string
	// Params are the header's parameters from the first semicolon on, checked.
	Params string
}

// Param returns a header parameter, unquoted.
func (a Address) Param(name string) (string, bool) { return Param(a.Params, name) }

// Tag returns the tag parameter, or empty.
func (a Address) Tag() string {
	tag, _ := Param(a.Params, "tag")
	return tag
}

// ParseAddress reads exactly one address.
func ParseAddress(s string) (Address, error) {
	a, rest, err := NextAddress(s)
	if err == nil && rest != "" {
		err = fmt.Errorf("%w: more than one address", ErrSyntax)
	}
	return a, err
}

// NextAddress reads the first address of a comma-separated list and returns the
// rest behind the comma.
func NextAddress(s string) (a Address, rest string, err error) {
	i := skipLWS(s, 0)
	start := i
	if i < len(s) && s[i] == '"' {
		if i = quoted(s, i); i < 0 {
			return a, "", fmt.Errorf("%w: display name is not closed", ErrSyntax)
		}
		a.Display = unquote(s[start:i])
		if i = skipLWS(s, i); i >= len(s) || s[i] != '<' {
			return a, "", fmt.Errorf("%w: no address behind the display name", ErrSyntax)
		}
	} else {
		for i < len(s) && (class[s[i]]&isToken != 0 || isLWS(s[i])) {
			i++
		}
		if i < len(s) && s[i] == '<' {
			a.Display = Trim(s[start:i])
		} else {
			i = start
		}
	}
	if i < len(s) && s[i] == '<' {
		end := strings.IndexByte(s[i:], '>')
		if end < 0 {
			return a, "", fmt.Errorf("%w: address is not closed", ErrSyntax)
		}
		a.URI = s[i+1 : i+end]
		i += end + 1
	} else {
		// Without brackets a semicolon starts a header parameter, and neither comma
		// nor question mark may be part of the URI.
		for i < len(s) && class[s[i]]&isURI != 0 && s[i] != ';' && s[i] != ',' && s[i] != '?' {
			i++
		}
		a.URI = s[start:i]
	}
	if scheme, part, ok := strings.Cut(a.URI, ":"); !ok || !isScheme(scheme) || part == "" || !all(part, isURI) {
		return a, "", fmt.Errorf("%w: no URI in address", ErrSyntax)
	}
	end := params(s, i)
	if end < 0 {
		return a, "", fmt.Errorf("%w: bad parameters behind an address", ErrSyntax)
	}
	a.Params = Trim(s[i:end])
	if end < len(s) {
		if rest = Trim(s[end+1:]); rest == "" {
			return a, "", fmt.Errorf("%w: list ends with a comma", ErrSyntax)
		}
	}
	return a, rest, nil
}

// AppendDisplay appends a quoted display name and a blank, or nothing if s is
// empty. Control characters and broken UTF-8 are left out.
func AppendDisplay(b []byte, s string) []byte {
	if s == "" {
		return b
	}
	b = append(b, '"')
	for _, r := range strings.ToValidUTF8(s, "") {
		switch {
		case r < ' ' || r == 0x7f:
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		default:
			b = append(b, string(r)...)
		}
	}
	return append(b, '"', ' ')
}
