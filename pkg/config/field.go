package config

import (
	"encoding"
	"fmt"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/ipsec"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

// field is one key of the grammar, as the struct tags say.
type field struct {
	key string
	// index of the struct's field.
	index int
	typ   reflect.Type
	doc   string
	// low and high bound a number or a duration; empty if nothing does.
	low, high string
	// items is the most entries of a list.
	items    int
	enum     []string
	required bool
	// hot keys, and all below them, count without a restart.
	hot bool
	// leftOut is what a list means that the file leaves out, if that is not an empty one.
	leftOut string
}

// leftOut has the lists whose default hangs on other keys: an empty one is not the same.
var leftOut = map[reflect.Type]map[string]string{
	reflect.TypeFor[trunk.GroupConfig](): {"retry_sip": "by kind", "retry_q850": "by kind"},
}

// fields lists the keys of a config struct in their order.
func fields(t reflect.Type) []field {
	fs := make([]field, 0, t.NumField())
	for i := range t.NumField() {
		sf := t.Field(i)
		f := field{key: sf.Tag.Get("yaml"), index: i, typ: sf.Type, doc: sf.Tag.Get("doc"), required: sf.Tag.Get("required") == "true", hot: sf.Tag.Get("reload") == Hot}
		f.low, f.high, _ = strings.Cut(sf.Tag.Get("range"), "-")
		f.leftOut = leftOut[t][f.key]
		f.items = maxItems
		if n, err := strconv.Atoi(sf.Tag.Get("items")); err == nil {
			f.items = n
		}
		if enum := sf.Tag.Get("enum"); enum != "" {
			f.enum = strings.Split(enum, ",")
		}
		fs = append(fs, f)
	}
	return fs
}

func keys(fs []field) []string {
	names := make([]string, len(fs))
	for i, f := range fs {
		names[i] = f.key
	}
	return names
}

// maxItems of a list without a tag for it: far more than a gateway has, few enough to compare
// each with each.
const maxItems = 1000

// kind is the YAML form of a Go type.
type kind int

const (
	kindMap kind = iota
	kindList
	kindString
	kindInteger
	kindBool
	kindDuration
	kindText // a string that the type reads itself
)

var (
	durationType = reflect.TypeFor[time.Duration]()
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// kindOf says how a type is written. A type without a form is a mistake of whoever
// wrote the struct, not of the file; every test of this package meets it.
func kindOf(t reflect.Type) kind {
	switch {
	case t == durationType:
		return kindDuration
	case reflect.PointerTo(t).Implements(textType):
		return kindText
	}
	switch t.Kind() {
	case reflect.Struct:
		return kindMap
	case reflect.Slice:
		return kindList
	case reflect.String:
		return kindString
	case reflect.Bool:
		return kindBool
	case reflect.Int, reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return kindInteger
	}
	panic(fmt.Sprintf("config: type %s has no YAML form", t))
}

// text describes a type that reads itself from a string.
type text struct {
	name, article string
	example       string
	// pattern is the JSON Schema's regular expression.
	pattern string
	// number texts may be written as a number, without quotes.
	number bool
	// secret texts are never repeated: somebody may have written the secret itself.
	secret bool
}

const (
	octets = `[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}`
	ports  = `[0-9]{1,5}-[0-9]{1,5}`
)

var texts = map[reflect.Type]text{
	reflect.TypeFor[netip.Prefix](): {
		name: "address/length", article: "an address with its prefix length", example: "192.0.2.2/24", pattern: "^" + octets + "/[0-9]{1,2}$",
	},
	reflect.TypeFor[netip.Addr]():     {name: "address", article: "an address", example: "192.0.2.1", pattern: "^" + octets + "$"},
	reflect.TypeFor[call.PortRange](): {name: "first-last", article: "a range of ports", example: "16384-24575", pattern: "^" + ports + "$"},
	reflect.TypeFor[call.Rate]():      {name: "count/time", article: "a rate", example: "40/5s", pattern: `^[0-9]+(\.[0-9]{1,3})?/([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+$`},
	reflect.TypeFor[trunk.CodeRange](): {
		name: "number or first-last", article: "a number or a range of numbers", example: "500-599", pattern: `^[0-9]{1,3}(-[0-9]{1,3})?$`, number: true,
	},
	reflect.TypeFor[ipsec.Secret](): {
		name: "source of a secret", article: "the source of a secret", example: "file:/etc/tandem/name.psk",
		pattern: "^(file:/.+|env:[A-Za-z_][A-Za-z0-9_]*)$", secret: true,
	},
}

// durationPattern is what time.ParseDuration reads, without signs.
const durationPattern = `^([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+$`
