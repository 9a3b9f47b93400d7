package datapath

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// childVariable tells a test binary to be a gateway instead.
const childVariable = "TDM_DATAPATH_CHILD"

// childConfig is what it says.
type childConfig struct {
	Realms []Realm
	Pins   string
	Hops   map[uint16]call.NextHop
	NoTCX  bool
	// Die is the step to be killed at, from 1; 0 is none.
	Die int
}

// TestMain runs the tests, or one of their children.
func TestMain(m *testing.M) {
	text := os.Getenv(childVariable)
	if text == "" {
		os.Exit(m.Run())
	}
	if err := beChild(text); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// beChild opens an engine and prints "open". It is killed then, or at a step whose name it has printed.
func beChild(text string) error {
	var told childConfig
	if err := json.Unmarshal([]byte(text), &told); err != nil {
		return err
	}
	steps, last := 0, ""
	_, err := Open(Config{
		Realms: told.Realms, MaxCalls: 10, NextHops: &staticHops{byRealm: told.Hops}, Pins: told.Pins, noTCX: told.NoTCX,
		step: func(name string) {
			if name == last {
				return // one of many alike
			}
			last = name
			if steps++; steps == told.Die {
				fmt.Println(name)
				_ = unix.Kill(os.Getpid(), unix.SIGKILL)
			}
		},
	})
	if err != nil {
		return err
	}
	fmt.Println("open")
	select {}
}

// child is another process with an engine.
type child struct {
	cmd   *exec.Cmd
	lines *bufio.Reader
}

// startChild starts one in the gateway's namespace.
func (w *wire) startChild(t *testing.T, cfg Config, die int) *child {
	t.Helper()
	text, err := json.Marshal(childConfig{Realms: cfg.Realms, Pins: cfg.Pins, Hops: w.hops.byRealm, NoTCX: cfg.noTCX, Die: die})
	if err != nil {
		t.Fatal(err)
	}
	c := &child{cmd: exec.Command(os.Args[0])}
	c.cmd.Env = append(os.Environ(), childVariable+"="+string(text))
	c.cmd.Stderr = os.Stderr
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.lines = bufio.NewReader(out)
	w.gateway.Do(func() { err = c.cmd.Start() })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.cmd.Process.Kill() })
	return c
}

// said is the line that it has printed: a step, or "open".
func (c *child) said(t *testing.T) string {
	t.Helper()
	limit := time.AfterFunc(30*time.Second, func() { _ = c.cmd.Process.Kill() })
	defer limit.Stop()
	line, err := c.lines.ReadString('\n')
	if err != nil {
		t.Fatalf("another process with an engine: %v", errors.Join(err, c.cmd.Wait()))
	}
	return strings.TrimSpace(line)
}

func (c *child) wantOpen(t *testing.T) {
	t.Helper()
	if got := c.said(t); got != "open" {
		t.Fatalf("another process with an engine says %q", got)
	}
}

// kill is kill -9.
func (c *child) kill(t *testing.T) {
	t.Helper()
	if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	var killed *exec.ExitError
	if err := c.cmd.Wait(); !errors.As(err, &killed) {
		t.Fatalf("killed: %v", err)
	}
}

// crash waits until it is dead: at a step, or behind the last, where it would have been open.
func (c *child) crash(t *testing.T) (step string, open bool) {
	t.Helper()
	step = c.said(t)
	c.kill(t)
	return step, step == "open"
}
