package config

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

// good is the smallest config with something of each kind. Rows of TestParse change
// one thing in it.
const good = `node: gw1
realms:
  - name: platform
    interface: eth1
    address: 192.0.2.2/24
    media_ports: 16384-24575
  - name: carrier
    interface: eth2
    address: 198.51.100.2/24
    gateway: 198.51.100.1
    media_ports: 24576-32767
trunks:
  - name: genesys
    realm: platform
    kind: platform
    targets: [192.0.2.10]
  - name: carrier-a
    realm: carrier
    kind: carrier
    targets: [203.0.113.10:5070]
groups:
  - name: carriers
    trunks: [carrier-a]
routes:
  - name: out
    from: [genesys]
    group: carriers
  - name: in
    trunk: genesys
`

// beforeTrunks is good as far as its realms go.
var beforeTrunks = strings.Split(good, "trunks:")[0]

type row struct {
	name     string
	old, new string // replaced once in good; an empty old appends
	want     string // findings, one a line; empty if there are none
	// parseOnly marks what the JSON Schema cannot see: what keys say of each other.
	parseOnly bool
}

func (r row) yaml(t *testing.T) string {
	t.Helper()
	if r.old == "" {
		return good + r.new
	}
	if !strings.Contains(good, r.old) {
		t.Fatalf("%q is not in the good config", r.old)
	}
	return strings.Replace(good, r.old, r.new, 1)
}

