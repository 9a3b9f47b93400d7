package netlab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// netnsDir is where iproute2 keeps named namespaces, so that "ip netns exec" finds ours.
const netnsDir = "/run/netns"

// createNetns makes a named namespace and returns a handle of it. The calling
// goroutine stays where it is.
func createNetns(name string) (netns.NsHandle, error) {
	if _, err := os.Lstat(filepath.Join(netnsDir, name)); err == nil {
		return netns.None(), fmt.Errorf("namespace %s: %w", name, os.ErrExist)
	}
	if err := shareNetnsDir(); err != nil {
		return netns.None(), err
	}
	handle := netns.None()
	err := onOwnThread(func() error {
		var err error
		// NewNamed moves this thread into the new namespace; onOwnThread moves it back.
		handle, err = netns.NewNamed(name)
		return err
	})
	if err != nil {
		return netns.None(), errors.Join(fmt.Errorf("making namespace %s: %w", name, err), deleteNetns(name))
	}
	return handle, nil
}

// shareNetnsDir makes the folder of names a mount point of its own, as the first "ip netns add"
// does. Done later it would mount the names that are there already once more, and those could
// not be removed.
func shareNetnsDir() error {
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return fmt.Errorf("folder of namespaces: %w", err)
	}
	share := func() error { return unix.Mount("", netnsDir, "none", unix.MS_SHARED|unix.MS_REC, "") }
	err := share()
	if errors.Is(err, unix.EINVAL) { // not a mount point yet
		if err = unix.Mount(netnsDir, netnsDir, "none", unix.MS_BIND|unix.MS_REC, ""); err == nil {
			err = share()
		}
	}
	if err != nil {
		return fmt.Errorf("folder of namespaces %s: %w", netnsDir, err)
	}
	return nil
}

// deleteNetns removes a named namespace; one that is gone already is no error.
func deleteNetns(name string) error {
	if err := netns.DeleteNamed(name); err != nil {
		// A file without its mount is left behind when a lab dies between the two steps.
		if err := os.Remove(filepath.Join(netnsDir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("removing namespace %s: %w", name, err)
		}
	}
	return nil
}

// inNetns runs fn on a thread within ns and returns when fn has.
func inNetns(ns netns.NsHandle, fn func() error) error {
	return onOwnThread(func() error {
		if err := netns.Set(ns); err != nil {
			return fmt.Errorf("entering the namespace: %w", err)
		}
		return fn()
	})
}

// onOwnThread runs fn on a thread that may change its namespace: the thread is put
// back afterwards, or thrown away if that fails.
func onOwnThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			done <- fmt.Errorf("own namespace: %w", err)
			return // still locked: the thread ends with its goroutine
		}
		defer home.Close()
		err = fn()
		if back := netns.Set(home); back != nil {
			done <- errors.Join(err, fmt.Errorf("leaving the namespace: %w", back))
			return
		}
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}
