package netlab

import (
	"bytes"
	"fmt"
	"net/netip"
	"time"
)

// maxProblems bounds how many findings a report spells out.
const maxProblems = 20

// MediaReport says how the RTP of a set of calls came through.
type MediaReport struct {
	// Sent and Received count every RTP packet that left and reached the captured
	// hosts, whether it belongs to a call or not.
	Sent, Received uint64
	// Lost packets were sent and did not arrive at the far end of their call, or
	// belong to no call at all.
	Lost uint64
	// Altered packets arrived with another payload, type, marker or timestamp.
	Altered uint64
	// Duplicated packets arrived again; Foreign ones arrived without having been sent
	// by the other end of the call.
	Duplicated, Foreign uint64
	// BadChecksums, DSCP and TTL are of the packets received.
	BadChecksums uint64
	DSCP, TTL    map[uint8]uint64
	// LostAt are the times at which lost packets of calls were sent.
	LostAt []time.Time
	// Streams compared, one per direction and SSRC.
	Streams int
	// Problems spells out the first findings.
	Problems []string
}

// Clean reports whether every packet sent arrived once, unchanged and whole.
func (r *MediaReport) Clean() bool {
	return r.Lost == 0 && r.Altered == 0 && r.Duplicated == 0 && r.Foreign == 0 && r.BadChecksums == 0
}

// DSCPOnly reports whether all RTP that arrived, and some did, carries the code point.
func (r *MediaReport) DSCPOnly(dscp uint8) bool {
	return r.Received > 0 && r.DSCP[dscp] == r.Received
}

func (r *MediaReport) problem(format string, args ...any) {
	if len(r.Problems) < maxProblems {
		r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
	}
}

// path is one direction of one address pair at one host.
type path struct {
	host     string
	src, dst netip.AddrPort
	out      bool
}

// CompareMedia follows every stream of the answered calls from the interface of the
// peer that sent it to that of the peer that it was for, byte for byte.
func CompareMedia(calls []Call, logs ...*Log) MediaReport {
	r := MediaReport{DSCP: map[uint8]uint64{}, TTL: map[uint8]uint64{}}
	streams := map[path]map[uint32]*Stream{}
	for _, log := range logs {
		for key, s := range log.Streams {
			p := path{host: log.Host, src: key.Src, dst: key.Dst, out: key.Out}
			if streams[p] == nil {
				streams[p] = map[uint32]*Stream{}
			}
			streams[p][key.SSRC] = s
			r.count(key, s)
		}
	}
	claimed := map[path]bool{}
	for _, c := range calls {
		callee := c.Callee()
		if callee == nil {
			continue
		}
		for _, way := range [][2]*Leg{{&c.Caller, callee}, {callee, &c.Caller}} {
			from, to := way[0], way[1]
			sent := path{host: from.Host, src: from.Peer, dst: from.Gateway, out: true}
			received := path{host: to.Host, src: to.Gateway, dst: to.Peer}
			// Without a gateway in between, calls may share their addresses: once is enough.
			if claimed[sent] && claimed[received] {
				continue
			}
			claimed[sent], claimed[received] = true, true
			r.compare(fmt.Sprintf("%s from %s to %s", c.Number, from.Host, to.Host), streams[sent], streams[received])
		}
	}
	for p, of := range streams {
		if claimed[p] {
			continue
		}
		for ssrc, s := range of {
			n := uint64(len(s.Packets))
			if p.out {
				r.Lost += n
			} else {
				r.Foreign += n
			}
			r.problem("%s: %d packets %v to %v, SSRC %08x, belong to no answered call", p.host, n, p.src, p.dst, ssrc)
		}
	}
	return r
}

func (r *MediaReport) count(key StreamKey, s *Stream) {
	if key.Out {
		r.Sent += uint64(len(s.Packets))
		return
	}
	r.Received += uint64(len(s.Packets))
	for i := range s.Packets {
		r.DSCP[s.Packets[i].DSCP]++
		r.TTL[s.Packets[i].TTL]++
		if !s.Packets[i].ChecksumOK {
			r.BadChecksums++
		}
	}
}

// compare matches one direction of one call.
func (r *MediaReport) compare(name string, sent, received map[uint32]*Stream) {
	for ssrc, s := range received {
		if sent[ssrc] == nil {
			r.Foreign += uint64(len(s.Packets))
			r.problem("%s: %d packets of SSRC %08x were not sent by the other end", name, len(s.Packets), ssrc)
		}
	}
	for ssrc, s := range sent {
		r.Streams++
		arrived := received[ssrc]
		if arrived == nil {
			arrived = &Stream{}
		}
		r.compareStream(fmt.Sprintf("%s, SSRC %08x", name, ssrc), s, arrived)
	}
}

func (r *MediaReport) compareStream(name string, sent, received *Stream) {
	arrived := make(map[int64]*Packet, len(received.Packets))
	highest := sent.first
	for i := range received.Packets {
		p := &received.Packets[i]
		seq := extend(highest, p.Seq)
		highest = max(highest, seq)
		if arrived[seq] != nil {
			r.Duplicated++
			r.problem("%s: packet %d came twice", name, p.Seq)
			continue
		}
		arrived[seq] = p
	}
	highest = sent.first
	lost := 0
	for i := range sent.Packets {
		p := &sent.Packets[i]
		seq := extend(highest, p.Seq)
		highest = max(highest, seq)
		got := arrived[seq]
		delete(arrived, seq)
		switch {
		case got == nil:
			lost++
			r.LostAt = append(r.LostAt, p.Time)
		case !bytes.Equal(got.Payload, p.Payload), got.Timestamp != p.Timestamp,
			got.PayloadType != p.PayloadType, got.Marker != p.Marker:
			r.Altered++
			r.problem("%s: packet %d arrived altered", name, p.Seq)
		}
	}
	if lost > 0 {
		r.Lost += uint64(lost)
		r.problem("%s: %d of %d packets did not arrive", name, lost, len(sent.Packets))
	}
	if len(arrived) > 0 {
		r.Foreign += uint64(len(arrived))
		r.problem("%s: %d packets arrived that were not sent", name, len(arrived))
	}
}
