package datapath

import (
	"encoding/binary"
	"fmt"
	"math"
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

// toRemote is a source as the ABI has it, the zero value if it lets nobody in.
func toRemote(addr [4]uint8, port uint16) netip.AddrPort {
	if port == 0 || addr == [4]uint8{} {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(netip.AddrFrom4(addr), port16(port))
}

// bareWay is struct bare_way of bpf/include/tandem/abi.h, which lies in the place of a header.
func bareWay(neighbour netip.Addr, next call.NextHop) (l2 [22]uint8) {
	addr := addr4(neighbour)
	copy(l2[:], addr[:])
	binary.NativeEndian.PutUint16(l2[4:], uint16(min(max(next.MTU, 0), math.MaxUint16)))
	l2[6] = next.PCP
	return l2
}

// noPayload is a payload type that no packet has: the rule has no main one.
const noPayload = 0xff

// From bpf/include/tandem/abi.h, policy.payload.
const (
	payloadAllowed        = 0x80
	payloadTreatmentShift = 8
)

// toRule is the kernel's form of a flow that leaves by the next hop of that id. Without
// one (hold) it never sends.
func toRule(f call.Flow, nextHop uint16) tandemRule {
	r := tandemRule{
		Remote:     addr4(f.Remote.Addr()),
		RemotePort: port16(f.Remote.Port()),
		SourcePort: port16(f.Source.Port()),
		Dest:       addr4(f.Dest.Addr()),
		DestPort:   port16(f.Dest.Port()),
		NextHop:    nextHop,
		Tos:        f.DSCP << 2,
		PayloadIn:  noPayload,
	}
	r.Addresses = checksumSum(
		checksumDelta(addr4(f.Key.Local.Addr()), r.Dest),
		checksumDelta(r.Remote, addr4(f.Source.Addr()))) // our source takes the place of the remote's
	if nextHop != 0 {
		r.Egress = tandemEgressEGRESS_NEXT_HOP
	}
	for flag, set := range map[tandemRuleFlag]bool{
		tandemRuleFlagRULE_RTCP:  f.RTCP,
		tandemRuleFlagRULE_HOLD:  f.Hold,
		tandemRuleFlagRULE_MUX:   f.Mux,
		tandemRuleFlagRULE_LATCH: f.Latch.Window > 0,
		tandemRuleFlagRULE_ANY:   len(f.Payloads) == 0,
	} {
		if set {
			r.Flags |= flag
		}
	}
	if len(f.Payloads) > 0 {
		r.PayloadIn, r.PayloadOut = f.Payloads[0].In, f.Payloads[0].Out
		r.Treatment = treatments[f.Payloads[0].Treatment]
	}
	if f.ClockRate != 0 {
		r.Tick = uint32(uint64(time.Second) << 10 / uint64(f.ClockRate))
	}
	return r
}

var treatments = map[call.Treatment]tandemTreatment{
	call.AsIs:           tandemTreatmentAS_IS,
	call.ALawToULaw:     tandemTreatmentALAW_TO_ULAW,
	call.ULawToALaw:     tandemTreatmentULAW_TO_ALAW,
	call.TelephoneEvent: tandemTreatmentTELEPHONE_EVENT,
}

// payloadTable is what becomes of each payload type.
func payloadTable(payloads []call.Payload) (table [128]uint16) {
	for _, p := range payloads {
		table[p.In] = payloadAllowed | uint16(p.Out) | uint16(treatments[p.Treatment])<<payloadTreatmentShift
	}
	return table
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

// monotonic is the kernel's clock for packets, in ns.
func monotonic() (uint64, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0, fmt.Errorf("read the monotonic clock: %w", err)
	}
	return uint64(ts.Nano()), nil
}

// clock turns the kernel's monotonic nanoseconds into times of day.
type clock struct {
	boot time.Time
}

func readClock() (clock, error) {
	now, err := monotonic()
	if err != nil {
		return clock{}, err
	}
	// Round drops Go's own monotonic reading: the difference is one of wall clocks.
	return clock{boot: time.Now().Round(0).Add(-time.Duration(now))}, nil
}

func (c clock) time(ns uint64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return c.boot.Add(time.Duration(ns))
}

// snapshot is what a flow's counters were at one time.
type snapshot struct {
	packets, bytes, refused, outOfPolicy, before, lost, first, last, control uint64
	highest, base, reordered, duplicated, jitter, gap, ssrc, ssrcs, digits   uint32
	controls                                                                 uint32
}

// stats reads the counters. Loss is that of closed runs of sequence numbers plus what the
// current one expects beyond what came (RFC 3550 A.3).
func (s snapshot) stats(key call.FlowKey, c clock) call.FlowStats {
	lost := s.lost
	if s.highest != 0 { // it starts at 65536, if there is a run at all
		expected := uint64(max(int32(s.highest-s.base), 0)) + 1 // they may be of two runs
		received := int64(s.packets - s.before)                 // before is below zero if more came than were counted
		if received >= 0 && expected > uint64(received) {
			lost += expected - uint64(received)
		}
	}
	return call.FlowStats{
		Key:         key,
		Packets:     s.packets,
		Bytes:       s.bytes,
		Control:     uint64(s.controls),
		Lost:        lost,
		Reordered:   uint64(s.reordered),
		Duplicated:  uint64(s.duplicated),
		Refused:     s.refused,
		OutOfPolicy: s.outOfPolicy,
		Digits:      uint64(s.digits),
		SSRC:        order32(s.ssrc),
		SSRCChanges: uint64(s.ssrcs),
		Jitter:      time.Duration(s.jitter >> 4),
		Gap:         time.Duration(s.gap) << 10,
		First:       c.time(s.first),
		Last:        c.time(max(s.last, s.control)),
	}
}

// order32 turns a word as it is on the wire into a number.
func order32(v uint32) uint32 {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], v)
	return binary.BigEndian.Uint32(b[:])
}

// exitNames reads reasons and verdicts out of the C enum: DROP_SOURCE_REFUSED is the
// verdict "drop" for the reason "source-refused". So C has the only list of them.
func exitNames(spec *ebpf.CollectionSpec) ([]call.Exit, error) {
	var enum *btf.Enum
	if err := spec.Types.TypeByName("exit", &enum); err != nil {
		return nil, fmt.Errorf("enum exit of the program: %w", err)
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
