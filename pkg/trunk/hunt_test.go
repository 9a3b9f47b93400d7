package trunk

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// abc are trunks of one letter each.
func letters(names string) (list []Config) {
	for _, name := range names {
		list = append(list, goodConfig(string(name), fmt.Sprintf("192.0.2.%d", name)))
	}
	return list
}

// weighted group of trunks named by letters.
func weighted(strategy string, members ...Member) GroupConfig {
	return GroupConfig{Name: "g", Members: members, Strategy: strategy, Tries: 32}
}

// way of one call through group g, and on with its fallbacks.
func way(table *Table, number string) string {
	h := table.Hunt("g", number)
	var names []string
	for tr, ok := h.Next(time.Now()); ok; tr, ok = h.Next(time.Now()) {
		names = append(names, tr.Name())
	}
	return strings.Join(names, "")
}

// firsts are the first choices of n calls.
func firsts(t testing.TB, table *Table, n int) string {
	t.Helper()
	var b strings.Builder
	for range n {
		h := table.Hunt("g", "")
		tr, ok := h.Next(time.Now())
		if !ok {
			t.Fatal("nobody takes the call")
		}
		b.WriteString(tr.Name())
	}
	return b.String()
}

func administer(t testing.TB, table *Table, name, state string) {
	t.Helper()
	if err := table.Trunk(name).Administer(state); err != nil {
		t.Fatal(err)
	}
}

// T2: round robin starts each call one further, priority always at the first; each member
// is handed out once. Who is drained loses its turn, and the others share it evenly.
func TestHuntInOrder(t *testing.T) {
	turns := newTable(t, letters("abc"), goodGroup("g", RoundRobin, "a", "b", "c"))
	first := newTable(t, letters("abc"), goodGroup("g", Priority, "a", "b", "c"))
	for _, want := range []string{"abc", "bca", "cab", "abc"} {
		if got := way(turns, ""); got != want {
			t.Errorf("round robin: %q, want %q", got, want)
		}
		if got := way(first, ""); got != "abc" {
			t.Errorf("priority: %q", got)
		}
	}
	administer(t, turns, "b", Draining)
	administer(t, first, "a", OutOfService)
	if got := firsts(t, turns, 8); got != "cacacaca" {
		t.Errorf("round robin without b: %q", got)
	}
	if got := way(first, ""); got != "bc" {
		t.Errorf("priority without a: %q", got)
	}
	if got := way(first, ""); got != "bc" {
		t.Errorf("priority without a: %q", got)
	}
	h := turns.Hunt("unknown", "")
	if tr, ok := h.Next(time.Now()); ok || h.Policy() == nil {
		t.Errorf("unknown group: %v", tr)
	}
	if tr, _ := h.PassedOver(); tr != nil {
		t.Errorf("%s was passed over in an unknown group", tr.Name())
	}
}

