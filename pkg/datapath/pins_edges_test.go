package datapath

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/tandem-sbc/tandem/tests/netspace"
)

// TestUnloadAfterCrash: whatever step of a first start, or of one that copies, the process is killed at,
// Unload alone leaves the devices as they were: no program, no filter, no qdisc, VLAN offload on.
func TestUnloadAfterCrash(t *testing.T) {
	for _, tt := range []struct {
		name   string
		noTCX  bool
		before bool // a start with fewer ports went before
	}{{"tcx", false, false}, {"clsact", true, false}, {"clsact, copying", true, true}} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWire(t)
			cfg := w.config(newPins(t))
			cfg.noTCX = tt.noTCX
			w.gateway.Run(t, "ethtool", "-K tdmplat rxvlan on")
			for n, open := 1, false; !open; n++ {
				if tt.before {
					e := w.start(t, fewerPorts(cfg))
					if err := e.Install(twoWay()); err != nil {
						t.Fatal(err)
					}
					shut(t, e)
				}
				var step string
				step, open = w.startChild(t, cfg, n).crash(t)
				w.unload(t, cfg.Pins)
				w.wantVLANOffload(t, "tdmplat", "on")
				if out := w.gateway.Run(t, "tc", "qdisc show"); strings.Contains(out, "clsact") {
					t.Errorf("a qdisc is left:\n%s", out)
				}
				if t.Failed() {
					t.Fatalf("after a crash at %q", step)
				}
			}
		})
	}
}

// TestMovedDevice: a device that has gone to another namespace with our programs on it, and another one with
// its index here: the pinned links are not of that one. It gets programs of its own, the other loses them.
func TestMovedDevice(t *testing.T) {
	w, away := newWire(t), netspace.New(t)
	cfg := w.config(newPins(t))
	flows := twoWay()
	e := w.start(t, cfg)
	if err := e.Install(flows); err != nil {
		t.Fatal(err)
	}
	w.gateway.IP(t, "link set tdmcarr netns "+away.Path)
	w.gateway.IP(t, fmt.Sprintf("link add tdmcarr index %d type veth peer name tdmpeer2", w.peer.index))
	if err := e.verify(); err == nil || !strings.Contains(err.Error(), "not to the device that is here") {
		t.Errorf("another device has the index, and that passes: %v", err)
	}
	shut(t, e)
	e = w.start(t, cfg)
	wantAdopted(t, e, flows)
	if out := w.gateway.IP(t, "link show tdmcarr"); !strings.Contains(out, "xdp") {
		t.Errorf("the new device has no program:\n%s", out)
	}
	if out := away.IP(t, "link show tdmcarr"); strings.Contains(out, "xdp") {
		t.Errorf("the device that went away has its program still:\n%s", out)
	}
	shut(t, e)
	w.unload(t, cfg.Pins)
}

// TestNamespaceGivesBack: the devices of a gateway's namespace are back in another one, with the programs and
// all flows: a gateway there goes on with them, and Unload there takes them away.
func TestNamespaceGivesBack(t *testing.T) {
	for _, restart := range []bool{true, false} {
		w := newWire(t)
		cfg := w.config(newPins(t))
		flows := twoWay()
		w.gateway.Run(t, "ethtool", "-K tdmplat rxvlan on")
		e := w.start(t, cfg)
		if err := e.Install(flows); err != nil {
			t.Fatal(err)
		}
		shut(t, e)
		former := w.gateway
		w.gateway = netspace.New(t)
		former.IP(t, "link set tdmplat netns "+w.gateway.Path)
		if _, err := w.tryStart(t, cfg); !errors.Is(err, ErrBusy) {
			t.Errorf("one device is not here, and that passes: %v", err)
		}
		former.IP(t, "link set tdmcarr netns "+w.gateway.Path)
		if restart {
			e = w.start(t, cfg)
			wantAdopted(t, e, flows)
			shut(t, e)
		}
		w.unload(t, cfg.Pins)
		w.wantVLANOffload(t, "tdmplat", "on")
	}
}

// TestForeignPin: what others have pinned into the directory is left alone.
func TestForeignPin(t *testing.T) {
	w := newWire(t)
	cfg := w.config(newPins(t))
	if err := os.Mkdir(cfg.Pins, 0o700); err != nil {
		t.Fatal(err)
	}
	var theirs link.Link
	var err error
	w.gateway.Do(func() {
		theirs, err = link.AttachXDP(link.XDPOptions{Program: passProgramXDP(t), Interface: w.peer.index})
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(theirs.Pin(filepath.Join(cfg.Pins, "firewall-2")), theirs.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.tryStart(t, cfg); err == nil || !strings.Contains(err.Error(), "firewall-2 is not ours") {
		t.Errorf("start: %v", err)
	}
	if _, err := Unload(cfg.Pins); err == nil || !strings.Contains(err.Error(), "firewall-2 is not ours") {
		t.Errorf("unload: %v", err)
	}
	if out := w.gateway.IP(t, "link show tdmcarr"); !strings.Contains(out, "xdp") {
		t.Errorf("their program is gone:\n%s", out)
	}
	if files, err := os.ReadDir(cfg.Pins); err != nil || len(files) != 1 {
		t.Errorf("their directory has %v (%v)", files, err)
	}
}

// passProgramXDP is somebody else's.
func passProgramXDP(t *testing.T) *ebpf.Program {
	t.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()},
	})
	if err != nil {
		t.Error(err)
		return nil
	}
	t.Cleanup(func() { _ = prog.Close() })
	return prog
}

