package trunk

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// T3: calls come and end, fail and are released twice, hunts are broken off, and the config
// changes under them: no trunk and no realm ever carries more than its limit, and when all
// calls have ended all counts are zero again, those of former generations included.
func TestSlotsNeverLeak(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var table *Table
		type slot struct {
			*Trunk
			release func()
			dir     Direction
		}
		var held, gone []slot
		used := map[*quota]map[Direction]int{}
		count := func(s slot, n int) {
			for _, q := range []*quota{s.quota, s.realm.quota} {
				if used[q] == nil {
					used[q] = map[Direction]int{}
				}
				used[q][s.dir] += n
			}
		}
		reload := func(t *rapid.T) {
			c := Configs{Emergency: []string{"112"}}
			var names []string
			for _, name := range []string{"a", "b", "c"} {
				if name != "a" && !rapid.Bool().Draw(t, name) {
					continue
				}
				trunk := goodConfig(name, "192.0.2."+fmt.Sprint(name[0]))
				trunk.MaxCalls = rapid.IntRange(0, 4).Draw(t, "max_calls")
				trunk.Realm = rapid.SampledFrom([]string{"north", "south"}).Draw(t, "realm")
				c.Trunks, names = append(c.Trunks, trunk), append(names, name)
			}
			c.Realms = []Limit{{Name: "north", MaxCalls: rapid.IntRange(0, 5).Draw(t, "realm max_calls")}}
			c.Groups = []GroupConfig{{Name: "g", Trunks: names, Strategy: rapid.SampledFrom(strategies).Draw(t, "strategy"), Tries: 3}}
			next, err := New(c, table)
			if err != nil {
				t.Fatal(err)
			}
			table = next
		}
		acquire := func(t *rapid.T, tr *Trunk, dir Direction, emergency bool) bool {
			own, realm := used[tr.quota], used[tr.realm.quota]
			full := tr.limits.maxCalls > 0 && own[In]+own[Out] >= tr.limits.maxCalls
			realmFull := tr.realm.limits.maxCalls > 0 && realm[In]+realm[Out] >= tr.realm.limits.maxCalls
			release, refusal := tr.Acquire(dir, emergency)
			if ok := emergency || !full && !realmFull; (refusal.Reason == NotRefused) != ok || (release != nil) != ok || (refusal.RetryAfter > 0) == ok {
				t.Fatalf("%s with %v of %d calls, its realm with %v of %d: %+v", tr.Name(), own, tr.limits.maxCalls, realm, tr.realm.limits.maxCalls, refusal)
			}
			if release == nil {
				return false
			}
			s := slot{tr, release, dir}
			held = append(held, s)
			count(s, 1)
			return true
		}
		reload(t)
		t.Repeat(map[string]func(*rapid.T){
			"reload": reload,
			"dry run": func(t *rapid.T) {
				before := table
				reload(t)
				table = before
			},
			"call in": func(t *rapid.T) {
				acquire(t, rapid.SampledFrom(table.All()).Draw(t, "trunk"), In, rapid.Bool().Draw(t, "emergency"))
			},
			"call out": func(t *rapid.T) {
				number := rapid.SampledFrom([]string{"112", "+4930123"}).Draw(t, "number")
				h := table.Hunt("g", number)
				seen := map[*Trunk]bool{}
				for range rapid.IntRange(1, 4).Draw(t, "failures") {
					tr, ok := h.Next(time.Now())
					if !ok {
						break
					}
					if seen[tr] {
						t.Fatalf("%s was handed out twice", tr.Name())
					}
					seen[tr] = true
					// Nobody comes between, so that what Next hands out takes the call.
					if !acquire(t, tr, Out, h.Emergency()) {
						t.Fatalf("%s was handed out and is full", tr.Name())
					}
				}
			},
			"release": func(t *rapid.T) {
				if len(held) == 0 {
					t.Skip("nothing held")
				}
				i := rapid.IntRange(0, len(held)-1).Draw(t, "slot")
				held[i].release()
				count(held[i], -1)
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
				for q, want := range used {
					if in, out := q.active(); in != want[In] || out != want[Out] {
						t.Fatalf("active %d in and %d out, want %v", in, out, want)
					}
				}
				// A trunk that was away and is back has the calls that it has: by name, not by quota.
				for _, tr := range table.All() {
					of := func(s slot) bool { return s.Name() != tr.Name() }
					in, out := tr.quota.active()
					if want := len(slices.DeleteFunc(slices.Clone(held), of)); in+out != want {
						t.Fatalf("%s has %d calls in and %d out, want %d", tr.Name(), in, out, want)
					}
				}
			},
		})
		for _, s := range held {
			s.release()
		}
		for q := range used {
			if in, out := q.active(); in != 0 || out != 0 {
				t.Fatalf("%d in and %d out are left", in, out)
			}
		}
	})
}

