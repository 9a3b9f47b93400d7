package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/datapath"
	"github.com/tandem-sbc/tandem/pkg/relay"
	"github.com/tandem-sbc/tandem/tests/netlab"
	"github.com/tandem-sbc/tandem/tests/traffic"
)

// Paths by name, as in out/bench.json.
const (
	pathDirect = "direct"
	pathFloor  = "floor"
	pathKernel = "kernel"
	pathNAT    = "nat"
	pathRelay  = "relay"
)

// pathKind is a way for media from a sender to a receiver.
type pathKind struct {
	name string
	// lossless: the path is known by its highest rate without loss. Others are by the most
	// that comes through at all, which flatters them.
	lossless bool
	// forward makes the gateway of the path; nil is a cable from end to end.
	forward func(*site) (closer func() error, err error)
}

// pathKinds, first the one that the others' latency is compared to.
func pathKinds() []pathKind {
	return []pathKind{
		{pathDirect, true, nil},
		{pathFloor, true, forwardFloor},
		{pathKernel, true, forwardKernel},
		{pathNAT, false, forwardNAT},
		{pathRelay, false, forwardRelay},
	}
}

// path is a sender, a gateway and a receiver in a lab of their own.
type path struct {
	pathKind
	lab      *netlab.Lab
	sender   *traffic.Sender
	receiver *traffic.Receiver
	gateway  func() error // closes it
}

// Hosts and devices of a path.
const (
	senderHost, receiverHost = "sender", "receiver"
	senderDevice             = "tdmsnd"
	inDevice, outDevice      = "tdmin", "tdmout"
	receiverDevice           = "tdmrcv"
)

// Where the first of the flows comes from, arrives, leaves, and goes to.
var (
	mediaFrom   = netip.MustParseAddrPort("10.81.0.10:6000")
	mediaIn     = netip.MustParseAddrPort("10.81.0.2:20000")
	mediaOut    = netip.MustParseAddrPort("10.82.0.2:30000")
	mediaTo     = netip.MustParseAddrPort("10.82.0.10:8000")
	mediaPrefix = 24
)

// site is where a gateway is to be made.
type site struct {
	lab *netlab.Lab
	// flows to forward, and the link-layer address they all go to.
	flows    []call.Flow
	neighbor net.HardwareAddr
}

func openPath(ctx context.Context, kind pathKind) (_ *path, err error) {
	p := &path{pathKind: kind}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if p.lab, err = netlab.Up(ctx, mediaTopology(kind.forward != nil)); err != nil {
		return nil, err
	}
	receiverMAC, err := hardwareAddr(p.lab, receiverHost, receiverDevice)
	if err != nil {
		return nil, err
	}
	next, arrival := receiverMAC, mediaIn
	if kind.forward != nil {
		arrival = mediaTo
		if next, err = hardwareAddr(p.lab, netlab.Gateway, inDevice); err != nil {
			return nil, err
		}
	}
	if p.receiver, err = traffic.NewReceiver(namespacePath(p.lab, receiverHost), receiverDevice, mediaFlows, arrival.Port()); err != nil {
		return nil, err
	}
	if kind.forward != nil {
		if p.gateway, err = kind.forward(&site{p.lab, mediaPlan(), receiverMAC}); err != nil {
			return nil, err
		}
	}
	p.sender, err = traffic.NewSender(namespacePath(p.lab, senderHost), senderDevice, traffic.Stream{
		Flows: mediaFlows, Source: mediaFrom, Dest: mediaIn, Gateway: next,
	})
	return p, err
}

func (p *path) close() error {
	var errs []error
	if p.sender != nil {
		errs = append(errs, p.sender.Close())
	}
	if p.gateway != nil {
		errs = append(errs, p.gateway())
	}
	if p.receiver != nil {
		errs = append(errs, p.receiver.Close())
	}
	if p.lab != nil {
		errs = append(errs, p.lab.Close())
	}
	return errors.Join(errs...)
}

func mediaTopology(gateway bool) netlab.Topology {
	end := func(host, device string, at netip.AddrPort) netlab.End {
		return netlab.End{Host: host, Device: device, Address: netip.PrefixFrom(at.Addr(), mediaPrefix)}
	}
	from, to := end(senderHost, senderDevice, mediaFrom), end(receiverHost, receiverDevice, mediaTo)
	t := netlab.Topology{Hosts: []netlab.Host{{Name: senderHost}, {Name: receiverHost}}}
	if !gateway {
		t.Links = []netlab.Link{{A: from, B: to}}
		return t
	}
	t.Hosts = append(t.Hosts, netlab.Host{Name: netlab.Gateway, Forward: true})
	t.Links = []netlab.Link{
		{A: from, B: end(netlab.Gateway, inDevice, mediaIn)},
		{A: end(netlab.Gateway, outDevice, mediaOut), B: to},
	}
	return t
}

// Realms of the gateway.
const (
	realmIn  = 1
	realmOut = 2
)

// mediaPlan is one direction of the calls: G.711 with the expedited forwarding that it has
// in service.
func mediaPlan() []call.Flow {
	at := func(first netip.AddrPort, n int) netip.AddrPort {
		return netip.AddrPortFrom(first.Addr(), first.Port()+uint16(2*n))
	}
	flows := make([]call.Flow, mediaFlows)
	for i := range flows {
		flows[i] = call.Flow{
			Key:       call.FlowKey{Realm: realmIn, Local: at(mediaIn, i)},
			Remote:    at(mediaFrom, i),
			OutRealm:  realmOut,
			Source:    at(mediaOut, i),
			Dest:      at(mediaTo, i),
			DSCP:      46,
			ClockRate: 8000,
			Payloads:  []call.Payload{{In: 8, Out: 8}},
		}
	}
	return flows
}

