package config

import (
	"fmt"
	"reflect"
	"strings"
)

// Reference is docs/config.md: every key with its type, default and meaning.
func Reference() []byte {
	var b strings.Builder
	b.WriteString(referenceHead)
	fmt.Fprintf(&b, "\n`tandem reload` and SIGHUP take over changes of %s\nwithout a restart. Changes of all other keys wait for one, and are listed.\n", strings.Join(hotKeys(reflect.TypeFor[Config](), ""), ", "))
	defaults := new(Config)
	defaults.SetDefaults()
	root := reflect.ValueOf(defaults).Elem()
	b.WriteString("\n## The file\n\n")
	writeTable(&b, root, "")
	writeSections(&b, root, "")
	return []byte(b.String())
}

// writeSections writes one for each map and each list of maps below a struct; key is its path.
func writeSections(b *strings.Builder, v reflect.Value, key string) {
	for _, f := range fields(v.Type()) {
		path, part := join(key, f.key), v.Field(f.index)
		switch {
		case kindOf(f.typ) == kindMap:
			fmt.Fprintf(b, "\n## %s\n\n%s\n\n", path, f.doc)
		case kindOf(f.typ) == kindList && kindOf(f.typ.Elem()) == kindMap:
			fmt.Fprintf(b, "\n## %s\n\n%s Each entry of the list has these keys:\n\n", path, f.doc)
			part = defaultItem(f.typ.Elem())
		default:
			continue
		}
		writeTable(b, part, path)
		writeSections(b, part, path)
	}
}

// hotKeys are the paths of those that count without a restart, with all below them.
func hotKeys(t reflect.Type, path string) (hot []string) {
	for _, f := range fields(t) {
		at := join(path, f.key)
		switch {
		case f.hot:
			hot = append(hot, "`"+at+"`")
		case kindOf(f.typ) == kindMap:
			hot = append(hot, hotKeys(f.typ, at)...)
		case isEntries(f.typ):
			hot = append(hot, hotKeys(f.typ.Elem(), at+"[]")...)
		}
	}
	return hot
}

const referenceHead = `# Config reference

<!-- Generated from the types by "go generate ./pkg/config". Change the struct tags, not this file. -->

The daemon reads one YAML file, by default /etc/tandem/tandem.yaml. [tandem.yaml](tandem.yaml) is a complete one with
comments; [config.schema.json](config.schema.json) is its JSON Schema, for editors.

` + "`tandem check FILE`" + ` reads it as the daemon does and prints everything that is wrong, each with its line, its key and
what would be right:

` + "```" + `
tandem.yaml:14: realms[1].media_ports: 16384-24575 overlaps realm "platform" (16384-24575); give each realm a range of its own, e.g. 24576-32767
` + "```" + `

The grammar is strict: a key that is not listed here, a key given twice or a value of another type is an error. Anchors,
aliases and tags are not read. Durations have a unit: 500ms, 30s, 1m30s, 2h. Names are 1 to 63 letters, digits, dots,
dashes and underscores, a letter or digit first. A list has at most 1000 entries, routes 5000, the file at most 1 MiB.
`

// writeTable writes the keys of a config struct, which is at path; its value holds the defaults.
func writeTable(b *strings.Builder, v reflect.Value, path string) {
	b.WriteString("| key | type | default | meaning |\n|---|---|---|---|\n")
	for _, f := range fields(v.Type()) {
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", f.key, typeName(f, path), defaultName(f, v.Field(f.index)), f.doc)
	}
}

func typeName(f field, path string) string {
	// Anchors of headings have no dots.
	anchor := strings.ReplaceAll(join(path, f.key), ".", "")
	switch kindOf(f.typ) {
	case kindMap:
		return fmt.Sprintf("[keys](#%s)", anchor)
	case kindList:
		switch kindOf(f.typ.Elem()) {
		case kindMap:
			return fmt.Sprintf("[list](#%s)", anchor)
		case kindText:
			return "list of " + texts[f.typ.Elem()].name
		case kindInteger:
			return fmt.Sprintf("list of numbers, %s to %s", f.low, f.high)
		}
		return "list of text"
	case kindInteger:
		return fmt.Sprintf("number, %s to %s", f.low, f.high)
	case kindBool:
		return "true, false"
	case kindDuration:
		return fmt.Sprintf("duration, %s to %s", f.low, f.high)
	case kindText:
		return texts[f.typ].name
	}
	if f.enum != nil {
		return strings.Join(f.enum, ", ")
	}
	return "text"
}

func defaultName(f field, v reflect.Value) string {
	if f.required {
		return "required"
	}
	if kindOf(f.typ) == kindMap {
		return "see below"
	}
	if f.leftOut != "" {
		return f.leftOut
	}
	d := defaultOf(f, v)
	if d == nil {
		return "none"
	}
	return "`" + written(d) + "`"
}
