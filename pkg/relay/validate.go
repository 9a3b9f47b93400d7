package relay

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// Bounds of call.Flow.ClockRate in Hz, as in the kernel engine.
const (
	minClockRate = 1000
	maxClockRate = 1_000_000
)

const (
	maxDSCP        = 63
	maxPayloadType = 127
)

// canonical writes IPv4 addresses in one way only, so that they compare, and takes
// copies of what the caller may change.
func canonical(f call.Flow) call.Flow {
	f.Key = canonicalKey(f.Key)
	f.Remote, f.Source, f.Dest = unmap(f.Remote), unmap(f.Source), unmap(f.Dest)
	f.Payloads = append([]call.Payload(nil), f.Payloads...)
	f.Latch.Allowed = append([]netip.Prefix(nil), f.Latch.Allowed...)
	return f
}

func canonicalKey(k call.FlowKey) call.FlowKey {
	k.Local = unmap(k.Local)
	return k
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// sendable reports whether packets can be sent from or to a.
func sendable(a netip.AddrPort) bool {
	return a.Addr().Is4() && !a.Addr().IsUnspecified() && !a.Addr().IsMulticast() && a.Port() != 0
}

// validate reports why a canonical flow cannot be installed. The kernel engine refuses
// the same. What only matters for sending may be missing on hold.
func validate(f *call.Flow) error {
	switch {
	case !sendable(f.Key.Local):
		return fmt.Errorf("%v is no IPv4 address and port", f.Key.Local)
	case f.Remote.IsValid() && !f.Remote.Addr().Is4():
		return fmt.Errorf("remote %v is not IPv4", f.Remote)
	case f.DSCP > maxDSCP:
		return fmt.Errorf("DSCP %d is not from 0 to %d", f.DSCP, maxDSCP)
	case f.ClockRate != 0 && (f.ClockRate < minClockRate || f.ClockRate > maxClockRate):
		return fmt.Errorf("clock rate %d Hz is neither 0 nor from %d to %d", f.ClockRate, minClockRate, maxClockRate)
	case !f.Hold && !sendable(f.Source):
		return fmt.Errorf("source %v is no IPv4 address and port", f.Source)
	case !f.Hold && !sendable(f.Dest):
		return fmt.Errorf("destination %v cannot be sent to", f.Dest)
	}
	if err := validatePayloads(f.Payloads); err != nil {
		return err
	}
	return validateLatch(f.Latch)
}

func validatePayloads(payloads []call.Payload) error {
	var seen [maxPayloadType + 1]bool
	for _, p := range payloads {
		switch {
		case p.In > maxPayloadType || p.Out > maxPayloadType:
			return fmt.Errorf("payload type %d to %d is not from 0 to %d", p.In, p.Out, maxPayloadType)
		case p.Treatment > call.TelephoneEvent:
			return fmt.Errorf("payload type %d: treatment %d is unknown", p.In, p.Treatment)
		case seen[p.In]:
			return fmt.Errorf("payload type %d: given twice", p.In)
		}
		seen[p.In] = true
	}
	return nil
}

func validateLatch(l call.Latch) error {
	switch {
	case l.Window < 0:
		return fmt.Errorf("latch window %v is negative", l.Window)
	case l.Window == 0:
		return nil
	case len(l.Allowed) == 0:
		return errors.New("latch without a prefix to learn from")
	case len(l.Allowed) > call.MaxPrefixes:
		return fmt.Errorf("latch with %d prefixes, more than %d", len(l.Allowed), call.MaxPrefixes)
	}
	for _, p := range l.Allowed {
		if !p.IsValid() || !p.Addr().Is4() {
			return fmt.Errorf("latch prefix %v is not IPv4", p)
		}
	}
	return nil
}
