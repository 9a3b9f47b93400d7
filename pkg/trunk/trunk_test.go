package trunk

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func newTable(t testing.TB, trunks []Config, groups ...GroupConfig) *Table {
	t.Helper()
	table, err := New(trunks, groups)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// T3: whatever is acquired and released in whatever order, and released twice, the
// trunk never has more calls than max_calls, both directions together, and never
// loses or invents a slot.
func TestSlotsNeverLeak(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := goodConfig("a", "192.0.2.1")
		c.MaxCalls = rapid.IntRange(0, 5).Draw(t, "max_calls")
		table, err := New([]Config{c}, nil)
		if err != nil {
			t.Fatal(err)
		}
		tr := table.Trunk("a")
		type slot struct {
			release func()
			dir     Direction
		}
		var held, gone []slot
		active := map[Direction]int{}
		t.Repeat(map[string]func(*rapid.T){
			"acquire": func(t *rapid.T) {
				dir := rapid.SampledFrom([]Direction{In, Out}).Draw(t, "direction")
				release, ok := tr.Acquire(dir)
				if free := c.MaxCalls == 0 || len(held) < c.MaxCalls; ok != free || ok != (release != nil) {
					t.Fatalf("acquired %t with %d of %d calls", ok, len(held), c.MaxCalls)
				}
				if ok {
					held = append(held, slot{release, dir})
					active[dir]++
				}
			},
			"release": func(t *rapid.T) {
				if len(held) == 0 {
					t.Skip("nothing held")
				}
				i := rapid.IntRange(0, len(held)-1).Draw(t, "slot")
				held[i].release()
				active[held[i].dir]--
				gone = append(gone, held[i])
				held = append(held[:i:i], held[i+1:]...)
			},
			"release again": func(t *rapid.T) {
				if len(gone) == 0 {
					t.Skip("nothing released")
				}
				rapid.SampledFrom(gone).Draw(t, "slot").release()
			},
			"": func(t *rapid.T) {
				if s := tr.Status(); s.In.Active != active[In] || s.Out.Active != active[Out] {
					t.Fatalf("active %d in and %d out, want %v", s.In.Active, s.Out.Active, active)
				}
			},
		})
	})
}

// T3 with many calls at the same moment: the limit holds at every one.
func TestSlotsUnderContention(t *testing.T) {
	c := goodConfig("a", "192.0.2.1")
	c.MaxCalls = 3
	tr := newTable(t, []Config{c}).Trunk("a")
	var now, most, carried atomic.Int64
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for range 2000 {
				release, ok := tr.Acquire(Direction(worker % 2))
				if !ok {
					continue
				}
				n := now.Add(1)
				for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
				}
				carried.Add(1)
				now.Add(-1)
				release()
				release()
			}
		})
	}
	wg.Wait()
	if most.Load() > 3 || carried.Load() == 0 {
		t.Errorf("at most %d calls at once, %d in all; the limit is 3", most.Load(), carried.Load())
	}
	if s := tr.Status(); s.In.Active != 0 || s.Out.Active != 0 {
		t.Errorf("slots left: %+v", s)
	}
}

// T2: round robin starts each call one further, priority always at the first; each
// member is tried once.
func TestCandidates(t *testing.T) {
	trunks := []Config{goodConfig("a", "192.0.2.1"), goodConfig("b", "192.0.2.2"), goodConfig("c", "192.0.2.3")}
	names := []string{"a", "b", "c"}
	table := newTable(t, trunks, GroupConfig{"turns", names, RoundRobin}, GroupConfig{"first", names, Priority})
	order := func(group string) string {
		var got []string
		for _, tr := range table.Candidates(group) {
			got = append(got, tr.Name())
		}
		return strings.Join(got, " ")
	}
	for _, want := range []string{"a b c", "b c a", "c a b", "a b c"} {
		if got := order("turns"); got != want {
			t.Errorf("round robin: %q, want %q", got, want)
		}
		if got := order("first"); got != "a b c" {
			t.Errorf("priority: %q", got)
		}
	}
	if got := table.Candidates("none"); got != nil {
		t.Errorf("unknown group: %v", got)
	}
}

// T2: calls that come at the same moment spread evenly all the same.
func TestRoundRobinIsEven(t *testing.T) {
	trunks := []Config{goodConfig("a", "192.0.2.1"), goodConfig("b", "192.0.2.2"), goodConfig("c", "192.0.2.3")}
	table := newTable(t, trunks, GroupConfig{"g", []string{"a", "b", "c"}, RoundRobin})
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			for range 500 {
				table.Candidates("g")[0].Attempt(Out)
			}
		})
	}
	wg.Wait()
	for _, tr := range table.All() {
		if got := tr.Status().Out.Attempts; got != 1000 {
			t.Errorf("%s was first %d times of 3000", tr.Name(), got)
		}
	}
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

func TestTargetsTakeTurns(t *testing.T) {
	tr := newTable(t, []Config{goodConfig("a", "192.0.2.1", "192.0.2.2:5080")}).Trunk("a")
	for _, want := range []string{"192.0.2.1:5060", "192.0.2.2:5080", "192.0.2.1:5060"} {
		if got := tr.Target().String(); got != want {
			t.Errorf("target %s, want %s", got, want)
		}
	}
}

func TestStatusCounts(t *testing.T) {
	c := goodConfig("a", "192.0.2.1")
	c.MaxCalls = 7
	tr := newTable(t, []Config{c}).Trunk("a")
	if _, ok := tr.Acquire(In); !ok {
		t.Fatal("no slot")
	}
	tr.Attempt(In)
	tr.Answered(In)
	tr.Attempt(Out)
	tr.Failed(Out)
	want := Status{
		Name: "a", Realm: "outside", Kind: "carrier", State: "in-service", MaxCalls: 7,
		In: DirectionStat{Active: 1, Attempts: 1, Answers: 1}, Out: DirectionStat{Attempts: 1, Failures: 1},
	}
	got := tr.Status()
	got.Since = time.Time{}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestNewRefuses(t *testing.T) {
	a := goodConfig("a", "192.0.2.1")
	for want, row := range map[string]struct {
		trunks []Config
		groups []GroupConfig
	}{
		`trunk "a": there are two of that name`:              {[]Config{a, a}, nil},
		`trunk "b": it has no targets`:                       {[]Config{goodConfig("b")}, nil},
		`trunk "b": target 192.0.2.1 is trunk "a"'s already`: {[]Config{a, goodConfig("b", "192.0.2.1:5070")}, nil},
		`group "g": there is no trunk "c"`:                   {[]Config{a}, []GroupConfig{{Name: "g", Trunks: []string{"a", "c"}}}},
		`group "g": it has no trunks`:                        {[]Config{a}, []GroupConfig{{Name: "g"}}},
		`group "g": there are two of that name`:              {[]Config{a}, []GroupConfig{{Name: "g", Trunks: []string{"a"}}, {Name: "g", Trunks: []string{"a"}}}},
		`trunk "b": "x.example" is a name, and names are not resolved yet; give the peer's IPv4 addresses, e.g. 192.0.2.10:5060`: {[]Config{goodConfig("b", "x.example")}, nil},
	} {
		if _, err := New(row.trunks, row.groups); err == nil || err.Error() != want {
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
