package resolve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// rig is a resolver that runs inside a bubble of synctest, where hours pass at once. The
// DNS server is outside of it, so a question under way holds the clock.
type rig struct {
	*Resolver
	t   *testing.T
	log *logLines
}

func run(t *testing.T, c Config) *rig {
	log := new(logLines)
	r := &rig{New(c, Options{Log: slog.New(slog.NewTextHandler(log, nil))}), t, log}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

// pass lets time pass, and what falls due in it happen.
func (r *rig) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// expect checks a watch.
func (r *rig) expect(w *Watch, state State, targets ...string) {
	r.t.Helper()
	if s := w.Status(); s.State != state || !slices.Equal(addrs(w.Set()), targets) {
		r.t.Errorf("%s is %s with %q; want %s with %q", s.Target, s.State, addrs(w.Set()), state, targets)
	}
}

// logLines keeps what was logged.
type logLines struct {
	mu    sync.Mutex
	lines []string
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(p))
	return len(p), nil
}

// take returns the lines since the last time.
func (l *logLines) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := l.lines
	l.lines = nil
	return lines
}

// said checks that one line was logged since the last time, with all of parts.
func (r *rig) said(parts ...string) {
	r.t.Helper()
	lines := r.log.take()
	if len(lines) != 1 {
		r.t.Errorf("%d lines were logged, want one: %q", len(lines), lines)
		return
	}
	for _, part := range parts {
		if !strings.Contains(lines[0], part) {
			r.t.Errorf("%q has no %q", lines[0], part)
		}
	}
}

// story runs a test in a bubble, beside a server.
func story(t *testing.T, f func(t *testing.T, s *dnsServer), zone ...string) {
	s := serveDNS(t, zone...)
	synctest.Test(t, func(t *testing.T) { f(t, s) })
}

// TestChangeInFlight: a change of DNS is used when the TTL has passed, and told once; an
// answer with the same targets is no change (T9).
func TestChangeInFlight(t *testing.T) {
	story(t, func(t *testing.T, s *dnsServer) {
		r := run(t, testConfig(s))
		var told []string
		w := r.Watch(mustTarget(t, "a.example.com:5060"), UDP, func(s Set) { told = append(told, s.String()) })
		r.pass(0)
		r.expect(w, Known, "192.0.2.1:5060", "192.0.2.2:5060")
		r.said("INFO", "a.example.com", "192.0.2.1:5060 192.0.2.2:5060")

		s.set("a.example.com. 60 IN A 192.0.2.2", "a.example.com. 60 IN A 192.0.2.1") // another order
		r.pass(61 * time.Second)
		s.set("a.example.com. 60 IN A 192.0.2.2", "a.example.com. 60 IN A 192.0.2.3")
		r.pass(30 * time.Second)
		r.expect(w, Known, "192.0.2.1:5060", "192.0.2.2:5060") // the TTL has not passed
		r.log.take()
		r.pass(31 * time.Second)
		r.expect(w, Known, "192.0.2.2:5060", "192.0.2.3:5060")
		r.said("INFO", `before="192.0.2.1:5060 192.0.2.2:5060"`)
		if want := []string{"192.0.2.1:5060 192.0.2.2:5060", "192.0.2.2:5060 192.0.2.3:5060"}; !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
		w.Close()
		s.questions()
		r.pass(time.Hour)
		if asked := s.questions(); len(asked) > 0 {
			t.Errorf("asked %q for nobody", asked)
		}
	}, "a.example.com. 60 IN A 192.0.2.1", "a.example.com. 60 IN A 192.0.2.2")
}

