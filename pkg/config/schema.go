package config

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Schema is the JSON Schema (draft 2020-12) of the config file, for editors and for
// tools that write configs. It knows types, ranges and required keys; what keys say of
// each other only Parse knows.
func Schema() []byte {
	defaults := new(Config)
	defaults.SetDefaults()
	s := mapSchema(reflect.ValueOf(defaults).Elem())
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["$id"] = "https://github.com/tandem-sbc/tandem/docs/config.schema.json"
	s["title"] = "Tandem config"
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(s); err != nil {
		panic("config: the schema is plain maps and cannot fail to encode: " + err.Error())
	}
	return b.Bytes()
}

type schema = map[string]any

// mapSchema describes a config struct; its value holds the defaults.
func mapSchema(v reflect.Value) schema {
	properties := make(schema)
	required := []string{}
	for _, f := range fields(v.Type()) {
		s := valueSchema(f, v.Field(f.index))
		s["description"] = f.doc
		properties[f.key] = s
		if f.required {
			required = append(required, f.key)
		}
	}
	return schema{"type": "object", "additionalProperties": false, "properties": properties, "required": required}
}

func valueSchema(f field, v reflect.Value) schema {
	s := schema{}
	switch kindOf(f.typ) {
	case kindMap:
		return mapSchema(v)
	case kindList:
		s["type"] = "array"
		s["maxItems"] = f.items
		s["items"] = itemSchema(f)
		if f.required {
			s["minItems"] = 1
		}
	case kindString:
		s["type"] = "string"
		if f.required {
			s["minLength"] = 1
		}
		if f.enum != nil {
			s["enum"] = f.enum
		}
	case kindInteger:
		s["type"] = "integer"
		s["minimum"], s["maximum"] = json.Number(f.low), json.Number(f.high)
	case kindBool:
		s["type"] = "boolean"
	case kindDuration:
		s["type"] = "string"
		s["pattern"] = durationPattern
	case kindText:
		s["type"] = "string"
		if texts[f.typ].number {
			s["type"] = []string{"string", "integer"}
		}
		s["pattern"] = texts[f.typ].pattern
		s["examples"] = []string{texts[f.typ].example}
	}
	if d := defaultOf(f, v); d != nil {
		s["default"] = d
	}
	return s
}

func itemSchema(list field) schema {
	t := list.typ.Elem()
	return valueSchema(field{typ: t, low: list.low, high: list.high, items: maxItems}, defaultItem(t))
}

// defaultItem is a new entry of a list, with its defaults.
func defaultItem(t reflect.Type) reflect.Value {
	v := reflect.New(t)
	if d, ok := v.Interface().(defaulter); ok {
		d.SetDefaults()
	}
	return v.Elem()
}

// defaultOf is the value that a key has when the file leaves it out, as it would be
// written, or nil if it is required or has none that one could write.
func defaultOf(f field, v reflect.Value) any {
	if f.required || f.key == "" || f.leftOut != "" {
		return nil
	}
	switch kindOf(f.typ) {
	case kindDuration:
		return short(v.Interface().(time.Duration))
	case kindText:
		if v.IsZero() {
			return nil
		}
		text, err := v.Interface().(encoding.TextMarshaler).MarshalText()
		if err != nil {
			panic(fmt.Sprintf("config: the default of %s cannot be written: %v", f.key, err))
		}
		return string(text)
	case kindString:
		if v.IsZero() {
			return nil
		}
	case kindInteger:
		if v.IsZero() && f.low != "0" {
			return nil // it says that the key was left out
		}
	case kindList:
		if v.IsNil() {
			return []string{}
		}
	}
	return v.Interface()
}

// short writes a duration without zero parts: "3m" and not "3m0s".
func short(d time.Duration) string {
	s := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, zero) {
			s = s[:len(s)-2]
		}
	}
	return s
}

// written is a default as one writes it in YAML.
func written(d any) string {
	switch d := d.(type) {
	case string:
		return d
	case []string:
		return "[" + strings.Join(d, ", ") + "]"
	case []int:
		return strings.ReplaceAll(fmt.Sprint(d), " ", ", ")
	case int:
		return strconv.Itoa(d)
	}
	return fmt.Sprint(d)
}
