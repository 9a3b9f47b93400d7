package trunk

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/tandem-sbc/tandem/pkg/invalid"
)

// ValidateAll checks each trunk and all of them together; keys start with an
// index: "[1].targets[0]".
func ValidateAll(trunks []Config) invalid.List {
	var l invalid.List
	for i, c := range trunks {
		l.Under(fmt.Sprintf("[%d]", i), c.Validate())
	}
	type peer struct {
		realm string
		addr  netip.Addr
	}
	owner := make(map[peer]string)
	names := make(map[string]bool)
	for i, c := range trunks {
		if c.Name != "" && names[c.Name] {
			l.Add(fmt.Sprintf("[%d].name", i), "give each trunk a name of its own", "%q is another trunk's already", c.Name)
			continue
		}
		names[c.Name] = true
		for j, text := range c.Targets {
			target, err := ParseTarget(text)
			if err != nil {
				continue // said by Validate
			}
			p := peer{c.Realm, target.Addr()}
			if other, taken := owner[p]; taken && other != c.Name {
				l.Add(fmt.Sprintf("[%d].targets[%d]", i, j), "put both in one trunk, or give each peer an address of its own",
					"%s is trunk %q's in realm %q already, and a call from it could be either's", p.addr, other, p.realm)
				continue
			}
			owner[p] = c.Name
		}
	}
	return l
}

// ValidateGroups checks the groups against the trunks they name; keys start with
// an index: "[0].trunks[1]".
func ValidateGroups(groups []GroupConfig, trunks []Config) invalid.List {
	var l invalid.List
	kinds := make(map[string]string, len(trunks))
	names := make([]string, 0, len(trunks))
	for _, t := range trunks {
		kinds[t.Name] = t.Kind
		if t.Kind != Platform && t.Kind != Carrier {
			kinds[t.Name] = "" // said by the trunk itself
		}
		names = append(names, t.Name)
	}
	for i, g := range groups {
		under := fmt.Sprintf("[%d]", i)
		if g.Name != "" && slices.ContainsFunc(groups[:i], func(o GroupConfig) bool { return o.Name == g.Name }) {
			l.Add(under+".name", "give each group a name of its own", "%q is another group's already", g.Name)
		}
		l.Under(under, g.validate(kinds, names))
	}
	return l
}

// validate checks one group; kinds are those of the trunks by name.
func (c GroupConfig) validate(kinds map[string]string, names []string) invalid.List {
	var l invalid.List
	l.Name("name", c.Name)
	l.OneOf("strategy", c.Strategy, RoundRobin, Priority)
	if len(c.Trunks) == 0 {
		l.Add("trunks", "name at least one trunk", "is missing")
	}
	for i, name := range c.Trunks {
		key := fmt.Sprintf("trunks[%d]", i)
		kind, known := kinds[name]
		first := kinds[c.Trunks[0]]
		switch {
		case !known:
			l.Add(key, invalid.Suggest(name, names, "name one of the trunks"), "there is no trunk %q", name)
		case slices.Contains(c.Trunks[:i], name):
			l.Add(key, "leave it out", "%q is listed twice", name)
		case first != "" && kind != "" && kind != first:
			// A call that fails over from a carrier to a platform would come back
			// to where it started.
			l.Add(key, "make a group for each kind", "trunk %q is a %s, but %q is a %s", name, kind, c.Trunks[0], first)
		}
	}
	return l
}
