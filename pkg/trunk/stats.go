package trunk

import (
	"sync"
	"sync/atomic"
	"time"
)

// Outcome is what became of an attempt, known when it is answered or given up.
type Outcome struct {
	Answered bool
	// Moved means that the attempt was broken off for a reason that is not the trunk's.
	Moved bool
	// SIP is the final status, 0 if there was no response at all; Q850 the cause of its
	// Reason header, or 0.
	SIP, Q850 int
	// PDD is the post-dial delay: from the INVITE to the first ringing, or to the answer of
	// a call that did not ring; 0 if neither came (RFC 6076 section 4.3: SRD).
	PDD time.Duration
}

// Class is what an attempt came to.
type Class uint8

const (
	// Answered is a call.
	Answered Class = iota
	// Busy, NoAnswer and Rejected are what the called party did: the network has done its
	// part (ITU-T E.425 section 3.3).
	Busy
	NoAnswer
	Rejected
	// BadNumber was not dialled rightly, or is not in use.
	BadNumber
	// Refused is any other refusal that says nothing of the network's health.
	Refused
	// Failed is the network's fault; Silent is no response at all.
	Failed
	Silent
	// Moved went on elsewhere for our reasons, such as a tunnel that went down: it says nothing
	// of the trunk, and no ratio counts it.
	Moved

	classes
)

var classNames = [classes]string{"answered", "busy", "no-answer", "rejected", "bad-number", "refused", "failed", "silent", "moved"}

func (c Class) String() string { return classNames[c] }

// Class tells what an outcome counts as. A cause of the telephone network says more than
// the status that it was translated to (RFC 3398 section 7.2.4.1).
func (o Outcome) Class() Class {
	switch {
	case o.Answered:
		return Answered
	case o.Moved:
		return Moved
	}
	switch o.Q850 {
	case 17:
		return Busy
	case 18, 19, 20:
		return NoAnswer
	case 21:
		return Rejected
	case 1, 22, 28:
		return BadNumber
	case 3, 25, 27, 34, 38, 41, 42, 44, 46, 47:
		return Failed
	}
	switch o.SIP {
	case 0:
		return Silent
	case 486, 600:
		return Busy
	case 480, 487:
		return NoAnswer
	case 603, 607, 608:
		return Rejected
	case 404, 410, 484, 485, 604:
		return BadNumber
	case 408:
		return Failed
	}
	if o.SIP >= 500 && o.SIP < 600 {
		return Failed
	}
	return Refused
}

// totals counts the calls of one direction, since start and over a sliding window.
type totals struct {
	attempts, answers, failures atomic.Uint64
	outcomes                    [classes]atomic.Uint64
	refused                     [reasons]atomic.Uint64
	window                      window
}

// Attempt counts a call that has a slot.
func (t *Trunk) Attempt(dir Direction) {
	t.totals[dir].attempts.Add(1)
	t.totals[dir].window.add(time.Now(), func(b *bin) { b.attempts++ })
}

// Outcome counts what became of an attempt, once.
func (t *Trunk) Outcome(dir Direction, o Outcome) {
	c := &t.totals[dir]
	if o.Answered {
		c.answers.Add(1)
	} else {
		c.failures.Add(1)
	}
	class := o.Class()
	c.outcomes[class].Add(1)
	c.window.add(time.Now(), func(b *bin) {
		b.classes[class]++
		if o.PDD > 0 {
			b.pdd += o.PDD
			b.pdds++
		}
	})
}

// Ended counts the end of an answered call. mos is what the peer sent in the E-model's
// terms, 1 to 4.5, or 0 if it is not known.
func (t *Trunk) Ended(dir Direction, talk time.Duration, mos float64) {
	t.totals[dir].window.add(time.Now(), func(b *bin) {
		b.talk += talk
		b.talks++
		if mos > 0 {
			b.mos += mos
			b.moses++
		}
	})
}

// A window is kept in bins, and slides by one of them.
const (
	binWidth = 15 * time.Second
	bins     = int64(maxWindow / binWidth)
)

// bin is what happened in one binWidth.
type bin struct {
	// at is the number of the bin since 1970: a ring has what is too old as well.
	at          int64
	attempts    uint32
	classes     [classes]uint32
	pdds, talks uint32
	moses       uint32
	pdd, talk   time.Duration
	mos         float64
}

// window is a ring of bins. The zero window is ready for use.
type window struct {
	mu   sync.Mutex
	ring [bins]bin
}

func (w *window) add(now time.Time, change func(*bin)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := now.UnixNano() / int64(binWidth)
	b := &w.ring[at%bins]
	if b.at != at {
		*b = bin{at: at}
	}
	change(b)
}

