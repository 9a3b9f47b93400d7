package trunk

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func goodGroup(name, strategy string, trunks ...string) GroupConfig {
	c := GroupConfig{Name: name}
	c.SetDefaults()
	c.Trunks, c.Strategy = trunks, strategy
	return c
}

func findings(groups []GroupConfig, trunks []Config) string {
	if err := ValidateGroups(groups, trunks).Err(); err != nil {
		return err.Error()
	}
	return ""
}

func TestValidateGroups(t *testing.T) {
	platform := goodConfig("platform", "192.0.2.9")
	platform.Kind = Platform
	trunks := []Config{goodConfig("carrier-a", "192.0.2.1"), goodConfig("carrier-b", "192.0.2.2"), platform}
	group := func(name string, trunks ...string) GroupConfig { return goodGroup(name, Priority, trunks...) }
	if got := findings([]GroupConfig{group("g", "carrier-a", "carrier-b")}, trunks); got != "" {
		t.Errorf("a good group: %s", got)
	}
	const want = `[0].trunks[1]: there is no trunk "carier-b"; did you mean "carrier-b"?
[1].name: "g" is another group's already; give each group a name of its own
[1].trunks: is missing; name at least one trunk
[2].trunks[1]: "carrier-a" is listed twice; leave it out
[3].trunks[1]: trunk "platform" is a platform, but "carrier-a" is a carrier; make a group for each kind`
	got := findings([]GroupConfig{
		group("g", "carrier-a", "carier-b"), group("g"), group("h", "carrier-a", "carrier-a"), group("i", "carrier-a", "platform"),
	}, trunks)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
}

// T2, T7, T14: the keys of a group, each by itself.
func TestValidateGroup(t *testing.T) {
	trunks := []Config{goodConfig("a", "192.0.2.1"), goodConfig("b", "192.0.2.2")}
	for _, row := range []struct {
		name   string
		change func(*GroupConfig)
		want   string
	}{
		{"OK weighted", func(c *GroupConfig) { c.Trunks, c.Members, c.Strategy = nil, []Member{{"a", 5}, {"b", 2}}, Weighted }, ""},
		{"OK adaptive", func(c *GroupConfig) { c.Strategy, c.Adaptive = LeastUsed, true }, ""},
		{"OK codes", func(c *GroupConfig) {
			c.RetrySIP, c.RetryQ850 = []CodeRange{{408, 408}, {500, 699}}, []CodeRange{{1, 127}}
		}, ""},
		{"bad strategy", func(c *GroupConfig) { c.Strategy = "wighted" }, `[0].strategy: "wighted" is not known here; did you mean "weighted"?`},
		{"bad both lists", func(c *GroupConfig) { c.Members = []Member{{"a", 1}} }, "[0].members: stands beside trunks; keep one of them"},
		{"bad member", func(c *GroupConfig) {
			c.Trunks, c.Members, c.Strategy = nil, []Member{{"a", 0}, {"c", 1001}, {"", 1}}, Weighted
		},
			"[0].members[1].trunk: there is no trunk \"c\"; name one of the trunks\n[0].members[2].trunk: is missing; name one of the trunks\n" +
				"[0].members[0].weight: 0 is out of range; give a number from 1 to 1000\n[0].members[1].weight: 1001 is out of range; give a number from 1 to 1000"},
		{"bad weight of a place in a list", func(c *GroupConfig) { c.Trunks, c.Members, c.Strategy = nil, []Member{{"a", 5}}, Priority },
			"[0].members[0].weight: has no meaning while strategy is priority; set strategy to weighted, least_used or random, or leave it out"},
		{"bad adaptive", func(c *GroupConfig) { c.Adaptive = true }, "[0].adaptive: has no meaning while strategy is round_robin; set strategy to weighted, least_used or random"},
		{"bad bounds", func(c *GroupConfig) { c.Tries, c.Pause, c.Total = 33, 11*time.Second, -1 },
			"[0].tries: 33 is out of range; give a number from 1 to 32\n[0].pause: 11s is out of range; give 0s to 10s\n[0].total: -1ns is out of range; give 0s to 10m"},
		{"bad redirection retried", func(c *GroupConfig) { c.RetrySIP = []CodeRange{{300, 399}} }, "[0].retry_sip[0]: 300-399 is out of range; give numbers from 400 to 699"},
		{"bad cause", func(c *GroupConfig) { c.RetryQ850 = []CodeRange{{1, 1}, {100, 128}} }, "[0].retry_q850[1]: 100-128 is out of range; give numbers from 1 to 127"},
		{"bad fallback", func(c *GroupConfig) { c.Fallback = "a" }, `[0].fallback: "a" is a trunk; make a group of it`},
		{"bad unknown fallback", func(c *GroupConfig) { c.Fallback = "h" }, `[0].fallback: there is no group "h"; name one of the groups`},
		{"bad fallback on itself", func(c *GroupConfig) { c.Fallback = "g" }, `[0].fallback: leads back here: g, g; end the chain somewhere`},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := goodGroup("g", RoundRobin, "a", "b")
			row.change(&c)
			if diff := cmp.Diff(row.want, findings([]GroupConfig{c}, trunks)); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}

// T2: groups stand in for groups, up to eight deep, never in a circle, and never for
// another kind. What Validate lets pass New takes, and nothing else.
func TestFallbackChains(t *testing.T) {
	platform := goodConfig("p", "192.0.2.9")
	platform.Kind = Platform
	trunks := []Config{goodConfig("a", "192.0.2.1"), platform}
	chain := func(fallbacks ...string) (groups []GroupConfig) {
		for i, f := range fallbacks {
			g := goodGroup(string(rune('A'+i)), Priority, "a")
			g.Fallback = f
			groups = append(groups, g)
		}
		return groups
	}
	for _, row := range []struct {
		name   string
		groups []GroupConfig
		want   string
	}{
		{"OK eight", chain("B", "C", "D", "E", "F", "G", "H", ""), ""},
		{"bad nine", chain("B", "C", "D", "E", "F", "G", "H", "I", ""), "[0].fallback: is the start of a chain of more than 8 groups; make the chain of groups shorter than 9"},
		{"bad circle behind", chain("B", "C", "B"), "[1].fallback: leads back here: B, C, B; end the chain somewhere\n[2].fallback: leads back here: C, B, C; end the chain somewhere"},
	} {
		got := findings(row.groups, trunks)
		if diff := cmp.Diff(row.want, got); diff != "" {
			t.Errorf("%s: findings (-want +got):\n%s", row.name, diff)
		}
		if _, err := New(Configs{Trunks: trunks, Groups: row.groups}, nil); (err == nil) != (got == "") {
			t.Errorf("%s: Validate says %q, New %v", row.name, got, err)
		}
	}
	kinds := append(chain("B"), goodGroup("B", Priority, "p"))
	if got, want := findings(kinds, trunks), `[0].fallback: group "B" has platforms, but this one has carriers; name a group of carriers`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestCodeRange(t *testing.T) {
	for _, text := range []string{"408", "500-599", "0", "999"} {
		var r CodeRange
		if err := r.UnmarshalText([]byte(text)); err != nil || r.String() != text {
			t.Errorf("%s: %s %v", text, r, err)
		}
	}
	for _, text := range []string{"", "-", "5-", "-5", "599-500", "1000", "5xx", "1-2-3", "+5", " 5"} {
		var r CodeRange
		if err := r.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was read as %s", text, r)
		}
	}
}
