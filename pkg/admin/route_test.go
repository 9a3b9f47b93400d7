package admin

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// T12: the question arrives as it was asked, the answer as it was given.
func TestRoute(t *testing.T) {
	query := call.Query{
		Trunk: "genesys", From: "+4930 1&to=2", To: "+49%30", ToHeader: "112", At: time.Date(2026, 3, 1, 18, 0, 0, 5, time.UTC),
		Headers: []call.Header{{Name: "X-A", Value: "a: b"}, {Name: "X-A", Value: ""}},
	}
	answer := call.Decision{Outcome: call.NoRoute, Steps: []call.Step{{Subject: "routes", Result: "refused", Reason: "none"}}}
	var asked call.Query
	sources := testSources()
	sources.Route = func(q call.Query) call.Decision { asked = q; return answer }
	got, err := NewClient(serve(t, sources)).Route(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	answer.Candidates = []call.Candidate{} // a list is a list
	if diff := cmp.Diff(query, asked) + cmp.Diff(answer, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestRouteRefuses(t *testing.T) {
	sources := testSources()
	if _, err := NewClient(serve(t, sources)).Route(t.Context(), call.Query{Trunk: "a"}); err == nil || !strings.Contains(err.Error(), "read route: ") || !strings.Contains(err.Error(), "501") {
		t.Errorf("a daemon without routes: %v", err)
	}
	sources.Route = func(call.Query) call.Decision { return call.Decision{} }
	socket := serve(t, sources)
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", socket) },
	}}
	for query, status := range map[string]int{
		"trunk=a&to=1": 200, "to=1": 400, "trunk=a&at=noon": 400, "trunk=a&header=x": 400, "trunk=a&to=" + strings.Repeat("1", 20_000): 431,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://tandem/v1/route?"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != status {
			t.Errorf("%.60s: %s, want %d", query, resp.Status, status)
		}
	}
}
