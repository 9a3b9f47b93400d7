package ipsec

import (
	"maps"
	"strings"
	"testing"
)

const statFile = "XfrmInError             \t0\nXfrmInNoStates          \t4\nXfrmInStateProtoError   \t7\n" +
	"XfrmInStateSeqError     \t3\nXfrmInNoPols            \t1\nXfrmOutNoStates         \t9\n"

func TestParseStatistics(t *testing.T) {
	got, err := parseStatistics([]byte(statFile))
	want := map[string]uint64{
		"XfrmInError": 0, "XfrmInNoStates": 4, "XfrmInStateProtoError": 7, "XfrmInStateSeqError": 3, "XfrmInNoPols": 1, "XfrmOutNoStates": 9,
	}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, error %v", got, err)
	}
	for name, text := range map[string]string{
		"empty": "", "no value": "XfrmInError\n", "no number": "XfrmInError x\n", "negative": "XfrmInError -1\n",
		"three words": "XfrmInError 1 2\n",
		"too many lines": func() string {
			var b strings.Builder
			for i := range maxStatLines + 1 {
				b.WriteString(strings.Repeat("x", i+1) + " 1\n")
			}
			return b.String()
		}(),
	} {
		if got, err := parseStatistics([]byte(text)); err == nil {
			t.Errorf("%s: read as %v", name, got)
		}
	}
	if got, err := readStatistics(strings.NewReader(statFile)); err != nil || got["XfrmInNoStates"] != 4 {
		t.Errorf("from a file: %v, error %v", got, err)
	}
}

func FuzzParseStatistics(f *testing.F) {
	f.Add([]byte(statFile))
	f.Add([]byte("XfrmNew 1\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		values, err := parseStatistics(b)
		if (err == nil) == (len(values) == 0) || len(values) > maxStatLines {
			t.Errorf("%d values, error %v", len(values), err)
		}
		var s statistics
		kinds := make(map[string]uint64)
		if s.add(values, 0, kinds); len(kinds) > len(statWords)+1 {
			t.Errorf("%d kinds", len(kinds))
		}
	})
}

// I7: only what was dropped since the start counts, each drop once, and nothing ever goes back.
func TestStatisticsCountSinceTheStart(t *testing.T) {
	var s statistics
	s.from(map[string]uint64{"XfrmInNoStates": 100, "XfrmInStateProtoError": 50})
	kinds := make(map[string]uint64)
	expect := func(what string, want map[string]uint64) {
		t.Helper()
		if !maps.Equal(kinds, want) {
			t.Errorf("%s: %v, want %v", what, kinds, want)
		}
	}
	s.add(map[string]uint64{"XfrmInNoStates": 100, "XfrmInStateProtoError": 50}, 0, kinds)
	expect("nothing happened", map[string]uint64{})
	s.add(map[string]uint64{"XfrmInNoStates": 104, "XfrmInStateProtoError": 53, "XfrmInStateSeqError": 9}, 2, kinds)
	expect("3 that ESP did not take, 2 of them counted as integrity failures", map[string]uint64{"no_state": 4, "protocol": 1})
	s.add(map[string]uint64{"XfrmInNoStates": 104, "XfrmInStateProtoError": 53}, 3, kinds)
	expect("an integrity failure that was seen late", map[string]uint64{"no_state": 4, "protocol": 1})
	s.add(map[string]uint64{
		"XfrmInPolBlock": 1, "XfrmInPolError": 2, "XfrmFromTheFuture": 5, "XfrmInNoStates": 104, "XfrmInStateProtoError": 53,
	}, 3, kinds)
	expect("two lines of one word, and a new line", map[string]uint64{"no_state": 4, "protocol": 1, "policy": 3, "unknown": 5})
	s.begin()
	s.add(map[string]uint64{"XfrmInNoStates": 2}, 3, kinds)
	expect("the namespace was made again", map[string]uint64{"no_state": 6, "protocol": 1, "policy": 3, "unknown": 5})
}
