package sipua

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// answered is what became of an OPTIONS request.
type answered struct {
	Answer
	err error
}

// ask sends OPTIONS to the peer; what becomes of it comes by the channel.
func (r *rig) ask(p *peer, patience time.Duration) <-chan answered {
	came := make(chan answered, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		answer, err := r.stack.Options(ctx, p.addr())
		came <- answered{answer, err}
	}()
	return came
}

// I3, T6: OPTIONS outside of a dialog has what RFC 3261 section 11.1 asks for, and nothing of
// any call; the first final response is the answer, whatever it says.
func TestOptions(t *testing.T) {
	r := newRig(t)
	p := r.peer("127.0.0.2")
	for _, status := range []int{200, 405, 408, 503, 603} {
		came := r.ask(p, patience)
		m := p.want("OPTIONS")
		got := map[string]string{}
		for _, f := range m.fields {
			got[f.name] += f.value
		}
		us := r.stack.Addr().String()
		for name, want := range map[string]string{
			"Via":            "SIP/2.0/UDP " + us + ";branch=" + m.via.Branch,
			"Max-Forwards":   "70",
			"From":           "<sip:127.0.0.1>;tag=" + m.fromTag,
			"To":             "<" + m.uri + ">",
			"Call-ID":        m.callID,
			"CSeq":           "1 OPTIONS",
			"Contact":        "<sip:" + us + ">",
			"Accept":         "application/sdp",
			"User-Agent":     "tandem",
			"Content-Length": "0",
		} {
			if got[name] != want {
				t.Errorf("%s is %q, want %q", name, got[name], want)
			}
			delete(got, name)
		}
		if len(got) > 0 {
			t.Errorf("more than was asked for: %v", got)
		}
		if want := "sip:" + p.addr().String(); m.uri != want {
			t.Errorf("Request-URI %q, want %q", m.uri, want)
		}
		p.send(p.answer(m, 100, "", ""))
		p.send(p.answer(m, status, "x", ""))
		p.send(p.answer(m, status, "x", "")) // again: belongs to nothing
		if a := <-came; a.Status != status || a.err != nil {
			t.Errorf("answered with %d, got %+v", status, a)
		}
	}
}

// T6: the answer says for how long its sender does not want to be asked again, and how long the
// round trip took, repetitions of the request included.
func TestOptionsTellsRetryAfterAndRoundTrip(t *testing.T) {
	r := newRig(t)
	p := r.peer("127.0.0.2")
	for _, row := range []struct {
		name, field string
		want        time.Duration
	}{
		{"OK", "Retry-After: 18", 18 * time.Second},
		{"OK with comment and parameters", "Retry-After: 120 (in a meeting);duration=3600", 2 * time.Minute},
		{"OK, and no more than a day", "Retry-After: 1000000", 24 * time.Hour},
		{"bad: more than a number can hold", "Retry-After: 99999999999999999999", 24 * time.Hour},
		{"bad: no number", "Retry-After: soon", 0},
		{"none", "Warning: 399 x y", 0},
	} {
		began := time.Now()
		came := r.ask(p, patience)
		m := p.want("OPTIONS")
		p.read(patience) // repeated after T1
		p.send(p.answer(m, 503, "x", "", row.field))
		a := <-came
		if a.Status != 503 || a.RetryAfter != row.want {
			t.Errorf("%s: got %+v, want %s", row.name, a, row.want)
		}
		if whole := time.Since(began); a.RoundTrip < testT1 || a.RoundTrip > whole {
			t.Errorf("%s: round trip %s, want %s to %s", row.name, a.RoundTrip, testT1, whole)
		}
	}
}

