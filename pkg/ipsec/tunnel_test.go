package ipsec

import (
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/strongswan/govici/vici"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// testTunnel is a tunnel of a config with all defaults.
func testTunnel() Tunnel {
	c := validConfig()
	return Tunnel{Config: c, Device: "tdx1-carrier-a", IfID: 1}
}

func testKeeper(t testing.TB) *keeper {
	t.Helper()
	c, err := newCharon("/run/tdm", "gw", "carrier-a", "/run/netns/tdmnone", DefaultCharon)
	if err != nil {
		t.Fatal(err)
	}
	return newKeeper(Realm{
		Name: "carrier-a", Namespace: "/run/netns/tdmnone", Inner: netip.MustParseAddr("10.60.0.1"), Tunnels: []Tunnel{testTunnel()},
	}, c, slog.New(slog.DiscardHandler), func(State) {})
}

func ikeOf(id, initiator string, age time.Duration, children ...childSA) ikeSA {
	return ikeSA{Name: "primary", ID: id, State: ikeEstablished, Initiator: initiator, Responder: "1", Age: age, Children: children}
}

func childOf(id string, age time.Duration) childSA {
	return childSA{Name: "primary", ID: id, State: childInstalled, In: 1000, Out: 2000, IfID: 1, Age: age}
}

// Only what is installed carries, whatever the IKE_SA is at.
func TestCarrying(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*ikeSA)
		want   int
	}{
		{"installed", func(*ikeSA) {}, 1},
		{"being rekeyed", func(s *ikeSA) { s.Children[0].State = "REKEYING" }, 1},
		{"rekeyed", func(s *ikeSA) { s.Children[0].State = "REKEYED" }, 0},
		{"being made", func(s *ikeSA) { s.Children[0].State = "INSTALLING" }, 0},
		{"IKE_SA being rekeyed", func(s *ikeSA) { s.State = "REKEYING" }, 1},
		{"IKE_SA being ended", func(s *ikeSA) { s.State = "DELETING" }, 0},
		{"no child", func(s *ikeSA) { s.Children = nil }, 0},
		{"another tunnel's", func(s *ikeSA) { s.Name = "backup" }, 0},
		{"child of another name", func(s *ikeSA) { s.Children[0].Name = "backup" }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := ikeOf("1", "a", time.Minute, childOf("1", time.Minute))
			c.change(&s)
			if got := carrying("primary", "", []ikeSA{s}); len(got) != c.want {
				t.Errorf("%d carry, want %d", len(got), c.want)
			}
		})
	}
}

// Both ends choose the same of two SAs, in any order, and end none before both have carried.
func TestSettle(t *testing.T) {
	s, m := time.Second, time.Minute
	for _, c := range []struct {
		name string
		sas  []ikeSA
		stay string
		go_  []string
	}{
		{"one", []ikeSA{ikeOf("1", "a", m, childOf("11", m))}, "11", nil},
		{"made at once", []ikeSA{ikeOf("1", "a", m, childOf("11", m)), ikeOf("2", "b", m+3*s, childOf("21", m))}, "21", []string{"11"}},
		{"made one after the other", []ikeSA{ikeOf("1", "a", m, childOf("11", m)), ikeOf("2", "b", 2*m, childOf("21", m))}, "11", []string{"21"}},
		{"too young", []ikeSA{ikeOf("1", "a", s, childOf("11", s)), ikeOf("2", "b", 2*m, childOf("21", m))}, "11", nil},
		{"two children", []ikeSA{ikeOf("1", "a", m, childOf("11", m), childOf("12", 30*s))}, "12", []string{"11"}},
	} {
		for _, order := range []string{"", " reversed"} {
			t.Run(c.name+order, func(t *testing.T) {
				found := carrying("primary", "", c.sas)
				if order != "" {
					slices.Reverse(found)
				}
				stays, superfluous := settle(found)
				var ids []string
				for _, x := range superfluous {
					ids = append(ids, x.child.ID)
				}
				if stays.child.ID != c.stay || !slices.Equal(ids, c.go_) {
					t.Errorf("%s stays and %v go, want %s and %v", stays.child.ID, ids, c.stay, c.go_)
				}
			})
		}
	}
}