// T3: a call that begins while a reload takes its trunk out has a slot when the trunk comes back, for
// as long as it runs.
func TestTrunkComesBackWithItsCalls(t *testing.T) {
	a := goodConfig("a", "192.0.2.1")
	a.MaxCalls = 1
	without := Configs{Trunks: []Config{goodConfig("b", "192.0.2.2")}}
	with := Configs{Trunks: append(without.Trunks, a)}
	table := newTable(t, with.Trunks)
	reload := func(c Configs) *Table {
		next, err := New(c, table)
		if err != nil {
			t.Fatal(err)
		}
		return next
	}
	next := reload(without)
	release, refusal := table.Trunk("a").Acquire(In, false) // by the former table, which is in use still
	if refusal.Reason != NotRefused {
		t.Fatal(refusal)
	}
	table = next
	for range 3 {
		table = reload(without)
	}
	table = reload(with)
	if _, refusal := table.Trunk("a").Acquire(Out, false); refusal.Reason != Full {
		t.Errorf("a second call: %s, want %s", refusal.Reason, Full)
	}
	table = reload(without)
	release()
	for range 2 {
		table = reload(without)
	}
	if n := len(table.departed); n != 0 {
		t.Errorf("%d states are kept of trunks without calls", n)
	}
}

// T3 with many calls at the same moment, while the config is read again and again: the
// limit holds at every one.
func TestSlotsUnderContention(t *testing.T) {
	c := goodConfig("a", "192.0.2.1")
	c.MaxCalls = 3
	var current atomic.Pointer[Table]
	current.Store(newTable(t, []Config{c}))
	var now, most, carried atomic.Int64
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for range 2000 {
				release, refusal := current.Load().Trunk("a").Acquire(Direction(worker%2), false)
				if refusal.Reason != NotRefused {
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
	wg.Go(func() {
		for range 100 {
			next, err := New(Configs{Trunks: []Config{c}}, current.Load())
			if err != nil {
				t.Error(err)
				return
			}
			current.Store(next)
		}
	})
	wg.Wait()
	if most.Load() > 3 || carried.Load() == 0 {
		t.Errorf("at most %d calls at once, %d in all; the limit is 3", most.Load(), carried.Load())
	}
	s := current.Load().Trunk("a").Status()
	if s.In.Active != 0 || s.Out.Active != 0 {
		t.Errorf("slots left: %+v", s)
	}
}

// T4: forty calls in five seconds may come at once, then one every 125 ms; each direction
// has its own. Who is refused is told when to come again, and that is true. A change of the
// rate holds at once.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := goodConfig("a", "192.0.2.1")
		c.MaxRate = rate("40/5s")
		table := newTable(t, []Config{c})
		tr := table.Trunk("a")
		burst := func(tr *Trunk, dir Direction) (taken int, wait time.Duration) {
			for {
				release, refusal := tr.Acquire(dir, false)
				if refusal.Reason != NotRefused {
					if refusal.Reason != RateExceeded {
						t.Fatalf("refused as %s", refusal.Reason)
					}
					return taken, refusal.RetryAfter
				}
				release()
				taken++
			}
		}
		for _, dir := range []Direction{In, Out} {
			if n, wait := burst(tr, dir); n != 40 || wait != 125*time.Millisecond {
				t.Errorf("%s: %d at once, the next in %s", dir, n, wait)
			}
		}
		time.Sleep(125*time.Millisecond - 1)
		if n, wait := burst(tr, In); n != 0 || wait != 1 {
			t.Errorf("%d too early, the next in %s", n, wait)
		}
		time.Sleep(time.Nanosecond)
		if n, _ := burst(tr, In); n != 1 {
			t.Errorf("%d when one was due", n)
		}
		time.Sleep(time.Hour)
		if n, _ := burst(tr, In); n != 40 {
			t.Errorf("%d after an hour: silence saves nothing up beyond the count", n)
		}
		if got := tr.Status().In.Refused["rate"]; got != 4 {
			t.Errorf("%d refusals were counted, want 4", got)
		}

		c.MaxRate = rate("1/24h")
		slow, err := New(Configs{Trunks: []Config{c}}, table)
		if err != nil {
			t.Fatal(err)
		}
		if n, wait := burst(slow.Trunk("a"), Out); n != 1 || wait != 24*time.Hour {
			t.Errorf("1/24h: %d, the next in %s", n, wait)
		}
		again, err := New(Configs{Trunks: []Config{goodConfig("a", "192.0.2.1")}}, slow)
		if err != nil {
			t.Fatal(err)
		}
		if _, refusal := again.Trunk("a").Acquire(Out, false); refusal.Reason != NotRefused {
			t.Errorf("without a rate: %s", refusal.Reason)
		}
		c.MaxRate = rate("10/1s")
		fast, err := New(Configs{Trunks: []Config{c}}, again)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if n, _ := burst(fast.Trunk("a"), Out); n != 10 {
			t.Errorf("10/1s after 1/24h: %d at once", n)
		}
	})
}

