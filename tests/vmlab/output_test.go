package vmlab

import (
	"strings"
	"testing"
)

// TestOutcomeIsComplete: the end is there when the exit code and all bytes are, in
// whatever order they come.
func TestOutcomeIsComplete(t *testing.T) {
	completed := 0
	o := &outcome{complete: func() { completed++ }}
	for _, step := range []struct {
		status    string
		out, err  int
		completed int
	}{
		{status: "runn"},
		{status: "ing\n"},
		{out: 5},
		{status: "exit 200 7 3\n"},
		{err: 3},
		{out: 2, completed: 1},
	} {
		if _, err := o.status([]byte(step.status)); err != nil {
			t.Fatal(err)
		}
		if step.out > 0 {
			o.count(0, step.out)
		}
		if step.err > 0 {
			o.count(1, step.err)
		}
		if completed != step.completed {
			t.Fatalf("after %+v: completed %d times", step, completed)
		}
	}
	if !o.running || !o.exited || o.code != 200 {
		t.Errorf("running %v, exited %v, code %d", o.running, o.exited, o.code)
	}
}

func TestStatusRefused(t *testing.T) {
	for _, said := range []string{
		"walking\n", "exit\n", "exit 0\n", "exit 0 1\n", "exit 256 0 0\n", "exit -1 0 0\n", "exit 0 -1 0\n",
		"exit 0 0 0\nexit 0 0 0\n", strings.Repeat("x", maxStatus+1),
	} {
		o := &outcome{complete: func() {}}
		if _, err := o.status([]byte(said)); err == nil {
			t.Errorf("%q: no error", said)
		}
	}
}

func FuzzStatus(f *testing.F) {
	f.Add([]byte("running\nexit 7 0 0\n"))
	f.Add([]byte("exit 7 0 18446744073709551616\n"))
	f.Fuzz(func(t *testing.T, said []byte) {
		o := &outcome{complete: func() {}}
		_, err := o.status(said)
		if err == nil && o.line.Len() > maxStatus {
			t.Errorf("a line of %d bytes is kept", o.line.Len())
		}
	})
}

func TestTail(t *testing.T) {
	var last tail
	if got := last.lines(3); got != "(nothing)" {
		t.Errorf("%q of nothing", got)
	}
	for range 3000 {
		if _, err := last.Write([]byte("old line\n")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := last.Write([]byte("one\n\x1b[2Jtwo\r\nthree\n\n")); err != nil {
		t.Fatal(err)
	}
	if got, want := last.lines(3), "one\n[2Jtwo\nthree"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if len(last.b) > tailSize {
		t.Errorf("%d bytes kept, want at most %d", len(last.b), tailSize)
	}
}
