package config

import (
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
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
	// Old and New are as the file has them, cut if they are long; Old is empty for an entry that
	// was added, New for one that was removed. Of secrets neither is shown.
	Old, New string
	// Items is what differs in a list that is too long to be read twice: "+a, -b". Empty for
	// what Old and New show whole.
	Items string
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
	case c.Items != "":
		return fmt.Sprintf("%s %s: %s", c.Path, c.Items, c.Effect)
	}
	return fmt.Sprintf("%s %s -> %s: %s", c.Path, c.Old, c.New, c.Effect)
}

// Diff tells what a gateway that runs with one config would make of another: first what
// Hot takes over, then what waits for a restart.
func Diff(running, file *Config) []Change {
	next := Merge(running, file)
	return append(compare(running, next, Hot), compare(next, file, Restart)...)
}

// Fingerprint of what Diff would tell, whole: two of one process are equal if nothing was
// changed between them, neither what runs nor the file.
func Fingerprint(running, file *Config) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%#v\n%#v", *running, *file))
	return hex.EncodeToString(sum[:16])
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
	d.changes = append(d.changes, Change{Path: path, Old: before, New: after, Effect: effect})
}

// addList adds a list that has changed, however little of it.
func (d *differ) addList(path string, before, after []string) {
	was, is := listText(before), listText(after)
	c := Change{Path: path, Old: cut(was), New: cut(is), Effect: d.effect}
	if c.Old != was || c.New != is {
		c.Items = itemChanges(before, after)
	}
	d.changes = append(d.changes, c)
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
			d.value(f, b, a, at)
		}
	}
}

// value compares what is no map by how it is written: forms of the same make no difference.
func (d *differ) value(f field, before, after reflect.Value, path string) {
	switch {
	case kindOf(f.typ) != kindList:
		if was, is := valueText(before), valueText(after); was != is || was == hidden {
			d.add(path, was, is, d.effect)
		}
	case f.leftOut != "" && before.IsNil() != after.IsNil():
		d.add(path, cut(listOrDefault(before)), cut(listOrDefault(after)), d.effect)
	default:
		if was, is := itemTexts(before), itemTexts(after); !slices.Equal(was, is) {
			d.addList(path, was, is)
		}
	}
}

// listOrDefault is a list whose key may be left out, which is not the same as empty.
func listOrDefault(list reflect.Value) string {
	if list.IsNil() {
		return "default"
	}
	return listText(itemTexts(list))
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
		d.addList(path, first, then)
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

// valueText is a value as the file has it, whole.
func valueText(v reflect.Value) string {
	switch kindOf(v.Type()) {
	case kindDuration:
		return short(v.Interface().(time.Duration))
	case kindText:
		return markedText(v)
	case kindString:
		return stringText(v.String())
	case kindList:
		return listText(itemTexts(v))
	}
	return fmt.Sprint(v.Interface())
}

func itemTexts(list reflect.Value) []string {
	items := make([]string, list.Len())
	for i := range items {
		items[i] = valueText(list.Index(i))
	}
	return items
}

func listText(items []string) string { return "[" + strings.Join(items, ", ") + "]" }

// cut is a text as it is shown.
func cut(text string) string {
	if r := []rune(text); len(r) > maxShown {
		return string(r[:maxShown]) + "..."
	}
	return text
}

// itemChanges tells two lists apart: "+203.0.113.0/24, -192.0.2.0/24", as much as may be shown.
func itemChanges(before, after []string) string {
	// An item may be there several times, as in a list of targets.
	left := make(map[string]int, len(before))
	for _, item := range before {
		left[item]++
	}
	var changes []string
	for _, item := range after {
		if left[item]--; left[item] < 0 {
			changes = append(changes, "+"+item)
			left[item] = 0
		}
	}
	for _, item := range before {
		if left[item] > 0 {
			left[item]--
			changes = append(changes, "-"+item)
		}
	}
	if len(changes) == 0 {
		return "in another order"
	}
	var b strings.Builder
	for i, change := range changes {
		if i > 0 && utf8.RuneCountInString(b.String())+utf8.RuneCountInString(change) > maxShown {
			fmt.Fprintf(&b, " and %d more", len(changes)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(cut(change))
	}
	return b.String()
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
