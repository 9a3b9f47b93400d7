package trunk

import (
	"testing"
	"testing/synctest"
	"time"
)

// T5: a trunk may send so many REGISTER requests at once, then one each time that one is due;
// who is early is told when to come again, and that is true. Calls have a rate of their own. A
// reload gives nothing back, and a new rate holds at once.
func TestRegister(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := goodConfig("a", "192.0.2.1")
		c.MaxRegisterRate, c.MaxRate = rate("3.5/2m"), rate("1/1h")
		table := newTable(t, []Config{c, goodConfig("b", "192.0.2.2")})
		burst := func(table *Table) (taken int, wait time.Duration) {
			for {
				wait, ok := table.Trunk("a").Register(time.Now())
				if ok != (wait == 0) {
					t.Fatalf("let in: %t, and to wait %s", ok, wait)
				}
				if !ok {
					return taken, wait
				}
				taken++
			}
		}
		const every = 34285714285 // 2m/3.5 in ns
		if n, wait := burst(table); n != 3 || wait != every {
			t.Errorf("%d at once, the next in %s", n, wait)
		}
		if release, refusal := table.Trunk("a").Acquire(In, false); release == nil {
			t.Errorf("REGISTER requests held a call up: %s", refusal.Reason)
		}

		again := rebuilt(t, table, c)
		time.Sleep(every - 1)
		if n, wait := burst(again); n != 0 || wait != 1 {
			t.Errorf("after a reload %d too early, the next in %s", n, wait)
		}
		time.Sleep(time.Nanosecond)
		if n, _ := burst(again); n != 1 {
			t.Errorf("%d when one was due", n)
		}
		time.Sleep(time.Hour)
		if n, _ := burst(again); n != 3 {
			t.Errorf("%d after an hour: silence saves nothing up beyond the count", n)
		}
		// The counter is the trunk's, whichever generation is asked.
		for _, g := range []*Table{table, again} {
			if s := g.Trunk("a").Status(); s.In.Refused["register-rate"] != 4 || s.Out.Refused != nil {
				t.Errorf("refused %v in, %v out; want 4 register-rate in", s.In.Refused, s.Out.Refused)
			}
		}

		c.MaxRegisterRate = rate("1/24h")
		slow := rebuilt(t, again, c)
		time.Sleep(time.Hour)
		if n, wait := burst(slow); n != 1 || wait != 24*time.Hour {
			t.Errorf("1/24h: %d, the next in %s", n, wait)
		}
		c.MaxRegisterRate = rate("40/5s")
		time.Sleep(5 * time.Second)
		if n, wait := burst(rebuilt(t, slow, c)); n != 40 || wait != 125*time.Millisecond {
			t.Errorf("40/5s after 1/24h: %d at once, the next in %s", n, wait)
		}
	})
}

// T5: a trunk without max_register_rate may send any number.
func TestRegisterWithoutLimit(t *testing.T) {
	c := goodConfig("a", "192.0.2.1")
	c.MaxRate = rate("1/24h")
	tr := newTable(t, []Config{c}).Trunk("a")
	for range 1000 {
		if wait, ok := tr.Register(time.Now()); !ok || wait != 0 {
			t.Fatalf("has to wait %s", wait)
		}
	}
	if tr.LimitsRegister() || tr.Status().In.Refused != nil {
		t.Errorf("it has a limit: %v", tr.Status().In.Refused)
	}
}

func rebuilt(t *testing.T, former *Table, trunks ...Config) *Table {
	t.Helper()
	next, err := New(Configs{Trunks: trunks}, former)
	if err != nil {
		t.Fatal(err)
	}
	return next
}
