package datapath

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// budget is what a program costs the verifier.
type budget struct {
	// Instructions in the program, and those that the verifier walked through.
	Instructions, Verified int
	// Stack is in bytes, of all functions together; States are the most kept at a time.
	Stack, States int
}

// TestVerifierBudget holds the cost of the programs against testdata/verifier.json: a growth
// of more than a tenth has to be looked at, and then written down with -update, on each of the kernels there.
// Another kernel is held against the one before it. The limits are a million instructions and 512 bytes; older
// kernels walk through more.
func TestVerifierBudget(t *testing.T) {
	const file = "testdata/verifier.json"
	spec, err := loadTandem()
	if err != nil {
		t.Fatal(err)
	}
	opts := ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{LogLevel: ebpf.LogLevelStats}}
	coll, err := ebpf.NewCollectionWithOptions(spec, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer coll.Close()
	got := map[string]budget{}
	for name, prog := range coll.Programs {
		got[name] = readBudget(t, prog)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	budgets := map[string]map[string]budget{} // by kernel, by program
	if err := json.Unmarshal(text, &budgets); err != nil {
		t.Fatal(err)
	}
	running := kernelSeries(t)
	if *update {
		budgets[running] = got
		text, err := json.MarshalIndent(budgets, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, file, string(text)+"\n")
		return
	}
	series := slices.SortedFunc(maps.Keys(budgets), compareSeries)
	at, known := slices.BinarySearchFunc(series, running, compareSeries)
	if !known && at > 0 {
		at--
	}
	want := budgets[series[at]]
	t.Logf("Linux %s, the budget of %s", running, series[at])
	if len(got) != len(want) {
		t.Errorf("%d programs, %s has %d", len(got), file, len(want))
	}
	for name, g := range got {
		w := want[name]
		for _, x := range []struct {
			what      string
			got, want int
		}{
			{"instructions", g.Instructions, w.Instructions},
			{"verified instructions", g.Verified, w.Verified},
			{"bytes of stack", g.Stack, w.Stack},
			{"states", g.States, w.States},
		} {
			if x.got > x.want+x.want/10 {
				t.Errorf("%s: %d %s, the budget is %d and a tenth", name, x.got, x.what, x.want)
			}
		}
		t.Logf("%s: %+v", name, g)
	}
}

// kernelSeries is the running kernel's, such as "6.12".
func kernelSeries(t *testing.T) string {
	t.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`^[0-9]+\.[0-9]+`).FindString(unix.ByteSliceToString(name.Release[:]))
}

func compareSeries(a, b string) int {
	var x, y [2]int
	_, errA := fmt.Sscanf(a, "%d.%d", &x[0], &x[1])
	_, errB := fmt.Sscanf(b, "%d.%d", &y[0], &y[1])
	if errA != nil || errB != nil {
		panic(fmt.Sprintf("no kernels: %q, %q", a, b))
	}
	return slices.Compare(x[:], y[:])
}

var (
	stackDepth = regexp.MustCompile(`stack depth ([0-9+]+)`)
	peakStates = regexp.MustCompile(`peak_states ([0-9]+)`)
	perFrame   = regexp.MustCompile(`[0-9]+`)
)

func readBudget(t *testing.T, prog *ebpf.Program) budget {
	t.Helper()
	info, err := prog.Info()
	if err != nil {
		t.Fatal(err)
	}
	instructions, err := info.Instructions()
	if err != nil {
		t.Fatal(err)
	}
	verified, ok := info.VerifiedInstructions()
	if !ok {
		t.Fatal("the kernel does not say how many instructions it verified")
	}
	depth, states := stackDepth.FindStringSubmatch(prog.VerifierLog), peakStates.FindStringSubmatch(prog.VerifierLog)
	if depth == nil || states == nil {
		t.Fatalf("the verifier does not tell of stack and states: %q", prog.VerifierLog)
	}
	b := budget{Instructions: len(instructions), Verified: int(verified)}
	for _, bytes := range perFrame.FindAllString(depth[1], -1) {
		n, err := strconv.Atoi(bytes)
		if err != nil {
			t.Fatal(err)
		}
		b.Stack += n
	}
	if b.States, err = strconv.Atoi(states[1]); err != nil {
		t.Fatal(err)
	}
	return b
}
