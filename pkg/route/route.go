// Package route is the dial plan: which group or trunk takes a call, by where it comes
// from, its numbers, a header and the time, and what becomes of its numbers (T12).
package route

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tandem-sbc/tandem/pkg/number"
)

// Request is what is known of a call that looks for its way.
type Request struct {
	// Trunk is where the call comes from, and Plan how that trunk dials.
	Trunk string
	Plan  number.Plan
	// DemandE164 lets a call in only if Called or To is a number of E.164.
	DemandE164 bool
	// Called, Caller and To are the user parts of the Request-URI, of P-Asserted-Identity or
	// else From, and of To, as they came but without escapes. Caller is empty if it is withheld.
	Called, Caller, To string
	// Headers gives the value of a header, or empty if the call has none; several of one name
	// are one with commas between. Nil is no header.
	Headers func(name string) string
	// At is the time; zero is now.
	At time.Time
}

// Number is the called number as routes see it: normalised, and that of To if the trunk
// has to give one of E.164 and does so only there.
func (r Request) Number() string {
	called := r.Plan.Normalise(r.Called)
	if r.DemandE164 && !number.IsE164(called) {
		if to := r.Plan.Normalise(r.To); number.IsE164(to) {
			return to
		}
	}
	return called
}

// Urgent looks whether the call is for help: the number in the Request-URI or, if that is none of
// E.164 although it has to be, the one in To is among the emergency numbers. Whoever calls for
// help is not asked to dial another way (T3).
func (r Request) Urgent(isEmergency func(number string) bool) (Request, bool) {
	if called := r.Plan.Normalise(r.Called); isEmergency(called) {
		r.DemandE164 = false // or To would win
		return r, true
	}
	return r, isEmergency(r.Number())
}

// Incomplete is not nil if the trunk has to give a number of E.164 and does not: the call
// is answered with 484, and the error says why (T12, S20).
func (r Request) Incomplete() error {
	if !r.DemandE164 {
		return nil
	}
	return number.Require(r.Plan.Normalise(r.Called), r.Plan.Normalise(r.To))
}

// Match is where a call goes.
type Match struct {
	// Route is the name of the route that matched.
	Route string
	// Group or Trunk is set, the other is empty.
	Group, Trunk string
	// Called, Caller and To are the numbers as they go out.
	Called, Caller, To string

	plan  number.Plan
	rules []rule
}

// TranslateCaller does to another identity of the caller what was done to Caller.
func (m Match) TranslateCaller(user string) string { return translate(m.rules, m.plan.Normalise(user)) }

// Table is a dial plan. It does not change and is safe for use by several goroutines.
type Table struct {
	// entries are in the order in which they are tried: default ones come last.
	entries []entry
	// byPrefix has the places in entries, ascending, of those that want the same start of the
	// called number; lengths has the lengths of its keys, ascending.
	byPrefix map[string][]int
	lengths  []int
}

// New builds the table. Whoever reads configs from people calls Validate first: New
// reports only the first route that makes no sense.
func New(routes []Config) (*Table, error) {
	if len(routes) > MaxRoutes {
		return nil, fmt.Errorf("%d routes are too many: at most %d are possible", len(routes), MaxRoutes)
	}
	entries := make([]entry, len(routes))
	for i, c := range routes {
		if (c.Group == "") == (c.Trunk == "") {
			return nil, fmt.Errorf("route %q: it needs a group or a trunk, and not both", c.Name)
		}
		e, findings := compile(c)
		if err := findings.Err(); err != nil {
			return nil, fmt.Errorf("route %q: %w", c.Name, err)
		}
		e.at = i
		entries[i] = e
	}
	return newTable(entries), nil
}

func newTable(entries []entry) *Table {
	slices.SortStableFunc(entries, func(a, b entry) int { return rank(a) - rank(b) })
	t := &Table{entries: entries, byPrefix: make(map[string][]int, len(entries))}
	for i := range entries {
		prefix := entries[i].called.prefix
		t.byPrefix[prefix] = append(t.byPrefix[prefix], i)
	}
	lengths := make(map[int]bool)
	for prefix := range t.byPrefix {
		lengths[len(prefix)] = true
	}
	t.lengths = slices.Sorted(maps.Keys(lengths))
	return t
}

func rank(e entry) int {
	if e.standby {
		return 1
	}
	return 0
}

// Route finds the first route for a call. ok is false if none matches.
func (t *Table) Route(r Request) (m Match, ok bool) {
	a := r.attempt()
	i := t.first(&a)
	if i < 0 {
		return Match{}, false
	}
	return t.entries[i].match(&a), true
}

func (r Request) attempt() attempt {
	return attempt{Request: r, called: r.Number(), caller: r.Plan.Normalise(r.Caller)}
}

// first is the place of the first entry that matches, or -1: of each start that the number
// has, the first one, and the foremost of those.
func (t *Table) first(a *attempt) int {
	best := len(t.entries)
	for _, length := range t.lengths {
		if length > len(a.called) {
			break
		}
		for _, i := range t.byPrefix[a.called[:length]] {
			if i >= best {
				break
			}
			if t.entries[i].matches(a) {
				best = i
				break
			}
		}
	}
	if best == len(t.entries) {
		return -1
	}
	return best
}

// Headers lists the names of the headers that routes look at, in lower case and in order.
func (t *Table) Headers() []string {
	names := make(map[string]bool)
	for i := range t.entries {
		if name := t.entries[i].header; name != "" {
			names[strings.ToLower(name)] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}
