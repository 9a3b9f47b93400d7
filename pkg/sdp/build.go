package sdp

import (
	"net/netip"
	"strconv"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// Origin is what the o= line of a description says (RFC 4566 section 5.2).
type Origin struct {
	// SessionID stays the same for a dialog; below 2^63, since peers read it as signed.
	SessionID uint64
	// Version goes up by one with each change (RFC 3264 section 8).
	Version uint64
	// Addr is ours: the o= line's and, unless a stream says otherwise, the c= line's.
	Addr netip.Addr
}

// Build writes a description from what d says and nothing else: v, o, s, c, t, m
// and the attributes rtpmap, fmtp, ptime, maxptime, direction, rtcp-mux and, where it is
// not the port above, rtcp. A stream's RTP address is written as its own c= line where
// it differs from the origin's; an unspecified one is kept as 0.0.0.0.
func Build(d call.MediaDesc, o Origin) []byte {
	b := make([]byte, 0, 512)
	b = append(b, "v=0\r\no=- "...)
	b = strconv.AppendUint(b, o.SessionID, 10)
	b = append(b, ' ')
	b = strconv.AppendUint(b, o.Version, 10)
	b = append(b, ' ')
	b = appendAddr(b, o.Addr)
	b = append(b, "\r\ns=-\r\nc="...)
	b = appendAddr(b, o.Addr)
	b = append(b, "\r\nt=0 0\r\n"...)
	for i := range d.Streams {
		if s := &d.Streams[i]; s.Refused {
			b = appendRefused(b, s)
		} else {
			b = appendStream(b, s, o.Addr)
		}
	}
	return b
}

// appendRefused writes a stream with port 0 in its place (RFC 3264 section 6).
func appendRefused(b []byte, s *call.Stream) []byte {
	b = append(b, "m="...)
	b = append(b, s.Media...)
	b = append(b, " 0 "...)
	b = append(b, s.Proto...)
	for _, f := range s.Formats {
		b = append(b, ' ')
		b = append(b, f...)
	}
	return append(b, "\r\n"...)
}

func appendStream(b []byte, s *call.Stream, session netip.Addr) []byte {
	b = append(b, "m="...)
	b = append(b, s.Media...)
	b = append(b, ' ')
	b = strconv.AppendUint(b, uint64(s.RTP.Port()), 10)
	b = append(b, ' ')
	b = append(b, s.Proto...)
	for _, c := range s.Codecs {
		b = append(b, ' ')
		b = strconv.AppendUint(b, uint64(c.Type), 10)
	}
	b = append(b, "\r\n"...)
	if s.RTP.Addr() != session {
		b = append(b, "c="...)
		b = appendAddr(b, s.RTP.Addr())
		b = append(b, "\r\n"...)
	}
	for _, c := range s.Codecs {
		b = appendCodec(b, c)
	}
	b = appendMilliseconds(b, "a=ptime:", s.PTime)
	b = appendMilliseconds(b, "a=maxptime:", s.MaxPTime)
	b = append(b, "a="...)
	b = append(b, s.Direction.String()...)
	b = append(b, "\r\n"...)
	b = appendRTCP(b, s)
	if s.Mux {
		b = append(b, "a=rtcp-mux\r\n"...)
	}
	return b
}

func appendCodec(b []byte, c call.Codec) []byte {
	b = append(b, "a=rtpmap:"...)
	b = strconv.AppendUint(b, uint64(c.Type), 10)
	b = append(b, ' ')
	b = append(b, c.Name...)
	b = append(b, '/')
	b = strconv.AppendUint(b, uint64(c.ClockRate), 10)
	if c.Channels > 1 {
		b = append(b, '/')
		b = strconv.AppendUint(b, uint64(c.Channels), 10)
	}
	b = append(b, "\r\n"...)
	if c.Params != "" {
		b = append(b, "a=fmtp:"...)
		b = strconv.AppendUint(b, uint64(c.Type), 10)
		b = append(b, ' ')
		b = append(b, c.Params...)
		b = append(b, "\r\n"...)
	}
	return b
}

func appendMilliseconds(b []byte, key string, ms int) []byte {
	if ms <= 0 {
		return b
	}
	b = append(b, key...)
	b = strconv.AppendInt(b, int64(ms), 10)
	return append(b, "\r\n"...)
}

// appendRTCP writes a=rtcp (RFC 3605) if RTCP is not where it is looked for anyway.
func appendRTCP(b []byte, s *call.Stream) []byte {
	sameAddr := s.RTCP.Addr() == s.RTP.Addr()
	if !s.RTCP.IsValid() || sameAddr && int(s.RTCP.Port()) == int(s.RTP.Port())+1 {
		return b
	}
	b = append(b, "a=rtcp:"...)
	b = strconv.AppendUint(b, uint64(s.RTCP.Port()), 10)
	if !sameAddr {
		b = append(b, ' ')
		b = appendAddr(b, s.RTCP.Addr())
	}
	return append(b, "\r\n"...)
}

func appendAddr(b []byte, a netip.Addr) []byte {
	b = append(b, "IN IP4 "...)
	return a.AppendTo(b)
}
