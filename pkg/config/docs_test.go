package config

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"regexp"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/ipsec"
)

// The generated docs are those of the types as they are now.
func TestDocsAreFresh(t *testing.T) {
	for file, want := range map[string][]byte{
		"../../docs/config.md":          Reference(),
		"../../docs/config.schema.json": Schema(),
	} {
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is stale: run go generate ./pkg/config", file)
		}
	}
}

// The reference config is accepted by the schema and by Load, and shows every key.
func TestReferenceConfig(t *testing.T) {
	if _, err := Load("../../docs/tandem.yaml"); err != nil {
		t.Fatalf("docs/tandem.yaml:\n%v", err)
	}
	data, err := os.ReadFile("../../docs/tandem.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := compileSchema(t).Validate(yamlValue(t, data)); err != nil {
		t.Errorf("docs/tandem.yaml against its schema: %v", err)
	}
	// Every key of the grammar is shown.
	missing := keysOf(t, Schema())
	for key := range shownKeys(yamlValue(t, data), "") {
		delete(missing, key)
	}
	for key := range missing {
		t.Errorf("docs/tandem.yaml does not show %s", key)
	}
}

// The whole config in the README is one: whoever copies it is not told off.
func TestREADMEExample(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(node:.*?)```").FindAllSubmatch(text, -1)
	if len(blocks) == 0 {
		t.Error("README.md has no example")
	}
	for _, b := range blocks {
		if _, err := Parse("README.md", b[1]); err != nil {
			t.Errorf("%v\nin\n%s", err, b[1])
		}
		if err := compileSchema(t).Validate(yamlValue(t, b[1])); err != nil {
			t.Errorf("against the schema: %v", err)
		}
	}
}

// What the reference config calls a default can be left out.
func TestReferenceConfigDefaults(t *testing.T) {
	data, err := os.ReadFile("../../docs/tandem.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want, err := Parse("full", data)
	if err != nil {
		t.Fatal(err)
	}
	short := regexp.MustCompile(`(?m)^ *\w[^#\n]*# default.*\n`).ReplaceAll(data, nil)
	emptied := regexp.MustCompile(`(?m)^\w+:\n(\n|\z)`)
	got, err := Parse("short", emptied.ReplaceAll(short, nil))
	if err != nil {
		t.Fatalf("%v\nin\n%s", err, short)
	}
	if bytes.Count(data, []byte("\n"))-bytes.Count(short, []byte("\n")) < 15 {
		t.Errorf("hardly a default is marked:\n%s", short)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{}, ipsec.Secret{}, call.Rate{})); diff != "" {
		t.Errorf("a marked default is none (-full +short):\n%s", diff)
	}
}

// An editor that has only the schema sees what it can, and refuses nothing that Parse
// takes.
func TestSchemaAgreesWithParse(t *testing.T) {
	s := compileSchema(t)
	for _, r := range rows {
		if r.parseOnly {
			continue
		}
		t.Run(r.name, func(t *testing.T) {
			err := s.Validate(yamlValue(t, []byte(r.yaml(t))))
			if (err == nil) != (r.want == "") {
				t.Errorf("schema says %v, Parse says %q", err, r.want)
			}
		})
	}
}

func compileSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("config.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("config.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// yamlValue reads YAML as an editor does: to plain JSON values.
func yamlValue(t *testing.T, data []byte) any {
	t.Helper()
	asJSON, err := yaml.YAMLToJSON(bytes.TrimPrefix(data, []byte("\ufeff")))
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// keysOf lists the paths that a schema knows, list entries as "[]".
func keysOf(t *testing.T, data []byte) map[string]bool {
	t.Helper()
	type node struct {
		Properties map[string]*node `json:"properties"`
		Items      *node            `json:"items"`
	}
	var root node
	if err := json.Unmarshal(data, &root); err != nil {
		t.Fatal(err)
	}
	paths := make(map[string]bool)
	var walk func(n *node, key string)
	walk = func(n *node, key string) {
		if n.Items != nil {
			walk(n.Items, key+"[]")
		}
		for name, p := range n.Properties {
			paths[join(key, name)] = true
			walk(p, join(key, name))
		}
	}
	walk(&root, "")
	return paths
}

func shownKeys(v any, key string) map[string]bool {
	paths := make(map[string]bool)
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			paths[join(key, name)] = true
			for p := range shownKeys(value, join(key, name)) {
				paths[p] = true
			}
		}
	case []any:
		for _, value := range v {
			for p := range shownKeys(value, key+"[]") {
				paths[p] = true
			}
		}
	}
	return paths
}
