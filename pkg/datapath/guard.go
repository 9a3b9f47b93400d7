package datapath

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/cilium/ebpf"
)

// Guard is what strangers may send (A3): sources that are no realm's Peers.
type Guard struct {
	// Deny lists IPv4 prefixes whose packets are dropped in every realm. A flow whose Remote
	// is one of them lets nobody in.
	Deny []netip.Prefix
	// SIPPerSecond and UDPPerSecond are what one source address may send to the SIP port,
	// and to other ports that are not media ports; 0 is no limit. A second's worth may come
	// at once.
	SIPPerSecond, UDPPerSecond uint32
}

func (g Guard) denies(a netip.Addr) bool {
	return slices.ContainsFunc(g.Deny, func(p netip.Prefix) bool { return p.Contains(a.Unmap()) })
}

// interval is the time between two packets at a rate, in ns; 0 for no limit.
func interval(perSecond uint32) uint64 {
	if perSecond == 0 {
		return 0
	}
	return uint64(time.Second) / uint64(perSecond)
}

// writeGuard brings the lists of known addresses and of denied sources in step with the
// configuration. What is new is added before what is gone is taken out.
func writeGuard(objs *tandemObjects, guard Guard, realms []Realm) error {
	if err := align(objs.Peers, knownOf(realms)); err != nil {
		return fmt.Errorf("known addresses: %w", err)
	}
	denied := map[tandemDenied]uint8{}
	for _, prefix := range guard.Deny {
		denied[tandemDenied{Bits: uint32(prefix.Bits()), Addr: addr4(prefix.Masked().Addr())}] = 1
	}
	if err := align(objs.Deny, denied); err != nil {
		return fmt.Errorf("denied sources: %w", err)
	}
	return nil
}

// knownOf are the addresses that are known in a realm, and those that are in any.
func knownOf(realms []Realm) map[tandemSource]tandemKnownAs {
	known := map[tandemSource]tandemKnownAs{}
	for _, r := range realms {
		known[tandemSource{Addr: addr4(r.Addr)}] |= tandemKnownAsKNOWN_LOCAL
		for _, peer := range r.Peers {
			known[tandemSource{Addr: addr4(peer), Realm: r.Number}] = tandemKnownAsKNOWN_PEER
			known[tandemSource{Addr: addr4(peer)}] |= tandemKnownAsKNOWN_PEER
		}
	}
	return known
}

// align makes the entries of a map those that are wanted.
func align[K, V comparable](m *ebpf.Map, want map[K]V) error {
	for key, value := range want {
		if err := m.Put(key, value); err != nil {
			return fmt.Errorf("add %v: %w", key, err)
		}
	}
	var key K
	var value V
	var gone []K
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		if _, wanted := want[key]; !wanted {
			gone = append(gone, key)
		}
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("list: %w", err)
	}
	for _, key := range gone {
		if err := m.Delete(key); err != nil {
			return fmt.Errorf("remove %v: %w", key, err)
		}
	}
	return nil
}