// TestDNSDead: the last known targets go on being used, for good if nothing else is
// configured, and it is said once when it begins and once when it ends.
func TestDNSDead(t *testing.T) {
	story(t, func(t *testing.T, s *dnsServer) {
		r := run(t, testConfig(s))
		calls := 0
		w := r.Watch(mustTarget(t, "example.com"), UDP, func(Set) { calls++ })
		r.pass(0)
		r.expect(w, Known, "192.0.2.1:5060")
		r.log.take()

		s.instead(refuse(dns.RcodeServerFailure))
		r.pass(time.Hour)
		r.expect(w, Stale, "192.0.2.1:5060")
		r.said("WARN", "the last known targets go on being used", "192.0.2.1:5060", "ServerFailure", s.addr)
		r.pass(2 * time.Hour)
		r.expect(w, Stale, "192.0.2.1:5060")
		if status := w.Status(); !strings.Contains(status.String(), "3h0m0s ago") || status.Error == "" {
			t.Errorf("status %q", status)
		}
		if lines := r.log.take(); len(lines) > 0 {
			t.Errorf("said again: %q", lines)
		}

		s.instead(nil)
		r.pass(retryAfter)
		r.expect(w, Known, "192.0.2.1:5060")
		r.said("INFO", "targets by DNS")
		if calls != 3 { // known, stale, known again
			t.Errorf("%d calls back", calls)
		}
	}, "_sip._udp.example.com. 300 IN SRV 1 1 5060 a.example.com.", "a.example.com. 300 IN A 192.0.2.1")
}