// T2: calls that come at the same moment spread evenly all the same.
func TestRoundRobinIsEven(t *testing.T) {
	table := newTable(t, letters("abc"), goodGroup("g", RoundRobin, "a", "b", "c"))
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			for range 500 {
				h := table.Hunt("g", "")
				tr, _ := h.Next(time.Now())
				tr.Attempt(Out)
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

// T2: 5:2 keeps 5:2 in any seven calls in a row, evenly, and whatever was tried after
// failures.
func TestWeighted(t *testing.T) {
	table := newTable(t, letters("ab"), weighted(Weighted, Member{"a", 5}, Member{"b", 2}))
	if got := firsts(t, table, 14); got != "abaaabaabaaaba" {
		t.Errorf("14 calls: %s", got)
	}
	var calls string
	for range 700 {
		h := table.Hunt("g", "")
		for n := 0; ; n++ { // each call fails everywhere
			tr, ok := h.Next(time.Now())
			if !ok {
				break
			}
			if n == 0 {
				calls += tr.Name()
			}
		}
	}
	for i := range len(calls) - 7 {
		if n := strings.Count(calls[i:i+7], "a"); n != 5 {
			t.Fatalf("calls %d to %d: %s", i, i+6, calls[i:i+7])
		}
	}
	if strings.Contains(calls, "aaaa") || strings.Contains(calls, "bb") {
		t.Errorf("not evenly: %s", calls[:21])
	}
}

// T2 with any weights: in any calls in a row that are as many as all weights together each
// member has as many as its weight. After members have come and gone, drained, and the
// config was read again, nobody has lost or caught up more than one turn from the first
// such calls on.
func TestWeightedIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(t, "members")
		var trunks []Config
		var members []Member
		sum := 0
		for i := range n {
			name := fmt.Sprint("t", i)
			trunks = append(trunks, goodConfig(name, fmt.Sprintf("192.0.2.%d", i+1)))
			trunks[i].MaxCalls = 1
			members = append(members, Member{name, rapid.IntRange(1, 25).Draw(t, name)})
			sum += members[i].Weight
		}
		table, err := New(Configs{Trunks: trunks, Groups: []GroupConfig{weighted(Weighted, members...)}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		pick := func() string {
			h := table.Hunt("g", "")
			tr, ok := h.Next(time.Now())
			if !ok {
				t.Fatal("nobody takes the call")
			}
			return tr.Name()
		}
		full := map[string]func(){}
		for range rapid.IntRange(0, 5).Draw(t, "troubles") {
			name := rapid.SampledFrom(members).Draw(t, "trunk").Trunk
			if full[name] == nil && len(full) < n-1 { // it has as many calls as it may have
				full[name], _ = table.Trunk(name).Acquire(Out, false)
			}
			for range rapid.IntRange(0, 60).Draw(t, "calls") {
				if name := pick(); full[name] != nil {
					t.Fatalf("%s is full", name)
				}
			}
			if rapid.Bool().Draw(t, "reload") {
				if table, err = New(Configs{Trunks: trunks, Groups: []GroupConfig{weighted(Weighted, members...)}}, table); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, release := range full {
			release()
		}
		var calls []string
		for range 3 * sum {
			calls = append(calls, pick())
		}
		for from := range 2 * sum {
			got := map[string]int{}
			for _, name := range calls[from : from+sum] {
				got[name]++
			}
			for _, m := range members {
				if off := got[m.Trunk] - m.Weight; off < -1 || off > 1 || off != 0 && (from >= sum || len(full) == 0) {
					t.Fatalf("%s had %d of calls %d to %d, want %d", m.Trunk, got[m.Trunk], from, from+sum-1, m.Weight)
				}
			}
		}
	})
}

// T2: a trunk that comes back, and one that is new, get their share from then on, slowly at
// first, and never what they have missed.
func TestReturnDoesNotCatchUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newTable(t, letters("ab"), weighted(Weighted, Member{"a", 1}, Member{"b", 1}))
		administer(t, table, "a", Draining)
		if got := firsts(t, table, 1000); strings.Contains(got, "a") {
			t.Error("a call went to a trunk that is drained")
		}
		administer(t, table, "a", InService)
		time.Sleep(time.Minute)
		if got := firsts(t, table, 20); strings.Count(got, "a") < 9 || strings.Count(got, "a") > 11 {
			t.Errorf("a is back: %s", got)
		}
		next, err := New(Configs{Trunks: letters("abc"), Groups: []GroupConfig{weighted(Weighted, Member{"a", 1}, Member{"b", 1}, Member{"c", 1})}}, table)
		if err != nil {
			t.Fatal(err)
		}
		if got := firsts(t, next, 30); strings.Count(got, "c") != 10 || strings.Count(got, "b") != 10 {
			t.Errorf("c is new: %s", got)
		}
	})
}

// back has a trunk come back into service now, as after probes.
func back(tr *Trunk) {
	tr.health.do(func(m *machine, now time.Time) { m.comeback, m.dirty = now, true })
}

