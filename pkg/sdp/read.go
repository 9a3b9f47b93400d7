package sdp

import (
	"net/netip"
	"strconv"
	"strings"

	pion "github.com/pion/sdp/v3"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// read turns a tidied body into a description.
func read(t *tidied) (call.MediaDesc, error) {
	var s pion.SessionDescription
	if err := s.UnmarshalString(t.text); err != nil {
		return call.MediaDesc{}, syntax("%s", err)
	}
	desc := call.MediaDesc{Streams: t.streams}
	if len(s.MediaDescriptions) != len(desc.Streams) {
		return call.MediaDesc{}, syntax("%d m= lines read as %d", len(desc.Streams), len(s.MediaDescriptions))
	}
	for i, m := range s.MediaDescriptions {
		if m.MediaName.Port.Value == 0 {
			continue
		}
		if desc.Audio() != nil {
			t.remark("only the first audio stream is carried")
			break
		}
		t.audio(&desc.Streams[i], &s, m)
	}
	return desc, nil
}

// audio fills in a stream and, if it can be carried, takes its refusal back.
func (t *tidied) audio(out *call.Stream, s *pion.SessionDescription, m *pion.MediaDescription) {
	connection := m.ConnectionInformation
	if connection == nil {
		connection = s.ConnectionInformation
	}
	if connection == nil || connection.Address == nil {
		t.remark("audio without a c= line")
		return
	}
	addr, ok := destination(connection.Address.Address)
	if !ok {
		t.remark("an address that is not IPv4 unicast")
		return
	}
	port := m.MediaName.Port.Value
	if port < call.LowestMediaPort {
		t.remark("a media port below 1024")
		return
	}
	codecs := t.codecs(m)
	if len(codecs) == 0 {
		t.remark("audio without a codec")
		return
	}
	out.Refused = false
	out.Codecs = codecs
	out.RTP = netip.AddrPortFrom(addr, uint16(port))
	out.RTCP = t.rtcp(out.RTP, m)
	_, out.Mux = m.Attribute("rtcp-mux")
	out.Direction = direction(m.Attributes, s.Attributes)
	out.PTime = t.milliseconds(m, "ptime")
	out.MaxPTime = t.milliseconds(m, "maxptime")
}

// destination reads an address that media can be sent to, or 0.0.0.0. Names are
// not resolved, and neither multicast nor broadcast is ever sent to.
func destination(text string) (netip.Addr, bool) {
	text, _, _ = strings.Cut(text, "/")
	addr, err := netip.ParseAddr(text)
	if err != nil || !addr.Is4() {
		return netip.Addr{}, false
	}
	if addr.IsUnspecified() {
		return addr, true
	}
	first := addr.As4()[0]
	return addr, first != 0 && first < 224 // 224 and above: multicast, reserved, broadcast
}

// rtcp is where RTCP goes: the port above RTP unless a=rtcp says otherwise (RFC
// 3605). It is the zero value if there is no such port.
func (t *tidied) rtcp(rtp netip.AddrPort, m *pion.MediaDescription) netip.AddrPort {
	next := netip.AddrPort{}
	if rtp.Port() < 65535 {
		next = netip.AddrPortFrom(rtp.Addr(), rtp.Port()+1)
	}
	value, ok := m.Attribute("rtcp")
	if !ok {
		return next
	}
	f := strings.Fields(value)
	if len(f) != 1 && len(f) != 4 {
		t.remark("a=rtcp that cannot be read")
		return next
	}
	port, err := strconv.ParseUint(f[0], 10, 16)
	if err != nil || port < call.LowestMediaPort {
		t.remark("a=rtcp without a usable port")
		return next
	}
	addr := rtp.Addr()
	if len(f) == 4 {
		if addr, ok = destination(f[3]); !ok {
			t.remark("a=rtcp with an address that is not IPv4 unicast")
			return next
		}
	}
	return netip.AddrPortFrom(addr, uint16(port))
}

// direction is the stream's own, or the session's, or sendrecv (RFC 4566 section 6).
func direction(levels ...[]pion.Attribute) call.Direction {
	for _, attributes := range levels {
		for _, a := range attributes {
			switch a.Key {
			case "sendrecv":
				return call.SendRecv
			case "sendonly":
				return call.SendOnly
			case "recvonly":
				return call.RecvOnly
			case "inactive":
				return call.Inactive
			}
		}
	}
	return call.SendRecv
}

// milliseconds reads a=ptime or a=maxptime; 0 if there is none that makes sense.
func (t *tidied) milliseconds(m *pion.MediaDescription, key string) int {
	value, ok := m.Attribute(key)
	if !ok {
		return 0
	}
	ms, err := strconv.ParseUint(strings.TrimSpace(value), 10, 16)
	if err != nil || ms == 0 || ms > 1000 {
		t.remark("a=" + key + " that is not from 1 to 1000 ms")
		return 0
	}
	return int(ms)
}
