package netlab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Lab is a topology made real. Its methods are safe for use by several goroutines.
type Lab struct {
	id       string
	dir      string
	lock     *os.File
	topology Topology
	hosts    map[string]netns.NsHandle
	stamps   int
	launcher *launcher
	procs    processes
	// What follows the network in the background ends with followers and is waited for.
	followers context.Context
	unfollow  context.CancelFunc
	following sync.WaitGroup

	closeOnce sync.Once
	closeErr  error
}

// Up makes the topology. On an error, and when ctx ends on the way, nothing of it is
// left.
func Up(ctx context.Context, t Topology) (_ *Lab, err error) {
	if err := t.validate(); err != nil {
		return nil, fmt.Errorf("topology: %w", err)
	}
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("a lab of network namespaces needs root: %w", os.ErrPermission)
	}
	id, lock, err := claim(stateDir)
	if err != nil {
		return nil, err
	}
	lab := &Lab{
		id:       id,
		dir:      filepath.Join(stateDir, id),
		lock:     lock,
		topology: t,
		hosts:    make(map[string]netns.NsHandle, len(t.Hosts)),
		stamps:   -1,
		launcher: newLauncher(),
		procs:    processes{set: make(map[*Process]struct{})},
	}
	lab.followers, lab.unfollow = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			err = errors.Join(err, lab.Close())
		}
	}()
	if lab.stamps, err = keepStamps(); err != nil {
		return nil, err
	}
	if err := os.Mkdir(lab.dir, 0o755); err != nil {
		return nil, fmt.Errorf("lab directory: %w", err)
	}
	for _, h := range t.Hosts {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		ns, err := createNetns(lab.Namespace(h.Name))
		if err != nil {
			return nil, err
		}
		lab.hosts[h.Name] = ns
		if err := lab.setUpHost(h); err != nil {
			return nil, fmt.Errorf("host %s: %w", h.Name, err)
		}
	}
	for _, l := range t.Links {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := lab.plug(l); err != nil {
			return nil, fmt.Errorf("link %s/%s to %s/%s: %w", l.A.Host, l.A.Device, l.B.Host, l.B.Device, err)
		}
	}
	for _, h := range t.Hosts {
		if err := lab.setUpRoute(h); err != nil {
			return nil, fmt.Errorf("host %s: %w", h.Name, err)
		}
	}
	return lab, nil
}

// keepStamps makes the kernel stamp packets until the result is closed. Else each ping and the
// like switches that on and off, which patches the kernel's code, and QEMU's emulation of
// several processors crashes on that now and then ("Oops: int3").
func keepStamps() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMP, 1)
	}
	if err != nil {
		return fd, fmt.Errorf("time stamps of packets: %w", err)
	}
	return fd, nil
}

// Close ends every process of the lab and removes its namespaces with all that is in
// them, what its gateway has pinned, the namespaces that it has made and the processes that
// it has left in them, and the lab's directory. It may be called more than once,
// and after a failed part it goes on with the rest.
func (l *Lab) Close() error {
	l.closeOnce.Do(func() {
		l.unfollow()
		l.following.Wait()
		errs := []error{l.killAll(), removeNode(l.dir, l.id)}
		if l.stamps >= 0 {
			errs = append(errs, unix.Close(l.stamps))
		}
		l.launcher.close()
		for _, h := range l.topology.Hosts {
			ns, ok := l.hosts[h.Name]
			if !ok {
				continue
			}
			errs = append(errs, removeDevices(ns), ns.Close(), deleteNetns(l.Namespace(h.Name)))
		}
		errs = append(errs, unpin(l.id), os.RemoveAll(l.dir), release(stateDir, l.id, l.lock))
		if err := errors.Join(errs...); err != nil {
			l.closeErr = fmt.Errorf("closing lab %s: %w", l.id, err)
		}
	})
	return l.closeErr
}

// follow runs fn until the lab is closed.
func (l *Lab) follow(fn func(ctx context.Context)) {
	l.following.Go(func() { fn(l.followers) })
}

// ID is the lab's name, "tdm<pid>x<n>", the prefix of all it makes and the node name of its
// gateway.
func (l *Lab) ID() string { return l.id }

// Dir is a directory for files and sockets of the lab; it goes with the lab. Its path
// is short enough for a Unix socket.
func (l *Lab) Dir() string { return l.dir }

// Namespace is the name under which "ip netns exec" finds a host.
func (l *Lab) Namespace(host string) string { return l.id + "-" + host }

// Do runs fn within a host's network namespace. Goroutines that fn starts are not in
// it; sockets that fn opens stay in it.
func (l *Lab) Do(host string, fn func() error) error {
	ns, ok := l.hosts[host]
	if !ok {
		return fmt.Errorf("no host %q in the lab", host)
	}
	return inNetns(ns, fn)
}
