package realm

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/tests/netspace"
)

// TestLostSpaces: a namespace that has lost its name is found by the process in it; one that
// somebody has made in a user namespace of his own is not, whatever it is marked as.
func TestLostSpaces(t *testing.T) {
	netspace.NeedRoot(t)
	node := testNode()
	inhabited(t, mark{node, "ours", ""}, 0)
	inhabited(t, mark{node, "theirs", ""}, syscall.CLONE_NEWUSER)
	found, err := lostSpaces(node, func(mark) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	for m, s := range found {
		s.close()
		if m.realm != "ours" {
			t.Errorf("the namespace of %q was taken for ours", m.realm)
		}
	}
	if len(found) == 0 {
		t.Error("our own namespace was not found")
	}
}

// inhabited is a namespace without a name and with a process in it that marked it.
func inhabited(t *testing.T, m mark, flags uintptr) {
	t.Helper()
	cmd := exec.Command("sh", "-c", `ip link set lo alias "$0" && echo marked && exec sleep 600`, m.String())
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | flags}
	if flags != 0 {
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) {
		t.Skipf("no user namespace to be had: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it has ended, then
		_ = cmd.Wait()         // "signal: killed"
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("namespace of %s: %q, %v", m.realm, line, err)
	}
}

func testNode() string { return fmt.Sprintf("tdm%d", os.Getpid()) }

// TestRemoveSpaces: a namespace that cannot be opened does not keep the others from being removed.
func TestRemoveSpaces(t *testing.T) {
	s := netspace.New(t)
	node := testNode()
	bad, good := NamespacePath(node, "a"), NamespacePath(node, "b")
	gone := func(path string) bool {
		there, err := isNamespace(path)
		return err == nil && !there
	}
	t.Cleanup(func() {
		for _, path := range []string{bad, good} {
			if gone(path) {
				continue
			}
			if err := unname(path); err != nil {
				t.Error(err)
			}
		}
	})
	outer, err := newSpace(mark{node, "b", ""}.String())
	if err != nil {
		t.Fatal(err)
	}
	defer outer.close()
	if err := outer.name(good); err != nil {
		t.Fatal(err)
	}
	// A namespace, but none of networks: setns(2) refuses it.
	if err := os.WriteFile(bad, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("/proc/self/ns/uts", bad, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	s.Do(func() { _, err = Remove(node) })
	if err == nil || !strings.Contains(err.Error(), bad) {
		t.Errorf("error: %v; want one that names %s", err, bad)
	}
	if !gone(good) {
		t.Error("the other namespace is left")
	}
}
