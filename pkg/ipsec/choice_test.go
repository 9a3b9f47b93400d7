package ipsec

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(seconds int) time.Time { return epoch.Add(time.Duration(seconds) * time.Second) }

// I6: the primary carries, a backup takes over at once, and traffic returns once the primary
// has been up for some time.
func TestChoose(t *testing.T) {
	const returnAfter = 10 * time.Second
	down, upSince := -1, func(s int) int { return s }
	for name, c := range map[string]struct {
		since   []int // by rank; down
		current string
		now     int
		want    string
		again   int // 0 is never
	}{
		"no tunnel":                              {nil, "", 100, "", 0},
		"none is up":                             {[]int{down, down}, "", 100, "", 0},
		"the last one went":                      {[]int{down, down}, "t2", 100, "", 0},
		"the first that comes up":                {[]int{down, upSince(100)}, "", 100, "t2", 0},
		"the primary of two":                     {[]int{upSince(100), upSince(1)}, "", 100, "t1", 0},
		"the primary stays":                      {[]int{upSince(1), upSince(1)}, "t1", 100, "t1", 0},
		"the backup takes over at once":          {[]int{down, upSince(99)}, "t1", 100, "t2", 0},
		"no return at once":                      {[]int{upSince(95), upSince(1)}, "t2", 100, "t2", 105},
		"no return a moment early":               {[]int{upSince(91), upSince(1)}, "t2", 100, "t2", 101},
		"return in time":                         {[]int{upSince(90), upSince(1)}, "t2", 100, "t1", 0},
		"the backup went, the primary is new":    {[]int{upSince(100), down}, "t2", 100, "t1", 0},
		"a better backup of two":                 {[]int{down, upSince(50), upSince(1)}, "t3", 100, "t2", 0},
		"a backup now, the primary later":        {[]int{upSince(95), upSince(50), upSince(1)}, "t3", 100, "t2", 105},
		"the next of two that wait":              {[]int{upSince(99), upSince(95), upSince(1)}, "t3", 100, "t3", 105},
		"a worse one never takes over":           {[]int{upSince(99), upSince(1)}, "t1", 100, "t1", 0},
		"the current one is in the list no more": {[]int{upSince(99), upSince(1)}, "t9", 100, "t1", 0},
	} {
		t.Run(name, func(t *testing.T) {
			var list []candidate
			for i, s := range c.since {
				list = append(list, candidate{name: fmt.Sprintf("t%d", i+1), up: s != down, since: at(max(s, 0))})
			}
			var again time.Time
			if c.again != 0 {
				again = at(c.again)
			}
			if got, when := choose(list, c.current, at(c.now), returnAfter); got != c.want || !when.Equal(again) {
				t.Errorf("got %q, again %v; want %q, again %v", got, when, c.want, again)
			}
		})
	}
	if got, _ := choose([]candidate{{name: "t1", up: true, since: at(100)}, {name: "t2", up: true, since: at(1)}}, "t2", at(100), 0); got != "t1" {
		t.Errorf("with return_after 0 got %q, want the primary at once", got)
	}
}

// However tunnels flap: traffic goes by one that is up if there is one, it leaves one that is up
// only for a better one that has been up long enough, and whoever asks again when told misses nothing.
func TestChooseProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const returnAfter = 10 * time.Second
		list := make([]candidate, rapid.IntRange(1, 4).Draw(t, "tunnels"))
		for i := range list {
			list[i].name = fmt.Sprintf("t%d", i+1)
		}
		rank := func(name string) int {
			for i, c := range list {
				if c.name == name {
					return i
				}
			}
			return -1
		}
		current, again, now := "", time.Time{}, epoch
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			next := now.Add(time.Duration(rapid.IntRange(1, 15).Draw(t, "seconds")) * time.Second)
			for !again.IsZero() && !again.After(next) {
				now = again
				active, then := choose(list, current, now, returnAfter)
				if !then.IsZero() && !then.After(now) {
					t.Fatalf("at %v asked to come again at %v", now, then)
				}
				current, again = active, then
			}
			now = next
			if quiet, _ := choose(list, current, now, returnAfter); quiet != current {
				t.Fatalf("the choice became %q at %v without a change, and nobody was told to ask", quiet, now)
			}
			if i := rapid.IntRange(0, len(list)-1).Draw(t, "which"); list[i].up {
				list[i].up = false
			} else {
				list[i].up, list[i].since = true, now
			}
			active, then := choose(list, current, now, returnAfter)
			ups, was := 0, rank(current)
			for _, c := range list {
				if c.up {
					ups++
				}
			}
			is := rank(active)
			switch {
			case active == "" && ups > 0:
				t.Fatal("none is chosen though one is up")
			case active != "" && !list[is].up:
				t.Fatalf("%s is chosen, and down", active)
			case was >= 0 && list[was].up && is > was:
				t.Fatalf("%s is up, and traffic goes to the worse %s", current, active)
			case was >= 0 && list[was].up && is < was && now.Sub(list[is].since) < returnAfter:
				t.Fatalf("traffic returns to %s after %v", active, now.Sub(list[is].since))
			}
			current, again = active, then
		}
	})
}