// TestNoResponse is the same with a server that says nothing at all, in real time.
func TestNoResponse(t *testing.T) {
	s := serveDNS(t, "a.example.com. 60 IN A 192.0.2.1")
	s.instead(silent)
	r := New(testConfig(s), Options{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	short, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if _, err := r.Lookup(short, mustTarget(t, "a.example.com"), UDP); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a look-up that nobody waits for any more: %v", err)
	}
	begin := time.Now()
	cancel() // questions that are under way end at once
	if err := <-done; err != nil || time.Since(begin) > 5*time.Second {
		t.Errorf("Run ended after %s: %v", time.Since(begin), err)
	}
}

// TestNeverAnswered: a name of which nothing was ever known is said once, and found when
// DNS is there.
func TestNeverAnswered(t *testing.T) {
	story(t, func(t *testing.T, s *dnsServer) {
		s.instead(refuse(dns.RcodeRefused))
		r := run(t, testConfig(s))
		w := r.Watch(mustTarget(t, "a.example.com:5060"), UDP, nil)
		r.pass(10 * time.Minute)
		r.expect(w, Pending)
		r.said("WARN", "no target is known", "Refused", s.addr)
		if status := w.Status().String(); !strings.HasPrefix(status, "no DNS answer yet: ") {
			t.Errorf("status %q", status)
		}
		s.instead(nil)
		r.pass(retryAfter)
		r.expect(w, Known, "192.0.2.1:5060")
		r.said("INFO", "targets by DNS")
	}, "a.example.com. 60 IN A 192.0.2.1")
}

// TestAgainWhileAsking: the network comes back while a question is on its way to nowhere. When that
// has failed DNS is asked at once, in real time.
func TestAgainWhileAsking(t *testing.T) {
	for _, isBack := range []bool{true, false} {
		s := serveDNS(t, "a.example.com. 60 IN A 192.0.2.1")
		asked, fail := make(chan struct{}, 8), make(chan struct{})
		s.instead(func(w dns.ResponseWriter, q *dns.Msg) bool {
			asked <- struct{}{}
			<-fail
			return refuse(dns.RcodeServerFailure)(w, q)
		})
		c := testConfig(s)
		c.Attempts = 1
		r := run(t, c)
		told := make(chan string, 8)
		w := r.Watch(mustTarget(t, "a.example.com:5060"), UDP, func(s Set) { told <- s.String() })
		<-asked
		r.Again()
		if isBack {
			s.instead(nil)
		}
		close(fail)
		if got := <-told; got != "" {
			t.Errorf("found %q before DNS has answered", got)
		}
		select {
		case got := <-told:
			if !isBack || got != "192.0.2.1:5060" {
				t.Errorf("found %q, is back: %t", got, isBack)
			}
		case <-asked:
			if isBack {
				t.Error("asked in vain")
			}
		case <-time.After(retryAfter / 2):
			t.Errorf("DNS was not asked again, is back: %t", isBack)
		}
		w.Close()
	}
}

// TestHostWithoutAddressIsAskedForAgain: a host of an SRV record that has no address is asked about
// soon again, however long the records live.
func TestHostWithoutAddressIsAskedForAgain(t *testing.T) {
	zone := []string{
		"_sip._udp.example.com. 3600 IN SRV 1 1 5060 a.example.com.", "_sip._udp.example.com. 3600 IN SRV 1 1 5060 b.example.com.",
		"a.example.com. 3600 IN A 192.0.2.1", "b.example.com. 3600 IN AAAA 2001:db8::1",
	}
	story(t, func(t *testing.T, s *dnsServer) {
		r := run(t, testConfig(s))
		w := r.Watch(mustTarget(t, "example.com"), UDP, nil)
		r.pass(0)
		r.expect(w, Known, "192.0.2.1:5060")
		s.set(append(zone, "b.example.com. 3600 IN A 192.0.2.2")...)
		r.pass(longestLack + time.Second)
		r.expect(w, Known, "192.0.2.1:5060", "192.0.2.2:5060")
		s.questions()
		r.pass(50 * time.Minute)
		if asked := s.questions(); len(asked) > 0 {
			t.Errorf("asked %q while all is known", asked)
		}
	}, zone...)
}

// TestPartOfAnSRVSetIsSaid: a set that is not whole counts, is said, and is asked about
// soon again.
func TestPartOfAnSRVSetIsSaid(t *testing.T) {
	story(t, func(t *testing.T, s *dnsServer) {
		s.instead(func(w dns.ResponseWriter, q *dns.Msg) bool {
			return q.Question[0].Name == "b.example.com." && refuse(dns.RcodeServerFailure)(w, q)
		})
		r := run(t, testConfig(s))
		w := r.Watch(mustTarget(t, "example.com"), UDP, nil)
		r.pass(time.Minute)
		r.expect(w, Known, "192.0.2.1:5060")
		r.said("WARN", "some of the targets", "b.example.com", "192.0.2.1:5060")
		s.instead(nil)
		r.pass(retryAfter)
		r.expect(w, Known, "192.0.2.1:5060", "192.0.2.2:5060")
		r.said("INFO", "targets by DNS")
	}, "_sip._udp.example.com. 3600 IN SRV 1 1 5060 a.example.com.", "_sip._udp.example.com. 3600 IN SRV 1 1 5060 b.example.com.",
		"a.example.com. 3600 IN A 192.0.2.1", "b.example.com. 3600 IN A 192.0.2.2")
}

// TestMaxStale: with a limit the last known targets end some time.
func TestMaxStale(t *testing.T) {
	story(t, func(t *testing.T, s *dnsServer) {
		c := testConfig(s)
		c.MaxStale = time.Hour
		r := run(t, c)
		var told []string
		w := r.Watch(mustTarget(t, "a.example.com:5060"), UDP, func(s Set) { told = append(told, s.String()) })
		r.pass(0)
		s.instead(refuse(dns.RcodeServerFailure))
		r.pass(59 * time.Minute)
		r.expect(w, Stale, "192.0.2.1:5060")
		r.log.take()
		r.pass(3 * time.Minute)
		r.expect(w, Expired)
		r.said("WARN", "no longer used", "before=192.0.2.1:5060")
		s.instead(nil)
		r.pass(retryAfter)
		r.expect(w, Known, "192.0.2.1:5060")
		if want := []string{"192.0.2.1:5060", "192.0.2.1:5060", "", "192.0.2.1:5060"}; !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
	}, "a.example.com. 60 IN A 192.0.2.1")
}

// TestDenial: a name that DNS has no longer has no targets, and is asked about again after
// the time that a denial holds.
func TestDenial(t *testing.T) {
	story(t, func(t *testing.T, s *dnsServer) {
		r := run(t, testConfig(s))
		w := r.Watch(mustTarget(t, "a.example.com:5060"), UDP, nil)
		r.pass(0)
		s.set()
		r.pass(61 * time.Second)
		r.expect(w, Denied)
		s.questions()
		r.pass(5 * time.Second)
		if asked := s.questions(); len(asked) > 0 {
			t.Errorf("asked %q while the denial holds", asked)
		}
		r.log.take()
		s.set("a.example.com. 60 IN A 192.0.2.9")
		r.pass(5 * time.Second)
		r.expect(w, Known, "192.0.2.9:5060")
		r.said("INFO", "192.0.2.9:5060")
	}, "a.example.com. 60 IN A 192.0.2.1")
}

// TestTTLBounds: a TTL of 0 does not make us ask all the time, and a long one ends after an
// hour.
func TestTTLBounds(t *testing.T) {
	story(t, func(t *testing.T, s *dnsServer) {
		r := run(t, testConfig(s))
		for name, want := range map[string]int{"zero": 3600 / 5, "long": 1, "negative": 3600 / 5} {
			w := r.Watch(mustTarget(t, name+".example.com:5060"), UDP, nil)
			r.pass(time.Second)
			s.questions()
			r.pass(time.Hour)
			if n := len(s.questions()); n < want-1 || n > want+1 {
				t.Errorf("%s: asked %d times in an hour, want %d", name, n, want)
			}
			w.Close()
		}
	}, "zero.example.com. 0 IN A 192.0.2.1", "long.example.com. 604800 IN A 192.0.2.1", "negative.example.com. 4294967295 IN A 192.0.2.1")
}

// TestAddressTarget: what needs no look-up is there at once, without Run and for good.
func TestAddressTarget(t *testing.T) {
	r := New(Config{}, Options{})
	w := r.Watch(mustTarget(t, "192.0.2.1"), UDP, func(Set) { t.Error("called back") })
	defer w.Close()
	if s := w.Status(); w.Set().String() != "192.0.2.1:5060" || s.State != Fixed || s.String() != "an address" {
		t.Errorf("%s, %s", w.Set(), s)
	}
	if s, err := r.Lookup(t.Context(), mustTarget(t, "192.0.2.1:5070"), UDP); err != nil || s.String() != "192.0.2.1:5070" {
		t.Errorf("%s, %v", s, err)
	}
	if all := r.Status(); len(all) > 0 {
		t.Errorf("%+v", all)
	}
}

// TestWatches: watches of one name share its questions; a closed one is not called, and
// what is known outlives it, as at a reload.
func TestWatches(t *testing.T) {
	story(t, func(t *testing.T, s *dnsServer) {
		r := run(t, testConfig(s))
		target := mustTarget(t, "a.example.com:5060")
		calls := make(map[string]int)
		var second *Watch
		first := r.Watch(target, UDP, func(Set) { calls["first"]++; second.Close() }) // closes the next one before its turn
		second = r.Watch(target, UDP, func(Set) { calls["second"]++ })
		overTCP := r.Watch(target, TCP, func(Set) { calls["tcp"]++ })
		r.pass(0)
		if asked := s.questions(); len(asked) != 2 || calls["first"] != 1 || calls["second"] != 0 || calls["tcp"] != 1 {
			t.Errorf("asked %q, called back %v", asked, calls)
		}
		if all := r.Status(); len(all) != 2 || all[0].Transport != TCP || all[1].Transport != UDP {
			t.Errorf("%+v", all)
		}
		first.Close()
		overTCP.Close()
		s.instead(refuse(dns.RcodeServerFailure))
		r.pass(2 * time.Hour)
		again := r.Watch(target, UDP, nil)
		r.expect(again, Known, "192.0.2.1:5060")
		r.pass(0)
		r.expect(again, Stale, "192.0.2.1:5060")
	}, "a.example.com. 60 IN A 192.0.2.1")
}

// TestWatchedAnew: what has failed or was denied is asked about at once for whoever comes to watch it,
// not for a second watch.
func TestWatchedAnew(t *testing.T) {
	for what, code := range map[string]int{"a failure": dns.RcodeServerFailure, "a denial": dns.RcodeNameError} {
		story(t, func(t *testing.T, s *dnsServer) {
			r := run(t, testConfig(s))
			target := mustTarget(t, "a.example.com:5060")
			s.instead(refuse(code))
			first := r.Watch(target, UDP, nil)
			r.pass(0)
			s.instead(nil)
			s.questions()
			second := r.Watch(target, UDP, nil)
			r.pass(0)
			if asked := s.questions(); len(asked) > 0 {
				t.Errorf("%s: asked %q for a second watch", what, asked)
			}
			first.Close()
			second.Close()
			w := r.Watch(target, UDP, nil)
			r.expect(w, Pending)
			r.pass(0)
			r.expect(w, Known, "192.0.2.1:5060")
		}, "a.example.com. 60 IN A 192.0.2.1")
	}
}

// TestLookup: what is known is returned at once; old answers are used while the new one is
// under way; a denial is kept; many who ask at once ask DNS once.
func TestLookup(t *testing.T) {
	story(t, func(t *testing.T, s *dnsServer) {
		r := run(t, testConfig(s))
		target := mustTarget(t, "a.example.com:5060")
		ask := func(want string) {
			t.Helper()
			if set, err := r.Lookup(t.Context(), target, UDP); err != nil || set.String() != want {
				t.Errorf("%s, %v; want %s", set, err, want)
			}
		}
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() { ask("192.0.2.1:5060") })
		}
		all.Wait()
		ask("192.0.2.1:5060")
		if asked := s.questions(); len(asked) != 1 {
			t.Errorf("asked %q", asked)
		}
		s.set("a.example.com. 60 IN A 192.0.2.2")
		r.pass(61 * time.Second)
		ask("192.0.2.1:5060") // stale, while it is refreshed
		r.pass(0)
		ask("192.0.2.2:5060")
		s.set("a.example.com. 60 IN A 192.0.2.3")
		r.pass(24 * time.Hour)
		ask("192.0.2.3:5060") // of yesterday: DNS is asked first
		s.instead(refuse(dns.RcodeServerFailure))
		r.pass(24 * time.Hour)
		ask("192.0.2.3:5060") // unless it is dead

		s.instead(nil)
		s.questions()
		for range 3 {
			if set, err := r.Lookup(t.Context(), mustTarget(t, "nobody.example.com:5060"), UDP); !errors.Is(err, errNoSuchName) || set.Len() > 0 {
				t.Errorf("%s, %v", set, err)
			}
		}
		if asked := s.questions(); len(asked) != 1 {
			t.Errorf("asked %q while a denial holds", asked)
		}
	}, "a.example.com. 60 IN A 192.0.2.1")
}

