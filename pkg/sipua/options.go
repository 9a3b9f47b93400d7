package sipua

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/header"
)

// Answer is the final response to an OPTIONS request.
type Answer struct {
	// Status is 200-699.
	Status int
	// RetryAfter is what the Retry-After field asks for (RFC 3261 section 20.33), at most a day;
	// 0 is none.
	RetryAfter time.Duration
	// RoundTrip is the time from the request, as it was sent first, to the response.
	RoundTrip time.Duration
}

// Options asks a target outside of any dialog what it can do (RFC 3261 section 11) and returns
// its final response: any says that somebody is there. The request is repeated by the timers of
// RFC 3261 section 17.1.2 until ctx is done. Without an answer the error wraps that of ctx,
// ErrNoResponse, ErrUnreachable as soon as the kernel has no route, ErrBusy or ErrClosed.
func (s *Stack) Options(ctx context.Context, to netip.AddrPort) (Answer, error) {
	d := dialog{callID: newTag(), localTag: newTag(), target: string(appendTarget(nil, "", to)), hop: to}
	d.local = string(append(header.AppendParty(nil, call.Party{}, s.host), ";tag="+d.localTag...))
	d.remote = "<" + d.target + ">"
	branch := newBranch()
	b := s.appendRequest(make([]byte, 0, 768), methodOptions, &d, 1, branch, 70)
	b = appendField(b, "Contact", "<sip:"+s.hostPort+">")
	b = appendBody(append(b, acceptField...), nil)

	o := inquiry{s: s, dialog: d, began: time.Now(), came: make(chan struct{})}
	// No response is handled before the timers run.
	o.mu.Lock()
	tx, err := s.request(methodOptions, branch, b, to, o.answered, o.failed)
	o.mu.Unlock()
	if err != nil {
		return Answer{}, err
	}
	defer tx.fsm.Terminate()
	select {
	case <-o.came:
		return o.answer, o.err
	case <-ctx.Done():
		return Answer{}, fmt.Errorf("sipua: OPTIONS to %s: %w", to, ctx.Err())
	case <-s.quit:
		return Answer{}, ErrClosed
	}
}

// inquiry is an OPTIONS request outside of any dialog.
type inquiry struct {
	s *Stack
	dialog
	began time.Time
	came  chan struct{} // closed with the outcome: answer or err

	mu     sync.Mutex
	over   bool
	answer Answer
	err    error
}

func (o *inquiry) answered(tx *clientTx, m *message) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case m.callID != o.callID || m.fromTag != o.localTag:
		o.s.count.strays.Add(1)
	case m.status >= 200:
		tx.receive(m.status)
		o.end(Answer{m.status, time.Duration(m.retryAfter()) * time.Second, time.Since(o.began)}, nil)
	case tx.status.Load() == 0:
		tx.receive(m.status)
	}
}

func (o *inquiry) failed(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.end(Answer{}, err)
}

// end keeps the first outcome; mu is held.
func (o *inquiry) end(answer Answer, err error) {
	if o.over {
		return
	}
	o.over, o.answer, o.err = true, answer, err
	close(o.came)
}
