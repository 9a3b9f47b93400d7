package netlab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// stateDir holds a lock and a directory per lab.
const stateDir = "/run/tandem-lab"

// bpffs is where the gateways of labs pin, each in a directory with its lab's id.
const bpffs = "/sys/fs/bpf"

// unpin takes away what a gateway has left in the kernel: its programs are detached with
// the last name of their links.
func unpin(id string) error {
	if err := os.RemoveAll(filepath.Join(bpffs, id)); err != nil {
		return fmt.Errorf("pins of lab %s: %w", id, err)
	}
	return nil
}

// labName matches the id in the name of a thing that a lab, or its gateway, made.
var labName = regexp.MustCompile(`^(?:tdm-)?(tdm([0-9]+)x[0-9]+)(-|\.lock$|$)`)

// nodeLock is the file by which the gateway of a lab keeps others off its node.
func nodeLock(id string) string { return filepath.Join("/run/tandem", id+".lock") }

// nodePrefix begins the names of the namespaces that the gateway of a lab makes.
func nodePrefix(id string) string { return "tdm-" + id + "-" }

// removeNode ends what the gateway of a lab has left running, which outlives it by design, and
// removes the namespaces that it made, and its lock. A charon whose namespace has lost its name is known by
// its settings, which are in the lab's directory.
func removeNode(dir, id string) error {
	entries, err := os.ReadDir(netnsDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	errs := []error{kill("with settings in "+dir, func(pid int) bool { return isCharonOf(pid, dir) })}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), nodePrefix(id)) {
			errs = append(errs, killWithin(filepath.Join(netnsDir, e.Name())))
		}
	}
	if err := os.Remove(nodeLock(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(append(errs, removeNamespaces(nodePrefix(id)))...)
}

// killWithin ends the processes in a network namespace, given by its path.
func killWithin(namespace string) error {
	var want unix.Stat_t
	if err := unix.Stat(namespace, &want); err != nil {
		return fmt.Errorf("namespace %s: %w", namespace, err)
	}
	return kill("in "+namespace, func(pid int) bool {
		var have unix.Stat_t
		// A process that ends meanwhile, or a zombie, is in no namespace.
		return unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &have) == nil && have.Dev == want.Dev && have.Ino == want.Ino
	})
}

// isCharonOf looks at a process's environment; that of others may name the lab too, by a variable
// of the CLI.
func isCharonOf(pid int, dir string) bool {
	environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	return err == nil && bytes.Contains(environment, []byte("STRONGSWAN_CONF="+dir+"/"))
}

// kill ends the processes that are meant, and returns when they are gone.
func kill(which string, meant func(pid int) bool) error {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		pids, err := processesThat(meant)
		if err != nil || len(pids) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v %s do not end", pids, which)
		}
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("process %d %s: %w", pid, which, err)
			}
		}
	}
}

// processesThat are meant, this one left out.
func processesThat(meant func(pid int) bool) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid != os.Getpid() && meant(pid) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// claim takes a free id and returns it with the lock that says that its owner lives.
func claim(dir string) (id string, lock *os.File, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", nil, fmt.Errorf("lab state: %w", err)
	}
	lock, err = os.CreateTemp(dir, ".new-*")
	if err != nil {
		return "", nil, fmt.Errorf("lab lock: %w", err)
	}
	// The lock is taken before the file has its name, so that no sweep sees it free.
	defer os.Remove(lock.Name())
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return "", nil, fmt.Errorf("lab lock: %w", err)
	}
	for n := range 10000 {
		id := fmt.Sprintf("tdm%dx%d", os.Getpid(), n)
		path := lockPath(dir, id)
		switch err := os.Link(lock.Name(), path); {
		case err == nil:
			return id, lock, nil
		case !errors.Is(err, os.ErrExist):
			lock.Close()
			return "", nil, fmt.Errorf("lab lock: %w", err)
		}
	}
	lock.Close()
	return "", nil, fmt.Errorf("lab lock: no free id in %s", dir)
}

// release gives a claimed id back.
func release(dir, id string, lock *os.File) error {
	return errors.Join(os.Remove(lockPath(dir, id)), lock.Close())
}

func lockPath(dir, id string) string { return filepath.Join(dir, id+".lock") }

// Sweep removes what labs of dead owners left behind and returns their ids. Labs
// whose owner lives, and all that no lab made, are left alone.
func Sweep() ([]string, error) { return sweep(stateDir) }

func sweep(dir string) ([]string, error) {
	var stale []string
	var errs []error
	for _, id := range known(dir) {
		lock, dead := takeOver(dir, id)
		if !dead {
			continue
		}
		stale = append(stale, id)
		errs = append(errs, removeNode(filepath.Join(dir, id), id), removeNamespaces(id+"-"), unpin(id), os.RemoveAll(filepath.Join(dir, id)))
		if lock != nil {
			errs = append(errs, release(dir, id, lock))
		}
	}
	return stale, errors.Join(errs...)
}

// known lists the ids that something on this machine carries.
func known(dir string) []string {
	var ids []string
	for _, d := range []string{dir, netnsDir, bpffs} {
		entries, err := os.ReadDir(d)
		if err != nil {
			continue // it is made, or mounted, with the first lab
		}
		for _, e := range entries {
			if m := labName.FindStringSubmatch(e.Name()); m != nil {
				ids = append(ids, m[1])
			}
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// takeOver reports whether the owner of id is dead. With a lock file the lock decides,
// since a pid may belong to somebody else by now; without one the pid does.
func takeOver(dir, id string) (lock *os.File, dead bool) {
	lock, err := os.OpenFile(lockPath(dir, id), os.O_RDWR, 0)
	if err != nil {
		pid, err := strconv.Atoi(labName.FindStringSubmatch(id)[2])
		return nil, err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, false
	}
	return lock, true
}

// removeNamespaces removes those whose names begin so, with the cables in them.
func removeNamespaces(prefix string) error {
	entries, err := os.ReadDir(netnsDir)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	var errs []error
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), prefix) {
			continue
		}
		// A file whose namespace is gone has no devices either.
		if ns, err := netns.GetFromName(e.Name()); err == nil {
			errs = append(errs, removeDevices(ns), ns.Close())
		}
		errs = append(errs, deleteNetns(e.Name()))
	}
	return errors.Join(errs...)
}