// T2: a trunk that is back gets a tenth of its share at first and all of it after 30 s, where a
// strategy shares calls (least_used by weight, which takes calls that last to see); if there is no
// other it gets all at once.
func TestReturnIsSlow(t *testing.T) {
	const n = 3000
	for _, strategy := range strategies {
		synctest.Test(t, func(t *testing.T) {
			table := newTable(t, letters("ab"), goodGroup("g", strategy, "a", "b"), goodGroup("alone", strategy, "a"))
			calls := func(group string) (ofA int) {
				for i := range n {
					h := table.Hunt(group, fmt.Sprint("+4930", i))
					if tr, ok := h.Next(time.Now()); ok && tr.Name() == "a" {
						ofA++
					}
				}
				return ofA
			}
			before := calls("g")
			back(table.Trunk("a"))
			got := calls("g")
			switch {
			case strategy == LeastUsed: // nobody has a call
			case strategy == Priority && got != before:
				t.Errorf("the first by priority is back and gets %d calls of %d", got, n)
			case strategy != Priority && (got < before/25 || got > before/4):
				t.Errorf("%s: a is just back and gets %d calls of %d, it had %d", strategy, got, n, before)
			}
			if got := calls("alone"); got != n {
				t.Errorf("%s: a is the only one and gets %d calls of %d", strategy, got, n)
			}
			time.Sleep(rampTime + time.Second)
			if got := calls("g"); got < before-n/10 || got > before+n/10 {
				t.Errorf("%s: a is fully back and gets %d calls of %d, it had %d", strategy, got, n, before)
			}
		})
	}
}

// T8: while a trunk of a hash group comes back its numbers go back to it one by one, and for good.
func TestNumbersComeBackForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newTable(t, letters("ab"), goodGroup("g", Hash, "a", "b"))
		back(table.Trunk("a"))
		there := map[string]bool{}
		for range int(rampTime/time.Second) + 1 {
			for i := range 200 {
				number := fmt.Sprint("+4930", i)
				h := table.Hunt("g", number)
				if tr, _ := h.Next(time.Now()); tr.Name() == "a" {
					there[number] = true
				} else if there[number] {
					t.Fatalf("%s was back at a, and went to b again", number)
				}
			}
			time.Sleep(time.Second)
		}
		if n := len(there); n < 70 || n > 130 {
			t.Errorf("%d of 200 numbers are back at a", n)
		}
	})
}

// T2: turns are exact again as soon as a trunk is fully back, however few calls come; the same
// goes for one that a reload has given more weight.
func TestTurnsFollowTheWeight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newTable(t, letters("ab"), weighted(Weighted, Member{"a", 5}, Member{"b", 2}))
		firsts(t, table, 3)
		back(table.Trunk("b"))
		for range 4 {
			firsts(t, table, 1)
			time.Sleep(10 * time.Second)
		}
		calls := firsts(t, table, 70)
		for i := range len(calls) - 7 {
			if n := strings.Count(calls[i:i+7], "a"); n != 5 {
				t.Fatalf("calls %d to %d: %s", i, i+6, calls[i:i+7])
			}
		}

		few := newTable(t, letters("ab"), weighted(Weighted, Member{"a", 1000}, Member{"b", 1}))
		firsts(t, few, 1500)
		next, err := New(Configs{Trunks: letters("ab"), Groups: []GroupConfig{weighted(Weighted, Member{"a", 1000}, Member{"b", 1000})}}, few)
		if err != nil {
			t.Fatal(err)
		}
		if calls := firsts(t, next, 20); strings.Count(calls, "b") < 9 {
			t.Errorf("b has as much weight as a now: %s", calls)
		}
	})
}

// The clock of weighted turns is put back before it overflows, and nobody notices.
func TestWeightedForever(t *testing.T) {
	table := newTable(t, letters("ab"), weighted(Weighted, Member{"a", 5}, Member{"b", 2}))
	g := table.groups["g"]
	g.clock = lateClock - period
	for i := range g.members {
		g.members[i].due += g.clock
	}
	calls := firsts(t, table, 70)
	for i := range len(calls) - 7 {
		if n := strings.Count(calls[i:i+7], "a"); n != 5 {
			t.Fatalf("calls %d to %d: %s", i, i+6, calls[i:i+7])
		}
	}
	if g.clock > 10*period {
		t.Errorf("the clock is at %d", g.clock)
	}
}

