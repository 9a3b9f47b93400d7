package b2bua

import (
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

const tunnelDown = "tunnel a-primary is down: peer does not answer"

var causeTunnelDown = call.Cause{Code: "tunnel-down", SIP: 503, Q850: 38, Text: "Realm outside was without a tunnel for 60 s."}

// backupElsewhere puts the backup trunk into a realm of its own.
func backupElsewhere(trunks []trunk.Config) { trunks[2].Realm = "elsewhere" }

// down is a realm's loss of its last tunnel, told in the order in which the daemon tells it.
func (b *bench) down(realm string) (left int) {
	b.trunks.RealmDown(realm, tunnelDown)
	return b.RealmDown(realm, tunnelDown)
}

// bye ends the call of a leg by its peer.
func bye(l *fakeLeg) {
	l.emit(call.Ended{Cause: call.Cause{Code: "normal-clearing", SIP: 200, Text: "The peer hung up."}})
}

// wantAttempt checks one failed try in a record.
func wantAttempt(t *testing.T, rec call.Record, i int, name, code, text string) {
	t.Helper()
	if i >= len(rec.Attempts) {
		t.Fatalf("%d attempts in the record, want more: %+v", len(rec.Attempts), rec.Attempts)
	}
	a := rec.Attempts[i]
	if a.Trunk != name || a.Cause.Code != code || a.Cause.Text != text || a.Cause.By != byTandem || a.Cause.SIP != 503 || a.Cause.Q850 == 0 {
		t.Errorf("attempt %d: %+v, want %s of trunk %q: %s", i, a, code, name, text)
	}
}

// T1, I3: a trunk whose tunnel is down is not tried; the next one is. It is no attempt, and the
// trunk's own counts have nothing of it.
func TestTrunkOutOfServiceIsPassedOver(t *testing.T) {
	callee := newFakeLeg("callee", backupPeer)
	b := newBenchWith(t, backupElsewhere, callee)
	b.down("outside")
	caller := b.call(callerSDP)
	if d := <-b.dialer.dialled; d.target.Addr.String() != backupPeer || d.target.Realm != "elsewhere" {
		t.Errorf("dialled %+v", d.target)
	}
	callee.emit(call.Accepted{Body: []byte(calledSDP)})
	callee.expect(t, "ack")
	caller.expect(t, "accept")
	bye(caller)
	callee.expect(t, "close")
	rec := b.record(t)
	if rec.Cause.Code != "normal-clearing" || rec.Egress.Trunk != "backup" || len(rec.Attempts) != 0 {
		t.Errorf("record %+v", rec)
	}
	if out := b.trunks.Trunk("carrier").Status().Out; out.Attempts != 0 || out.Failures != 0 {
		t.Errorf("the trunk's counts: %+v", out)
	}
}

// T1, S20: when no trunk is in service the platform hears 503, and may try elsewhere itself.
func TestAllTrunksOutOfService(t *testing.T) {
	b := newBench(t)
	b.down("outside")
	for _, state := range []string{"out of service: " + tunnelDown, "not in service yet: realm outside is up, and no target has answered OPTIONS since"} {
		caller := b.call(callerSDP)
		if a := caller.expect(t, "close"); a.code != 503 {
			t.Errorf("the caller was told %d, want 503", a.code)
		}
		rec := b.record(t)
		want := `Trunk "carrier" is ` + state + "."
		if rec.Cause.Code != "trunk-out-of-service" || rec.Cause.Text != want || len(rec.Attempts) != 0 {
			t.Errorf("record %+v, want %s", rec, want)
		}
		b.trunks.RealmUp("outside")
	}
	if n := len(b.dialer.dialled); n != 0 {
		t.Errorf("%d trunks were dialled", n)
	}
}

// A call that got here by a realm is taken, whatever is said of the realm.
func TestInboundFromRealmThatIsDown(t *testing.T) {
	callee := newFakeLeg("callee", platformPeer)
	b := newBench(t, callee)
	b.down("outside")
	caller := b.callFrom("outside", carrierPeer, "+15550100", callerSDP)
	<-b.dialer.dialled
	callee.emit(call.Accepted{Body: []byte(calledSDP)})
	callee.expect(t, "ack")
	caller.expect(t, "accept")
	bye(caller)
	callee.expect(t, "close")
	if rec := b.record(t); rec.Cause.Code != "normal-clearing" || rec.Ingress.Realm != "outside" {
		t.Errorf("record %+v", rec)
	}
}

// I3, T11: a call that is being set up by a tunnel that goes down does not wait for its timers:
// the try is cancelled, and the next trunk has the call at once.
func TestTunnelGoesDownDuringSetup(t *testing.T) {
	for name, progress := range map[string]int{"before any response": 0, "while it rings": 180, "with early media": 183} {
		t.Run(name, func(t *testing.T) {
			first, second := newFakeLeg("first", carrierPeer), newFakeLeg("second", backupPeer)
			b := newBenchWith(t, backupElsewhere, first, second)
			caller := b.call(callerSDP)
			<-b.dialer.dialled
			switch progress {
			case 180:
				first.emit(call.Progressed{Code: 180})
				caller.expect(t, "progress")
			case 183:
				first.emit(call.Progressed{Code: 183, Body: []byte(calledSDP)})
				caller.expect(t, "progress")
			}
			if n := b.down("inside"); n != 0 {
				t.Errorf("%d calls were told of the other realm", n)
			}
			if n := b.down("outside"); n != 1 {
				t.Errorf("%d calls went on to another trunk, want 1", n)
			}
			if a := first.expect(t, "close"); a.q850 != q850NetworkFailure {
				t.Errorf("the carrier hears Q.850 %d", a.q850)
			}
			if d := <-b.dialer.dialled; d.target.Addr.String() != backupPeer {
				t.Errorf("went on to %s", d.target.Addr)
			}
			second.emit(call.Accepted{Body: []byte(calledSDP)})
			second.expect(t, "ack")
			caller.expect(t, "accept")
			bye(caller)
			second.expect(t, "close")
			rec := b.record(t)
			if rec.Cause.Code != "normal-clearing" || rec.Egress.Trunk != "backup" {
				t.Errorf("record %+v", rec)
			}
			wantAttempt(t, rec, 0, "carrier", "trunk-out-of-service", `Trunk "carrier" went out of service before it answered: `+tunnelDown+".")
			if out := b.trunks.Trunk("carrier").Status().Out; out.Failures != 1 {
				t.Errorf("the trunk's counts: %+v", out)
			}
		})
	}
}

// The news comes in the moment in which the INVITE is sent: it finds the call all the same.
func TestTunnelGoesDownDuringDial(t *testing.T) {
	first := newFakeLeg("first", carrierPeer)
	b := newBench(t, first)
	b.dialer.onDial = func(call.Target) { b.down("outside") }
	caller := b.call(callerSDP)
	first.expect(t, "close")
	if a := caller.expect(t, "close"); a.code != 503 {
		t.Errorf("the caller was told %d, want 503", a.code)
	}
	rec := b.record(t)
	wantAttempt(t, rec, 0, "carrier", "trunk-out-of-service", `Trunk "carrier" went out of service before it answered: `+tunnelDown+".")
	if len(rec.Attempts) != 1 {
		t.Errorf("attempts %+v: the next trunk is in the same realm", rec.Attempts)
	}
}

// Running calls are kept: those that are answered go on when their realm goes down, and end as
// calls do.
func TestAnsweredCallsOutliveTheTunnel(t *testing.T) {
	callee := newFakeLeg("callee", carrierPeer)
	b := newBench(t, callee)
	caller := establish(t, b, callee)
	b.live(t, call.Answered)
	if n := b.down("outside"); n != 0 {
		t.Errorf("%d calls went on to another trunk", n)
	}
	hold(t, caller, callee)
	bye(caller)
	callee.expect(t, "close")
	if rec := b.record(t); rec.Cause.Code != "normal-clearing" {
		t.Errorf("cause %+v", rec.Cause)
	}
}

// T11: an INVITE that the kernel has no route for, and one whose route goes while nobody has
// answered, go on by the next trunk at once, and the record says why in words.
func TestNoWayToTheTrunk(t *testing.T) {
	second := newFakeLeg("second", backupPeer)
	for name, row := range map[string]struct {
		legs    []*fakeLeg
		failure error
		text    string
	}{
		"no route": {[]*fakeLeg{nil, second}, fmt.Errorf("sipua: no way to %s: %w", carrierPeer, syscall.EHOSTUNREACH),
			`Trunk "carrier" cannot be reached by realm "outside": no route to host.`},
		"no stack": {[]*fakeLeg{nil, second}, fmt.Errorf(`realm "outside" has no SIP stack`),
			`The INVITE to trunk "carrier" could not be sent: realm "outside" has no SIP stack.`},
		"the route goes": {[]*fakeLeg{newFakeLeg("first", carrierPeer), second}, nil,
			`Trunk "carrier" was lost before it answered: There is no way to 203.0.113.10:5060 any more: no route to host.`},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, row.legs...)
			b.dialer.failure = row.failure
			caller := b.call(callerSDP)
			<-b.dialer.dialled
			if first := row.legs[0]; first != nil {
				first.emit(call.Ended{Cause: call.Cause{Code: "unreachable", SIP: 503, Q850: 38,
					Text: "There is no way to 203.0.113.10:5060 any more: no route to host."}})
			}
			if d := <-b.dialer.dialled; d.target.Addr.String() != backupPeer {
				t.Errorf("went on to %s", d.target.Addr)
			}
			second.emit(call.Rejected{Rejection: call.Rejection{Code: 486}})
			caller.expect(t, "close")
			rec := b.record(t)
			if len(rec.Attempts) != 2 || rec.Attempts[0].Cause.Code != "unreachable" || rec.Attempts[0].Cause.Text != row.text {
				t.Errorf("attempts %+v, want %s", rec.Attempts, row.text)
			}
		})
	}
}

