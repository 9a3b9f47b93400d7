package realm

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// space is a network namespace of a test's own. It has no name and no mount: it ends
// with its thread, even if the test binary is killed.
type space struct {
	path string
	jobs chan func()
}

func newSpace(tb testing.TB) *space {
	tb.Helper()
	needRoot(tb)
	s := &space{jobs: make(chan func())}
	ready, done := make(chan error), make(chan struct{})
	go func() {
		defer close(done)
		// Never unlocked: the runtime ends the thread, and with it the namespace.
		runtime.LockOSThread()
		s.path = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
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
	s.ip(tb, "link set lo up")
	return s
}

// do runs f in the namespace. Sockets and processes that f makes belong to it; goroutines
// that it starts do not.
func (s *space) do(f func()) {
	done := make(chan struct{})
	s.jobs <- func() { defer close(done); f() }
	<-done
}

// ip runs iproute2 in the namespace.
func (s *space) ip(tb testing.TB, args string) string {
	tb.Helper()
	return s.run(tb, "ip", args)
}

func (s *space) run(tb testing.TB, name, args string) string {
	tb.Helper()
	var out []byte
	var err error
	s.do(func() { out, err = exec.Command(name, strings.Fields(args)...).CombinedOutput() })
	if err != nil {
		tb.Fatalf("%s %s: %v: %s", name, args, err, out)
	}
	return string(out)
}

func needRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("needs root: network namespaces")
	}
}
