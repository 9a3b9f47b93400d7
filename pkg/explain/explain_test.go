package explain

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/route"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

func tables(t *testing.T) (*trunk.Table, *route.Table) {
	t.Helper()
	one := func(name, address string, change func(*trunk.Config)) trunk.Config {
		c := trunk.Config{Name: name, Realm: "r"}
		c.SetDefaults()
		c.Kind, c.Targets = trunk.Carrier, []string{address}
		if change != nil {
			change(&c)
		}
		return c
	}
	var group trunk.GroupConfig
	group.SetDefaults()
	group.Name, group.Trunks = "carriers", []string{"a", "b"}
	trunks, err := trunk.New(trunk.Configs{
		Trunks: []trunk.Config{
			one("pbx", "192.0.2.1", func(c *trunk.Config) { c.CountryCode, c.DemandE164 = "49", true }),
			one("a", "192.0.2.2", func(c *trunk.Config) { c.State = trunk.OutOfService }),
			one("b", "192.0.2.3", nil),
		},
		Groups: []trunk.GroupConfig{group}, Emergency: []string{"112"},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	routes, err := route.New([]route.Config{
		{Name: "help", Called: route.Numbers{Regexp: "^11[02]$"}, Trunk: "b"},
		{Name: "abroad", From: []string{"a", "b"}, Trunk: "pbx"},
		{Name: "marked", Header: route.Header{Name: "X-A", Regexp: "1, 2"}, Trunk: "b"},
		{Name: "night", Prefix: "+43", Time: route.Time{Hours: "20:00-06:00"}, Trunk: "b"},
		{Name: "germany", Prefix: "+49", Group: "carriers", Translate: route.Translate{Called: []route.Rule{{Strip: 3, Add: "0"}, {Strip: 64 - 32}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return trunks, routes
}

// T12: the decision step by step, each with its reason, and nobody's turn is taken.
func TestCall(t *testing.T) {
	trunks, routes := tables(t)
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	const plan = `(country code 49, national prefix "0", international prefix "00")`
	got := Call(trunks, routes, call.Query{Trunk: "pbx", From: "089-1234567", To: "030123456", At: noon})
	want := []call.Step{
		{Subject: "called number", Result: "normalised", Reason: `"030123456" becomes "+4930123456" ` + plan},
		{Subject: "calling number", Result: "normalised", Reason: `"089-1234567" becomes "+49891234567" ` + plan},
		{Subject: "E.164", Result: "demanded", Reason: "the Request-URI has a number of E.164"},
		{Subject: "route help", Result: "passed over", Reason: `called number "+4930123456" does not match "^11[02]$"`},
		{Subject: "route abroad", Result: "passed over", Reason: "the call comes from pbx, not from a or b"},
		{Subject: "route marked", Result: "passed over", Reason: "there is no header X-A"},
		{Subject: "route night", Result: "passed over", Reason: `called number "+4930123456" does not start with "+43"`},
		{Subject: "route germany", Result: "taken", Reason: `called number "+4930123456" starts with "+49"`},
		{Subject: "called number", Result: "translated", Reason: `"+4930123456" becomes "030123456": 3 off the start and "0" in front`},
		{Subject: "called number", Result: "left out", Reason: `"030123456" stays: 32 off the start changes nothing, or would leave nothing or more than 64 characters`},
	}
	if diff := cmp.Diff(want, got.Steps); diff != "" {
		t.Errorf("steps: -want +got\n%s", diff)
	}
	if got.Outcome != call.Routed || got.Group != "carriers" || got.Called != "030123456" || got.Caller != "+49891234567" {
		t.Errorf("%+v", got)
	}
	if len(got.Candidates) != 2 || got.Candidates[0].Trunk != "b" || !got.Candidates[0].Offered || got.Candidates[1].Offered || got.Candidates[1].Reason == "" {
		t.Errorf("candidates: %+v", got.Candidates)
	}
	if again := Call(trunks, routes, call.Query{Trunk: "pbx", From: "089-1234567", To: "030123456", At: noon}); !cmp.Equal(got.Candidates, again.Candidates) {
		t.Errorf("to ask took a turn: %+v", again.Candidates)
	}
}

// T12, S20: other ends of a call, in words.
func TestOutcomes(t *testing.T) {
	trunks, routes := tables(t)
	evening := time.Date(2026, 3, 1, 20, 0, 0, 0, time.UTC)
	for _, row := range []struct {
		name    string
		query   call.Query
		outcome string
		route   string
		says    string
	}{
		{"not E.164", call.Query{Trunk: "pbx", To: "12345"}, call.IncompleteNumber, "", `"12345" does not begin with +. The answer is 484.`},
		{"E.164 in To alone", call.Query{Trunk: "pbx", To: "account", ToHeader: "+4930123456"}, call.Routed, "germany", `the Request-URI has none, so that To's counts: "+4930123456"`},
		{"emergency", call.Query{Trunk: "pbx", To: "112"}, call.Routed, "help", "no demand for E.164 holds the call up"},
		{"no route", call.Query{Trunk: "pbx", To: "+1202555", At: evening}, call.NoRoute, "", "none of 5 takes the call. The answer is 503."},
		{"unknown trunk", call.Query{Trunk: "bpx", To: "112"}, call.UnknownTrunk, "", `there is no trunk "bpx"`},
		{"headers of one name", call.Query{Trunk: "pbx", To: "+1202555", Headers: []call.Header{{Name: "x-a", Value: "1"}, {Name: "X-A", Value: "2"}}}, call.Routed, "marked", `header X-A is "1, 2"`},
		{"another value", call.Query{Trunk: "pbx", To: "+1202555", Headers: []call.Header{{Name: "x-a", Value: "3"}}}, call.NoRoute, "", `header X-A is "3" and does not match "1, 2"`},
		{"in the evening", call.Query{Trunk: "pbx", To: "0043123456", At: evening}, call.Routed, "night", "Sun 20:00 UTC is within 20:00-06:00"},
		{"before", call.Query{Trunk: "pbx", To: "0043123456", At: evening.Add(-time.Second)}, call.NoRoute, "", "Sun 19:59 UTC is outside 20:00-06:00"},
		{"any call", call.Query{Trunk: "a", To: "x"}, call.Routed, "abroad", "the call comes from a"},
	} {
		d := Call(trunks, routes, row.query)
		says := func(s call.Step) bool { return strings.Contains(s.Reason, row.says) }
		if d.Outcome != row.outcome || d.Route != row.route || !slices.ContainsFunc(d.Steps, says) || (len(d.Candidates) > 0) != (row.outcome == call.Routed) {
			t.Errorf("%s: %+v", row.name, d)
		}
	}
}
