package trunk

import "time"

// GroupStatus is a group as seen from outside.
type GroupStatus struct {
	Name     string         `json:"name"`
	Strategy string         `json:"strategy"`
	Adaptive bool           `json:"adaptive"`
	Fallback string         `json:"fallback,omitempty"`
	Members  []MemberStatus `json:"members"`
}

// MemberStatus is a trunk in a group.
type MemberStatus struct {
	Trunk string `json:"trunk"`
	// Weight of the config.
	Weight int `json:"weight"`
	// Multiplier is what an adaptive group makes of the weight, in thousandths, 100 to 1000;
	// 1000 changes nothing.
	Multiplier int `json:"multiplier"`
	// Share of the group's first choices that the member gets, in percent, where the strategy
	// goes by weights; it is 0 as long as the member takes no calls out.
	Share float64 `json:"share_percent"`
	// State of the trunk, and its active calls in both directions.
	State  string `json:"state"`
	Active int    `json:"active"`
}

// Groups returns the groups in the order of the config.
func (t *Table) Groups() []GroupStatus {
	list := make([]GroupStatus, len(t.order))
	for i, g := range t.order {
		list[i] = g.status(time.Now())
	}
	return list
}

func (g *group) status(now time.Time) GroupStatus {
	s := GroupStatus{Name: g.name, Strategy: g.strategy, Adaptive: g.adaptive, Members: make([]MemberStatus, len(g.members))}
	if g.fallback != nil {
		s.Fallback = g.fallback.name
	}
	shares, sum := g.sharesOf(now)
	for i := range g.members {
		m := &g.members[i]
		in, out := m.quota.active()
		s.Members[i] = MemberStatus{
			Trunk: m.Name(), Weight: int(m.weight), Multiplier: int(g.weight(m) / m.weight),
			Share: 100 * ratio(float64(shares[i]), float64(sum)), State: m.Condition().State, Active: in + out,
		}
	}
	return s
}

// sharesOf surveys the group for no call in particular.
func (g *group) sharesOf(now time.Time) (shares []int64, sum int64) {
	if !weighs(g.strategy) {
		return make([]int64, len(g.members)), 0
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	h := Hunt{peek: true}
	sum = g.survey(&h, now)
	return append(shares, g.shares...), sum
}

// Candidate is a member in the order in which one call would try them.
type Candidate struct {
	Trunk *Trunk
	// Group that it is a member of, empty for a trunk that a route names.
	Group string
	// Why it would be passed over: NotRefused if it would not.
	Why Reason
	// Tries of its group if those before it use them up when they fail; 0 if not.
	Tries int
}

// Order tells in which order a call to a number would try the trunks of a group and of its
// fallbacks if it came now, as far as that is known (a random group's is by weight), without
// being one. Behind those are the ones that would be passed over, with the reason.
func (t *Table) Order(group, number string) []Candidate {
	return t.Hunt(group, number).order(time.Now())
}

// OrderTrunk does so for a route that names a trunk.
func (t *Table) OrderTrunk(name, number string) []Candidate {
	list := t.HuntTrunk(name, number).order(time.Now())
	for i := range list {
		list[i].Group = ""
	}
	return list
}

func (h Hunt) order(now time.Time) (list []Candidate) {
	h.peek = true
	first := h.group
	for tr, ok := h.Next(now); ok; tr, ok = h.Next(now) {
		c := Candidate{Trunk: tr, Group: h.group.name}
		if h.tries > h.policy.Tries {
			c.Tries = h.policy.Tries
		}
		list = append(list, c)
	}
	for g := first; g != nil; g = g.fallback {
		for i := range g.members {
			m := &g.members[i]
			if h.tried.has(m.Trunk) {
				continue
			}
			h.tried.add(m.Trunk)
			alone := g.glance(&Hunt{peek: true, emergency: h.emergency}, now)
			alone.at(m)
			list = append(list, Candidate{Trunk: m.Trunk, Group: g.name, Why: alone.why})
		}
	}
	return list
}
