package ipsec

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// remembered is how many requests back an answer still counts.
const remembered = 256

// monitor sends echo requests (RFC 792) through a tunnel, whatever the routes say: also
// through one that carries no traffic now.
type monitor struct {
	device         string
	source, target netip.Addr
	interval       time.Duration
	lost           int
	mustAnswer     bool
	id             uint16
	// whom is the target as it is now, or zero; nil never changes it.
	whom func() netip.Addr

	mu sync.Mutex
	// sent is the number of the last request, from 1; answered that of the last one with an answer.
	sent, answered uint64
	at             [remembered]time.Time
	answers        bool
	first          time.Time
	missed         int
	rtt            time.Duration
	problem        error
}

// newMonitor monitors a tunnel by its xfrm interface, from the realm's own address. lost requests
// in a row without an answer mean that it is dead; unless mustAnswer, only if the target has ever
// answered.
func newMonitor(device string, source, target netip.Addr, interval time.Duration, lost int, mustAnswer bool) *monitor {
	return &monitor{
		device: device, source: source, target: target, interval: interval, lost: lost, mustAnswer: mustAnswer, id: uint16(rand.Uint32()),
	}
}

// run sends requests until ctx is done. changed, which may be nil, is called when alive may
// have changed. A cut shows after lost+1 intervals at most.
func (m *monitor) run(ctx context.Context, changed func()) error {
	for ctx.Err() == nil {
		if m.aim(changed) {
			err := m.watch(ctx, changed)
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, errMoved) {
				continue
			}
			// The device may be missing for now: requests that cannot be sent are lost ones.
			m.update(changed, func() {
				m.request(time.Now())
				m.problem = err
			})
		}
		select {
		case <-time.After(m.interval):
		case <-ctx.Done():
		}
	}
	return nil
}

// errMoved means that another target is to be asked.
var errMoved = errors.New("the target is another")

// moved is the target that is to be asked instead, if there is one.
func (m *monitor) moved() (netip.Addr, bool) {
	if m.whom == nil {
		return netip.Addr{}, false
	}
	now := m.whom()
	return now, now.IsValid() && now != m.target
}

// aim takes the target as it is now; of another one nothing is known, whatever the former has
// answered. It reports whether there is a target.
func (m *monitor) aim(changed func()) bool {
	if target, moved := m.moved(); moved {
		m.update(changed, func() {
			m.target, m.sent, m.answered, m.answers, m.missed, m.rtt, m.problem = target, 0, 0, false, 0, 0, nil
		})
	}
	return m.target.IsValid()
}

// watch sends and receives until ctx is done, a socket fails or the target is another.
func (m *monitor) watch(ctx context.Context, changed func()) error {
	e, err := openEcho(m.device, m.id, m.source, m.target)
	if err != nil {
		return err
	}
	defer e.close()
	defer context.AfterFunc(ctx, e.interrupt)()
	b := make([]byte, maxReply)
	for next := time.Now(); ; {
		if now := time.Now(); !now.Before(next) {
			if _, moved := m.moved(); moved {
				return errMoved
			}
			var seq uint16
			m.update(changed, func() { seq = m.request(now) })
			if err := e.send(seq); err != nil {
				m.forget(changed)
				return err
			}
			// Not a burst of what was slept through.
			if next = next.Add(m.interval); next.Before(now) {
				next = now.Add(m.interval)
			}
		}
		if err := e.in.SetReadDeadline(next); err != nil {
			return fmt.Errorf("echo replies: %w", err)
		}
		// After the deadline is set: interrupt sets a later one to an earlier time.
		if ctx.Err() != nil {
			return nil
		}
		n, err := e.in.Read(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			return fmt.Errorf("echo replies: %w", err)
		}
		if seq, ok := parseEchoReply(b[:n], m.id, m.source, m.target); ok {
			m.update(changed, func() { m.answer(seq, time.Now()) })
		}
	}
}

// update changes the state, and tells if that changes what alive says.
func (m *monitor) update(changed func(), f func()) {
	m.mu.Lock()
	alive, answers := m.isAlive(), m.answers
	f()
	differs := alive != m.isAlive() || answers != m.answers
	m.mu.Unlock()
	if differs && changed != nil {
		changed()
	}
}

// forget takes back a request that was not sent: run counts it when it waits for the device.
func (m *monitor) forget(changed func()) {
	m.update(changed, func() { m.sent-- })
}

// request numbers the next request. Those before it are missed if no answer has come by now.
func (m *monitor) request(now time.Time) uint16 {
	m.missed = int(min(m.sent-m.answered, 1<<30))
	m.sent++
	m.at[m.sent%remembered] = now
	return uint16(m.sent)
}

// answer takes in the answer to one of the last requests. A late one proves the tunnel too.
func (m *monitor) answer(seq uint16, now time.Time) {
	back := uint64(uint16(m.sent) - seq)
	if back >= remembered || back >= m.sent {
		return
	}
	number := m.sent - back
	if !m.answers {
		m.first = now
	}
	m.answers, m.problem = true, nil
	m.rtt = now.Sub(m.at[number%remembered])
	if number > m.answered {
		m.answered = number
		// The last one is not overdue yet.
		m.missed = int(max(m.sent-number, 1) - 1)
	}
}

// alive is false once too many requests in a row had no answer from somebody who gives them.
func (m *monitor) alive() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.isAlive()
}

func (m *monitor) isAlive() bool {
	return m.missed < m.lost || !m.answers && !m.mustAnswer
}

// firstAnswer is when the target has first answered; zero is never.
func (m *monitor) firstAnswer() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.first
}

// failure is why requests cannot be sent; nil if they can.
func (m *monitor) failure() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.problem
}

func (m *monitor) status() call.TunnelMonitor {
	m.mu.Lock()
	defer m.mu.Unlock()
	return call.TunnelMonitor{Target: m.target, Answers: m.answers, Missed: m.missed, RTTMS: float64(m.rtt.Microseconds()) / 1000}
}
