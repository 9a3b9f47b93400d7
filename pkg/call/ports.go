package call

import (
	"fmt"
	"strconv"
	"strings"
)

// LowestMediaPort is the first port that media comes to or is sent to: the ones below are well
// known, and nobody should be able to have us send there (M9).
const LowestMediaPort = 1024

// PortRange is an inclusive range of UDP ports, written "16384-32767".
type PortRange struct {
	First, Last uint16
}

// Contains reports whether p lies in the range.
func (r PortRange) Contains(p uint16) bool { return r.First <= p && p <= r.Last }

// Overlaps reports whether the ranges share a port.
func (r PortRange) Overlaps(o PortRange) bool { return r.First <= o.Last && o.First <= r.Last }

func (r PortRange) String() string { return fmt.Sprintf("%d-%d", r.First, r.Last) }

// MarshalText writes the range as UnmarshalText reads it.
func (r PortRange) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads "FIRST-LAST"; FIRST may not be above LAST.
func (r *PortRange) UnmarshalText(text []byte) error {
	first, last, ok := strings.Cut(string(text), "-")
	if !ok {
		return fmt.Errorf("%q is not FIRST-LAST", text)
	}
	f, err := strconv.ParseUint(strings.TrimSpace(first), 10, 16)
	if err != nil {
		return fmt.Errorf("%q is not a port from 0 to 65535", first)
	}
	l, err := strconv.ParseUint(strings.TrimSpace(last), 10, 16)
	if err != nil {
		return fmt.Errorf("%q is not a port from 0 to 65535", last)
	}
	if f > l {
		return fmt.Errorf("%d is above %d", f, l)
	}
	*r = PortRange{First: uint16(f), Last: uint16(l)}
	return nil
}
