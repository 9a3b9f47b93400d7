// Package conformance holds both media engines to one contract (package call, media.go):
// the same flows and the same packets in give the same packets out, the same counters and
// the same events, whether the kernel forwards (package datapath) or a process does
// (package relay). Each engine runs on its own devices in a namespace, between a platform
// and a carrier in theirs; what the peers send and receive is whole frames.
//
// What may differ is said where it does: the TTL, a UDP checksum of 0, and packets to a
// port without a flow, which in user space has no socket.
package conformance

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/datapath"
	"github.com/tandem-sbc/tandem/pkg/relay"
	"github.com/tandem-sbc/tandem/tests/netlab"
)

// The two realms, by number.
const (
	platform uint16 = 1 + iota
	carrier
)

const gateway = "gateway"

// realm is one side of the gateway.
type realm struct {
	host, device string
	// gateway, peer and other are addresses: ours, and two that the host has.
	gateway, peer, other netip.Addr
}

var realms = map[uint16]realm{
	platform: {
		host: "platform", device: "tdmplat",
		gateway: netip.AddrFrom4([4]byte{10, 91, 0, 2}),
		peer:    netip.AddrFrom4([4]byte{10, 91, 0, 10}),
		other:   netip.AddrFrom4([4]byte{10, 91, 0, 11}),
	},
	carrier: {
		host: "carrier", device: "tdmcarr",
		gateway: netip.AddrFrom4([4]byte{10, 92, 0, 2}),
		peer:    netip.AddrFrom4([4]byte{10, 92, 0, 10}),
		other:   netip.AddrFrom4([4]byte{10, 92, 0, 11}),
	},
}

const (
	peerDevice = "tdmpeer"
	prefixBits = 24
)

// mediaPorts of both realms. A call takes the first of them, the rest are for markers.
var mediaPorts = call.PortRange{First: 20000, Last: 24095}

// rule is one sentence of the contract.
type rule struct {
	// name is the sentence, after the id of its requirement.
	name  string
	check func(t *testing.T, r *rig)
}

// hold tries rules on both engines, one after the other on one engine: what a flow learned
// and counted goes with it. The path of a failed test names the engine and the rule.
func hold(t *testing.T, rules ...rule) {
	t.Helper()
	net := newNetwork(t)
	for _, name := range []string{call.EngineKernel, call.EngineUserspace} {
		t.Run(name, func(t *testing.T) {
			e := net.open(t, name)
			for _, rule := range rules {
				if !t.Run(rule.name, func(t *testing.T) { rule.check(t, net.rig(t, e)) }) {
					e.close(t) // packets may be under way still
					e = net.open(t, name)
				}
			}
		})
	}
}

// holdAnew tries each rule on an engine that has seen no packet: of a source that is
// refused the engine tells once a minute.
func holdAnew(t *testing.T, rules ...rule) {
	t.Helper()
	net := newNetwork(t)
	for _, name := range []string{call.EngineKernel, call.EngineUserspace} {
		t.Run(name, func(t *testing.T) {
			for _, rule := range rules {
				t.Run(rule.name, func(t *testing.T) { rule.check(t, net.rig(t, net.open(t, name))) })
			}
		})
	}
}

// network is the namespaces and cables.
type network struct {
	lab  *netlab.Lab
	taps map[uint16]*tap
	hops staticHops
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("namespaces and XDP need root: use `make test`")
	}
	topology := netlab.Topology{Hosts: []netlab.Host{{Name: gateway}}}
	for _, number := range []uint16{platform, carrier} {
		r := realms[number]
		topology.Hosts = append(topology.Hosts, netlab.Host{Name: r.host})
		topology.Links = append(topology.Links, netlab.Link{
			A: netlab.End{Host: gateway, Device: r.device, Address: netip.PrefixFrom(r.gateway, prefixBits)},
			B: netlab.End{Host: r.host, Device: peerDevice, Address: netip.PrefixFrom(r.peer, prefixBits)},
		})
	}
	lab, err := netlab.Up(t.Context(), topology)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Errorf("the lab left something behind: %v", err)
		}
	})
	n := &network{lab: lab, taps: map[uint16]*tap{}, hops: staticHops{}}
	for number, r := range realms {
		n.connect(t, number, r)
	}
	return n
}

// connect opens the tap at a peer, and learns how frames reach it.
func (n *network) connect(t *testing.T, number uint16, r realm) {
	t.Helper()
	var near, far *net.Interface
	if err := n.lab.Do(gateway, func() (err error) {
		near, err = net.InterfaceByName(r.device)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := n.lab.Do(r.host, func() (err error) {
		if far, err = net.InterfaceByName(peerDevice); err != nil {
			return err
		}
		link, err := netlink.LinkByIndex(far.Index)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{
			IP: r.other.AsSlice(), Mask: net.CIDRMask(prefixBits, 32),
		}}); err != nil {
			return err
		}
		n.taps[number], err = newTap(far.Index, far.HardwareAddr, near.HardwareAddr)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.taps[number].close(); err != nil {
			t.Error(err)
		}
	})
	l2 := append(append([]byte{}, far.HardwareAddr...), near.HardwareAddr...)
	n.hops[number] = call.NextHop{Ifindex: near.Index, L2: append(l2, 0x08, 0x00)}
}

// staticHops is a datapath.NextHopSource for cables that never change.
type staticHops map[uint16]call.NextHop

func (s staticHops) Watch(realm uint16, _ netip.Addr, update func(call.NextHop)) (stop func(), err error) {
	next, ok := s[realm]
	if !ok {
		return nil, fmt.Errorf("realm %d has no cable", realm)
	}
	update(next)
	return func() {}, nil
}

// engine is what the contract is about.
type engine interface {
	Install(flows []call.Flow) error
	Remove(keys []call.FlowKey) ([]call.FlowStats, error)
	Snapshot(keys []call.FlowKey) ([]call.FlowStats, error)
	Events() <-chan call.MediaEvent
	Stats() (call.EngineStats, error)
	Close() error
}

// running is an engine with its name.
type running struct {
	engine
	name string
}

// open makes an engine of the name in the gateway's namespace, until the test ends.
func (n *network) open(t *testing.T, name string) *running {
	t.Helper()
	e := &running{name: name}
	if err := n.lab.Do(gateway, func() (err error) {
		if name == call.EngineKernel {
			cfg := datapath.Config{MaxCalls: 16, NextHops: n.hops}
			for _, number := range []uint16{platform, carrier} {
				cfg.Realms = append(cfg.Realms, datapath.Realm{
					Number: number, Points: []datapath.Point{{Ifindex: n.hops[number].Ifindex}}, Addr: realms[number].gateway, Media: mediaPorts,
				})
			}
			e.engine, err = datapath.Open(cfg)
			return err
		}
		var cfg relay.Config
		for _, number := range []uint16{platform, carrier} {
			cfg.Realms = append(cfg.Realms, relay.Realm{Number: number, Device: realms[number].device})
		}
		e.engine, err = relay.New(cfg)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.close(t) })
	return e
}

// close may be called again.
func (e *running) close(t *testing.T) {
	t.Helper()
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}
