package trunk

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tandem-sbc/tandem/pkg/resolve"
	"github.com/tandem-sbc/tandem/tests/dnsd"
)

// namesRig is a table whose names are looked up by a real DNS server. It is in a bubble, where
// hours pass at once; the server is outside of it.
type namesRig struct {
	*testing.T
	dns      *dnsd.Server
	resolver *resolve.Resolver
	table    *Table

	mu  sync.Mutex
	log bytes.Buffer
	// moves are what Changed was told: "a left 192.0.2.1".
	moves []string
	// refused is an address that must not be a target.
	refused netip.AddrPort
}

// Write takes a line of the log.
func (r *namesRig) Write(line []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(line)
}

// refuse has an address refused.
func (r *namesRig) refuse(target string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refused = netip.MustParseAddrPort(target)
}

// withNames tells a story of trunks in the realm "outside".
func withNames(t *testing.T, zone []string, trunks []Config, story func(t *testing.T, r *namesRig)) {
	t.Helper()
	withServer(t, dnsd.Serve(t, zone...), trunks, story)
}

// withServer does so with a DNS server that is as the story begins.
func withServer(t *testing.T, s *dnsd.Server, trunks []Config, story func(t *testing.T, r *namesRig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := resolve.Config{Servers: []string{s.Addr()}}
		c.SetDefaults()
		r := &namesRig{T: t, dns: s}
		r.resolver = resolve.New(c, resolve.Options{})
		r.table = newTable(t, trunks)
		r.table.Resolve(Names{
			Resolvers: map[string]*resolve.Resolver{"outside": r.resolver},
			Changed: func(tr *Trunk, left []netip.Addr) {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.moves = append(r.moves, strings.TrimSpace(fmt.Sprintf("%s left %s", tr.Name(), strings.Trim(fmt.Sprint(left), "[]"))))
			},
			Refuse: func(realm string, target netip.AddrPort) string {
				r.mu.Lock()
				defer r.mu.Unlock()
				if target == r.refused {
					return "is our own"
				}
				return ""
			},
			Log: slog.New(slog.NewTextHandler(r, nil)),
		})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.resolver.Run(ctx) }()
		defer func() {
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		story(t, r)
	})
}

// pass lets time pass, and what falls due in it happen.
func (r *namesRig) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// said returns what was logged since the last time.
func (r *namesRig) said() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.log.Reset()
	return r.log.String()
}

// moved returns the moves since the last time.
func (r *namesRig) moved() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	moves := r.moves
	r.moves = nil
	return moves
}

func (r *namesRig) is(when, name, state, reason string) {
	r.Helper()
	if c := r.table.Trunk(name).Condition(); c.State != state || !strings.Contains(c.Reason, reason) || (reason == "") != (c.Reason == "") {
		r.Errorf("%s: trunk %s is %s because %q, want %s because %q", when, name, c.State, c.Reason, state, reason)
	}
}

// peers checks whose the addresses are: "192.0.2.1 a".
func (r *namesRig) peers(when string, want ...string) {
	r.Helper()
	var got []string
	for _, addr := range r.table.Peers("outside") {
		got = append(got, fmt.Sprint(addr, " ", r.table.ByPeer("outside", addr).Name()))
	}
	if !slices.Equal(got, want) {
		r.Errorf("%s: peers %q, want %q", when, got, want)
	}
}

// picks are the targets of n calls.
func (r *namesRig) picks(name string, n int) map[string]int {
	count := make(map[string]int)
	for range n {
		target, ok := r.table.Trunk(name).NextTarget()
		if !ok {
			count["none"]++
			continue
		}
		count[target.String()]++
	}
	return count
}

// gone has a target dead.
func (r *namesRig) gone(name, target string) {
	for range 5 {
		r.table.Trunk(name).Unheard(netip.MustParseAddrPort(target))
	}
}