func TestDueAttempt(t *testing.T) {
	now := time.Unix(1e9, 0)
	connecting := func(ours bool, responder string) []ikeSA {
		return []ikeSA{{Name: "primary", State: ikeConnecting, Ours: ours, Responder: responder}}
	}
	for _, c := range []struct {
		name   string
		change func(*tunnel)
		sas    []ikeSA
		want   bool
	}{
		{"down", func(*tunnel) {}, nil, true},
		{"carrying", func(t *tunnel) { t.found = true }, nil, false},
		{"already trying", func(t *tunnel) { t.trying = true }, nil, false},
		{"too soon", func(t *tunnel) { t.next = now.Add(time.Millisecond) }, nil, false},
		{"no key", func(t *tunnel) { t.blocked = errNoCharon }, nil, false},
		{"peer is trying", func(*tunnel) {}, connecting(false, "1"), false},
		{"peer has answered", func(*tunnel) {}, connecting(true, "00ff"), false},
		{"peer has not answered", func(*tunnel) {}, connecting(true, "0000000000000000"), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := testKeeper(t).tunnels[0]
			c.change(x)
			if got := x.dueAttempt(c.sas, now); got != c.want {
				t.Errorf("due is %v", got)
			}
		})
	}
}

// A peer that comes back is tried within 3 s; what needs people is tried every 10 s at last.
func TestPatience(t *testing.T) {
	for cause, want := range map[string][]int{
		causeUnreachable: {1, 2, 3, 3, 3}, causeProposal: {1, 2, 3, 3, 3}, causePSK: {1, 2, 3, 4, 5}, causeExpired: {1, 2, 3, 4, 5},
	} {
		for i, seconds := range want {
			if got := patience(cause, i+1); got != time.Duration(seconds)*time.Second {
				t.Errorf("%s, failure %d: %s, want %ds", cause, i+1, got, seconds)
			}
		}
	}
	if got := patience(causePSK, 1000); got != 10*time.Second {
		t.Errorf("at last %s", got)
	}
}

// An equal failure is logged once, and once a minute with its number; another one at once.
func TestRepeatedFailures(t *testing.T) {
	log := &logBuffer{}
	x := testKeeper(t).tunnels[0]
	x.log = slog.New(slog.NewTextHandler(log, nil))
	start := time.Unix(1e9, 0)
	for i := range 61 {
		now := start.Add(time.Duration(i) * time.Second)
		x.fail(because(x.Tunnel, causePSK, ""), now, now)
	}
	if got := log.String(); countLines([]byte(got), "cause=psk-mismatch") != 2 || countLines([]byte(got), "times=60") != 1 {
		t.Errorf("log:\n%s", got)
	}
	now := start.Add(62 * time.Second)
	x.fail(because(x.Tunnel, causeProposal, ""), now, now)
	if got := log.String(); countLines([]byte(got), "cause=proposal-mismatch") != 1 {
		t.Errorf("log:\n%s", got)
	}
	if x.failures[causePSK] != 61 || x.tries != 1 || !x.next.Equal(now.Add(time.Second)) {
		t.Errorf("%v, tries %d, next after %s", x.failures, x.tries, x.next.Sub(now))
	}
}

// An attempt that has waited for an answer waits no longer than a second after it.
func TestUnansweredAttemptIsRepeatedSoon(t *testing.T) {
	x := testKeeper(t).tunnels[0]
	started := time.Unix(1e9, 0)
	ended := started.Add(attemptTimeout)
	for range 5 {
		x.fail(because(x.Tunnel, causeUnreachable, ""), started, ended)
	}
	if got := x.next.Sub(ended); got != time.Second {
		t.Errorf("next after %s", got)
	}
}

