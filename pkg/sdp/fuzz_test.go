package sdp

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// FuzzParse: whatever comes in, either there is an error and it is ErrSyntax, or
// there is a description with one carried stream at most; and what is built from it
// has only lines of the allow list and reads as the same again.
func FuzzParse(f *testing.F) {
	peers, err := filepath.Glob(filepath.Join("testdata", "peers", "*.sdp"))
	if err != nil || len(peers) == 0 {
		f.Fatalf("no peers' bodies: %v", err)
	}
	for _, name := range peers {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	origin := Origin{SessionID: 1, Version: 1, Addr: netip.MustParseAddr("192.0.2.2")}
	f.Fuzz(func(t *testing.T, body []byte) {
		d, err := Parse(body)
		if err != nil {
			if !errors.Is(err, ErrSyntax) {
				t.Fatalf("%v is not ErrSyntax", err)
			}
			return
		}
		carried := 0
		for _, s := range d.Streams {
			if s.Refused {
				continue
			}
			carried++
			if len(s.Codecs) == 0 || s.RTP.Port() < call.LowestMediaPort || s.RTP.Addr().IsMulticast() {
				t.Fatalf("carried, but cannot be: %+v", s)
			}
		}
		if carried > 1 || len(d.Streams) > MaxStreams || len(d.SetAside) > maxSetAside {
			t.Fatalf("%d carried of %d streams, %d remarks", carried, len(d.Streams), len(d.SetAside))
		}

		built := Build(d, origin)
		checkAllowList(t, built)
		again, err := Parse(built)
		if err != nil {
			t.Fatalf("what was built is not read: %v\n%s", err, built)
		}
		// A repaired stream may be built as clean, so the remarks differ.
		if diff := cmp.Diff(d.Streams, again.Streams, compare); diff != "" {
			t.Fatalf("built and read again (-want +got)\n%s", diff)
		}
	})
}

func checkAllowList(t *testing.T, built []byte) {
	t.Helper()
	lines := strings.Split(string(built), "\r\n")
	for _, line := range lines[:len(lines)-1] {
		if len(line) < 2 || line[1] != '=' || !strings.Contains("voscmta", line[:1]) || strings.ContainsAny(line, "\r\n\x00") {
			t.Fatalf("a line %q in\n%s", line, built)
		}
		if attribute, ok := strings.CutPrefix(line, "a="); ok {
			key, _, _ := strings.Cut(attribute, ":")
			if !slices.Contains([]string{"rtpmap", "fmtp", "ptime", "maxptime", "rtcp", "rtcp-mux",
				call.SendRecv.String(), call.SendOnly.String(), call.RecvOnly.String(), call.Inactive.String()}, key) {
				t.Fatalf("an attribute %q in\n%s", line, built)
			}
		}
	}
}
