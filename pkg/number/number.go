// Package number knows telephone numbers as SIP carries them: what is one of ITU-T E.164,
// and how one that is dialled in a country's own way becomes one (T12). It works on strings
// alone.
package number

import "strings"

const (
	// minDigits and maxDigits of an E.164 number with its country code. The upper bound is
	// ITU-T E.164 section 6.2.1; the lower one keeps a country code alone from being one.
	minDigits, maxDigits = 3, 15
	// minDialled is the least number of digits that a dialled number has once it is normalised.
	// What would be shorter is a code of the network, such as 112 where calls to other
	// areas begin with 1, and stays as it is.
	minDialled = 7
)

// separators make a number legible and are no part of it (RFC 3966 section 5.1.1).
const separators = "-.()"

// Plan is how a peer dials.
type Plan struct {
	// CountryCode has 1 to 3 digits. Without one nothing is known of how the peer dials.
	CountryCode string
	// NationalPrefix and InternationalPrefix are dialled before a national number and before
	// a country code. Empty means that there is nothing before it: such a number is one that
	// does not begin with the other prefix.
	NationalPrefix, InternationalPrefix string
}

// Normalise makes E.164 of a number that is a user part without escapes: "+", the country
// code and the rest. What the plan says nothing of, and the codes of a network, only lose
// their visual separators and what follows a semicolon; what is no number at all stays as
// it is.
func (p Plan) Normalise(user string) string {
	number, ok := clean(user)
	if !ok {
		return user
	}
	if p.CountryCode == "" || !allDigits(number) {
		return number
	}
	country, rest := p.split(number)
	if n := len(country) + len(rest); n < minDialled || n > maxDigits {
		return number
	}
	if global := "+" + country + rest; IsE164(global) {
		return global
	}
	return number
}

// split gives the country code and what follows it, which may be one, or nothing if the
// number is none that the plan knows. The longer prefix counts where both are dialled.
func (p Plan) split(digits string) (country, rest string) {
	international, isInternational := strings.CutPrefix(digits, p.InternationalPrefix)
	national, isNational := strings.CutPrefix(digits, p.NationalPrefix)
	switch {
	case isInternational && (!isNational || len(international) <= len(national)):
		return "", international
	case isNational:
		return p.CountryCode, national
	}
	return "", ""
}

// IsE164 reports whether a number is one of E.164 as RFC 3966 writes it, without visual
// separators: "+" and 3 to 15 digits, of which the first is not 0.
func IsE164(number string) bool {
	digits, ok := strings.CutPrefix(number, "+")
	return ok && len(digits) >= minDigits && len(digits) <= maxDigits && digits[0] != '0' && allDigits(digits)
}

// clean takes the parameters and visual separators off a number: an optional "+" and what
// can be dialled. It says false if it is none.
func clean(user string) (string, bool) {
	number, _, _ := strings.Cut(user, ";")
	plain, digits := true, 0
	for i := range len(number) {
		switch c := number[i]; {
		case '0' <= c && c <= '9' || c == '*' || c == '#':
			digits++
		case c == '+' && i == 0:
		case strings.IndexByte(separators, c) >= 0:
			plain = false
		default:
			return "", false
		}
	}
	switch {
	case digits == 0:
		return "", false
	case plain:
		return number, true
	}
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(separators, r) {
			return -1
		}
		return r
	}, number), true
}

func allDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}
