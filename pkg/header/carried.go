package header

import (
	"strings"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// Limits of what is carried: a peer's oddities are not to become another's.
const (
	maxCarried      = 8
	maxCarriedBytes = 1024
)

// nobody stands for the host of a diversion between the legs; AppendCarried puts
// ours in its place.
const nobody = "@nobody.invalid"

// carried are the fields that go from leg to leg, by lower-case name.
var carried = map[string]string{
	"user-to-user": "User-to-User", // RFC 7433
	"x-inin-cnv":   "x-inin-cnv",   // the platform's conversation id (S15)
	"diversion":    "Diversion",    // RFC 5806: who was called first; its host is not carried
}

// Carry appends a field to the carried ones if it is one of them.
func Carry(to []call.Header, name, value string) []call.Header {
	proper, ok := carried[strings.ToLower(name)]
	if !ok || len(to) >= maxCarried || len(value) > maxCarriedBytes || !printable(value) {
		return to
	}
	if proper != "Diversion" {
		return append(to, call.Header{Name: proper, Value: value})
	}
	for value != "" && len(to) < maxCarried {
		a, rest, err := NextAddress(value)
		if err != nil {
			break
		}
		if d := diversion(a); d != "" {
			to = append(to, call.Header{Name: proper, Value: d})
		}
		value = rest
	}
	return to
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' && s[i] != '\t' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

// diversion rebuilds a Diversion value of its number, reason and counter.
func diversion(a Address) string {
	p := party(a)
	if p.User == "" {
		return ""
	}
	b := AppendDisplay(nil, p.Display)
	b = append(b, "<sip:"...)
	b = AppendUser(b, p.User)
	b = append(b, nobody+">"...)
	for _, name := range [...]string{"reason", "counter", "privacy"} {
		if v, ok := a.Param(name); ok && Token(v) {
			b = append(b, ';')
			b = append(b, name...)
			b = append(b, '=')
			b = append(b, v...)
		}
	}
	return string(b)
}

// CarriedValue is a carried field's value as it goes out from our host.
func CarriedValue(h call.Header, host string) string {
	// The last one: a display name may hold anything.
	if i := strings.LastIndex(h.Value, nobody); h.Name == "Diversion" && i >= 0 {
		return h.Value[:i+1] + host + h.Value[i+len(nobody):]
	}
	return h.Value
}
