package trunk

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tandem-sbc/tandem/pkg/invalid"
)

// Strategies of groups (T2, T8).
const (
	RoundRobin = "round_robin"
	Weighted   = "weighted"
	LeastUsed  = "least_used"
	Priority   = "priority"
	Random     = "random"
	Hash       = "hash"
)

var strategies = []string{RoundRobin, Weighted, LeastUsed, Priority, Random, Hash}

const (
	// maxTries is as many trunks as a caller may hear ringing out.
	maxTries = 32
	// maxDepth of groups that fall back on each other.
	maxDepth  = 8
	maxWeight = 1000
)

// GroupConfig is a set of trunks that can stand in for each other (T2).
type GroupConfig struct {
	Name     string   `yaml:"name" json:"name" required:"true" doc:"Name of the group, as routes use it."`
	Trunks   []string `yaml:"trunks" json:"trunks,omitempty" doc:"Members with a weight of 1 each, all of one kind. Exactly one of trunks and members is given."`
	Members  []Member `yaml:"members" json:"members,omitempty" doc:"Members with their weights, all of one kind. Exactly one of trunks and members is given."`
	Strategy string   `yaml:"strategy" json:"strategy" enum:"round_robin,weighted,least_used,priority,random,hash" doc:"Which member a call tries first. round_robin: each in turn. weighted: in turn, as often as its weight says. least_used: the one with the fewest calls for its weight. priority: the first in the list. random: any, by weight. hash: by the called number, so that calls to one number take the same trunk as long as it can be used. Members that cannot be used lose their turn; degraded ones come after all others. One that has just come back into service gets a tenth of its share at first and all of it after 30s, as long as there are others; in a priority group it has all of them back at once."`
	Fallback string   `yaml:"fallback" json:"fallback,omitempty" doc:"Group that is tried when no member is left, or no try. Its own tries, pause and lists hold then; at most 8 groups may stand behind each other."`
	Adaptive bool     `yaml:"adaptive" json:"adaptive" doc:"Whether weights follow what members do: a member that answers less often, takes longer to ring or sounds worse than the others gets fewer calls, down to a tenth of its weight. For weighted, least_used and random."`

	Tries     int           `yaml:"tries" json:"tries" range:"1-32" doc:"Most attempts of one call in the group, each target of a trunk being one."`
	Pause     time.Duration `yaml:"pause" json:"pause" range:"0s-10s" doc:"Time between two attempts."`
	Total     time.Duration `yaml:"total" json:"total" range:"0s-10m" doc:"Longest time from a call's first attempt, in whatever group, to the start of the last in this one; past it the call ends, and no fallback is tried. 0s is no bound."`
	RetrySIP  []CodeRange   `yaml:"retry_sip" json:"retry_sip,omitempty" doc:"SIP statuses, alone or as ranges, after which the next trunk is tried. Left out, 408 and 500-599; for platforms 408 and 503."`
	RetryQ850 []CodeRange   `yaml:"retry_q850" json:"retry_q850,omitempty" doc:"Q.850 causes in a refusal's Reason header after which the next trunk is tried although its status is not in retry_sip; never after 3xx and 6xx. Left out, 1-5, 25, 27, 28, 31, 34, 38, 41, 42, 44, 46, 62, 63, 79, 91, 96, 97, 99, 100 and 103; for platforms none."`
}

// Member is a trunk of a group.
type Member struct {
	Trunk  string `yaml:"trunk" json:"trunk" required:"true" doc:"Name of the trunk."`
	Weight int    `yaml:"weight" json:"weight" range:"1-1000" doc:"Its share of the calls, compared with the other members' weights."`
}

// SetDefaults fills in what the config may leave out.
func (m *Member) SetDefaults() { m.Weight = 1 }

// SetDefaults fills in what the config may leave out.
func (c *GroupConfig) SetDefaults() {
	c.Strategy = RoundRobin
	c.Tries = defaultTries // T7
}

// members are those of either key.
func (c GroupConfig) members() []Member {
	if len(c.Members) > 0 {
		return c.Members
	}
	list := make([]Member, len(c.Trunks))
	for i, name := range c.Trunks {
		list[i] = Member{name, 1}
	}
	return list
}

// memberKey is the path of a member's name.
func (c GroupConfig) memberKey(i int) string {
	if len(c.Members) > 0 {
		return fmt.Sprintf("members[%d].trunk", i)
	}
	return fmt.Sprintf("trunks[%d]", i)
}

// weighs reports whether a strategy heeds weights.
func weighs(strategy string) bool {
	return strategy == Weighted || strategy == LeastUsed || strategy == Random
}

// ValidateGroups checks the groups against the trunks they name and each other; keys start
// with an index: "[0].trunks[1]".
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
		l.Under(under, g.validateFallback(groups, kinds))
	}
	return l
}

