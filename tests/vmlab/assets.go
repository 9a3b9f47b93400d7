package vmlab

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

var (
	//go:embed recipe.sh
	recipe []byte
	//go:embed initramfs.sh
	initramfs []byte
)

const (
	lockSuffix  = ".lock"
	buildSuffix = ".part"

	// keepUnused is how long the assets of a recipe stay after their last use: two
	// branches with different recipes do not undo each other's work.
	keepUnused = 24 * time.Hour
)

// assets is what machines boot from. While it is open nobody removes it.
type assets struct {
	dir  string
	lock *os.File
}

func (a *assets) root() string                { return filepath.Join(a.dir, "root") }
func (a *assets) kernel(series string) string { return filepath.Join(a.dir, series+".kernel") }
func (a *assets) initrd(series string) string { return filepath.Join(a.dir, series+".initrd") }

// qemu is the command of QEMU, by its own loader: the host may have another C library.
func (a *assets) qemu() []string {
	usr := filepath.Join(a.dir, "qemu", "usr")
	libraries := filepath.Join(usr, "lib", "x86_64-linux-gnu")
	return []string{
		filepath.Join(libraries, "ld-linux-x86-64.so.2"), "--library-path", libraries, filepath.Join(usr, "bin", "qemu-system-x86_64"),
		"-L", filepath.Join(usr, "share", "qemu"), "-L", filepath.Join(usr, "share", "seabios"),
	}
}

// Close lets others remove the assets.
func (a *assets) Close() error { return a.lock.Close() }

// recipeName tells the assets of one recipe from those of another.
func recipeName() string {
	h := sha256.New()
	h.Write(recipe)
	h.Write(initramfs)
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// prepare opens the assets, and makes them first if they are not there. Of two callers
// one makes them and the other waits.
func prepare(ctx context.Context, progress io.Writer) (*assets, error) {
	if err := able(); err != nil {
		return nil, err
	}
	user, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	cache := filepath.Join(user, "tandem", "vmlab")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	a := &assets{dir: filepath.Join(cache, recipeName())}
	if a.lock, err = os.OpenFile(a.dir+lockSuffix, os.O_CREATE|os.O_RDWR, 0o644); err != nil {
		return nil, err
	}
	if err := a.open(ctx, progress); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	now := time.Now()
	if err := errors.Join(os.Chtimes(a.lock.Name(), now, now), removeOthers(cache, now.Add(-keepUnused))); err != nil {
		fmt.Fprintf(progress, "tandem vm: old files stay in %s: %v\n", cache, err)
	}
	return a, nil
}

// able says what the host lacks for a machine.
func able() error {
	if runtime.GOARCH != "amd64" {
		return fmt.Errorf("the machines are amd64, and this host is %s", runtime.GOARCH)
	}
	if os.Geteuid() != 0 {
		return errors.New("this needs root, for the owners of the files in the machine: run it with sudo")
	}
	var missing []string
	for _, name := range []string{"mmdebstrap", "dpkg", "busybox", "depmod", "modprobe", "xz", "zstd"} {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%s not installed: run tests/deps.sh vm", strings.Join(missing, ", "))
	}
	return nil
}

// open takes the lock shared. Who finds no assets takes it exclusively and makes them.
func (a *assets) open(ctx context.Context, progress io.Writer) error {
	for {
		if err := a.flock(ctx, unix.LOCK_SH, progress); err != nil {
			return err
		}
		if _, err := os.Stat(a.dir); err == nil {
			return nil
		}
		if err := a.flock(ctx, unix.LOCK_EX, progress); err != nil {
			return err
		}
		if _, err := os.Stat(a.dir); err == nil {
			continue
		}
		if err := a.build(ctx, progress); err != nil {
			return err
		}
	}
}

// flock polls, since a blocked flock would not see ctx end.
func (a *assets) flock(ctx context.Context, how int, progress io.Writer) error {
	for said := false; ; said = true {
		err := unix.Flock(int(a.lock.Fd()), how|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		if !said {
			fmt.Fprintln(progress, "tandem vm: waiting for another process that makes the machine's files")
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// build makes the assets beside their place and moves them there when they are whole.
func (a *assets) build(ctx context.Context, progress io.Writer) error {
	temp := a.dir + buildSuffix
	if err := os.RemoveAll(temp); err != nil { // of a build that was killed
		return err
	}
	if err := os.Mkdir(temp, 0o755); err != nil {
		return err
	}
	init := filepath.Join(temp, "init")
	if err := os.WriteFile(init, initramfs, 0o755); err != nil {
		return err
	}
	var last tail
	cmd := exec.CommandContext(ctx, "bash", "-c", string(recipe), "recipe.sh", temp, init)
	cmd.Stdout = io.MultiWriter(progress, &last)
	cmd.Stderr = cmd.Stdout
	// The tools of the recipe clean up when they are asked to end.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		err = fmt.Errorf("making the machine's files (a Debian mirror must be reachable): %w; the last output was:\n%s", err, last.lines(outputLines))
		return errors.Join(err, os.RemoveAll(temp))
	}
	return os.Rename(temp, a.dir)
}

// removeOthers removes the assets, of other recipes, that nobody has used since then.
func removeOthers(cache string, since time.Time) error {
	locks, err := filepath.Glob(filepath.Join(cache, "*"+lockSuffix))
	if err != nil {
		return err
	}
	for _, path := range locks {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if info.ModTime().Before(since) {
			if err := removeUnused(strings.TrimSuffix(path, lockSuffix), path); err != nil {
				return err
			}
		}
	}
	return nil
}

func removeUnused(dir, lock string) (err error) {
	f, err := os.OpenFile(lock, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil
		}
		return err
	}
	// The lock's file stays: a process that waits for it would hold one that nobody sees.
	return errors.Join(os.RemoveAll(dir+buildSuffix), os.RemoveAll(dir))
}
