package app

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// lockFolder has the locks of all nodes of this host, wherever their configs put the rest.
const lockFolder = "/run/tandem"

var (
	// ErrRunning means that a daemon of the same node is there.
	ErrRunning = errors.New("a gateway of this node is running")
	// errMayNotLock means that this process may not make the lock's file.
	errMayNotLock = errors.New("no lock of the node")
)

// lockNode takes all that has the node's name for this process: two that mend the same objects, or
// one that removes what the other uses, would never come to rest. The lock goes with the process.
func lockNode(node string) (unlock func() error, err error) {
	// The file stays: to remove it would let a third process in between.
	path := filepath.Join(lockFolder, node+".lock")
	f, err := openLock(path)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		return nil, fmt.Errorf("%w: %w", errMayNotLock, err)
	}
	if err != nil {
		return nil, fmt.Errorf("lock of the node: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("%w: it has locked %s; stop it first, or give each its own node", ErrRunning, path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f.Close, nil
}

func openLock(path string) (*os.File, error) {
	if err := os.MkdirAll(lockFolder, 0o755); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
}
