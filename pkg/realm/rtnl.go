package realm

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// protocol is the mark of our addresses, routes and rules, in the range that is free for
// administrators (rtnetlink(7), RTPROT_STATIC and above).
const protocol = 116

// ifaProto is IFA_PROTO (since Linux 5.18), which golang.org/x/sys does not have.
const ifaProto = 11

// From linux/fib_rules.h: FR_ACT_TO_TBL and FRA_L3MDEV.
const (
	actionTable = 1
	fraL3mdev   = 19
)

const (
	loopback = "lo"
	// labelSuffix marks our address on a device that is not ours.
	labelSuffix = ":tdm"
)

// address is an IPv4 address of a device.
type address struct {
	index  int
	prefix netip.Prefix
	label  string
	proto  uint8
}

// ours reports whether we made it: by its protocol, or by its label where a person looks.
func (a address) ours(device string) bool {
	return a.proto == protocol || a.label == device+labelSuffix
}

// route is an IPv4 route.
type route struct {
	table    int
	to       netip.Prefix
	priority uint32
	typ      uint8 // unix.RTN_UNICAST and others
	proto    uint8
	scope    uint8
	index    int // of its device, or 0
	via, src netip.Addr
}

// rule is an IPv4 rule of policy routing.
type rule struct {
	priority uint32
	from, to netip.Prefix
	table    int
	action   uint8
	l3mdev   bool
	proto    uint8
	// others is true for one that asks for more than the above.
	others bool
}

func (s *space) listAddresses() ([]address, error) {
	messages, err := s.dump(unix.RTM_GETADDR, unix.RTM_NEWADDR, nl.NewIfAddrmsg(unix.AF_INET))
	return parseAll(messages, err, parseAddress)
}

// listRoutes lists those of the tables, and ours in whatever table; without tables all.
func (s *space) listRoutes(tables []int) ([]route, error) {
	if len(tables) == 0 {
		return s.filterRoutes(route{})
	}
	list, err := s.filterRoutes(route{proto: protocol})
	if err != nil {
		return nil, err
	}
	for _, table := range tables {
		more, err := s.filterRoutes(route{table: table})
		if err != nil {
			return nil, err
		}
		for _, r := range more {
			if r.proto != protocol {
				list = append(list, r)
			}
		}
	}
	return list, nil
}

// filterRoutes lists the routes with a table and a protocol, where these are not 0. A table that
// the kernel has not made yet has none.
func (s *space) filterRoutes(of route) ([]route, error) {
	msg := &nl.RtMsg{RtMsg: unix.RtMsg{Family: unix.AF_INET, Protocol: of.proto}}
	data := []nl.NetlinkRequestData{msg}
	if of.table != 0 {
		data = append(data, nl.NewRtAttr(unix.RTA_TABLE, nl.Uint32Attr(uint32(of.table))))
	}
	messages, err := s.dump(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, data...)
	if of.table != 0 && isErrno(err, unix.ENOENT) {
		return nil, nil
	}
	list, err := parseAll(messages, err, parseRoute)
	return slices.DeleteFunc(list, func(r route) bool {
		return of.table != 0 && r.table != of.table || of.proto != 0 && r.proto != of.proto
	}), err
}

func (s *space) listRules() ([]rule, error) {
	messages, err := s.dump(unix.RTM_GETRULE, unix.RTM_NEWRULE, &nl.RtMsg{RtMsg: unix.RtMsg{Family: unix.AF_INET}})
	return parseAll(messages, err, parseRule)
}

