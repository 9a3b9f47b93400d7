package header

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Via is one value of a Via header (RFC 3261 section 20.42).
type Via struct {
	// Version is that of the protocol, "2.0".
	Version string
	// Host and Port are the sent-by; Port is 0 if there is none.
	Host   string
	Port   uint16
	Branch string
	// RPort is true if the sender wants the response where it sent from (RFC 3581).
	RPort bool
	// Text is the value as it stood, Rest what follows it in the same field.
	Text, Rest string

	received bool
	// rportEnd is where the port goes into an rport parameter without a value.
	rportEnd int
}

// Cookie starts each branch that is unique (RFC 3261 section 8.1.1.7).
const Cookie = "z9hG4bK"

// ParseVia reads the first value of a Via field.
func ParseVia(s string) (Via, error) {
	v := Via{}
	protocol, rest, ok := strings.Cut(s, "/")
	version, rest, ok2 := strings.Cut(rest, "/")
	if !ok || !ok2 || !strings.EqualFold(Trim(protocol), "SIP") || !Token(Trim(version)) {
		return v, fmt.Errorf("%w: bad protocol in Via", ErrSyntax)
	}
	v.Version = Trim(version)
	i := skipLWS(s, len(s)-len(rest))
	start := i
	for i < len(s) && class[s[i]]&isToken != 0 {
		i++
	}
	by := skipLWS(s, i)
	if i == start || by == i {
		return v, fmt.Errorf("%w: bad transport in Via", ErrSyntax)
	}
	for i = by; i < len(s) && s[i] != ';' && s[i] != ','; i++ {
	}
	host := s[by:i]
	if strings.ContainsAny(host, " \t") {
		host = strings.NewReplacer(" ", "", "\t", "").Replace(host)
	}
	var err error
	if v.Host, v.Port, err = hostPort(host); err != nil {
		return v, err
	}
	for {
		j := skipLWS(s, i)
		if j == len(s) || s[j] == ',' {
			v.Text = Trim(s[:j])
			if j < len(s) {
				if v.Rest = Trim(s[j+1:]); v.Rest == "" {
					return v, fmt.Errorf("%w: Via ends with a comma", ErrSyntax)
				}
			}
			return v, nil
		}
		name, value, next := param(s, j)
		if next < 0 {
			return v, fmt.Errorf("%w: bad parameters in Via", ErrSyntax)
		}
		switch {
		case strings.EqualFold(name, "branch"):
			v.Branch = value
		case strings.EqualFold(name, "received"):
			v.received = true
		case strings.EqualFold(name, "rport") && value == "":
			v.RPort = true
			v.rportEnd = next
		case strings.EqualFold(name, "rport"):
			v.RPort = true
		}
		i = next
	}
}

// Is reports whether the sent-by is this address (port 5060 is the default).
func (v Via) Is(host string, port uint16) bool {
	p := v.Port
	if p == 0 {
		p = 5060
	}
	return p == port && v.Host == host
}

// AppendEcho appends the value as a response has to carry it: unchanged, but for
// the source where the sender wants or needs to know it (RFC 3261 section 18.2.1,
// RFC 3581 section 4).
func (v Via) AppendEcho(b []byte, src netip.AddrPort) []byte {
	text := v.Text
	if v.rportEnd > 0 && v.rportEnd <= len(text) {
		b = append(b, text[:v.rportEnd]...)
		b = append(b, '=')
		b = strconv.AppendUint(b, uint64(src.Port()), 10)
		text = text[v.rportEnd:]
	}
	b = append(b, text...)
	if !v.received && (v.RPort || v.Host != src.Addr().String()) {
		b = append(b, ";received="...)
		b = src.Addr().AppendTo(b)
	}
	return b
}

// ReplyTo is where a response goes: back to the source address, and to its port
// if the sender asked for it, else to the port of the sent-by.
func (v Via) ReplyTo(src netip.AddrPort) netip.AddrPort {
	switch {
	case v.RPort:
		return src
	case v.Port != 0:
		return netip.AddrPortFrom(src.Addr(), v.Port)
	}
	return netip.AddrPortFrom(src.Addr(), 5060)
}
