package admit

import (
	"net/netip"
	"testing"
)

// S13: the deny list is read as it is meant, or refused with what was probably meant.
func TestGuardConfig(t *testing.T) {
	for _, row := range []struct{ name, deny, want string }{
		{"OK subnet", "203.0.113.0/24", ""},
		{"OK host", "203.0.113.7/32", ""},
		{"bad host bits", "203.0.113.7/24", "deny[0]: 203.0.113.7/24 is a host in a subnet; write 203.0.113.0/24 for the subnet, or 203.0.113.7/32 for the one host"},
		{"bad IPv6", "2001:db8::/32", "deny[0]: 2001:db8::/32 is not IPv4, and only that is carried so far; give an IPv4 prefix, e.g. 203.0.113.0/24"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var c GuardConfig
			c.SetDefaults()
			c.Deny = []netip.Prefix{netip.MustParsePrefix(row.deny)}
			got := ""
			if err := c.Validate().Err(); err != nil {
				got = err.Error()
			}
			if got != row.want {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
	twice := GuardConfig{Deny: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("203.0.113.0/24")}}
	if l := twice.Validate(); len(l) != 1 || l[0].Key != "deny[1]" {
		t.Errorf("listed twice: %v", l)
	}
}
