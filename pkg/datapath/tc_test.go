package datapath

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
)

// passProgram is an XDP program of somebody else.
func passProgram(t *testing.T) *ebpf.Program {
	t.Helper()
	return newProgram(t, &ebpf.ProgramSpec{
		Type: ebpf.XDP, AttachType: ebpf.AttachXDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()},
	})
}

// foreignTC is a TC program of somebody else: it lets everything go on.
func foreignTC(t *testing.T) *ebpf.Program {
	t.Helper()
	return newProgram(t, &ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()},
	})
}

func newProgram(t *testing.T, spec *ebpf.ProgramSpec) *ebpf.Program {
	t.Helper()
	prog, err := ebpf.NewProgram(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = prog.Close() })
	return prog
}

// addFilter attaches somebody else's program by clsact, where ours wants to be.
func addFilter(t *testing.T, prog *ebpf.Program, ifindex int) {
	t.Helper()
	f := ourFilter(ifindex)
	f.Handle, f.Name, f.Fd = 1, "foreign", prog.FD()
	if err := netlink.FilterAdd(f); err != nil {
		t.Error(err)
	}
}

// runningTC lists the programs on the platform's device in the order that packets meet them.
func (w *wire) runningTC(t *testing.T, hook string) (ids []ebpf.ProgramID) {
	t.Helper()
	w.gateway.Do(func() {
		if hook == hookTCX {
			running, err := link.QueryPrograms(link.QueryOptions{Target: w.platform.index, Attach: ebpf.AttachTCXIngress})
			if err != nil {
				t.Error(err)
				return
			}
			for _, p := range running.Programs {
				ids = append(ids, p.ID)
			}
			return
		}
		device := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: w.platform.index}}
		filters, err := netlink.FilterList(device, netlink.HANDLE_MIN_INGRESS)
		if err != nil {
			t.Error(err)
		}
		for _, f := range filters {
			if f, ok := f.(*netlink.BpfFilter); ok {
				ids = append(ids, ebpf.ProgramID(f.Id))
			}
		}
	})
	return ids
}

// TestTC: the TC program is attached beside XDP, by tcx and, where the kernel has none, by clsact. Both
// ways it comes before programs of others, which stay; a restart replaces it; Unload leaves only them.
func TestTC(t *testing.T) {
	for _, hook := range []string{hookTCX, hookClsact} {
		t.Run(hook, func(t *testing.T) {
			w := newWire(t)
			cfg := w.config(newPins(t))
			cfg.noTCX = hook == hookClsact
			theirs := foreignTC(t)
			if hook == hookTCX {
				var l link.Link
				var err error
				w.gateway.Do(func() {
					l, err = link.AttachTCX(link.TCXOptions{Interface: w.platform.index, Program: theirs, Attach: ebpf.AttachTCXIngress})
				})
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
			} else {
				w.gateway.Run(t, "tc", "qdisc add dev tdmplat clsact")
				w.gateway.Do(func() { addFilter(t, theirs, w.platform.index) })
			}
			var former ebpf.ProgramID
			for range 3 {
				e := w.start(t, cfg)
				got := e.Attachments()
				if len(got) != 4 || got[1].Hook != hook || got[3].Hook != hook || got[1].Device != "tdmplat" {
					t.Fatalf("attachments %+v", got)
				}
				id, err := e.hooks[1].program()
				if err != nil {
					t.Fatal(err)
				}
				if got := w.runningTC(t, hook); id == former || len(got) != 2 || got[0] != id {
					t.Fatalf("programs %v run, ours is %d and was %d", got, id, former)
				}
				former = id
				shut(t, e)
			}
			w.unload(t, cfg.Pins)
			if got := w.runningTC(t, hook); len(got) != 1 || got[0] == former {
				t.Errorf("programs %v run after Unload, ours was %d", got, former)
			}
			if hook == hookClsact {
				if out := w.gateway.Run(t, "tc", "qdisc show dev tdmplat"); !strings.Contains(out, "clsact") {
					t.Errorf("somebody else's clsact is gone: %s", out)
				}
				if out := w.gateway.Run(t, "tc", "qdisc show dev tdmcarr"); strings.Contains(out, "clsact") {
					t.Errorf("our clsact is there still: %s", out)
				}
			}
		})
	}
}

// TestTunnelDevice: a device without link layer takes no XDP, and has TC all the same.
func TestTunnelDevice(t *testing.T) {
	w := newWire(t)
	w.gateway.IP(t, "tuntap add dev tdmtun mode tun")
	w.gateway.IP(t, "link set tdmtun up")
	var tun *net.Interface
	var err error
	w.gateway.Do(func() { tun, err = net.InterfaceByName("tdmtun") })
	if err != nil {
		t.Fatal(err)
	}
	cfg := w.config(newPins(t))
	cfg.Realms[1].Points = []Point{{Ifindex: tun.Index, Bare: true}}
	for range 2 {
		e := w.start(t, cfg)
		got := e.Attachments()
		if len(got) != 3 || got[2].Device != "tdmtun" || got[2].Hook != hookTCX {
			t.Errorf("attachments %+v", got)
		}
		var in tandemIngress
		if err := e.objs.Ingress.Lookup(uint32(tun.Index), &in); err != nil || in.Flags != tandemDeviceFlagDEVICE_BARE {
			t.Errorf("the programs are told %+v (%v)", in, err)
		}
		shut(t, e)
	}
	w.unload(t, cfg.Pins)
}

// TestLinkThatTakesNoProgram: a link made for a program without an attach type refuses ours. It is made
// anew, and what is lost is said.
func TestLinkThatTakesNoProgram(t *testing.T) {
	w := newWire(t)
	var log bytes.Buffer
	cfg := w.config(newPins(t))
	cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	if err := os.Mkdir(cfg.Pins, 0o700); err != nil {
		t.Fatal(err)
	}
	old := newProgram(t, &ebpf.ProgramSpec{
		Type: ebpf.XDP, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()},
	})
	var err error
	w.gateway.Do(func() {
		var l link.Link
		if l, err = link.AttachXDP(link.XDPOptions{Program: old, Interface: w.platform.index}); err == nil {
			err = errors.Join(l.Pin(filepath.Join(cfg.Pins, fmt.Sprint(pinXDP, w.platform.index))), l.Close())
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	e := w.start(t, cfg)
	if !strings.Contains(log.String(), "packets are lost") {
		t.Errorf("not said: %s", log.String())
	}
	shut(t, e)
	w.unload(t, cfg.Pins)
}
