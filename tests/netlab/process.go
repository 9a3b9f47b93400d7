package netlab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a program that runs in one host of a lab. It is killed when the lab is
// closed, when its context ends, and when the lab's own process dies.
type Process struct {
	// Stdin, Stdout, Stderr, Dir and Env are those of [exec.Cmd], to be set before Start.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Dir            string
	Env            []string

	lab  *Lab
	host string
	cmd  *exec.Cmd

	done chan struct{} // closed when the process has been waited for
	err  error         // valid after done
}

// Command prepares name to run in host; it starts with [Process.Start] or [Process.Run].
func (l *Lab) Command(ctx context.Context, host, name string, args ...string) *Process {
	cmd := exec.CommandContext(ctx, name, args...)
	// A child of the child that holds the output open must not hold us.
	cmd.WaitDelay = 2 * time.Second
	return &Process{lab: l, host: host, cmd: cmd, done: make(chan struct{})}
}

// Start begins the process in its host.
func (p *Process) Start() error {
	ns, ok := p.lab.hosts[p.host]
	if !ok {
		return fmt.Errorf("no host %q in the lab", p.host)
	}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = p.Stdin, p.Stdout, p.Stderr
	p.cmd.Dir, p.cmd.Env = p.Dir, p.Env
	p.cmd.Cancel = func() error { return p.killGroup() }
	if err := p.lab.adopt(p, func() error { return p.lab.launcher.start(ns, p.cmd) }); err != nil {
		return fmt.Errorf("starting %s in %s: %w", p.cmd.Path, p.host, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		p.lab.disown(p)
		close(p.done)
	}()
	return nil
}

// Run starts the process and waits for its end.
func (p *Process) Run() error {
	if err := p.Start(); err != nil {
		return err
	}
	return p.Wait()
}

// Wait returns when the process has ended, with [exec.Cmd.Wait]'s error. Several
// goroutines may wait.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// PID of the process, valid after Start.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// ExitCode is the process's exit status, or -1 while it runs or when a signal ended it.
func (p *Process) ExitCode() int {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	default:
		return -1
	}
}

// Signal sends sig; a process that has ended is no error.
func (p *Process) Signal(sig os.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signalling %s: %w", p.cmd.Path, err)
	}
	return nil
}

// Stop sends sig and waits for the end; after the grace it kills. It reports an error
// when it had to.
func (p *Process) Stop(sig os.Signal, grace time.Duration) error {
	if err := p.Signal(sig); err != nil {
		return err
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
	}
	err := p.killGroup()
	<-p.done
	return errors.Join(fmt.Errorf("%s did not end within %v of %v and was killed", p.cmd.Path, grace, sig), err)
}

// killGroup ends the process and what it started, at once.
func (p *Process) killGroup() error {
	if err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// CPUTime is the processor time a process has used since it began, ended threads
// included, in the kernel's nanosecond accounting (the scheduler's run time).
func CPUTime(pid int) (time.Duration, error) {
	// The clock of a process: clock_getcpuclockid(3), MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED).
	const cpuclockSched = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid)<<3|cpuclockSched, &ts); err != nil {
		return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// processes are those that run, so that Close finds them.
type processes struct {
	mu     sync.Mutex
	closed bool
	set    map[*Process]struct{}
}

// adopt starts p unless the lab is closing.
func (l *Lab) adopt(p *Process, start func() error) error {
	l.procs.mu.Lock()
	defer l.procs.mu.Unlock()
	if l.procs.closed {
		return errLabClosed
	}
	if err := start(); err != nil {
		return err
	}
	l.procs.set[p] = struct{}{}
	return nil
}

func (l *Lab) disown(p *Process) {
	l.procs.mu.Lock()
	defer l.procs.mu.Unlock()
	delete(l.procs.set, p)
}

// killAll ends every process of the lab and waits for each.
func (l *Lab) killAll() error {
	l.procs.mu.Lock()
	l.procs.closed = true
	running := make([]*Process, 0, len(l.procs.set))
	for p := range l.procs.set {
		running = append(running, p)
	}
	l.procs.mu.Unlock()
	var errs []error
	for _, p := range running {
		errs = append(errs, p.killGroup())
	}
	for _, p := range running {
		<-p.done
	}
	return errors.Join(errs...)
}
