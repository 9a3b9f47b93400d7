package sipua

import "sync/atomic"

// Count is a pair of counters since start.
type Count struct {
	In, Out uint64
}

// Stats is what a stack counted since it listened.
type Stats struct {
	// Requests by method, without retransmissions sent; a method that S2 and S3 do
	// not name counts as "other".
	Requests map[string]Count
	// Responses by class, 1 to 6; index 0 is not used.
	Responses [7]Count
	// UnknownSources counts datagrams dropped unread (S13).
	UnknownSources uint64
	// ParseErrors counts malformed messages, answered or not (S19).
	ParseErrors uint64
	// Strays counts well-formed messages that belong to nothing here and get no answer.
	Strays uint64
	// Retransmissions received (In) and sent (Out).
	Retransmissions Count
	// Oversize counts messages sent that are longer than 1300 bytes (RFC 3261 section 18.1.1).
	Oversize uint64
	// SendErrors and ReadErrors count what the kernel refused.
	SendErrors, ReadErrors uint64
	// Legs and Transactions are alive now. A transaction outlives its leg by up to
	// 32 s, to deal with what is still on its way.
	Legs, Transactions int
}

type counter struct{ in, out atomic.Uint64 }

func (c *counter) add(in bool) {
	if in {
		c.in.Add(1)
	} else {
		c.out.Add(1)
	}
}

func (c *counter) count() Count { return Count{c.in.Load(), c.out.Load()} }

// counters are written by readers and calls at once.
type counters struct {
	methods   map[string]*counter // filled at start, then only read
	responses [7]counter

	unknown, parse, strays, oversize, sendErrors, readErrors atomic.Uint64
	retransmissionsIn, retransmissionsOut                    atomic.Uint64
}

const otherMethod = "other"

func methodCounters() map[string]*counter {
	c := map[string]*counter{otherMethod: {}}
	for m := range methods {
		c[m] = &counter{}
	}
	return c
}

func (c *counters) request(method string, in bool) {
	m, ok := c.methods[method]
	if !ok {
		m = c.methods[otherMethod]
	}
	m.add(in)
}

func (c *counters) response(status int, in bool) { c.responses[status/100].add(in) }

// Stats returns the counters.
func (s *Stack) Stats() Stats {
	c := &s.count
	st := Stats{
		Requests:       make(map[string]Count, len(c.methods)),
		UnknownSources: c.unknown.Load(), ParseErrors: c.parse.Load(), Strays: c.strays.Load(),
		Retransmissions: Count{c.retransmissionsIn.Load(), c.retransmissionsOut.Load()},
		Oversize:        c.oversize.Load(), SendErrors: c.sendErrors.Load(), ReadErrors: c.readErrors.Load(),
	}
	for name, m := range c.methods {
		st.Requests[name] = m.count()
	}
	for class := range c.responses {
		st.Responses[class] = c.responses[class].count()
	}
	s.mu.Lock()
	st.Legs, st.Transactions = len(s.dialogs), len(s.servers)+len(s.clients)
	s.mu.Unlock()
	return st
}
