package trunk

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// adaptive is a group of a, b and c with equal weights that follows what they do.
func adaptive(t testing.TB, strategy string) *Table {
	g := weighted(strategy, Member{"a", 10}, Member{"b", 10}, Member{"c", 10})
	g.Adaptive = true
	return newTable(t, letters("abc"), g)
}

// behaviour of a trunk: of 100 calls so many are answered, after a delay, with a MOS.
type behaviour struct {
	answered int
	pdd      time.Duration
	mos      float64
}

// carry sends calls for a time, two a second, and has the weights follow. It returns the
// share of the calls that each trunk had.
func carry(t testing.TB, table *Table, length time.Duration, does map[string]behaviour) map[string]float64 {
	t.Helper()
	shares := map[string]float64{}
	calls := map[string]int{}
	end := time.Now().Add(length)
	n := 0.0
	for ; time.Now().Before(end); n++ {
		h := table.Hunt("g", "")
		tr, ok := h.Next(time.Now())
		if !ok {
			t.Fatal("nobody takes the call")
		}
		name := tr.Name()
		b := does[name]
		calls[name]++
		tr.Attempt(Out)
		if calls[name]*b.answered/100 > (calls[name]-1)*b.answered/100 {
			tr.Outcome(Out, Outcome{Answered: true, PDD: b.pdd})
			tr.Ended(Out, time.Minute, b.mos)
		} else {
			tr.Outcome(Out, Outcome{SIP: 503, PDD: b.pdd})
		}
		shares[name]++
		time.Sleep(500 * time.Millisecond)
		table.Adapt(time.Now())
	}
	for name := range shares {
		shares[name] /= n
	}
	return shares
}

var good = behaviour{60, 2 * time.Second, 4.2}

// T14: a trunk that answers less, rings later or sounds worse than the others gets less,
// but never under a tenth of its weight; the others share it. When it is good again it gets
// its share back. Equals stay equal, whatever they all are like.
func TestAdaptive(t *testing.T) {
	for _, row := range []struct {
		name string
		b    behaviour
		// share that c gets in the end, from and to.
		low, high float64
	}{
		{"OK like the others", good, 0.32, 0.35},
		{"OK a little worse", behaviour{56, 2100 * time.Millisecond, 4.1}, 0.32, 0.35},
		{"bad answers", behaviour{30, 2 * time.Second, 4.2}, 0.17, 0.25},
		{"bad delay", behaviour{60, 6 * time.Second, 4.2}, 0.10, 0.20},
		{"bad sound", behaviour{60, 2 * time.Second, 2.2}, 0.13, 0.23},
		{"bad altogether", behaviour{0, 9 * time.Second, 0}, 0.03, 0.08},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				table := adaptive(t, Weighted)
				does := map[string]behaviour{"a": good, "b": good, "c": row.b}
				carry(t, table, 10*time.Minute, does)
				if got := carry(t, table, 10*time.Minute, does)["c"]; got < row.low || got > row.high {
					t.Errorf("c has %.3f of the calls, want %.2f to %.2f", got, row.low, row.high)
				}
				for _, m := range table.Groups()[0].Members {
					if m.Multiplier < 100 || m.Multiplier > 1000 || m.Trunk != "c" && m.Multiplier != 1000 {
						t.Errorf("%s has a multiplier of %d", m.Trunk, m.Multiplier)
					}
				}
				does["c"] = good
				carry(t, table, 20*time.Minute, does)
				if got := carry(t, table, 10*time.Minute, does)["c"]; got < 0.32 {
					t.Errorf("c is as good as the others, and has %.3f of the calls", got)
				}
			})
		})
	}
}

