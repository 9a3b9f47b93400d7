package route

import (
	"slices"
	"time"

	"github.com/tandem-sbc/tandem/pkg/invalid"
)

// entry is a route, ready.
type entry struct {
	// at is its place in the config.
	at      int
	name    string
	from    []string
	called  numbers
	caller  numbers
	header  string
	value   expression
	hours   *hours
	standby bool

	calledRules, callerRules []rule
	group, trunk             string
}

// compile reads a route. Its findings are those of Validate but for names and what other
// routes and trunks say.
func compile(c Config) (entry, invalid.List) {
	var l invalid.List
	c.validateWay(&l)
	if c.Prefix != "" && c.Called.Prefix != "" {
		l.Add("called.prefix", "keep one of them, they mean the same", "stands beside prefix %q", c.Prefix)
	}
	e := entry{
		name: c.Name, from: slices.Clone(c.From), group: c.Group, trunk: c.Trunk, standby: c.Default,
		called: c.Called.compile(&l, "called"), caller: c.Caller.compile(&l, "caller"),
		header: c.Header.Name, value: c.Header.compile(&l), hours: c.Time.compile(&l),
		calledRules: compileRules(&l, "translate.called", c.Translate.Called),
		callerRules: compileRules(&l, "translate.caller", c.Translate.Caller),
	}
	validatePrefix(&l, "prefix", c.Prefix)
	switch {
	case c.Prefix == "" || c.Called.Prefix != "":
	case c.Called.Range != "":
		l.Add("prefix", "leave it out", "stands beside called.range, which says more")
	default:
		e.called.prefix = c.Prefix
	}
	return e, l
}

// attempt is a call on its way through the routes.
type attempt struct {
	Request
	// called and caller are normalised.
	called, caller string
}

// when is the time of the call, asked for by the few routes that go by it.
func (a *attempt) when() time.Time {
	if a.At.IsZero() {
		a.At = time.Now()
	}
	return a.At
}

// value of a header, empty if the call has none of that name.
func (a *attempt) value(header string) string {
	if a.Headers == nil {
		return ""
	}
	return a.Headers(header)
}

func (e *entry) matches(a *attempt) bool {
	return e.comesFrom(a.Trunk) && e.called.matches(a.called) && e.caller.matches(a.caller) &&
		e.hasHeader(a) && (e.hours == nil || e.hours.contains(a.when()))
}

func (e *entry) comesFrom(trunk string) bool {
	return len(e.from) == 0 || slices.Contains(e.from, trunk)
}

func (e *entry) hasHeader(a *attempt) bool {
	if e.header == "" {
		return true
	}
	value := a.value(e.header)
	return value != "" && e.value.matches(value)
}

// match is what becomes of a call that the route takes.
func (e *entry) match(a *attempt) Match {
	called := translate(e.calledRules, a.called)
	to := a.Plan.Normalise(a.To)
	if to == a.called {
		to = called // one number in two places stays one
	}
	return Match{
		Route: e.name, Group: e.group, Trunk: e.trunk,
		Called: called, Caller: translate(e.callerRules, a.caller), To: to, plan: a.Plan, rules: e.callerRules,
	}
}
