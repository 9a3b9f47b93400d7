package ipsec

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// manualReqID and the if_id make the reqid of what manual keying has made, so that it is told
	// from charon's, which counts from 1. It is in the range that the kernel leaves to manual
	// keying (IPSEC_MANUAL_REQID_MAX, linux/ipsec.h).
	manualReqID = 0x3000
	// manualWindow is the replay window, in packets.
	manualWindow = 256
	// manualAlgorithm with an ICV of manualICV bits is AES-256-GCM of RFC 4106.
	manualAlgorithm = "rfc4106(gcm(aes))"
	manualICV       = 128
)

// manual keeps the security associations and policies of a tunnel without IKE (I5). Those that
// are in the kernel already with the same SPI and key are left alone: their sequence numbers
// go on, over a restart of the daemon too.
type manual struct {
	tunnel Tunnel
	inner  netip.Addr
	path   string
	log    *slog.Logger

	mu sync.Mutex
	// wanted are the associations of the last apply that came through.
	wanted []stateID
	// retiring are those that are wanted no more, and when they go.
	retiring map[stateID]time.Time
	// sent are outbound SPIs that the kernel had when we looked: their keys are used up.
	sent map[uint32]bool
	// made has the number of each outbound association that we made, from 1: two of one second
	// are told apart by it.
	made   map[stateID]uint64
	count  uint64
	warned map[uint32]bool
}

// newManual touches nothing yet. inner is the realm's own address, path the network namespace of
// the tunnel's outer side.
func newManual(t Tunnel, inner netip.Addr, path string, log *slog.Logger) *manual {
	return &manual{
		tunnel: t, inner: inner, path: path, log: log.With("realm", t.Realm, "tunnel", t.Name),
		retiring: make(map[stateID]time.Time), sent: make(map[uint32]bool), warned: make(map[uint32]bool),
		made: make(map[stateID]uint64),
	}
}

// held is an association of ours in the kernel.
type held struct {
	id    stateID
	added uint64
	// out means that it is outbound, same that it is wanted and is as it should be.
	out, same bool
}

// apply reads the keys and makes the kernel's associations and policies what they say, in this
// order: new inbound ones, so that the peer may use them; the new outbound one, which the kernel
// prefers at once to older ones; and policies that are missing. Old associations go after the
// grace, with sweep.
func (m *manual) apply(ctx context.Context) error {
	keys, err := readManualKeys(m.tunnel.Manual)
	if err != nil {
		return fmt.Errorf("manual keys: %w", err)
	}
	defer keys.clear()
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return inNamespace(m.path, func() error { return m.change(keys, time.Now()) })
}

func (m *manual) change(keys *manualKeys, now time.Time) error {
	have, err := m.look(keys)
	if err != nil {
		return err
	}
	inbound, err := m.addInbound(keys, have)
	if err != nil {
		return err
	}
	outbound, err := m.addOutbound(keys, have)
	if err != nil {
		return err
	}
	if err := m.applyPolicies(); err != nil {
		return err
	}
	m.wanted = m.wanted[:0]
	for i := range keys.inbound {
		m.wanted = append(m.wanted, m.inboundID(keys.inbound[i].spi))
	}
	m.wanted = append(m.wanted, m.outboundID(keys.outbound.spi))
	left, err := m.look(nil)
	if err != nil {
		return err
	}
	old := m.retire(left, now)
	if len(have) > 0 && (inbound > 0 || outbound) {
		m.count++
		m.log.Info("manual keys changed", "inbound", inbound, "outbound", outbound, "old", old, "grace", m.tunnel.Manual.Grace)
	}
	return nil
}

// look lists our associations. Without keys none of them is the same.
func (m *manual) look(keys *manualKeys) ([]held, error) {
	var list []held
	err := eachState(nil, func(message []byte) error {
		_, err := parseState(message, func(s state, a aead) {
			if s.ifID != m.tunnel.IfID || s.reqID != m.reqID() || s.id.proto != unix.IPPROTO_ESP {
				return
			}
			h := held{id: s.id, added: s.added, out: s.id.dst != m.tunnel.Local.Addr()}
			if keys != nil {
				h.same = m.same(s, a, keys, h.out)
			}
			list = append(list, h)
		})
		return err
	})
	return list, err
}