var rows = []row{
	{name: "OK as it is"},
	{name: "OK byte order mark", old: "node: gw1", new: "\ufeffnode: gw1"},
	{name: "OK document markers", old: "node: gw1", new: "%YAML 1.2\n---\nnode: gw1"},
	{name: "OK two realms on one interface, told apart by vlan", old: "eth2\n", new: "eth1\n    vlan: 201\n"},
	{name: "OK two existing realms on one interface in user space", old: beforeTrunks, new: "engine: userspace\n" + strings.NewReplacer("eth2", "eth1\n    network: existing", "eth1", "eth1\n    network: existing").Replace(beforeTrunks)},
	{name: "OK metrics off", new: "metrics: {address: \"\"}\n"},

	// Routes (T12).
	{name: "OK route by everything", old: "    group: carriers\n", new: "    group: carriers\n    called: {range: \"+4930000-+4930999\"}\n    caller: {regexp: \"^[+]49\"}\n    header: {name: X-A}\n" +
		"    time: {days: [mon-fri], hours: \"08:00-24:00\", zone: Europe/Berlin}\n    translate: {called: [{strip: 3, add: \"0\"}], caller: [{regexp: \"^[+]\", replace: \"00\"}]}\n"},
	{name: "bad regexp", old: "    group: carriers\n", new: "    group: carriers\n    called:\n      regexp: \"+49\"\n", parseOnly: true,
		want: `tandem.yaml:29: routes[0].called.regexp: is no regular expression: missing argument to repetition operator: "+"; write it in the syntax of RE2, https://github.com/google/re2/wiki/Syntax`},
	{name: "bad range without quotes", old: "    group: carriers\n", new: "    group: carriers\n    called: {range: 4930000-493999}\n", parseOnly: true,
		want: `tandem.yaml:28: routes[0].called.range: the ends of "4930000-493999" have 7 and 6 digits; give a range for each length`},
	{name: "bad zone", old: "    group: carriers\n", new: "    group: carriers\n    time: {zone: Berlin}\n", parseOnly: true,
		want: `tandem.yaml:28: routes[0].time.zone: "Berlin" is no time zone; name one of the IANA database, e.g. Europe/Berlin`},
	{name: "bad default in words", old: "    group: carriers\n", new: "    group: carriers\n    default: yes\n",
		want: `tandem.yaml:28: routes[0].default: is text and should be true or false; give true or false, without quotes`},

	// One key by itself.
	{name: "bad no node", old: "node: gw1\n", new: "", want: `tandem.yaml:1: node: is missing; give 1 to 63 letters, digits, '.', '-' or '_', a letter or digit first`},
	{name: "bad number for a name", old: "gw1", new: "42", want: `tandem.yaml:1: node: 42 is a number in YAML and should be text; put it in quotes: "42"`},
	{name: "bad engine", new: "engine: kernal\n", want: `tandem.yaml:30: engine: "kernal" is not known here; did you mean "kernel"?`},
	{name: "bad max_calls", new: "max_calls: 0\n", want: `tandem.yaml:30: max_calls: 0 is out of range; give a number from 1 to 262144`},
	{name: "bad max_calls in words", new: "max_calls: many\n", want: `tandem.yaml:30: max_calls: "many" is not a whole number; give a whole number from 1 to 262144`},
	{name: "bad max_calls in quotes", new: "max_calls: \"100\"\n", want: `tandem.yaml:30: max_calls: "100" is not a whole number; remove the quotes: 100`},
	{name: "bad max_calls with a fraction", new: "max_calls: 1.5\n", want: `tandem.yaml:30: max_calls: 1.5 is not a whole number; give a whole number from 1 to 262144`},
	{name: "bad max_calls beyond 64 bits", new: "max_calls: 99999999999999999999\n", want: `tandem.yaml:30: max_calls: "99999999999999999999" is not a whole number; give a whole number from 1 to 262144`},
	{name: "bad drain without unit", new: "drain: 30\n", want: `tandem.yaml:30: drain: 30 has no unit; write 30s if seconds are meant`},
	{name: "bad drain", new: "drain: half an hour\n", want: `tandem.yaml:30: drain: "half an hour" is not a duration; write a number with its unit, e.g. 30s, 1m30s or 500ms`},
	{name: "bad drain beyond a day", new: "drain: 25h\n", parseOnly: true, want: `tandem.yaml:30: drain: 25h0m0s is out of range; give 0s to 24h`},
	{name: "bad drain with a sign", new: "drain: -1s\n", want: `tandem.yaml:30: drain: -1s is out of range; give 0s to 24h`},
	{name: "bad log", new: "log: {level: loud, format: jsn}\n", want: `tandem.yaml:30: log.level: "loud" is not known here; give one of debug, info, warn, error` + "\n" +
		`tandem.yaml:30: log.format: "jsn" is not known here; did you mean "json"?`},
	{name: "bad quarantine", new: "media: {quarantine: 1h}\n", parseOnly: true, want: `tandem.yaml:30: media.quarantine: 1h0m0s is out of range; give 0s to 10m`},
	{name: "bad admin socket", new: "admin: {socket: admin.sock}\n", parseOnly: true, want: `tandem.yaml:30: admin.socket: "admin.sock" is not an absolute path; give one that starts with /`},
	{name: "bad cdr", new: "cdr:\n  file: /var/lib/tandem/\n  keep: 0\n", want: `tandem.yaml:31: cdr.file: "/var/lib/tandem/" is a folder; name a file in it, e.g. /var/lib/tandem/cdr.jsonl` + "\n" +
		`tandem.yaml:32: cdr.keep: 0 is out of range; give a number from 1 to 1000`},
	{name: "bad metrics address", new: "metrics: {address: localhost}\n", parseOnly: true,
		want: `tandem.yaml:30: metrics.address: "localhost" is not an address with a port; write it like 127.0.0.1:9464, or "" for none`},
	{name: "bad metrics on every interface (N6)", new: "metrics: {address: 0.0.0.0:9464}\n", parseOnly: true,
		want: `tandem.yaml:30: metrics.address: 0.0.0.0:9464 can be reached from every realm; give the management network's address, or 127.0.0.1`},
	{name: "bad metrics on a realm (N6)", new: "metrics: {address: 198.51.100.2:9464}\n", parseOnly: true,
		want: `tandem.yaml:30: metrics.address: 198.51.100.2:9464 can be reached from realm "carrier"; give the management network's address, or 127.0.0.1`},

	{name: "bad metrics in the subnet of somebody else's network (N6)", old: beforeTrunks, parseOnly: true,
		new:  strings.Replace(beforeTrunks, "eth2", "eth2\n    network: existing", 1) + "metrics: {address: 198.51.100.9:9464}\n",
		want: `tandem.yaml:13: metrics.address: 198.51.100.9:9464 is in the subnet of realm "carrier"; give the management network's address, or 127.0.0.1`},
	{name: "OK metrics in a subnet that is a VRF's alone (N6)", new: "metrics: {address: 198.51.100.9:9464}\n"},

	// Trunks and groups (T2, T3, T4, T6, T7, T14).
	{name: "OK limits and emergency", old: "    targets: [203.0.113.10:5070]\n", new: "    targets: [203.0.113.10:5070]\n    max_rate: 3.5/2m\n    demand_e164: true\n    probe_failures: [404, 503]\nemergency: [\"112\", \"+49110\"]\n"},
	{name: "OK weights and codes, as numbers and as text", old: "    trunks: [carrier-a]\n",
		new: "    members: [{trunk: carrier-a, weight: 5}]\n    strategy: weighted\n    adaptive: true\n    retry_sip: [408, \"480\", 500-599]\n    retry_q850: []\n"},
	{name: "bad rate", old: "    targets: [203.0.113.10:5070]\n", new: "    targets: [203.0.113.10:5070]\n    max_rate: 40\n",
		want: `tandem.yaml:21: trunks[1].max_rate: "40" is not a rate; write it like 40/5s`},
	{name: "bad yes", old: "    targets: [203.0.113.10:5070]\n", new: "    targets: [203.0.113.10:5070]\n    demand_e164: \"yes\"\n",
		want: `tandem.yaml:21: trunks[1].demand_e164: is text and should be true or false; give true or false, without quotes`},
	{name: "bad numbers in a list", old: "    targets: [203.0.113.10:5070]\n", new: "    targets: [203.0.113.10:5070]\n    probe_failures: [408, busy, 200]\n",
		want: `tandem.yaml:21: trunks[1].probe_failures[1]: "busy" is not a whole number; give a whole number from 300 to 699` + "\n" +
			`tandem.yaml:21: trunks[1].probe_failures[2]: 200 is out of range; give a number from 300 to 699`},
	{name: "bad codes", old: "    trunks: [carrier-a]\n", new: "    trunks: [carrier-a]\n    retry_sip: [5xx]\n",
		want: `tandem.yaml:24: groups[0].retry_sip[0]: "5xx" is not a number or a range of numbers; write it like 500-599`},
	{name: "bad group that stands in for itself", old: "    trunks: [carrier-a]\n", new: "    trunks: [carrier-a]\n    fallback: carriers\n", parseOnly: true,
		want: `tandem.yaml:24: groups[0].fallback: leads back here: carriers, carriers; end the chain somewhere`},
	{name: "bad emergency number", new: "emergency: [112]\n", want: `tandem.yaml:30: emergency[0]: 112 is a number in YAML and should be text; put it in quotes: "112"`},
	{name: "bad emergency numbers", new: "emergency: [\"112\", \"sos\", \"112\"]\n", parseOnly: true,
		want: `tandem.yaml:30: emergency[1]: "sos" is not a number; give a number in quotes, e.g. "112"` + "\n" +
			`tandem.yaml:30: emergency[2]: "112" is listed twice; leave it out`},

	// The guard (S13) and the pins (H5).
	{name: "OK guard", new: "guard: {deny: [203.0.113.128/25, 10.0.0.0/8], sip_per_second: 0}\n"},
	{name: "bad deny covers a target", new: "guard:\n  deny: [10.0.0.0/8, 203.0.113.0/24]\n", parseOnly: true,
		want: `tandem.yaml:31: guard.deny[1]: 203.0.113.0/24 covers 203.0.113.10, a target of trunk "carrier-a"; deny smaller prefixes that leave 203.0.113.10 out, or remove the target`},
	{name: "bad deny without length", new: "guard: {deny: [203.0.113.10]}\n",
		want: `tandem.yaml:30: guard.deny[0]: "203.0.113.10" is not an address with its prefix length; write it like 192.0.2.2/24`},
	{name: "bad deny of a host in a subnet", new: "guard: {deny: [10.0.0.1/8]}\n", parseOnly: true,
		want: `tandem.yaml:30: guard.deny[0]: 10.0.0.1/8 is a host in a subnet; write 10.0.0.0/8 for the subnet, or 10.0.0.1/32 for the one host`},
	{name: "bad budget", new: "guard: {udp_per_second: 5000000000}\n",
		want: `tandem.yaml:30: guard.udp_per_second: 5000000000 is out of range; give a whole number from 0 to 1000000`},
	{name: "OK pins off", new: "pins: none\n"},
	{name: "OK pins off in other words", new: "pins: \"\"\n"},
	{name: "OK pins elsewhere", new: "pins: /run/bpf/tdm-a\n"},
	{name: "bad pins", new: "pins: tdm-a\n", parseOnly: true,
		want: `tandem.yaml:30: pins: "tdm-a" is not an absolute path; give auto, none, or a folder on bpffs, e.g. /sys/fs/bpf/tdm-gw1`},
	{name: "bad pins among those of others", new: "pins: /sys/fs/bpf\n", parseOnly: true,
		want: `tandem.yaml:30: pins: /sys/fs/bpf holds what other programs pin too; name a folder in it, e.g. /sys/fs/bpf/tdm-gw1`},
	{name: "bad pins with a dot", new: "pins: /sys/fs/bpf/tdm.a\n", parseOnly: true,
		want: `tandem.yaml:30: pins: bpffs allows no dot in the name "tdm.a"; write it without`},

	// Realms.
	{name: "bad address without length", old: "192.0.2.2/24", new: "192.0.2.2",
		want: `tandem.yaml:5: realms[0].address: "192.0.2.2" is not an address with its prefix length; write it like 192.0.2.2/24`},
	{name: "bad ports below 1024 (M9)", old: "16384-24575", new: "1000-2001", parseOnly: true,
		want: `tandem.yaml:6: realms[0].media_ports: 1000-2001 holds ports below 1024; start at 1024 or above`},
	{name: "bad ports written otherwise", old: "16384-24575", new: "16384:24575",
		want: `tandem.yaml:6: realms[0].media_ports: "16384:24575" is not a range of ports; write it like 16384-24575`},
	{name: "bad ports overlap", old: "24576-32767", new: "16384-24575", parseOnly: true,
		want: `tandem.yaml:11: realms[1].media_ports: 16384-24575 overlaps realm "platform" (16384-24575); give each realm a range of its own, e.g. 24576-32767`},
	{name: "bad attachment twice", old: "eth2", new: "eth1", parseOnly: true,
		want: `tandem.yaml:7: realms[1].vlan: eth1 is realm "platform"'s already; give each realm an interface or a vlan of its own`},
	{name: "bad attachment twice, one of an existing realm", old: beforeTrunks, parseOnly: true,
		new:  strings.Replace(beforeTrunks, "eth2", "eth1\n    network: existing", 1),
		want: `tandem.yaml:8: realms[1].interface: eth1 is realm "platform"'s already, and a device is in one VRF or namespace alone; give each realm an interface or a vlan of its own`},
	{name: "bad attachment twice, of existing realms", old: beforeTrunks, parseOnly: true,
		new:  strings.NewReplacer("eth2", "eth1\n    network: existing", "eth1", "eth1\n    network: existing").Replace(beforeTrunks),
		want: `tandem.yaml:9: realms[1].interface: eth1 is realm "platform"'s already, and the kernel engine knows realms by interface and vlan; give each realm an interface or a vlan of its own, or set engine: userspace`},
	{name: "bad service tag is another realm's vlan", old: beforeTrunks, parseOnly: true,
		new:  strings.NewReplacer("eth1", "eth2\n    vlan: 100", "eth2", "eth2\n    outer_vlan: 100\n    vlan: 7").Replace(beforeTrunks),
		want: `tandem.yaml:9: realms[1].interface: eth2.100.7 and the service tag of the same number of realm "platform" would be one device; choose another tag`},
	{name: "bad network", old: "interface: eth1", new: "interface: eth1\n    network: unmanaged", want: `tandem.yaml:5: realms[0].network: "unmanaged" is not known here; did you mean "managed"?`},
	{name: "bad secret in the open", new: "tunnels: [{name: t, realm: platform, interface: eth3, vlan: 7, local: 10.1.0.2/30, remote: 10.1.0.1, networks: [192.0.2.0/24], ike: {psk: hunter2}}]\n",
		want: `tandem.yaml:30: tunnels[0].ike.psk: is not the source of a secret; write it like file:/etc/tandem/name.psk`},
	{name: "bad dscp", old: "interface: eth1", new: "interface: eth1\n    dscp: 64", want: `tandem.yaml:5: realms[0].dscp: 64 is out of range; give a number from 0 to 63`},
	{name: "bad dscp beyond its type", old: "interface: eth1", new: "interface: eth1\n    dscp: 256", want: `tandem.yaml:5: realms[0].dscp: 256 is out of range; give a whole number from 0 to 63`},
	{name: "bad list for an address", old: "address: 192.0.2.2/24", new: "address: [192.0.2.2/24]",
		want: `tandem.yaml:5: realms[0].address: is a list and should be an address with its prefix length; write it like 192.0.2.2/24`},
	{name: "bad empty value", old: "interface: eth1", new: "interface:", want: `tandem.yaml:4: realms[0].interface: has no value; give one, or remove the key`},

	// Trunks, and what they say of realms.
	{name: "bad realm of a trunk", old: "realm: platform", new: "realm: platfrom", parseOnly: true, want: `tandem.yaml:14: trunks[0].realm: there is no realm "platfrom"; did you mean "platform"?`},
	{name: "OK target is a name (T9)", old: "[192.0.2.10]", new: "[sip.example.com]"},
	{name: "bad target is no name", old: "[192.0.2.10]", new: "[-sip.example.com]", parseOnly: true,
		want: `tandem.yaml:16: trunks[0].targets[0]: "-sip.example.com" is neither an IPv4 address nor a name; give a name of letters, digits and '-', e.g. sip.example.com; other letters in their xn-- form`},
	{name: "bad target without a list", old: "[192.0.2.10]", new: "192.0.2.10", want: `tandem.yaml:16: trunks[0].targets: is text and should be a list; write targets: [192.0.2.10]`},
	{name: "bad target is ourselves", old: "[192.0.2.10]", new: "[192.0.2.2:5060]", parseOnly: true,
		want: `tandem.yaml:16: trunks[0].targets[0]: 192.0.2.2:5060 is this gateway's own address in realm "platform"; give the peer's`},
	{name: "OK target beyond the subnet without a gateway: the kernel has routes (N8)", old: "[192.0.2.10]", new: "[203.0.113.7]"},
	{name: "bad transport", old: "kind: platform", new: "kind: platform\n    transport: tcp", want: `tandem.yaml:16: trunks[0].transport: "tcp" is not known here; give one of udp`},
	{name: "bad codec", old: "kind: platform", new: "kind: platform\n    codecs: [PCMA, PMCU]", parseOnly: true,
		want: `tandem.yaml:16: trunks[0].codecs[1]: no codec "PMCU" is known; did you mean "PCMU"?`},

	// Groups and routes.
	{name: "bad group of both kinds", old: "trunks: [carrier-a]", new: "trunks: [carrier-a, genesys]", parseOnly: true,
		want: `tandem.yaml:23: groups[0].trunks[1]: trunk "genesys" is a platform, but "carrier-a" is a carrier; make a group for each kind`},
	{name: "bad prefix without quotes", old: "from: [genesys]", new: "prefix: +49", want: `tandem.yaml:26: routes[0].prefix: +49 is a number in YAML and should be text; put it in quotes: "+49"`},
	{name: "bad group of a route", old: "group: carriers", new: "group: carrier", parseOnly: true, want: `tandem.yaml:27: routes[0].group: there is no group "carrier"; did you mean "carriers"?`},
	{name: "bad route without an end", old: "    trunk: genesys\n", new: "", parseOnly: true, want: `tandem.yaml:28: routes[1]: leads nowhere; add group or trunk`},
	{name: "bad route never reached", old: "    from: [genesys]\n", new: "", parseOnly: true,
		want: `tandem.yaml:27: routes[1]: is never reached: route "out" takes all its calls; move it before routes[0], or remove it`},

	// The grammar.
	{name: "bad key", new: "colour: blue\n", want: `tandem.yaml:30: colour: is not a key; known here are node, engine, max_calls, emergency, pins, drain, log, guard, realms, tunnels, ipsec, trunks, groups, routes, media, admin, metrics, cdr`},
	{name: "bad key misspelt is read as meant", old: "address: 192.0.2.2/24", new: "adress: 192.0.2.2",
		want: `tandem.yaml:5: realms[0].adress: is not a key; did you mean "address"?` + "\n" +
			`tandem.yaml:5: realms[0].address: "192.0.2.2" is not an address with its prefix length; write it like 192.0.2.2/24`},
	{name: "bad key twice", old: "interface: eth1", new: "interface: eth1\n    interface: eth3", parseOnly: true,
		want: `tandem.yaml:5: realms[0].interface: is given twice, first in line 4; remove one`},
	{name: "bad key that is no word", new: "\"a.b\\n\": 1\n", want: `tandem.yaml:30: "a.b\n": is not a key; known here are node, engine, max_calls, emergency, pins, drain, log, guard, realms, tunnels, ipsec, trunks, groups, routes, media, admin, metrics, cdr`},
	{name: "bad map for a list", new: "routes: {}\n", parseOnly: true, want: `tandem.yaml:30: routes: is given twice, first in line 24; remove one`},
	{name: "bad list for a map", new: "cdr: [a]\n", want: `tandem.yaml:30: cdr: is a list and should be a map of keys; write KEY: VALUE with keys file, max_size_mb, keep`},
	{name: "bad map for a value", old: "node: gw1", new: "node: {name: gw1}", want: `tandem.yaml:1: node: is a map and should be text; give one value`},
	{name: "bad alias", old: "node: gw1", new: "node: &n gw1", parseOnly: true, want: `tandem.yaml:1: node: anchors, aliases and tags are not part of the config's grammar; write the value out`},
	{name: "bad merge key", old: "node: gw1", new: "node: gw1\n<<: {}", parseOnly: true, want: `tandem.yaml:2: anchors, aliases, tags and merge keys are not part of the config's grammar; write the keys out`},
}

