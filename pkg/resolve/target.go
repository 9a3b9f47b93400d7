package resolve

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/tandem-sbc/tandem/pkg/invalid"
)

// Transport is what SIP travels by, in the words of the config. It comes from there
// and not from DNS: NAPTR is not asked.
type Transport string

// Transports of SIP.
const (
	UDP Transport = "udp"
	TCP Transport = "tcp"
	TLS Transport = "tls"
)

// port is the default one (RFC 3261 section 19.1.2).
func (t Transport) port() uint16 {
	if t == TLS {
		return 5061
	}
	return 5060
}

// service is what SRV names begin with (RFC 3263 section 4.1; SIPS is the one over TLS).
func (t Transport) service() string {
	switch t {
	case TLS:
		return "_sips._tcp."
	case TCP:
		return "_sip._tcp."
	default:
		return "_sip._udp."
	}
}

// Bounds of names in their text form (RFC 1035 section 2.3.4, without the final dot).
const (
	maxName  = 253
	maxLabel = 63
	// maxServiceName leaves room for the longest service in front.
	maxServiceName = maxName - len("_sips._tcp.")
)

// nameLetters are those of hosts' names (RFC 1123 section 2.1), and the underscore, which
// some have.
const nameLetters = "abcdefghijklmnopqrstuvwxyz0123456789-_"

// Target is where a peer is: an address, or a name that DNS knows more about.
type Target struct {
	Addr netip.Addr // valid for an address
	Host string     // the name otherwise: in lower case, without the final dot
	// Port is 0 if none was written. A name without one is looked up by SRV first (RFC
	// 3263 section 4.2), a name with one by its addresses.
	Port uint16
}

// ParseTarget reads "ADDRESS", "ADDRESS:PORT", "NAME" or "NAME:PORT". Its error is an
// invalid.Field without a key.
func ParseTarget(text string) (Target, error) {
	host, port, hasPort := strings.Cut(text, ":")
	addr, err := netip.ParseAddr(host)
	switch {
	case text == "":
		return Target{}, invalid.Field{Problem: "is empty", Remedy: "give an IPv4 address or a name, e.g. 192.0.2.10:5060 or sip.example.com"}
	case err != nil && looksIPv6(text):
		return Target{}, invalid.Field{Problem: fmt.Sprintf("%q is IPv6, and only IPv4 is carried so far", text), Remedy: "give an IPv4 address or a name"}
	case err != nil && strings.Trim(host, "0123456789.") == "":
		return Target{}, invalid.Field{Problem: fmt.Sprintf("%q is not an IPv4 address", host), Remedy: "write it like 192.0.2.10:5060"}
	case err == nil && !isHost(addr):
		return Target{}, invalid.Field{Problem: fmt.Sprintf("%s is no host's address", addr), Remedy: "give the peer's own address"}
	}
	t := Target{Addr: addr}
	if err != nil {
		if t.Host, err = parseName(host); err != nil {
			return Target{}, err
		}
	}
	switch {
	case !hasPort && len(t.Host) > maxServiceName:
		return Target{}, invalid.Field{Problem: fmt.Sprintf("is a name of %d characters", len(t.Host)), Remedy: fmt.Sprintf("give at most %d, or a port", maxServiceName)}
	case !hasPort:
		return t, nil
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return Target{}, invalid.Field{Problem: fmt.Sprintf("%q is not a port", port), Remedy: "give a port from 1 to 65535, or leave it out"}
	}
	t.Port = uint16(number)
	return t, nil
}

// parseName checks a host's name.
func parseName(text string) (string, error) {
	name := strings.ToLower(strings.TrimSuffix(text, "."))
	if len(name) > maxName {
		return "", invalid.Field{Problem: fmt.Sprintf("is a name of %d characters", len(name)), Remedy: fmt.Sprintf("give at most %d", maxName)}
	}
	if plain, isService := cutService(name); isService {
		return "", invalid.Field{Problem: fmt.Sprintf("%q names an SRV record", text), Remedy: fmt.Sprintf("write %s: without a port it is looked up by SRV", plain)}
	}
	for label := range strings.SplitSeq(name, ".") {
		if !isLabel(label) {
			return "", invalid.Field{
				Problem: fmt.Sprintf("%q is neither an IPv4 address nor a name", text),
				Remedy:  "give a name of letters, digits and '-', e.g. sip.example.com; other letters in their xn-- form",
			}
		}
	}
	return name, nil
}

// cutService takes "_service._proto." away.
func cutService(name string) (plain string, isService bool) {
	plain = name
	for strings.HasPrefix(plain, "_") {
		_, after, found := strings.Cut(plain, ".")
		if !found {
			return name, false
		}
		plain, isService = after, true
	}
	return plain, isService && plain != ""
}

func isLabel(s string) bool {
	return len(s) > 0 && len(s) <= maxLabel && s[0] != '-' && s[0] != '_' && s[len(s)-1] != '-' &&
		strings.Trim(s, nameLetters) == ""
}

// looksIPv6 reports whether text is an IPv6 address, with or without a port.
func looksIPv6(text string) bool {
	_, err := netip.ParseAddr(text)
	_, portErr := netip.ParseAddrPort(text)
	_, bracketErr := netip.ParseAddr(strings.Trim(text, "[]"))
	return err == nil || portErr == nil || bracketErr == nil
}

// String is the target as ParseTarget reads it.
func (t Target) String() string {
	host := t.Host
	if t.Addr.IsValid() {
		host = t.Addr.String()
	}
	if t.Port == 0 {
		return host
	}
	return host + ":" + strconv.Itoa(int(t.Port))
}

// Static is where a target is that needs no look-up.
func (t Target) Static(via Transport) (at netip.AddrPort, ok bool) {
	return netip.AddrPortFrom(t.Addr, t.portOr(via.port())), t.Addr.IsValid()
}

func (t Target) portOr(port uint16) uint16 {
	if t.Port != 0 {
		return t.Port
	}
	return port
}
