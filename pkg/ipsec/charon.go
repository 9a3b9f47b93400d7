package ipsec

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxFolder keeps the path of the socket below 108 bytes (unix(7)).
	maxFolder = 32
	maxSocket = 107
	// maxLog is what a charon's log may have, in bytes; then it begins anew, and the last one is kept.
	maxLog = 1 << 20
	// startTimeout is how long charon may take until it answers, stopTimeout until it has told
	// its peers and ended.
	startTimeout = 10 * time.Second
	stopTimeout  = 5 * time.Second
)

// charon is the IKE daemon of one realm: a process that outlives ours, known by its VICI
// socket.
type charon struct {
	binary    string
	folder    string
	namespace string
	// instance is the name of its unit's instance, if systemd is to run it.
	instance string
	// process is the last one that was seen, kept the one that is in the file.
	process, kept process
}

// process is a process that no other takes for another, whatever becomes of its number.
type process struct {
	pid int
	// started is when, in clock ticks since the boot (field 22 of proc_pid_stat(5)).
	started uint64
}

// newCharon places the charon of a realm below run.
func newCharon(run, node, realm, namespace, binary string) (*charon, error) {
	c := &charon{binary: binary, folder: filepath.Join(run, short(node), short(realm)), namespace: namespace}
	if n := len(c.socket()); n > maxSocket {
		return nil, fmt.Errorf("socket %s has %d characters, and Linux allows %d: give a shorter ipsec.run",
			c.socket(), n, maxSocket)
	}
	if run == DefaultRun {
		c.instance = escape(short(node) + "/" + short(realm))
	}
	return c, nil
}

// short is a name as part of a path: itself, or if it is long its beginning and a hash.
func short(name string) string {
	if len(name) <= maxFolder {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return name[:maxFolder-9] + "-" + hex.EncodeToString(sum[:4])
}

func (c *charon) socket() string { return filepath.Join(c.folder, socketFile) }

func (c *charon) file(name string) string { return filepath.Join(c.folder, name) }

// errNoNamespace and errNoCharon are reasons why no charon can be started.
var (
	errNoNamespace = errors.New("network namespace is missing")
	errNoCharon    = errors.New("strongSwan's IKE daemon is not installed")
)

// running is true if the process that was seen last is still there. A child of ours that
// has ended is reaped.
func (c *charon) running() bool {
	if c.process == (process{}) {
		c.process = c.remembered()
	}
	if c.process == (process{}) {
		return false
	}
	var status unix.WaitStatus
	if pid, err := unix.Wait4(c.process.pid, &status, unix.WNOHANG, nil); err == nil && pid == c.process.pid {
		c.process = process{}
		return false
	}
	if now, err := lookUp(c.process.pid); err != nil || now != c.process {
		c.process = process{}
		return false
	}
	return true
}

// found takes note of the process behind the socket.
func (c *charon) found(pid int) error {
	p, err := lookUp(pid)
	if err != nil {
		return err
	}
	c.process = p
	return nil
}

// keep writes the process's number and start to a file, for a charon whose socket does not answer
// or was removed.
func (c *charon) keep() error {
	if c.process == c.kept {
		return nil
	}
	if err := writeFile(c.file(processFile), []byte(c.process.String()+"\n")); err != nil {
		return err
	}
	c.kept = c.process
	return nil
}

func (c *charon) remembered() process {
	b, err := os.ReadFile(c.file(processFile))
	if err != nil || len(b) > 64 {
		return process{}
	}
	p, err := parseProcess(string(b))
	if err != nil {
		return process{}
	}
	// The number is another's after a boot; only a charon is ever sent a signal.
	if now, err := lookUp(p.pid); err != nil || now != p || !isCharon(p.pid) {
		return process{}
	}
	return p
}

func (p process) String() string { return fmt.Sprintf("%d %d", p.pid, p.started) }

func parseProcess(s string) (process, error) {
	number, ticks, _ := strings.Cut(strings.TrimSpace(s), " ")
	pid, err := strconv.ParseInt(number, 10, 32)
	if err != nil || pid < 2 {
		return process{}, fmt.Errorf("%q is no process", clip(s))
	}
	started, err := strconv.ParseUint(ticks, 10, 64)
	if err != nil {
		return process{}, fmt.Errorf("%q is no start of a process", clip(s))
	}
	return process{int(pid), started}, nil
}

// lookUp reads when a process was started. One that is dead and not reaped counts as gone.
func lookUp(pid int) (process, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, err
	}
	// The name in parentheses may hold anything; what follows the last one is fixed.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return process{}, fmt.Errorf("process %d has ended", pid)
	}
	started, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return process{}, fmt.Errorf("start of process %d: %w", pid, err)
	}
	return process{pid, started}, nil
}

// isCharon keeps signals from whoever else could have been given the number.
func isCharon(pid int) bool {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return err == nil && strings.HasPrefix(string(name), "charon")
}

// inPlace is true if the process is in the namespace that has the path now: one that was
// deleted and made again is another.
func (c *charon) inPlace() (bool, error) {
	var want, have unix.Stat_t
	if err := unix.Stat(c.namespace, &want); err != nil {
		return false, fmt.Errorf("%w: %s", errNoNamespace, c.namespace)
	}
	if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/net", c.process.pid), &have); err != nil {
		return false, fmt.Errorf("namespace of charon: %w", err)
	}
	return want.Dev == have.Dev && want.Ino == have.Ino, nil
}