func TestParse(t *testing.T) {
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			c, err := Parse("tandem.yaml", []byte(r.yaml(t)))
			if (c == nil) == (err == nil) {
				t.Fatalf("config %v and error %v", c, err)
			}
			got := ""
			if err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(r.want, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}

// What is not one YAML document is one finding at its line.
func TestParseNotAConfig(t *testing.T) {
	const yaml = "; look at the indentation, quotes and brackets of this line and the one before"
	for name, r := range map[string]struct{ data, want string }{
		"empty":             {"", "tandem.yaml:1: the file is empty; start from docs/tandem.yaml"},
		"only comments":     {"# nothing\n\n# here\n", "tandem.yaml:1: the file is empty; start from docs/tandem.yaml"},
		"two documents":     {good + "---\nnode: gw2\n", "tandem.yaml:31: a second document starts here; keep one, and remove the --- between them"},
		"a word":            {"hello", "tandem.yaml:1: the file is text and should be a map of keys; write KEY: VALUE with keys node, engine, max_calls, emergency, pins, drain, log, guard, realms, tunnels, ipsec, trunks, groups, routes, media, admin, metrics, cdr"},
		"a tab":             {"node: gw1\nlog:\n\tlevel: info\n", "tandem.yaml:3: this is not YAML: found character '\t' that cannot start any token" + yaml},
		"an open bracket":   {"node: [gw1\nengine: auto\n", "tandem.yaml:2: this is not YAML: ',' or ']' must be specified" + yaml},
		"an open quote":     {"node: \"gw1\n", "tandem.yaml:1: this is not YAML: could not find end character of double-quoted text" + yaml},
		"not UTF-8":         {"node: gw1\n# caf\xe9\n", "tandem.yaml:2: the line is not UTF-8; save the file as UTF-8"},
		"a deep nest":       {"node: gw1\nlog: " + strings.Repeat("[", 50_000), "tandem.yaml:2: lists and maps are nested more than 32 deep; no key of the config needs that"},
		"a row of dashes":   {strings.Repeat("- ", 50_000), "tandem.yaml:1: lists and maps are nested more than 32 deep; no key of the config needs that"},
		"above 1 MiB":       {strings.Repeat("#", maxSize+1), "tandem.yaml:1: the file is larger than 1 MiB; this cannot be a config of Tandem"},
		"junk":              {strings.Repeat("a:\n", 50_001), "tandem.yaml:1: the file has more than 100000 keys, values and signs; this cannot be a config of Tandem"},
		"too many realms":   {"realms: [" + strings.Repeat("{},", 2000) + "{}]", "tandem.yaml:1: realms: has 2001 entries; at most 1000 are possible"},
		"a very long value": {strings.Replace(good, "realm: platform", "realm: "+strings.Repeat("x", 10_000), 1), `tandem.yaml:14: trunks[0].realm: there is no realm "` + strings.Repeat("x", maxProblem-len(`there is no realm "`)) + `...; name one of the realms`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("tandem.yaml", []byte(r.data))
			var findings *Errors
			if !errors.As(err, &findings) {
				t.Fatalf("error is %T, want *Errors", err)
			}
			for _, f := range findings.Findings {
				if f.Error() == r.want {
					return
				}
			}
			t.Errorf("got %q\nwant %q among them", err, r.want)
		})
	}
}

