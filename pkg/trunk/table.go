package trunk

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// Table is all trunks and groups of a config. Its shape does not change; it is
// safe for use by several goroutines. A trunk is in service until RealmDown says otherwise.
type Table struct {
	trunks []*Trunk
	byName map[string]*Trunk
	byPeer map[peer]*Trunk
	groups map[string]*group
	// told wakes Probe after the state of trunks was changed from outside.
	told chan struct{}
}

type peer struct {
	realm string
	addr  netip.Addr
}

type group struct {
	members  []*Trunk
	strategy string
	cursor   atomic.Uint32
}

// New builds the table. Whoever reads configs from people calls Validate first: New
// reports only the first thing it cannot work with, such as a name that dangles.
func New(trunks []Config, groups []GroupConfig) (*Table, error) {
	t := &Table{
		byName: make(map[string]*Trunk, len(trunks)),
		byPeer: make(map[peer]*Trunk, len(trunks)),
		groups: make(map[string]*group, len(groups)),
		told:   make(chan struct{}, 1),
	}
	for _, c := range trunks {
		if err := t.add(c); err != nil {
			return nil, fmt.Errorf("trunk %q: %w", c.Name, err)
		}
	}
	for _, c := range groups {
		if err := t.addGroup(c); err != nil {
			return nil, fmt.Errorf("group %q: %w", c.Name, err)
		}
	}
	return t, nil
}

func (t *Table) add(c Config) error {
	if t.byName[c.Name] != nil {
		return errors.New("there are two of that name")
	}
	if len(c.Targets) == 0 {
		return errors.New("it has no targets")
	}
	c.Codecs, c.MediaPrefixes = slices.Clone(c.Codecs), slices.Clone(c.MediaPrefixes)
	tr := &Trunk{config: c, prefixes: c.MediaPrefixes}
	for _, text := range c.Targets {
		target, err := ParseTarget(text)
		if err != nil {
			return err
		}
		p := peer{c.Realm, target.Addr()}
		if other := t.byPeer[p]; other != nil && other != tr {
			return fmt.Errorf("target %s is trunk %q's already", p.addr, other.Name())
		}
		t.byPeer[p] = tr
		tr.targets = append(tr.targets, target)
		if host := netip.PrefixFrom(target.Addr(), 32); len(c.MediaPrefixes) == 0 && !slices.Contains(tr.prefixes, host) {
			tr.prefixes = append(tr.prefixes, host)
		}
	}
	tr.service.Store(&service{Condition: Condition{State: InService, Since: time.Now()}})
	t.trunks = append(t.trunks, tr)
	t.byName[c.Name] = tr
	return nil
}

func (t *Table) addGroup(c GroupConfig) error {
	if t.groups[c.Name] != nil {
		return errors.New("there are two of that name")
	}
	if len(c.Trunks) == 0 {
		return errors.New("it has no trunks")
	}
	g := &group{strategy: c.Strategy}
	for _, name := range c.Trunks {
		tr := t.byName[name]
		if tr == nil {
			return fmt.Errorf("there is no trunk %q", name)
		}
		g.members = append(g.members, tr)
	}
	t.groups[c.Name] = g
	return nil
}

// ByPeer finds the trunk that a request comes from, by the realm it arrived in and
// its source address, or nil. The source port does not matter: peers send from others
// than they listen on.
func (t *Table) ByPeer(realm string, src netip.Addr) *Trunk {
	return t.byPeer[peer{realm, src.Unmap()}]
}

// Trunk finds a trunk by name, or nil.
func (t *Table) Trunk(name string) *Trunk { return t.byName[name] }

// All returns the trunks in the order of the config.
func (t *Table) All() []*Trunk { return slices.Clone(t.trunks) }

// Candidates returns the order in which one call tries the trunks of a group, each
// once; nil if there is no such group. A round-robin group starts each call one
// further (T2).
func (t *Table) Candidates(name string) []*Trunk {
	g := t.groups[name]
	if g == nil {
		return nil
	}
	first := 0
	if g.strategy == RoundRobin {
		first = int((g.cursor.Add(1) - 1) % uint32(len(g.members)))
	}
	return slices.Concat(g.members[first:], g.members[:first])
}
