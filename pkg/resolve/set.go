package resolve

import (
	"cmp"
	"math/bits"
	"net/netip"
	"slices"
	"strings"
)

// maxEndpoints is how many targets a name may have: those of the lowest priorities
// count. It is also the width of Pick's mask.
const maxEndpoints = 64

// Endpoint is one target of a name.
type Endpoint struct {
	Addr netip.AddrPort `json:"addr"`
	// Host is the target of the SRV record, or the name itself.
	Host string `json:"host,omitzero"`
	// Priority and Weight are those of the SRV record (RFC 2782); 0 without one.
	Priority uint16 `json:"priority"`
	Weight   uint16 `json:"weight"`
}

// Set is all targets of a name, by priority. It does not change.
type Set struct{ endpoints []Endpoint }

// newSet puts endpoints in order: by priority, those without weight first (RFC 2782),
// then by host, so that equal answers make equal sets. An address that several records
// have is kept once, where it stands first.
func newSet(endpoints []Endpoint) Set {
	slices.SortFunc(endpoints, func(a, b Endpoint) int {
		return cmp.Or(
			cmp.Compare(a.Priority, b.Priority),
			cmp.Compare(min(a.Weight, 1), min(b.Weight, 1)),
			cmp.Compare(a.Host, b.Host),
			cmp.Compare(a.Addr.Port(), b.Addr.Port()),
			a.Addr.Compare(b.Addr),
			cmp.Compare(b.Weight, a.Weight),
		)
	})
	var kept []Endpoint
	for _, e := range endpoints {
		if len(kept) < maxEndpoints && !slices.ContainsFunc(kept, func(k Endpoint) bool { return k.Addr == e.Addr }) {
			kept = append(kept, e)
		}
	}
	return Set{kept}
}

// SetOf makes a set of endpoints that come from elsewhere, such as a part of another set.
func SetOf(endpoints ...Endpoint) Set { return newSet(slices.Clone(endpoints)) }

// Len is the number of targets, 64 at most.
func (s Set) Len() int { return len(s.endpoints) }

// At returns a target; those that the peer wants first come first.
func (s Set) At(i int) Endpoint { return s.endpoints[i] }

// Contains reports whether an address is that of a target, on any port.
func (s Set) Contains(a netip.Addr) bool {
	return slices.ContainsFunc(s.endpoints, func(e Endpoint) bool { return e.Addr.Addr() == a })
}

// Equal reports whether both have the same targets with the same priorities and weights.
func (s Set) Equal(o Set) bool { return slices.Equal(s.endpoints, o.endpoints) }

// String lists the addresses.
func (s Set) String() string {
	text := make([]string, len(s.endpoints))
	for i, e := range s.endpoints {
		text[i] = e.Addr.String()
	}
	return strings.Join(text, " ")
}

// Pick chooses the target for one attempt, as RFC 2782 says: of the lowest priority that
// has one alive, by weight; of a host with several addresses any. It reports false if
// none is alive. random(n) is evenly spread over 0 to n-1; alive is asked once a target at
// most, and nil takes all of them as alive. Pick does not allocate.
func (s Set) Pick(random func(n uint32) uint32, alive func(netip.AddrPort) bool) (at netip.AddrPort, ok bool) {
	for from, to := 0, 0; from < len(s.endpoints); from = to {
		var up uint64
		for to = from; to < len(s.endpoints) && s.endpoints[to].Priority == s.endpoints[from].Priority; to++ {
			if alive == nil || alive(s.endpoints[to].Addr) {
				up |= 1 << to
			}
		}
		if up != 0 {
			return s.endpoints[s.choose(up, random)].Addr, true
		}
	}
	return netip.AddrPort{}, false
}

// choose picks one of the endpoints in the mask, which are of one priority.
func (s Set) choose(up uint64, random func(n uint32) uint32) int {
	mask := s.weighted(up, random)
	for skip := random(uint32(bits.OnesCount64(mask))); skip > 0; skip-- {
		mask &= mask - 1
	}
	return bits.TrailingZeros64(mask)
}

// weighted picks a record: the mask of its endpoints. The number drawn is from 0 to the
// sum of weights (RFC 2782), and 0 stands for the records without weight: they have a
// small chance. Where there are none 0 is not drawn, or it would favour the first record.
func (s Set) weighted(up uint64, random func(n uint32) uint32) uint64 {
	weightless, sum := uint32(0), uint32(0)
	for rest := up; rest != 0; rest &^= s.record(rest) {
		weight := s.weight(rest)
		sum += weight
		if weight == 0 {
			weightless++
		}
	}
	drawn := uint32(0)
	if weightless == 0 {
		drawn = 1 + random(sum)
	} else if sum > 0 {
		drawn = random(sum + 1)
	}
	skip := uint32(0)
	if drawn == 0 {
		skip = random(weightless)
	}
	for rest := up; ; rest &^= s.record(rest) {
		weight := s.weight(rest)
		switch {
		case drawn == 0 && skip == 0, drawn > 0 && weight >= drawn:
			return s.record(rest)
		case drawn == 0:
			skip--
		default:
			drawn -= weight
		}
	}
}

// weight is that of the first record of a mask.
func (s Set) weight(mask uint64) uint32 {
	return uint32(s.endpoints[bits.TrailingZeros64(mask)].Weight)
}

// record is the part of a mask that belongs to its first record.
func (s Set) record(mask uint64) (part uint64) {
	first := s.endpoints[bits.TrailingZeros64(mask)]
	for rest := mask; rest != 0; rest &= rest - 1 {
		e := s.endpoints[bits.TrailingZeros64(rest)]
		if e.Host != first.Host || e.Addr.Port() != first.Addr.Port() {
			break
		}
		part |= rest & -rest
	}
	return part
}
