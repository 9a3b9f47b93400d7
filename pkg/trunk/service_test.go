package trunk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// two realms: "outside" with trunks a (two targets) and silent (which wants no probes), and
// "inside" with c.
func realmTable(t testing.TB) *Table {
	t.Helper()
	silent, c := goodConfig("silent", "192.0.2.3"), goodConfig("c", "192.0.2.4")
	silent.Probe, c.Realm = ProbeNone, "inside"
	return newTable(t, []Config{goodConfig("a", "192.0.2.1", "192.0.2.2"), silent, c})
}

func states(table *Table) string {
	var list []string
	for _, tr := range table.All() {
		list = append(list, tr.Condition().State)
	}
	return strings.Join(list, " ")
}

// T1, I3: a realm that goes down takes its own trunks out of service at once, with the reason
// and the time, and nobody else's. When it is up they are probed, unless they want no probes.
func TestTrunksFollowTheirRealm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := realmTable(t)
		a := table.Trunk("a")
		start := time.Now()
		want := func(state, reason string, since time.Time) {
			t.Helper()
			if got, want := a.Condition(), (Condition{state, reason, since}); got != want {
				t.Errorf("condition %+v, want %+v", got, want)
			}
			if s := a.Status(); s.State != state || s.Reason != reason || !s.Since.Equal(since) || a.InService() != (state == InService) {
				t.Errorf("status %+v, in service %t", s, a.InService())
			}
		}
		want(InService, "", start)

		time.Sleep(time.Minute)
		table.RealmDown("outside", "tunnel a-primary is down: peer does not answer.")
		want(OutOfService, "tunnel a-primary is down: peer does not answer", start.Add(time.Minute))
		if got := states(table); got != "out-of-service out-of-service in-service" {
			t.Errorf("the realm is down: %s", got)
		}
		time.Sleep(time.Minute)
		table.RealmDown("outside", "tunnel a-primary is down: wrong key")
		want(OutOfService, "tunnel a-primary is down: wrong key", start.Add(time.Minute))

		time.Sleep(time.Minute)
		table.RealmUp("outside")
		want(Probing, "realm outside is up, and no target has answered OPTIONS since", start.Add(3*time.Minute))
		if got := states(table); got != "probing in-service in-service" {
			t.Errorf("the realm is up: %s", got)
		}
		table.RealmDown("outside", "tunnel a-primary is down: it came and went")
		want(OutOfService, "tunnel a-primary is down: it came and went", start.Add(3*time.Minute))
	})
}

// I6: when a backup tunnel takes over, the realm is told of as up once more, and what is in
// service stays so.
func TestUpAgainChangesNothing(t *testing.T) {
	table := realmTable(t)
	before := table.Trunk("a").Condition()
	table.RealmUp("outside")
	if after := table.Trunk("a").Condition(); after != before {
		t.Errorf("was %+v, is %+v", before, after)
	}
}

// prober answers for the targets; it counts what it was asked.
type prober struct {
	answer func(ctx context.Context, target netip.AddrPort) (Answer, error)

	mu    sync.Mutex
	asked map[string][]time.Time
}

func (p *prober) Probe(ctx context.Context, realm string, target netip.AddrPort) (Answer, error) {
	p.mu.Lock()
	if p.asked == nil {
		p.asked = make(map[string][]time.Time)
	}
	key := realm + " " + target.String()
	p.asked[key] = append(p.asked[key], time.Now())
	p.mu.Unlock()
	return p.answer(ctx, target)
}

func (p *prober) times(key string) []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[key]
}

// targets is how many were asked.
func (p *prober) targets() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.asked)
}

// silence is a target that does not answer.
func silence(ctx context.Context, target netip.AddrPort) (Answer, error) {
	<-ctx.Done()
	return Answer{}, fmt.Errorf("OPTIONS to %s: %w", target, ctx.Err())
}

func always(status int, err error) func(context.Context, netip.AddrPort) (Answer, error) {
	return func(context.Context, netip.AddrPort) (Answer, error) {
		return Answer{Status: status, RoundTrip: time.Millisecond}, err
	}
}