// T2: the member with the fewest calls for its weight is next; equals take turns.
func TestLeastUsed(t *testing.T) {
	table := newTable(t, letters("abc"), weighted(LeastUsed, Member{"a", 2}, Member{"b", 1}, Member{"c", 1}))
	var got string
	for range 8 {
		h := table.Hunt("g", "")
		tr, _ := h.Next(time.Now())
		if _, refusal := tr.Acquire(Out, false); refusal.Reason != NotRefused {
			t.Fatal(refusal.Reason)
		}
		got += tr.Name()
	}
	if strings.Count(got, "a") != 4 || strings.Count(got, "b") != 2 || strings.Count(got, "c") != 2 {
		t.Errorf("eight calls that stay: %s", got)
	}
	idle := newTable(t, letters("abc"), goodGroup("g", LeastUsed, "a", "b", "c"))
	if got := firsts(t, idle, 6); got != "abcabc" {
		t.Errorf("calls that are over at once: %s", got)
	}
	if got := way(idle, ""); len(got) != 3 {
		t.Errorf("one call everywhere: %s", got)
	}
}

// T2: any member, as likely as its weight says; also when some cannot be used.
func TestRandom(t *testing.T) {
	table := newTable(t, letters("abcd"), weighted(Random, Member{"a", 6}, Member{"b", 3}, Member{"c", 1}, Member{"d", 90}))
	administer(t, table, "d", OutOfService) // most draws miss
	const calls = 20_000
	got := firsts(t, table, calls)
	for name, share := range map[string]float64{"a": 0.6, "b": 0.3, "c": 0.1} {
		// 6 standard deviations of a binomial with p = 1/2 are 0.021.
		if n := float64(strings.Count(got, name)) / calls; n < share-0.025 || n > share+0.025 {
			t.Errorf("%s had %.3f of the calls, want %.1f", name, n, share)
		}
	}
	if strings.Contains(got, "d") || len(way(table, "")) != 3 {
		t.Error("d is out of service")
	}
}

// T8: calls to a number take the same trunk as long as it can be used, and come back to it;
// what happens to other trunks moves none; numbers spread evenly.
func TestHash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newTable(t, letters("abcde"), goodGroup("g", Hash, "a", "b", "c", "d", "e"))
		first := func(i int) string { return way(table, fmt.Sprintf("+4930%06d", i))[:1] }
		const numbers = 5000
		home := make([]string, numbers)
		count := map[string]int{}
		for i := range home {
			home[i] = first(i)
			count[home[i]]++
		}
		for name, n := range count {
			if n < 850 || n > 1150 {
				t.Errorf("%s is home to %d of %d numbers", name, n, numbers)
			}
		}
		administer(t, table, "c", Draining)
		moved := map[string]int{}
		for i := range home {
			got := first(i)
			if home[i] == "c" {
				moved[got]++
			} else if got != home[i] {
				t.Fatalf("number %d moved from %s to %s, although only c is drained", i, home[i], got)
			}
		}
		if len(moved) != 4 || moved["c"] != 0 {
			t.Errorf("those of c moved to %v", moved)
		}
		administer(t, table, "c", InService)
		time.Sleep(time.Minute)
		for i := range home {
			if got := first(i); got != home[i] {
				t.Fatalf("number %d is at %s, its home is %s", i, got, home[i])
			}
		}
	})
}

