// Package layering holds the architecture as a test: which package may import which,
// and which package owns which third-party library (docs/architecture.md).
package layering

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/tandem-sbc/tandem"

// own lists what each package may import of ours. A package that is not here fails:
// whoever adds one says where it stands.
var own = map[string][]string{
	"pkg/call":     {},
	"pkg/g711":     {},
	"pkg/invalid":  {},
	"pkg/sdp":      {"pkg/call"},
	"pkg/header":   {"pkg/call"},
	"pkg/ports":    {"pkg/call"},
	"pkg/quality":  {"pkg/call"},
	"pkg/resolve":  {"pkg/invalid"},
	"pkg/trunk":    {"pkg/call", "pkg/invalid", "pkg/resolve"},
	"pkg/number":   {},
	"pkg/route":    {"pkg/call", "pkg/invalid", "pkg/number"},
	"pkg/explain":  {"pkg/call", "pkg/number", "pkg/route", "pkg/trunk"},
	"pkg/admit":    {"pkg/call", "pkg/invalid"},
	"pkg/datapath": {"pkg/call", "pkg/g711"},
	"pkg/relay":    {"pkg/call", "pkg/g711"},
	"pkg/realm":    {"pkg/call", "pkg/invalid", "pkg/resolve"},
	"pkg/ipsec":    {"pkg/call", "pkg/invalid"},
	"pkg/sipua":    {"pkg/call", "pkg/header"},
	"pkg/media":    {"pkg/call", "pkg/sdp", "pkg/ports", "pkg/quality"},
	"pkg/b2bua":    {"pkg/call", "pkg/number", "pkg/trunk", "pkg/route", "pkg/admit", "pkg/media"},
	"pkg/cdr":      {"pkg/call", "pkg/invalid"},
	"pkg/metrics":  {"pkg/call", "pkg/invalid"},
	"pkg/admin":    {"pkg/call", "pkg/invalid"},
	"pkg/config":   {"pkg/call", "pkg/invalid", "pkg/resolve", "pkg/realm", "pkg/ipsec", "pkg/trunk", "pkg/route", "pkg/admit", "pkg/cdr", "pkg/metrics", "pkg/admin"},
	"pkg/app": {
		"pkg/call", "pkg/resolve", "pkg/realm", "pkg/ipsec", "pkg/trunk", "pkg/route", "pkg/admit", "pkg/datapath", "pkg/relay", "pkg/sipua",
		"pkg/media", "pkg/b2bua", "pkg/cdr", "pkg/metrics", "pkg/admin", "pkg/config", "pkg/explain", "pkg/number",
	},
	"cmd/tandemd": {"pkg/app", "pkg/config"},
	"cmd/tandem":  {"pkg/admin", "pkg/app", "pkg/call", "pkg/config", "pkg/explain", "pkg/number", "pkg/route", "pkg/trunk"},
}

// owners says which packages may import a library; everybody else goes through them.
var owners = map[string][]string{
	// The kernel engine, and the packet generator, which is made of program runs.
	"github.com/cilium/ebpf":                {"pkg/datapath", "tests/traffic"},
	"github.com/vishvananda/":               {"pkg/datapath", "pkg/ipsec", "pkg/realm", "tests/"}, // datapath: its TC filters; ipsec: SAs; devices are realm's
	"github.com/emiago/sipgo":               {"pkg/sipua"},
	"github.com/pion/":                      {"pkg/quality", "pkg/sdp", "tests/"},
	"github.com/prometheus/":                {"pkg/metrics"},
	"github.com/goccy/go-yaml":              {"pkg/config"},
	"github.com/invopop/jsonschema":         {"pkg/config"},
	"github.com/spf13/cobra":                {"cmd/"},
	"github.com/strongswan/govici":          {"pkg/ipsec", "tests/"},
	"github.com/oklog/ulid":                 {"pkg/b2bua"},
	"github.com/gopacket/gopacket":          {"tests/"},
	"golang.org/x/net/dns":                  {"pkg/resolve"},
	"github.com/miekg/dns":                  {"tests/"}, // servers of tests: another implementation than ours
	"github.com/safchain/ethtool":           {"tests/"},
	"github.com/santhosh-tekuri/jsonschema": {},
}

type pkg struct {
	ImportPath string
	Imports    []string
}

func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", module+"/...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	var pkgs []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// TestImportsPointOneWay: nothing flows backwards.
func TestImportsPointOneWay(t *testing.T) {
	for _, p := range list(t) {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		if !strings.HasPrefix(name, "pkg/") && name != "cmd/tandemd" && name != "cmd/tandem" {
			continue
		}
		allowed, known := own[name]
		// A package below another one is part of it.
		for parent := name; !known && strings.Contains(parent, "/"); {
			parent = parent[:strings.LastIndex(parent, "/")]
			allowed, known = own[parent]
			allowed = append(slices.Clone(allowed), parent)
		}
		if !known {
			t.Errorf("%s has no place in the layering: add it to this test and to docs/architecture.md", name)
			continue
		}
		for _, imp := range p.Imports {
			if of, isOwn := strings.CutPrefix(imp, module+"/"); isOwn && !slices.Contains(allowed, of) {
				t.Errorf("%s imports %s: allowed are %v", name, of, allowed)
			}
		}
	}
}

// TestLibrariesHaveOneOwner: a library can be replaced in one place.
func TestLibrariesHaveOneOwner(t *testing.T) {
	for _, p := range list(t) {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		for _, imp := range p.Imports {
			for library, allowed := range owners {
				if !strings.HasPrefix(imp, library) {
					continue
				}
				if !slices.ContainsFunc(allowed, func(owner string) bool {
					return name == owner || strings.HasPrefix(name, strings.TrimSuffix(owner, "/")+"/")
				}) {
					t.Errorf("%s imports %s: only %v may", name, imp, allowed)
				}
			}
		}
	}
}