// probe supervises the table until the test is over.
func probe(t *testing.T, table *Table, p Prober) {
	t.Helper()
	supervise(t, p, func() *Table { return table })
}

func supervise(t *testing.T, p Prober, current func() *Table) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Supervise(ctx, p, current, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Supervise: %v", err)
		}
	})
}

// I3: any final answer to OPTIONS but 408 and 503 puts a trunk in service; otherwise the reason
// says what it waits for.
func TestProbeAnswers(t *testing.T) {
	for _, row := range []struct {
		name   string
		answer func(context.Context, netip.AddrPort) (Answer, error)
		// reason why it is not in service, or empty.
		reason string
	}{
		{"OK", always(200, nil), ""},
		{"OK, though it knows no OPTIONS", always(405, nil), ""},
		{"OK, though it knows nobody", always(404, nil), ""},
		{"OK, though it fails", always(500, nil), ""},
		{"bad timeout of something behind it", always(408, nil), "192.0.2.1:5060 answers OPTIONS with 408"},
		{"bad overload", always(503, nil), "192.0.2.1:5060 answers OPTIONS with 503"},
		{"bad silence", silence, "192.0.2.1:5060 does not answer OPTIONS"},
		{"bad no route", always(0, fmt.Errorf("no way: %w", syscall.EHOSTUNREACH)), "192.0.2.1:5060 cannot be reached: no route to host"},
		{"bad no stack", always(0, errors.New("realm has no SIP stack")), "192.0.2.1:5060 cannot be asked: realm has no SIP stack"},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				table := newTable(t, []Config{goodConfig("a", "192.0.2.1")})
				probe(t, table, &prober{answer: row.answer})
				table.RealmDown("outside", "it is down")
				table.RealmUp("outside")
				time.Sleep(5 * time.Second)
				want := InService
				if row.reason != "" {
					want = Probing
				}
				if c := table.Trunk("a").Condition(); c.State != want || c.Reason != row.reason {
					t.Errorf("got %q because %q, want %q because %q", c.State, c.Reason, want, row.reason)
				}
			})
		})
	}
}

// I3: nobody is asked while the realm is down; when it is back each target is asked once a second
// at most, and not while an answer is waited for, until the first has answered.
func TestProbePace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := realmTable(t)
		var open atomic.Bool
		p := &prober{answer: func(ctx context.Context, target netip.AddrPort) (Answer, error) {
			switch {
			case target.String() == "192.0.2.1:5060":
				return silence(ctx, target)
			case open.Load():
				return Answer{Status: 200}, nil
			}
			return Answer{Status: 503}, nil
		}}
		table.RealmDown("outside", "it is down")
		probe(t, table, p)
		time.Sleep(time.Minute)
		if n := len(p.times("outside 192.0.2.1:5060")) + len(p.times("outside 192.0.2.2:5060")); n != 0 {
			t.Errorf("%d targets were asked while the realm was down", n)
		}
		up := time.Now()
		table.RealmUp("outside")
		time.Sleep(9500 * time.Millisecond)
		silent, busy := p.times("outside 192.0.2.1:5060"), p.times("outside 192.0.2.2:5060")
		if len(silent) != 5 || len(busy) != 10 {
			t.Errorf("in 9.5 s the silent target was asked %d times, want 5, the busy one %d times, want 10", len(silent), len(busy))
		}
		if !busy[0].Equal(up) {
			t.Errorf("the first question came after %s, want at once", busy[0].Sub(up))
		}

		table.RealmDown("outside", "it is down again")
		time.Sleep(time.Minute)
		if n := len(p.times("outside 192.0.2.1:5060")) + len(p.times("outside 192.0.2.2:5060")); n != len(silent)+len(busy) {
			t.Errorf("%d questions more after the realm was down again", n-len(silent)-len(busy))
		}

		table.RealmUp("outside")
		open.Store(true)
		time.Sleep(time.Second)
		if c := table.Trunk("a").Condition(); c.State != InService || c.Reason != "" {
			t.Errorf("one target answers, and the trunk is %+v", c)
		}
		if n := len(p.times("outside 192.0.2.3:5060")); n != 0 {
			t.Errorf("the trunk that wants no probes was asked %d times", n)
		}
	})
}

