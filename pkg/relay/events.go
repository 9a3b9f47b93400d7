package relay

import (
	"github.com/tandem-sbc/tandem/pkg/call"
)

// maxEvents is how many events wait for a reader; more are lost, and counted.
const maxEvents = 4096

// emit reports an event. It never blocks: a reader that is slow misses some. What a
// peer or a stranger can cause at will takes half the queue at most, so that it cannot
// crowd out what comes once per flow: a MediaLatched that is lost is a call without sound.
func (e *Engine) emit(ev call.MediaEvent) {
	once := ev.Kind == call.MediaStarted || ev.Kind == call.MediaLatched
	if !once && len(e.events) >= maxEvents/2 {
		e.eventsLost.Add(1)
		return
	}
	select {
	case e.events <- ev:
	default:
		e.eventsLost.Add(1)
	}
}
