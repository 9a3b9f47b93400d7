package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// testRoute repeats the question, so that it can be seen.
func testRoute(q call.Query) call.Decision {
	d := call.Decision{Outcome: call.NoRoute, Called: q.To, Caller: q.From, Steps: []call.Step{{Subject: "called number", Result: "as it is", Reason: q.Trunk + " " + q.To}}}
	if len(q.Headers) == 2 {
		d.Outcome, d.Route, d.Trunk = call.Routed, "r", "a\x1b[2J"
		d.Steps = append(d.Steps, call.Step{Subject: "route r", Result: "taken", Reason: q.At.UTC().Format("15:04 ") + q.ToHeader + " " + q.Headers[1].Value})
		d.Candidates = []call.Candidate{{Trunk: "a", State: "in-service", Offered: true}, {Trunk: "b", Group: "g", State: "out-of-service", Reason: "no answer to OPTIONS"}}
	}
	return d
}

// T12: the running daemon explains, and nothing steers the terminal.
func TestRouteOfDaemon(t *testing.T) {
	socket := daemon(t)
	got := tandem(t, socket, "route", "tel:+49-30-1", "<sip:%2B4989@x;user=phone>", "--trunk", "genesys", "--to-header", "sip:112@x",
		"--header", "X-A: 1", "--header", "X-B: c: d", "--at", "2026-03-01T18:00:00+01:00")
	for _, want := range []string{
		"called number as it is genesys +4989\n", "route r taken 17:00 112 c: d\n",
		"The call goes to trunk a?[2J: called number +4989, calling number +49-30-1.\n",
		"TRY TRUNK GROUP STATE REASON\n1 a - in-service -\n- b g out-of-service no answer to OPTIONS\n",
	} {
		if !strings.Contains(squeeze(got.stdout), want) {
			t.Errorf("%q is not in\n%s", want, got.stdout)
		}
	}
	if got.status != exitOK || got.stderr != "" || strings.ContainsRune(got.stdout, '\x1b') {
		t.Errorf("%+v", got)
	}
	if got := tandem(t, socket, "route", "", "112", "--trunk", "x"); got.status != exitFailure || got.stderr != "" || strings.Contains(got.stdout, "goes to") {
		t.Errorf("no route: %+v", got)
	}
	var d call.Decision
	if got := tandem(t, socket, "route", "1", "2", "--trunk", "x", "--json"); got.status != exitFailure || json.Unmarshal([]byte(got.stdout), &d) != nil || d.Outcome != call.NoRoute {
		t.Errorf("no route as JSON: %+v", got)
	}
	if got := tandem(t, filepath.Join(t.TempDir(), "absent"), "route", "1", "2", "--trunk", "x"); got.status != exitFailure || !strings.Contains(got.stderr, "start tandemd") {
		t.Errorf("no daemon: %+v", got)
	}
}

// T12: a file explains without a daemon, and a wrong one says what is wrong.
func TestRouteOfFile(t *testing.T) {
	const good = "../../docs/tandem.yaml"
	got := tandem(t, "", "route", "0301234567", "08001234567", "--trunk", "genesys", "--config", good)
	for _, want := range []string{
		`called number normalised "08001234567" becomes "+498001234567" (country code 49,`, "route freephone taken the call comes from genesys,",
		"The call goes to trunk metro: called number +498001234567, calling number +49301234567.", "1 metro",
	} {
		if !strings.Contains(squeeze(got.stdout), want) {
			t.Errorf("%q is not in\n%s", want, got.stdout)
		}
	}
	if got.status != exitOK || got.stderr != "" {
		t.Errorf("%+v", got)
	}
	if got := tandem(t, "", "route", "1", "2", "--trunk", "genesis", "--config", good); got.status != exitFailure || !strings.Contains(got.stdout, `there is no trunk "genesis"`) {
		t.Errorf("unknown trunk: %+v", got)
	}
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("node: gw1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := tandem(t, "", "route", "1", "2", "--trunk", "a", "--config", bad); got.status != exitFailure || got.stdout != "" || !strings.Contains(got.stderr, bad+":1: realms: is missing") {
		t.Errorf("a wrong file: %+v", got)
	}
	if got := tandem(t, "", "route", "1", "2", "--trunk", "a", "--config", bad+".absent"); got.status != exitFailure || !strings.Contains(got.stderr, "no such file") {
		t.Errorf("no file: %+v", got)
	}
}
