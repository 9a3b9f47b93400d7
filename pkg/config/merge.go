package config

import (
	"reflect"
	"slices"

	"github.com/tandem-sbc/tandem/pkg/route"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

// Merge is what a gateway that runs with one config can take of another without a
// restart: the keys with reload:"hot" are those of file, all others stay. Trunks in realms
// that the gateway does not have yet stay as they are, or out. Whether the result is whole
// is for Validate to say.
func Merge(running, file *Config) *Config {
	next := *running
	takeHot(reflect.ValueOf(&next).Elem(), reflect.ValueOf(file).Elem())
	next.leaveOut(running)
	return &next
}

// takeHot changes nothing that lists of the running config share with next.
func takeHot(next, file reflect.Value) {
	for _, f := range fields(next.Type()) {
		n, v := next.Field(f.index), file.Field(f.index)
		switch {
		case f.hot:
			n.Set(v)
		case kindOf(f.typ) == kindMap:
			takeHot(n, v)
		case isEntries(f.typ):
			takeHotEntries(n, v)
		}
	}
}

func takeHotEntries(next, file reflect.Value) {
	if next.Len() == 0 {
		return
	}
	list := reflect.MakeSlice(next.Type(), next.Len(), next.Len())
	reflect.Copy(list, next)
	places := placesOf(entryNames(file))
	for i, name := range entryNames(list) {
		if j, stays := places[name]; stays {
			takeHot(list.Index(i), file.Index(j))
		}
	}
	next.Set(list)
}

// leaveOut keeps trunks out whose realms are not there, and what leads to nobody but them.
func (c *Config) leaveOut(running *Config) {
	waiting := make(map[string]bool)
	var trunks []trunk.Config
	for _, t := range c.Trunks {
		if _, there := c.realm(t.Realm); there {
			trunks = append(trunks, t)
			continue
		}
		i := slices.IndexFunc(running.Trunks, func(r trunk.Config) bool { return r.Name == t.Name })
		if i < 0 {
			waiting[t.Name] = true
			continue
		}
		trunks = append(trunks, running.Trunks[i])
	}
	if c.Trunks = trunks; len(waiting) == 0 {
		return
	}
	empty := c.leaveOutGroups(waiting)
	var routes []route.Config
	for _, r := range c.Routes {
		from := slices.DeleteFunc(slices.Clone(r.From), func(name string) bool { return waiting[name] })
		// A route from nobody would be one from everybody.
		if waiting[r.Trunk] || empty[r.Group] || len(from) < len(r.From) && len(from) == 0 {
			continue
		}
		if len(from) < len(r.From) {
			r.From = from
		}
		routes = append(routes, r)
	}
	c.Routes = routes
}

// leaveOutGroups takes trunks out of the groups, and returns the groups that have nobody left.
func (c *Config) leaveOutGroups(waiting map[string]bool) (empty map[string]bool) {
	empty = make(map[string]bool)
	var groups []trunk.GroupConfig
	for _, g := range c.Groups {
		g.Trunks = slices.DeleteFunc(slices.Clone(g.Trunks), func(name string) bool { return waiting[name] })
		g.Members = slices.DeleteFunc(slices.Clone(g.Members), func(m trunk.Member) bool { return waiting[m.Trunk] })
		if len(g.Trunks)+len(g.Members) == 0 {
			empty[g.Name] = true
			continue
		}
		groups = append(groups, g)
	}
	for i := range groups {
		if empty[groups[i].Fallback] {
			groups[i].Fallback = ""
		}
	}
	c.Groups = groups
	return empty
}