// T3, T4: the trunks of a realm share its limits. A call that the realm refuses has used up
// nothing of the trunk's. Emergency calls pass, and are counted.
func TestRealmLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, elsewhere := goodConfig("a", "192.0.2.1"), goodConfig("b", "192.0.2.2"), goodConfig("c", "192.0.2.3")
		a.MaxRate, a.MaxCalls, elsewhere.Realm = rate("2/1s"), 2, "inside"
		table, err := New(Configs{
			Trunks: []Config{a, b, elsewhere}, Emergency: []string{"112"},
			Realms: []Limit{{"outside", 3, rate("3/1s")}},
			Groups: []GroupConfig{{Name: "g", Trunks: []string{"a", "b"}, Strategy: Priority, Tries: 3}},
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		want := func(name string, dir Direction, emergency bool, want Reason) (release func()) {
			t.Helper()
			release, refusal := table.Trunk(name).Acquire(dir, emergency)
			if refusal.Reason != want {
				t.Errorf("%s %s: %s, want %s", name, dir, refusal.Reason, want)
			}
			return release
		}
		want("b", In, false, NotRefused)
		want("b", In, false, NotRefused)
		last := want("b", In, false, NotRefused)
		want("b", In, false, RealmFull)
		want("a", Out, false, RealmFull)
		want("c", Out, false, NotRefused)
		last()
		want("a", In, false, RealmRateExceeded)
		time.Sleep(time.Second)
		first := want("a", In, false, NotRefused) // its own rate and slot were given back
		first()
		want("a", In, false, NotRefused)()
		want("a", In, false, RateExceeded)
		want("b", In, false, NotRefused)

		if table.Emergency("113") || !table.Emergency("112") {
			t.Error("the emergency numbers are others")
		}
		h := table.Hunt("g", "4930")
		if tr, ok := h.Next(time.Now()); ok {
			t.Errorf("%s is handed out although its realm is full", tr.Name())
		}
		if tr, why := h.PassedOver(); tr.Name() != "a" || why.Reason != RealmFull {
			t.Errorf("%s was passed over as %+v", tr.Name(), why)
		}
		h = table.Hunt("g", "112")
		for _, name := range []string{"a", "b"} {
			tr, ok := h.Next(time.Now())
			if !ok || tr.Name() != name {
				t.Fatalf("emergency call: %s %t", tr.Name(), ok)
			}
			want(name, Out, h.Emergency(), NotRefused)
		}
		if in, out := table.Trunk("a").realm.quota.active(); in+out != 5 {
			t.Errorf("%d calls in the realm, want 5", in+out)
		}
		refused := table.Trunk("a").Status()
		if refused.In.Refused["realm-rate"] != 1 || refused.In.Refused["rate"] != 1 || refused.Out.Refused["realm-full"] != 2 {
			t.Errorf("refusals %v in, %v out", refused.In.Refused, refused.Out.Refused)
		}
	})
}

