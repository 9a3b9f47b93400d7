package cdr

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
)

// fileMode keeps callers' numbers from everybody but the owner and the group.
const fileMode = 0o640

// ErrInUse means that another process writes the file.
var ErrInUse = errors.New("another process writes this file: stop it, or name another file")

// file is what a journal needs of *os.File; tests let it fail.
type file interface {
	WriteAt(p []byte, off int64) (int, error)
	Truncate(size int64) error
	Sync() error
	Stat() (fs.FileInfo, error)
	Close() error
}

// journal is an append-only file of full lines with its rotated predecessors. It is used
// by one goroutine.
type journal struct {
	path string
	max  int64
	keep int
	log  *slog.Logger

	file file
	// size is the end of what is durably written.
	size int64
	// stuck is true after a rotation failed, until one succeeds: it is logged once.
	stuck bool
}

func openJournal(path string, maxSize int64, keep int, log *slog.Logger) (*journal, error) {
	j := &journal{path: path, max: maxSize, keep: keep, log: log}
	if err := j.open(); err != nil {
		return nil, err
	}
	return j, nil
}

// open opens the file, locks it and mends its end.
func (j *journal) open() (err error) {
	f, err := os.OpenFile(j.path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, fileMode)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the folder of %s does not exist: make it with: mkdir -p %s: %w", j.path, filepath.Dir(j.path), err)
	}
	if errors.Is(err, syscall.ELOOP) {
		return fmt.Errorf("%s is a symbolic link: name the file itself, for rotation renames it", j.path)
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file: name one that can be truncated and rotated", j.path)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrInUse
		}
		return fmt.Errorf("lock %s: %w", j.path, err)
	}
	size, err := mend(f, j.path, info.Size(), j.log)
	if err != nil {
		return fmt.Errorf("mend the end of %s: %w", j.path, err)
	}
	// A new file is there after a power cut only if its folder knows of it.
	if err := syncDir(j.path); err != nil {
		return err
	}
	j.file, j.size = f, size
	return nil
}

// append puts whole lines on disk. After an error nothing of them counts as written:
// the same lines are to be appended again.
func (j *journal) append(lines []byte) error {
	if err := j.prepare(int64(len(lines))); err != nil {
		return err
	}
	_, err := j.file.WriteAt(lines, j.size)
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		// After a failed fsync the kernel forgets that the pages were dirty, so that
		// another fsync would succeed with nothing written: the lines are taken back and
		// written anew. If even that fails they are overwritten at the same place.
		return errors.Join(err, j.file.Truncate(j.size))
	}
	j.size += int64(len(lines))
	return nil
}

// prepare makes sure that more bytes go to the right file.
func (j *journal) prepare(more int64) error {
	if j.file != nil && j.isGone() {
		// Records belong under the file's name, and behind each other.
		j.log.Warn("the file of call records was moved or cut by somebody else; opening it anew", "file", j.path)
		_ = j.file.Close()
		j.file = nil
	}
	if j.file == nil {
		if err := j.open(); err != nil {
			return err
		}
	}
	if j.size == 0 || j.size+more <= j.max {
		return nil
	}
	switch err := j.rotate(); {
	case err == nil:
		j.stuck = false
	case j.file == nil:
		return err
	case !j.stuck:
		// A file that is too long is better than a record that is not kept.
		j.stuck = true
		j.log.Error("call records cannot be rotated; the file grows on", "file", j.path, "err", err)
	}
	return nil
}

// isGone reports whether somebody moved, removed or cut the file.
func (j *journal) isGone() bool {
	ours, err := j.file.Stat()
	if err != nil {
		return false
	}
	if ours.Size() < j.size {
		return true
	}
	named, err := os.Lstat(j.path)
	return errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(ours, named)
}

// rotate renames FILE.1 to FILE.2 and so on, then FILE to FILE.1, and begins a new FILE.
// The oldest is overwritten, unless a number is free: a rotation that failed half-way and
// is tried again costs no further file.
func (j *journal) rotate() error {
	free := 1
	for free < j.keep && exists(j.numbered(free)) {
		free++
	}
	for n := free - 1; n >= 1; n-- {
		if err := os.Rename(j.numbered(n), j.numbered(n+1)); err != nil {
			return err
		}
	}
	if err := os.Rename(j.path, j.numbered(1)); err != nil {
		return err
	}
	err := j.file.Close()
	j.file = nil
	return errors.Join(err, j.open())
}

func (j *journal) numbered(n int) string { return fmt.Sprintf("%s.%d", j.path, n) }

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func (j *journal) close() error {
	if j.file == nil {
		return nil
	}
	err := j.file.Close()
	j.file = nil
	return err
}

// syncDir makes a change of names in the folder of path durable.
func syncDir(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
