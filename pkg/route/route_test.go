package route

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// T12: the first route that matches wins, by ingress trunk and number prefix.
func TestRoute(t *testing.T) {
	table, err := New([]Config{
		{Name: "freephone", From: []string{"platform"}, Prefix: "+49800", Trunk: "carrier-b"},
		{Name: "germany", From: []string{"platform", "pbx"}, Prefix: "+49", Group: "carriers"},
		{Name: "inbound", From: []string{"carrier-a"}, Trunk: "platform"},
		{Name: "rest", Prefix: "+", Group: "world"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		from, number string
		want         Match
	}{
		{"platform", "+49800123", Match{Route: "freephone", Trunk: "carrier-b"}},
		{"platform", "+49801123", Match{Route: "germany", Group: "carriers"}},
		{"pbx", "+49800123", Match{Route: "germany", Group: "carriers"}},
		{"carrier-a", "+49800123", Match{Route: "inbound", Trunk: "platform"}},
		{"carrier-a", "", Match{Route: "inbound", Trunk: "platform"}},
		{"carrier-b", "+1555", Match{Route: "rest", Group: "world"}},
		{"carrier-b", "555", Match{}},
		{"platform", "49800", Match{}},
	} {
		got, ok := table.Route(row.from, row.number)
		if got != row.want || ok != (row.want != Match{}) {
			t.Errorf("from %s to %q: %+v, want %+v", row.from, row.number, got, row.want)
		}
	}
}

// The table is its own: what the caller does to its configs later changes nothing.
func TestTableIsImmutable(t *testing.T) {
	configs := []Config{{Name: "r", From: []string{"a"}, Trunk: "b"}}
	table, err := New(configs)
	if err != nil {
		t.Fatal(err)
	}
	configs[0].Trunk, configs[0].From[0] = "x", "x"
	if m, ok := table.Route("a", "1"); !ok || m.Trunk != "b" {
		t.Errorf("got %+v %t", m, ok)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []Config{{Name: "r"}, {Name: "r", Group: "g", Trunk: "t"}} {
		if _, err := New([]Config{c}); err == nil || err.Error() != `route "r": it needs a group or a trunk, and not both` {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestValidateAll(t *testing.T) {
	trunks, groups := []string{"platform", "carrier-a"}, []string{"carriers"}
	good := Config{Name: "r", From: []string{"platform"}, Prefix: "+49", Group: "carriers"}
	for _, row := range []struct {
		name   string
		routes []Config
		want   string
	}{
		{"OK", []Config{good, {Name: "s", Trunk: "platform"}}, ""},
		{"OK narrow before wide", []Config{good, {Name: "s", From: []string{"platform"}, Prefix: "+4", Group: "carriers"}}, ""},
		{"OK other source", []Config{good, {Name: "s", From: []string{"platform", "carrier-a"}, Prefix: "+49", Group: "carriers"}}, ""},
		{"bad name", []Config{{Trunk: "platform"}}, `[0].name: is missing; give 1 to 63 letters, digits, '.', '-' or '_', a letter or digit first`},
		{"bad name twice", []Config{good, {Name: "r", Trunk: "platform"}}, `[1].name: "r" is another route's already; give each route a name of its own`},
		{"bad leads nowhere", []Config{{Name: "r"}}, `[0]: leads nowhere; add group or trunk`},
		{"bad leads two ways", []Config{{Name: "r", Group: "carriers", Trunk: "platform"}}, `[0].trunk: stands beside group "carriers"; keep one of them; a group tries its trunks in turn`},
		{"bad from", []Config{{Name: "r", From: []string{"platfrom"}, Trunk: "platform"}}, `[0].from[0]: there is no trunk "platfrom"; did you mean "platform"?`},
		{"bad from twice", []Config{{Name: "r", From: []string{"platform", "platform"}, Trunk: "platform"}}, `[0].from[1]: "platform" is listed twice; leave it out`},
		{"bad trunk", []Config{{Name: "r", Trunk: "x"}}, `[0].trunk: there is no trunk "x"; name one of the trunks`},
		{"bad group", []Config{{Name: "r", Group: "carrier"}}, `[0].group: there is no group "carrier"; did you mean "carriers"?`},
		{"bad trunk as group", []Config{{Name: "r", Group: "platform"}}, `[0].group: "platform" is a trunk; write trunk: platform`},
		{"bad prefix", []Config{{Name: "r", Prefix: "+49 30", Trunk: "platform"}}, `[0].prefix: "+49 30" cannot be the start of a number; give the start of a number as it is in the Request-URI, e.g. "+49"`},
		{"bad never reached", []Config{good, {Name: "s", From: []string{"platform"}, Prefix: "+4930", Trunk: "carrier-a"}},
			`[1]: is never reached: route "r" takes all its calls; move it before routes[0], or remove it`},
		{"bad never reached from anywhere", []Config{{Name: "all", Group: "carriers"}, good},
			`[1]: is never reached: route "all" takes all its calls; move it before routes[0], or remove it`},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := ""
			if err := ValidateAll(row.routes, trunks, groups).Err(); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}
