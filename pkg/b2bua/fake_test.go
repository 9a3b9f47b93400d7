package b2bua

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// fakeLeg is a leg whose peer is the test: do lists what the gateway did to it, emit
// makes something happen on it.
type fakeLeg struct {
	name   string
	peer   netip.AddrPort
	events chan call.Event
	did    chan action

	mu     sync.Mutex
	closed bool
	ended  bool

	// deaf answers no BYE: Close lasts as long as it may.
	deaf bool
	// busy refuses to send a re-INVITE, as a leg does whose own INVITE is not over.
	busy bool
}

type action struct {
	what string
	code int
	body []byte
	// phrase of a response.
	phrase string
	// q850 of a close.
	q850 int
}

func newFakeLeg(name, peer string) *fakeLeg {
	return &fakeLeg{
		name: name, peer: netip.MustParseAddrPort(peer),
		events: make(chan call.Event, 16), did: make(chan action, 16),
	}
}

func (l *fakeLeg) CallID() string            { return l.name + "@test" }
func (l *fakeLeg) Peer() netip.AddrPort      { return l.peer }
func (l *fakeLeg) Local() netip.AddrPort     { return netip.MustParseAddrPort("192.0.2.1:5060") }
func (l *fakeLeg) Events() <-chan call.Event { return l.events }

func (l *fakeLeg) Progress(code int, phrase string, body []byte) error {
	return l.do(action{what: "progress", code: code, body: body, phrase: phrase})
}
func (l *fakeLeg) Accept(body []byte) error {
	return l.do(action{what: "accept", code: 200, body: body})
}
func (l *fakeLeg) Reject(r call.Rejection) error {
	return l.do(action{what: "reject", code: r.Code, phrase: r.Reason})
}
func (l *fakeLeg) Ack(body []byte) error { return l.do(action{what: "ack", body: body}) }
func (l *fakeLeg) Reinvite(body []byte) error {
	if l.busy {
		return errors.New("another INVITE is pending")
	}
	return l.do(action{what: "reinvite", body: body})
}

func (l *fakeLeg) Close(ctx context.Context, cause call.Cause) {
	l.mu.Lock()
	first := !l.closed && !l.ended
	l.closed = true
	l.mu.Unlock()
	if first {
		l.did <- action{what: "close", code: cause.SIP, q850: cause.Q850}
	}
	if l.deaf {
		<-ctx.Done()
	}
}

func (l *fakeLeg) do(a action) error {
	l.mu.Lock()
	gone := l.closed || l.ended
	l.mu.Unlock()
	if gone {
		return errors.New("the leg has ended")
	}
	l.did <- a
	return nil
}

func (l *fakeLeg) emit(ev call.Event) {
	if _, ok := ev.(call.Ended); ok {
		l.mu.Lock()
		l.ended = true
		l.mu.Unlock()
	}
	l.events <- ev
}

// expect waits for the next thing done to the leg.
func (l *fakeLeg) expect(t *testing.T, what string) action {
	t.Helper()
	select {
	case a := <-l.did:
		if a.what != what {
			t.Fatalf("%s leg: got %s (%d), want %s", l.name, a.what, a.code, what)
		}
		return a
	case <-time.After(15 * time.Second):
		t.Fatalf("%s leg: nothing happened, want %s", l.name, what)
		return action{}
	}
}

// fakeDialer hands out legs in order; a nil leg is a dial that fails.
type fakeDialer struct {
	mu      sync.Mutex
	legs    []*fakeLeg
	dialled chan dial
	// failure is what a dial fails with.
	failure error
	// onDial, if set, runs before the leg is handed out.
	onDial func(call.Target)
}

type dial struct {
	target call.Target
	invite call.Invite
}

func (d *fakeDialer) Dial(target call.Target, invite call.Invite) (call.Leg, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dialled <- dial{target, invite}
	if d.onDial != nil {
		d.onDial(target)
	}
	if len(d.legs) == 0 || d.legs[0] == nil {
		if len(d.legs) > 0 {
			d.legs = d.legs[1:]
		}
		return nil, d.failure
	}
	leg := d.legs[0]
	d.legs = d.legs[1:]
	return leg, nil
}

// fakeEngine keeps flows as a set.
type fakeEngine struct {
	mu    sync.Mutex
	flows map[call.FlowKey]call.Flow
	// onInstall, if set, runs before flows go in.
	onInstall func()
	// broken is what Snapshot fails with.
	broken error
}

func newFakeEngine() *fakeEngine { return &fakeEngine{flows: make(map[call.FlowKey]call.Flow)} }

func (e *fakeEngine) Install(flows []call.Flow) error {
	if e.onInstall != nil {
		e.onInstall()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, f := range flows {
		e.flows[f.Key] = f
	}
	return nil
}

func (e *fakeEngine) Remove(keys []call.FlowKey) ([]call.FlowStats, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, k := range keys {
		delete(e.flows, k)
	}
	return e.stats(keys), nil
}

func (e *fakeEngine) Snapshot(keys []call.FlowKey) ([]call.FlowStats, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.broken != nil {
		return nil, e.broken
	}
	return e.stats(keys), nil
}

func (e *fakeEngine) breakDown(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.broken = err
}

func (e *fakeEngine) stats(keys []call.FlowKey) []call.FlowStats {
	stats := make([]call.FlowStats, len(keys))
	for i, k := range keys {
		stats[i] = call.FlowStats{Key: k, Packets: 100}
	}
	return stats
}

func (e *fakeEngine) Events() <-chan call.MediaEvent { return nil }

func (e *fakeEngine) installed() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.flows)
}

type fakeRecorder chan call.Record

func (r fakeRecorder) Write(rec call.Record) { r <- rec }
