package traffic

import (
	"fmt"
	"runtime"

	"github.com/vishvananda/netns"
)

// within runs f on a thread in the namespace at path, e.g. "/run/netns/NAME". The thread
// ends with it.
func within(path string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread
		done <- enter(path, f)
	}()
	return <-done
}

func enter(path string, f func() error) error {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return fmt.Errorf("namespace %s: %w", path, err)
	}
	defer ns.Close()
	if err := netns.Set(ns); err != nil {
		return fmt.Errorf("enter namespace %s: %w", path, err)
	}
	return f()
}