// TestLookupsAreBounded: names that peers make up push each other out, and never those that
// are watched.
func TestLookupsAreBounded(t *testing.T) {
	r := New(Config{}, Options{})
	w := r.Watch(mustTarget(t, "watched.example.com"), UDP, nil)
	for i := range 2 * maxNames {
		target := mustTarget(t, fmt.Sprintf("n%d.example.com", i))
		if _, _, err := r.look(target, UDP); i < maxNames && err != nil {
			t.Fatal(err)
		} else if i >= maxNames && !errors.Is(err, errFull) {
			t.Fatalf("%d names that are being looked up: %v", i, err)
		}
	}
	for _, e := range r.names {
		e.wanted = false // as if all were settled
	}
	for i := range 2 * maxNames {
		if _, _, err := r.look(mustTarget(t, fmt.Sprintf("m%d.example.com", i)), UDP); err != nil {
			t.Fatal(err)
		}
		r.names[name{mustTarget(t, fmt.Sprintf("m%d.example.com", i)), UDP}].wanted = false
	}
	if len(r.names) != maxNames+1 || r.names[w.entry.name] != w.entry {
		t.Errorf("%d names are kept", len(r.names))
	}
}

// TestSetDoesNotAllocate: calls read it.
func TestSetDoesNotAllocate(t *testing.T) {
	w := New(Config{}, Options{}).Watch(Target{Addr: netip.MustParseAddr("192.0.2.1")}, UDP, nil)
	if n := testing.AllocsPerRun(1000, func() { _ = w.Set().Len() }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