// T3, T4: what a call out passes over for its limits is counted, once a call, and the platform can
// be told when the first of them takes another.
func TestPassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trunks := letters("abcd")
		trunks[0].MaxRate, trunks[1].MaxRate, trunks[2].MaxCalls = rate("1/1h"), rate("1/10m"), 1
		g := goodGroup("g", Priority, "a", "b", "c", "d")
		table := newTable(t, trunks, g, goodGroup("slow", Priority, "a", "b"))
		for _, name := range []string{"a", "b", "c"} {
			if _, refusal := table.Trunk(name).Acquire(Out, false); refusal.Reason != NotRefused {
				t.Fatalf("%s: %+v", name, refusal)
			}
		}
		time.Sleep(time.Minute)
		h := table.Hunt("g", "")
		if tr, ok := h.Next(time.Now()); !ok || tr.Name() != "d" {
			t.Errorf("got %s, want d", tr.Name())
		}
		if _, ok := h.Next(time.Now()); ok {
			t.Error("a trunk that has no slot was handed out")
		}
		if tr, why := h.PassedOver(); tr.Name() != "c" || why != (Refusal{Full, retryAfter}) {
			t.Errorf("%s was passed over: %+v", tr.Name(), why)
		}
		for name, reason := range map[string]string{"a": "rate", "b": "rate", "c": "full"} {
			if got := table.Trunk(name).Status().Out.Refused[reason]; got != 1 {
				t.Errorf("%s refused %d calls as %s, want 1", name, got, reason)
			}
		}
		h = table.Hunt("slow", "")
		if tr, ok := h.Next(time.Now()); ok {
			t.Errorf("%s was handed out", tr.Name())
		}
		if tr, why := h.PassedOver(); tr.Name() != "a" || why != (Refusal{RateExceeded, 9 * time.Minute}) {
			t.Errorf("%s was passed over: %+v", tr.Name(), why)
		}
		table.Order("g", "")
		if got := table.Trunk("c").Status().Out.Refused["full"]; got != 1 {
			t.Errorf("a look was counted as a call: %d", got)
		}
	})
}

// T4: where a trunk and its realm both have had their calls the longer wait is told.
func TestLongerWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trunks := letters("a")
		trunks[0].MaxRate = rate("1/1m")
		table, err := New(Configs{
			Trunks: trunks, Groups: []GroupConfig{goodGroup("g", Priority, "a")}, Realms: []Limit{{Name: "outside", MaxRate: rate("1/1h")}},
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, refusal := table.Trunk("a").Acquire(Out, false); refusal.Reason != NotRefused {
			t.Fatal(refusal)
		}
		h := table.Hunt("g", "")
		h.Next(time.Now())
		if _, why := h.PassedOver(); why != (Refusal{RateExceeded, time.Hour}) {
			t.Errorf("passed over: %+v", why)
		}
	})
}

// T4 for any rate and any calls: in no time are there more than the burst and what the rate
// adds in it; who is refused is told the first moment at which it would not be.
func FuzzBucket(f *testing.F) {
	f.Add("40/5s", []byte{0, 0, 0, 0, 0, 1, 0, 255})
	f.Add("2.5/1h", []byte{1, 2, 3, 4, 5, 6, 7, 8})
	f.Add("1000000/1s", []byte{255, 255, 0, 0})
	f.Fuzz(func(t *testing.T, text string, gaps []byte) {
		r, err := call.ParseRate(text)
		if err != nil {
			return
		}
		l := newLimits(0, r)
		q := newQuota()
		b := &q.buckets[In]
		var now time.Duration
		var taken []time.Duration
		for ; len(gaps) >= 2 && len(taken) < 200; gaps = gaps[2:] {
			now += time.Duration(binary.BigEndian.Uint16(gaps)) * max(1, l.every/1024)
			ready := l.every == 0 || b.early(&l, now) <= 0
			wait, ok := b.take(&l, now)
			if ok != ready {
				t.Fatalf("ready %t, taken %t", ready, ok)
			}
			if ok {
				taken = append(taken, now)
				continue
			}
			if wait <= 0 || b.early(&l, now+wait-1) != 1 || b.early(&l, now+wait) > 0 {
				t.Fatalf("%s is not when the next one may come", wait)
			}
		}
		for i := range taken {
			for j := i; j < len(taken); j++ {
				if most := int64(r.Burst()) + int64((taken[j]-taken[i])/l.every); int64(j-i+1) > most {
					t.Fatalf("%d in %s, and %d are the most", j-i+1, taken[j]-taken[i], most)
				}
			}
		}
	})
}