// same compares an association with the key that is wanted for its SPI.
func (m *manual) same(s state, a aead, keys *manualKeys, out bool) bool {
	key := &keys.outbound
	if !out {
		if key = keys.of(s.id.spi); key == nil {
			return false
		}
	}
	src, dst := m.ends(out)
	placed := s.id.spi == key.spi && s.src == src && s.id.dst == dst && s.mode == uint8(netlink.XFRM_MODE_TUNNEL)
	if !placed || !s.esn || s.window != manualWindow || a.name != manualAlgorithm || a.icv != manualICV || len(a.key) != manualKeySize {
		return false
	}
	// A kernel in lockdown reports zeros (security=lockdown, confidentiality): the SPI has to do.
	var hidden [manualKeySize]byte
	return subtle.ConstantTimeCompare(a.key, key.key[:]) == 1 || subtle.ConstantTimeCompare(a.key, hidden[:]) == 1
}

func (k *manualKeys) of(spi uint32) *manualKey {
	for i := range k.inbound {
		if k.inbound[i].spi == spi {
			return &k.inbound[i]
		}
	}
	return nil
}

// ends are the outer addresses of one direction.
func (m *manual) ends(out bool) (src, dst netip.Addr) {
	if out {
		return m.tunnel.Local.Addr(), m.tunnel.Remote
	}
	return m.tunnel.Remote, m.tunnel.Local.Addr()
}

func (m *manual) inboundID(spi uint32) stateID {
	return stateID{dst: m.tunnel.Local.Addr(), spi: spi, proto: unix.IPPROTO_ESP}
}

func (m *manual) outboundID(spi uint32) stateID {
	return stateID{dst: m.tunnel.Remote, spi: spi, proto: unix.IPPROTO_ESP}
}

func (m *manual) reqID() uint32 { return manualReqID + m.tunnel.IfID }

func (m *manual) addInbound(keys *manualKeys, have []held) (added int, err error) {
	for i := range keys.inbound {
		made, err := m.add(&keys.inbound[i], m.inboundID(keys.inbound[i].spi), false, have)
		if err != nil {
			return added, err
		}
		if made {
			added++
		}
	}
	return added, nil
}

func (m *manual) addOutbound(keys *manualKeys, have []held) (added bool, err error) {
	id := m.outboundID(keys.outbound.spi)
	added, err = m.add(&keys.outbound, id, true, have)
	if err != nil {
		return added, err
	}
	if added {
		m.made[id] = uint64(len(m.made) + 1)
		m.warn(keys.outbound.spi, len(have) > 0)
	}
	m.sent[keys.outbound.spi] = true
	for _, wanted := range have {
		if wanted.id != id || !wanted.same {
			continue
		}
		// Back to an earlier key: what was made after it goes at once, or the kernel would
		// prefer that one.
		for _, h := range have {
			if h.out && h.id.dst == id.dst && h.id != id && m.newer(h, wanted) {
				if err := m.delete(h.id); err != nil {
					return added, err
				}
			}
		}
	}
	return added, nil
}

// newer is true if the kernel prefers a to b. In doubt, about two that were made in one second
// before the daemon's start, it is true as well.
func (m *manual) newer(a, b held) bool {
	return a.added > b.added || a.added == b.added && m.made[a.id] >= m.made[b.id]
}

// warn tells of a key that may have been used before. Linux begins the nonces of each
// association at a random place, so that they hardly repeat; but the peer takes low sequence
// numbers for replayed packets, and its own nonces are its own affair.
func (m *manual) warn(spi uint32, change bool) {
	if change && !m.sent[spi] || m.warned[spi] {
		return
	}
	m.warned[spi] = true
	m.log.Warn("outbound manual key begins at sequence number 1: if it was in use before, e.g. before a reboot, "+
		"the peer drops packets as replayed, and AES-GCM must not use a key anew (RFC 4106 section 2); "+
		"give both sides new keys with new SPIs", "spi", fmt.Sprintf("%#x", spi))
}