// I3: what charon says about an SA that carried is the cause of the tunnel's end.
func TestEndOfAnSA(t *testing.T) {
	for _, c := range []struct {
		name, line, id, cause string
		dpd                   uint64
	}{
		{"peer given up", "giving up after 3 retransmits", "1", causeDPD, 1},
		{"deleted", "received DELETE for IKE_SA primary[1]", "1", causeDeleted, 0},
		{"another SA deleted", "received DELETE for IKE_SA primary[2]", "2", "", 0},
		{"nothing new", "sending DPD request", "1", "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := testKeeper(t)
			x := k.tunnels[0]
			now := time.Unix(1e9, 0)
			x.found, x.current = true, sa{ike: ikeOf("1", "a", time.Minute), child: childOf("1", time.Minute)}
			x.move(true, now)
			k.notice(vici.Event{Name: "log", Message: build(t, map[string]any{"msg": c.line, "ikesa-uniqueid": c.id, "ikesa-name": "primary"})}, now)
			if x.why.cause != c.cause || x.dpdFailures != c.dpd || len(x.failures) != 0 {
				t.Errorf("cause %q, %d DPD failures, %v", x.why.cause, x.dpdFailures, x.failures)
			}
			x.found = false
			x.move(false, now)
			if x.state == call.TunnelUp || x.failures[c.cause] != uint64(min(len(c.cause), 1)) {
				t.Errorf("state %s, failures %v", x.state, x.failures)
			}
		})
	}
}

// The reason may be heard after the end was seen.
func TestReasonAfterTheEnd(t *testing.T) {
	k := testKeeper(t)
	x, now := k.tunnels[0], time.Unix(1e9, 0)
	x.current = sa{ike: ikeOf("1", "a", time.Minute), child: childOf("1", time.Minute)}
	x.move(true, now)
	x.move(false, now)
	line := build(t, map[string]any{"msg": "giving up after 3 retransmits", "ikesa-uniqueid": "1", "ikesa-name": "primary"})
	for range 2 {
		k.notice(vici.Event{Name: "log", Message: line}, now)
	}
	x.move(false, now)
	if s := x.status(now, false, traffic{}); s.Cause != causeDPD || s.DPDFailures != 1 || s.Failures[causeDPD] != 1 || s.State != call.TunnelDown {
		t.Errorf("%+v", s)
	}
}

// charon says that it gives up before the SA is out of its listing, and out of the kernel.
func TestReasonBeforeTheEnd(t *testing.T) {
	k := testKeeper(t)
	x, now := k.tunnels[0], time.Now()
	x.trying = true // no attempt in this test
	listed := []ikeSA{ikeOf("1", "a", time.Minute, childOf("1", time.Minute))}
	kernel := kernelOf(x)
	k.lookIKE(t.Context(), x, listed, kernel, nil, now)
	line := build(t, map[string]any{"msg": "giving up after 3 retransmits", "ikesa-uniqueid": "1", "ikesa-name": "primary"})
	k.notice(vici.Event{Name: "log", Message: line}, now)
	k.lookIKE(t.Context(), x, listed, kernel, nil, now)
	k.lookIKE(t.Context(), x, nil, nil, nil, now)
	if s := x.status(now, false, traffic{}); s.State != call.TunnelDown || s.Cause != causeDPD || s.Failures[causeDPD] != 1 {
		t.Errorf("%+v", s)
	}
}

// kernelOf are the states of a tunnel's only SA.
func kernelOf(x *tunnel) []state {
	local, remote := x.Local.Addr(), x.Remote
	return []state{
		{id: stateID{dst: local, spi: 1000, proto: 50}, src: remote, ifID: 1}, {id: stateID{dst: remote, spi: 2000, proto: 50}, src: local, ifID: 1},
	}
}