// I3: calls with a leg in the realm are ended, whichever leg it is and however far they are;
// both sides are told, and the record has the cause.
func TestHangupRealm(t *testing.T) {
	for _, row := range []struct {
		name  string
		realm string
		begin func(*testing.T, *bench, *fakeLeg) *fakeLeg
	}{
		{"answered, called side", "outside", establish},
		{"answered, calling side", "inside", establish},
		{"ringing, called side", "outside", ringing},
		{"ringing, calling side", "inside", ringing},
	} {
		t.Run(row.name, func(t *testing.T) {
			callee := newFakeLeg("callee", carrierPeer)
			b := newBenchWith(t, backupElsewhere, callee, newFakeLeg("unused", backupPeer))
			caller := row.begin(t, b, callee)
			if n := b.HangupRealm("elsewhere", causeTunnelDown); n != 0 {
				t.Errorf("%d calls of another realm were ended", n)
			}
			if n := b.HangupRealm(row.realm, causeTunnelDown); n != 1 {
				t.Errorf("%d calls were ended, want 1", n)
			}
			if n := b.HangupRealm(row.realm, causeTunnelDown); n != 0 {
				t.Errorf("%d calls were ended for the second time", n)
			}
			for _, leg := range []*fakeLeg{callee, caller} {
				if a := leg.expect(t, "close"); a.code != 503 || a.q850 != causeTunnelDown.Q850 {
					t.Errorf("the %s hears %d and Q.850 %d", leg.name, a.code, a.q850)
				}
			}
			want := causeTunnelDown
			want.By = byTandem
			if rec := b.record(t); rec.Cause != want {
				t.Errorf("cause %+v, want %+v", rec.Cause, want)
			}
			if n := len(b.dialer.dialled); n != 0 {
				t.Errorf("the call went on to another trunk")
			}
		})
	}
}

