package sipua

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// CANCEL waits for a provisional response, repeats the INVITE's hop, Request-URI and
// Via, and Close returns with the 487, which is acknowledged. sipgo routes it by
// the provisional response's Record-Route.
func TestCancel(t *testing.T) {
	r := newRig(t)
	p, proxy := r.peer("127.0.0.2"), r.peer("127.0.0.3")
	l, invite := r.dial(p)
	done := make(chan struct{})
	go func() { closeLeg(t, l, call.Cause{SIP: 487, Q850: 31}); close(done) }()
	p.silence(testT1 / 2) // not before a provisional response
	p.send(p.answer(invite, 183, "callee", "", contact(proxy), fmt.Sprintf("Record-Route: <sip:%s;lr>", proxy.addr())))
	cancel := p.want("CANCEL")
	if cancel.uri != invite.uri || cancel.via.Text != invite.via.Text || cancel.cseq != invite.cseq || cancel.toTag != "" ||
		cancel.fromTag != invite.fromTag || cancel.value(fReason) != "Q.850;cause=31" {
		t.Errorf("CANCEL %s %v", cancel.uri, cancel.fields)
	}
	p.send(p.answer(cancel, 200, "callee", ""))
	terminated := p.answer(invite, 487, "callee", "")
	p.send(terminated)
	ack := p.want("ACK")
	if ack.via.Text != invite.via.Text || ack.toTag != "callee" || ack.uri != invite.uri {
		t.Errorf("ACK %s %v", ack.uri, ack.fields)
	}
	<-done
	noEvent(t, l)
	// The ACK was lost: the 487 comes again and is acknowledged at once. sipgo's state
	// machine would sleep T2 over it, with the lock held.
	start := time.Now()
	p.send(terminated)
	if b := p.read(patience); p.seen[string(b)] != 2 || time.Since(start) > testT2 {
		t.Errorf("after %s: %s", time.Since(start), b)
	}
	proxy.silence(testT1)
}

// S7: the tunnel is down, or a queue is full, at the moment of CANCEL. Timer E repeats it: the
// callee rings no longer than the way is gone, and the call ends as any that is cancelled.
func TestCancelThatCouldNotBeSent(t *testing.T) {
	for _, errno := range []syscall.Errno{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.ENOBUFS} {
		t.Run(errno.Error(), func(t *testing.T) {
			r := newRig(t)
			var refused atomic.Pointer[time.Time] // the first CANCEL
			// Before anything is sent, so before anybody else looks.
			transmit := r.stack.transmit
			r.stack.transmit = func(b []byte, to netip.AddrPort) error {
				now := time.Now()
				if strings.HasPrefix(string(b), methodCancel) && refused.CompareAndSwap(nil, &now) {
					return os.NewSyscallError("sendto", errno)
				}
				return transmit(b, to)
			}
			p := r.peer("127.0.0.2")
			l, invite := r.dial(p)
			p.send(p.answer(invite, 180, "callee", ""))
			event[call.Progressed](t, l)
			done := make(chan struct{})
			go func() { closeLeg(t, l, hangup); close(done) }()
			cancel := p.want("CANCEL")
			if took := time.Since(*refused.Load()); took < testT1 || cancel.via.Text != invite.via.Text {
				t.Errorf("after %s: CANCEL with Via %q", took, cancel.via.Text)
			}
			select {
			case <-done:
				t.Error("the leg ended before its INVITE")
			default:
			}
			p.send(p.answer(cancel, 200, "callee", ""))
			p.send(p.answer(invite, 487, "callee", ""))
			p.want("ACK")
			<-done
			noEvent(t, l)
			p.silence(4 * testT1)
			if st := r.stack.Stats(); st.Legs != 0 || st.SendErrors != 1 {
				t.Errorf("%d legs, %d errors of sending", st.Legs, st.SendErrors)
			}
		})
	}
}

// A 2xx that crosses our CANCEL is acknowledged and ended with BYE: else the callee
// is billed for a call with nobody.
func TestCancelCrossedBy200(t *testing.T) {
	r := newRig(t)
	p := r.peer("127.0.0.2")
	l, invite := r.dial(p)
	p.send(p.answer(invite, 180, "callee", ""))
	event[call.Progressed](t, l)
	done := make(chan struct{})
	go func() { closeLeg(t, l, hangup); close(done) }()
	p.want("CANCEL")
	p.send(p.answer(invite, 200, "callee", "answer", contact(p)))
	if ack := p.want("ACK"); ack.toTag != "callee" {
		t.Errorf("ACK for tag %q", ack.toTag)
	}
	bye := p.want("BYE")
	if bye.toTag != "callee" || !strings.Contains(bye.uri, "callee@") {
		t.Errorf("BYE %s for tag %q", bye.uri, bye.toTag)
	}
	p.send(p.answer(bye, 200, "", ""))
	<-done
	noEvent(t, l)
}

