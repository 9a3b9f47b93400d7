package app

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/tests/netspace"
)

// One process at a time has what bears a node's name, whether its config makes networks or not, and
// wherever it puts the rest.
func TestOneGatewayOfANode(t *testing.T) {
	space := netspace.New(t)
	unlock, err := lockNode(testNode)
	if err != nil {
		t.Fatal(err)
	}
	cfg := loopback(t, "lo")
	cfg.IPsec.Run, cfg.Pins = t.TempDir(), "none"
	unload := func() (err error) {
		space.Do(func() { err = Unload(cfg, io.Discard) })
		return err
	}
	if err := Run(t.Context(), cfg, nil, "v0", nil); !errors.Is(err, ErrRunning) {
		t.Errorf("a second daemon: %v", err)
	}
	if err := unload(); !errors.Is(err, ErrRunning) {
		t.Errorf("unload under a daemon: %v", err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	if err := unload(); err != nil {
		t.Errorf("unload when it has ended: %v", err)
	}
}

// Who only looks at networks, and moves media in user space, needs no privilege: then nothing of a
// former process is looked for, which is said once.
func TestWithoutPrivilege(t *testing.T) {
	s := newSite(t)
	if err := errors.Join(os.Chmod(s.dir, 0o777), os.Chmod(filepath.Dir(s.dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	s.user = &syscall.Credential{Uid: 65534, Gid: 65534, NoSetGroups: true}
	daemon, status := s.start(t, call.EngineUserspace)
	if status.Engine.Engine != call.EngineUserspace {
		t.Errorf("status %+v", status)
	}
	s.end(t, daemon, syscall.SIGTERM)
	if n := strings.Count(s.said(t), errMayNotLock.Error()); n != 1 {
		t.Errorf("it is said %d times that there is no lock:\n%s", n, s.said(t))
	}
}
