package config

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// reloadBase is a config that every row of TestDiff changes.
const reloadBase = `
node: gw1
emergency: ["112"]
drain: 30s
guard: {deny: [203.0.113.0/24], sip_per_second: 50}
realms:
  - {name: inside, interface: eth1, address: 192.0.2.1/24, media_ports: 10000-19999}
  - {name: outside, interface: eth2, vlan: 201, address: 198.51.100.1/24, media_ports: 20000-29999}
tunnels:
  - name: fra
    realm: outside
    local: 198.18.0.2/30
    remote: 198.18.0.1
    networks: [198.51.100.0/24]
    ike: {local_id: gw1, remote_id: peer, psk: "file:/etc/tandem/fra.psk"}
trunks:
  - {name: platform, realm: inside, kind: platform, targets: [192.0.2.10]}
  - {name: carrier-a, realm: outside, kind: carrier, targets: [198.51.100.10], max_calls: 10}
  - {name: carrier-b, realm: outside, kind: carrier, targets: [198.51.100.20], codecs: [PCMA, PCMU]}
groups:
  - name: carriers
    strategy: weighted
    members: [{trunk: carrier-a, weight: 5}, {trunk: carrier-b, weight: 2}]
routes:
  - {name: freephone, from: [platform], prefix: "+49800", trunk: carrier-a}
  - {name: out, from: [platform], group: carriers}
  - {name: in, trunk: platform}
`