// I3: the answer to a probe of a time before the realm went down and came up again says nothing
// of now. It comes late, because the prober does not heed its context.
func TestLateAnswerDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newTable(t, []Config{goodConfig("a", "192.0.2.1")})
		var asked atomic.Int32
		release := make(chan struct{})
		probe(t, table, &prober{answer: func(ctx context.Context, target netip.AddrPort) (Answer, error) {
			if asked.Add(1) == 1 {
				<-release
				return Answer{Status: 200}, nil
			}
			return silence(ctx, target)
		}})
		table.RealmDown("outside", "it is down")
		table.RealmUp("outside")
		synctest.Wait()
		table.RealmDown("outside", "it is down again")
		table.RealmUp("outside")
		synctest.Wait()
		close(release)
		synctest.Wait()
		if c := table.Trunk("a").Condition(); c.State != Probing || asked.Load() != 2 {
			t.Errorf("the trunk is %+v after %d probes", c, asked.Load())
		}
	})
}

// I3: a realm that comes and goes while its trunk answers: no answer is of the time after the
// last news, so that none counts.
func TestAnswersNeverCatchUp(t *testing.T) {
	table := newTable(t, []Config{goodConfig("a", "192.0.2.1")})
	var asked atomic.Int32
	enough := make(chan struct{})
	probe(t, table, &prober{answer: func(context.Context, netip.AddrPort) (Answer, error) {
		if asked.Add(1) == 1000 {
			close(enough)
		}
		table.RealmDown("outside", "it went")
		table.RealmUp("outside")
		return Answer{Status: 200}, nil
	}})
	table.RealmDown("outside", "it is down")
	table.RealmUp("outside")
	select {
	case <-enough:
	case <-time.After(10 * time.Second):
		t.Errorf("after %d probes the trunk is %+v", asked.Load(), table.Trunk("a").Condition())
	}
}

// I3: however answers and news of the realm cross, the last news counts: a trunk whose realm is
// down is not in service, and one whose realm is up gets there.
func TestNewsAndAnswersCross(t *testing.T) {
	table := realmTable(t)
	a := table.Trunk("a")
	probe(t, table, &prober{answer: always(200, nil)})
	for round := range 2000 {
		table.RealmUp("outside")
		if round%3 == 0 {
			await(t, a, InService)
		}
		table.RealmDown("outside", fmt.Sprint("round ", round))
		for range 3 {
			if c := a.Condition(); c.State != OutOfService || c.Reason != fmt.Sprint("round ", round) {
				t.Fatalf("round %d: %+v", round, c)
			}
		}
	}
	table.RealmUp("outside")
	await(t, a, InService)
}

// await polls until the trunk has reached a state.
func await(t *testing.T, tr *Trunk, state string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); tr.Condition().State != state; time.Sleep(10 * time.Microsecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the trunk is %+v, want %s", tr.Condition(), state)
		}
	}
}

// The news of several realms come from several goroutines, while calls read the state.
func TestNewsFromEverywhere(t *testing.T) {
	table := realmTable(t)
	probe(t, table, &prober{answer: always(200, nil)})
	var wg sync.WaitGroup
	for _, realm := range []string{"outside", "inside", "outside"} {
		wg.Go(func() {
			for range 500 {
				table.RealmDown(realm, "down")
				table.RealmUp(realm)
			}
		})
	}
	wg.Go(func() {
		for range 5000 {
			for _, tr := range table.All() {
				if c := tr.Condition(); (c.State == InService) != (c.Reason == "") {
					t.Errorf("state %q with reason %q", c.State, c.Reason)
					return
				}
			}
		}
	})
	wg.Wait()
	for _, tr := range table.All() {
		await(t, tr, InService)
	}
}

