package datapath

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/tests/netspace"
)

// newPins returns a directory for pins on a bpffs of the test's own, with which they end.
func newPins(t *testing.T) string {
	t.Helper()
	netspace.NeedRoot(t)
	at := t.TempDir()
	if err := unix.Mount("bpf", at, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(at, "tdm-test")
}

// config is the gateway's between the two peers.
func (w *wire) config(pins string) Config {
	return Config{
		Realms: []Realm{
			{Number: platform, Points: []Point{{Ifindex: w.platform.index}}, Media: mediaPorts, Addr: platformAddr},
			{Number: carrier, Points: []Point{{Ifindex: w.peer.index}}, Media: mediaPorts, Addr: carrierAddr},
		},
		MaxCalls: 10,
		NextHops: w.hops,
		Pins:     pins,
	}
}

// fewerPorts is a configuration whose maps do not fit those of another.
func fewerPorts(cfg Config) Config {
	cfg.Realms = slices.Clone(cfg.Realms)
	cfg.Realms[0].Media.First += 1000
	return cfg
}

// start opens an engine in the gateway's namespace. It is closed at the end, if not before.
func (w *wire) start(t *testing.T, cfg Config) *Engine {
	t.Helper()
	e, err := w.tryStart(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func (w *wire) tryStart(t *testing.T, cfg Config) (e *Engine, err error) {
	t.Helper()
	w.gateway.Do(func() { e, err = Open(cfg) })
	if err == nil {
		t.Cleanup(func() {
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return e, err
}

func shut(t *testing.T, e *Engine) {
	t.Helper()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// unload takes everything away, and asserts it.
func (w *wire) unload(t *testing.T, pins string) {
	t.Helper()
	var found bool
	var err error
	w.gateway.Do(func() { found, err = Unload(pins) })
	if !found || err != nil {
		t.Fatalf("unload: found %v, error %v", found, err)
	}
	w.wantDetached(t)
	if _, err := os.Stat(pins); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is there still: %v", pins, err)
	}
}

func keys(flows []call.Flow) []call.FlowKey {
	var list []call.FlowKey
	for _, f := range flows {
		list = append(list, f.Key)
	}
	return list
}

// wantAdopted asserts that an engine has found the flows of a call.
func wantAdopted(t *testing.T, e *Engine, flows []call.Flow) {
	t.Helper()
	got := e.Adopted()
	for _, k := range keys(flows) {
		if !slices.Contains(got, k) {
			t.Fatalf("flow %v is not among those adopted: %v", k, got)
		}
	}
	if len(got) != len(flows) {
		t.Fatalf("%d flows adopted instead of %d", len(got), len(flows))
	}
}

// TestRestart: the attached programs are replaced 20 times, some of them after kill -9, while
// 20,000 packets per second go through. Not one is lost, and no counter forgets any.
func TestRestart(t *testing.T) {
	w := newWire(t)
	cfg := w.config(newPins(t))
	flows := twoWay()
	e := w.start(t, cfg)
	if err := e.Install(flows); err != nil {
		t.Fatal(err)
	}
	s := w.newStream(t)
	for i := range 20 {
		before, links := attachedIDs(t, e), linkIDs(t, e)
		shut(t, e)
		if i%4 == 3 {
			c := w.startChild(t, cfg, 0)
			c.wantOpen(t)
			c.kill(t)
		}
		s.advance(t, 200) // while no process is there
		e = w.start(t, cfg)
		wantAdopted(t, e, flows)
		if after := attachedIDs(t, e); after[0] == before[0] || after[1] == before[1] {
			t.Fatalf("restart %d: programs %v became %v: none was replaced", i, before, after)
		}
		if now := linkIDs(t, e); !slices.Equal(now, links) {
			t.Fatalf("restart %d: links %v became %v: the device was without a program", i, links, now)
		}
		s.advance(t, 200)
	}
	sent := s.end(t)
	stats, err := e.Remove(keys(flows))
	if err != nil {
		t.Fatal(err)
	}
	if got := stats[0]; got.Packets != uint64(sent) || got.Lost != 0 || got.Reordered != 0 {
		t.Errorf("%d packets were sent, counted are %+v", sent, got)
	}
	if got := e.Attachments(); len(got) != 4 || !got[0].Pinned {
		t.Errorf("attachments %+v", got)
	}
	shut(t, e)
	w.unload(t, cfg.Pins)
}

// attachedIDs are the programs that the kernel runs.
func attachedIDs(t *testing.T, e *Engine) []ebpf.ProgramID {
	t.Helper()
	var ids []ebpf.ProgramID
	for _, h := range e.hooks {
		id, err := h.program()
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// linkIDs are those of the devices' links.
func linkIDs(t *testing.T, e *Engine) []link.ID {
	t.Helper()
	var ids []link.ID
	for _, h := range e.hooks {
		if h.Ifindex == 0 {
			continue
		}
		l, ok := h.attached.(pinnedLink)
		if !ok {
			continue // a filter, on kernels before 6.6
		}
		info, err := l.Info()
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, info.ID)
	}
	return ids
}

// TestMapIDs: what the attached programs use are the pinned maps, before and after a restart; and a
// program of somebody else in the place of ours is noticed.
func TestMapIDs(t *testing.T) {
	w := newWire(t)
	cfg := w.config(newPins(t))
	var first []ebpf.MapID
	for range 2 {
		e := w.start(t, cfg)
		pinned, err := ebpf.LoadPinnedMap(filepath.Join(cfg.Pins, "1", tandemMapFlows), nil)
		if err != nil {
			t.Fatal(err)
		}
		id, err := mapID(pinned)
		if err != nil {
			t.Fatal(err)
		}
		_ = pinned.Close()
		for _, prog := range attachedIDs(t, e)[:4] { // the tracepoint's knows no flows
			used, err := mapsOf(prog)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(used, id) {
				t.Errorf("program %d uses maps %v, not the pinned %d", prog, used, id)
			}
		}
		if first = append(first, id); first[0] != id {
			t.Errorf("map %d became %d in a restart", first[0], id)
		}
		if err := e.hooks[0].replace(passProgram(t)); err != nil {
			t.Fatal(err)
		}
		if err := e.verify(); err == nil || !strings.Contains(err.Error(), "instead of ours") {
			t.Errorf("another program is attached, and that passes: %v", err)
		}
		shut(t, e)
	}
}

// TestOtherPorts: with another range of media ports the maps do not fit. Flows are copied, not one
// packet is lost, and all are counted; a flow whose port is no longer one ends.
func TestOtherPorts(t *testing.T) {
	w := newWire(t)
	cfg := w.config(newPins(t))
	flows := twoWay()
	gone := flows[0]
	gone.Key.Local = netip.AddrPortFrom(platformAddr, mediaPorts.First)
	gone.Source = netip.AddrPortFrom(carrierAddr, mediaPorts.First)
	e := w.start(t, cfg)
	if err := e.Install(append(slices.Clone(flows), gone)); err != nil {
		t.Fatal(err)
	}
	s := w.newStream(t)
	for i := range 4 {
		shut(t, e)
		next := cfg
		if i%2 == 0 {
			next = fewerPorts(cfg)
		}
		e = w.start(t, next)
		wantAdopted(t, e, flows)
		s.advance(t, 1000)
	}
	sent := s.end(t)
	stats, err := e.Snapshot(keys(flows))
	if err != nil {
		t.Fatal(err)
	}
	if got := stats[0]; got.Packets != uint64(sent) || got.Bytes != uint64(sent)*172 || got.Lost != 0 {
		t.Errorf("%d packets were sent, counted are %+v", sent, got)
	}
	if got := generationsIn(t, cfg.Pins); len(got) != 1 {
		t.Errorf("generations %v are pinned, want one", got)
	}
	// The next hop goes on being kept up to date.
	moved := w.hops.byRealm[carrier]
	moved.L2 = slices.Clone(moved.L2)
	moved.L2[5]++
	w.hops.updates[carrier](moved)
	var hop tandemNextHop
	if err := e.objs.NextHops.Lookup(uint32(e.flows[flows[0].Key].hop.id), &hop); err != nil {
		t.Fatal(err)
	}
	if way := hop.Way[hop.Active]; !bytes.Equal(way.L2[:14], moved.L2) {
		t.Errorf("the next hop is %x, want %x", way.L2[:14], moved.L2)
	}
}

// TestFit: pinned maps are kept if they are what the configuration would make, and copied otherwise.
func TestFit(t *testing.T) {
	w := newWire(t)
	cfg := w.config(newPins(t))
	cfg.Realms = append(cfg.Realms, Realm{
		Number: 3, Points: []Point{{Ifindex: w.peer.index, OuterVLAN: 100, VLAN: 201}}, Media: mediaPorts, Addr: carrierAddr,
		Peers: []netip.Addr{carrierPeer.Addr()},
	})
	flow := twoWay()[1]
	flow.Key.Realm = 3
	e := w.start(t, cfg)
	if err := e.Install([]call.Flow{flow}); err != nil {
		t.Fatal(err)
	}
	shut(t, e)
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   string // generation
	}{
		{"nothing changed", func(*Config) {}, "1"},
		{"another peer", func(c *Config) { c.Realms[2].Peers = []netip.Addr{carrierPeer.Addr().Next()} }, "1"},
		{"one peer more", func(c *Config) { c.Realms[2].Peers = append(c.Realms[2].Peers, carrierPeer.Addr().Next().Next()) }, "1"},
		{"other limits", func(c *Config) { c.Guard.SIPPerSecond = 100 }, "1"},
		{"fewer calls", func(c *Config) { c.MaxCalls = 5 }, "1"},
		{"more calls", func(c *Config) { c.MaxCalls = 100 }, "2"},
		{"another VLAN", func(c *Config) { c.Realms[2].Points = []Point{{Ifindex: w.peer.index, OuterVLAN: 100, VLAN: 202}} }, "2"},
		{"no double tag", func(c *Config) { c.Realms[2].Points = []Point{{Ifindex: w.peer.index, VLAN: 202}} }, "2"},
		{"no place", func(c *Config) { c.Realms[2].Points = nil }, "2"},
		{"a device that does not exist yet", func(c *Config) { c.Realms[2].Points = []Point{{Ifindex: 4711}} }, "2"},
		{"two places", func(c *Config) {
			c.Realms[2].Points = []Point{{Ifindex: w.peer.index, VLAN: 203}, {Ifindex: w.platform.index, VLAN: 203}}
		}, "2"},
		{"fewer ports", func(c *Config) { c.Realms[2].Media.Last-- }, "3"},
		{"a realm in front", func(c *Config) {
			c.Realms[2].Number = 4
			c.Realms = append(c.Realms, Realm{Number: 3, Points: []Point{{Ifindex: w.platform.index, VLAN: 300}}, Media: mediaPorts, Addr: platformAddr})
			flow.Key.Realm = 4
		}, "4"},
	} {
		tt.change(&cfg)
		e := w.start(t, cfg)
		wantAdopted(t, e, []call.Flow{flow})
		if got := generationsIn(t, cfg.Pins); !slices.Equal(got, []string{tt.want}) {
			t.Errorf("%s: generations %v, want %s", tt.name, got, tt.want)
		}
		if got := peersOf(t, e); !slices.Equal(got, cfg.Realms[2].Peers) {
			t.Errorf("%s: the guard knows peers %v, want %v", tt.name, got, cfg.Realms[2].Peers)
		}
		shut(t, e)
	}
}

func peersOf(t *testing.T, e *Engine) (list []netip.Addr) {
	t.Helper()
	var peer tandemSource
	var known tandemKnownAs
	entries := e.objs.Peers.Iterate()
	for entries.Next(&peer, &known) {
		if peer.Realm != 0 {
			list = append(list, netip.AddrFrom4(peer.Addr))
		}
	}
	if err := entries.Err(); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return list
}

func generationsIn(t *testing.T, dir string) (list []string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.IsDir() {
			list = append(list, f.Name())
		}
	}
	return list
}

// TestCrashAtEachStep: a process that is killed between any two steps of a start leaves what the next
// start goes on with: a fresh one, one that adopts, and one that copies. No flow and no packet is lost.
func TestCrashAtEachStep(t *testing.T) {
	w := newWire(t)
	pins := newPins(t)
	flows := twoWay()
	var steps []string
	for n := 1; ; n++ { // of a fresh start
		step, open := w.startChild(t, w.config(pins), n).crash(t)
		e := w.start(t, w.config(pins))
		if err := e.Install(flows[:1]); err != nil {
			t.Fatalf("after a crash at %q: %v", step, err)
		}
		shut(t, e)
		w.unload(t, pins)
		if open {
			break
		}
		steps = append(steps, step)
	}
	e := w.start(t, w.config(pins))
	if err := e.Install(flows); err != nil {
		t.Fatal(err)
	}
	shut(t, e)
	s := w.newStream(t)
	for _, other := range []func(Config) Config{func(c Config) Config { return c }, fewerPorts} {
		for n, open := 1, false; !open; n++ {
			cfg := w.config(pins)
			if n%2 == 1 {
				cfg = other(cfg)
			}
			var step string
			step, open = w.startChild(t, cfg, n).crash(t)
			steps = append(steps, step)
			e := w.start(t, cfg)
			wantAdopted(t, e, flows)
			if got := generationsIn(t, pins); len(got) != 1 {
				t.Fatalf("after a crash at %q generations %v are pinned", step, got)
			}
			shut(t, e)
		}
	}
	s.end(t)
	t.Logf("killed at %d steps", len(steps))
	for _, want := range []string{
		"make generation", "pin map", "copy flows", "attach xdp", "attach tcx", "attach napi_poll", "wait", "merge", "unpin map", "remove generation",
	} {
		if !slices.Contains(steps, want) {
			t.Errorf("no crash at %q: %q", want, steps)
		}
	}
}

// TestPinsAreTaken: a second gateway with the same pins is refused and told what to do, and the first
// goes on; the lock ends with its owner.
func TestPinsAreTaken(t *testing.T) {
	w := newWire(t)
	cfg := w.config(newPins(t))
	c := w.startChild(t, cfg, 0)
	c.wantOpen(t)
	_, err := w.tryStart(t, cfg)
	if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), "give this one other pins") {
		t.Errorf("second gateway: %v", err)
	}
	if _, err := Unload(cfg.Pins); !errors.Is(err, ErrBusy) {
		t.Errorf("unloaded under a gateway that runs: %v", err)
	}
	c.kill(t)
	shut(t, w.start(t, cfg))
}

// TestTwoGateways: two with pins of their own, in namespaces of their own, do not know of each other.
func TestTwoGateways(t *testing.T) {
	flows := twoWay()
	one, two := newWire(t), newWire(t)
	cfg1, cfg2 := one.config(newPins(t)), two.config("")
	cfg2.Pins = filepath.Join(filepath.Dir(cfg1.Pins), "tdm-other")
	e1, e2 := one.start(t, cfg1), two.start(t, cfg2)
	if err := errors.Join(e1.Install(flows), e2.Install(flows[:2])); err != nil {
		t.Fatal(err)
	}
	shut(t, e1)
	one.unload(t, cfg1.Pins)
	shut(t, e2)
	e2 = two.start(t, cfg2)
	wantAdopted(t, e2, flows[:2])
	shut(t, e2)

	// The pins of one are not for the other, as long as calls go on by them.
	cfg1.Pins = cfg2.Pins
	if _, err := one.tryStart(t, cfg1); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), "rm -r "+cfg1.Pins) {
		t.Errorf("took over the pins of another namespace: %v", err)
	}
	two.gateway.IP(t, "link del tdmplat")
	two.gateway.IP(t, "link del tdmcarr")
	// What was done to devices over there is not undone to ours of the same index.
	for _, device := range []string{"tdmplat", "tdmcarr"} {
		one.gateway.Run(t, "ethtool", "-K "+device+" rxvlan off")
	}
	e1 = one.start(t, cfg1)
	wantAdopted(t, e1, nil)
	shut(t, e1)
	one.unload(t, cfg1.Pins)
	if out := one.gateway.Run(t, "ethtool", "-k tdmplat"); !strings.Contains(out, "rx-vlan-offload: off") {
		t.Errorf("VLAN receive offload was turned on:\n%s", out)
	}
}

// TestStalePins: flows of devices that are gone end with them, and the start is a fresh one.
func TestStalePins(t *testing.T) {
	w := newWire(t)
	pins := newPins(t)
	e := w.start(t, w.config(pins))
	if err := e.Install(twoWay()); err != nil {
		t.Fatal(err)
	}
	shut(t, e)
	w.gateway.IP(t, "link del tdmplat")
	w.gateway.IP(t, "link del tdmcarr")
	w.platform = w.connect(t, "tdmplat", "192.0.2.2/24", platformPeer, platform)
	w.peer = w.connect(t, "tdmcarr", "198.51.100.2/24", carrierPeer, carrier)
	e = w.start(t, w.config(pins))
	wantAdopted(t, e, nil)
	if got := generationsIn(t, pins); len(got) != 1 {
		t.Errorf("generations %v are pinned, want one", got)
	}
	shut(t, e)
	w.unload(t, pins)
}

// TestLostDevice: of two devices one is gone and has come back; the flows of both go on.
func TestLostDevice(t *testing.T) {
	w := newWire(t)
	pins := newPins(t)
	e := w.start(t, w.config(pins))
	flows := twoWay()
	if err := e.Install(flows); err != nil {
		t.Fatal(err)
	}
	shut(t, e)
	w.gateway.IP(t, "link del tdmcarr")
	w.peer = w.connect(t, "tdmcarr", "198.51.100.2/24", carrierPeer, carrier)
	e = w.start(t, w.config(pins))
	wantAdopted(t, e, flows)
	s := w.newStream(t)
	s.advance(t, packetRate/2)
	s.end(t)
	shut(t, e)
	w.unload(t, pins)
}

// TestVLANOffloadIsRemembered: it is off as long as there is a flow that tags may be looked for of, with or
// without a process, and back on at the end or after Unload, whoever turned it off.
func TestVLANOffloadIsRemembered(t *testing.T) {
	w := newWire(t)
	cfg := w.config(newPins(t))
	w.gateway.Run(t, "ethtool", "-K tdmplat rxvlan on")
	w.gateway.Run(t, "ethtool", "-K tdmcarr rxvlan off")
	want := func(device, state string) {
		t.Helper()
		w.wantVLANOffload(t, device, state)
	}
	for range 2 {
		e := w.start(t, cfg)
		want("tdmplat", "off")
		shut(t, e)
		want("tdmplat", "on")
	}
	e := w.start(t, cfg)
	if err := e.Install(twoWay()); err != nil {
		t.Fatal(err)
	}
	shut(t, e)
	want("tdmplat", "off")
	w.unload(t, cfg.Pins)
	want("tdmplat", "on")
	want("tdmcarr", "off")
}

// wantVLANOffload asserts that it is "on" or "off".
func (w *wire) wantVLANOffload(t *testing.T, device, state string) {
	t.Helper()
	if out := w.gateway.Run(t, "ethtool", "-k "+device); !strings.Contains(out, "rx-vlan-offload: "+state) {
		t.Errorf("VLAN receive offload of %s is not %s", device, state)
	}
}
