package trunk

import (
	"sync"
	"time"
)

// adapting is when the weights of adaptive groups are looked at next, over all generations.
type adapting struct {
	mu   sync.Mutex
	next time.Time
}

// AdaptEvery is how often the weights of adaptive groups may change (T14).
const AdaptEvery = 5 * time.Second

const (
	// least multiplier: a member with few calls is still heard of.
	least = full / 10
	// deadBand is the part of a multiplier by which it has to be off to change at all.
	deadBand = 5
	// stepDown and stepUp bound a change; up is slower, so that a member that is bad under
	// load does not swing.
	stepDown = full / 5
	stepUp   = full / 20
	// creep is the step back up of a member that has too few calls to judge by.
	creep = full / 100
	// enough decided attempts to judge by.
	enough = 20
)

// Adapt lets the weights of adaptive groups follow what their members did in the last
// health_window (T14). Whoever owns the table calls it every AdaptEvery. Calls in between do
// nothing, but one may come up to half of that early: the one before it may have come late.
func (t *Table) Adapt(now time.Time) {
	t.adapting.mu.Lock()
	defer t.adapting.mu.Unlock()
	wait := t.adapting.next.Sub(now)
	if wait > AdaptEvery/2 && wait <= 2*AdaptEvery { // longer than ever means that the clock was set
		return
	}
	// From its turn, not from now: who is early once is not early each time.
	if wait > AdaptEvery/2 || wait < -AdaptEvery/2 {
		t.adapting.next = now
	}
	t.adapting.next = t.adapting.next.Add(AdaptEvery)
	for _, g := range t.order {
		if g.adaptive {
			g.adapt(now)
		}
	}
}

func (g *group) adapt(now time.Time) {
	seen := make([]bin, len(g.members))
	for i := range g.members {
		m := &g.members[i]
		seen[i] = m.totals[Out].window.sum(now, m.config.HealthWindow)
	}
	for i := range g.members {
		was := int(g.members[i].multiplier.Load())
		target, known := multiplier(seen, i)
		g.members[i].multiplier.Store(int32(step(was, target, known)))
	}
}

// step is how far a multiplier goes in one decision.
func step(was, target int, known bool) int {
	band := was / deadBand
	switch {
	case !known:
		return min(full, was+creep)
	case target < was-band:
		return max(target, was-stepDown)
	case target > was+band || target == full: // the way back is gone to its end
		return min(target, was+stepUp)
	}
	return was
}

// multiplier compares a member with the others together: how much more rarely it answers,
// how much longer it takes to ring, how much worse it sounds. known is false if there were
// too few calls on either side.
func multiplier(seen []bin, i int) (permille int, known bool) {
	var others bin
	for j := range seen {
		if j != i {
			others.add(&seen[j])
		}
	}
	own := &seen[i]
	if own.decided() < enough || others.decided() < enough {
		return full, false
	}
	mine, theirs := own.stat(), others.stat()
	worth := worse(mine.ASR, theirs.ASR)
	if own.pdds >= enough && others.pdds >= enough {
		worth *= worse(theirs.PDDMS, mine.PDDMS)
	}
	if own.moses >= enough && others.moses >= enough {
		worth *= worse(mine.MOS-1, theirs.MOS-1) // MOS begins at 1
	}
	return max(least, int(worth*full+0.5)), true
}

// worse is a ratio of at most 1; what is within a tenth of the others is as good as them.
func worse(mine, theirs float64) float64 {
	const tolerance = 0.9
	if theirs <= 0 || mine >= tolerance*theirs {
		return 1
	}
	return max(0, mine/theirs)
}
