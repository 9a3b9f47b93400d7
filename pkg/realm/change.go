package realm

import (
	"errors"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// isErrno reports whether an error of netlink is this one.
func isErrno(err error, errno unix.Errno) bool { return err != nil && errors.Is(err, errno) }

func (s *space) change(message, flags int, data ...nl.NetlinkRequestData) error {
	req := s.request(message, unix.NLM_F_ACK|flags)
	for _, d := range data {
		req.AddData(d)
	}
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

func (a address) message() []nl.NetlinkRequestData {
	msg := nl.NewIfAddrmsg(unix.AF_INET)
	msg.Prefixlen, msg.Index = uint8(a.prefix.Bits()), uint32(a.index)
	list := []nl.NetlinkRequestData{
		msg,
		nl.NewRtAttr(unix.IFA_LOCAL, a.prefix.Addr().AsSlice()),
		nl.NewRtAttr(unix.IFA_ADDRESS, a.prefix.Addr().AsSlice()),
	}
	if a.prefix.Bits() < 31 { // RFC 3021: none on a link of two
		list = append(list, nl.NewRtAttr(unix.IFA_BROADCAST, lastAddr(a.prefix).AsSlice()))
	}
	if a.label != "" {
		list = append(list, nl.NewRtAttr(unix.IFA_LABEL, nl.ZeroTerminated(a.label)))
	}
	if a.proto != 0 {
		list = append(list, nl.NewRtAttr(ifaProto, []byte{a.proto}))
	}
	return list
}

func (s *space) addAddress(a address) error {
	return s.change(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, a.message()...)
}

func (s *space) removeAddress(a address) error {
	err := s.change(unix.RTM_DELADDR, 0, a.message()...)
	if isErrno(err, unix.EADDRNOTAVAIL) || isErrno(err, unix.ENODEV) {
		return nil
	}
	return err
}

func (r route) message() []nl.NetlinkRequestData {
	msg := &nl.RtMsg{RtMsg: unix.RtMsg{
		Family: unix.AF_INET, Dst_len: uint8(r.to.Bits()), Protocol: r.proto, Scope: r.scope, Type: r.typ,
	}}
	list := []nl.NetlinkRequestData{msg, nl.NewRtAttr(unix.RTA_TABLE, nl.Uint32Attr(uint32(r.table)))}
	if r.to.Bits() > 0 {
		list = append(list, nl.NewRtAttr(unix.RTA_DST, r.to.Addr().AsSlice()))
	}
	for kind, a := range map[int]netip.Addr{unix.RTA_GATEWAY: r.via, unix.RTA_PREFSRC: r.src} {
		if a.IsValid() {
			list = append(list, nl.NewRtAttr(kind, a.AsSlice()))
		}
	}
	for kind, n := range map[int]uint32{unix.RTA_OIF: uint32(r.index), unix.RTA_PRIORITY: r.priority} {
		if n != 0 {
			list = append(list, nl.NewRtAttr(kind, nl.Uint32Attr(n)))
		}
	}
	return list
}

// addRoute makes a route where there is none to the same prefix with the same metric.
func (s *space) addRoute(r route) error {
	return s.change(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, r.message()...)
}

// replaceRoute puts a route in the place of the one to the same prefix with the same metric:
// there is no moment without.
func (s *space) replaceRoute(r route) error {
	return s.change(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, r.message()...)
}

func (s *space) removeRoute(r route) error {
	err := s.change(unix.RTM_DELROUTE, 0, r.message()...)
	if isErrno(err, unix.ESRCH) || isErrno(err, unix.ENODEV) {
		return nil
	}
	return err
}

func (r rule) message() []nl.NetlinkRequestData {
	// The header of a rule has the action where that of a route has its type.
	msg := &nl.RtMsg{RtMsg: unix.RtMsg{Family: unix.AF_INET, Type: r.action}}
	list := []nl.NetlinkRequestData{
		msg, nl.NewRtAttr(nl.FRA_PRIORITY, nl.Uint32Attr(r.priority)), nl.NewRtAttr(nl.FRA_PROTOCOL, []byte{r.proto}),
	}
	if r.from.Bits() > 0 {
		msg.Src_len = uint8(r.from.Bits())
		list = append(list, nl.NewRtAttr(unix.RTA_SRC, r.from.Addr().AsSlice()))
	}
	if r.to.Bits() > 0 {
		msg.Dst_len = uint8(r.to.Bits())
		list = append(list, nl.NewRtAttr(unix.RTA_DST, r.to.Addr().AsSlice()))
	}
	if r.l3mdev {
		list = append(list, nl.NewRtAttr(fraL3mdev, []byte{1}))
	} else {
		list = append(list, nl.NewRtAttr(unix.RTA_TABLE, nl.Uint32Attr(uint32(r.table))))
	}
	return list
}

func (s *space) addRule(r rule) error {
	return s.change(unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, r.message()...)
}

func (s *space) removeRule(r rule) error {
	err := s.change(unix.RTM_DELRULE, 0, r.message()...)
	if isErrno(err, unix.ENOENT) {
		return nil
	}
	return err
}
