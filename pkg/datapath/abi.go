package datapath

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// port16 puts a port into the byte order of the wire, as the ABI keeps it; applied
// twice it gives the port back.
func port16(port uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], port)
	return binary.NativeEndian.Uint16(b[:])
}

func addr4(a netip.Addr) [4]uint8 {
	if a = a.Unmap(); a.Is4() {
		return a.As4()
	}
	return [4]uint8{}
}

// toRule is the kernel's form of a flow that leaves by the next hop of that id. Without
// one (hold) it never sends.
func toRule(f call.Flow, nextHop uint16) tandemRule {
	r := tandemRule{
		Remote:     addr4(f.Remote.Addr()),
		RemotePort: port16(f.Remote.Port()),
		Source:     addr4(f.Source.Addr()),
		SourcePort: port16(f.Source.Port()),
		Dest:       addr4(f.Dest.Addr()),
		DestPort:   port16(f.Dest.Port()),
		NextHop:    nextHop,
		Tos:        f.DSCP << 2,
	}
	r.Addresses = checksumDelta(r.Remote, r.Source) // our source takes the place of the remote's
	r.Addresses = checksumSum(r.Addresses, checksumDelta(addr4(f.Key.Local.Addr()), r.Dest))
	if nextHop != 0 {
		r.Flags |= tandemRuleFlagRULE_SEND
	}
	if f.RTCP {
		r.Flags |= tandemRuleFlagRULE_RTCP
	}
	if f.Hold {
		r.Flags |= tandemRuleFlagRULE_HOLD
	}
	if f.ClockRate != 0 {
		r.Tick = uint32(uint64(time.Second) << 10 / uint64(f.ClockRate))
	}
	return r
}

// checksumDelta is what replacing an address adds to a one's complement sum (RFC 1624):
// the complement of each old word and each new word, in the byte order of the wire.
func checksumDelta(old, to [4]uint8) uint16 {
	var sum uint16
	for i := 0; i < 4; i += 2 {
		sum = checksumSum(sum, ^binary.NativeEndian.Uint16(old[i:]))
		sum = checksumSum(sum, binary.NativeEndian.Uint16(to[i:]))
	}
	return sum
}

// checksumSum adds with end-around carry.
func checksumSum(a, b uint16) uint16 {
	sum := uint32(a) + uint32(b)
	return uint16(sum + sum>>16)
}

// clock turns the kernel's monotonic nanoseconds into times of day.
type clock struct {
	boot time.Time
}

func readClock() (clock, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return clock{}, fmt.Errorf("read the monotonic clock: %w", err)
	}
	// Round drops Go's own monotonic reading: the difference is one of wall clocks.
	return clock{boot: time.Now().Round(0).Add(-time.Duration(ts.Nano()))}, nil
}

func (c clock) time(ns uint64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return c.boot.Add(time.Duration(ns))
}

// snapshot is what a flow's counters were at one time.
type snapshot struct {
	packets, bytes, refused, before, lost, first, last uint64
	highest, base, reordered, jitter                   uint32
}

// stats reads the counters. Loss is that of closed runs of sequence numbers plus what the
// current one expects beyond what came (RFC 3550 A.3).
func (s snapshot) stats(key call.FlowKey, c clock) call.FlowStats {
	lost := s.lost
	if s.highest != 0 { // it starts at 65536, if there is a run at all
		expected := uint64(s.highest-s.base) + 1
		if received := s.packets - s.before; expected > received && s.packets >= s.before {
			lost += expected - received
		}
	}
	return call.FlowStats{
		Key:       key,
		Packets:   s.packets,
		Bytes:     s.bytes,
		Lost:      lost,
		Reordered: uint64(s.reordered),
		Refused:   s.refused,
		Jitter:    time.Duration(s.jitter >> 4),
		First:     c.time(s.first),
		Last:      c.time(s.last),
	}
}

// exitNames reads reasons and verdicts out of the C enum: DROP_SOURCE_REFUSED is the
// verdict "drop" for the reason "source-refused". So C has the only list of them.
func exitNames(exits *ebpf.MapSpec) ([]call.Exit, error) {
	enum, ok := exits.Key.(*btf.Enum)
	if !ok {
		return nil, fmt.Errorf("the key of map exits is %T, not an enum", exits.Key)
	}
	names := make([]call.Exit, tandemExitEXITS)
	for _, v := range enum.Values {
		if v.Value >= uint64(len(names)) {
			continue // EXITS itself, the number of them
		}
		verdict, reason, ok := strings.Cut(strings.ToLower(v.Name), "_")
		if !ok {
			return nil, fmt.Errorf("exit %s names no verdict", v.Name)
		}
		names[v.Value] = call.Exit{Verdict: verdict, Reason: strings.ReplaceAll(reason, "_", "-")}
	}
	return names, nil
}