// sum adds up what happened in a time, 1m to maxWindow, until now.
func (w *window) sum(now time.Time, length time.Duration) (sum bin) {
	w.mu.Lock()
	defer w.mu.Unlock()
	last := now.UnixNano() / int64(binWidth)
	for i := range w.ring {
		b := &w.ring[i]
		if b.at <= last-int64(length/binWidth) || b.at > last {
			continue
		}
		sum.add(b)
	}
	return sum
}

func (b *bin) add(o *bin) {
	b.attempts += o.attempts
	for c, n := range o.classes {
		b.classes[c] += n
	}
	b.pdds += o.pdds
	b.pdd += o.pdd
	b.talks += o.talks
	b.talk += o.talk
	b.moses += o.moses
	b.mos += o.mos
}

// WindowStat is what happened in the last health_window. Ratios and means are 0 if there
// was nothing to take them over.
type WindowStat struct {
	Attempts uint32 `json:"attempts"`
	// Classes counts decided attempts by class, answered ones among them.
	Classes map[string]uint32 `json:"classes,omitempty"`
	// ASR is the answer-seizure ratio and NER the network effectiveness ratio, in percent of
	// the decided attempts (ITU-T E.425).
	ASR float64 `json:"asr_percent"`
	NER float64 `json:"ner_percent"`
	// PDDMS is the mean post-dial delay, ACDMS the mean duration of calls that ended.
	PDDMS float64 `json:"pdd_ms"`
	ACDMS float64 `json:"acd_ms"`
	// MOS is the mean over calls that ended, 1 to 4.5.
	MOS float64 `json:"mos"`
}

// decided attempts: those under way are neither good nor bad yet, and those that moved never are.
func (b *bin) decided() (n uint32) {
	for _, c := range b.classes[:Moved] {
		n += c
	}
	return n
}

func (b *bin) stat() WindowStat {
	s := WindowStat{Attempts: b.attempts}
	decided := float64(b.decided())
	s.ASR = ratio(100*float64(b.classes[Answered]), decided)
	s.NER = ratio(100*float64(b.classes[Answered]+b.classes[Busy]+b.classes[NoAnswer]+b.classes[Rejected]), decided)
	s.PDDMS = ratio(float64(b.pdd)/1e6, float64(b.pdds))
	s.ACDMS = ratio(float64(b.talk)/1e6, float64(b.talks))
	s.MOS = ratio(b.mos, float64(b.moses))
	for c, n := range b.classes {
		if n == 0 {
			continue
		}
		if s.Classes == nil {
			s.Classes = make(map[string]uint32)
		}
		s.Classes[classNames[c]] = n
	}
	return s
}

// ratio of two numbers, 0 over nothing.
func ratio(n, of float64) float64 {
	if of == 0 {
		return 0
	}
	return n / of
}

// DirectionStat counts the calls of one direction: those that have a slot now, since start
// what was tried and what came of it, and the last while in particular.
type DirectionStat struct {
	Active   int    `json:"active"`
	Attempts uint64 `json:"attempts"`
	Answers  uint64 `json:"answers"`
	Failures uint64 `json:"failures"`
	// Outcomes counts what became of attempts by Class, since start.
	Outcomes map[string]uint64 `json:"outcomes,omitempty"`
	// Refused counts calls that got no slot, by Reason; those in with an answer of 503, those
	// out went by another trunk. REGISTER requests beyond their rate are among them.
	Refused map[string]uint64 `json:"refused,omitempty"`
	Window  WindowStat        `json:"window"`
}

func (c *totals) stat(active int, now time.Time, length time.Duration) DirectionStat {
	sum := c.window.sum(now, length)
	s := DirectionStat{
		Active: active, Attempts: c.attempts.Load(), Answers: c.answers.Load(), Failures: c.failures.Load(), Window: sum.stat(),
	}
	s.Outcomes, s.Refused = counts(c.outcomes[:], classNames[:]), counts(c.refused[:], reasonNames[:])
	return s
}

// counts by name, of what there were any; nil if there was nothing.
func counts(counters []atomic.Uint64, names []string) map[string]uint64 {
	var list map[string]uint64
	for i := range counters {
		n := counters[i].Load()
		if n == 0 {
			continue
		}
		if list == nil {
			list = make(map[string]uint64)
		}
		list[names[i]] = n
	}
	return list
}

// answers counts the decided attempts out of a time until now, and the answered ones.
func (s *state) answers(now time.Time, length time.Duration) (attempts, answers int) {
	sum := s.totals[Out].window.sum(now, length)
	return int(sum.decided()), int(sum.classes[Answered])
}
