package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// T1, O5: groups, a trunk that is told to drain, and what a reload changes arrive in the
// client's types; what the daemon refuses arrives with its reason.
func TestSteering(t *testing.T) {
	sources := testSources()
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	groups := []GroupStatus{{
		Name: "carriers", Strategy: "weighted", Adaptive: true, Fallback: "abroad",
		Members: []GroupMember{{Trunk: "a", Weight: 5, Multiplier: 800, Share: 66.7, State: "in-service", Active: 4}},
	}}
	sources.Groups = func() []GroupStatus { return groups }
	drained := TrunkStatus{
		Name: "carrier/a", Realm: "west", Kind: "carrier", State: "draining", Since: noon, Reason: "an operator says so", Admin: "draining", Share: 100, Changes: 3,
		MaxCalls: 10, MaxRate: "40/5s", Out: TrunkDirection{
			Active: 2, Attempts: 9, Answers: 7, Failures: 2, Outcomes: map[string]uint64{"answered": 7, "busy": 2}, Refused: map[string]uint64{"full": 1},
			Recent: TrunkWindow{Attempts: 9, Classes: map[string]uint32{"answered": 7, "busy": 2}, ASR: 77.7, NER: 100, PDDMS: 812.5, ACDMS: 92_000, MOS: 4.1},
		},
		Targets: []TrunkTarget{{Address: netip.MustParseAddrPort("192.0.2.10:5060"), State: "in-service", Since: noon, Probes: 9, Failures: 1, RoundTripMS: 4.5, Next: noon}},
		Names:   []TrunkName{{Target: "sip.example.com", State: "stale", Text: "last known targets"}},
	}
	sources.SetTrunk = func(name, state string) (TrunkStatus, error) {
		switch {
		case name != drained.Name:
			return TrunkStatus{}, fmt.Errorf("trunk %q: %w", name, ErrUnknownTrunk)
		case state != "draining":
			return TrunkStatus{}, fmt.Errorf("it cannot be set to %q", state)
		}
		return drained, nil
	}
	changes := []Change{{Path: "trunks[a].max_calls", Old: "10", New: "20", Effect: "hot", Text: "trunks[a].max_calls 10 -> 20: hot"}}
	var orders []ReloadOrder
	sources.Reload = func(o ReloadOrder) (Reload, error) {
		orders = append(orders, o)
		switch {
		case len(orders) > 4:
			return Reload{}, errors.New("gw.yaml:3: node: is missing; give one")
		case o.Fingerprint != "" && o.Fingerprint != "f1&x":
			return Reload{}, ErrConfigMoved
		}
		return Reload{Changes: changes, Fingerprint: "f1&x"}, nil
	}
	c := NewClient(serve(t, sources))
	ctx := t.Context()
	if got, err := c.Groups(ctx); err != nil || !cmp.Equal(got, groups) {
		t.Errorf("groups %+v, %v", got, err)
	}
	got, err := c.SetTrunk(ctx, "carrier/a", "draining")
	if diff := cmp.Diff(drained, got, cmpopts.EquateComparable(netip.AddrPort{})); err != nil || diff != "" {
		t.Errorf("a drained trunk: %v, -want +got:\n%s", err, diff)
	}
	for _, tt := range []struct{ name, state, want string }{
		{"b", "draining", `404 Not Found: trunk "b": there is no such trunk`}, {"carrier/a", "tired", `400 Bad Request: it cannot be set to "tired"`},
	} {
		if _, err := c.SetTrunk(ctx, tt.name, tt.state); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %s: %v", tt.name, tt.state, err)
		}
	}
	for _, dryRun := range []bool{true, false} {
		r, err := c.Reload(ctx, dryRun)
		if err != nil || r.DryRun != dryRun || !cmp.Equal(r.Changes, changes) || r.Fingerprint != "f1&x" {
			t.Errorf("reload, dry run is %t: %+v, %v", dryRun, r, err)
		}
	}
	if r, err := c.Apply(ctx, "f1&x"); err != nil || !cmp.Equal(r.Changes, changes) {
		t.Errorf("apply: %+v, %v", r, err)
	}
	if _, err := c.Apply(ctx, "f0"); !errors.Is(err, ErrConfigMoved) || !strings.Contains(err.Error(), "409 Conflict: nothing has changed: the config has changed since") {
		t.Errorf("apply what is not there any more: %v", err)
	}
	if want := []ReloadOrder{{DryRun: true}, {}, {Fingerprint: "f1&x"}, {Fingerprint: "f0"}}; !cmp.Equal(orders, want) {
		t.Errorf("ordered: %+v", orders)
	}
	if _, err := c.Reload(ctx, false); err == nil || !strings.Contains(err.Error(), "nothing has changed: gw.yaml:3: node: is missing; give one") {
		t.Errorf("a bad config: %v", err)
	}
}

// What a program sends by mistake changes nothing, and is said.
func TestSteeringIsStrict(t *testing.T) {
	sources := testSources()
	sources.SetTrunk = func(string, string) (TrunkStatus, error) { t.Error("a trunk was changed"); return TrunkStatus{}, nil }
	sources.Reload = func(ReloadOrder) (Reload, error) { t.Error("a reload was begun"); return Reload{}, nil }
	socket := serve(t, sources)
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", socket) },
	}}
	for _, tt := range []struct{ path, body, want string }{
		{"/v1/trunks/a/state", "", `{\"state\":\"draining\"}`},
		{"/v1/trunks/a/state", `{"stat":"draining"}`, "unknown field"},
		{"/v1/trunks/a/state", `{"state":"` + strings.Repeat("x", maxRequest) + `"}`, "too large"},
		{"/v1/reload?dry_run=yes", "", "dry_run is true or false"},
	} {
		resp, err := client.Post("http://tandem"+tt.path, "application/json", strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), tt.want) {
			t.Errorf("%s %.40s: %s, %q, %v", tt.path, tt.body, resp.Status, body, err)
		}
	}
}