// outOfOrder is a set of targets that do not answer.
type outOfOrder struct {
	mu   sync.Mutex
	dead map[netip.AddrPort]bool
}

func (o *outOfOrder) set(target netip.AddrPort, dead bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.dead == nil {
		o.dead = make(map[netip.AddrPort]bool)
	}
	o.dead[target] = dead
}

func (o *outOfOrder) answer(ctx context.Context, target netip.AddrPort) (Answer, error) {
	o.mu.Lock()
	dead := o.dead[target]
	o.mu.Unlock()
	if dead {
		return silence(ctx, target)
	}
	return Answer{Status: 200, RoundTrip: 7 * time.Millisecond}, nil
}

// T6, T9: a trunk of a realm without tunnels is in service from the start. It is out when both
// its targets have failed their probes, says so, and is back when one of them answers again.
func TestProbedAllTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newTable(t, []Config{goodConfig("a", "192.0.2.1", "192.0.2.2")})
		a := table.Trunk("a")
		var world outOfOrder
		p := &prober{answer: world.answer}
		probe(t, table, p)
		time.Sleep(time.Hour)
		for _, key := range []string{"outside 192.0.2.1:5060", "outside 192.0.2.2:5060"} {
			times := p.times(key)
			for i := 1; i < len(times); i++ {
				if d := times[i].Sub(times[i-1]); d < 25*time.Second || d > 35*time.Second {
					t.Fatalf("%s was asked %s after the last time", key, d)
				}
			}
			if len(times) < 3600/35 {
				t.Errorf("%s was asked %d times in an hour", key, len(times))
			}
		}

		world.set(target1, true)
		time.Sleep(time.Minute)
		h := a.Health()
		if h.State != InService || h.Targets[0].State != OutOfService || h.Targets[1].State != InService {
			t.Errorf("one target is dead: %+v", h)
		}
		world.set(target2, true)
		time.Sleep(time.Minute)
		if c := a.Condition(); c.State != OutOfService || c.Reason != "192.0.2.1:5060 does not answer OPTIONS; the same goes for 1 more" {
			t.Errorf("both targets are dead: %+v", c)
		}
		if target, ok := a.NextTarget(); ok {
			t.Errorf("a call gets %s", target)
		}
		world.set(target2, false)
		time.Sleep(time.Minute)
		h = a.Health()
		if target, _ := a.NextTarget(); h.State != InService || h.Changes != 2 || target != target2 {
			t.Errorf("one target is back: %+v", h)
		}
		if d := h.Targets[0]; d.Failures == 0 || d.Probes <= d.Failures || d.RoundTrip != 7*time.Millisecond || d.Reason == "" {
			t.Errorf("the dead target: %+v", d)
		}
	})
}

// T11: what calls find out counts at once, and has the target asked at once.
func TestCallsFeedHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newTable(t, []Config{goodConfig("a", "192.0.2.1")})
		a := table.Trunk("a")
		var world outOfOrder
		p := &prober{answer: world.answer}
		probe(t, table, p)
		synctest.Wait()
		world.set(target1, true)
		for range 5 {
			a.Unheard(target1)
		}
		if c := a.Condition(); c.State != OutOfService {
			t.Errorf("after five silent calls: %+v", c)
		}
		synctest.Wait()
		if n := len(p.times("outside 192.0.2.1:5060")); n != 1 {
			t.Errorf("asked %d times at once, want 1", n)
		}
		world.set(target1, false)
		time.Sleep(time.Minute)
		if c := a.Condition(); c.State != InService {
			t.Errorf("it answers: %+v", c)
		}
		a.Heard(target1, 503, 18*time.Second)
		if c := a.Condition(); c.State != Degraded {
			t.Errorf("503 with Retry-After: %+v", c)
		}
		time.Sleep(18 * time.Second)
		synctest.Wait()
		if c := a.Condition(); c.State != InService {
			t.Errorf("after the Retry-After: %+v", c)
		}
	})
}

