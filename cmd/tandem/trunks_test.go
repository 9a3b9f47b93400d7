package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/admin"
)

// testTrunks are a platform, a carrier that is out, one that returns, and one that the
// config does not have any more.
func testTrunks() []admin.TrunkStatus {
	at := netip.MustParseAddrPort
	return []admin.TrunkStatus{{
		Name: "genesys", Realm: "platform", Kind: "platform", State: "in-service", Admin: "in-service", Since: now.Add(-75 * time.Hour), Share: 100,
		MaxCalls: 100, MaxRate: "100/5s",
		In: admin.TrunkDirection{
			Active: 1, Attempts: 12, Answers: 9, Failures: 2, Outcomes: map[string]uint64{"answered": 9, "busy": 2, "moved": 0}, Refused: map[string]uint64{"rate": 3, "full": 1},
			Recent: admin.TrunkWindow{Attempts: 11, Classes: map[string]uint32{"answered": 8, "busy": 2}, ASR: 80, NER: 100, PDDMS: 812.4, ACDMS: 83_500, MOS: 4.21},
		},
		Targets: []admin.TrunkTarget{
			{Address: at("192.0.2.10:5060"), State: "in-service", Since: now.Add(-75 * time.Hour), Probes: 9000, Failures: 1, RoundTripMS: 0.83, Next: now.Add(12 * time.Second)},
			{Address: at("192.0.2.11:5060"), State: "out-of-service", Since: now.Add(-40 * time.Second), Reason: "no answer to 3 OPTIONS in a row", Probes: 9000, Failures: 3},
		},
	}, {
		Name: "telecom-nord", Realm: "telecom-nord", Kind: "carrier", State: "out-of-service", Admin: "in-service", Since: now.Add(-252 * time.Second), Changes: 7,
		Reason: "no tunnel of realm telecom-nord is up", Out: admin.TrunkDirection{Attempts: 9021, Answers: 7310, Failures: 1711},
		Targets: []admin.TrunkTarget{{Address: at("10.8.0.66:5060"), State: "in-service", RoundTripMS: 9.4}},
		Names:   []admin.TrunkName{{Target: "sip.nord.example", State: "stale", Text: "last known targets, of 3m0s ago: no DNS server answers"}},
	}, {
		Name: "west", Realm: "west", Kind: "carrier", State: "in-service", Since: now.Add(-10 * time.Second), Share: 40,
		Out: admin.TrunkDirection{Active: 2, Recent: admin.TrunkWindow{Attempts: 2}},
	}, {
		Name: "metro", Realm: "metro", Kind: "carrier", State: "draining", Removed: true, Reason: "the config does not have it any more", Out: admin.TrunkDirection{Active: 3},
	}}
}

func testGroups() []admin.GroupStatus {
	return []admin.GroupStatus{{
		Name: "carriers", Strategy: "weighted", Adaptive: true, Fallback: "abroad", Members: []admin.GroupMember{
			{Trunk: "telecom-nord", Weight: 5, Multiplier: 1000, State: "out-of-service"}, {Trunk: "west", Weight: 2, Multiplier: 800, Share: 100, State: "in-service", Active: 2},
		},
	}, {
		Name: "abroad", Strategy: "priority", Members: []admin.GroupMember{{Trunk: "metro", Weight: 1, Multiplier: 1000, State: "in-service", Active: 3}},
	}}
}

func setTestTrunk(name, state string) (admin.TrunkStatus, error) {
	if name != "west" {
		return admin.TrunkStatus{}, fmt.Errorf("trunk %q: %w", name, admin.ErrUnknownTrunk)
	}
	return admin.TrunkStatus{Name: name, Realm: name, State: state, Admin: state, Reason: "an operator says so"}, nil
}

func reloadTest(o admin.ReloadOrder) (admin.Reload, error) {
	return admin.Reload{Fingerprint: "f1", Changes: []admin.Change{
		{Path: "trunks[west].max_calls", Old: "10", New: "20", Effect: "hot", Text: "trunks[west].max_calls 10 -> 20: hot"},
		{Path: "trunks[metro]", Old: "there", Effect: "drain", Text: "trunks[metro] removed: drain"},
		{Path: "realms[west].address", Old: "10.20.0.2/32", New: "10.20.0.3/32", Effect: "restart", Text: "realms[west].address 10.20.0.2/32 -> 10.20.0.3/32: restart"},
	}}, nil
}

