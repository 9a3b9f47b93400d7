package route

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tandem-sbc/tandem/pkg/number"
)

var germany = number.Plan{CountryCode: "49", NationalPrefix: "0", InternationalPrefix: "00"}

func newTestTable(t testing.TB, routes ...Config) *Table {
	t.Helper()
	table, err := New(routes)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// T12: the first route that matches wins, by ingress trunk and number prefix.
func TestRoute(t *testing.T) {
	table := newTestTable(t,
		Config{Name: "freephone", From: []string{"platform"}, Prefix: "+49800", Trunk: "carrier-b"},
		Config{Name: "germany", From: []string{"platform", "pbx"}, Prefix: "+49", Group: "carriers"},
		Config{Name: "inbound", From: []string{"carrier-a"}, Trunk: "platform"},
		Config{Name: "rest", Prefix: "+", Group: "world"},
	)
	for _, row := range []struct {
		from, number string
		want         Match
	}{
		{"platform", "+49800123", Match{Route: "freephone", Trunk: "carrier-b", Called: "+49800123"}},
		{"platform", "+49801123", Match{Route: "germany", Group: "carriers", Called: "+49801123"}},
		{"pbx", "+49800123", Match{Route: "germany", Group: "carriers", Called: "+49800123"}},
		{"carrier-a", "+49800123", Match{Route: "inbound", Trunk: "platform", Called: "+49800123"}},
		{"carrier-a", "", Match{Route: "inbound", Trunk: "platform"}},
		{"carrier-b", "+1555", Match{Route: "rest", Group: "world", Called: "+1555"}},
		{"carrier-b", "555", Match{}},
		{"platform", "49800", Match{}},
	} {
		got, ok := table.Route(Request{Trunk: row.from, Called: row.number})
		if diff := cmp.Diff(row.want, got, cmpopts.IgnoreUnexported(Match{})); diff != "" || ok != (row.want.Route != "") {
			t.Errorf("from %s to %q: -want +got\n%s", row.from, row.number, diff)
		}
	}
}

// T12: by blocks and patterns of either number, by a header and by the time of day.
func TestConditions(t *testing.T) {
	table := newTestTable(t,
		Config{Name: "diverted", Header: Header{Name: "Diversion", Regexp: `reason="?user-busy`}, Trunk: "mailbox"},
		Config{Name: "marked", Header: Header{Name: "X-Campaign"}, Trunk: "dialler"},
		Config{Name: "block", Called: Numbers{Range: "+49301230000-+49301239999"}, Trunk: "desks"},
		Config{Name: "pattern", Called: Numbers{Regexp: `^\+49(800|137)\d+$`}, Trunk: "services"},
		Config{Name: "vip", Prefix: "+49", Caller: Numbers{Prefix: "+4989"}, Trunk: "vip"},
		Config{Name: "withheld", Prefix: "+49", Caller: Numbers{Regexp: "^$"}, Trunk: "screening"},
		Config{Name: "fallback", Default: true, Trunk: "rest"},
		Config{Name: "night", Prefix: "+49", Time: Time{Days: []string{"fri-sun"}, Hours: "22:00-06:00", Zone: "Europe/Berlin"}, Trunk: "night"},
		Config{Name: "noon", Prefix: "+49", Time: Time{Hours: "12:00-12:30"}, Trunk: "noon"},
	)
	header := func(name, value string) func(string) string {
		return func(asked string) string {
			if asked == name {
				return value
			}
			return ""
		}
	}
	// A Sunday in winter, 04:59 and 05:00 UTC; the night began on Saturday in Berlin.
	late, early := time.Date(2026, 1, 11, 4, 59, 59, 0, time.UTC), time.Date(2026, 1, 11, 5, 0, 0, 0, time.UTC)
	for _, row := range []struct {
		name, want string
		request    Request
	}{
		{"header matches", "diverted", Request{Called: "+4930", Headers: header("Diversion", `<sip:+49301@x>;reason=user-busy`)}},
		{"header does not", "fallback", Request{Called: "+1", Headers: header("Diversion", `<sip:+49301@x>;reason=unconditional`)}},
		{"header is there", "marked", Request{Called: "+4930", Headers: header("X-Campaign", "7")}},
		{"a header of any length is bounded", "fallback", Request{Called: "+1", Headers: header("Diversion", strings.Repeat(" ", maxText)+"reason=user-busy")}},
		{"first of a block", "block", Request{Called: "+49301230000"}},
		{"last of a block", "block", Request{Called: "+49301239999"}},
		{"below a block", "fallback", Request{Called: "+49301229999", Caller: "+1", At: early}},
		{"longer than a block's numbers", "fallback", Request{Called: "+493012300001", Caller: "+1", At: early}},
		{"shorter than a block's numbers", "fallback", Request{Called: "+4930123000", Caller: "+1", At: early}},
		{"no number in a block", "fallback", Request{Called: "+4930123000a", Caller: "+1", At: early}},
		{"pattern", "pattern", Request{Called: "+498001234"}},
		{"pattern has ends", "fallback", Request{Called: "+49800a", Caller: "+1", At: early}},
		{"caller", "vip", Request{Called: "+4930", Caller: "+4989123"}},
		{"caller is withheld", "withheld", Request{Called: "+4930"}},
		{"in the night that began on Saturday", "night", Request{Called: "+4930", Caller: "+1", At: late}},
		{"after that night", "fallback", Request{Called: "+4930", Caller: "+1", At: early}},
		{"Monday before six", "night", Request{Called: "+4930", Caller: "+1", At: late.AddDate(0, 0, 1)}},
		{"Tuesday before six", "fallback", Request{Called: "+4930", Caller: "+1", At: late.AddDate(0, 0, 2)}},
		{"summer has another clock", "fallback", Request{Called: "+4930", Caller: "+1", At: time.Date(2026, 7, 12, 4, 30, 0, 0, time.UTC)}},
		{"UTC where no zone is given", "noon", Request{Called: "+4930", Caller: "+1", At: time.Date(2026, 7, 12, 12, 29, 59, 0, time.UTC)}},
		{"the end is not in it", "fallback", Request{Called: "+4930", Caller: "+1", At: time.Date(2026, 7, 12, 12, 30, 0, 0, time.UTC)}},
	} {
		if m, ok := table.Route(row.request); m.Route != row.want || !ok {
			t.Errorf("%s: route %q, want %q", row.name, m.Route, row.want)
		}
	}
	if diff := cmp.Diff([]string{"diversion", "x-campaign"}, table.Headers()); diff != "" {
		t.Errorf("headers that have to be kept: -want +got\n%s", diff)
	}
}

// T12: numbers are normalised by the ingress trunk's plan before routes see them, and
// translated by the route on the way out.
func TestTranslation(t *testing.T) {
	table := newTestTable(t,
		Config{Name: "national", Prefix: "+49", Trunk: "a", Translate: Translate{
			Called: []Rule{{Strip: 3, Add: "0"}},
			Caller: []Rule{{Regexp: `^\+49(\d+)$`, Replace: "0$1"}, {Regexp: `^\+`, Replace: "00"}},
		}},
		Config{Name: "greedy", Prefix: "+1", Trunk: "a", Translate: Translate{Called: []Rule{{Strip: 32}, {Regexp: "[0-9]+", Replace: ""}, {Regexp: "", Add: "9"}}}},
		Config{Name: "long", Prefix: "+33", Trunk: "a", Translate: Translate{Called: []Rule{{Regexp: "3", Replace: strings.Repeat("7", 40)}}}},
		Config{Name: "swap", Prefix: "+44", Trunk: "a", Translate: Translate{Called: []Rule{{Regexp: `^(?P<country>\+44)(\d\d)`, Replace: "${2}${country}"}}}},
	)
	for _, row := range []struct {
		name            string
		request         Request
		called, caller  string
		to, alsoCalling string
	}{
		{"national both", Request{Plan: germany, Called: "030123456", Caller: "0891234567", To: "+49-30-123456"}, "030123456", "0891234567", "030123456", "0891234567"},
		{"international caller", Request{Plan: germany, Called: "+4930123456", Caller: "004312345678"}, "030123456", "004312345678", "", "004312345678"},
		{"diverted: To is another number", Request{Plan: germany, Called: "030123456", To: "030987654"}, "030123456", "", "+4930987654", ""},
		{"no plan", Request{Called: "+4930123456", Caller: "0891234567"}, "030123456", "0891234567", "", "0891234567"},
		{"withheld", Request{Plan: germany, Called: "+4930123456", Caller: ""}, "030123456", "", "", ""},
		{"a name", Request{Plan: germany, Called: "+4930123456", Caller: "alice"}, "030123456", "alice", "", "alice"},
		{"a step that leaves nothing is left out", Request{Called: "+15551234"}, "9+", "", "", ""},
		{"a step that makes too much is left out", Request{Called: "+3312345"}, "+3312345", "", "", ""},
		{"groups", Request{Called: "+44207123"}, "20+447123", "", "", ""},
	} {
		m, ok := table.Route(row.request)
		if !ok || m.Called != row.called || m.Caller != row.caller || m.To != row.to {
			t.Errorf("%s: %+v, want called %q, caller %q, To %q", row.name, m, row.called, row.caller, row.to)
		}
		if got := m.TranslateCaller(row.request.Caller); got != row.alsoCalling {
			t.Errorf("%s: the other identity becomes %q, want %q", row.name, got, row.alsoCalling)
		}
	}
}

// T12, S20: a trunk that has to give E.164 in Request-URI or To is told 484 when it does
// not; where To alone has it, that is the number.
func TestDemandE164(t *testing.T) {
	table := newTestTable(t, Config{Name: "all", Trunk: "a"})
	for _, row := range []struct {
		name       string
		request    Request
		called     string
		incomplete bool
	}{
		{"Request-URI", Request{DemandE164: true, Called: "+4930123456", To: "x"}, "+4930123456", false},
		{"To", Request{DemandE164: true, Called: "account", To: "+49-30-123456"}, "+4930123456", false},
		{"both: the Request-URI counts", Request{DemandE164: true, Called: "+4930123456", To: "+4930999999"}, "+4930123456", false},
		{"by its plan", Request{DemandE164: true, Plan: germany, Called: "030123456"}, "+4930123456", false},
		{"neither", Request{DemandE164: true, Called: "030123456", To: "030123456"}, "030123456", true},
		{"not demanded", Request{Called: "030123456", To: "+4930123456"}, "030123456", false},
		{"emergency: the caller of this asks first", Request{DemandE164: true, Plan: germany, Called: "112"}, "112", true},
	} {
		if got := row.request.Number(); got != row.called {
			t.Errorf("%s: number %q, want %q", row.name, got, row.called)
		}
		if err := row.request.Incomplete(); (err != nil) != row.incomplete {
			t.Errorf("%s: %v", row.name, err)
		}
		if m, ok := table.Route(row.request); !ok || m.Called != row.called {
			t.Errorf("%s: %+v", row.name, m)
		}
	}
}

// The table is its own: what the caller does to its configs later changes nothing.
func TestTableIsImmutable(t *testing.T) {
	configs := []Config{{Name: "r", From: []string{"a"}, Trunk: "b"}}
	table := newTestTable(t, configs...)
	configs[0].Trunk, configs[0].From[0] = "x", "x"
	if m, ok := table.Route(Request{Trunk: "a", Called: "1"}); !ok || m.Trunk != "b" {
		t.Errorf("got %+v %t", m, ok)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, row := range []struct {
		config Config
		want   string
	}{
		{Config{Name: "r"}, `route "r": it needs a group or a trunk, and not both`},
		{Config{Name: "r", Group: "g", Trunk: "t"}, `route "r": it needs a group or a trunk, and not both`},
		{Config{Name: "r", Trunk: "t", Called: Numbers{Regexp: "("}}, `route "r": called.regexp: is no regular expression: missing closing ): "("; write it in the syntax of RE2, https://github.com/google/re2/wiki/Syntax`},
	} {
		if _, err := New([]Config{row.config}); err == nil || err.Error() != row.want {
			t.Errorf("%+v: %v", row.config, err)
		}
	}
	if _, err := New(make([]Config, MaxRoutes+1)); err == nil {
		t.Error("a table has no bound")
	}
}

// A number that is as it should be costs no memory.
func TestRouteAllocatesNothing(t *testing.T) {
	table := prefixTable(t, 1000)
	r := Request{Trunk: "platform", Plan: germany, Called: "+4930123456", Caller: "+49891234567", To: "+4930123456"}
	if n := testing.AllocsPerRun(100, func() { table.Route(r) }); n != 0 {
		t.Errorf("%.0f allocations", n)
	}
}

func prefixTable(t testing.TB, n int) *Table {
	routes := make([]Config, n)
	for i := range routes {
		routes[i] = Config{Name: fmt.Sprintf("r%d", i), Prefix: "+" + fmt.Sprint(1+i%7) + strings.Repeat("0", i%4) + fmt.Sprint(i), Trunk: "a"}
	}
	routes[n-1] = Config{Name: "rest", Trunk: "b"}
	return newTestTable(t, routes...)
}

// A call waits for its route: under 1 us with 100 routes by prefix, under 5 us with 10,000
// (T12). The one that matches is the last.
func BenchmarkRoute(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			table := prefixTable(b, n)
			r := Request{Trunk: "platform", Plan: germany, Called: "+4930123456", Caller: "0891234567", To: "+4930123456"}
			b.ReportAllocs()
			for b.Loop() {
				if m, ok := table.Route(r); !ok || m.Trunk != "b" {
					b.Fatal("another route")
				}
			}
		})
	}
}
