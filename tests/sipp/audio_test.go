package sipp

import (
	"bytes"
	"testing"
	"time"
)

// TestAudioTellsPacketsApart: no two packets of any process are the same, so that one
// in the wrong place is seen; and a run can be repeated.
func TestAudioTellsPacketsApart(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(4) {
		audio := Audio{Seed: seed, Packets: 200}
		b := audio.Bytes()
		if len(b) != 200*packetBytes || audio.Duration() != 4*time.Second {
			t.Fatalf("%d bytes, %v", len(b), audio.Duration())
		}
		if !bytes.Equal(b, audio.Bytes()) {
			t.Errorf("seed %d: another audio the second time", seed)
		}
		for len(b) > 0 {
			if seen[string(b[:packetBytes])] {
				t.Errorf("seed %d: a packet for the second time", seed)
			}
			seen[string(b[:packetBytes])] = true
			b = b[packetBytes:]
		}
	}
}

func TestParseStats(t *testing.T) {
	const header = "StartTime;CurrentTime;CurrentCall;TotalCallCreated;SuccessfulCall(P);SuccessfulCall(C);FailedCall(C);OutOfCallMsgs(C);Retransmissions(C);\n"
	for _, tt := range []struct {
		name, data string
		want       Stats
		fails      bool
	}{
		{name: "OK nothing yet"},
		{name: "OK only the header", data: header},
		{name: "OK the last line counts", data: header + "a;b;1;2;3;4;5;6;7;\na;b;10;20;30;40;50;60;70;\n",
			want: Stats{Created: 20, Successful: 40, Failed: 50, Current: 10, Retransmissions: 70, OutOfCall: 60}},
		{name: "OK a line half written is not read", data: header + "a;b;1;2;3;4;5;6;7;\na;b;10;2",
			want: Stats{Created: 2, Successful: 4, Failed: 5, Current: 1, Retransmissions: 7, OutOfCall: 6}},
		{name: "bad number", data: header + "a;b;x;2;3;4;5;6;7;\n", fails: true},
		{name: "bad columns", data: "A;B;\n1;2;\n", fails: true},
	} {
		got, err := parseStats([]byte(tt.data))
		if (err != nil) != tt.fails || !tt.fails && got != tt.want {
			t.Errorf("%s: %+v, %v, want %+v", tt.name, got, err, tt.want)
		}
	}
}
