package resolve

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/invalid"
)

func TestConfig(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Config)
		want   string // a part of the only finding, or "" for none
	}{
		"OK defaults":      {func(*Config) {}, ""},
		"OK servers":       {func(c *Config) { c.Servers = []string{"192.0.2.53", "192.0.2.53:5353"} }, ""},
		"OK longest":       {func(c *Config) { c.Timeout, c.Attempts, c.MaxStale = 10*time.Second, 5, 8760*time.Hour }, ""},
		"bad name":         {func(c *Config) { c.Servers = []string{"dns.example.com"} }, `servers[0]: "dns.example.com" is no IPv4 address`},
		"bad IPv6":         {func(c *Config) { c.Servers = []string{"2001:db8::53"} }, "servers[0]"},
		"bad IPv6, port":   {func(c *Config) { c.Servers = []string{"[2001:db8::53]:53"} }, "servers[0]"},
		"bad multicast":    {func(c *Config) { c.Servers = []string{"224.0.0.251"} }, "servers[0]"},
		"bad port":         {func(c *Config) { c.Servers = []string{"192.0.2.53:0"} }, "servers[0]"},
		"bad twice":        {func(c *Config) { c.Servers = []string{"192.0.2.53", "192.0.2.53:53"} }, "servers[1]: 192.0.2.53:53 is listed twice"},
		"bad many":         {func(c *Config) { c.Servers = []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5"} }, "servers: has 5"},
		"bad timeout":      {func(c *Config) { c.Timeout = time.Millisecond }, "timeout: 1ms"},
		"bad long timeout": {func(c *Config) { c.Timeout = time.Minute }, "timeout: 1m0s"},
		"bad attempts":     {func(c *Config) { c.Attempts = 0 }, "attempts: 0"},
		"bad max_stale":    {func(c *Config) { c.MaxStale = time.Second }, "max_stale: 1s"},
	} {
		var c Config
		c.SetDefaults()
		tt.change(&c)
		switch l := c.Validate(); {
		case tt.want == "" && l != nil:
			t.Errorf("%s: %v", name, l.Err())
		case tt.want != "" && (len(l) != 1 || !strings.Contains(l.Err().Error(), tt.want)):
			t.Errorf("%s: %v, want %q", name, l.Err(), tt.want)
		}
	}
}

func TestParseTarget(t *testing.T) {
	long := strings.Repeat("abcdefghi.", 25)[:maxServiceName]
	for text, want := range map[string]Target{
		"192.0.2.1":             {Addr: netip.MustParseAddr("192.0.2.1")},
		"192.0.2.1:5080":        {Addr: netip.MustParseAddr("192.0.2.1"), Port: 5080},
		"sip.example.com":       {Host: "sip.example.com"},
		"SIP.Example.COM.":      {Host: "sip.example.com"},
		"sip.example.com:5060":  {Host: "sip.example.com", Port: 5060},
		"sip.example.com.:5060": {Host: "sip.example.com", Port: 5060},
		"pbx":                   {Host: "pbx"},
		"1and1.example":         {Host: "1and1.example"},
		"a_b.example":           {Host: "a_b.example"},
		"xn--bcher-kva.example": {Host: "xn--bcher-kva.example"},
		long:                    {Host: long},
	} {
		got, err := ParseTarget(text)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", text, got, err, want)
		}
		if again, err := ParseTarget(got.String()); err != nil || again != got {
			t.Errorf("%q is written as %q, which is %+v, %v", text, got, again, err)
		}
	}
}

func TestParseTargetRefusals(t *testing.T) {
	for text, want := range map[string]string{
		"":                            "is empty",
		"192.0.2":                     "not an IPv4 address",
		"192.0.2.256":                 "not an IPv4 address",
		"192.0.2.1.":                  "not an IPv4 address",
		"192.0.2.01":                  "not an IPv4 address",
		"0.0.0.0":                     "no host's address",
		"224.0.0.1:5060":              "no host's address",
		"255.255.255.255":             "no host's address",
		"2001:db8::1":                 "only IPv4",
		"[2001:db8::1]":               "only IPv4",
		"[2001:db8::1]:5060":          "only IPv4",
		"::1":                         "only IPv4",
		"192.0.2.1:":                  `"" is not a port`,
		"192.0.2.1:0":                 "not a port",
		"192.0.2.1:65536":             "not a port",
		"sip.example.com:+5060":       "not a port",
		"sip.example.com:50:60":       "not a port",
		"sip.example.com:sip":         "not a port",
		"_sip._udp.example.com":       "write example.com: without a port it is looked up by SRV",
		"_sips._tcp.example.com:5061": "names an SRV record",
		"_sip":                        "neither an IPv4 address nor a name",
		".":                           "not an IPv4 address",
		":5060":                       "",
		"sip..example.com":            "neither",
		"-sip.example.com":            "neither",
		"sip-.example.com":            "neither",
		"sip:carrier@example.com":     "not a port",
		"bücher.example":              "xn--",
		"a b.example":                 "neither",
		"a\x1b.example":               "neither",
		strings.Repeat("a", 64):       "neither",
		strings.Repeat("abcdefghi.", 25) + "toolong": "characters",
		strings.Repeat("abcdefghi.", 25)[:249]:       "give at most 242, or a port",
	} {
		got, err := ParseTarget(text)
		f := invalid.Field{}
		if !errors.As(err, &f) || f.Key != "" || f.Remedy == "" || !strings.Contains(err.Error(), want) || got != (Target{}) {
			t.Errorf("%q: %+v, %v; want %q", text, got, err, want)
		}
	}
}

func TestStatic(t *testing.T) {
	for text, want := range map[string]string{"192.0.2.1": "192.0.2.1:5061", "192.0.2.1:5080": "192.0.2.1:5080"} {
		if at, ok := mustTarget(t, text).Static(TLS); !ok || at.String() != want {
			t.Errorf("%s: %s, %v", text, at, ok)
		}
	}
	if at, ok := mustTarget(t, "192.0.2.1").Static(UDP); !ok || at.Port() != 5060 {
		t.Errorf("%s, %v", at, ok)
	}
	if _, ok := mustTarget(t, "example.com").Static(UDP); ok {
		t.Error("a name is not static")
	}
}
