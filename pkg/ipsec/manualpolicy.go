package ipsec

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// applyPolicies makes those that are missing, and removes those of former addresses and networks.
func (m *manual) applyPolicies() error {
	missing, stale, err := m.comparePolicies()
	if err != nil {
		return err
	}
	for i := range missing {
		if err := netlink.XfrmPolicyUpdate(&missing[i]); err != nil {
			return fmt.Errorf("policy %s %s to %s: %w", missing[i].Dir, missing[i].Src, missing[i].Dst, err)
		}
	}
	return deletePolicies(stale)
}

func deletePolicies(list []netlink.XfrmPolicy) error {
	var errs []error
	for i := range list {
		if err := netlink.XfrmPolicyDel(&list[i]); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("delete policy %s %s to %s: %w", list[i].Dir, list[i].Src, list[i].Dst, err))
		}
	}
	return errors.Join(errs...)
}

// comparePolicies returns what has to be made or mended, and what is ours and is not wanted.
func (m *manual) comparePolicies() (missing, stale []netlink.XfrmPolicy, err error) {
	have, err := m.listPolicies()
	if err != nil {
		return nil, nil, err
	}
	wanted := make(map[policyID]netlink.XfrmPolicy)
	for _, p := range m.policies() {
		wanted[identify(p)] = p
	}
	places := make(map[policyPlace]bool, len(wanted))
	for id := range wanted {
		places[id.policyPlace] = true
	}
	for _, p := range have {
		switch id := identify(p); {
		case places[id.policyPlace]:
			delete(wanted, id)
		default:
			stale = append(stale, p)
		}
	}
	for _, p := range wanted {
		missing = append(missing, p)
	}
	return missing, stale, nil
}

// listPolicies lists those with our reqid.
func (m *manual) listPolicies() ([]netlink.XfrmPolicy, error) {
	return manualPolicies(func(ifID, reqID uint32) bool { return ifID == m.tunnel.IfID && reqID == m.reqID() })
}

func manualPolicies(ours func(ifID, reqID uint32) bool) ([]netlink.XfrmPolicy, error) {
	list, err := netlink.XfrmPolicyList(netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list policies: %w", err)
	}
	return slices.DeleteFunc(list, func(p netlink.XfrmPolicy) bool {
		return len(p.Tmpls) != 1 || !ours(uint32(p.Ifid), uint32(p.Tmpls[0].Reqid))
	}), nil
}

// policyPlace is what the kernel finds a policy by.
type policyPlace struct {
	dir      netlink.Dir
	src, dst string
}

// policyID tells policies apart.
type policyID struct {
	policyPlace
	outer [2]string
	mode  netlink.Mode
}

func identify(p netlink.XfrmPolicy) policyID {
	return policyID{
		policyPlace: policyPlace{p.Dir, p.Src.String(), p.Dst.String()},
		outer:       [2]string{p.Tmpls[0].Src.String(), p.Tmpls[0].Dst.String()}, mode: p.Tmpls[0].Mode,
	}
}

// policies are those of the tunnel: its realm's address to and from each network.
func (m *manual) policies() []netlink.XfrmPolicy {
	inner := prefixNet(netip.PrefixFrom(m.inner, m.inner.BitLen()))
	var list []netlink.XfrmPolicy
	for _, network := range m.tunnel.Networks {
		far := prefixNet(network.Masked())
		list = append(list, m.policy(netlink.XFRM_DIR_IN, far, inner), m.policy(netlink.XFRM_DIR_FWD, far, inner),
			m.policy(netlink.XFRM_DIR_OUT, inner, far))
	}
	return list
}

func (m *manual) policy(dir netlink.Dir, from, to *net.IPNet) netlink.XfrmPolicy {
	src, dst := m.ends(dir == netlink.XFRM_DIR_OUT)
	return netlink.XfrmPolicy{
		Src: from, Dst: to, Dir: dir, Ifid: int(m.tunnel.IfID),
		Tmpls: []netlink.XfrmPolicyTmpl{{
			Src: src.AsSlice(), Dst: dst.AsSlice(), Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TUNNEL, Reqid: int(m.reqID()),
		}},
	}
}

func prefixNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