var srvZone = []string{
	"_sip._udp.sip.example.com. 300 IN SRV 10 60 5060 a.example.com.",
	"_sip._udp.sip.example.com. 300 IN SRV 10 30 5070 b.example.com.",
	"_sip._udp.sip.example.com. 300 IN SRV 10 10 5060 c.example.com.",
	"_sip._udp.sip.example.com. 300 IN SRV 20 1 5060 d.example.com.",
	"a.example.com. 300 IN A 192.0.2.1", "b.example.com. 300 IN A 192.0.2.2",
	"c.example.com. 300 IN A 192.0.2.3", "d.example.com. 300 IN A 192.0.2.4",
}

// T9, RFC 3263: calls go to the targets of a name by SRV priority and weight among those that are
// alive, so that DNS is not what fails over.
func TestNamesByWeight(t *testing.T) {
	withNames(t, srvZone, []Config{goodConfig("a", "sip.example.com")}, func(t *testing.T, r *namesRig) {
		r.pass(0)
		r.is("known", "a", InService, "")
		const calls = 1000
		check := func(when string, want map[string]int) {
			t.Helper()
			got := r.picks("a", calls)
			t.Logf("%s: %v", when, got)
			for target, n := range got {
				// Five times the standard deviation, which is 15.8 at the most.
				if off := n - want[target]; off < -79 || off > 79 || want[target] == 0 {
					t.Errorf("%s: %s got %d of %d calls, want %d", when, target, n, calls, want[target])
				}
			}
			if len(got) != len(want) {
				t.Errorf("%s: %v, want %v", when, got, want)
			}
		}
		check("all alive", map[string]int{"192.0.2.1:5060": 600, "192.0.2.2:5070": 300, "192.0.2.3:5060": 100})
		r.gone("a", "192.0.2.1:5060")
		check("the first is dead", map[string]int{"192.0.2.2:5070": 750, "192.0.2.3:5060": 250})
		r.gone("a", "192.0.2.2:5070")
		r.gone("a", "192.0.2.3:5060")
		check("all of the first priority are dead", map[string]int{"192.0.2.4:5060": 1000})
		r.is("one left", "a", InService, "")
		target, _ := r.table.Trunk("a").NextTarget()
		if _, ok := r.table.Trunk("a").NextTarget(target); ok {
			t.Error("a second target, where there is one")
		}
		r.gone("a", "192.0.2.4:5060")
		check("all are dead", map[string]int{"none": 1000})
		r.is("none left", "a", OutOfService, "192.0.2.1:5060 gave no response")
	})
}

// T9: DNS changes while calls run. The next call takes the new address, calls from there are known,
// media may come from there, and who has left is told of. What is known of an address that stays
// stays with it; a new one is asked at once.
func TestNamesChange(t *testing.T) {
	withNames(t, []string{"a.example.com. 60 IN A 192.0.2.1", "a.example.com. 60 IN A 192.0.2.2"},
		[]Config{goodConfig("a", "a.example.com:5070")}, func(t *testing.T, r *namesRig) {
			r.pass(0)
			r.peers("before", "192.0.2.1 a", "192.0.2.2 a")
			if h := r.table.Trunk("a").Health(); h.Share != 100 || h.Targets[0].Next.After(time.Now()) {
				t.Errorf("a trunk that comes back from nowhere: %+v", h)
			}
			r.gone("a", "192.0.2.2:5070")
			r.dns.Set("a.example.com. 60 IN A 192.0.2.2", "a.example.com. 60 IN A 192.0.2.3")
			r.pass(61 * time.Second)
			r.peers("after", "192.0.2.2 a", "192.0.2.3 a")
			if diff := cmp.Diff(map[string]int{"192.0.2.3:5070": 10}, r.picks("a", 10)); diff != "" {
				t.Errorf("calls -want +got:\n%s", diff)
			}
			if r.table.ByPeer("outside", netip.MustParseAddr("192.0.2.1")) != nil {
				t.Error("who has left is known")
			}
			want := prefixes("192.0.2.2/32", "192.0.2.3/32")
			if got, explicit := r.table.Trunk("a").MediaPrefixes(); explicit || !slices.Equal(got, want) {
				t.Errorf("media from %v, want %v", got, want)
			}
			if want := []string{"a left", "a left 192.0.2.1"}; !slices.Equal(r.moves, want) {
				t.Errorf("moves %q, want %q", r.moves, want)
			}
			if said := r.said(); said != "" {
				t.Errorf("said %s", said)
			}
		})
}

