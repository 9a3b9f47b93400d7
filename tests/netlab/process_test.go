package netlab

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// TestProcesses: exit codes, stopping by a signal, killing after the grace, CPU time.
func TestProcesses(t *testing.T) {
	lab := up(t, Default(false))
	p := lab.Command(t.Context(), Platform, "sh", "-c", "exit 7")
	if err := p.Run(); err == nil || p.ExitCode() != 7 {
		t.Errorf("exit 7: %v, code %d", err, p.ExitCode())
	}
	if err := lab.Command(t.Context(), Platform, "no-such-program").Run(); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("no such program: %v", err)
	}
	if err := lab.Command(t.Context(), "nowhere", "true").Run(); err == nil {
		t.Error("a command on no host runs")
	}

	polite := lab.Command(t.Context(), Platform, "sleep", "600")
	if err := polite.Start(); err != nil {
		t.Fatal(err)
	}
	if err := polite.Stop(syscall.SIGTERM, 5*time.Second); err != nil {
		t.Error(err)
	}
	stubborn := lab.Command(t.Context(), Platform, "sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done")
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	stubborn.Stdout = in
	if err := stubborn.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if err := stubborn.Stop(syscall.SIGTERM, 50*time.Millisecond); err == nil {
		t.Error("a killed process is reported as stopped")
	}

	ctx, cancel := context.WithCancel(t.Context())
	busy := lab.Command(ctx, Platform, "sh", "-c", "while :; do :; done")
	if err := busy.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a busy process has used CPU time", func() bool {
		used, err := CPUTime(busy.PID())
		if err != nil {
			t.Fatal(err)
		}
		return used > 20*time.Millisecond
	})
	cancel()
	if err := busy.Wait(); err == nil {
		t.Error("a cancelled process ended well")
	}
}
