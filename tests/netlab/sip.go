package netlab

import (
	"bytes"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Message is one SIP message on the wire. It is read for the lab's own well-formed
// peers, by its surface only.
type Message struct {
	Time     time.Time
	Out      bool
	Src, Dst netip.AddrPort
	// Method of the request, or of the request that a response is for (its CSeq).
	Method string
	// CSeq is the sequence number.
	CSeq uint32
	// Status of a response, or 0 for a request.
	Status int
	// Number is the user part of a request's URI.
	Number string
	CallID string
	// DSCP of the packet.
	DSCP uint8
	// Raw is the message as it was.
	Raw []byte
}

func parseSIP(at time.Time, out bool, d datagram) (Message, bool) {
	head, _, _ := bytes.Cut(d.payload, []byte("\r\n\r\n"))
	lines := strings.Split(string(head), "\r\n")
	m := Message{Time: at, Out: out, Src: d.src, Dst: d.dst, DSCP: d.dscp, Raw: bytes.Clone(d.payload)}
	start := strings.SplitN(lines[0], " ", 3)
	if len(start) < 3 {
		return Message{}, false
	}
	if start[0] == "SIP/2.0" {
		status, err := strconv.Atoi(start[1])
		if err != nil {
			return Message{}, false
		}
		m.Status = status
	} else {
		m.Method = start[0]
		m.Number = userOf(start[1])
	}
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "call-id", "i":
			m.CallID = value
		case "cseq":
			number, method, _ := strings.Cut(value, " ")
			cseq, err := strconv.ParseUint(number, 10, 32)
			if err != nil {
				return Message{}, false
			}
			m.CSeq, m.Method = uint32(cseq), strings.TrimSpace(method)
		}
	}
	return m, m.CallID != "" && m.Method != ""
}

// userOf takes the user part out of a SIP URI, or nothing.
func userOf(uri string) string {
	_, rest, _ := strings.Cut(uri, ":")
	user, _, found := strings.Cut(rest, "@")
	if !found {
		return ""
	}
	user, _, _ = strings.Cut(user, ";")
	return user
}

// Body is the message's body, or nil.
func (m Message) Body() []byte {
	_, body, _ := bytes.Cut(m.Raw, []byte("\r\n\r\n"))
	return body
}

// AudioAddr is where the sender of a description wants its first audio stream.
func AudioAddr(sdp []byte) (netip.AddrPort, bool) {
	var session, media netip.Addr
	var port uint16
	found := false
	for line := range strings.Lines(string(sdp)) {
		line = strings.TrimRight(line, "\r\n")
		switch {
		case strings.HasPrefix(line, "c=IN IP4 "):
			addr, err := netip.ParseAddr(strings.TrimPrefix(line, "c=IN IP4 "))
			if err != nil {
				return netip.AddrPort{}, false
			}
			if found {
				media = addr
			} else {
				session = addr
			}
		case strings.HasPrefix(line, "m=audio ") && !found:
			fields := strings.Fields(line)
			if len(fields) < 2 {
				return netip.AddrPort{}, false
			}
			p, err := strconv.ParseUint(fields[1], 10, 16)
			if err != nil || p == 0 {
				return netip.AddrPort{}, false
			}
			port, found = uint16(p), true
		case strings.HasPrefix(line, "m=") && found:
			return join(media, session, port)
		}
	}
	if !found {
		return netip.AddrPort{}, false
	}
	return join(media, session, port)
}

// join prefers the address of the media over that of the session.
func join(media, session netip.Addr, port uint16) (netip.AddrPort, bool) {
	if media.IsValid() {
		session = media
	}
	return netip.AddrPortFrom(session, port), session.IsValid()
}
