package trunk

import (
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// S20, ITU-T E.425: what an attempt counts as. The cause of the telephone network counts
// before the status.
func TestOutcomeClass(t *testing.T) {
	for _, row := range []struct {
		o    Outcome
		want Class
	}{
		{Outcome{Answered: true, SIP: 200}, Answered},
		{Outcome{}, Silent},
		{Outcome{SIP: 486}, Busy},
		{Outcome{SIP: 600}, Busy},
		{Outcome{SIP: 480}, NoAnswer},
		{Outcome{SIP: 480, Q850: 34}, Failed},
		{Outcome{SIP: 503, Q850: 17}, Busy},
		{Outcome{SIP: 487}, NoAnswer},
		{Outcome{SIP: 603}, Rejected},
		{Outcome{SIP: 404}, BadNumber},
		{Outcome{SIP: 484, Q850: 28}, BadNumber},
		{Outcome{SIP: 408}, Failed},
		{Outcome{SIP: 500}, Failed},
		{Outcome{SIP: 503, Q850: 127}, Failed},
		{Outcome{SIP: 403}, Refused},
		{Outcome{SIP: 488}, Refused},
		{Outcome{SIP: 302}, Refused},
		{Outcome{SIP: 699}, Refused},
	} {
		if got := row.o.Class(); got != row.want {
			t.Errorf("%+v counts as %s, want %s", row.o, got, row.want)
		}
	}
}

// T14, O2: ASR, NER, delays and durations are those of the last health_window, in and out
// apart; the totals since start stay.
func TestWindowSlides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := goodConfig("a", "192.0.2.1")
		c.HealthWindow = time.Minute
		tr := newTable(t, []Config{c}).Trunk("a")
		call := func(o Outcome) {
			tr.Attempt(Out)
			tr.Outcome(Out, o)
		}
		call(Outcome{Answered: true, PDD: 2 * time.Second})
		call(Outcome{SIP: 486, PDD: 4 * time.Second})
		call(Outcome{SIP: 503})
		call(Outcome{})
		tr.Attempt(Out) // under way: neither good nor bad yet
		tr.Ended(Out, time.Minute, 4)
		tr.Ended(Out, 3*time.Minute, 0)

		w := tr.Status().Out.Window
		if w.Attempts != 5 || w.ASR != 25 || w.NER != 50 || w.PDDMS != 3000 || w.ACDMS != 120_000 || w.MOS != 4 {
			t.Errorf("%+v", w)
		}
		if w.Classes["busy"] != 1 || w.Classes["silent"] != 1 || len(w.Classes) != 4 {
			t.Errorf("classes %v", w.Classes)
		}
		if in := tr.Status().In; in.Attempts != 0 || in.Window.Attempts != 0 {
			t.Errorf("in: %+v", in)
		}
		if attempts, answers := tr.answers(time.Now(), time.Minute); attempts != 4 || answers != 1 {
			t.Errorf("%d of %d answered", answers, attempts)
		}

		time.Sleep(44 * time.Second)
		if w := tr.Status().Out.Window; w.Attempts != 5 {
			t.Errorf("after 44 s: %+v", w)
		}
		time.Sleep(17 * time.Second)
		s := tr.Status().Out
		if s.Attempts != 5 || s.Answers != 1 || s.Failures != 3 {
			t.Errorf("since start: %+v", s)
		}
		if w := s.Window; w.Attempts != 0 || w.ASR != 0 || math.IsNaN(w.NER) || w.Classes != nil {
			t.Errorf("after 61 s: %+v", w)
		}
		call(Outcome{Answered: true})
		if w := tr.Status().Out.Window; w.Attempts != 1 || w.ASR != 100 {
			t.Errorf("the next call: %+v", w)
		}
		time.Sleep(maxWindow) // around the ring, to the same bin
		call(Outcome{SIP: 500})
		if w := tr.Status().Out.Window; w.Attempts != 1 || w.ASR != 0 {
			t.Errorf("a ring later: %+v", w)
		}
	})
}

// Calls end everywhere at once, while somebody looks; nothing is lost.
func TestStatsFromEverywhere(t *testing.T) {
	tr := newTable(t, []Config{goodConfig("a", "192.0.2.1")}).Trunk("a")
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := range 500 {
				dir := Direction(worker % 2)
				tr.Attempt(dir)
				tr.Outcome(dir, Outcome{Answered: i%2 == 0, SIP: 503, PDD: time.Second})
				tr.Ended(dir, time.Second, 4)
				tr.Status()
			}
		})
	}
	wg.Wait()
	s := tr.Status()
	for dir, d := range map[Direction]DirectionStat{In: s.In, Out: s.Out} {
		if d.Attempts != 1000 || d.Answers != 500 || d.Failures != 500 || d.Window.Attempts != 1000 || d.Window.ASR != 50 || d.Window.PDDMS != 1000 {
			t.Errorf("%s: %+v", dir, d)
		}
	}
}
