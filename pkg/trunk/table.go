package trunk

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/tandem-sbc/tandem/pkg/resolve"
)

// Configs is what a Table is made of.
type Configs struct {
	Trunks []Config
	Groups []GroupConfig
	// Realms with limits; others have none.
	Realms []Limit
	// Emergency are the called numbers, as they are after normalisation, whose calls no
	// limit holds up (T3).
	Emergency []string
}

// Table is all trunks and groups of one generation of the config. Its shape does not
// change; it is safe for use by several goroutines.
type Table struct {
	trunks []*Trunk
	byName map[string]*Trunk
	byPeer atomic.Pointer[owners]
	groups map[string]*group
	// order of the groups in the config.
	order []*group
	// singles are groups of one trunk each, for routes that name it, by the trunk's index.
	singles   []group
	realms    map[string]*realm
	emergency map[string]bool
	// departed are states of trunks that the last config had, or one before and that still have
	// calls: a trunk that comes back goes on with its slots (T3).
	departed map[string]*state
	epoch    time.Time
	news     *news
	names    *names
	adapting *adapting
}

type peer struct {
	realm string
	addr  netip.Addr
}

// realm is what the trunks of a realm share.
type realm struct {
	limits limits
	quota  *quota
}

// New builds the table. What calls have taken, what was counted and what is known of trunks
// and groups goes on from the former table, by name; that is nil at the start, and is not
// changed: a table that is never used does no harm. Whoever reads configs from people calls
// Validate first: New reports only the first thing it cannot work with, such as a name that
// dangles.
func New(c Configs, former *Table) (*Table, error) {
	now := time.Now()
	t := &Table{
		byName: make(map[string]*Trunk, len(c.Trunks)),
		groups: make(map[string]*group, len(c.Groups)),
		realms: make(map[string]*realm),
		news:   newsOf(former),
		names:  namesOf(former),
	}
	if former == nil {
		former = &Table{epoch: now, adapting: new(adapting)}
	}
	t.epoch, t.adapting = former.epoch, former.adapting
	t.emergency = make(map[string]bool, len(c.Emergency))
	for _, number := range c.Emergency {
		t.emergency[number] = true
	}
	for _, l := range c.Realms {
		t.realmOf(l.Name, former).limits = newLimits(l.MaxCalls, l.MaxRate)
	}
	if len(c.Trunks) > maxTrunks {
		return nil, fmt.Errorf("there are %d trunks, and %d are the most", len(c.Trunks), maxTrunks)
	}
	hosts := make(owners, len(c.Trunks))
	for _, config := range c.Trunks {
		if err := t.add(config, former, hosts); err != nil {
			return nil, fmt.Errorf("trunk %q: %w", config.Name, err)
		}
	}
	t.departed = former.left(t.byName)
	t.names.mu.Lock()
	t.locate("")
	t.names.mu.Unlock()
	for _, tr := range t.trunks {
		if tr.state == nil {
			tr.state = former.departed[tr.Name()].again()
			tr.health = newHealth(tr.settings(), now)
			tr.health.asr = tr.state.answers
			t.place(tr, now)
		}
	}
	t.singles = make([]group, len(t.trunks))
	for i, tr := range t.trunks {
		t.singles[i] = group{
			name: tr.Name(), strategy: Priority, members: []member{newMember(tr, 1)}, epoch: t.epoch,
			policy: newPolicy(GroupConfig{Tries: defaultTries}, tr.Kind()),
		}
	}
	if err := t.addGroups(c.Groups, former); err != nil {
		return nil, err
	}
	return t, nil
}

// left are the states that go on without a trunk among those that there are now.
func (t *Table) left(now map[string]*Trunk) map[string]*state {
	list := make(map[string]*state)
	for name, s := range t.departed {
		if in, out := s.quota.active(); now[name] == nil && in+out > 0 {
			list[name] = s
		}
	}
	for name, tr := range t.byName {
		if now[name] == nil { // it may still get calls, until the other table is in use
			list[name] = tr.state
		}
	}
	return list
}

// realmOf finds a realm, or makes it without limits.
func (t *Table) realmOf(name string, former *Table) *realm {
	r := t.realms[name]
	if r == nil {
		r = new(realm)
		if old := former.realms[name]; old != nil {
			r.quota = old.quota
		} else {
			r.quota = newQuota()
		}
		t.realms[name] = r
	}
	return r
}