// RFC 3261 section 17.1.2: OPTIONS is repeated until somebody answers, and not after that.
func TestOptionsIsRepeated(t *testing.T) {
	r := newRig(t)
	p := r.peer("127.0.0.2")
	came := r.ask(p, patience)
	m := p.want("OPTIONS")
	for range 2 {
		if b := p.read(patience); p.seen[string(b)] < 2 {
			t.Errorf("not the same request again: %s", b)
		}
	}
	p.send(p.answer(m, 200, "x", ""))
	if a := <-came; a.Status != 200 {
		t.Errorf("got %+v", a)
	}
	for p.read(testT1/2) != nil { // crossed the answer
	}
	if b := p.read(4 * testT1); b != nil {
		t.Errorf("repeated after the answer: %s", b)
	}
}

// A target that does not answer: the caller's deadline counts, or else timer F. Nothing is
// left behind.
func TestOptionsUnanswered(t *testing.T) {
	r := newRig(t)
	p := r.peer("127.0.0.2")
	if a := <-r.ask(p, 2*testT1); !errors.Is(a.err, context.DeadlineExceeded) {
		t.Errorf("at the deadline: %+v", a)
	}
	if n := r.stack.Stats().Transactions; n != 0 {
		t.Errorf("%d transactions are left after the deadline", n)
	}
	if a := <-r.ask(p, time.Minute); !errors.Is(a.err, ErrNoResponse) {
		t.Errorf("after timer F: %+v", a)
	}
	if n := r.stack.Stats().Transactions; n != 0 {
		t.Errorf("%d transactions are left", n)
	}
}

// A response that is not for the request changes nothing.
func TestOptionsForeignResponses(t *testing.T) {
	r := newRig(t)
	p, other := r.peer("127.0.0.2"), r.peer("127.0.0.3")
	came := r.ask(p, patience)
	m := p.want("OPTIONS")
	ok := p.answer(m, 200, "x", "")
	for _, forged := range []string{
		strings.Replace(ok, m.via.Branch, "z9hG4bKguess", 1),
		strings.Replace(ok, m.fromTag, "guess", 1),
		strings.Replace(ok, "Call-ID: ", "Call-ID: x", 1),
		strings.Replace(ok, "1 OPTIONS", "1 INVITE", 1),
	} {
		other.send(forged)
	}
	p.send(p.answer(m, 404, "x", ""))
	if a := <-came; a.Status != 404 {
		t.Errorf("got %+v", a)
	}
}

// Whoever waits for an answer when the stack ends is told.
func TestOptionsWhenTheStackEnds(t *testing.T) {
	r := newRig(t)
	p := r.peer("127.0.0.2")
	came := r.ask(p, time.Minute)
	p.want("OPTIONS")
	r.stop()
	if a := <-came; !errors.Is(a.err, ErrClosed) {
		t.Errorf("got %+v", a)
	}
	if a := <-r.ask(p, time.Minute); !errors.Is(a.err, ErrClosed) {
		t.Errorf("after the end: %+v", a)
	}
}

// Many ask at once while answers come: each gets the answer of its own target.
func TestOptionsInParallel(t *testing.T) {
	r := newRig(t)
	peers := map[int]*peer{200: r.peer("127.0.0.2"), 404: r.peer("127.0.0.3"), 503: r.peer("127.0.0.4")}
	const each = 50
	for status, p := range peers {
		go func() {
			buf := make([]byte, maxDatagram)
			for {
				n, err := p.conn.Read(buf)
				if err != nil {
					return // the test is over
				}
				if m, flaw := parse(buf[:n], p.stack); flaw == nil {
					if _, err := p.conn.WriteToUDPAddrPort([]byte(p.answer(m, status, "x", "")), p.stack); err != nil {
						return
					}
				}
			}
		}()
	}
	waiting := map[int][]<-chan answered{}
	for status, p := range peers {
		for range each {
			waiting[status] = append(waiting[status], r.ask(p, patience))
		}
	}
	for status, list := range waiting {
		for _, came := range list {
			if a := <-came; a.Status != status || a.err != nil {
				t.Fatalf("got %+v, want %d", a, status)
			}
		}
	}
}