// States of an earlier charon do not keep a tunnel up whose peer was given up.
func TestOrphansDoNotOutliveTheirReason(t *testing.T) {
	k := testKeeper(t)
	x, now := k.tunnels[0], time.Now()
	x.trying = true // no attempt in this test
	k.lookIKE(t.Context(), x, []ikeSA{ikeOf("1", "a", time.Minute, childOf("1", time.Minute))}, kernelOf(x), nil, now)
	x.lose(because(x.Tunnel, causeDPD, ""), now)
	k.lookIKE(t.Context(), x, nil, kernelOf(x), nil, now)
	if x.state != call.TunnelUp {
		t.Errorf("%s a moment after the end, with states in the kernel", x.state)
	}
	k.lookIKE(t.Context(), x, nil, kernelOf(x), nil, now.Add(removal))
	if x.state != call.TunnelDown || x.failures[causeDPD] != 1 {
		t.Errorf("%s, failures %v", x.state, x.failures)
	}
}

// The next charon counts its IKE_SAs from 1 again.
func TestEndedSAHidesNoLaterOne(t *testing.T) {
	k := testKeeper(t)
	x, now := k.tunnels[0], time.Now()
	x.trying = true // no attempt in this test
	first := []ikeSA{ikeOf("1", "a", time.Minute, childOf("1", time.Minute))}
	k.lookIKE(t.Context(), x, first, nil, nil, now)
	x.lose(because(x.Tunnel, causeDeleted, ""), now)
	if k.lookIKE(t.Context(), x, first, nil, nil, now); x.found {
		t.Error("the SA that is at its end carries")
	}
	if k.lookIKE(t.Context(), x, []ikeSA{ikeOf("1", "b", 0, childOf("1", 0))}, nil, nil, now); !x.found || x.gone != "" {
		t.Errorf("found is %v, gone %q", x.found, x.gone)
	}
}

// The IKE_SA that was rekeyed is deleted, and that is not the end of its children.
func TestEndOfARekeyedSA(t *testing.T) {
	k := testKeeper(t)
	x, now := k.tunnels[0], time.Now()
	k.lookIKE(t.Context(), x, []ikeSA{ikeOf("1", "a", time.Minute, childOf("1", time.Minute))}, nil, nil, now)
	k.notice(vici.Event{Name: "ike-rekey", Message: build(t, map[string]any{"primary": map[string]any{
		"old": map[string]any{"uniqueid": "1", "initiator-spi": "a"}, "new": map[string]any{"uniqueid": "2", "initiator-spi": "b"},
	}})}, now)
	deleted := func(id string) bool {
		return k.notice(vici.Event{Name: "log", Message: build(t, map[string]any{
			"msg": "received DELETE for IKE_SA primary[" + id + "]", "ikesa-uniqueid": id, "ikesa-name": "primary",
		})}, now)
	}
	if deleted("1") || x.lost || x.ikeRekeys != 1 {
		t.Errorf("lost is %v after %d rekeys", x.lost, x.ikeRekeys)
	}
	if !deleted("2") || !x.lost || x.gone != "b" {
		t.Errorf("lost is %v, gone %q", x.lost, x.gone)
	}
}

// One listing without SAs that the kernel has may be from the middle of a rekeying of IKE.
func TestAttemptAfterTwoEmptyListings(t *testing.T) {
	now := time.Unix(1e9, 0)
	x := testKeeper(t).tunnels[0]
	x.confirm(true, now)
	if x.dueAttempt(nil, now) || !x.next.Equal(now.Add(confirmAfter)) {
		t.Errorf("due at once; next after %s", x.next.Sub(now))
	}
	now = now.Add(confirmAfter)
	if x.confirm(true, now); !x.dueAttempt(nil, now) {
		t.Error("not due after the second listing")
	}
	x.found = true
	x.confirm(true, now)
	x.found = false
	if x.confirm(false, now); !x.dueAttempt(nil, now) {
		t.Error("not due at once with nothing in the kernel")
	}
}

