package config

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/invalid"
)

// What the struct tags promise, and so the docs and the schema, is what Validate does:
// the ends of each range are taken and what lies beyond is refused, each word of an enum
// is taken and another is refused, what is required is missed.
func TestTagsAreTrue(t *testing.T) {
	c, err := Load("../../docs/tandem.yaml")
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	var walk func(v reflect.Value, key string)
	walk = func(v reflect.Value, key string) {
		for _, f := range fields(v.Type()) {
			at, path := v.Field(f.index), join(key, f.key)
			if f.doc == "" || f.key == "" {
				t.Errorf("%s: a key needs a yaml and a doc tag", path)
			}
			for _, p := range probes(t, f) {
				checked++
				probe(t, c, at, path, p)
			}
			switch {
			case kindOf(f.typ) == kindMap:
				walk(at, path)
			case kindOf(f.typ) == kindList && kindOf(f.typ.Elem()) == kindMap:
				// The last one: its keys allow the most values of each other.
				last := at.Len() - 1
				walk(at.Index(last), fmt.Sprintf("%s[%d]", path, last))
			}
		}
	}
	walk(reflect.ValueOf(c).Elem(), "")
	if checked < 50 {
		t.Errorf("only %d promises were found", checked)
	}
}

type promise struct {
	value any
	ok    bool
}

// probes are the values that a field's tags speak of.
func probes(t *testing.T, f field) []promise {
	t.Helper()
	var ps []promise
	if f.required {
		ps = append(ps, promise{reflect.Zero(f.typ).Interface(), false})
	}
	if f.enum != nil {
		ps = append(ps, promise{"none-of-them", false})
		for _, word := range f.enum {
			ps = append(ps, promise{word, true})
		}
	}
	switch kindOf(f.typ) {
	case kindInteger:
		low, high := number(t, f.low), number(t, f.high)
		ps = append(ps, promise{low - 1, false}, promise{low, true}, promise{high, true}, promise{high + 1, false})
	case kindDuration:
		low, high := duration(t, f.low), duration(t, f.high)
		ps = append(ps, promise{low - 1, false}, promise{low, true}, promise{high, true}, promise{high + 1, false})
	}
	return ps
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func duration(t *testing.T, s string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func probe(t *testing.T, c *Config, at reflect.Value, path string, p promise) {
	t.Helper()
	kept := reflect.New(at.Type()).Elem()
	kept.Set(at)
	defer at.Set(kept)

	value := reflect.ValueOf(p.value)
	if n, ok := p.value.(int); ok && (n < 0 && at.CanUint() || n >= 0 && at.CanUint() && at.OverflowUint(uint64(n))) {
		return // the type cannot hold it, so decoding refuses it
	}
	at.Set(value.Convert(at.Type()))
	found := slices.ContainsFunc(c.Validate(), func(f invalid.Field) bool { return f.Key == path })
	if found == p.ok {
		t.Errorf("%s: %s: refused is %t, the tags say %t", path, fmt.Sprint(p.value), found, !p.ok)
	}
}
