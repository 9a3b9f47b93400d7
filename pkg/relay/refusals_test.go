package relay

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// TestRefusedOncePerSource: a spray is one event in a realm, however many ports and
// packets it tries, until its source has been quiet for a minute (M7).
func TestRefusedOncePerSource(t *testing.T) {
	d := newDoor(t, call.Flow{Remote: alice})
	first := d.f
	otherPort := netip.AddrPortFrom(outsider.Addr(), 9)
	refusals := func(want ...call.MediaEvent) {
		t.Helper()
		wantEvents(t, d.e, want...)
	}
	d.want(outsider, rtp(1), exitSourceRefused)
	d.want(otherPort, rtp(2), exitSourceRefused)
	d.s.flow.Store(d.flow(2, false))
	d.want(outsider, rtp(3), exitSourceRefused)
	refusals(call.MediaEvent{Key: first.key, Kind: call.MediaRefused, Source: outsider})

	d.want(natted, rtp(4), exitSourceRefused)
	refusals(call.MediaEvent{Key: d.s.flow.Load().key, Kind: call.MediaRefused, Source: natted})

	for range 5 {
		d.wait(quiet - time.Second)
		d.want(outsider, rtp(5), exitSourceRefused)
	}
	refusals() // never quiet for long enough
	d.wait(quiet)
	d.want(otherPort, rtp(6), exitSourceRefused)
	refusals(call.MediaEvent{Key: d.s.flow.Load().key, Kind: call.MediaRefused, Source: otherPort})
}

// TestRefusedPerRealm: equal addresses in two realms are two sources (N2).
func TestRefusedPerRealm(t *testing.T) {
	r, now := newRefusals(), time.Now()
	for realm := range uint16(3) {
		if !r.first(realm+1, outsider.Addr(), now) {
			t.Errorf("realm %d: seen before", realm+1)
		}
	}
}

// TestRefusedDisplaced: who has been quiet for longest makes room, nobody else.
func TestRefusedDisplaced(t *testing.T) {
	r, now := newRefusals(), time.Now()
	one, _ := r.find(1, outsider.Addr())
	var alike []netip.Addr // of that set, one more than it has room for
	for a := outsider.Addr(); len(alike) <= refusalWays; a = a.Next() {
		if set, _ := r.find(1, a); set == one {
			alike = append(alike, a)
		}
	}
	for i, a := range alike {
		if !r.first(1, a, now.Add(time.Duration(i)*time.Second)) {
			t.Fatalf("source %d: seen before", i)
		}
	}
	for i, a := range alike[1:] {
		if r.first(1, a, now.Add(30*time.Second)) {
			t.Errorf("source %d: forgotten", i+1)
		}
	}
	if !r.first(1, alike[0], now.Add(30*time.Second)) {
		t.Error("more sources are known than there is room for")
	}
}

// TestForgedSources: sources in masses displace each other, and take no more memory; what
// they make the engine say leaves room for what a call waits for.
func TestForgedSources(t *testing.T) {
	d := newDoor(t, latching())
	const forged = 200_000
	packet, from := rtp(1), [4]byte{100}
	if n := testing.AllocsPerRun(1, func() {
		for i := range uint32(forged / 2) { // AllocsPerRun runs it twice
			binary.BigEndian.PutUint32(from[:], 100<<24|i)
			d.take(netip.AddrPortFrom(netip.AddrFrom4(from), 5000), packet)
		}
	}); n > 100 {
		t.Errorf("%v allocations", n)
	}
	if s := d.f.snapshot(); s.Refused != forged {
		t.Errorf("refused %d, want %d", s.Refused, forged)
	}
	if n := len(d.e.events); n > maxEvents/2 {
		t.Errorf("%d events of strangers wait, more than half of %d", n, maxEvents)
	}
	if s, err := d.e.Stats(); err != nil || s.EventsLost == 0 {
		t.Errorf("%d events lost, %v", s.EventsLost, err)
	}
	again := latching()
	again.Latch.Generation++
	d.install(again)
	d.want(natted, rtp(2), exitForwarded)
	if got := kinds(events(d.e), call.MediaLatched); len(got) != 1 {
		t.Errorf("%d latched events, want 1", len(got))
	}
}
