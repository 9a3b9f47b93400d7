package route

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tandem-sbc/tandem/pkg/invalid"
)

// validateReach finds routes that an earlier one leaves nothing to: as far as one route
// alone does, and as far as regular expressions and headers are equal to the letter.
func validateReach(l *invalid.List, routes []Config) {
	entries := make([]entry, 0, len(routes))
	for i, c := range routes {
		e, findings := compile(c)
		if len(findings) > 0 {
			continue // what is wrong may be what it takes
		}
		e.at = i
		entries = append(entries, e)
	}
	t := newTable(entries)
	for i := range t.entries {
		e := &t.entries[i]
		by := t.covering(i)
		if by == nil {
			continue
		}
		remedy := fmt.Sprintf("move it before routes[%d], or remove it", by.at)
		if e.standby && !by.standby {
			remedy = "remove it: default routes come after all others"
		}
		l.Add(fmt.Sprintf("[%d]", e.at), remedy, "is never reached: route %q takes all its calls", by.name)
	}
}

// covering is the first entry before the i-th that takes all its calls, or nil.
func (t *Table) covering(i int) *entry {
	e, best := &t.entries[i], i
	for _, length := range t.lengths {
		if length > len(e.called.prefix) {
			break
		}
		for _, j := range t.byPrefix[e.called.prefix[:length]] {
			if j >= best {
				break
			}
			if t.entries[j].covers(e) {
				best = j
				break
			}
		}
	}
	if best == i {
		return nil
	}
	return &t.entries[best]
}

// covers reports whether every call that matches o matches e, as far as can be told.
func (e *entry) covers(o *entry) bool {
	return o.called.within(&e.called) && o.caller.within(&e.caller) && e.coversFrom(o) &&
		(e.header == "" || sameHeader(e.header, o.header) && o.value.within(e.value)) && o.hours.within(e.hours)
}

func (e *entry) coversFrom(o *entry) bool {
	if len(e.from) == 0 {
		return true
	}
	return len(o.from) > 0 && !slices.ContainsFunc(o.from, func(from string) bool { return !slices.Contains(e.from, from) })
}

func sameHeader(a, b string) bool { return strings.EqualFold(a, b) }
