package realm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// threadNamespace is the network namespace of the calling thread.
const threadNamespace = "/proc/thread-self/ns/net"

// space is a network namespace, and what was last read of it.
type space struct {
	// file keeps the namespace alive, whatever becomes of its name.
	file *os.File
	info os.FileInfo
	// handle is for the library's requests, socket for those that it cannot make.
	handle *netlink.Handle
	socket *nl.SocketHandle
	snapshot
}

// hereSpace opens the namespace of the calling thread.
func hereSpace() (*space, error) { return openSpace(threadNamespace) }

// openSpace opens a namespace by its file.
func openSpace(path string) (_ *space, err error) {
	s := &space{}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.file, err = os.Open(path); err != nil {
		return nil, err
	}
	if s.info, err = s.file.Stat(); err != nil {
		return nil, err
	}
	return s, s.do(s.connect)
}

// connect opens the sockets; it runs in the namespace, to which they belong from then on.
func (s *space) connect() (err error) {
	if s.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	socket, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	s.socket = &nl.SocketHandle{Socket: socket}
	return errors.Join(
		socket.SetSendTimeout(&nl.SocketTimeoutTv), socket.SetReceiveTimeout(&nl.SocketTimeoutTv),
		// The kernel then lists routes of one table, or of one protocol, without the others.
		unix.SetsockoptInt(socket.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1),
	)
}

func (s *space) close() {
	if s.socket != nil {
		s.socket.Close()
	}
	if s.handle != nil {
		s.handle.Close()
	}
	if s.file != nil {
		s.file.Close()
	}
}

// request is one to this namespace.
func (s *space) request(message, flags int) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(message, flags)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: s.socket}
	return req
}

// dump asks for a list until none of its parts has changed meanwhile.
func (s *space) dump(message int, answer uint16, data ...nl.NetlinkRequestData) ([][]byte, error) {
	var err error
	for range maxDumps {
		req := s.request(message, unix.NLM_F_DUMP)
		for _, d := range data {
			req.AddData(d)
		}
		var messages [][]byte
		if messages, err = req.Execute(unix.NETLINK_ROUTE, answer); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return messages, err
		}
	}
	return nil, err
}

// do runs f in the namespace, on a thread that nobody else uses meanwhile. A caller that is
// there already needs no privilege for it.
func (s *space) do(f func() error) (err error) {
	runtime.LockOSThread()
	here, err := os.Open(threadNamespace)
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer here.Close()
	info, err := here.Stat()
	switch {
	case err != nil:
	case os.SameFile(info, s.info):
		err = f()
	default:
		if err = unix.Setns(int(s.file.Fd()), unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("enter network namespace %s: %w", s.file.Name(), err)
			break
		}
		err = f()
		if back := unix.Setns(int(here.Fd()), unix.CLONE_NEWNET); back != nil {
			// The thread stays locked and ends with its goroutine: nobody may come upon it.
			return errors.Join(err, fmt.Errorf("leave network namespace %s: %w", s.file.Name(), back))
		}
	}
	runtime.UnlockOSThread()
	return err
}

// named reports whether path is this namespace.
func (s *space) named(path string) bool {
	info, err := os.Stat(path)
	return err == nil && os.SameFile(info, s.info)
}

// name gives the namespace a name, as iproute2 does: its file is mounted in /run/netns.
func (s *space) name(path string) error {
	if err := shareFolder(filepath.Dir(path)); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	file.Close()
	return os.NewSyscallError("mount "+path, unix.Mount(fmt.Sprintf("/proc/self/fd/%d", s.file.Fd()), path, "none", unix.MS_BIND, ""))
}

// shareFolder makes the folder of names one whose mounts other mount namespaces see too.
func shareFolder(path string) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	err := unix.Mount("", path, "none", unix.MS_SHARED|unix.MS_REC, "")
	if errors.Is(err, unix.EINVAL) { // not a mount point yet
		if err = unix.Mount(path, path, "none", unix.MS_BIND|unix.MS_REC, ""); err == nil {
			err = unix.Mount("", path, "none", unix.MS_SHARED|unix.MS_REC, "")
		}
	}
	return os.NewSyscallError("mount "+path, err)
}

// unname takes a namespace's name away; processes inside live on.
func unname(path string) error {
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
		return os.NewSyscallError("umount "+path, err)
	}
	return os.Remove(path)
}

// isNamespace reports whether path is a namespace that has a name; a file that is left of
// one is not.
func isNamespace(path string) (bool, error) {
	var fs unix.Statfs_t
	err := unix.Statfs(path, &fs)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil && fs.Type == unix.NSFS_MAGIC, os.NewSyscallError("statfs "+path, err)
}

// newSpace makes a namespace whose lo has the alias from its first moment on.
func newSpace(alias string) (s *space, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err = os.NewSyscallError("unshare", unix.Unshare(unix.CLONE_NEWNET)); err != nil {
			return
		}
		if s, err = hereSpace(); err != nil {
			return
		}
		lo, e := s.handle.LinkByName(loopback)
		if e == nil {
			e = errors.Join(s.handle.LinkSetAlias(lo, alias), s.handle.LinkSetUp(lo))
		}
		if e != nil {
			s.close()
			s, err = nil, fmt.Errorf("%s: %w", loopback, e)
		}
	}()
	<-done
	return s, err
}