// T1: what an operator wants holds at once; nonsense is refused.
func TestAdminister(t *testing.T) {
	a := newTable(t, []Config{goodConfig("a", "192.0.2.1")}).Trunk("a")
	if err := a.Administer(Draining); err != nil || a.InService() || a.Health().Admin != Draining {
		t.Errorf("draining: %v, %+v", err, a.Health())
	}
	if err := a.Administer("in-srvice"); err == nil || a.Condition().State != Draining {
		t.Errorf("nonsense: %v, %+v", err, a.Condition())
	}
	if err := a.Administer(InService); err != nil || !a.InService() || a.Health().Share != 100 {
		t.Errorf("in service: %v, %+v", err, a.Health())
	}
}

// A reload: health goes on where the trunk stays, a new trunk is probed, one that has gone is
// not; a table that is built and not used changes nothing.
func TestSuperviseFollowsReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c := goodConfig("a", "192.0.2.1"), goodConfig("b", "192.0.2.2"), goodConfig("c", "192.0.2.3")
		table := newTable(t, []Config{a, b})
		var current atomic.Pointer[Table]
		current.Store(table)
		var world outOfOrder
		p := &prober{answer: world.answer}
		supervise(t, p, current.Load)
		world.set(target1, true)
		time.Sleep(time.Minute)
		table.RealmDown("other", "its cable is out")
		before := table.Trunk("a").Condition()
		if before.State != OutOfService {
			t.Fatalf("trunk a: %+v", before)
		}

		a.State, a.ProbeInterval = Draining, time.Second
		c.Realm = "other"
		next, err := New(Configs{Trunks: []Config{a, c}}, table)
		if err != nil {
			t.Fatal(err)
		}
		if got := table.Trunk("a").Condition(); got != before {
			t.Errorf("trunk a was changed by a table that is not used: %+v", got)
		}
		if got := next.Trunk("c").Condition(); got.State != OutOfService || got.Reason != "its cable is out" {
			t.Errorf("a new trunk of a realm that is down: %+v", got)
		}
		current.Store(next)
		next.Adopt()
		synctest.Wait()
		if got := next.Trunk("a").Condition(); got.State != Draining || !strings.Contains(got.Reason, "does not answer OPTIONS") {
			t.Errorf("trunk a after the reload: %+v", got)
		}
		asked := func() (n [3]int) {
			for i, key := range []string{"outside 192.0.2.1:5060", "outside 192.0.2.2:5060", "other 192.0.2.3:5060"} {
				n[i] = len(p.times(key))
			}
			return n
		}
		next.RealmUp("other")
		world.set(target1, false)
		was := asked()
		time.Sleep(time.Minute)
		now := asked()
		if now[0]-was[0] < 50 || now[1] != was[1] || now[2] == was[2] {
			t.Errorf("asked %v times before the reload and %v a minute later", was, now)
		}
		if got := next.Trunk("c").Condition(); got.State != InService {
			t.Errorf("trunk c: %+v", got)
		}
	})
}

// News of a realm that somebody tells a table that a reload has just replaced reach the trunks that
// the reload has added.
func TestNewsOfAFormerTable(t *testing.T) {
	for _, isNamed := range []bool{false, true} {
		a, b := goodConfig("a", "192.0.2.1"), goodConfig("b", "192.0.2.2")
		a.Probe, b.Probe = ProbeNone, ProbeNone
		former := newTable(t, []Config{a})
		if isNamed {
			former.Resolve(Names{})
		}
		former.RealmDown("outside", "it is down")
		next, err := New(Configs{Trunks: []Config{a, b}}, former)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := New(Configs{Trunks: []Config{b}}, former); err != nil { // a dry run
			t.Fatal(err)
		}
		next.Adopt()
		former.RealmUp("outside")
		if got := states(next); got != "in-service in-service" {
			t.Errorf("the realm is up: %s", got)
		}
		former.RealmDown("outside", "it is down")
		if got := states(next); got != "out-of-service out-of-service" {
			t.Errorf("the realm is down: %s", got)
		}
	}
}

