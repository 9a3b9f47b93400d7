package config

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-sbc/tandem/pkg/route"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

// Whatever the file holds: a config or findings, never both, never a panic. What is
// accepted can be built; every finding is at a line of the file.
func FuzzParse(f *testing.F) {
	for _, file := range []string{"../../docs/tandem.yaml", "testdata/everything.yaml"} {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(good))
	f.Add([]byte(tunnelled))
	for _, s := range []string{"", "---", "? [a]\n: b", "<<: {a: 1}", "node: !!str x", "&x node: *x", "realms: [{}, ]", "log: |\n  x", "%YAML 1.2\n---\na: .nan", "node: \"\\x00\"", "\xff"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("f", data)
		if err == nil {
			if l := c.Validate(); l != nil {
				t.Errorf("accepted, but %v", l.Err())
			}
			if _, err := trunk.New(trunk.Configs{Trunks: c.Trunks, Groups: c.Groups}, nil); err != nil {
				t.Errorf("accepted, but %v", err)
			}
			if _, err := route.New(c.Routes); err != nil {
				t.Errorf("accepted, but %v", err)
			}
			return
		}
		var findings *Errors
		if c != nil || !errors.As(err, &findings) || len(findings.Findings) == 0 {
			t.Fatalf("config %v, error %v", c, err)
		}
		lines := 1 + bytes.Count(data, []byte("\n")) + bytes.Count(data, []byte("\r"))
		for _, found := range findings.Findings {
			if found.Line < 1 || found.Line > lines || found.Column < 1 || found.Problem == "" {
				t.Errorf("a finding is at %d:%d of %d lines: %v", found.Line, found.Column, lines, found)
			}
		}
		_, again := Parse("f", data)
		if diff := cmp.Diff(err, again); diff != "" {
			t.Errorf("another time it says (-first +second):\n%s", diff)
		}
	})
}