// ringing brings a call up to the called party's phone.
func ringing(t *testing.T, b *bench, callee *fakeLeg) *fakeLeg {
	t.Helper()
	caller := b.call(callerSDP)
	<-b.dialer.dialled
	callee.emit(call.Progressed{Code: 180})
	caller.expect(t, "progress")
	return caller
}

// A call that was in the realm and has gone on to another one is not ended with it.
func TestHangupRealmSparesWhoLeft(t *testing.T) {
	first, second := newFakeLeg("first", carrierPeer), newFakeLeg("second", backupPeer)
	b := newBenchWith(t, backupElsewhere, first, second)
	caller := b.call(callerSDP)
	<-b.dialer.dialled
	first.emit(call.Rejected{Rejection: call.Rejection{Code: 503}})
	<-b.dialer.dialled
	second.emit(call.Progressed{Code: 180})
	caller.expect(t, "progress")
	if n := b.HangupRealm("outside", causeTunnelDown); n != 0 {
		t.Errorf("%d calls were ended", n)
	}
	second.emit(call.Rejected{Rejection: call.Rejection{Code: 486}})
	caller.expect(t, "close")
	if rec := b.record(t); rec.Cause.Code != "busy" {
		t.Errorf("cause %+v", rec.Cause)
	}
}

// Nor is one ended twice: a caller that does not acknowledge the refusal of its call keeps it a
// little longer, and what ended it stays the cause.
func TestHangupRealmSparesWhoIsEnding(t *testing.T) {
	t.Parallel()
	callee := newFakeLeg("callee", carrierPeer)
	b := newBench(t, callee)
	caller := b.call(callerSDP)
	caller.deaf = true
	<-b.dialer.dialled
	callee.emit(call.Rejected{Rejection: call.Rejection{Code: 486}})
	caller.expect(t, "close")
	b.live(t, call.Ending)
	if n := b.HangupRealm("inside", causeTunnelDown); n != 0 {
		t.Errorf("%d calls were ended", n)
	}
	if rec := b.record(t); rec.Cause.Code != "busy" || rec.Ended.IsZero() {
		t.Errorf("record %+v", rec)
	}
}

