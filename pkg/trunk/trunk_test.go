package trunk

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-sbc/tandem/pkg/call"
)

func newTable(t testing.TB, trunks []Config, groups ...GroupConfig) *Table {
	t.Helper()
	table, err := New(Configs{Trunks: trunks, Groups: groups}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestByPeer(t *testing.T) {
	inside := goodConfig("inside", "192.0.2.1")
	inside.Realm = "inside"
	table := newTable(t, []Config{goodConfig("outside", "192.0.2.1", "192.0.2.2:5080"), inside})
	for _, row := range []struct{ realm, source, want string }{
		{"outside", "192.0.2.1", "outside"},
		{"outside", "192.0.2.2", "outside"},
		{"outside", "::ffff:192.0.2.2", "outside"},
		{"inside", "192.0.2.1", "inside"}, // the same address is another peer in another realm
		{"inside", "192.0.2.2", ""},
		{"elsewhere", "192.0.2.1", ""},
	} {
		if got := table.ByPeer(row.realm, netip.MustParseAddr(row.source)); got.Name() != row.want {
			t.Errorf("%s in realm %s: %q, want %q", row.source, row.realm, got.Name(), row.want)
		}
	}
}

func TestStatusCounts(t *testing.T) {
	c := goodConfig("a", "192.0.2.1")
	c.MaxCalls = 7
	tr := newTable(t, []Config{c}).Trunk("a")
	if _, refusal := tr.Acquire(In, false); refusal.Reason != NotRefused {
		t.Fatalf("no slot: %s", refusal.Reason)
	}
	tr.Attempt(In)
	tr.Outcome(In, Outcome{Answered: true, PDD: time.Second})
	tr.Ended(In, time.Minute, 4.2)
	tr.Attempt(Out)
	tr.Outcome(Out, Outcome{SIP: 503})
	want := Status{
		Name: "a", Realm: "outside", Kind: "carrier", State: "in-service", MaxCalls: 7,
		In: DirectionStat{Active: 1, Attempts: 1, Answers: 1, Outcomes: map[string]uint64{"answered": 1}, Window: WindowStat{
			Attempts: 1, Classes: map[string]uint32{"answered": 1}, ASR: 100, NER: 100, PDDMS: 1000, ACDMS: 60_000, MOS: 4.2,
		}},
		Out: DirectionStat{Attempts: 1, Failures: 1, Outcomes: map[string]uint64{"failed": 1}, Window: WindowStat{Attempts: 1, Classes: map[string]uint32{"failed": 1}}},
	}
	got := tr.Status()
	got.Since = time.Time{}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(call.Rate{})); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}

// What calls have taken, what was counted, whose turn it is and what people want of a trunk
// goes on over generations of the config; what is new begins, and a table that is never used
// does no harm.
func TestGenerations(t *testing.T) {
	group := func(names ...string) GroupConfig { return goodGroup("g", RoundRobin, names...) }
	first := newTable(t, letters("abc"), group("a", "b", "c"))
	release, _ := first.Trunk("a").Acquire(Out, false)
	first.Trunk("a").Attempt(Out)
	if got := firsts(t, first, 1); got != "a" {
		t.Fatalf("%s is first", got)
	}
	administer(t, first, "c", Draining)
	before := first.Trunk("a").Status()

	changed := letters("abcd")
	changed[0].MaxCalls, changed[0].HealthWindow = 1, time.Minute
	build := func() *Table {
		t.Helper()
		next, err := New(Configs{Trunks: changed, Groups: []GroupConfig{group("a", "b", "c", "d")}}, first)
		if err != nil {
			t.Fatal(err)
		}
		return next
	}
	build() // a dry run
	if diff := cmp.Diff(before, first.Trunk("a").Status(), cmp.AllowUnexported(call.Rate{})); diff != "" {
		t.Errorf("a dry run has changed something (-before +after):\n%s", diff)
	}
	next := build()
	if s := next.Trunk("a").Status(); s.Out.Active != 1 || s.Out.Attempts != 1 || s.MaxCalls != 1 {
		t.Errorf("a goes on as %+v", s)
	}
	if _, refusal := next.Trunk("a").Acquire(In, false); refusal.Reason != Full {
		t.Errorf("a has its one call already: %s", refusal.Reason)
	}
	if s := next.Trunk("c").Condition(); s.State != Draining {
		t.Errorf("c is %s", s.State)
	}
	if got := firsts(t, next, 4); got != "bdbd" { // a is full, c is drained
		t.Errorf("the group goes on with %s", got)
	}
	release()
	release()
	if s := next.Trunk("a").Status(); s.Out.Active != 0 {
		t.Errorf("the call of the former generation has ended: %+v", s)
	}
	if gone, err := New(Configs{Trunks: letters("b")}, next); err != nil || gone.Trunk("a") != nil || len(gone.All()) != 1 {
		t.Errorf("a is gone: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	a := goodConfig("a", "192.0.2.1")
	for want, row := range map[string]struct {
		trunks []Config
		groups []GroupConfig
	}{
		`trunk "a": there are two of that name`:                                          {[]Config{a, a}, nil},
		`trunk "b": it has no targets`:                                                   {[]Config{goodConfig("b")}, nil},
		`trunk "b": target 192.0.2.1 is trunk "a"'s already`:                             {[]Config{a, goodConfig("b", "192.0.2.1:5070")}, nil},
		`group "g": there is no trunk "c"`:                                               {[]Config{a}, []GroupConfig{{Name: "g", Trunks: []string{"a", "c"}}}},
		`group "g": it has no trunks`:                                                    {[]Config{a}, []GroupConfig{{Name: "g"}}},
		`group "g": there are two of that name`:                                          {[]Config{a}, []GroupConfig{{Name: "g", Trunks: []string{"a"}}, {Name: "g", Trunks: []string{"a"}}}},
		`trunk "b": "192.0.2.300" is not an IPv4 address; write it like 192.0.2.10:5060`: {[]Config{goodConfig("b", "192.0.2.300")}, nil},
	} {
		if _, err := New(Configs{Trunks: row.trunks, Groups: row.groups}, nil); err == nil || err.Error() != want {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// M5, M7, M8: what a trunk asks of its media, and what it is without being told.
func TestMediaSettings(t *testing.T) {
	plain := goodConfig("plain", "192.0.2.1")
	nat := goodConfig("nat", "192.0.2.2:5070", "192.0.2.2:5080", "192.0.2.3")
	nat.MediaSource = Latch
	listed := goodConfig("listed", "192.0.2.4")
	listed.MediaSource, listed.LatchWindow, listed.MediaPrefixes = Latch, time.Minute, prefixes("198.51.100.0/24")
	table := newTable(t, []Config{plain, nat, listed})

	for _, row := range []struct {
		name     string
		window   time.Duration
		prefixes []netip.Prefix
		explicit bool
	}{
		{"plain", 0, prefixes("192.0.2.1/32"), false},
		{"nat", 5 * time.Second, prefixes("192.0.2.2/32", "192.0.2.3/32"), false},
		{"listed", time.Minute, prefixes("198.51.100.0/24"), true},
	} {
		tr := table.Trunk(row.name)
		got, explicit := tr.MediaPrefixes()
		if tr.LatchWindow() != row.window || !slices.Equal(got, row.prefixes) || explicit != row.explicit {
			t.Errorf("%s: learned for %v from %v (explicit %t)", row.name, tr.LatchWindow(), got, explicit)
		}
	}
	tr := table.Trunk("plain")
	if tr.DTMF() != DTMFEvents || tr.DTMFPayloadType() != 101 || tr.IdleTimeout() != 5*time.Minute || tr.IdleTimeoutOneWay() != 12*time.Hour {
		t.Errorf("DTMF %s by %d, idle after %v and %v", tr.DTMF(), tr.DTMFPayloadType(), tr.IdleTimeout(), tr.IdleTimeoutOneWay())
	}
}