// start starts a charon and returns when its socket takes connections.
func (c *charon) start(ctx context.Context, ike IKEConfig) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if _, err := os.Stat(c.namespace); err != nil {
		return fmt.Errorf("%w: %s", errNoNamespace, c.namespace)
	}
	if _, err := os.Stat(c.binary); err != nil {
		return fmt.Errorf("%w: no %s", errNoCharon, c.binary)
	}
	if err := c.prepare(ike); err != nil {
		return err
	}
	start := c.startProcess
	if c.instance != "" && unitInstalled() {
		start = c.startUnit
	}
	if err := start(ctx); err != nil {
		return err
	}
	for {
		if conn, err := (&net.Dialer{}).DialContext(ctx, "unix", c.socket()); err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("charon has no socket after %s, see %s", startTimeout, c.file(logFile))
		case <-time.After(50 * time.Millisecond):
		}
		if c.process != (process{}) && !c.running() {
			return fmt.Errorf("charon ended at its start, see %s and %s", c.file(outputFile), c.file(logFile))
		}
	}
}

// prepare writes the files that charon and its unit read.
func (c *charon) prepare(ike IKEConfig) error {
	if err := os.MkdirAll(c.folder, 0o700); err != nil {
		return err
	}
	// MkdirAll leaves a folder as it is that was there before.
	if err := os.Chmod(c.folder, 0o700); err != nil {
		return err
	}
	if err := os.Remove(c.socket()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if info, err := os.Stat(c.file(logFile)); err == nil && info.Size() > maxLog {
		if err := os.Rename(c.file(logFile), c.file(oldLogFile)); err != nil {
			return err
		}
	}
	if err := writeFile(c.file(settingsFile), []byte(settings(c.folder, ike))); err != nil {
		return err
	}
	if err := writeFile(c.file(environmentFile), []byte("STRONGSWAN_CONF="+c.file(settingsFile)+"\n")); err != nil {
		return err
	}
	if target, err := os.Readlink(c.file(namespaceLink)); err == nil && target == c.namespace {
		return nil
	}
	if err := os.Remove(c.file(namespaceLink)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Symlink(c.namespace, c.file(namespaceLink))
}

// writeFile replaces a file at once: a reader sees the old one or the new one.
func writeFile(path string, b []byte) error {
	next := path + ".new"
	if err := os.WriteFile(next, b, 0o600); err != nil {
		return err
	}
	return os.Rename(next, path)
}

// startProcess starts charon as a process of its own session: it gets no signal of ours,
// and goes on when we end.
func (c *charon) startProcess(context.Context) error {
	output, err := os.OpenFile(c.file(outputFile), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer output.Close()
	cmd := exec.Command(c.binary)
	// Our own environment may have secrets in it.
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "STRONGSWAN_CONF=" + c.file(settingsFile)}
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	// A child has the namespace of the thread that forks it.
	if err := inNamespace(c.namespace, cmd.Start); err != nil {
		return fmt.Errorf("start charon: %w", err)
	}
	pid := cmd.Process.Pid
	// running reaps it, without a goroutine that waits for as long as it lives.
	if err := cmd.Process.Release(); err != nil {
		return err
	}
	if err := c.found(pid); err != nil {
		return err
	}
	return c.keep()
}

// end ends the process: gently it tells its peers first. A process that does not end
// in time is killed.
func (c *charon) end(gently bool) error {
	if !c.running() {
		return nil
	}
	fd, err := unix.PidfdOpen(c.process.pid, 0)
	if err != nil {
		return fmt.Errorf("charon %d: %w", c.process.pid, err)
	}
	defer unix.Close(fd)
	if !c.running() {
		return nil
	}
	if gently {
		if err := unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0); err != nil {
			return fmt.Errorf("end charon %d: %w", c.process.pid, err)
		}
		if c.ended(stopTimeout) {
			return nil
		}
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill charon %d: %w", c.process.pid, err)
	}
	if !c.ended(stopTimeout) {
		return fmt.Errorf("charon %d does not end", c.process.pid)
	}
	return nil
}

func (c *charon) ended(within time.Duration) bool {
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if !c.running() {
			return true
		}
	}
	return !c.running()
}

// Sweep ends the charons of a node's realms that are not in keep, and removes their
// folders. They are asked to end first, so that their peers are told. A nil keep ends all.
func Sweep(run, node string, keep []string) (ended int, err error) {
	if run == "" {
		run = DefaultRun
	}
	kept := make(map[string]bool, len(keep))
	for _, realm := range keep {
		kept[short(realm)] = true
	}
	entries, err := os.ReadDir(filepath.Join(run, short(node)))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("charons of node %s: %w", node, err)
	}
	var errs []error
	for _, e := range entries {
		if !e.IsDir() || kept[e.Name()] {
			continue
		}
		c := &charon{folder: filepath.Join(run, short(node), e.Name())}
		if run == DefaultRun {
			c.instance = escape(short(node) + "/" + e.Name())
		}
		if err := c.sweep(); err != nil {
			errs = append(errs, fmt.Errorf("charon of realm %s: %w", e.Name(), err))
			continue
		}
		ended++
	}
	return ended, errors.Join(errs...)
}

// sweep ends a charon and removes its folder.
func (c *charon) sweep() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*stopTimeout)
	defer cancel()
	if !c.running() {
		if cl, err := dial(ctx, c.socket(), listings); err == nil {
			err = errors.Join(c.found(cl.pid), cl.close())
			if err != nil {
				return err
			}
		}
	}
	if c.instance != "" && unitInstalled() {
		if err := c.stopUnit(ctx); err != nil {
			return err
		}
	}
	if err := c.end(true); err != nil {
		return err
	}
	return os.RemoveAll(c.folder)
}
