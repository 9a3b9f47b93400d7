package metrics

import (
	"errors"
	"strings"
	"testing"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// expect scrapes and looks for whole lines, and for the start of lines that must not be there.
func expect(t *testing.T, sources Sources, lines, absent []string) {
	t.Helper()
	got := "\n" + scrape(t, sources)
	for _, line := range lines {
		if !strings.Contains(got, "\n"+line+"\n") {
			t.Errorf("%s is not in\n%s", line, got)
		}
	}
	for _, start := range absent {
		if strings.Contains(got, "\n"+start) {
			t.Errorf("%s is in\n%s", start, got)
		}
	}
}

// O1: exits are told apart by realm; what no realm of the config has is of none, and is
// not lost.
func TestExitsByRealm(t *testing.T) {
	exits := func(list ...call.Exit) Sources {
		return Sources{Realms: []string{"platform", "carrier-a"}, Engine: func() (call.EngineStats, error) {
			return call.EngineStats{Exits: list, EventsLost: 8}, nil
		}}
	}
	expect(t, exits(
		call.Exit{Realm: 1, Reason: "no-flow", Verdict: "drop", Packets: 1}, call.Exit{Realm: 2, Reason: "no-flow", Verdict: "drop", Packets: 2},
		call.Exit{Reason: "no-flow", Verdict: "drop", Packets: 4}, call.Exit{Realm: 9, Reason: "no-flow", Verdict: "drop", Packets: 8},
	), []string{
		`tandem_engine_exits_total{realm="platform",reason="no-flow",verdict="drop"} 1`,
		`tandem_engine_exits_total{realm="carrier-a",reason="no-flow",verdict="drop"} 2`,
		`tandem_engine_exits_total{realm="",reason="no-flow",verdict="drop"} 12`,
		`tandem_engine_events_lost_total 8`, `tandem_collection_errors_total 0`,
	}, nil)
}

// M11: a counter never goes down, though loss does when a late packet comes and the sum
// does while the engine cannot be read; afterwards nothing is counted twice.
func TestMediaCountersNeverGoDown(t *testing.T) {
	var counters MediaCounters
	var failed error
	sources := Sources{Media: func() ([]TrunkMedia, error) {
		return []TrunkMedia{{Trunk: "genesys", Realm: "platform", Counters: counters}}, failed
	}}
	handler, err := Handler(sources)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		packets, lost uint64
		err           error
		want          []string
	}{
		{1000, 10, nil, []string{"packets_total 1000", "lost_packets_total 10"}},
		{1100, 9, nil, []string{"packets_total 1100", "lost_packets_total 10"}},
		{0, 0, errors.New("the engine is gone"), []string{"packets_total 1100", "lost_packets_total 10"}},
		{1200, 12, nil, []string{"packets_total 1200", "lost_packets_total 12"}},
	} {
		counters, failed = MediaCounters{Packets: step.packets, Lost: step.lost}, step.err
		got := read(t, handler)
		for _, want := range step.want {
			name, value, _ := strings.Cut(want, " ")
			if line := "tandem_trunk_media_" + name + `{realm="platform",trunk="genesys"} ` + value + "\n"; !strings.Contains(got, line) {
				t.Errorf("after %+v: %s is not in\n%s", counters, line, got)
			}
		}
	}
}

// M11: a trunk without a value has no sample, and every leg is in one category.
func TestLiveMedia(t *testing.T) {
	live := func(legs ...LegQuality) Sources {
		return Sources{Media: func() ([]TrunkMedia, error) { return []TrunkMedia{{Trunk: "a", Realm: "r", Live: legs}}, nil }}
	}
	expect(t, live(LegQuality{}, LegQuality{JitterMS: 2}), []string{
		`tandem_trunk_media_legs{quality="unknown",realm="r",trunk="a"} 2`, `tandem_trunk_media_legs{quality="best",realm="r",trunk="a"} 0`,
		`tandem_trunk_media_jitter_seconds_average{realm="r",trunk="a"} 0.002`,
	}, []string{"tandem_trunk_media_mos", "tandem_trunk_media_rtt"})
	for _, row := range []struct {
		mos  float64
		want string
	}{
		{0, "unknown"}, {1, "unacceptable"}, {2.579, "unacceptable"}, {2.58, "poor"}, {3.1, "low"}, {3.6, "medium"}, {4.03, "high"}, {4.34, "best"}, {4.5, "best"},
	} {
		if got := rating(row.mos); got != row.want {
			t.Errorf("MOS %v is %s, want %s (ITU-T G.109)", row.mos, got, row.want)
		}
	}
}

// O2: a trunk that has had no call is there from the start, so that a rate sees its first.
func TestEndedFromTheStart(t *testing.T) {
	expect(t, Sources{Ended: NewEnded(), Trunks: func() []Trunk { return []Trunk{{Name: "a", Realm: "r"}} }}, []string{
		`tandem_trunk_call_mos_count{realm="r",trunk="a"} 0`, `tandem_trunk_call_loss_ratio_bucket{realm="r",trunk="a",le="0"} 0`,
	}, nil)
}