// T9: when DNS is dead the last known targets go on, as the trunk's status says, and it is asked
// again when the realm is up again.
func TestNamesWhenDNSIsDead(t *testing.T) {
	withNames(t, srvZone, []Config{goodConfig("a", "sip.example.com")}, func(t *testing.T, r *namesRig) {
		r.pass(0)
		r.dns.Die(true)
		r.pass(24*time.Hour + 5*time.Second)
		r.is("dead", "a", InService, "")
		names := r.table.Trunk("a").Status().Names
		if len(names) != 1 || names[0].State != resolve.Stale || len(names[0].Endpoints) != 4 || !strings.Contains(names[0].String(), "ServerFailure") {
			t.Errorf("status %+v", names)
		}
		if n := r.picks("a", 100)["none"]; n > 0 {
			t.Errorf("%d calls had no target", n)
		}
		r.dns.Die(false)
		r.table.RealmUp("outside")
		r.pass(0)
		if s := r.table.Trunk("a").Status().Names[0]; s.State != resolve.Known {
			t.Errorf("the realm is up: %s", s)
		}
	})
}

// T9: a trunk whose names DNS has not answered for is out of service and says why, and is in
// service with all of its weight as soon as it has. So it is with a name that DNS does not have.
func TestNamesThatAreNotKnown(t *testing.T) {
	trunks := []Config{goodConfig("a", "sip.example.com"), goodConfig("b", "192.0.2.9", "nobody.example.com")}
	dns := dnsd.Serve(t, srvZone...)
	dns.Die(true)
	withServer(t, dns, trunks, func(t *testing.T, r *namesRig) {
		r.is("not asked", "a", OutOfService, "sip.example.com: no DNS answer yet")
		r.is("has an address", "b", InService, "")
		r.table.AwaitNames(t.Context(), "inside") // nothing to wait for
		r.table.AwaitNames(t.Context(), "outside")
		r.is("dead", "a", OutOfService, "ServerFailure")
		if n := r.picks("a", 1)["none"]; n != 1 {
			t.Error("a target out of nothing")
		}
		r.dns.Die(false)
		r.pass(10 * time.Second)
		r.is("alive", "a", InService, "")
		if h := r.table.Trunk("a").Health(); h.Share != 100 || len(h.Targets) != 4 {
			t.Errorf("health %+v", h)
		}
		r.dns.Set()
		r.pass(301 * time.Second)
		r.is("denied", "a", OutOfService, "sip.example.com: DNS has no targets: the name does not exist")
		r.is("one of two denied", "b", InService, "")
		r.peers("denied", "192.0.2.9 b")
		r.dns.Set(srvZone...)
		r.pass(10 * time.Second)
		r.is("there again", "a", InService, "")
		if h := r.table.Trunk("a").Health(); h.Share > 50 {
			t.Errorf("a trunk that is back has %d %% of its weight", h.Share)
		}
	})
}

