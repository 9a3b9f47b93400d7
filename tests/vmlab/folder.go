package vmlab

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const folderPattern = "tandem-vm-*"

// newFolder makes a folder for one run. Its lock tells it from what killed runs have left
// behind, which goes.
func newFolder() (path string, remove func() error, err error) {
	stale, err := filepath.Glob(filepath.Join(os.TempDir(), folderPattern))
	if err != nil {
		return "", nil, err
	}
	for _, dir := range stale {
		lock, err := lockFolder(dir)
		if err != nil {
			continue // in use, or another run removes it
		}
		if err := errors.Join(os.RemoveAll(dir), lock.Close()); err != nil {
			return "", nil, err
		}
	}
	for {
		dir, err := os.MkdirTemp("", folderPattern)
		if err != nil {
			return "", nil, err
		}
		// Until it is locked it looks like one that was left behind.
		lock, err := lockFolder(dir)
		if err == nil {
			return dir, func() error { return errors.Join(os.RemoveAll(dir), lock.Close()) }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, os.ErrNotExist) {
			return "", nil, errors.Join(err, os.RemoveAll(dir))
		}
	}
}

// lockFolder fails if the folder is another run's or is gone.
func lockFolder(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if _, err := os.Stat(dir); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
