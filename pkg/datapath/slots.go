package datapath

import (
	"slices"
	"time"
)

// rest is how long a slot stays unused after its release. A packet that looked it up
// before is through the program by then, whatever the CPU did in between.
const rest = time.Second

// slots gives out the indexes 1 to size-1 of an array map. Released ones rest in a
// queue and come back in the order of their release; 0 means none and stays free.
type slots struct {
	size    uint32
	next    uint32
	resting []resting
	head    int
}

type resting struct {
	slot  uint32
	since time.Time
}

func newSlots(size uint32) *slots { return &slots{size: size, next: 1} }

// get returns a slot, or 0 if all are in use or resting. A rested one is preferred to a
// fresh one: its cache lines have been touched before.
func (s *slots) get(now time.Time) uint32 {
	if s.head < len(s.resting) && now.Sub(s.resting[s.head].since) >= rest {
		slot := s.resting[s.head].slot
		s.head++
		if s.head > len(s.resting)/2 {
			s.resting = append(s.resting[:0], s.resting[s.head:]...)
			s.head = 0
		}
		return slot
	}
	if s.next >= s.size {
		return 0
	}
	s.next++
	return s.next - 1
}

// put releases a slot that no map entry leads to any more.
func (s *slots) put(slot uint32, now time.Time) {
	s.resting = append(s.resting, resting{slot: slot, since: now})
}

// take claims one slot that somebody had before us; false means that it is in use or out of
// range.
func (s *slots) take(slot uint32) bool {
	if slot == 0 || slot >= s.size {
		return false
	}
	for ; s.next <= slot; s.next++ {
		s.resting = append(s.resting, resting{slot: s.next})
	}
	i := slices.IndexFunc(s.resting[s.head:], func(r resting) bool { return r.slot == slot })
	if i < 0 {
		return false
	}
	s.resting = slices.Delete(s.resting, s.head+i, s.head+i+1)
	return true
}