func parseAll[T any](messages [][]byte, err error, parse func([]byte) (T, error)) ([]T, error) {
	if err != nil {
		return nil, err
	}
	list := make([]T, 0, len(messages))
	for _, m := range messages {
		v, err := parse(m)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}

// attributes walks those of a message behind its fixed part.
func attributes(data []byte, f func(kind uint16, value []byte)) error {
	for len(data) > 0 {
		if len(data) < unix.SizeofRtAttr {
			return errShort
		}
		size := int(binary.NativeEndian.Uint16(data))
		if size < unix.SizeofRtAttr || size > len(data) {
			return fmt.Errorf("attribute of %d bytes in %d", size, len(data))
		}
		f(binary.NativeEndian.Uint16(data[2:])&^unix.NLA_F_NESTED, data[unix.SizeofRtAttr:size])
		data = data[min((size+3)&^3, len(data)):]
	}
	return nil
}

// scan is a reader of attributes that remembers the first one of a wrong size.
type scan struct{ err error }

func (s *scan) fixed(value []byte, size int) bool {
	if len(value) != size && s.err == nil {
		s.err = fmt.Errorf("attribute of %d bytes, not %d", len(value), size)
	}
	return len(value) == size
}

func (s *scan) addr(value []byte, to *netip.Addr) {
	if s.fixed(value, 4) {
		*to = netip.AddrFrom4([4]byte(value))
	}
}

func (s *scan) number(value []byte, to *uint32) {
	if s.fixed(value, 4) {
		*to = binary.NativeEndian.Uint32(value)
	}
}

func (s *scan) octet(value []byte, to *uint8) {
	if s.fixed(value, 1) {
		*to = value[0]
	}
}

// prefix checks the length that a message gives.
func (s *scan) prefix(a netip.Addr, bits uint8) netip.Prefix {
	p := netip.PrefixFrom(a, int(bits))
	if !p.IsValid() && s.err == nil {
		s.err = fmt.Errorf("prefix length %d", bits)
	}
	return p
}

func parseAddress(data []byte) (address, error) {
	if len(data) < unix.SizeofIfAddrmsg {
		return address{}, errShort
	}
	var a address
	var local netip.Addr
	var s scan
	a.index = int(binary.NativeEndian.Uint32(data[4:]))
	err := attributes(data[unix.SizeofIfAddrmsg:], func(kind uint16, value []byte) {
		switch kind {
		case unix.IFA_LOCAL:
			s.addr(value, &local)
		case unix.IFA_LABEL:
			a.label = unix.ByteSliceToString(value)
		case ifaProto:
			s.octet(value, &a.proto)
		}
	})
	if err == nil {
		a.prefix, err = s.prefix(local, data[1]), s.err
	}
	if err != nil {
		return address{}, fmt.Errorf("address: %w", err)
	}
	return a, nil
}

func parseRoute(data []byte) (route, error) {
	if len(data) < unix.SizeofRtMsg {
		return route{}, errShort
	}
	r := route{table: int(data[4]), proto: data[5], scope: data[6], typ: data[7]}
	to, table, index := netip.IPv4Unspecified(), uint32(data[4]), uint32(0)
	var s scan
	err := attributes(data[unix.SizeofRtMsg:], func(kind uint16, value []byte) {
		switch kind {
		case unix.RTA_DST:
			s.addr(value, &to)
		case unix.RTA_GATEWAY:
			s.addr(value, &r.via)
		case unix.RTA_PREFSRC:
			s.addr(value, &r.src)
		case unix.RTA_TABLE:
			s.number(value, &table)
		case unix.RTA_OIF:
			s.number(value, &index)
		case unix.RTA_PRIORITY:
			s.number(value, &r.priority)
		}
	})
	if err == nil {
		r.to, err = s.prefix(to, data[1]), s.err
	}
	if err != nil {
		return route{}, fmt.Errorf("route: %w", err)
	}
	r.table, r.index = int(table), int(index)
	return r, nil
}

func parseRule(data []byte) (rule, error) {
	if len(data) < unix.SizeofRtMsg {
		return rule{}, errShort
	}
	r := rule{action: data[7]}
	from, to := netip.IPv4Unspecified(), netip.IPv4Unspecified()
	table, l3mdev := uint32(data[4]), uint8(0)
	var s scan
	err := attributes(data[unix.SizeofRtMsg:], func(kind uint16, value []byte) {
		switch kind {
		case unix.RTA_SRC:
			s.addr(value, &from)
		case unix.RTA_DST:
			s.addr(value, &to)
		case unix.RTA_TABLE:
			s.number(value, &table)
		case nl.FRA_PRIORITY:
			s.number(value, &r.priority)
		case fraL3mdev:
			s.octet(value, &l3mdev)
		case nl.FRA_PROTOCOL:
			s.octet(value, &r.proto)
		case nl.FRA_SUPPRESS_PREFIXLEN: // always told
		default:
			r.others = true
		}
	})
	if err == nil {
		r.from, r.to = s.prefix(from, data[2]), s.prefix(to, data[1])
		err = s.err
	}
	if err != nil {
		return rule{}, fmt.Errorf("rule: %w", err)
	}
	r.table, r.l3mdev = int(table), l3mdev != 0
	return r, nil
}

// parseLink reads which device a message is about.
func parseLink(data []byte) (index uint32, name string, err error) {
	if len(data) < unix.SizeofIfInfomsg {
		return 0, "", errShort
	}
	err = attributes(data[unix.SizeofIfInfomsg:], func(kind uint16, value []byte) {
		if kind == unix.IFLA_IFNAME {
			name = unix.ByteSliceToString(value)
		}
	})
	return binary.NativeEndian.Uint32(data[4:]), name, err
}
