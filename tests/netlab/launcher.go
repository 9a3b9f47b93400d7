package netlab

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"syscall"

	"github.com/vishvananda/netns"
)

// launcher starts all processes of a lab on one thread that lives as long as the lab
// does: Pdeathsig fires when the thread that forked ends, not the process, and Go
// ends threads as it likes.
type launcher struct {
	work chan launch
	done chan struct{}
}

type launch struct {
	ns     netns.NsHandle
	cmd    *exec.Cmd
	result chan error
}

var errLabClosed = errors.New("the lab is closed")

func newLauncher() *launcher {
	l := &launcher{work: make(chan launch), done: make(chan struct{})}
	go l.run()
	return l
}

func (l *launcher) run() {
	defer close(l.done)
	runtime.LockOSThread() // never unlocked: the thread ends here, after all children
	home, err := netns.Get()
	if err == nil {
		defer home.Close()
	}
	for job := range l.work {
		if err != nil {
			job.result <- fmt.Errorf("own namespace: %w", err)
			continue
		}
		job.result <- startIn(job.ns, home, job.cmd)
	}
}

func startIn(ns, home netns.NsHandle, cmd *exec.Cmd) error {
	if err := netns.Set(ns); err != nil {
		return fmt.Errorf("entering the namespace: %w", err)
	}
	err := cmd.Start()
	if back := netns.Set(home); back != nil {
		return errors.Join(err, fmt.Errorf("leaving the namespace: %w", back))
	}
	return err
}

// start runs cmd in ns, in a process group of its own (a Ctrl-C at the terminal is for
// the lab, not for its children), and dying with the lab whatever ends that.
func (l *launcher) start(ns netns.NsHandle, cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	job := launch{ns: ns, cmd: cmd, result: make(chan error, 1)}
	l.work <- job
	return <-job.result
}

// close ends the thread. Its children must be gone.
func (l *launcher) close() {
	close(l.work)
	<-l.done
}
