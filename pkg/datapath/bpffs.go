package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// defaultBPFFS is where the kernel's bpffs belongs.
const defaultBPFFS = "/sys/fs/bpf"

// ErrNoBPFFS: nothing can be pinned here, and nothing seen that is pinned elsewhere.
var ErrNoBPFFS = errors.New("no bpffs")

// needBPFFS makes sure that dir can be made on a bpffs, and mounts one at its usual place
// if it is missing there.
func needBPFFS(dir string) error {
	if !filepath.IsAbs(dir) {
		return fmt.Errorf("pins %q is not an absolute path", dir)
	}
	at := filepath.Clean(dir)
	var stat unix.Statfs_t
	for err := unix.Statfs(at, &stat); err != nil; err = unix.Statfs(at, &stat) {
		if !errors.Is(err, unix.ENOENT) || at == "/" {
			return fmt.Errorf("pins: %s: %w", at, err)
		}
		at = filepath.Dir(at)
	}
	if stat.Type == unix.BPF_FS_MAGIC {
		return nil
	}
	if at != defaultBPFFS {
		return fmt.Errorf("%w at %s", ErrNoBPFFS, at)
	}
	// A mount in a namespace of our own would end with us, and the pins with it.
	if private, err := privateMounts(); err != nil {
		return err
	} else if private {
		return fmt.Errorf("%w at %s in this mount namespace, as under \"ip netns exec\"", ErrNoBPFFS, at)
	}
	if err := unix.Mount("bpf", at, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RELATIME, "mode=0700"); err != nil {
		return fmt.Errorf("%w: mount it at %s: %w", ErrNoBPFFS, at, err)
	}
	return nil
}

// privateMounts reports whether init, or else the parent process, has other mounts than we.
func privateMounts() (bool, error) {
	own, err := os.Readlink("/proc/thread-self/ns/mnt")
	if err != nil {
		return false, fmt.Errorf("mount namespace: %w", err)
	}
	for _, pid := range []int{1, os.Getppid()} {
		theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid))
		if err != nil {
			continue // not ours to look at, as in some containers
		}
		if theirs != own {
			return true, nil
		}
	}
	return false, nil
}

// lockDir makes the directory and takes it for this process. The lock is the kernel's, on
// the inode: it ends with the process, however that ends.
func lockDir(dir string) (*os.File, error) {
	for {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("pins: %w", err)
		}
		f, err := os.Open(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("pins: %w", err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			_ = f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				err = fmt.Errorf("%w: another gateway runs with them: stop the daemon first, or give this one other pins", ErrBusy)
			}
			return nil, fmt.Errorf("pins %s: %w", dir, err)
		}
		// Unload may have removed the directory that we have just locked.
		here, err := os.Stat(dir)
		locked, err2 := f.Stat()
		if err == nil && err2 == nil && os.SameFile(here, locked) {
			return f, nil
		}
		_ = f.Close()
		if err := errors.Join(err, err2); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("pins: %w", err)
		}
	}
}