// T14: weights change every 5 s at most, by a bounded step, only when there is enough to
// judge by, and not to and fro around a limit. A table that is read again goes on.
func TestAdaptiveIsCalm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := adaptive(t, Random)
		at := func() int { return table.Groups()[0].Members[2].Multiplier }
		fail := func(n int) {
			for _, name := range []string{"a", "b", "c"} {
				for range n {
					table.Trunk(name).Outcome(Out, Outcome{Answered: name != "c", SIP: 503})
				}
			}
		}
		fail(enough - 1)
		table.Adapt(time.Now())
		if at() != 1000 {
			t.Errorf("%d after too few calls", at())
		}
		fail(enough)
		table.Adapt(time.Now())
		if at() != 1000 {
			t.Errorf("%d within 5 s of the last decision", at())
		}
		var got []int
		for range 6 {
			time.Sleep(AdaptEvery)
			table.Adapt(time.Now())
			got = append(got, at())
		}
		if want := []int{800, 600, 400, 200, 100, 100}; !slices.Equal(got, want) {
			t.Errorf("went down by %v, want %v", got, want)
		}
		next, err := New(Configs{Trunks: letters("abc"), Groups: []GroupConfig{{
			Name: "g", Trunks: []string{"a", "b", "c"}, Strategy: Random, Adaptive: true,
		}}}, table)
		if err != nil {
			t.Fatal(err)
		}
		if m := next.Groups()[0].Members[2].Multiplier; m != 100 {
			t.Errorf("%d after the config was read again", m)
		}
		time.Sleep(maxWindow) // nothing is known any more
		table.Adapt(time.Now())
		if at() != 110 {
			t.Errorf("%d without calls, want a creep up", at())
		}
	})
	for _, row := range []struct{ was, target, want int }{
		{500, 590, 500}, {500, 410, 500}, {500, 610, 550}, {500, 380, 380}, {980, 1000, 1000}, {500, 1000, 550},
	} {
		if got := step(row.was, row.target, true); got != row.want {
			t.Errorf("from %d towards %d: %d, want %d", row.was, row.target, got, row.want)
		}
	}
}

// T14: a ticker is late now and then, and on time after that; there is a decision each time. Who
// calls more often gets none more.
func TestAdaptIsNotStrictAboutTime(t *testing.T) {
	// jitter of call i.
	for name, row := range map[string]struct {
		every  time.Duration
		jitter func(i int) time.Duration
		length time.Duration
		want   int
	}{
		"on time":                {AdaptEvery, func(int) time.Duration { return 0 }, 10 * time.Minute, 120},
		"late by turns":          {AdaptEvery, func(i int) time.Duration { return time.Duration(i%2) * time.Millisecond }, 10 * time.Minute, 120},
		"a second late by turns": {AdaptEvery, func(i int) time.Duration { return time.Duration(i%2) * time.Second }, 10 * time.Minute, 120},
		"each 500 ms":            {AdaptEvery / 10, func(int) time.Duration { return 0 }, 10 * time.Minute, 120},
		"each 20 s":              {4 * AdaptEvery, func(int) time.Duration { return 0 }, 10 * time.Minute, 30},
		"clock set back":         {AdaptEvery, func(i int) time.Duration { return -time.Duration(i/60) * time.Hour }, 10 * time.Minute, 120},
	} {
		table := adaptive(t, Random)
		start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		decisions := 0
		for i := range int(row.length / row.every) {
			before := table.adapting.next
			table.Adapt(start.Add(time.Duration(i)*row.every + row.jitter(i)))
			if table.adapting.next != before {
				decisions++
			}
		}
		if off := decisions - row.want; off < -1 || off > 1 {
			t.Errorf("%s: %d decisions, want %d", name, decisions, row.want)
		}
	}
}

// A group that is not adaptive keeps to its weights, whatever was decided before.
func TestNotAdaptive(t *testing.T) {
	table := newTable(t, letters("ab"), weighted(Weighted, Member{"a", 1}, Member{"b", 1}))
	table.groups["g"].members[0].multiplier.Store(100)
	if got := firsts(t, table, 20); strings.Count(got, "a") != 10 {
		t.Errorf("%s", got)
	}
}
