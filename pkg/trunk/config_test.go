package trunk

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func goodConfig(name string, targets ...string) Config {
	c := Config{Name: name, Realm: "outside", Kind: Carrier, Targets: targets}
	c.SetDefaults()
	return c
}

func prefixes(texts ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		list[i] = netip.MustParsePrefix(text)
	}
	return list
}

// hosts are n addresses.
func hosts(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("192.0.2.%d", i+1)
	}
	return list
}

func TestConfigValidate(t *testing.T) {
	latchFrom := func(texts ...string) func(*Config) {
		return func(c *Config) { c.MediaSource, c.MediaPrefixes = Latch, prefixes(texts...) }
	}
	targets := func(ts ...string) func(*Config) { return func(c *Config) { c.Targets = ts } }
	for _, row := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"OK as it is", func(*Config) {}, ""},
		{"OK codecs in any spelling", func(c *Config) { c.Codecs = []string{"pcma", "OPUS"} }, ""},
		{"OK two ports of one host", targets("192.0.2.1", "192.0.2.1:5080"), ""},

		{"bad no realm", func(c *Config) { c.Realm = "" }, "realm: is missing; name one of the realms"},
		{"bad kind", func(c *Config) { c.Kind = "Carrier" }, `kind: "Carrier" is not known here; did you mean "carrier"?`},
		{"bad transport", func(c *Config) { c.Transport = "tls" }, `transport: "tls" is not known here; give one of udp`},
		{"bad no targets", targets(), "targets: is missing; give at least one address or name, e.g. [192.0.2.10:5060]"},
		{"OK names as targets (T9)", targets("sbc.example.com", "sbc.example.com:5060"), ""},
		{"bad name twice", targets("sbc.example.com", "SBC.example.com."), "targets[1]: sbc.example.com is listed twice; leave it out"},
		{"bad name", targets("sbc_1!.example.com"), `targets[0]: "sbc_1!.example.com" is neither an IPv4 address nor a name; give a name of letters, digits and '-', e.g. sip.example.com; other letters in their xn-- form`},
		{"bad SRV record as target", targets("_sip._udp.example.com"), `targets[0]: "_sip._udp.example.com" names an SRV record; write example.com: without a port it is looked up by SRV`},
		{"bad IPv6 target", targets("[2001:db8::1]:5060"), `targets[0]: "[2001:db8::1]:5060" is IPv6, and only IPv4 is carried so far; give an IPv4 address or a name`},
		{"bad numbers as target", targets("192.0.2.300"), `targets[0]: "192.0.2.300" is not an IPv4 address; write it like 192.0.2.10:5060`},
		{"bad port of a target", targets("192.0.2.1:sip"), `targets[0]: "sip" is not a port; give a port from 1 to 65535, or leave it out`},
		{"bad port 0", targets("192.0.2.1:0"), `targets[0]: "0" is not a port; give a port from 1 to 65535, or leave it out`},
		{"bad multicast target", targets("239.0.0.1"), "targets[0]: 239.0.0.1 is no host's address; give the peer's own address"},
		{"bad empty target", targets("192.0.2.1", ""), "targets[1]: is empty; give an IPv4 address or a name, e.g. 192.0.2.10:5060 or sip.example.com"},
		{"bad target twice", targets("192.0.2.1", "192.0.2.1:5060"), "targets[1]: 192.0.2.1:5060 is listed twice; leave it out"},
		{"OK as many targets as are watched (T9)", func(c *Config) { c.Targets = hosts(64) }, ""},
		{"bad number of targets", func(c *Config) { c.Targets = hosts(65) }, "targets: has 65 entries; give at most 64, and the others to a second trunk of the same group"},
		{"bad no codecs", func(c *Config) { c.Codecs = []string{} }, "codecs: is empty; list at least one, or leave the key out for the usual ones"},
		{"bad codec", func(c *Config) { c.Codecs = []string{"PCMA", "g772"} }, `codecs[1]: no codec "g772" is known; did you mean "G722"?`},
		{"bad codec twice", func(c *Config) { c.Codecs = []string{"PCMA", "pcma"} }, "codecs[1]: pcma is listed twice; leave it out"},
		{"bad DTMF as codec", func(c *Config) { c.Codecs = []string{"PCMA", "telephone-event"} }, "codecs[1]: telephone-event goes along with every codec by itself; leave it out"},
		{"bad limit (T3)", func(c *Config) { c.MaxCalls = -1 }, "max_calls: -1 is out of range; give a number from 0 to 1000000"},
		{"bad ring timeout (T10)", func(c *Config) { c.RingTimeout = 11 * time.Minute }, "ring_timeout: 11m0s is out of range; give 1s to 10m"},

		{"OK answers within SIP's own time (T11)", func(c *Config) { c.NoResponse = 0 }, ""},
		{"bad wait for a response", func(c *Config) { c.NoResponse = 99 * time.Millisecond }, "no_response: 99ms is out of range; give 100ms to 32s, or 0s to wait as long as SIP does"},
		{"OK out of service (T1)", func(c *Config) { c.State = OutOfService }, ""},
		{"bad state", func(c *Config) { c.State = Degraded }, `state: "degraded" is not known here; give one of in-service, draining, out-of-service`},
		{"bad probe interval", func(c *Config) { c.ProbeInterval = 999 * time.Millisecond }, "probe_interval: 999ms is out of range; give 1s to 10m, or 0s for 25s to 35s by the trunk's name"},
		{"bad probe timeout", func(c *Config) { c.ProbeTimeout = 0 }, "probe_timeout: 0s is out of range; give 100ms to 32s"},
		{"bad probe retries", func(c *Config) { c.ProbeRetries = 11 }, "probe_retries: 11 is out of range; give a number from 0 to 10"},
		{"bad probe failures", func(c *Config) { c.ProbeFailures = []int{503, 200, 503} }, "probe_failures[1]: 200 is out of range; give a number from 300 to 699\nprobe_failures[2]: 503 is listed twice; leave it out"},
		{"OK every answer is life", func(c *Config) { c.ProbeFailures = nil }, ""},
		{"bad health", func(c *Config) { c.HealthFailures, c.HealthASR, c.HealthWindow = -1, 101, time.Second }, "health_failures: -1 is out of range; give a number from 0 to 1000\nhealth_asr: 101 is out of range; give a number from 0 to 100\nhealth_window: 1s is out of range; give 1m to 15m"},
		{"OK dialling as in Germany (T12)", func(c *Config) { c.CountryCode = "49" }, ""},
		{"OK dialling as in the US", func(c *Config) { c.CountryCode, c.NationalPrefix, c.InternationalPrefix = "1", "1", "011" }, ""},
		{"bad country code", func(c *Config) { c.CountryCode = "+49" }, `country_code: "+49" is no country code; give 1 to 3 digits without + or 00, e.g. "49"`},
		{"bad prefix to dial", func(c *Config) { c.InternationalPrefix = "00 " }, `international_prefix: "00 " cannot be dialled; give up to 5 digits, e.g. "0" or "011"`},
		{"bad prefixes that are one", func(c *Config) { c.CountryCode, c.NationalPrefix = "49", "00" }, `international_prefix: "00" is the national prefix too; give what the trunk dials before the country code`},

		{"OK no probes (I3)", func(c *Config) { c.Probe = ProbeNone }, ""},
		{"bad probe", func(c *Config) { c.Probe = "option" }, `probe: "option" is not known here; did you mean "options"?`},
		{"OK learned media source (M7)", func(c *Config) { c.MediaSource, c.MediaPrefixes = Latch, prefixes("198.51.100.0/24", "10.0.0.0/8") }, ""},
		{"OK learned from the targets (M7)", func(c *Config) { c.MediaSource = Latch }, ""},
		{"bad media source", func(c *Config) { c.MediaSource = "learn" }, `media_source: "learn" is not known here; give one of strict, latch`},
		{"bad latch window", func(c *Config) { c.LatchWindow = 61 * time.Second }, "latch_window: 1m1s is out of range; give 1s to 60s"},
		{"bad prefixes of a strict trunk", func(c *Config) { c.MediaPrefixes = prefixes("198.51.100.0/24") }, "media_prefixes: has no meaning while media_source is strict; set media_source: latch, or leave it out"},
		{"bad number of prefixes", latchFrom("10.0.0.1/32", "10.0.0.2/32", "10.0.0.3/32", "10.0.0.4/32", "10.0.0.5/32", "10.0.0.6/32", "10.0.0.7/32", "10.0.0.8/32", "10.0.0.9/32"), "media_prefixes: has 9 entries; give at most 8, wider ones"},
		{"bad IPv6 prefix", latchFrom("2001:db8::/32"), "media_prefixes[0]: 2001:db8::/32 is IPv6, and only IPv4 is carried so far; give an IPv4 network"},
		{"bad prefix for everybody", latchFrom("0.0.0.0/0"), "media_prefixes[0]: 0.0.0.0/0 lets nearly everybody take over a call's media; give the networks that the peer's media comes from"},
		{"bad prefix that is an address", latchFrom("198.51.100.7/24"), "media_prefixes[0]: 198.51.100.7/24 has bits behind its length; write 198.51.100.0/24, or 198.51.100.7/32 for one host"},
		{"bad multicast prefix", latchFrom("239.0.0.0/8"), "media_prefixes[0]: 239.0.0.0/8 has no hosts; give the networks that the peer's media comes from"},
		{"bad prefix twice", latchFrom("198.51.100.0/24", "198.51.100.0/24"), "media_prefixes[1]: 198.51.100.0/24 is listed twice; leave it out"},
		{"bad empty prefix", func(c *Config) { c.MediaSource, c.MediaPrefixes = Latch, make([]netip.Prefix, 1) }, "media_prefixes[0]: is no network; write it like 192.0.2.0/24"},
		{"bad number of targets to learn from", func(c *Config) {
			c.MediaSource = Latch
			c.Targets = []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5", "192.0.2.6", "192.0.2.7", "192.0.2.8"}
		}, "media_prefixes: is missing, and 8 targets are too many to stand in; give at most 8 networks that media may be learned from"},

		{"OK tones in the audio (M5)", func(c *Config) { c.DTMF, c.Codecs = DTMFInband, []string{"opus", "pcmu"} }, ""},
		{"bad DTMF", func(c *Config) { c.DTMF = "info" }, `dtmf: "info" is not known here; give one of events, inband, none`},
		{"bad codecs for tones", func(c *Config) { c.DTMF, c.Codecs = DTMFInband, []string{"G729"} }, "dtmf: inband tones need PCMA or PCMU, and codecs has neither; add one of them to codecs, or choose another way"},
		{"bad DTMF payload type", func(c *Config) { c.DTMFPayloadType = 95 }, "dtmf_payload_type: 95 is out of range; give a number from 96 to 127"},

		{"OK no idle timeouts (M8)", func(c *Config) { c.IdleTimeout, c.IdleTimeoutOneWay = 0, 0 }, ""},
		{"OK shortest idle timeout (M8)", func(c *Config) { c.IdleTimeout = 10 * time.Second }, ""},
		{"bad idle timeout", func(c *Config) { c.IdleTimeout = 9 * time.Second }, "idle_timeout: 9s is out of range; give 10s to 24h, or 0s for never"},
		{"bad idle timeout one way", func(c *Config) { c.IdleTimeoutOneWay = -1 }, "idle_timeout_one_way: -1ns is out of range; give 10s to 168h, or 0s for never"},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := goodConfig("a", "192.0.2.1:5060")
			row.change(&c)
			got := ""
			if err := c.Validate().Err(); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}

// A call is known by realm and source address, so no two trunks of a realm may share one.
func TestValidateAll(t *testing.T) {
	elsewhere := goodConfig("elsewhere", "192.0.2.1")
	elsewhere.Realm = "inside"
	const want = `[2].targets[1]: 192.0.2.1 is trunk "a"'s in realm "outside" already, and a call from it could be either's; put both in one trunk, or give each peer an address of its own
[3].name: "a" is another trunk's already; give each trunk a name of its own`
	err := ValidateAll([]Config{goodConfig("a", "192.0.2.1"), elsewhere, goodConfig("b", "192.0.2.2", "192.0.2.1:5080"), goodConfig("a", "192.0.2.3")}).Err()
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
}