// add makes a trunk. hosts are the addresses that the config gives to others.
func (t *Table) add(c Config, former *Table, hosts owners) error {
	if t.byName[c.Name] != nil {
		return errors.New("there are two of that name")
	}
	if len(c.Targets) == 0 {
		return errors.New("it has no targets")
	}
	c.Codecs, c.MediaPrefixes, c.ProbeFailures = slices.Clone(c.Codecs), slices.Clone(c.MediaPrefixes), slices.Clone(c.ProbeFailures)
	tr := &Trunk{
		config: c, limits: newLimits(c.MaxCalls, c.MaxRate),
		realm: t.realmOf(c.Realm, former), epoch: t.epoch, index: len(t.trunks),
	}
	old := former.byName[c.Name]
	for _, text := range c.Targets {
		target, err := resolve.ParseTarget(text)
		if err != nil {
			return err
		}
		p := &place{Target: target, realm: c.Realm, via: resolve.Transport(c.Transport)}
		if old != nil {
			if i := slices.IndexFunc(old.places, p.same); i >= 0 {
				p = old.places[i]
			}
		}
		tr.places = append(tr.places, p)
		if p.isName() {
			continue
		}
		at := peer{c.Realm, p.Addr}
		if other := hosts[at]; other != nil && other != tr {
			return fmt.Errorf("target %s is trunk %q's already", at.addr, other.Name())
		}
		hosts[at] = tr
	}
	t.trunks = append(t.trunks, tr)
	t.byName[c.Name] = tr
	if old != nil {
		tr.state = old.state
	}
	return nil
}

func (t *Table) addGroups(groups []GroupConfig, former *Table) error {
	for _, c := range groups {
		if err := t.addGroup(c, former.groups[c.Name]); err != nil {
			return fmt.Errorf("group %q: %w", c.Name, err)
		}
	}
	for i, c := range groups {
		if c.Fallback == "" {
			continue
		}
		if t.order[i].fallback = t.groups[c.Fallback]; t.order[i].fallback == nil {
			return fmt.Errorf("group %q: there is no group %q to fall back on", c.Name, c.Fallback)
		}
	}
	for _, g := range t.order {
		depth := 0
		for next := g; next != nil; next = next.fallback {
			if depth++; depth > maxDepth {
				return fmt.Errorf("group %q: its fallbacks go round in a circle, or are more than %d", g.name, maxDepth-1)
			}
		}
	}
	return nil
}

func (t *Table) addGroup(c GroupConfig, former *group) error {
	if t.groups[c.Name] != nil {
		return errors.New("there are two of that name")
	}
	members := c.members()
	if len(members) == 0 {
		return errors.New("it has no trunks")
	}
	// Whoever made the config without SetDefaults means the defaults.
	if c.Tries == 0 {
		c.Tries = defaultTries
	}
	g := &group{
		name: c.Name, strategy: c.Strategy, adaptive: c.Adaptive, shares: make([]int64, len(members)), epoch: t.epoch,
	}
	for _, m := range members {
		tr := t.byName[m.Trunk]
		if tr == nil {
			return fmt.Errorf("there is no trunk %q", m.Trunk)
		}
		g.members = append(g.members, newMember(tr, m.Weight))
	}
	g.policy = newPolicy(c, g.members[0].Kind())
	g.follow(former)
	t.groups[c.Name] = g
	t.order = append(t.order, g)
	return nil
}

func newMember(t *Trunk, weight int) member {
	return member{
		Trunk: t, health: t.health, quota: t.quota, limits: t.limits, realm: t.realm,
		weight: int64(max(1, weight)), hash: fnv(t.Name()),
	}
}

// ByPeer finds the trunk that a request comes from, by the realm it arrived in and
// its source address as names resolve now, or nil. The source port does not matter: peers send from others
// than they listen on.
func (t *Table) ByPeer(realm string, src netip.Addr) *Trunk {
	return (*t.byPeer.Load())[peer{realm, src.Unmap()}]
}

// Trunk finds a trunk by name, or nil.
func (t *Table) Trunk(name string) *Trunk { return t.byName[name] }

// All returns the trunks in the order of the config.
func (t *Table) All() []*Trunk { return slices.Clone(t.trunks) }

// Emergency reports whether calls to a number are held up by no limit (T3). The number is
// as it is after normalisation.
func (t *Table) Emergency(number string) bool { return t.emergency[number] }