// Nobody waits for a DNS that is silent for longer than the caller wants.
func TestAwaitNamesEnds(t *testing.T) {
	table := newTable(t, []Config{goodConfig("a", "sip.example.com")})
	table.AwaitNames(t.Context(), "outside") // nobody looks names up
	if c := table.Trunk("a").Condition(); c.State != InService {
		t.Errorf("a table for looking at: %+v", c)
	}
	if _, ok := table.Trunk("a").NextTarget(); ok {
		t.Error("a target out of nothing")
	}
	table.Resolve(Names{Resolvers: map[string]*resolve.Resolver{"outside": resolve.New(resolve.Config{}, resolve.Options{})}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	table.AwaitNames(ctx, "outside") // the resolver does not run
	if c := table.Trunk("a").Condition(); c.State != OutOfService || c.Reason != "sip.example.com: no DNS answer yet" {
		t.Errorf("the resolver does not run: %+v", c)
	}
}

// S13, T9: an address has one trunk in a realm: that which has it in the config, else the first one
// with a name for it. The other one does not use it, says so once and in its status, and gets it
// when it is free. Nor may DNS lead to the gateway itself.
func TestNamesThatClash(t *testing.T) {
	zone := []string{"a.example.com. 60 IN A 192.0.2.1", "b.example.com. 60 IN A 192.0.2.1", "b.example.com. 60 IN A 192.0.2.2", "c.example.com. 60 IN A 192.0.2.3"}
	trunks := []Config{goodConfig("a", "a.example.com:5060"), goodConfig("b", "b.example.com:5060"), goodConfig("c", "c.example.com:5060"), goodConfig("d", "192.0.2.3")}
	withNames(t, zone, trunks, func(t *testing.T, r *namesRig) {
		r.pass(0)
		r.peers("clash", "192.0.2.1 a", "192.0.2.2 b", "192.0.2.3 d")
		r.is("shares one", "b", InService, "")
		r.is("shares its only one", "c", OutOfService, "c.example.com:5060 is 192.0.2.3 by DNS, which is trunk d's already")
		if n := r.picks("b", 10)["192.0.2.2:5060"]; n != 10 {
			t.Errorf("trunk b has %d of 10 calls at its own address", n)
		}
		const why = "b.example.com:5060 is 192.0.2.1 by DNS, which is trunk a's already"
		if got := r.table.Trunk("b").Status().Refused; !slices.Equal(got, []string{why}) {
			t.Errorf("status %q", got)
		}
		if said := r.said(); strings.Count(said, why) != 1 || strings.Count(said, "\n") != 2 {
			t.Errorf("said %s", said)
		}
		r.pass(10 * time.Minute)
		if said := r.said(); said != "" {
			t.Errorf("said again %s", said)
		}
		r.refuse("192.0.2.7:5060")
		zone[0] = "a.example.com. 60 IN A 192.0.2.7"
		r.dns.Set(zone...)
		r.pass(2 * time.Minute)
		r.peers("free", "192.0.2.1 b", "192.0.2.2 b", "192.0.2.3 d")
		r.is("leads to us", "a", OutOfService, "a.example.com:5060 is 192.0.2.7:5060 by DNS, which is our own")
		if r.table.Trunk("b").Status().Refused != nil {
			t.Error("refused for good")
		}
	})
}

// A reload keeps what is known of the names that stay, asks nothing for a table that is never used,
// and forgets the names that are gone.
func TestNamesOverReloads(t *testing.T) {
	zone := []string{"a.example.com. 3600 IN A 192.0.2.1", "b.example.com. 3600 IN A 192.0.2.2"}
	a, b := goodConfig("a", "a.example.com:5060"), goodConfig("b", "b.example.com:5060")
	withNames(t, zone, []Config{a}, func(t *testing.T, r *namesRig) {
		r.pass(0)
		r.gone("a", "192.0.2.1:5060")
		since := r.table.Trunk("a").Condition().Since
		r.dns.Asked()

		former := r.table
		next, err := New(Configs{Trunks: []Config{b, a}}, former)
		if err != nil {
			t.Fatal(err)
		}
		r.pass(time.Minute)
		if n := r.dns.Asked(); n > 0 {
			t.Errorf("a dry run has asked %d questions", n)
		}
		if c := next.Trunk("b").Condition(); c.State != OutOfService || c.Reason != "b.example.com:5060: DNS has not been asked yet" {
			t.Errorf("a dry run's new trunk: %+v", c)
		}
		next.Adopt()
		r.table = next
		r.pass(0)
		if n := r.dns.Asked(); n != 1 {
			t.Errorf("asked %d questions for one new name", n)
		}
		r.peers("both", "192.0.2.2 b", "192.0.2.1 a")
		r.is("new", "b", InService, "")
		if c := next.Trunk("a").Condition(); c.State != OutOfService || !c.Since.Equal(since) {
			t.Errorf("what was dead is %+v", c)
		}

		last, err := New(Configs{Trunks: []Config{b}}, next)
		if err != nil {
			t.Fatal(err)
		}
		last.Adopt()
		r.table = last
		r.peers("one", "192.0.2.2 b")
		// A call of a former generation still has where it can go.
		if got := next.Trunk("a").reach.Load().targets; !slices.Equal(got, []netip.AddrPort{target1}) {
			t.Errorf("the former trunk is at %v", got)
		}
		r.dns.Asked()
		r.pass(90 * time.Minute)
		if n := r.dns.Asked(); n != 1 {
			t.Errorf("asked %d questions in 90 minutes for one name", n)
		}
		if diff := cmp.Diff([]string{"b.example.com:5060"}, watched(r.resolver), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("watched -want +got:\n%s", diff)
		}
	})
}

// next builds the table of a reload, which is not in use yet.
func (r *namesRig) next(trunks ...Config) *Table {
	r.Helper()
	next, err := New(Configs{Trunks: trunks}, r.table)
	if err != nil {
		r.Fatal(err)
	}
	return next
}

// adopt has a table in use.
func (r *namesRig) adopt(next *Table) {
	r.table = next
	next.Adopt()
}

// N8, T9: the names that a reload brings are looked up before it takes effect, so that no trunk is
// without targets for a moment. The table in use does not notice, and a table that is dropped leaves
// nothing behind.
func TestAwait(t *testing.T) {
	zone := []string{"a.example.com. 3600 IN A 192.0.2.1", "b.example.com. 3600 IN A 192.0.2.2", "c.example.com. 3600 IN A 192.0.2.3"}
	c := goodConfig("c", "c.example.com:5060")
	withNames(t, zone, []Config{goodConfig("a", "192.0.2.9"), c}, func(t *testing.T, r *namesRig) {
		r.pass(0)
		r.dns.Asked()
		r.table.Await(t.Context()) // it is in use already
		a, b := goodConfig("a", "a.example.com:5060"), goodConfig("b", "b.example.com:5060")
		next := r.next(a, b, c)
		next.Await(t.Context())
		for name, want := range map[string]string{"a": "192.0.2.1:5060", "b": "192.0.2.2:5060", "c": "192.0.2.3:5060"} {
			tr := next.Trunk(name)
			if target, ok := tr.NextTarget(); !ok || target.String() != want || !tr.InService() {
				t.Errorf("before the reload: a call by %s goes to %s, %t, %+v", name, target, ok, tr.Condition())
			}
		}
		if n := r.dns.Asked(); n != 2 {
			t.Errorf("asked %d questions for two new names", n)
		}
		r.peers("the table in use", "192.0.2.9 a", "192.0.2.3 c")

		next.Drop()
		next.Drop()
		if diff := cmp.Diff([]string{"c.example.com:5060"}, watched(r.resolver)); diff != "" {
			t.Errorf("watched for a table that was dropped, -want +got:\n%s", diff)
		}
		lost := r.next(a, goodConfig("d", "d.example.com:5060"), c) // neither dropped nor adopted
		lost.Await(t.Context())
		next = r.next(a, b, c)
		next.Await(t.Context())
		lost.Drop()
		next.Await(t.Context())
		r.dns.Asked()
		r.adopt(next)
		r.peers("after", "192.0.2.1 a", "192.0.2.2 b", "192.0.2.3 c")
		r.pass(time.Minute)
		if n := r.dns.Asked(); n > 0 {
			t.Errorf("asked %d questions anew", n)
		}
		next.Drop()
		if diff := cmp.Diff([]string{"a.example.com:5060", "b.example.com:5060", "c.example.com:5060"}, watched(r.resolver)); diff != "" {
			t.Errorf("watched -want +got:\n%s", diff)
		}
		r.next(b).Await(t.Context())
		last := r.next(goodConfig("e", "e.example.com:5060"))
		last.Await(t.Context())
		r.adopt(r.next(goodConfig("f", "192.0.2.7"))) // another one than was waited for
		if list := watched(r.resolver); list != nil {
			t.Errorf("watched without names: %q", list)
		}
	})
}

// N8, T9: where DNS does not answer for the names of a reload in time the former targets go on, with
// what is known of them, and it is said. When DNS answers that counts, whatever it says.
func TestAwaitWithoutAnswer(t *testing.T) {
	zone := []string{"a.example.com. 60 IN A 192.0.2.1", "c.example.com. 60 IN A 192.0.2.3"}
	before := []Config{goodConfig("a", "192.0.2.8", "192.0.2.9"), goodConfig("b", "192.0.2.6"), goodConfig("c", "c.example.com:5060")}
	withNames(t, zone, before, func(t *testing.T, r *namesRig) {
		r.pass(0)
		r.gone("a", "192.0.2.8:5060")
		r.dns.Die(true)
		// Trunk b's former address is another's now, and the names of c stay.
		after := []Config{
			goodConfig("a", "a.example.com:5060"), goodConfig("b", "nobody.example.com:5060"), goodConfig("c", "c.example.com:5060", "more.example.com:5060"),
			goodConfig("d", "192.0.2.6"), goodConfig("e", "a.example.com:5060"),
		}
		next := r.next(after...)
		next.Await(t.Context())
		if target, ok := next.Trunk("a").NextTarget(); !ok || target.String() != "192.0.2.9:5060" {
			t.Errorf("before the reload: %s, %t", target, ok)
		}
		r.said()
		r.adopt(next)
		if said := r.said(); strings.Count(said, "former targets go on") != 1 || !strings.Contains(said, "trunk=a") {
			t.Errorf("said %s", said)
		}
		r.peers("dead", "192.0.2.8 a", "192.0.2.9 a", "192.0.2.3 c", "192.0.2.6 d")
		r.is("dead", "a", InService, "")
		r.is("its address is another's", "b", OutOfService, "nobody.example.com:5060: no DNS answer yet")
		r.is("new", "e", OutOfService, "a.example.com:5060: no DNS answer yet")
		if got := r.picks("a", 10); got["192.0.2.9:5060"] != 10 {
			t.Errorf("calls went to %v", got)
		}

		r.adopt(r.next(after...)) // a reload that changes nothing
		r.is("dead, again", "a", InService, "")
		r.dns.Die(false)
		r.moved()
		r.pass(10 * time.Second)
		r.peers("alive", "192.0.2.1 a", "192.0.2.3 c", "192.0.2.6 d")
		if moves := r.moved(); !slices.Contains(moves, "a left 192.0.2.8 192.0.2.9") {
			t.Errorf("moves %q", moves)
		}
		r.dns.Set()
		r.pass(61 * time.Second)
		r.is("denied", "a", OutOfService, "the name does not exist")
	})
	withNames(t, nil, []Config{goodConfig("a", "192.0.2.9")}, func(t *testing.T, r *namesRig) {
		next := r.next(goodConfig("a", "a.example.com:5060"))
		next.Await(t.Context())
		r.adopt(next)
		r.is("denied at once", "a", OutOfService, "the name does not exist")
	})
}

// T9: DNS answers after the wait of a reload and before its table is in use. Whoever keeps the former
// peers for their running calls hears that the address which stood in is left.
func TestAnswerBeforeAdopt(t *testing.T) {
	withNames(t, []string{"a.example.com. 60 IN A 192.0.2.1"}, []Config{goodConfig("a", "192.0.2.9")}, func(t *testing.T, r *namesRig) {
		r.dns.Die(true)
		next := r.next(goodConfig("a", "a.example.com:5060"))
		next.Await(t.Context())
		r.dns.Die(false)
		r.pass(time.Minute)
		if moves := r.moved(); len(moves) > 0 {
			t.Errorf("the table in use has no such name, and moved: %q", moves)
		}
		r.adopt(next)
		r.peers("answered", "192.0.2.1 a")
		if moves := r.moved(); !slices.Equal(moves, []string{"a left 192.0.2.9"}) {
			t.Errorf("moves %q", moves)
		}
	})
}

// An address that must not be a target any more is none that stands in, nor is one of another realm.
func TestWhoDoesNotStandIn(t *testing.T) {
	inside := goodConfig("b", "192.0.2.2")
	inside.Realm = "inside"
	withNames(t, nil, []Config{goodConfig("a", "192.0.2.1"), inside}, func(t *testing.T, r *namesRig) {
		r.dns.Die(true)
		r.refuse("192.0.2.1:5060")
		next := r.next(goodConfig("a", "a.example.com:5060"), goodConfig("b", "b.example.com:5060"))
		next.Await(t.Context())
		r.adopt(next)
		r.is("denied", "a", OutOfService, "a.example.com:5060")
		r.is("of another realm", "b", OutOfService, "b.example.com:5060")
	})
}

// Await ends with its context, and waits for no realm that is down.
func TestAwaitEnds(t *testing.T) {
	looking := newTable(t, []Config{goodConfig("a", "192.0.2.1")})
	named := []Config{goodConfig("a", "sip.example.com")}
	build := func(former *Table) *Table {
		next, err := New(Configs{Trunks: named}, former)
		if err != nil {
			t.Fatal(err)
		}
		return next
	}
	build(looking).Await(t.Context()) // nobody looks names up

	r := resolve.New(resolve.Config{}, resolve.Options{}) // it does not run
	table := newTable(t, []Config{goodConfig("a", "192.0.2.1")})
	table.Resolve(Names{Resolvers: map[string]*resolve.Resolver{"outside": r}})
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	next := build(table)
	next.Await(ctx)
	if target, ok := next.Trunk("a").NextTarget(); !ok || target != target1 {
		t.Errorf("a call goes to %s, %t", target, ok)
	}
	next.Drop()
	table.RealmDown("outside", "it is down")
	next = build(table)
	next.Await(t.Context())
	next.Drop()
	if list := watched(r); list != nil {
		t.Errorf("watched %q", list)
	}
}

func watched(r *resolve.Resolver) []string {
	var list []string
	for _, s := range r.Status() {
		list = append(list, s.Target)
	}
	return list
}

// However many addresses DNS has, a trunk has 64 at most.
func TestNamesAreBounded(t *testing.T) {
	var zone, targets []string
	for i := range 4 {
		targets = append(targets, fmt.Sprintf("n%d.example.com:5060", i))
		for j := range 40 {
			zone = append(zone, fmt.Sprintf("n%d.example.com. 60 IN A 192.0.2.%d", i, 40*i+j))
		}
	}
	c := goodConfig("a", targets...)
	c.MediaSource = Latch
	withNames(t, zone, []Config{c}, func(t *testing.T, r *namesRig) {
		r.pass(0)
		if n := len(r.table.Peers("outside")); n != 64 {
			t.Errorf("%d addresses", n)
		}
		if n := len(r.picks("a", 5000)); n != 64 {
			t.Errorf("calls went to %d targets", n)
		}
		if list, _ := r.table.Trunk("a").MediaPrefixes(); len(list) != 7 {
			t.Errorf("media may be learned from %d prefixes", len(list))
		}
		if n := r.table.MorePeers("outside"); n != 64 {
			t.Errorf("room for %d", n)
		}
	})
}