// T2, T7: a group's members come before its fallback's, each trunk once; each group has its own
// tries.
func TestFallback(t *testing.T) {
	g, h, i := goodGroup("g", RoundRobin, "a", "b"), goodGroup("h", Priority, "b", "c"), goodGroup("i", Priority, "d")
	g.Fallback, h.Fallback, g.Tries = "h", "i", 32
	table := newTable(t, letters("abcd"), g, h, i)
	for _, want := range []string{"abcd", "bacd"} {
		if got := way(table, ""); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	administer(t, table, "a", Draining)
	administer(t, table, "b", Draining)
	if got := way(table, ""); got != "cd" {
		t.Errorf("only the fallbacks are left: %s", got)
	}

	g, h = goodGroup("g", Priority, "a", "b", "c"), goodGroup("h", Priority, "a", "d", "e")
	g.Fallback, g.Tries, h.Tries = "h", 2, 1
	few := newTable(t, letters("abcde"), g, h)
	hunt, now := few.Hunt("g", ""), time.Now()
	for _, want := range []string{"a", "b"} {
		if tr, ok := hunt.Next(now); !ok || tr.Name() != want || hunt.Policy().Tries != 2 {
			t.Errorf("got %s, want %s", tr.Name(), want)
		}
	}
	hunt.Untried(few.Trunk("b"), Refusal{Reason: Full}) // it was full in the moment
	if tr, ok := hunt.Next(now); !ok || tr.Name() != "c" {
		t.Errorf("got %s, want c", tr.Name())
	}
	if hunt.Again(now) {
		t.Error("a third try in g")
	}
	if tr, ok := hunt.Next(now); !ok || tr.Name() != "d" || hunt.Policy().Tries != 1 {
		t.Errorf("got %s, want d", tr.Name())
	}
	if tr, ok := hunt.Next(now); ok || hunt.Again(now) {
		t.Errorf("a second try in h: %s", tr.Name())
	}
}

// T7, T9: a trunk's other targets get the group's tries but for the last one, which is kept for
// another trunk; to see whether there is one takes nobody's turn.
func TestAgain(t *testing.T) {
	g, h := goodGroup("g", Priority, "a"), goodGroup("h", RoundRobin, "x", "y")
	g.Fallback = "h"
	table := newTable(t, letters("abxy"), g, h, goodGroup("two", Priority, "a", "b"))
	now := time.Now()
	var others string
	for range 4 {
		hunt := table.Hunt("g", "")
		hunt.Next(now)
		tries := 1
		for hunt.Again(now) {
			tries++
		}
		if tries != 3 {
			t.Errorf("a alone has %d tries, want 3", tries)
		}
		tr, _ := hunt.Next(now)
		others += tr.Name()
	}
	if others != "xyxy" {
		t.Errorf("the fallback's turns: %s, want xyxy", others)
	}
	hunt := table.Hunt("two", "")
	hunt.Next(now)
	if !hunt.Again(now) || hunt.Again(now) {
		t.Error("want a second try of a, and the third kept for b")
	}
	if tr, ok := hunt.Next(now); !ok || tr.Name() != "b" {
		t.Errorf("got %s, want b", tr.Name())
	}
}

// A trunk that has filled up between the choice and the slot costs no try, and is not chosen
// again; the call is told why if nobody is left.
func TestUntried(t *testing.T) {
	for _, strategy := range strategies {
		g := goodGroup("g", strategy, "a", "b")
		g.Tries = 1
		table := newTable(t, letters("ab"), g)
		h := table.Hunt("g", "")
		first, _ := h.Next(time.Now())
		h.Untried(first, Refusal{Full, time.Minute})
		second, ok := h.Next(time.Now())
		if !ok || second == first {
			t.Fatalf("%s: after %s came %s", strategy, first.Name(), second.Name())
		}
		h.Untried(second, Refusal{RateExceeded, time.Second})
		if tr, ok := h.Next(time.Now()); ok {
			t.Errorf("%s: %s was handed out", strategy, tr.Name())
		}
		if tr, why := h.PassedOver(); tr != first || why != (Refusal{Full, time.Second}) {
			t.Errorf("%s: %s was passed over as %+v", strategy, tr.Name(), why)
		}
	}
}

// T7: what is retried by default, and that both lists can be given; redirections and what is
// final everywhere are not, and a platform fails over by itself.
func TestPolicy(t *testing.T) {
	platform := letters("p")[0]
	platform.Kind = Platform
	own := goodGroup("own", Priority, "a")
	own.RetrySIP, own.RetryQ850, own.Pause, own.Total, own.Tries = []CodeRange{{404, 404}, {603, 603}}, []CodeRange{}, time.Second, time.Minute, 7
	table := newTable(t, append(letters("a"), platform), goodGroup("carriers", Priority, "a"), goodGroup("platforms", Priority, "p"), own)
	for _, row := range []struct {
		hunt      Hunt
		sip, q850 int
		want      bool
	}{
		{table.Hunt("carriers", ""), 500, 0, true},
		{table.Hunt("carriers", ""), 599, 17, true},
		{table.Hunt("carriers", ""), 408, 0, true},
		{table.Hunt("carriers", ""), 404, 0, false},
		{table.Hunt("carriers", ""), 404, 1, true},
		{table.Hunt("carriers", ""), 480, 34, true},
		{table.Hunt("carriers", ""), 486, 17, false},
		{table.Hunt("carriers", ""), 603, 34, false},
		{table.Hunt("carriers", ""), 302, 34, false},
		{table.HuntTrunk("a", ""), 503, 0, true},
		{table.Hunt("platforms", ""), 503, 0, true},
		{table.Hunt("platforms", ""), 500, 0, false},
		{table.Hunt("platforms", ""), 480, 34, false},
		{table.HuntTrunk("p", ""), 502, 0, false},
		{table.Hunt("own", ""), 404, 0, true},
		{table.Hunt("own", ""), 603, 0, true},
		{table.Hunt("own", ""), 503, 34, false},
		{table.Hunt("none", ""), 503, 0, false},
	} {
		if got := row.hunt.Policy().Retry(row.sip, row.q850); got != row.want {
			t.Errorf("%d with cause %d: retried %t", row.sip, row.q850, got)
		}
	}
	h := table.Hunt("own", "")
	if p := h.Policy(); p.Tries != 7 || p.Pause != time.Second || p.Total != time.Minute {
		t.Errorf("policy %+v", p)
	}
	single := table.HuntTrunk("a", "")
	if p := single.Policy(); p.Tries != 3 || p.Pause != 0 || p.Total != 0 {
		t.Errorf("policy of a trunk %+v", p)
	}
}

// O2: the order of candidates is told without anybody's turn being taken; those that cannot
// be used are last, and it is said why.
func TestOrder(t *testing.T) {
	for _, strategy := range strategies {
		g, h := goodGroup("g", strategy, "a", "b", "c", "d"), goodGroup("h", Priority, "e", "a")
		g.Fallback, g.Tries = "h", 32
		trunks := letters("abcde")
		trunks[2].MaxCalls = 1
		table := newTable(t, trunks, g, h)
		administer(t, table, "a", Draining)
		if _, refusal := table.Trunk("c").Acquire(In, false); refusal.Reason != NotRefused {
			t.Fatal(refusal.Reason)
		}
		for range 5 {
			var got, why string
			for _, c := range table.Order("g", "+4930") {
				got += c.Trunk.Name()
				why += " " + c.Group + ":" + c.Why.String()
			}
			again := ""
			for _, c := range table.Order("g", "+4930") {
				again += c.Trunk.Name()
			}
			if again != got || got[2:] != "eac" || why != " g:none g:none h:none g:closed g:full" {
				t.Fatalf("%s: %s%s, then %s", strategy, got, why, again)
			}
			if strategy != Random {
				if call := way(table, "+4930"); call != got[:3] {
					t.Errorf("%s: the call went %s, foretold was %s", strategy, call, got[:3])
				}
			}
		}
	}
	table := newTable(t, letters("a"))
	if list := table.OrderTrunk("a", ""); len(list) != 1 || list[0].Trunk.Name() != "a" || list[0].Group != "" {
		t.Errorf("%+v", list)
	}
}

// T2, T14: groups as the CLI shows them.
func TestGroupStatus(t *testing.T) {
	g := weighted(Weighted, Member{"a", 3}, Member{"b", 1})
	g.Adaptive, g.Fallback = true, "h"
	table := newTable(t, letters("abc"), g, goodGroup("h", Priority, "c"))
	table.groups["g"].members[0].multiplier.Store(333)
	got := table.Groups()
	if len(got) != 2 || got[0].Name != "g" || got[0].Fallback != "h" || !got[0].Adaptive || got[1].Strategy != Priority {
		t.Fatalf("%+v", got)
	}
	a, b := got[0].Members[0], got[0].Members[1]
	if a.Trunk != "a" || a.Weight != 3 || a.Multiplier != 333 || b.Share < 50 || b.Share > 50.1 || a.State != InService {
		t.Errorf("%+v %+v", a, b)
	}
}

// T2: a hunt through 200 members allocates nothing.
func TestHuntAllocatesNothing(t *testing.T) {
	for _, strategy := range strategies {
		table := many(t, 200, GroupConfig{Strategy: strategy, Tries: 3})
		if n := testing.AllocsPerRun(100, func() {
			h := table.Hunt("g", "+4930123456")
			for range 3 {
				if _, ok := h.Next(time.Now()); !ok {
					t.Fatal("no member")
				}
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", strategy, n)
		}
	}
}
