package ipsec

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// orphanGrace is how long a state that no charon knows stays while the tunnel has others:
// the peer may still send by it.
const orphanGrace = 10 * time.Second

// keyedStates lists the ESP states of a namespace that have their keys. Those that only hold
// an SPI for a negotiation are none.
func keyedStates(path string) ([]state, error) {
	var states []state
	err := inNamespace(path, func() error {
		return eachState(nil, func(message []byte) error {
			s, err := parseState(message, nil)
			if err != nil || s.id.proto != unix.IPPROTO_ESP || s.id.spi == 0 {
				return err
			}
			keyed := false
			err = eachAttribute(message[nl.SizeofXfrmUsersaInfo:], func(kind uint16, _ []byte) error {
				keyed = keyed || kind == nl.XFRMA_ALG_AEAD || kind == nl.XFRMA_ALG_CRYPT
				return nil
			})
			if keyed {
				states = append(states, s)
			}
			return err
		})
	})
	return states, err
}

// deleteState removes one state. One that is gone already is no error.
func deleteState(path string, s state) error {
	return inNamespace(path, func() error { return removeState(s) })
}

// removeState is deleteState in the thread's namespace.
func removeState(s state) error {
	err := netlink.XfrmStateDel(&netlink.XfrmState{
		Src: s.src.AsSlice(), Dst: s.id.dst.AsSlice(), Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TUNNEL,
		Spi: int(s.id.spi), Ifid: int(s.ifID),
	})
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove security association %#x: %w", s.id.spi, err)
	}
	return nil
}

// steer points the outbound policies of a tunnel at one SA. charon has the SPI of the SA that
// it made last in them, so the kernel would take no other one. moved is true if there was one to point.
func steer(path string, ifID, spi uint32) (moved bool, err error) {
	err = inNamespace(path, func() error {
		policies, err := netlink.XfrmPolicyList(netlink.FAMILY_V4)
		if err != nil {
			return fmt.Errorf("list policies: %w", err)
		}
		var errs []error
		for _, p := range policies {
			if p.Dir != netlink.XFRM_DIR_OUT || p.Ifid != int(ifID) || len(p.Tmpls) != 1 || p.Tmpls[0].Spi == int(spi) {
				continue
			}
			p.Tmpls[0].Spi = int(spi)
			moved = true
			if err := netlink.XfrmPolicyUpdate(&p); err != nil {
				errs = append(errs, fmt.Errorf("point policy to security association %#x: %w", spi, err))
			}
		}
		return errors.Join(errs...)
	})
	return moved, err
}

// orphans keeps account of states that belong to no charon: those of one that was killed.
type orphans struct {
	since map[stateID]time.Time
}

// sort finds, among the states of a namespace, those that no SA of charon's has had for
// orphanGrace.
func (o *orphans) sort(states []state, sas []ikeSA, now time.Time) (outdated []state) {
	known := make(map[uint32]bool)
	for _, sa := range sas {
		for _, c := range sa.Children {
			known[c.In], known[c.Out] = true, true
		}
	}
	since := make(map[stateID]time.Time)
	for _, s := range states {
		if known[s.id.spi] {
			continue
		}
		first, seen := o.since[s.id]
		if !seen {
			first = now
		}
		since[s.id] = first
		if now.Sub(first) >= orphanGrace {
			outdated = append(outdated, s)
		}
	}
	o.since = since
	return outdated
}

// pair is true if there is a state each way for an if_id between two addresses.
func pair(states []state, ifID uint32, local, remote netip.Addr) bool {
	in, out := false, false
	for _, s := range states {
		if s.ifID == ifID {
			in = in || s.id.dst == local && s.src == remote
			out = out || s.src == local && s.id.dst == remote
		}
	}
	return in && out
}
