package config

import (
	"encoding"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/tandem-sbc/tandem/pkg/invalid"
)

// decoder reads YAML nodes into config structs. goccy's own decoder stops at the
// first unknown key or wrong type; this one reports them all and goes on.
type decoder struct{ *report }

// defaulter fills in what the file may leave out, before the file is read over it.
type defaulter interface{ SetDefaults() }

// value reads a node into v; key is its path and at the place to report it at.
func (d decoder) value(n ast.Node, v reflect.Value, f field, key string, at position) {
	d.places[key] = at
	switch node := n.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode, *ast.MergeKeyNode:
		d.unreadable(at, key, "write the value out", "anchors, aliases and tags are not part of the config's grammar")
		return
	case *ast.NullNode:
		d.unreadable(at, key, "give one, or remove the key", "has no value")
		return
	case *ast.LiteralNode:
		n = node.Value
	}
	switch kindOf(v.Type()) {
	case kindMap:
		d.mapping(n, v, key, at)
	case kindList:
		d.list(n, v, f, key, at)
	case kindString:
		d.str(n, v, key, at)
	case kindInteger:
		d.integer(n, v, f, key, at)
	case kindBool:
		d.boolean(n, v, key, at)
	case kindDuration:
		d.duration(n, v, key, at)
	case kindText:
		d.text(n, v, key, at)
	}
}

func (d decoder) mapping(n ast.Node, v reflect.Value, key string, at position) {
	m, ok := n.(*ast.MappingNode)
	if !ok {
		what := "is " + describe(n)
		if key == "" {
			what = "the file " + what
		}
		d.unreadable(at, key, "write KEY: VALUE with keys "+strings.Join(keys(fields(v.Type())), ", "), "%s and should be a map of keys", what)
		return
	}
	fs := fields(v.Type())
	seen := make(map[string]position, len(m.Values))
	for _, entry := range m.Values {
		if name := keyName(entry.Key); isKey(entry.Key) {
			if first, twice := seen[name]; twice {
				d.add(place(entry.Key), invalid.Field{Key: join(key, name), Problem: fmt.Sprintf("is given twice, first in line %d", first.line), Remedy: "remove one"})
				continue
			}
			seen[name] = place(entry.Key)
			if i := slices.IndexFunc(fs, func(f field) bool { return f.key == name }); i >= 0 {
				d.value(entry.Value, v.Field(fs[i].index), fs[i], join(key, name), place(entry.Key))
				continue
			}
		}
	}
	for _, entry := range m.Values {
		d.unknown(entry, fs, seen, v, key)
	}
}

// unknown reports a key that the grammar does not have. What looks like a slip of the
// finger is read as what was meant, so that one slip gives one finding and the rest of
// the file is checked as it will be.
func (d decoder) unknown(entry *ast.MappingValueNode, fs []field, seen map[string]position, v reflect.Value, key string) {
	at, name := place(entry.Key), keyName(entry.Key)
	if !isKey(entry.Key) {
		d.add(at, invalid.Field{Key: key, Problem: "anchors, aliases, tags and merge keys are not part of the config's grammar", Remedy: "write the keys out"})
		return
	}
	known := keys(fs)
	if slices.Contains(known, name) {
		return
	}
	d.add(at, invalid.Field{Key: join(key, name), Problem: "is not a key", Remedy: invalid.Suggest(name, known, "known here are "+strings.Join(known, ", "))})
	meant := slices.Index(known, invalid.Nearest(name, known))
	if meant < 0 {
		return
	}
	if f := fs[meant]; seen[f.key] == (position{}) {
		seen[f.key] = at
		d.value(entry.Value, v.Field(f.index), f, join(key, f.key), at)
	}
}

func (d decoder) list(n ast.Node, v reflect.Value, f field, key string, at position) {
	s, ok := n.(*ast.SequenceNode)
	if !ok {
		remedy := "write one per line, each after a dash"
		if scalar, ok := n.(ast.ScalarNode); ok && kindOf(v.Type().Elem()) != kindMap {
			remedy = fmt.Sprintf("write %s: [%s]", last(key), clip(scalar.GetToken().Value))
		}
		d.unreadable(at, key, remedy, "is %s and should be a list", describe(n))
		return
	}
	if len(s.Values) > f.items {
		d.unreadable(at, key, fmt.Sprintf("at most %d are possible", f.items), "has %d entries", len(s.Values))
		return
	}
	items := reflect.MakeSlice(v.Type(), len(s.Values), len(s.Values))
	for i, node := range s.Values {
		item := items.Index(i)
		if def, ok := item.Addr().Interface().(defaulter); ok {
			def.SetDefaults()
		}
		d.value(node, item, field{low: f.low, high: f.high, items: maxItems}, fmt.Sprintf("%s[%d]", key, i), place(node))
	}
	v.Set(items)
}

