package ipsec

import "time"

// candidate is a tunnel that a realm's traffic could leave by.
type candidate struct {
	name string
	// up means that it carries traffic, without a break since since.
	up    bool
	since time.Time
	// silent means that its monitor has never had an answer.
	silent bool
}

// choose says which of a realm's tunnels, given in the order of their rank, carries its
// traffic: "" is none. The current one stays while it is up, until a better one has been up
// for returnAfter without a break; thus a tunnel that flaps does not move traffic each time. Nor
// does one that nobody has answered by take it from one that somebody has.
// again is when the answer may be another with nothing else changed; zero is never.
func choose(tunnels []candidate, current string, now time.Time, returnAfter time.Duration) (active string, again time.Time) {
	first := -1
	for i, t := range tunnels {
		if t.up && first < 0 {
			first = i
		}
		if !t.up || t.name != current {
			continue
		}
		for _, better := range tunnels[:i] {
			if !better.up || better.silent && !t.silent {
				continue
			}
			due := better.since.Add(returnAfter)
			if !due.After(now) {
				return better.name, again
			}
			if again.IsZero() || due.Before(again) {
				again = due
			}
		}
		return current, again
	}
	if first < 0 {
		return "", time.Time{}
	}
	return tunnels[first].name, time.Time{}
}