func forwardFloor(s *site) (func() error, error) {
	f, err := traffic.NewForwarder(namespacePath(s.lab, netlab.Gateway), inDevice, outDevice, s.neighbor, s.flows)
	if err != nil {
		return nil, err
	}
	return f.Close, nil
}

// mediaEngine is what both engines have.
type mediaEngine interface {
	Install([]call.Flow) error
	Events() <-chan call.MediaEvent
	Close() error
}

func forwardKernel(s *site) (func() error, error) {
	return s.forward(func() (mediaEngine, error) {
		in, err := net.InterfaceByName(inDevice)
		if err != nil {
			return nil, err
		}
		out, err := net.InterfaceByName(outDevice)
		if err != nil {
			return nil, err
		}
		realm := func(number uint16, device *net.Interface, at netip.AddrPort) datapath.Realm {
			media := call.PortRange{First: at.Port(), Last: at.Port() + 2*mediaFlows - 1}
			return datapath.Realm{Number: number, Points: []datapath.Point{{Ifindex: device.Index}}, Media: media, Addr: at.Addr()}
		}
		l2 := slices.Concat(s.neighbor, out.HardwareAddr, binary.BigEndian.AppendUint16(nil, 0x0800))
		return datapath.Open(datapath.Config{
			Realms:   []datapath.Realm{realm(realmIn, in, mediaIn), realm(realmOut, out, mediaOut)},
			NextHops: staticHop{Ifindex: out.Index, L2: l2},
		})
	})
}

// staticHop is a neighbour that never changes.
type staticHop call.NextHop

func (h staticHop) Watch(_ uint16, _ netip.Addr, update func(call.NextHop)) (stop func(), err error) {
	update(call.NextHop(h))
	return func() {}, nil
}

func forwardRelay(s *site) (func() error, error) {
	if err := s.setNeighbour(); err != nil {
		return nil, err
	}
	return s.forward(func() (mediaEngine, error) {
		return relay.New(relay.Config{Realms: []relay.Realm{{Number: realmIn, Device: inDevice}, {Number: realmOut, Device: outDevice}}})
	})
}

// forward opens an engine within the gateway and hands it the flows.
func (s *site) forward(open func() (mediaEngine, error)) (closer func() error, err error) {
	var engine mediaEngine
	err = s.lab.Do(netlab.Gateway, func() (err error) {
		if engine, err = open(); err != nil {
			return err
		}
		go func() {
			for range engine.Events() { // as the daemon does; Close ends it
			}
		}()
		if err := engine.Install(s.flows); err != nil {
			return errors.Join(err, engine.Close())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return func() error { return s.lab.Do(netlab.Gateway, engine.Close) }, nil
}

// forwardNAT is the yardstick: the kernel routes, and nftables changes addresses and ports
// by maps. Of each flow it sees the first packet, connection tracking does the rest.
// Checksums are not verified there: a network card would have done that.
func forwardNAT(s *site) (func() error, error) {
	if err := s.setNeighbour(); err != nil {
		return nil, err
	}
	var in, out []string
	for _, f := range s.flows {
		in = append(in, fmt.Sprintf("%d : %s . %d", f.Key.Local.Port(), f.Dest.Addr(), f.Dest.Port()))
		out = append(out, fmt.Sprintf("%d : %s . %d", f.Dest.Port(), f.Source.Addr(), f.Source.Port()))
	}
	rules := fmt.Sprintf(`table ip tdm {
	map in { type inet_service : ipv4_addr . inet_service; elements = { %s } }
	map out { type inet_service : ipv4_addr . inet_service; elements = { %s } }
	chain prerouting {
		type nat hook prerouting priority dstnat;
		iifname %s ip daddr %s dnat ip to udp dport map @in
	}
	chain postrouting {
		type nat hook postrouting priority srcnat;
		oifname %s snat ip to udp dport map @out
	}
}
`, strings.Join(in, ", "), strings.Join(out, ", "), inDevice, mediaIn.Addr(), outDevice)
	if err := s.run(rules, "nft", "-f", "-"); err != nil {
		return nil, err
	}
	err := s.lab.Do(netlab.Gateway, func() error {
		return os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_checksum", []byte("0"), 0)
	})
	return func() error { return nil }, err // it goes with the lab
}

// setNeighbour spares the gateway's stack from asking.
func (s *site) setNeighbour() error {
	return s.run("", "ip", "neigh", "replace", mediaTo.Addr().String(), "lladdr", s.neighbor.String(), "dev", outDevice, "nud", "permanent")
}

// run runs a program within the gateway.
func (s *site) run(stdin, name string, args ...string) error {
	return s.lab.Do(netlab.Gateway, func() error {
		cmd := exec.Command(name, args...)
		cmd.Stdin = strings.NewReader(stdin)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", name, err, out)
		}
		return nil
	})
}

func namespacePath(lab *netlab.Lab, host string) string { return "/run/netns/" + lab.Namespace(host) }

func hardwareAddr(lab *netlab.Lab, host, device string) (addr net.HardwareAddr, err error) {
	err = lab.Do(host, func() error {
		ifi, err := net.InterfaceByName(device)
		if err == nil {
			addr = ifi.HardwareAddr
		}
		return err
	})
	return addr, err
}
