package e2e

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/tests/netlab"
)

// H5: media goes on without the daemon. It is killed in mid-call, a successor takes over
// what is in the kernel, is stopped in good order, and a third one takes over again: no
// packet of the call is lost, the program is never detached, and it runs on the pinned maps
// all the time. New calls keep off the old one's ports; --unload takes everything away.
func TestMediaOutlivesTheDaemon(t *testing.T) {
	options := netlab.GatewayOptions{Engine: call.EngineKernel}
	s := newStage(t, start(t, options))
	near, far := s.ends(t)
	caller, callee := s.pair(t)
	c := s.connect(t, caller, callee, pcma(caller, 40000), pcma(callee, 40000))
	attached := s.pinned(t)
	nearTalk, farTalk := near.talk(c.toCallee), far.talk(c.toCaller)
	// goesOn waits for half a second of speech both ways, and looks at what is in the kernel.
	goesOn := func(when string) {
		t.Helper()
		n, f := len(near.sounds())+25, len(far.sounds())+25
		s.await(t, "speech "+when, func() bool { return len(near.sounds()) >= n && len(far.sounds()) >= f })
		if now := s.pinned(t); !slices.Equal(now, attached) {
			t.Errorf("%s the program is attached by links %v, it was by %v", when, now, attached)
		}
	}
	adopted := func(when string) {
		t.Helper()
		st := s.status(t)
		if st.Kernel == nil || st.Kernel.Adopted != 4 || st.Engine.Flows != 4 || st.Calls.Active != 0 {
			t.Errorf("%s: %d calls, %d flows, kernel %+v, want 4 flows adopted", when, st.Calls.Active, st.Engine.Flows, st.Kernel)
		}
	}
	goesOn("at first")
	if err := s.daemon.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-s.daemon.Done()
	goesOn("without a daemon")
	s.startDaemon(t, options)
	adopted("after the crash")
	goesOn("with a successor")
	if err := s.daemon.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.ended(t, 10*time.Second)
	goesOn("after a stop in good order")
	s.startDaemon(t, options)
	adopted("after the stop")
	goesOn("with the third daemon")

	newCaller, newCallee := s.pair(t)
	newNear := s.phone(t, netlab.Platform, netip.AddrPortFrom(netlab.RealmOf(netlab.Platform).Peer, 42000))
	newFar := s.phone(t, netlab.CarrierA, netip.AddrPortFrom(netlab.RealmOf(netlab.CarrierA).Peer, 42000))
	n := s.connect(t, newCaller, newCallee, pcma(newCaller, 42000), pcma(newCallee, 42000))
	if n.toCallee == c.toCallee || n.toCaller == c.toCaller {
		t.Errorf("a new call got the ports of the one that goes on: %v, %v", n.toCallee, n.toCaller)
	}
	newTalk := newNear.talk(n.toCallee)
	s.await(t, "speech of a new call", func() bool { return len(newFar.sounds()) > 25 })
	if missed := hears(t, newTalk(), n.toCaller, newFar); missed != 0 {
		t.Errorf("of the new call %d packets were missed", missed)
	}
	newCaller.hangUp(newCallee)

	if missed := hears(t, nearTalk(), c.toCaller, far); missed != 0 {
		t.Errorf("the callee missed the first %d packets", missed)
	}
	if missed := hears(t, farTalk(), c.toCallee, near); missed != 0 {
		t.Errorf("the caller missed the first %d packets", missed)
	}
	if err := s.daemon.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.ended(t, 10*time.Second)
	s.unload(t)
	s.detached(t)
}

// H5: a daemon without pins leaves nothing, however it ends.
func TestNoPins(t *testing.T) {
	options := netlab.GatewayOptions{Engine: call.EngineKernel, Pins: "none"}
	g := start(t, options)
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		if err := g.daemon.Signal(signal); err != nil {
			t.Fatal(err)
		}
		<-g.daemon.Done()
		g.detached(t)
		g.startDaemon(t, options)
	}
}

// unload takes all of the gateway out of the kernel.
func (g *gateway) unload(t *testing.T) {
	t.Helper()
	var said bytes.Buffer
	p := g.Command(t.Context(), netlab.Gateway, g.binary, "--unload", "--config", g.daemon.Config)
	p.Stdout, p.Stderr = &said, &said
	if err := p.Run(); err != nil {
		t.Fatalf("tandemd --unload: %v: %s", err, said.Bytes())
	}
}

// detached asserts that nothing of the gateway is in the kernel.
func (g *gateway) detached(t *testing.T) {
	t.Helper()
	for _, r := range netlab.Realms() {
		if out := g.ip(t, netlab.Gateway, "-details", "link", "show", r.Device); strings.Contains(out, "prog/xdp") {
			t.Errorf("an XDP program is attached to %s:\n%s", r.Device, out)
		}
	}
	if _, err := os.Stat(g.Pins()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is there still: %v", g.Pins(), err)
	}
}

// pinned asserts that the program at each pinned link runs on pinned maps and constants of
// its own, and returns the links at devices by their ids: another id is another attachment.
func (g *gateway) pinned(t *testing.T) []link.ID {
	t.Helper()
	var links []link.ID
	maps := map[ebpf.MapID]string{}
	programs := map[string]ebpf.ProgramID{}
	entries, err := os.ReadDir(g.Pins())
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		path := filepath.Join(g.Pins(), entry.Name())
		if entry.IsDir() {
			pinnedMaps(t, path, maps)
			continue
		}
		l, err := link.LoadPinnedLink(path, nil)
		if err != nil {
			continue // a map of the engine's own
		}
		info, err := l.Info()
		if err != nil {
			t.Fatal(err)
		}
		programs[entry.Name()] = info.Program
		if info.XDP() != nil || info.TCX() != nil {
			links = append(links, info.ID)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	if want := len(netlab.Realms()); len(links) < want {
		t.Errorf("%d links are pinned, want one for each of %d devices at least", len(links), want)
	}
	for name, id := range programs {
		program, err := ebpf.NewProgramFromID(id)
		if err != nil {
			t.Fatalf("program of %s: %v", name, err)
		}
		info, err := program.Info()
		if err != nil {
			t.Fatal(err)
		}
		used, ok := info.MapIDs()
		if !ok || len(used) == 0 {
			t.Fatalf("the program of %s has no maps", name)
		}
		for _, id := range used {
			if maps[id] == "" && !constant(t, id) {
				t.Errorf("the program of %s uses map %d, which is not pinned: %v", name, id, maps)
			}
		}
		if err := program.Close(); err != nil {
			t.Error(err)
		}
	}
	slices.Sort(links)
	return links
}

// constant reports whether nobody can write to a map: it is the program's read-only data.
func constant(t *testing.T, id ebpf.MapID) bool {
	t.Helper()
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	info, err := m.Info()
	if err != nil {
		t.Fatal(err)
	}
	return info.Frozen()
}

// pinnedMaps adds the maps of a directory by id.
func pinnedMaps(t *testing.T, dir string, maps map[ebpf.MapID]string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		m, err := ebpf.LoadPinnedMap(filepath.Join(dir, entry.Name()), nil)
		if err != nil {
			t.Fatal(err)
		}
		info, err := m.Info()
		if err != nil {
			t.Fatal(err)
		}
		if id, ok := info.ID(); ok {
			maps[id] = entry.Name()
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
}
