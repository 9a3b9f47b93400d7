package datapath

import (
	"errors"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/tests/netspace"
)

// TestMountsOfOurOwn: in a mount namespace of its own, such as "ip netns exec" makes, a process mounts no
// bpffs: it would end with the process. Nor does Unload tell that nothing is pinned, where it sees nothing.
func TestMountsOfOurOwn(t *testing.T) {
	netspace.NeedRoot(t)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends, and its mounts
		err := unix.Unshare(unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = unix.Mount("tmpfs", defaultBPFFS, "tmpfs", 0, "") // hides what is there, as a new sysfs does
		}
		if err != nil {
			done <- err
			return
		}
		_, err = Unload(filepath.Join(defaultBPFFS, "tdm-test"))
		done <- err
	}()
	err := <-done
	if !errors.Is(err, ErrNoBPFFS) || !strings.Contains(err.Error(), "ip netns exec") {
		t.Errorf("error %v", err)
	}
}

// TestUnloadOfNothing: what is not there is no error; what is no bpffs cannot be seen, and that is one.
func TestUnloadOfNothing(t *testing.T) {
	if found, err := Unload(newPins(t)); found || err != nil {
		t.Errorf("nothing is pinned: found %v, error %v", found, err)
	}
	if found, err := Unload(t.TempDir()); found || !errors.Is(err, ErrNoBPFFS) {
		t.Errorf("no bpffs: found %v, error %v", found, err)
	}
}

// TestLockedDirectoryGoes: whoever waits for a directory that Unload removes gets a new one.
func TestLockedDirectoryGoes(t *testing.T) {
	dir := newPins(t)
	first, err := lockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockDir(dir); !errors.Is(err, ErrBusy) {
		t.Errorf("locked twice: %v", err)
	}
	if err := errors.Join(unix.Rmdir(dir), first.Close()); err != nil {
		t.Fatal(err)
	}
	second, err := lockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
}
