package datapath

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// sizes of the maps, from the configuration.
type sizes struct {
	ingress, realms, flows, nextHops, devices uint32
}

const (
	// flowsPerCall: RTP and RTCP, both ways.
	flowsPerCall = 4
	// defaultMaxCalls and maxMaxCalls bound Config.MaxCalls.
	defaultMaxCalls = 16384
	maxMaxCalls     = 1 << 20
	// maxNextHops is the number of different destination addresses at a time: ids are 16 bits.
	maxNextHops = 1 << 16
	// vlans is VLANS of the ABI: entries in the realm table for each device.
	vlans = 4096
)

// planSizes counts what the configuration can have of each. The flow table takes 168
// bytes for every media port of every realm, 2.8 MB for a range of 16,384.
func planSizes(maxCalls int, realms []Realm) sizes {
	devices := uint32(max(1, len(deviceList(realms))))
	n := sizes{
		realms: devices * vlans,
		// Twice the flows and some, for those that rest after use.
		nextHops: uint32(min(2*flowsPerCall*maxCalls+1024, maxNextHops)),
		devices:  devices,
	}
	for _, r := range realms {
		n.ingress = max(n.ingress, uint32(r.Ifindex))
		n.flows += r.ports()
	}
	n.ingress++
	n.flows = max(n.flows, 1)
	return n
}

// load creates maps and program in the kernel; nothing is attached. The names of the
// exits come with them.
func load(n sizes) (*tandemObjects, *ebpf.CollectionSpec, error) {
	spec, err := loadTandem()
	if err != nil {
		return nil, nil, fmt.Errorf("read the embedded BPF object: %w", err)
	}
	for name, entries := range map[string]uint32{
		tandemMapIngress:  n.ingress,
		tandemMapRealms:   n.realms,
		tandemMapFlows:    n.flows,
		tandemMapRares:    n.flows,
		tandemMapNextHops: n.nextHops,
		tandemMapDevices:  n.devices,
	} {
		spec.Maps[name].MaxEntries = entries
	}
	objs := new(tandemObjects)
	if err := spec.LoadAndAssign(objs, nil); err != nil {
		return nil, nil, explain(err)
	}
	return objs, spec, nil
}

// Supported reports whether this kernel and this process can run the engine: nil, or the
// reason in words. It loads the program with small maps and lets go of it again, since
// only the verifier knows.
func Supported() error {
	objs, _, err := load(planSizes(1, nil))
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
