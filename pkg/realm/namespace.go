package realm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// namespace is that of the outer side of a realm's tunnels. Whether there is one was found
// out before; its name may be missing.
type namespace struct {
	path string
	mark mark
}

func (n namespace) id() (kind, name string) { return kindNamespace, filepath.Base(n.path) }

func (n namespace) want() string { return n.path }

func (n namespace) look(v *view) (have string, ok bool) {
	switch {
	case v.outer == nil:
		return "", false
	case !v.outer.named(n.path):
		return "without a name", false
	default:
		return n.path, true
	}
}

// mend makes the namespace, or gives back its name to one whose processes are still there:
// their security associations go on.
func (n namespace) mend(v *view) error {
	if taken, err := isNamespace(n.path); err != nil {
		return err
	} else if taken {
		return fmt.Errorf("a network namespace %s is there and %w: remove it with: ip netns delete %s",
			filepath.Base(n.path), errForeign, filepath.Base(n.path))
	}
	if v.outer != nil {
		return v.outer.name(n.path)
	}
	s, err := newSpace(n.mark.String())
	if err != nil {
		return err
	}
	if err := errors.Join(s.name(n.path), s.read()); err != nil {
		s.close()
		return err
	}
	v.outer = s
	return nil
}

// openOuter opens the namespace with a name if it is ours. It returns nil without an error if
// there is none, and an error that wraps errForeign for somebody else's.
func openOuter(path string, m mark) (*space, error) {
	there, err := isNamespace(path)
	if err != nil || !there {
		return nil, err
	}
	s, err := openSpace(path)
	if err != nil {
		return nil, err
	}
	is, err := s.owner()
	switch {
	case err != nil:
	case is == m:
		return s, nil
	default:
		err = fmt.Errorf("network namespace %s %w", path, errForeign)
	}
	s.close()
	return nil, err
}

// owner reads whose namespace it is, from its lo; the zero mark is nobody's that we know.
func (s *space) owner() (mark, error) {
	lo, err := s.handle.LinkByName(loopback)
	if err != nil {
		return mark{}, fmt.Errorf("%s of %s: %w", loopback, s.file.Name(), err)
	}
	m, ok := parseMark(lo.Attrs().Alias)
	if !ok {
		return mark{}, nil
	}
	return m, nil
}

// lostSpaces finds namespaces of a node whose names are gone, by the processes in them: an IKE
// daemon goes on there, and VLAN devices are in use. keep says which are wanted.
func lostSpaces(node string, keep func(mark) bool) (map[mark]*space, error) {
	files, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return nil, err
	}
	found, seen := make(map[mark]*space), make(map[string]bool)
	if here, err := os.Readlink(threadNamespace); err == nil {
		seen[here] = true
	}
	for _, file := range files {
		name, err := os.Readlink(file)
		if err != nil || seen[name] { // the process has ended
			continue
		}
		seen[name] = true
		s, err := openSpace(file)
		if err != nil {
			continue
		}
		if m, err := s.owner(); err == nil && m.node == node && found[m] == nil && keep(m) && s.native() {
			found[m] = s
			continue
		}
		s.close()
	}
	return found, nil
}

// native reports whether the namespace belongs to our own user namespace: anybody may make a
// network namespace in a user namespace of his own, and mark it like ours.
func (s *space) native() bool {
	fd, err := unix.IoctlRetInt(int(s.file.Fd()), unix.NS_GET_USERNS)
	if err != nil { // EPERM: it is outside of ours
		return false
	}
	owner := os.NewFile(uintptr(fd), "user namespace")
	defer owner.Close()
	is, err := owner.Stat()
	if err != nil {
		return false
	}
	our, err := os.Stat("/proc/self/ns/user")
	return err == nil && os.SameFile(is, our)
}

// outerNames lists the paths of all namespaces that could be this node's.
func outerNames(node string) ([]string, error) {
	entries, err := os.ReadDir(namespaceFolder)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), NamespaceName(node, "")) {
			list = append(list, filepath.Join(namespaceFolder, e.Name()))
		}
	}
	return list, nil
}
