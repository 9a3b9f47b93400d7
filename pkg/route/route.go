// Package route is the dial plan: which group or trunk takes a call, by where it
// comes from and the number it goes to (T12).
package route

import (
	"fmt"
	"slices"
	"strings"
)

// Match is where a call goes.
type Match struct {
	// Route is the name of the route that matched.
	Route string
	// Group or Trunk is set, the other is empty.
	Group, Trunk string
}

// Table is a dial plan. It does not change and is safe for use by several goroutines.
type Table struct {
	routes []Config
}

// New builds the table. Whoever reads configs from people calls Validate first: New
// reports only the first route that leads nowhere.
func New(routes []Config) (*Table, error) {
	t := &Table{routes: slices.Clone(routes)}
	for i, c := range t.routes {
		if (c.Group == "") == (c.Trunk == "") {
			return nil, fmt.Errorf("route %q: it needs a group or a trunk, and not both", c.Name)
		}
		t.routes[i].From = slices.Clone(c.From)
	}
	return t, nil
}

// Route finds the first route for a call from a trunk to a number. The number is the
// user part of the Request-URI, as it came. ok is false if no route matches.
func (t *Table) Route(fromTrunk, number string) (m Match, ok bool) {
	for i := range t.routes {
		if c := &t.routes[i]; c.matches(fromTrunk, number) {
			return Match{Route: c.Name, Group: c.Group, Trunk: c.Trunk}, true
		}
	}
	return Match{}, false
}

func (c *Config) matches(fromTrunk, number string) bool {
	return (len(c.From) == 0 || slices.Contains(c.From, fromTrunk)) && strings.HasPrefix(number, c.Prefix)
}