// add makes an association unless it is there. One with the same SPI and another key has to go
// first, and packets are lost: that is why a new key needs a new SPI.
func (m *manual) add(key *manualKey, id stateID, out bool, have []held) (bool, error) {
	for _, h := range have {
		if h.id != id {
			continue
		}
		if h.same {
			return false, nil
		}
		m.log.Warn("key changed without a new SPI: packets are lost", "spi", fmt.Sprintf("%#x", id.spi))
		if err := m.delete(id); err != nil {
			return false, err
		}
	}
	src, dst := m.ends(out)
	// No direction is given: with it the kernel refuses a replay window on the outbound side, and
	// extended sequence numbers need one.
	sa := netlink.XfrmState{
		Src: src.AsSlice(), Dst: dst.AsSlice(), Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TUNNEL, Spi: int(id.spi),
		Reqid: int(m.reqID()), Ifid: int(m.tunnel.IfID), ESN: true, ReplayWindow: manualWindow,
		Aead: &netlink.XfrmStateAlgo{Name: manualAlgorithm, Key: key.key[:], ICVLen: manualICV},
	}
	if err := netlink.XfrmStateAdd(&sa); err != nil {
		if errors.Is(err, unix.EEXIST) {
			return false, fmt.Errorf("SPI %#x is used by another security association to %s: %w", id.spi, dst, err)
		}
		return false, fmt.Errorf("add security association with SPI %#x: %w", id.spi, err)
	}
	return true, nil
}

// delete removes an association that may have gone already.
func (m *manual) delete(id stateID) error {
	err := netlink.XfrmStateDel(&netlink.XfrmState{
		Dst: id.dst.AsSlice(), Proto: netlink.XFRM_PROTO_ESP, Spi: int(id.spi), Ifid: int(m.tunnel.IfID),
	})
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("delete security association with SPI %#x: %w", id.spi, err)
	}
	delete(m.retiring, id)
	return nil
}

// retire gives those that are not wanted their time to go, and returns how many are waiting.
func (m *manual) retire(have []held, now time.Time) int {
	waiting := make(map[stateID]time.Time)
	for _, h := range have {
		if m.isWanted(h.id) {
			continue
		}
		due, ok := m.retiring[h.id]
		if !ok {
			due = now.Add(m.tunnel.Manual.Grace)
		}
		waiting[h.id] = due
	}
	m.retiring = waiting
	return len(waiting)
}

func (m *manual) isWanted(id stateID) bool {
	for _, w := range m.wanted {
		if w == id {
			return true
		}
	}
	return false
}

// sweep removes old associations whose grace is over. again is when the next one's is; zero
// if none is left.
func (m *manual) sweep(now time.Time) (again time.Time, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var due []stateID
	for id, at := range m.retiring {
		if !at.After(now) {
			due = append(due, id)
		}
	}
	if len(due) > 0 {
		err = inNamespace(m.path, func() error {
			var errs []error
			for _, id := range due {
				errs = append(errs, m.delete(id))
			}
			return errors.Join(errs...)
		})
	}
	for _, at := range m.retiring {
		if again.IsZero() || at.Before(again) {
			again = at
		}
	}
	return again, err
}

// up asks the kernel whether all that the last apply made is there. An error says nothing about it.
func (m *manual) up() (complete bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.wanted) == 0 {
		return false, nil
	}
	err = inNamespace(m.path, func() error {
		have, err := m.look(nil)
		if err != nil {
			return err
		}
		there := make(map[stateID]bool, len(have))
		for _, h := range have {
			there[h.id] = true
		}
		for _, id := range m.wanted {
			if !there[id] {
				return nil
			}
		}
		missing, _, err := m.comparePolicies()
		complete = err == nil && len(missing) == 0
		return err
	})
	return complete, err
}

// changes counts changes of keys since the daemon's start.
func (m *manual) changes() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.count
}

// removeManual removes what manual keying has made in a namespace, but for the interfaces of keep,
// and returns how much that was. What IKE has made stays.
func removeManual(path string, keep map[uint32]bool) (removed int, err error) {
	ours := func(ifID, reqID uint32) bool { return ifID != 0 && reqID == manualReqID+ifID && !keep[ifID] }
	err = inNamespace(path, func() error {
		states, err := manualStates(ours)
		if err != nil {
			return err
		}
		policies, err := manualPolicies(ours)
		if err != nil {
			return err
		}
		removed = len(states) + len(policies)
		errs := []error{deletePolicies(policies)}
		for _, s := range states {
			errs = append(errs, removeState(s))
		}
		return errors.Join(errs...)
	})
	return removed, err
}

func manualStates(ours func(ifID, reqID uint32) bool) ([]state, error) {
	var list []state
	err := eachState(nil, func(message []byte) error {
		s, err := parseState(message, nil)
		if err == nil && s.id.proto == unix.IPPROTO_ESP && ours(s.ifID, s.reqID) {
			list = append(list, s)
		}
		return err
	})
	return list, err
}