// T11: a leg that the call has left for want of any response goes on by itself. A peer that
// wakes up gets CANCEL with its first provisional response, 100 alike, and ACK and BYE for an
// answer; the call hears nothing of it.
func TestLateResponsesAfterClose(t *testing.T) {
	for name, status := range map[string]int{"trying": 100, "ringing": 180, "early media": 183, "answer": 200, "refusal": 486} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			p := r.peer("127.0.0.2")
			l, invite := r.dial(p)
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			l.Close(ctx, hangup)
			if b := p.read(patience); b == nil || !strings.HasPrefix(string(b), "INVITE") {
				t.Fatalf("got %s, want the INVITE again", b)
			}
			p.send(p.answer(invite, status, "late", "answer", contact(p)))
			switch {
			case status < 200:
				p.send(p.answer(p.want("CANCEL"), 200, "", ""))
				p.send(p.answer(invite, 487, "late", ""))
				p.want("ACK")
			case status == 200:
				p.want("ACK")
				p.send(p.answer(p.want("BYE"), 200, "", ""))
			default:
				p.want("ACK")
			}
			noEvent(t, l)
		})
	}
}

// So is a 2xx that comes after the 487, from a fork.
func Test2xxAfterCancelled(t *testing.T) {
	r := newRig(t)
	p := r.peer("127.0.0.2")
	l, invite := r.dial(p)
	p.send(p.answer(invite, 180, "a", ""))
	event[call.Progressed](t, l)
	go func() { p.send(p.answer(invite, 487, "a", "")) }()
	closeLeg(t, l, hangup)
	p.want("CANCEL")
	p.want("ACK")
	p.send(p.answer(invite, 200, "b", "answer", contact(p)))
	if ack := p.want("ACK"); ack.toTag != "b" {
		t.Errorf("ACK for tag %q", ack.toTag)
	}
	p.want("BYE")
}

// A CANCEL that is answered while the INVITE never is: Close keeps to its deadline
// and the leg goes away by itself after 64*T1.
func TestCancelWithoutEnd(t *testing.T) {
	r := newRig(t)
	p := r.peer("127.0.0.2")
	l, invite := r.dial(p)
	p.send(p.answer(invite, 180, "callee", ""))
	event[call.Progressed](t, l)
	ctx, cancel := context.WithTimeout(context.Background(), testT1)
	defer cancel()
	l.Close(ctx, hangup)
	if ctx.Err() == nil {
		t.Error("Close did not wait")
	}
	p.send(p.answer(p.want("CANCEL"), 200, "callee", ""))
	for deadline := time.Now().Add(patience); r.stack.Stats().Legs > 0; time.Sleep(testT1) {
		if time.Now().After(deadline) {
			t.Fatal("the leg stays")
		}
	}
}

// The second 200 of a forked INVITE has a dialog of its own: ACK and BYE for it, the
// first one stays (S7). sipgo acknowledges it with the first one's tag.
func TestForked200(t *testing.T) {
	r := newRig(t)
	p, q := r.peer("127.0.0.2"), r.peer("127.0.0.3")
	l, invite := r.dial(p)
	p.send(p.answer(invite, 180, "a", "early a"))
	p.send(p.answer(invite, 183, "b", "early b"))
	p.send(p.answer(invite, 200, "b", "answer b", contact(p)))
	for _, body := range []string{"early a", "early b"} {
		if e := event[call.Progressed](t, l); string(e.Body) != body {
			t.Errorf("body %q, want %q", e.Body, body)
		}
	}
	event[call.Accepted](t, l)
	if err := l.Ack(nil); err != nil {
		t.Fatal(err)
	}
	if ack := p.want("ACK"); ack.toTag != "b" {
		t.Errorf("ACK for %q", ack.toTag)
	}
	second := p.answer(invite, 200, "a", "answer a", contact(q))
	p.send(second)
	ack := q.want("ACK")
	bye := q.want("BYE")
	if ack.toTag != "a" || bye.toTag != "a" || ack.cseq != 1 || bye.cseq != 2 || bye.fromTag != invite.fromTag {
		t.Errorf("ACK for %q (%d), BYE for %q (%d)", ack.toTag, ack.cseq, bye.toTag, bye.cseq)
	}
	q.send(q.answer(bye, 200, "", ""))
	p.send(second) // its ACK was lost
	if b := q.read(patience); q.seen[string(b)] != 2 {
		t.Errorf("not the same ACK: %s", b)
	}
	noEvent(t, l)
	go closeLeg(t, l, hangup)
	if bye := p.want("BYE"); bye.toTag != "b" {
		t.Errorf("BYE for %q", bye.toTag)
	} else {
		p.send(p.answer(bye, 200, "", ""))
	}
}
