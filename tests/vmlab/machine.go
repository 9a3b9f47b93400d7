package vmlab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"
)

const (
	consoleLines = 60 // a kernel's oops with its stack
	outputLines  = 5
)

// errNotBooted: the machine ended before it came to the command.
var errNotBooted = errors.New("the machine did not boot")

// machine is one run of QEMU.
type machine struct {
	options Options
	assets  *assets
	dir     string // the sockets are here
	control string // what guest.sh reads
	shares  []share
}

// channels out of the machine, each a virtio port there and a socket here.
var channels = []string{"status", "out", "err"}

func (m *machine) socket(channel string) string { return filepath.Join(m.dir, channel) }

// command line of QEMU. The machine has no network but what the command makes in it.
func (m *machine) command(accelerator string) []string {
	args := append(m.assets.qemu(),
		"-accel", accelerator, "-cpu", "max", "-smp", "2", "-m", m.options.Memory,
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", m.assets.kernel(m.options.Kernel), "-initrd", m.assets.initrd(m.options.Kernel),
		// An oops ends the machine, so that no test goes on with a broken kernel.
		"-append", "console=ttyS0 quiet loglevel=4 oops=panic panic=-1 mitigations=off tsc=reliable no_timer_check",
		"-serial", "stdio",
		"-device", "virtio-rng-pci",
		"-device", "virtio-serial-pci",
	)
	for _, name := range channels {
		args = append(args,
			"-chardev", fmt.Sprintf("socket,id=%s,path=%s", name, value(m.socket(name))),
			"-device", fmt.Sprintf("virtserialport,chardev=%s,name=%s", name, name))
	}
	plan9 := func(tag, path, access string) {
		args = append(args, "-virtfs",
			fmt.Sprintf("local,path=%s,mount_tag=%s,security_model=passthrough,multidevs=remap%s", value(path), tag, access))
	}
	plan9("root", m.assets.root(), ",readonly=on")
	plan9("control", m.control, ",readonly=on")
	for _, s := range m.shares {
		plan9(s.tag, s.path, "")
	}
	return args
}

// value in a list of QEMU's options.
func value(s string) string { return strings.ReplaceAll(s, ",", ",,") }

// run runs the command in the machine with one of QEMU's accelerators.
func (m *machine) run(ctx context.Context, accelerator string) (exitCode int, err error) {
	running, kill := context.WithCancel(ctx)
	defer kill()
	var console, last tail
	outcome := &outcome{complete: kill}
	listeners, err := m.listen()
	if err != nil {
		return 0, err
	}
	var carriers errgroup.Group
	for i, sink := range []io.Writer{
		writerFunc(outcome.status),
		counted{io.MultiWriter(m.options.Stdout, &last), outcome, 0},
		counted{io.MultiWriter(m.options.Stderr, &last), outcome, 1},
	} {
		carriers.Go(func() error {
			defer kill() // without one of its channels the machine is of no use
			return carry(listeners[i], sink)
		})
	}

	args := m.command(accelerator)
	cmd := exec.CommandContext(running, args[0], args[1:]...)
	cmd.Stdout = io.MultiWriter(m.options.Console, &console)
	cmd.Stderr = cmd.Stdout
	// Ctrl-C is ours, and the machine does not outlive us.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // the death signal is sent when the thread that started QEMU ends
	err = runFirst(cmd)
	runtime.UnlockOSThread()
	closeAll(listeners)
	if lost := carriers.Wait(); lost != nil {
		return 0, fmt.Errorf("bringing the machine's output out: %w", lost)
	}
	switch {
	case outcome.exited:
		return int(outcome.code), nil
	case ctx.Err() != nil && outcome.running:
		return 0, fmt.Errorf("%w; the last output was:\n%s", context.Cause(ctx), last.lines(outputLines))
	case ctx.Err() != nil:
		return 0, fmt.Errorf("%w; the machine was booting, its console:\n%s", context.Cause(ctx), console.lines(consoleLines))
	}
	err = fmt.Errorf("QEMU: %w; the console:\n%s", cmp.Or(err, errors.New("exit status 0")), console.lines(consoleLines))
	if outcome.running {
		return 0, fmt.Errorf("the machine ended before the command: %w", err)
	}
	return 0, fmt.Errorf("%w: %w", errNotBooted, err)
}

// runFirst runs a command ahead of the host's other programs: what waits in a machine's processor
// that is kept waiting itself looks like a slow kernel.
func runFirst(cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	// Without the privilege it runs like any other.
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, cmd.Process.Pid, -10)
	return cmd.Wait()
}

// listen opens the sockets of the channels, in their order.
func (m *machine) listen() ([]net.Listener, error) {
	var listeners []net.Listener
	for _, name := range channels {
		l, err := net.Listen("unix", m.socket(name))
		if err != nil {
			closeAll(listeners)
			return nil, err
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		l.Close()
	}
}

// carry brings what comes out of one channel to its sink, until QEMU ends.
func carry(l net.Listener, sink io.Writer) error {
	conn, err := l.Accept()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = io.Copy(sink, conn)
	return err
}
