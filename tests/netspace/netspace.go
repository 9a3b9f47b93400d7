// Package netspace gives a test of one package a network namespace of its own, for
// devices and addresses that no other test sees. Whole networks are netlab's.
package netspace

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Space is a network namespace of a test's own. It has no name and no mount: it ends
// with its thread, even if the test binary is killed.
type Space struct {
	// Path names the namespace, for `ip link add ... netns PATH` and setns.
	Path string
	jobs chan func()
}

// New makes a namespace with lo up; it goes with the test. It skips without root.
func New(tb testing.TB) *Space {
	tb.Helper()
	NeedRoot(tb)
	s := &Space{jobs: make(chan func())}
	ready, done := make(chan error), make(chan struct{})
	go func() {
		defer close(done)
		// Never unlocked: the runtime ends the thread, and with it the namespace.
		runtime.LockOSThread()
		s.Path = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		ready <- unix.Unshare(unix.CLONE_NEWNET)
		for job := range s.jobs {
			job()
		}
	}()
	if err := <-ready; err != nil {
		tb.Fatalf("new network namespace: %v", err)
	}
	tb.Cleanup(func() {
		close(s.jobs)
		<-done
	})
	s.IP(tb, "link set lo up")
	return s
}

// Do runs f in the namespace. Sockets and processes that f makes belong to it; goroutines
// that it starts do not.
func (s *Space) Do(f func()) {
	done := make(chan struct{})
	s.jobs <- func() { defer close(done); f() }
	<-done
}

// IP runs iproute2 in the namespace.
func (s *Space) IP(tb testing.TB, args string) string {
	tb.Helper()
	return s.Run(tb, "ip", args)
}

// Run runs a program in the namespace and returns what it printed; the test ends if it
// fails. args are split at spaces.
func (s *Space) Run(tb testing.TB, name, args string) string {
	tb.Helper()
	var out []byte
	var err error
	s.Do(func() { out, err = exec.Command(name, strings.Fields(args)...).CombinedOutput() })
	if err != nil {
		tb.Fatalf("%s %s: %v: %s", name, args, err, out)
	}
	return string(out)
}

// NeedRoot skips a test that cannot do without.
func NeedRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("needs root: network namespaces")
	}
}

// Lacks ends a test that the kernel lacks something for: it is skipped, but in the virtual
// machines of `make test-vm`, which have all that tests need, it fails.
func Lacks(tb testing.TB, format string, args ...any) {
	tb.Helper()
	if os.Getenv("TANDEM_MACHINE") != "" {
		tb.Fatalf(format, args...)
	}
	tb.Skipf(format, args...)
}
