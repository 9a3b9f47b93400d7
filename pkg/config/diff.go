package config

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Effects of a change.
const (
	// Hot counts at once, for new calls; running ones keep what they began with.
	Hot = "hot"
	// Drain takes no new calls at once; running ones end by themselves.
	Drain = "drain"
	// Restart counts when the gateway is started again.
	Restart = "restart"
)

// Change is one key that differs between two configs.
type Change struct {
	// Path of the key; entries of lists are called by their names: "trunks[carrier-b].max_calls".
	Path string
	// Old and New are as the file has them; Old is empty for an entry that was added, New for
	// one that was removed. Of secrets neither is shown.
	Old, New string
	// Effect is Hot, Drain or Restart.
	Effect string
}

// entryThere stands for all keys of an entry of a list.
const entryThere = "there"

// String is the change for people: "trunks[carrier-b].max_calls 10 -> 20: hot".
func (c Change) String() string {
	switch {
	case c.Old == "":
		return fmt.Sprintf("%s added: %s", c.Path, c.Effect)
	case c.New == "":
		return fmt.Sprintf("%s removed: %s", c.Path, c.Effect)
	case c.Old == hidden:
		return fmt.Sprintf("%s changed: %s", c.Path, c.Effect)
	}
	return fmt.Sprintf("%s %s -> %s: %s", c.Path, c.Old, c.New, c.Effect)
}

// Diff tells what a gateway that runs with one config would make of another: first what
// Hot takes over, then what waits for a restart.
func Diff(running, file *Config) []Change {
	next := Merge(running, file)
	return append(compare(running, next, Hot), compare(next, file, Restart)...)
}

// compare lists what differs, in the order of the keys.
func compare(before, after *Config, effect string) []Change {
	d := differ{effect: effect}
	d.keys(reflect.ValueOf(before).Elem(), reflect.ValueOf(after).Elem(), "")
	return d.changes
}

type differ struct {
	effect  string
	changes []Change
}

func (d *differ) add(path, before, after, effect string) {
	d.changes = append(d.changes, Change{path, before, after, effect})
}

func (d *differ) keys(before, after reflect.Value, path string) {
	for _, f := range fields(before.Type()) {
		b, a, at := before.Field(f.index), after.Field(f.index), join(path, f.key)
		switch {
		case kindOf(f.typ) == kindMap:
			d.keys(b, a, at)
		case isEntries(f.typ):
			d.entries(b, a, at)
		case !reflect.DeepEqual(b.Interface(), a.Interface()):
			if was, is := valueText(b), valueText(a); was != is || was == hidden {
				d.add(at, was, is, d.effect)
			}
		}
	}
}

// entries compares lists of maps. What has a name is found by it, wherever it stands;
// everything else by its place.
func (d *differ) entries(before, after reflect.Value, path string) {
	was, is := entryNames(before), entryNames(after)
	wasAt, isAt := placesOf(was), placesOf(is)
	for i, name := range was {
		at := fmt.Sprintf("%s[%s]", path, name)
		if j, stays := isAt[name]; stays {
			d.keys(before.Index(i), after.Index(j), at)
			continue
		}
		effect := d.effect
		if effect == Hot && path == "trunks" {
			effect = Drain
		}
		d.add(at, entryThere, "", effect)
	}
	for _, name := range is {
		if _, was := wasAt[name]; !was {
			d.add(fmt.Sprintf("%s[%s]", path, name), "", entryThere, d.effect)
		}
	}
	if first, then := both(was, isAt), both(is, wasAt); !slices.Equal(first, then) {
		d.add(path, listText(first), listText(then), d.effect)
	}
}

// placesOf names in their list.
func placesOf(names []string) map[string]int {
	places := make(map[string]int, len(names))
	for i, name := range names {
		places[name] = i
	}
	return places
}

// both are the names that others have too.
func both(names []string, others map[string]int) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { _, has := others[name]; return !has })
}

// isEntries reports whether a type is a list of maps.
func isEntries(t reflect.Type) bool { return kindOf(t) == kindList && kindOf(t.Elem()) == kindMap }

// identities are the keys that tell the entries of a list apart.
var identities = []string{"name", "trunk", "to"}

// entryNames are what the entries of a list are called: by the first key that all entries
// of its type have for that, or else by their place.
func entryNames(list reflect.Value) []string {
	names := make([]string, list.Len())
	fs := fields(list.Type().Elem())
	for i := range names {
		names[i] = strconv.Itoa(i)
	}
	for _, identity := range identities {
		at := slices.IndexFunc(fs, func(f field) bool { return f.key == identity })
		if at < 0 {
			continue
		}
		for i := range names {
			names[i] = valueText(list.Index(i).Field(fs[at].index))
		}
		break
	}
	return names
}

// hidden stands for what is not shown.
const hidden = "(not shown)"

// maxShown bounds a value that is shown, in characters.
const maxShown = 200

// valueText is a value as the file has it.
func valueText(v reflect.Value) string {
	switch kindOf(v.Type()) {
	case kindDuration:
		return short(v.Interface().(time.Duration))
	case kindText:
		return markedText(v)
	case kindString:
		return stringText(v.String())
	case kindList:
		items := make([]string, v.Len())
		for i := range items {
			items[i] = valueText(v.Index(i))
		}
		return listText(items)
	}
	return fmt.Sprint(v.Interface())
}

func listText(items []string) string {
	text := "[" + strings.Join(items, ", ") + "]"
	if r := []rune(text); len(r) > maxShown {
		return string(r[:maxShown]) + "..."
	}
	return text
}

func markedText(v reflect.Value) string {
	switch {
	case texts[v.Type()].secret:
		return hidden
	case v.IsZero():
		return "none"
	}
	text, err := v.Interface().(encoding.TextMarshaler).MarshalText()
	if err != nil {
		return fmt.Sprint(v.Interface())
	}
	return string(text)
}

// stringText quotes what would not be told from what stands around it.
func stringText(s string) string {
	if s == "" || strings.ContainsAny(s, " ,[]\"") || strconv.Quote(s) != `"`+s+`"` {
		return strconv.Quote(s)
	}
	return s
}