// validate checks one group; kinds are those of the trunks by name.
func (c GroupConfig) validate(kinds map[string]string, names []string) invalid.List {
	var l invalid.List
	l.Name("name", c.Name)
	l.OneOf("strategy", c.Strategy, strategies...)
	switch {
	case len(c.Trunks) == 0 && len(c.Members) == 0:
		l.Add("trunks", "name at least one trunk", "is missing")
	case len(c.Trunks) > 0 && len(c.Members) > 0:
		l.Add("members", "keep one of them", "stands beside trunks")
	}
	c.validateMembers(&l, kinds, names)
	if c.Adaptive && slices.Contains(strategies, c.Strategy) && !weighs(c.Strategy) {
		l.Add("adaptive", "set strategy to weighted, least_used or random", "has no meaning while strategy is %s", c.Strategy)
	}
	l.Between("tries", c.Tries, 1, maxTries)
	if c.Pause < 0 || c.Pause > 10*time.Second {
		l.Add("pause", "give 0s to 10s", "%s is out of range", c.Pause)
	}
	if c.Total < 0 || c.Total > 10*time.Minute {
		l.Add("total", "give 0s to 10m", "%s is out of range", c.Total)
	}
	validateCodes(&l, "retry_sip", c.RetrySIP, 400, 699) // T7: 3xx is a rejection
	validateCodes(&l, "retry_q850", c.RetryQ850, 1, 127)
	return l
}

func (c GroupConfig) validateMembers(l *invalid.List, kinds map[string]string, names []string) {
	members := c.members()
	for i, m := range members {
		key := c.memberKey(i)
		kind, known := kinds[m.Trunk]
		first := kinds[members[0].Trunk]
		switch {
		case m.Trunk == "":
			l.Add(key, "name one of the trunks", "is missing")
		case !known:
			l.Add(key, invalid.Suggest(m.Trunk, names, "name one of the trunks"), "there is no trunk %q", m.Trunk)
		case slices.ContainsFunc(members[:i], func(o Member) bool { return o.Trunk == m.Trunk }):
			l.Add(key, "leave it out", "%q is listed twice", m.Trunk)
		case first != "" && kind != "" && kind != first:
			// A call that fails over from a carrier to a platform would come back
			// to where it started.
			l.Add(key, "make a group for each kind", "trunk %q is a %s, but %q is a %s", m.Trunk, kind, members[0].Trunk, first)
		}
	}
	for i, m := range c.Members {
		key := fmt.Sprintf("members[%d].weight", i)
		if m.Weight != 1 && slices.Contains(strategies, c.Strategy) && !weighs(c.Strategy) {
			l.Add(key, "set strategy to weighted, least_used or random, or leave it out", "has no meaning while strategy is %s", c.Strategy)
			continue
		}
		l.Between(key, m.Weight, 1, maxWeight)
	}
}

func validateCodes(l *invalid.List, key string, codes []CodeRange, low, high int) {
	for i, r := range codes {
		if int(r.First) < low || int(r.Last) > high {
			l.Add(fmt.Sprintf("%s[%d]", key, i), fmt.Sprintf("give numbers from %d to %d", low, high), "%s is out of range", r)
		}
	}
}

// validateFallback follows the chain of groups that stand in for this one.
func (c GroupConfig) validateFallback(groups []GroupConfig, kinds map[string]string) invalid.List {
	if c.Fallback == "" {
		return nil
	}
	var l invalid.List
	byName := make(map[string]GroupConfig, len(groups))
	names := make([]string, len(groups))
	for i, g := range groups {
		byName[g.Name], names[i] = g, g.Name
	}
	next, known := byName[c.Fallback]
	switch {
	case !known && kinds[c.Fallback] != "":
		l.Add("fallback", "make a group of it", "%q is a trunk", c.Fallback)
		return l
	case !known:
		l.Add("fallback", invalid.Suggest(c.Fallback, names, "name one of the groups"), "there is no group %q", c.Fallback)
		return l
	}
	if a, b := c.kind(kinds), next.kind(kinds); a != "" && b != "" && a != b {
		l.Add("fallback", "name a group of "+a+"s", "group %q has %ss, but this one has %ss", next.Name, b, a)
	}
	chain := []string{c.Name}
	for ; known; next, known = byName[next.Fallback] {
		if slices.Contains(chain, next.Name) {
			if next.Name == c.Name { // the others of the circle say it for themselves
				l.Add("fallback", "end the chain somewhere", "leads back here: %s", strings.Join(append(chain, c.Name), ", "))
			}
			return l
		}
		if chain = append(chain, next.Name); len(chain) > maxDepth {
			l.Add("fallback", fmt.Sprintf("make the chain of groups shorter than %d", maxDepth+1), "is the start of a chain of more than %d groups", maxDepth)
			return l
		}
	}
	return l
}

// kind of the group's members, or empty.
func (c GroupConfig) kind(kinds map[string]string) string {
	for _, m := range c.members() {
		if kind := kinds[m.Trunk]; kind != "" {
			return kind
		}
	}
	return ""
}