// A call that is ended between two tries is not offered to the next trunk.
func TestHangupRealmBetweenTries(t *testing.T) {
	b := newBench(t, nil, newFakeLeg("unused", backupPeer))
	b.dialer.onDial = func(call.Target) { b.HangupRealm("inside", causeTunnelDown) }
	b.call(callerSDP).expect(t, "close")
	if rec := b.record(t); rec.Cause.Code != "tunnel-down" {
		t.Errorf("cause %+v", rec.Cause)
	}
	if n := len(b.dialer.dialled); n != 1 {
		t.Errorf("%d trunks were dialled, want the first only", n)
	}
}

// O3: a peer behind a dead tunnel answers no BYE. The call is charged for until it was ended,
// and not for the wait.
func TestGoodByesAreNotCharged(t *testing.T) {
	t.Parallel()
	callee := newFakeLeg("callee", carrierPeer)
	callee.deaf = true
	b := newBench(t, callee)
	caller := establish(t, b, callee)
	b.live(t, call.Answered)
	began := time.Now()
	b.HangupRealm("outside", causeTunnelDown)
	caller.expect(t, "close")
	rec := b.record(t)
	if waited := time.Since(began); waited < closeTimeout {
		t.Fatalf("nothing was waited for: %s", waited)
	}
	if charged := time.Duration(rec.DurationMS) * time.Millisecond; charged >= closeTimeout || rec.Ended.Sub(rec.Answered) >= closeTimeout {
		t.Errorf("charged for %s, the end is at %s", charged, rec.Ended)
	}
}

// However the ends of calls cross, by their peers, by their realm's loss and by another one's,
// each call ends once, with a cause of one of them, and leaves nothing.
func TestEndsCross(t *testing.T) {
	const rounds, calls = 60, 3
	for range rounds {
		var legs []*fakeLeg
		for range 2 * calls {
			leg := newFakeLeg("callee", carrierPeer)
			leg.emit(call.Accepted{Body: []byte(calledSDP)})
			legs = append(legs, leg)
		}
		b := newBenchWith(t, func(trunks []trunk.Config) {
			backupElsewhere(trunks)
			trunks[0].MaxCalls = 0
		}, legs...)
		callers := make([]*fakeLeg, calls)
		for i := range callers {
			callers[i] = b.call(callerSDP)
		}
		var wg sync.WaitGroup
		for i, end := range []func(){
			func() { b.HangupRealm("outside", causeTunnelDown) },
			func() { b.down("outside") },
			func() { b.HangupRealm("inside", causeTunnelDown) },
			func() { bye(callers[0]) },
			func() { bye(callers[1]) },
			func() { b.Calls() },
		} {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 50 * time.Microsecond)
				end()
			})
		}
		wg.Wait()
		for _, c := range callers[2:] {
			bye(c)
		}
		for range calls {
			rec := <-b.records
			<-b.done
			switch rec.Cause.Code {
			case "tunnel-down", "normal-clearing", "trunk-out-of-service", "signalling-failure":
			default:
				t.Fatalf("cause %+v", rec.Cause)
			}
		}
		if b.Totals().Active != 0 || b.engine.installed() != 0 || b.media.PortsInUse() != 0 {
			t.Fatalf("left: %+v, %d flows, %d ports", b.Totals(), b.engine.installed(), b.media.PortsInUse())
		}
		for _, tr := range b.trunks.All() {
			if s := tr.Status(); s.In.Active != 0 || s.Out.Active != 0 {
				t.Fatalf("trunk %s holds slots: %+v", s.Name, s)
			}
		}
	}
}