// A peer that takes back what it agrees to is asked less and less often, and one that goes
// after it has carried is asked at once.
func TestPauseAfterShortSuccess(t *testing.T) {
	k := testKeeper(t)
	x, now := k.tunnels[0], time.Unix(1e9, 0)
	for i, want := range []time.Duration{1, 2, 3, 3} {
		x.trying = true
		k.ended(attempt{x, now, nil, nil}, now)
		if pause := x.next.Sub(now); pause != time.Second {
			t.Errorf("%d: next %s after an attempt that came through", i, pause)
		}
		x.take(sa{ike: ikeOf("1", string(rune('a'+i)), 0), child: childOf("1", 0)}, now)
		x.move(true, now)
		x.lose(because(x.Tunnel, causeDeleted, ""), now)
		if pause := x.next.Sub(now); pause != want*time.Second {
			t.Errorf("%d: next %s after the end, want %ds", i, pause, want)
		}
		x.move(false, now)
		now = x.next
	}
	x.take(sa{ike: ikeOf("2", "z", 0), child: childOf("1", 0)}, now)
	now = now.Add(lasting)
	if x.lose(because(x.Tunnel, causeDeleted, ""), now); x.next.After(now) || x.tries != 0 {
		t.Errorf("next %s after the end of an SA that lasted, tries %d", x.next.Sub(now), x.tries)
	}
}

// Traffic leaves a tunnel whose monitor fell silent before charon is asked.
func TestMonitorsBeforeCharon(t *testing.T) {
	k := testKeeper(t)
	var told []State
	k.changed = func(s State) { told = append(told, s) }
	x, now := k.tunnels[0], time.Unix(1e9, 0)
	x.monitor = newMonitor("tdmnone", us, them, time.Second, 3, true)
	x.move(true, now)
	k.decide(now)
	x.monitor.missed = 3
	if k.follow(now); x.state != call.TunnelUnverified || len(told) != 2 || told[1].Active != "" {
		t.Errorf("%s, told %+v", x.state, told)
	}
}

// After a restart on the backup traffic stays there while nobody has answered by the primary.
func TestRestartOnTheBackup(t *testing.T) {
	k := testKeeper(t)
	c, err := newCharon("/run/tdm", "gw", "carrier-a", "/run/netns/tdmnone", DefaultCharon)
	if err != nil {
		t.Fatal(err)
	}
	r := k.realm
	r.Monitor, r.Active = func() netip.Addr { return them }, "backup"
	backup := testTunnel()
	backup.Name, backup.IfID = "backup", 2
	r.Tunnels = append(r.Tunnels, backup)
	k = newKeeper(r, c, k.log, func(State) {})
	now := time.Unix(1e9, 0)
	decide := func(want, when string) {
		t.Helper()
		if k.decide(now); k.state.Active != want {
			t.Errorf("%s: traffic goes by %q, want %q", when, k.state.Active, want)
		}
	}
	for _, x := range k.tunnels {
		x.move(true, now)
		x.monitor.request(now)
	}
	decide("backup", "at the start")
	k.tunnels[1].monitor.answer(1, now)
	now = now.Add(time.Hour)
	decide("backup", "nobody has answered by the primary")
	k.tunnels[0].monitor.answer(1, now)
	k.realm.ReturnAfter = time.Minute
	decide("backup", "the primary has just answered")
	now = now.Add(time.Minute)
	decide("primary", "the primary has answered a while ago")
}

// An attempt that fails while another one has brought the tunnel up is no failure.
func TestAttemptThatLost(t *testing.T) {
	k := testKeeper(t)
	x, now := k.tunnels[0], time.Now()
	sas := []ikeSA{ikeOf("1", "a", time.Minute, childOf("1", time.Minute))}
	k.ended(attempt{x, now, nil, errNoCharon}, now)
	k.lookIKE(t.Context(), x, sas, nil, nil, now)
	if s := x.status(now, false, traffic{}); s.State != call.TunnelUp || len(s.Failures) != 0 {
		t.Errorf("%+v", s)
	}
}

