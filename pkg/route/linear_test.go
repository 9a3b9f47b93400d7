package route

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// linear is what a dial plan means, in the words of docs/config.md: one route after the
// other, those that are no defaults first.
func linear(routes []Config, r Request, called string) string {
	for _, standby := range []bool{false, true} {
		for _, c := range routes {
			if c.Default == standby && takes(c, r, called) {
				return c.Name
			}
		}
	}
	return ""
}

func takes(c Config, r Request, called string) bool {
	inBlock := func(n Numbers, s string) bool {
		first, last, ok := strings.Cut(n.Range, "-")
		return !ok || len(s) == len(first) && s >= first && s <= last
	}
	fits := func(n Numbers, s string) bool {
		return strings.HasPrefix(s, n.Prefix) && inBlock(n, s) && regexp.MustCompile(n.Regexp).MatchString(s)
	}
	hasHeader := func() bool {
		return c.Header.Name == "" || r.Headers("X") != "" && regexp.MustCompile(c.Header.Regexp).MatchString(r.Headers("X"))
	}
	atNight := func() bool { return c.Time.Hours == "" || r.At.Hour() >= 22 || r.At.Hour() < 6 }
	return (len(c.From) == 0 || slices.Contains(c.From, r.Trunk)) && strings.HasPrefix(called, c.Prefix) &&
		fits(c.Called, called) && fits(c.Caller, r.Caller) && hasHeader() && atNight()
}

// Few digits, so that routes meet often.
func digits(low, high int) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		return rapid.SampledFrom([]string{"", "+"}).Draw(t, "plus") + strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"1", "2"}), low, high).Draw(t, "digits"), "")
	})
}

func numbersOf(t *rapid.T, prefixToo bool) (n Numbers) {
	switch rapid.IntRange(0, 5).Draw(t, "numbers") {
	case 0:
		if prefixToo {
			n.Prefix = digits(0, 4).Draw(t, "prefix")
		}
	case 1:
		size := rapid.IntRange(1, 4).Draw(t, "size")
		ends := []string{digits(size, size).Draw(t, "first"), digits(size, size).Draw(t, "last")}
		plus := rapid.SampledFrom([]string{"", "+"}).Draw(t, "plus")
		for i := range ends {
			ends[i] = plus + strings.TrimPrefix(ends[i], "+")
		}
		slices.Sort(ends)
		n.Range = ends[0] + "-" + ends[1]
	case 2:
		n.Regexp = rapid.SampledFrom([]string{"^1", "2$", `^\+?1+2`, "^$", "12"}).Draw(t, "regexp")
	}
	return n
}

func routesOf(t *rapid.T) []Config {
	routes := make([]Config, rapid.IntRange(1, 12).Draw(t, "routes"))
	for i := range routes {
		c := Config{Name: "r" + string(rune('a'+i)), Trunk: "t"}
		c.From = rapid.SampledFrom([][]string{nil, nil, {"a"}, {"b"}, {"a", "b"}}).Draw(t, "from")
		if c.Default = rapid.IntRange(0, 5).Draw(t, "default") == 0; !c.Default {
			c.Called = numbersOf(t, true)
			if c.Called == (Numbers{}) {
				c.Prefix = digits(0, 3).Draw(t, "prefix")
			}
			c.Caller = numbersOf(t, true)
			c.Header = rapid.SampledFrom([]Header{{}, {}, {}, {Name: "X"}, {Name: "X", Regexp: "1"}}).Draw(t, "header")
			c.Time = rapid.SampledFrom([]Time{{}, {}, {}, {Hours: "22:00-06:00"}}).Draw(t, "time")
		}
		routes[i] = c
	}
	return routes
}

func requestOf(t *rapid.T) Request {
	header := rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, "header")
	return Request{
		Trunk: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "trunk"), Called: digits(0, 6).Draw(t, "called"), Caller: digits(0, 4).Draw(t, "caller"),
		Headers: func(string) string { return header }, At: time.Date(2026, 1, 1, rapid.IntRange(0, 23).Draw(t, "hour"), 30, 0, 0, time.UTC),
	}
}

// T12: the index is no more than a shorter way to the first route that matches, Explain
// tells what Route does, and a route that is said to be out of reach takes no call.
func TestIndexIsLinear(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		routes := routesOf(t)
		table, err := New(routes)
		if err != nil {
			t.Fatal(err)
		}
		dead := make(map[string]bool)
		for i, c := range routes {
			for _, f := range ValidateAll(routes, []string{"a", "b", "t"}, nil) {
				if f.Key == fmt.Sprintf("[%d]", i) && strings.HasPrefix(f.Problem, "is never reached") {
					dead[c.Name] = true
				}
			}
		}
		for range 20 {
			r := requestOf(t)
			m, ok := table.Route(r)
			if want := linear(routes, r, r.Number()); m.Route != want || ok != (want != "") {
				t.Fatalf("%+v\ntook %q (%t), want %q", r, m.Route, ok, want)
			}
			if dead[m.Route] {
				t.Fatalf("%q is never reached, and took %+v", m.Route, r)
			}
			d := table.Explain(r)
			if d.Route != m.Route || (d.Outcome == call.Routed) != ok || d.Called != m.Called && ok || len(d.Steps) < 3 {
				t.Fatalf("%+v\nis explained as %+v, but goes %+v", r, d, m)
			}
		}
	})
}