// mutes are a table of n trunks with one target each, of which those after the first living do not
// answer, and a prober that counts how many wait at once.
func mutes(t *testing.T, n, living int) (table *Table, p *prober, flying, most *atomic.Int32) {
	t.Helper()
	var trunks []Config
	first := netip.MustParseAddr("10.0.0.0")
	addr := first
	for i := range n {
		addr = addr.Next()
		c := goodConfig(fmt.Sprint("t", i), addr.String())
		c.ProbeInterval = 30 * time.Second
		trunks = append(trunks, c)
	}
	alive := make(map[netip.Addr]bool)
	for range living {
		first = first.Next()
		alive[first] = true
	}
	flying, most = new(atomic.Int32), new(atomic.Int32)
	p = &prober{answer: func(ctx context.Context, target netip.AddrPort) (Answer, error) {
		n := flying.Add(1)
		defer flying.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if alive[target.Addr()] {
			return Answer{Status: 200}, nil
		}
		return silence(ctx, target)
	}}
	return newTable(t, trunks), p, flying, most
}

// Probes are bounded: of 1000 targets that do not answer 512 are waited for at once, all get
// their turn, and a tunnel that is back need not wait for the probes of before.
func TestProbesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, p, flying, most := mutes(t, 1000, 0)
		table.RealmDown("outside", "it is down")
		probe(t, table, p)
		table.RealmUp("outside")
		time.Sleep(5 * time.Second)
		if n := most.Load(); n != maxFlights {
			t.Errorf("%d probes at once, want %d", n, maxFlights)
		}
		if n := p.targets(); n != 1000 {
			t.Errorf("%d of 1000 targets were asked in 5 s", n)
		}
		table.RealmDown("outside", "it is down again")
		synctest.Wait()
		if n := flying.Load(); n != 0 {
			t.Errorf("%d probes go on while the realm is down", n)
		}
		table.RealmUp("outside")
		synctest.Wait()
		if n := flying.Load(); n != maxFlights {
			t.Errorf("%d probes right after the realm is up, want %d", n, maxFlights)
		}
	})
}

// T6: when 500 targets fall silent at once those that answer have their turn nevertheless.
func TestOutageDelaysNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, p, _, _ := mutes(t, 520, 20)
		probe(t, table, p)
		time.Sleep(10 * time.Minute)
		for i := range 20 {
			times := p.times(fmt.Sprintf("outside 10.0.0.%d:5060", i+1))
			for j := 1; j < len(times); j++ {
				if d := times[j].Sub(times[j-1]); d > 31*time.Second {
					t.Fatalf("living target %d was asked %s after the last time", i, d)
				}
			}
			if len(times) < 19 {
				t.Errorf("living target %d was asked %d times in 10 minutes", i, len(times))
			}
		}
	})
}

// What changes by time alone does not wait for room for a probe.
func TestTimePassesWithoutRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, p, flying, _ := mutes(t, 2*maxFlights, 0)
		probe(t, table, p)
		for _, tr := range table.All() {
			tr.Unheard(tr.reach.Load().targets[0]) // it is asked at once
		}
		synctest.Wait()
		if n := flying.Load(); n != maxFlights {
			t.Fatalf("%d probes, want %d", n, maxFlights)
		}
		i := slices.IndexFunc(table.All(), func(tr *Trunk) bool { return p.times("outside "+tr.reach.Load().targets[0].String()) == nil })
		last := table.All()[i]
		last.Heard(last.reach.Load().targets[0], 503, time.Second)
		synctest.Wait()
		if c := last.Condition(); c.State != Degraded {
			t.Fatalf("a trunk without room for its probe is %+v", c)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if c := last.Condition(); c.State != InService {
			t.Errorf("after the Retry-After it is %+v", c)
		}
		if n := flying.Load(); n != maxFlights {
			t.Errorf("there was room: %d probes", n)
		}
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if n := p.targets(); n != 2*maxFlights {
			t.Errorf("%d targets were asked, when the first probes had ended", n)
		}
	})
}