// TestAttached: our programs are found on devices by their names, whoever attached them, and others are not.
func TestAttached(t *testing.T) {
	for _, noTCX := range []bool{false, true} {
		w := newWire(t)
		cfg := w.config("")
		cfg.noTCX = noTCX
		cfg.Realms = cfg.Realms[:1]
		w.start(t, cfg)
		w.gateway.Do(func() { attachTo(t, passProgramXDP(t), w.peer.index) })
		var got []Attachment
		var err error
		w.gateway.Do(func() { got, err = Attached(w.platform.index, w.peer.index) })
		if err != nil {
			t.Fatal(err)
		}
		hook := map[bool]string{false: hookTCX, true: hookClsact}[noTCX]
		at := Attachment{Device: "tdmplat", Ifindex: w.platform.index}
		xdp, tc := at, at
		xdp.Hook, tc.Hook = hookXDP, hook
		if want := []Attachment{xdp, tc}; !slices.Equal(got, want) {
			t.Errorf("attached are %+v, want %+v", got, want)
		}
	}
}

// TestDoubleNextHop: two ids that lead to one destination are no table of ours.
func TestDoubleNextHop(t *testing.T) {
	b := newBench(t, 10)
	for id := uint32(3); id <= 4; id++ {
		if err := b.objs.HopKeys.Put(id, tandemHopKey{Addr: addr4(carrierPeer.Addr()), Realm: carrier}); err != nil {
			t.Fatal(err)
		}
	}
	hops := b.Engine.hops
	if _, err := hops.adopt(3); err != nil {
		t.Fatal(err)
	}
	if h, err := hops.adopt(3); err != nil || h.refs != 2 {
		t.Errorf("a second flow to the same next hop: %+v, %v", h, err)
	}
	if _, err := hops.adopt(4); err == nil {
		t.Error("two ids for one destination, and that passes")
	}
}

// TestFailedStart: a start that fails before anything is attached leaves nothing pinned, or what forwards as
// it was.
func TestFailedStart(t *testing.T) {
	w := newWire(t)
	cfg := w.config(newPins(t))
	bad := fewerPorts(cfg)
	bad.Guard.Deny = []netip.Prefix{netip.MustParsePrefix("::ffff:203.0.113.0/120")} // longer than IPv4
	if _, err := w.tryStart(t, bad); err == nil || !strings.Contains(err.Error(), "denied sources") {
		t.Fatalf("started: %v", err)
	}
	if _, err := os.Stat(cfg.Pins); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is there: %v", cfg.Pins, err)
	}
	shut(t, w.start(t, cfg))
	if _, err := w.tryStart(t, bad); err == nil {
		t.Fatal("started")
	}
	if got := generationsIn(t, cfg.Pins); !slices.Equal(got, []string{"1"}) {
		t.Errorf("generations %v are pinned, want the former one", got)
	}
}

// TestUnreadablePins: what cannot be read or undone ends flows or stays undone, and is said; it does not keep
// the gateway from starting.
func TestUnreadablePins(t *testing.T) {
	w := newWire(t)
	cfg := w.config(newPins(t))
	e := w.start(t, cfg)
	if err := e.Install(twoWay()); err != nil {
		t.Fatal(err)
	}
	what := e.target.maps[mapAbout]
	if err := what.Put(uint32(0), make([]byte, what.ValueSize())); err != nil {
		t.Fatal(err)
	}
	const loopback = 1 // has no VLAN receive offload
	if err := e.undo.remember(loopback, undoVLANOffload); err != nil {
		t.Fatal(err)
	}
	shut(t, e)
	var log bytes.Buffer
	cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	e = w.start(t, cfg)
	wantAdopted(t, e, nil)
	if !strings.Contains(log.String(), "FLOWS END") {
		t.Errorf("not said that flows end: %s", log.String())
	}
	if !e.undo.has(loopback, undoVLANOffload) || !strings.Contains(log.String(), "not as it was before") {
		t.Errorf("what cannot be undone is forgotten: %s", log.String())
	}
	shut(t, e) // though that cannot be undone
}

// TestNoBPFFS: where nothing can be pinned the gateway runs all the same, and says what is lost.
func TestNoBPFFS(t *testing.T) {
	w := newWire(t)
	var log bytes.Buffer
	cfg := w.config(filepath.Join(t.TempDir(), "pins"))
	cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	e := w.start(t, cfg)
	if got := e.Attachments(); got[0].Pinned {
		t.Errorf("pinned: %+v", got)
	}
	if !regexp.MustCompile(`level=ERROR.*NOTHING IS PINNED.*restart.*interrupt`).MatchString(log.String()) {
		t.Errorf("not said: %s", log.String())
	}
	shut(t, e)
	w.wantDetached(t)
}

// TestABINumber: it is written in C and in Go.
func TestABINumber(t *testing.T) {
	header, err := os.ReadFile("../../bpf/include/tandem/abi.h")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("#define ABI %d\n", ABI); !strings.Contains(string(header), want) {
		t.Errorf("abi.h has no %q", want)
	}
}