// Everything that is wrong is said at once, in the order of the lines.
func TestParseEverythingAtOnce(t *testing.T) {
	data, err := os.ReadFile("testdata/everything.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, err = Parse("everything.yaml", data)
	if err == nil {
		t.Fatal("accepted")
	}
	got, golden := err.Error()+"\n", "testdata/everything.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
}

func TestParseDefaults(t *testing.T) {
	c, err := Parse("tandem.yaml", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	if c.Engine != "auto" || c.MaxCalls != 16384 || c.Drain != 30*time.Second || c.Media.Quarantine != 5*time.Second || c.CDR.Keep != 10 ||
		c.PinFolder() != "/sys/fs/bpf/tdm-gw1" || c.Guard.SIPPerSecond != 50 || c.Guard.UDPPerSecond != 100 || c.Guard.Deny != nil {
		t.Errorf("defaults of the file: %+v", c)
	}
	if r := c.Realms[0]; r.SIPAddr().String() != "192.0.2.2:5060" || r.SIPDSCP != 24 || r.DSCP != 46 || r.Device() != "eth1" || r.Gateway.IsValid() {
		t.Errorf("defaults of a realm: %+v", r)
	}
	if diff := cmp.Diff([]string{"opus", "PCMA", "PCMU", "G722", "G729"}, c.Trunks[0].Codecs); diff != "" {
		t.Errorf("codecs (-want +got):\n%s", diff)
	}
	if c.Trunks[0].RingTimeout != 3*time.Minute || c.Trunks[0].Transport != "udp" || c.Groups[0].Strategy != "round_robin" {
		t.Errorf("defaults of trunks and groups: %+v %+v", c.Trunks[0], c.Groups[0])
	}
}

// H5: each gateway on a host keeps its kernel state in a folder of its own.
func TestPinFolder(t *testing.T) {
	for _, row := range []struct{ pins, node, want string }{
		{"auto", "gw1", "/sys/fs/bpf/tdm-gw1"},
		{"auto", "gw1.example.com", "/sys/fs/bpf/tdm-gw1-example-com"},
		{"/run/bpf/a", "gw1", "/run/bpf/a"},
		{"none", "gw1", ""},
		{"", "gw1", ""},
	} {
		c := Config{Node: row.node, Pins: row.pins}
		if got := c.PinFolder(); got != row.want {
			t.Errorf("pins %q of node %s: %q, want %q", row.pins, row.node, got, row.want)
		}
	}
}

// The largest config that the lists allow is read in a moment.
func TestParseLargest(t *testing.T) {
	var b strings.Builder
	b.WriteString(strings.Split(good, "  - name: genesys")[0])
	for i := range maxItems {
		fmt.Fprintf(&b, "  - name: trunk-%d\n    realm: platform\n    kind: platform\n    targets: [192.0.2.%d:5060, \"10.1.%d.%d\"]\n    codecs: [PCMA, PCMU]\n    max_calls: 10\n    ring_timeout: 60s\n",
			i, 3+i%250, i/250, i%250)
	}
	b.WriteString("routes:\n")
	for i := range maxItems {
		fmt.Fprintf(&b, "  - name: route-%d\n    from: [trunk-%d]\n    prefix: \"+49%d\"\n    trunk: trunk-%d\n", i, i, i, maxItems-1-i)
	}
	_, err := Parse("tandem.yaml", []byte(b.String()))
	var findings *Errors
	if !errors.As(err, &findings) {
		t.Fatalf("error is %v; it should be about targets that are taken", err)
	}
	// From the 251st trunk on the first target is taken.
	if n := len(findings.Findings); n != 750 {
		t.Errorf("%d findings, the first is %v", n, findings.Findings[0])
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gw.yaml")
	if _, err := Load(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(path, []byte("node: ''\n"+good), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path)
	var findings *Errors
	if !errors.As(err, &findings) || findings.Findings[0].File != path || findings.Findings[0].Line != 1 || findings.Findings[0].Column != 1 {
		t.Errorf("findings do not name the file: %v", err)
	}
	if _, err := Load(filepath.Dir(path)); err == nil {
		t.Error("a folder was read")
	}
}

// T12: a dial plan of a file may have 5,000 routes, and no more.
func TestManyRoutes(t *testing.T) {
	var b strings.Builder
	b.WriteString(strings.Split(good, "routes:")[0] + "routes:\n")
	for i := range 5000 {
		fmt.Fprintf(&b, "  - {name: r%d, prefix: \"+49%05d\", trunk: carrier-a}\n", i, i)
	}
	if c, err := Parse("f", []byte(b.String())); err != nil || len(c.Routes) != 5000 {
		t.Errorf("5,000 routes: %.400v", err)
	}
	b.WriteString("  - {name: one-more, trunk: genesys}\n")
	const want = "f:24: routes: has 5001 entries; at most 5000 are possible"
	if _, err := Parse("f", []byte(b.String())); err == nil || err.Error() != want {
		t.Errorf("one more: %.400v", err)
	}
}
