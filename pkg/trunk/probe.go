package trunk

import (
	"container/heap"
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// Prober asks a target whether it is there.
type Prober interface {
	// Probe sends an OPTIONS request from the realm and returns what is in its final response.
	// Without one it returns an error, at the latest when ctx is done.
	Probe(ctx context.Context, realm string, target netip.AddrPort) (Answer, error)
}

// Answer is the final response to a probe.
type Answer struct {
	// Status is 200-699.
	Status int
	// RetryAfter is for how long its sender wants to be left alone; 0 is none.
	RetryAfter time.Duration
	// RoundTrip is the time from the request to the response.
	RoundTrip time.Duration
}

const (
	// maxFlights is how many probes may wait for an answer at once. With timeouts of 5 s that is room
	// for the retries of 1000 targets that have all fallen silent; each takes a goroutine and a
	// few kilobytes.
	maxFlights = 512
	// farAway is when a trunk is looked at that has nothing due.
	farAway = time.Hour
)

// Supervise keeps the health of the trunks of the current table, which may be another one each
// time (Adopt): it asks their targets with OPTIONS, does what is due by time, and logs what
// becomes of it. It returns nil when ctx is done and no probe is under way any more.
func Supervise(ctx context.Context, prober Prober, current func() *Table, log *slog.Logger) error {
	s := supervisor{prober: prober, log: log, landed: make(chan landing, maxFlights), flights: make(map[flight]context.CancelFunc)}
	defer s.running.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		table := current()
		if table != s.table {
			s.follow(table)
		}
		timer.Reset(s.launch(ctx))
		select {
		case <-timer.C:
		case l := <-s.landed:
			s.land(l)
		case <-table.news.bell:
			s.lookAtAll()
		case <-ctx.Done():
			return nil
		}
	}
}

// supervisor is what Supervise knows. All is its goroutine's, except that probes run on others.
type supervisor struct {
	prober  Prober
	log     *slog.Logger
	running sync.WaitGroup
	landed  chan landing

	table *Table
	queue queue
	items map[*health]*item
	// waiting are the trunks with a probe due for which there was no room, the longest first.
	waiting []*item
	// flights are the probes under way; each can be broken off.
	flights map[flight]context.CancelFunc
}

// flight is a probe under way.
type flight struct {
	*health
	question
}

// landing is the end of a flight.
type landing struct {
	flight
	answer Answer
	err    error
}

// follow takes another table's trunks.
func (s *supervisor) follow(table *Table) {
	former := s.items
	s.table, s.items = table, make(map[*health]*item, len(table.trunks))
	s.queue, s.waiting = make(queue, 0, len(table.trunks)), nil
	for _, tr := range table.trunks {
		it := &item{Trunk: tr, state: InService}
		if old := former[tr.health]; old != nil {
			it.state = old.state
		}
		s.items[tr.health] = it
		s.queue.Push(it)
	}
	s.lookAtAll()
}

// lookAtAll is for when something has changed, nobody says where.
func (s *supervisor) lookAtAll() {
	now := time.Now()
	for _, it := range s.queue {
		s.look(it, now)
	}
	heap.Init(&s.queue)
	for f, breakOff := range s.flights {
		if s.items[f.health] == nil || !f.waits(f.question) {
			breakOff()
		}
	}
}

// look finds out when the trunk has something due, and says what has become of it. The item's
// place in the queue is for the caller.
func (s *supervisor) look(it *item, now time.Time) {
	probe, change := it.health.due()
	if it.due = probe; it.waits || probe.IsZero() || !change.IsZero() && change.Before(probe) {
		it.due = change // what is due by time alone waits for nobody
	}
	if it.due.IsZero() {
		it.due = now.Add(farAway)
	}
	c := it.Condition()
	if c.State == it.state {
		return
	}
	it.state = c.State
	log := s.log.With("trunk", it.Name(), "realm", it.Realm())
	switch c.State {
	case InService:
		log.Info("trunk is in service")
	case Degraded:
		log.Warn("trunk is degraded", "reason", c.Reason)
	default:
		log.Warn("trunk takes no calls", "state", c.State, "reason", c.Reason)
	}
}

// launch does all that is due, and sends probes as far as there is room for more. It returns how
// long nothing more will be, unless a flight lands.
func (s *supervisor) launch(ctx context.Context) time.Duration {
	now := time.Now()
	for len(s.waiting) > 0 && len(s.flights) < maxFlights {
		it := s.waiting[0]
		s.waiting, it.waits = s.waiting[1:], false
		s.serve(ctx, it, now)
	}
	for len(s.queue) > 0 {
		first := s.queue[0]
		if first.due.After(now) {
			return first.due.Sub(now)
		}
		s.serve(ctx, first, now)
	}
	return farAway
}

// serve does what is due for a trunk. If there is no room for its probes it waits in line.
func (s *supervisor) serve(ctx context.Context, it *item, now time.Time) {
	it.health.tick(now)
	for len(s.flights) < maxFlights {
		q, ok := it.health.ask(now)
		if !ok {
			break
		}
		s.start(ctx, it, q)
	}
	if probe, _ := it.health.due(); !it.waits && !probe.IsZero() && !probe.After(now) {
		it.waits = true
		s.waiting = append(s.waiting, it)
	}
	s.look(it, now)
	heap.Fix(&s.queue, it.index)
}

// start sends one probe.
func (s *supervisor) start(ctx context.Context, it *item, q question) {
	f := flight{it.health, q}
	ctx, cancel := context.WithTimeout(ctx, q.timeout)
	s.flights[f] = cancel
	realm := it.Realm()
	s.running.Go(func() {
		answer, err := s.prober.Probe(ctx, realm, q.target)
		s.landed <- landing{f, answer, err} // there is room for all flights
	})
}

// land takes the outcome of a probe.
func (s *supervisor) land(l landing) {
	s.flights[l.flight]()
	delete(s.flights, l.flight)
	now := time.Now()
	l.probed(l.question, l.answer, l.err, now)
	if it := s.items[l.health]; it != nil {
		s.look(it, now)
		heap.Fix(&s.queue, it.index)
	}
}

func (h *health) due() (probe, change time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.m.due()
}

func (h *health) tick(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.m.tick(h.asr, now)
	h.publish()
}

func (h *health) ask(now time.Time) (question, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.m.ask(now)
}

func (h *health) probed(q question, a Answer, err error, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.m.probed(q, a, err, now)
	h.publish()
}

func (h *health) waits(q question) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.m.waits(q)
}
