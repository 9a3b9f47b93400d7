package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
)

// TestVMCommandLine: flags end at the command, so that go test -exec can append its own.
func TestVMCommandLine(t *testing.T) {
	for _, tt := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"vm"}, 2, "requires at least 1 arg"},
		{[]string{"vm", "--no-such", "true"}, 2, "--no-such"},
		{[]string{"vm", "--kernel", "2.4", "x.test", "-test.v", "--no-such"}, exitFailure, `no kernel "2.4": want one of 6.12, 6.1`},
	} {
		var stderr strings.Builder
		if code := run(t.Context(), io.Discard, &stderr, tt.args); code != tt.code || !strings.Contains(stderr.String(), tt.says) {
			t.Errorf("%v: exit %d and %q, want %d and %q", tt.args, code, stderr.String(), tt.code, tt.says)
		}
	}
}

func TestVMFailureCode(t *testing.T) {
	interrupted, cancel := context.WithCancelCause(t.Context())
	cancel(fmt.Errorf("%v: %w", syscall.SIGINT, context.Canceled))
	for _, tt := range []struct {
		err  error
		want int
	}{
		{fmt.Errorf("no end: %w", context.DeadlineExceeded), 124},
		{fmt.Errorf("ended: %w", context.Cause(interrupted)), 130},
		{errors.New("no QEMU"), 125},
	} {
		if got := failureCode(tt.err); got != tt.want {
			t.Errorf("%v: %d, want %d", tt.err, got, tt.want)
		}
	}
}