// T1: one word takes a trunk out and puts it back, and the answer says what it is now.
func TestOrderTrunk(t *testing.T) {
	socket := daemon(t)
	for order, state := range orders {
		got := tandem(t, socket, "trunks", "west", order)
		if got.status != exitOK || !strings.Contains(got.stdout, "west   west   "+state) || !strings.Contains(got.stdout, "an operator says so") {
			t.Errorf("%s: %+v", order, got)
		}
	}
	got := tandem(t, socket, "trunks", "west", "drain", "--json")
	var one admin.TrunkStatus
	if err := json.Unmarshal([]byte(got.stdout), &one); err != nil || one.Admin != "draining" {
		t.Errorf("%v in %+v", err, got)
	}
	if got := tandem(t, socket, "trunks", "wets", "drain"); got.status != exitFailure || !strings.Contains(got.stderr, "there is no such trunk") {
		t.Errorf("a trunk that is not there: %+v", got)
	}
}

// Issue 5: what a reload changes is told before anything else, in words.
func TestReload(t *testing.T) {
	socket := daemon(t)
	const lines = "trunks[west].max_calls 10 -> 20: hot\ntrunks[metro] removed: drain\nrealms[west].address 10.20.0.2/32 -> 10.20.0.3/32: restart\n"
	for want, args := range map[string][]string{
		lines + "2 changed now, 1 wait for a restart\n":                                          {"reload"},
		lines + "dry run: nothing was changed; 2 would change now, 1 would wait for a restart\n": {"reload", "--dry-run"},
	} {
		if got := tandem(t, socket, args...); got.status != exitOK || got.stdout != want {
			t.Errorf("%v: %+v", args, got)
		}
	}
	got := tandem(t, socket, "reload", "--dry-run", "--json")
	var r admin.Reload
	if err := json.Unmarshal([]byte(got.stdout), &r); err != nil || !r.DryRun || len(r.Changes) != 3 || r.Changes[1].Effect != "drain" {
		t.Errorf("%v in %+v", err, got)
	}
	got = tandem(t, socket, "reload", "--json")
	r = admin.Reload{}
	if err := json.Unmarshal([]byte(got.stdout), &r); err != nil || r.DryRun || len(r.Changes) != 3 {
		t.Errorf("%v in %+v", err, got)
	}
}

// Issue 5: the changes are printed before anything is done, and what is done is what was
// printed. A file that is changed between the two is shown again; one that goes on changing is
// left alone.
func TestReloadShowsFirst(t *testing.T) {
	for _, tt := range []struct {
		name string
		// moves is how often the file changes after it was shown.
		moves  int
		status int
		want   string
	}{
		{"at rest", 0, exitOK, "limit 1: hot\n1 changed now, 0 wait for a restart\n"},
		{"changed once", 1, exitOK, "limit 1: hot\nnothing was changed: the config is another by now, with these changes:\nlimit 2: hot\n1 changed now, 0 wait for a restart\n"},
		{"always changing", 9, exitFailure, "limit 3: hot\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			version, moves := 1, tt.moves
			socket := serveReload(t, func(o admin.ReloadOrder) (admin.Reload, error) {
				r := admin.Reload{
					Fingerprint: fmt.Sprintf("f%d", version), Changes: []admin.Change{{Effect: "hot", Text: fmt.Sprintf("limit %d: hot", version)}},
				}
				switch {
				case o.DryRun:
					if moves > 0 {
						moves--
						version++
					}
				case o.Fingerprint != r.Fingerprint:
					return admin.Reload{}, admin.ErrConfigMoved
				case !strings.HasSuffix(stdout.String(), r.Changes[0].Text+"\n"):
					t.Errorf("%q is applied, and printed is %q", r.Changes[0].Text, stdout.String())
				}
				return r, nil
			})
			status := run(t.Context(), env{stdout: &stdout, stderr: &stderr, getenv: func(string) string { return socket }}, []string{"reload"})
			if status != tt.status || !strings.HasSuffix(stdout.String(), tt.want) || (status != exitOK) != strings.Contains(stderr.String(), "the config has changed since") {
				t.Errorf("exit %d, %q, %q", status, stdout.String(), stderr.String())
			}
		})
	}
}

