package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/g711"
)

// sizes of the maps, from the configuration.
type sizes struct {
	ingress, realms, pairs, flows, nextHops, peers, deny, exits uint32
}

const (
	// flowsPerCall: RTP and RTCP, both ways.
	flowsPerCall = 4
	// defaultMaxCalls and maxMaxCalls bound Config.MaxCalls.
	defaultMaxCalls = 16384
	maxMaxCalls     = 1 << 20
	// maxNextHops is the number of different destination addresses at a time: ids are 16 bits.
	maxNextHops = 1 << 16
	// indexes are the interface indexes that there is room for at the least: devices of the realms are made
	// with indexes that are equal to media ports. They take 1 MiB.
	indexes = 1 << 16
	// leastListed is the room for known addresses and for denied prefixes at the least: both may become more
	// while the engine runs. They take 100 KiB.
	leastListed = 1024
	// vlans is VLANS of the ABI: entries in the realm table for each device.
	vlans = 4096
)

// planSizes counts what the configuration can have of each. The flow table takes 584
// bytes for every media port of every realm, 9.6 MB for a range of 16,384.
func planSizes(maxCalls int, realms []Realm, deny int) sizes {
	room := spotsFor(realms)
	n := sizes{
		deny:   uint32(deny),
		realms: room.entries(),
		pairs:  room.single,
		// Twice the flows and some, for those that rest after use.
		nextHops: uint32(min(2*flowsPerCall*maxCalls+1024, maxNextHops)),
	}
	for _, r := range realms {
		for _, p := range r.Points {
			n.ingress = max(n.ingress, uint32(p.Ifindex))
		}
		n.exits = max(n.exits, uint32(r.Number))
		n.flows += r.ports()
		n.peers += 2*uint32(max(len(r.Peers), r.Room)) + 1 // in the realm, and in any; and the realm's address
	}
	n.ingress = (n.ingress/indexes + 1) * indexes
	n.exits++
	n.flows = max(n.flows, 1)
	return n
}

// plan is what load creates: the embedded object with the sizes and settings of a
// configuration.
func plan(n sizes, guard Guard) (*ebpf.CollectionSpec, error) {
	spec, err := loadTandem()
	if err != nil {
		return nil, fmt.Errorf("read the embedded BPF object: %w", err)
	}
	for name, entries := range map[string]uint32{
		tandemMapIngress:      n.ingress,
		tandemMapDevices:      n.ingress,
		tandemMapRealms:       n.realms,
		tandemMapDoubleTagged: n.pairs,
		tandemMapFlows:        n.flows,
		tandemMapRares:        n.flows,
		tandemMapPolicies:     n.flows,
		tandemMapNextHops:     n.nextHops,
		tandemMapHopKeys:      n.nextHops,
		// Twice, for maps that were found: the new entries come before the old ones go.
		tandemMapPeers: 2 * inSteps(max(n.peers, leastListed)),
		tandemMapDeny:  2 * inSteps(max(n.deny, leastListed)),
		tandemMapExits: n.exits,
	} {
		spec.Maps[name].MaxEntries = entries
	}
	for name, perSecond := range map[string]uint32{
		tandemVarSipInterval: guard.SIPPerSecond,
		tandemVarUdpInterval: guard.UDPPerSecond,
	} {
		if err := spec.Variables[name].Set(interval(perSecond)); err != nil {
			return nil, fmt.Errorf("tell the program its %s: %w", name, err)
		}
	}
	spec.Maps[tandemMapLaws].Contents = []ebpf.MapKV{
		{Key: uint32(0), Value: pairs(&g711.ALawToULaw)},
		{Key: uint32(1), Value: pairs(&g711.ULawToALaw)},
	}
	return spec, nil
}

// inSteps rounds a length up to a multiple of 64 (64 at least), so that one entry more makes no other
// maps, into which flows would have to be copied.
func inSteps(n uint32) uint32 { return (max(n, 1) + 63) &^ 63 }

// pairs is a conversion of two octets at a time, in the byte order of this machine.
func pairs(octets *[256]byte) []byte {
	table := make([]byte, 2<<16)
	for first := range octets {
		for second := range octets {
			pair := binary.NativeEndian.Uint16([]byte{byte(first), byte(second)})
			table[2*int(pair)], table[2*int(pair)+1] = octets[first], octets[second]
		}
	}
	return table
}

// shared names the maps that outlive a program. The others hold the settings of one program,
// such as .rodata.
func shared(spec *ebpf.CollectionSpec) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(spec.Maps)), func(name string) bool { return strings.HasPrefix(name, ".") })
}

// newMaps creates the maps that outlive a program.
func newMaps(spec *ebpf.CollectionSpec) (_ mapSet, err error) {
	set := mapSet{}
	defer func() {
		if err != nil {
			err = errors.Join(err, set.close())
		}
	}()
	for _, name := range shared(spec) {
		if set[name], err = ebpf.NewMap(spec.Maps[name]); err != nil {
			delete(set, name)
			return nil, explain(err)
		}
	}
	return set, nil
}

// load creates the programs on maps that are there. Nothing is attached.
func load(spec *ebpf.CollectionSpec, set mapSet) (*tandemObjects, error) {
	objs := new(tandemObjects)
	if err := spec.LoadAndAssign(objs, &ebpf.CollectionOptions{MapReplacements: set}); err != nil {
		return nil, explain(err)
	}
	return objs, nil
}

// Supported reports whether this kernel and this process can run the engine: nil, or the
// reason in words. It loads the programs with small maps and lets go of them again, since
// only the verifier knows.
func Supported() error {
	spec, err := plan(planSizes(1, nil, 0), Guard{})
	if err != nil {
		return err
	}
	objs, err := load(spec, nil)
	if err != nil {
		return err
	}
	return objs.Close()
}

// explain puts the remedy to the errors that an operator can do something about.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("the kernel does not let this process load BPF programs: "+
			"it needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (or root), and no lockdown: %w", err)
	case errors.Is(err, unix.EACCES):
		// Mostly pointer arithmetic, which the verifier grants to CAP_PERFMON only.
		return fmt.Errorf("the kernel's verifier refuses the program, as it does without CAP_PERFMON (or root): %w", err)
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("this kernel lacks what the program needs (Linux 6.1 or newer with BPF and XDP): %w", err)
	case errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("not enough memory for the maps: narrow the media port ranges: %w", err)
	default:
		return fmt.Errorf("load the BPF program: %w", err)
	}
}