// An SA that is replaced by another one is no failure of the tunnel.
func TestReplacedSAIsNoFailure(t *testing.T) {
	x := testKeeper(t).tunnels[0]
	now := time.Unix(1e9, 0)
	x.move(true, now)
	x.lose(because(x.Tunnel, causeDeleted, ""), now)
	x.move(true, now)
	if s := x.status(now, true, traffic{}); s.State != call.TunnelUp || s.Cause != "" || len(s.Failures) != 0 {
		t.Errorf("%+v", s)
	}
}

func TestOrphans(t *testing.T) {
	local, remote := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	in := state{id: stateID{dst: local, spi: 1000, proto: 50}, src: remote, ifID: 1}
	out := state{id: stateID{dst: remote, spi: 2000, proto: 50}, src: local, ifID: 1}
	if !pair([]state{in, out}, 1, local, remote) || pair([]state{in}, 1, local, remote) || pair([]state{in, out}, 2, local, remote) {
		t.Error("a pair is one state each way of one tunnel")
	}
	var o orphans
	now := time.Unix(1e9, 0)
	known := []ikeSA{ikeOf("1", "a", time.Minute, childOf("1", time.Minute))}
	if got := o.sort([]state{in, out}, nil, now); len(got) != 0 {
		t.Errorf("%d outdated at once", len(got))
	}
	if got := o.sort([]state{in, out}, nil, now.Add(orphanGrace)); len(got) != 2 {
		t.Errorf("%d outdated after the grace, want 2", len(got))
	}
	if got := o.sort([]state{in, out}, known, now.Add(orphanGrace)); len(got) != 0 {
		t.Errorf("%d outdated that charon has", len(got))
	}
	if got := o.sort([]state{in, out}, nil, now.Add(2*orphanGrace)); len(got) != 0 {
		t.Errorf("%d outdated, and the time had not begun anew", len(got))
	}
}

// With no tunnel up the reason is that of each of them, and is told again when it is another.
func TestReasonOfTheRealm(t *testing.T) {
	k := testKeeper(t)
	var told []State
	k.changed = func(s State) { told = append(told, s) }
	x, now := k.tunnels[0], time.Unix(1e9, 0)
	k.decide(now)
	x.fail(because(x.Tunnel, causePSK, "first"), now, now)
	k.decide(now)
	x.fail(because(x.Tunnel, causePSK, "second"), now, now)
	k.decide(now)
	x.move(true, now)
	k.decide(now)
	if len(told) != 3 || told[0].Active != "" || told[2] != (State{Active: "primary"}) {
		t.Fatalf("told %+v", told)
	}
	contains(t, told[0].Reason, "carrier-a")
	contains(t, told[1].Reason, "carrier-a", "primary", "pre-shared key", "first")
}

// A monitor without answers takes a tunnel out of use, and back when they come.
func TestUnverified(t *testing.T) {
	x := testKeeper(t).tunnels[0]
	x.monitor = newMonitor("tdmnone", netip.MustParseAddr("10.60.0.1"), netip.MustParseAddr("10.50.0.10"), time.Second, 3, true)
	now := time.Unix(1e9, 0)
	x.move(true, now)
	if x.state != call.TunnelUp {
		t.Errorf("state %s before the first request is due", x.state)
	}
	x.monitor.missed = 3
	x.move(true, now)
	if s := x.status(now, false, traffic{}); s.State != call.TunnelUnverified || s.Cause != causeMonitor || s.Failures[causeMonitor] != 1 || s.Monitor.Missed != 3 {
		t.Errorf("%+v", s)
	}
	x.move(true, now)
	if x.failures[causeMonitor] != 1 {
		t.Errorf("one silence counts %d times", x.failures[causeMonitor])
	}
	x.monitor.missed = 0
	x.move(true, now)
	if x.state != call.TunnelUp || x.why != (failure{}) {
		t.Errorf("state %s, %+v", x.state, x.why)
	}
}