func (d decoder) str(n ast.Node, v reflect.Value, key string, at position) {
	switch n := n.(type) {
	case *ast.StringNode:
		v.SetString(n.Value)
	case ast.ScalarNode:
		text := n.GetToken().Value
		d.unreadable(at, key, fmt.Sprintf("put it in quotes: %q", clip(text)), "%s is %s in YAML and should be text", clip(text), describe(n))
		v.SetString(text) // names that refer to it are none the worse
	default:
		d.unreadable(at, key, "give one value", "is %s and should be text", describe(n))
	}
}

func (d decoder) integer(n ast.Node, v reflect.Value, f field, key string, at position) {
	low, high := f.low, f.high
	remedy := fmt.Sprintf("give a whole number from %s to %s", low, high)
	integer, ok := n.(*ast.IntegerNode)
	if !ok {
		if s, isText := n.(*ast.StringNode); isText {
			if _, err := strconv.Atoi(s.Value); err == nil {
				remedy = "remove the quotes: " + s.Value
			}
			d.unreadable(at, key, remedy, "%q is not a whole number", clip(s.Value))
			return
		}
		d.unreadable(at, key, remedy, "%s is not a whole number", show(n))
		return
	}
	// Only what the type cannot hold is refused here; its range is Validate's.
	value, err := strconv.ParseInt(fmt.Sprint(integer.Value), 10, 64)
	switch {
	case err != nil:
	case v.CanInt() && !v.OverflowInt(value):
		v.SetInt(value)
		return
	case v.CanUint() && value >= 0 && !v.OverflowUint(uint64(value)):
		v.SetUint(uint64(value))
		return
	}
	d.unreadable(at, key, remedy, "%s is out of range", clip(integer.GetToken().Value))
}

func (d decoder) boolean(n ast.Node, v reflect.Value, key string, at position) {
	b, ok := n.(*ast.BoolNode)
	if !ok {
		d.unreadable(at, key, "give true or false, without quotes", "is %s and should be true or false", describe(n))
		return
	}
	v.SetBool(b.Value)
}

// plainNumber is what people write for a duration when they think of seconds.
var plainNumber = regexp.MustCompile(`^[0-9]+$`)

func (d decoder) duration(n ast.Node, v reflect.Value, key string, at position) {
	if _, ok := n.(ast.ScalarNode); !ok {
		d.unreadable(at, key, "write a number with its unit, e.g. 30s, 1m30s or 500ms", "is %s and should be a duration", describe(n))
		return
	}
	text := scalarText(n)
	if plainNumber.MatchString(text) {
		d.unreadable(at, key, fmt.Sprintf("write %ss if seconds are meant", clip(text)), "%s has no unit", clip(text))
		return
	}
	value, err := time.ParseDuration(text)
	if err != nil {
		d.unreadable(at, key, "write a number with its unit, e.g. 30s, 1m30s or 500ms", "%q is not a duration", clip(text))
		return
	}
	v.SetInt(int64(value))
}

func (d decoder) text(n ast.Node, v reflect.Value, key string, at position) {
	form := texts[v.Type()]
	remedy := fmt.Sprintf("write it like %s", form.example)
	if _, ok := n.(ast.ScalarNode); !ok {
		d.unreadable(at, key, remedy, "is %s and should be %s", describe(n), form.article)
		return
	}
	text := scalarText(n)
	err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text))
	switch {
	case err == nil && text != "":
	case form.secret:
		d.unreadable(at, key, remedy, "is not %s", form.article)
	default:
		d.unreadable(at, key, remedy, "%q is not %s", clip(text), form.article)
	}
}

// scalarText is a scalar as it was written, without quotes.
func scalarText(n ast.Node) string {
	if s, ok := n.(*ast.StringNode); ok {
		return s.Value
	}
	return n.GetToken().Value
}

// describe names a node's kind for people.
func describe(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a map"
	case *ast.SequenceNode:
		return "a list"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.BoolNode:
		return "true or false"
	}
	return "text"
}

// show quotes a scalar, and names anything larger.
func show(n ast.Node) string {
	if _, ok := n.(ast.ScalarNode); ok {
		return clip(n.GetToken().Value)
	}
	return describe(n)
}

// clip bounds what is quoted of a value.
func clip(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "..."
	}
	return s
}

func isKey(k ast.MapKeyNode) bool {
	switch k.(type) {
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode, *ast.LiteralNode:
		return true
	}
	return false
}

// keyName is a key as the file has it, quoted if it could not be told from the path
// around it.
func keyName(k ast.MapKeyNode) string {
	name := clip(scalarText(k))
	if name == "" || strings.IndexFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`.[]"`, r) }) >= 0 {
		return strconv.Quote(name)
	}
	return name
}

func join(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}

// last is the last step of a path.
func last(key string) string { return key[strings.LastIndex(key, ".")+1:] }