// edited is the base with pairs of texts replaced.
func edited(t *testing.T, pairs ...string) *Config {
	t.Helper()
	text := reloadBase
	for i := 0; i < len(pairs); i += 2 {
		if strings.Count(text, pairs[i]) != 1 {
			t.Fatalf("%q is %d times in the config", pairs[i], strings.Count(text, pairs[i]))
		}
		text = strings.Replace(text, pairs[i], pairs[i+1], 1)
	}
	c, err := Parse("edited.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Issue 5, reload: what is hot, what drains and what waits for a restart, in words; and what
// can change now does.
func TestDiff(t *testing.T) {
	const (
		carrierB = "  - {name: carrier-b, realm: outside, kind: carrier, targets: [198.51.100.20], codecs: [PCMA, PCMU]}\n"
		realms   = "tunnels:\n"
		third    = "  - {name: third, interface: eth3, address: 203.0.114.1/24, media_ports: 30000-39999}\ntunnels:\n"
	)
	for _, tt := range []struct {
		name  string
		pairs []string
		want  []string
	}{
		{"nothing", nil, nil},
		{"nothing but form", []string{"drain: 30s", "drain: 0m30s"}, nil},
		{"a limit", []string{"max_calls: 10", "max_calls: 20"}, []string{"trunks[carrier-a].max_calls 10 -> 20: hot"}},
		{"a rate", []string{"max_calls: 10", "max_calls: 10, max_rate: 40/5s"}, []string{"trunks[carrier-a].max_rate none -> 40/5s: hot"}},
		{"a duration", []string{"max_calls: 10", "max_calls: 10, ring_timeout: 1m30s"}, []string{"trunks[carrier-a].ring_timeout 3m -> 1m30s: hot"}},
		{"a state", []string{"max_calls: 10", "max_calls: 10, state: draining"}, []string{"trunks[carrier-a].state in-service -> draining: hot"}},
		{"a list", []string{"codecs: [PCMA, PCMU]", "codecs: [PCMU]"}, []string{"trunks[carrier-b].codecs [PCMA, PCMU] -> [PCMU]: hot"}},
		{"a weight", []string{"weight: 2", "weight: 3"}, []string{"groups[carriers].members[carrier-b].weight 2 -> 3: hot"}},
		{"the order of routes", []string{
			"  - {name: out, from: [platform], group: carriers}\n  - {name: in, trunk: platform}\n", "  - {name: in, trunk: platform, from: [carrier-a]}\n  - {name: out, from: [platform], group: carriers}\n",
		}, []string{"routes[in].from [] -> [carrier-a]: hot", "routes [freephone, out, in] -> [freephone, in, out]: hot"}},
		{"a trunk more", []string{"groups:\n", "  - {name: carrier-c, realm: outside, kind: carrier, targets: [198.51.100.30]}\ngroups:\n"}, []string{"trunks[carrier-c] added: hot"}},
		{"a trunk less", []string{carrierB, "", ", {trunk: carrier-b, weight: 2}", ""}, []string{"trunks[carrier-b] removed: drain", "groups[carriers].members[carrier-b] removed: hot"}},
		{"who is denied", []string{"deny: [203.0.113.0/24]", "deny: []"}, []string{"guard.deny [203.0.113.0/24] -> []: hot"}},
		{"what strangers may send", []string{"sip_per_second: 50", "sip_per_second: 60"}, []string{"guard.sip_per_second 50 -> 60: restart"}},
		{"emergency and drain", []string{`["112"]`, `["112", "911"]`, "drain: 30s", "drain: 1m"}, []string{"emergency [112] -> [112, 911]: hot", "drain 30s -> 1m: hot"}},
		{"a realm's limit and its address", []string{"192.0.2.1/24,", "192.0.2.2/24, max_calls: 5,"},
			[]string{"realms[inside].max_calls 0 -> 5: hot", "realms[inside].address 192.0.2.1/24 -> 192.0.2.2/24: restart"}},
		{"a secret", []string{"file:/etc/tandem/fra.psk", "file:/etc/tandem/other.psk"}, []string{"tunnels[fra].ike.psk changed: restart"}},
		{"the node", []string{"node: gw1", "node: gw2"}, []string{"node gw1 -> gw2: restart"}},
		{"a realm more", []string{realms, third}, []string{"realms[third] added: restart"}},
		{"a trunk in a realm that is not there yet", []string{
			realms, third, "groups:\n", "  - {name: carrier-c, realm: third, kind: carrier, targets: [203.0.114.10]}\ngroups:\n",
			"{trunk: carrier-b, weight: 2}]", "{trunk: carrier-b, weight: 3}, {trunk: carrier-c}]\n  - {name: abroad, trunks: [carrier-c]}",
			"  - {name: in, trunk: platform}\n", "  - {name: far, group: abroad, prefix: \"+1\"}\n  - {name: back, from: [carrier-c], prefix: \"+2\", trunk: platform}\n  - {name: in, trunk: platform}\n",
		}, []string{
			"groups[carriers].members[carrier-b].weight 2 -> 3: hot",
			"realms[third] added: restart", "trunks[carrier-c] added: restart", "groups[carriers].members[carrier-c] added: restart",
			"groups[abroad] added: restart", "routes[far] added: restart", "routes[back] added: restart",
		}},
		{"a trunk that moves to such a realm", []string{
			realms, third, "carrier-b, realm: outside, kind: carrier, targets: [198.51.100.20]", "carrier-b, realm: third, kind: carrier, targets: [203.0.114.10]",
		}, []string{
			"realms[third] added: restart", "trunks[carrier-b].realm outside -> third: restart", "trunks[carrier-b].targets [198.51.100.20] -> [203.0.114.10]: restart",
		}},
		{"a default is left and an empty list given", []string{"strategy: weighted", "strategy: weighted\n    retry_sip: []"},
			[]string{"groups[carriers].retry_sip default -> []: hot"}},
		{"a default is given", []string{"strategy: weighted", "strategy: weighted\n    retry_q850: [34, 41-42]"},
			[]string{"groups[carriers].retry_q850 default -> [34, 41-42]: hot"}},
		{"an empty list where none means the same", []string{"codecs: [PCMA, PCMU]}", "codecs: [PCMA, PCMU], media_prefixes: []}"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			running, file := edited(t), edited(t, tt.pairs...)
			var got []string
			now := 0
			for _, c := range Diff(running, file) {
				got = append(got, c.String())
				if c.Effect != Restart {
					now++
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if same := Fingerprint(running, file) == Fingerprint(edited(t), edited(t)); same != (len(got) == 0) && tt.name != "an empty list where none means the same" {
				t.Errorf("the fingerprint is that of no change: %t, with %d changes", same, len(got))
			}
			if Fingerprint(running, file) != Fingerprint(edited(t), edited(t, tt.pairs...)) {
				t.Error("the same has two fingerprints")
			}
			next := Merge(running, file)
			if err := next.Validate().Err(); err != nil {
				t.Errorf("what is taken over is not whole: %v", err)
			}
			if left := Diff(next, file); len(left) != len(got)-now || slices.ContainsFunc(left, func(c Change) bool { return c.Effect != Restart }) {
				t.Errorf("left after the reload: %v", left)
			}
			if diff := Diff(running, edited(t)); diff != nil {
				t.Errorf("the running config has changed: %v", diff)
			}
		})
	}
}

// A change is seen wherever it is in a list that is too long to be shown: a denied network that
// is not denied would be let in.
func TestDiffOfLongLists(t *testing.T) {
	var many []string
	for i := range 40 {
		many = append(many, fmt.Sprintf("198.18.%d.0/24", i))
	}
	text := func(networks ...string) string { return "deny: [" + strings.Join(networks, ", ") + "]" }
	swapped := slices.Clone(many)
	swapped[38], swapped[39] = swapped[39], swapped[38]
	for _, tt := range []struct {
		name          string
		before, after []string
		want          string
	}{
		{"one more", many, append(slices.Clone(many), "203.0.114.0/24"), "guard.deny +203.0.114.0/24: hot"},
		{"another one", many, append(slices.Clone(many[:39]), "203.0.114.0/24"), "guard.deny +203.0.114.0/24, -198.18.39.0/24: hot"},
		{"another order", many, swapped, "guard.deny in another order: hot"},
		{"from one to many", many[:1], many, "guard.deny +198.18.1.0/24, +198.18.2.0/24, +198.18.3.0/24, +198.18.4.0/24, +198.18.5.0/24, +198.18.6.0/24, " +
			"+198.18.7.0/24, +198.18.8.0/24, +198.18.9.0/24, +198.18.10.0/24, +198.18.11.0/24, +198.18.12.0/24 and 27 more: hot"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			running, file := edited(t, "deny: [203.0.113.0/24]", text(tt.before...)), edited(t, "deny: [203.0.113.0/24]", text(tt.after...))
			changes := Diff(running, file)
			if len(changes) != 1 || changes[0].String() != tt.want {
				t.Errorf("changes %v, want %s", changes, tt.want)
			}
			if len(changes) == 1 && max(len(changes[0].Old), len(changes[0].New)) > maxShown+len("...") {
				t.Errorf("they are not cut: %+v", changes[0])
			}
			if got := Merge(running, file).Guard.Deny; !slices.Equal(got, file.Guard.Deny) {
				t.Errorf("what is taken over: %v", got)
			}
		})
	}
}

// An item that is there several times is counted.
func TestItemChanges(t *testing.T) {
	for _, tt := range []struct {
		before, after, want string
	}{
		{"a a b", "a b", "-a"}, {"a b", "b a a", "+a"}, {"a", "b b", "+b, +b, -a"}, {"a b", "b a", "in another order"},
	} {
		if got := itemChanges(strings.Fields(tt.before), strings.Fields(tt.after)); got != tt.want {
			t.Errorf("%s to %s: %s, want %s", tt.before, tt.after, got, tt.want)
		}
	}
}

// Between the reference config and itself nothing differs, secrets included; no text of a
// secret is in a change.
func TestDiffOfTheReference(t *testing.T) {
	a, err := Load("../../docs/tandem.yaml")
	if err != nil {
		t.Fatal(err)
	}
	b, err := Load("../../docs/tandem.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if got := Diff(a, b); got != nil {
		t.Errorf("differs from itself: %v", got)
	}
	text, err := os.ReadFile("../../docs/tandem.yaml")
	if err != nil {
		t.Fatal(err)
	}
	other, err := Parse("other.yaml", []byte(strings.ReplaceAll(string(text), "file:/etc/tandem/", "file:/etc/other/")))
	if err != nil {
		t.Fatal(err)
	}
	changes := Diff(a, other)
	for _, c := range changes {
		if strings.Contains(c.Old+c.New+c.String(), "file:") {
			t.Errorf("%+v shows where a secret is", c)
		}
	}
	if len(changes) == 0 {
		t.Error("no change of a secret is seen")
	}
}

// What can change now may not fit with what cannot: whoever reloads has to ask.
func TestMergeCanBeImpossible(t *testing.T) {
	running := edited(t)
	file := edited(t, "networks: [198.51.100.0/24]", "networks: [198.51.100.0/24, 198.52.0.0/24]", "targets: [198.51.100.20]", "targets: [198.52.0.20]")
	err := Merge(running, file).Validate().Err()
	if err == nil || !strings.Contains(err.Error(), "tunnels[0].networks") || !strings.Contains(err.Error(), "198.52.0.20") {
		t.Errorf("a target behind networks that wait for a restart: %v", err)
	}
}