// serveReload is a daemon that only reloads.
func serveReload(t *testing.T, reload func(admin.ReloadOrder) (admin.Reload, error)) (socket string) {
	t.Helper()
	return serveSources(t, admin.Sources{Reload: reload})
}

// screen is a terminal that says so when it was drawn on.
type screen struct {
	bytes.Buffer
	drawn chan struct{}
}

func (s *screen) Write(p []byte) (int, error) {
	n, err := s.Buffer.Write(p)
	s.drawn <- struct{}{}
	return n, err
}

// O5: --watch draws in place until Ctrl-C, which is no failure; a pipe gets the frames as they
// are, and programs one document after the other.
func TestWatch(t *testing.T) {
	socket := daemon(t)
	for _, tt := range []struct {
		terminal bool
		args     []string
	}{
		{true, []string{"trunks", "--watch"}}, {true, []string{"trunks", "west", "--watch"}}, {true, []string{"groups", "--watch"}},
		{true, []string{"groups", "--watch", "--json"}}, {false, []string{"groups", "--watch"}}, {false, []string{"groups", "--watch", "--json"}},
	} {
		args := tt.args
		ctx, interrupt := context.WithCancel(t.Context())
		out := &screen{drawn: make(chan struct{})}
		var stderr bytes.Buffer
		ended := make(chan int, 1)
		e := env{stdout: out, stderr: &stderr, terminal: tt.terminal, getenv: func(string) string { return socket }, now: func() time.Time { return now }, refresh: time.Millisecond}
		go func() { ended <- run(ctx, e, args) }()
		<-out.drawn
		<-out.drawn
		interrupt()
		status, running := 0, true
		for running {
			select {
			case <-out.drawn:
			case status = <-ended:
				running = false
			}
		}
		if status != exitOK || stderr.Len() > 0 {
			t.Errorf("%v: exit %d, %s", args, status, stderr.String())
		}
		got := out.String()
		if args[len(args)-1] == "--json" {
			if strings.Contains(got, "\x1b") || strings.Count(got, `"abroad"`) < 2 {
				t.Errorf("%v: %q", args, got)
			}
			continue
		}
		if !tt.terminal {
			frames := strings.Split(got, "\n\nGROUP")
			if strings.Contains(got, "\x1b") || len(frames) < 2 || !strings.HasPrefix(got, "GROUP") {
				t.Errorf("%v into a pipe: %q", args, got)
			}
			continue
		}
		if strings.Count(got, clearScreen) != 1 || strings.Count(got, goHome) < 2 || strings.Count(got, clearBelow) != strings.Count(got, goHome) ||
			strings.Count(got, "\n") != strings.Count(got, clearLine+"\n") {
			t.Errorf("%v draws %q", args, got)
		}
	}
}

// A daemon that is not there is an error at first; one that is restarted comes back.
func TestWatchOutlivesARestart(t *testing.T) {
	if got := tandem(t, "/nowhere/admin.sock", "trunks", "--watch"); got.status != exitFailure || !strings.Contains(got.stderr, "start tandemd") {
		t.Errorf("without a daemon: %+v", got)
	}
	var out bytes.Buffer
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	c := &cli{env: env{stdout: &out, refresh: time.Millisecond}}
	times := 0
	err := c.watch(ctx, func(_ context.Context, c *cli) error {
		switch times++; times {
		case 2:
			return errors.New("no daemon answers")
		case 4:
			stop()
		}
		_, err := fmt.Fprintln(c.stdout, "all is well")
		return err
	})
	if err != nil || strings.Count(out.String(), "no daemon answers") != 1 || strings.Count(out.String(), "all is well") != 2 {
		t.Errorf("%v, %q", err, out.String())
	}
}
