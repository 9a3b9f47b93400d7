package traffic

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// Forwarder is the least that an XDP forwarder can do: one look-up, addresses and ports
// rewritten with their checksums, out. It checks and counts nothing.
type Forwarder struct {
	objs forwarder
	link link.Link
}

type forwarder struct {
	Program *ebpf.Program `ebpf:"forward"`
	Hops    *ebpf.Map     `ebpf:"hops"`
	Out     *ebpf.Map     `ebpf:"out"`
}

// NewForwarder forwards flows from device in to device out of the namespace at path, by
// their Key.Local, Source and Dest, all to one neighbour.
func NewForwarder(path, in, out string, neighbour net.HardwareAddr, flows []call.Flow) (*Forwarder, error) {
	f := &Forwarder{}
	if err := within(path, func() error { return f.open(in, out, neighbour, flows) }); err != nil {
		return nil, fmt.Errorf("forwarder on %s: %w", in, errors.Join(err, f.Close()))
	}
	return f, nil
}

func (f *Forwarder) open(in, out string, neighbour net.HardwareAddr, flows []call.Flow) error {
	from, err := net.InterfaceByName(in)
	if err != nil {
		return err
	}
	to, err := net.InterfaceByName(out)
	if err != nil {
		return err
	}
	spec, err := loadTraffic()
	if err != nil {
		return err
	}
	spec.Maps[trafficMapHops].MaxEntries = uint32(len(flows))
	if err := spec.LoadAndAssign(&f.objs, nil); err != nil {
		return fmt.Errorf("load: %w", err)
	}
	if err := f.objs.Out.Put(uint32(0), uint32(to.Index)); err != nil {
		return fmt.Errorf("device %s: %w", out, err)
	}
	ether := make([]byte, 16)
	copy(ether, neighbour)
	copy(ether[6:], to.HardwareAddr)
	binary.BigEndian.PutUint16(ether[12:], 0x0800)
	for _, flow := range flows {
		hop := trafficHop{
			Ether:      [2]uint64{binary.NativeEndian.Uint64(ether), binary.NativeEndian.Uint64(ether[8:])},
			Source:     flow.Source.Addr().As4(),
			Dest:       flow.Dest.Addr().As4(),
			SourcePort: wire(flow.Source.Port()),
			DestPort:   wire(flow.Dest.Port()),
		}
		key := trafficTarget{Addr: flow.Key.Local.Addr().As4(), Port: wire(flow.Key.Local.Port())}
		if err := f.objs.Hops.Put(key, hop); err != nil {
			return fmt.Errorf("flow at %v: %w", flow.Key.Local, err)
		}
	}
	f.link, err = link.AttachXDP(link.XDPOptions{Program: f.objs.Program, Interface: from.Index, Flags: link.XDPDriverMode})
	return err
}

// wire is a port as it is in a packet.
func wire(port uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, port))
}

// Close detaches the forwarder. It may be called more than once.
func (f *Forwarder) Close() error {
	var errs []error
	if f.link != nil {
		errs = append(errs, f.link.Close())
		f.link = nil
	}
	if f.objs.Program != nil {
		errs = append(errs, f.objs.Program.Close(), f.objs.Hops.Close(), f.objs.Out.Close())
		f.objs = forwarder{}
	}
	return errors.Join(errs...)
}
