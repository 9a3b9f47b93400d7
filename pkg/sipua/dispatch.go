package sipua

import (
	"context"
	"hash/maphash"
	"log/slog"
	"net/netip"
	"strconv"
	"time"
)

// receive takes one datagram from a known source.
func (s *Stack) receive(data []byte, src netip.AddrPort) {
	m, flaw := parse(data, src)
	switch {
	case m == nil: // keep-alive
	case flaw != nil:
		s.count.parse.Add(1)
		if s.cfg.Log.Enabled(context.Background(), slog.LevelDebug) {
			s.cfg.Log.Debug("malformed message", "realm", s.cfg.Realm, "from", src, "answer", flaw.status, "flaw", flaw.phrase)
		}
		if flaw != drop {
			s.refuse(m, flaw)
		}
	case m.status != 0:
		s.receiveResponse(m)
	default:
		s.receiveRequest(m)
	}
}

func (s *Stack) receiveResponse(m *message) {
	s.count.response(m.status, true)
	var tx *clientTx
	// A second Via, or one that is not ours, is somebody else's response.
	if m.via.Rest == "" && m.vias == 1 && m.via.Is(s.host, s.addr.Port()) {
		s.mu.Lock()
		tx = s.clients[clientKey{m.via.Branch, m.cseqMethod}]
		s.mu.Unlock()
	}
	if tx == nil {
		s.count.strays.Add(1)
		return
	}
	tx.onResponse(tx, m)
}

func (s *Stack) receiveRequest(m *message) {
	s.count.request(m.method, true)
	if m.method == methodACK {
		s.receiveACK(m)
		return
	}
	key := m.serverKey(m.method)
	inviteKey := key
	inviteKey.method = methodInvite
	s.mu.Lock()
	tx, invited := s.servers[key], s.servers[inviteKey]
	l := s.dialogs[dialogKey{m.callID, m.toTag}]
	merged := s.merges[mergeKey{m.callID, m.fromTag, m.cseq}]
	s.mu.Unlock()
	if tx != nil {
		tx.again()
		return
	}
	if m.method == methodCancel {
		if invited == nil {
			s.refuse(m, noTransaction)
			return
		}
		invited.leg.cancelled(invited, m)
		return
	}
	if m.method == methodRegister && s.cfg.Register != nil {
		s.registered(m)
		return
	}
	if f := s.screen(m); f != nil {
		s.refuse(m, f)
		return
	}
	if m.toTag != "" {
		if l == nil || m.method == methodNotify {
			s.refuse(m, noTransaction)
			return
		}
		l.request(m)
		return
	}
	switch m.method {
	case methodInvite:
		if merged != nil {
			s.refuse(m, looped)
			return
		}
		s.invited(m)
	case methodOptions, methodInfo:
		s.refuse(m, &fault{status: 200, phrase: "OK", extra: allowField + acceptField})
	case methodRefer:
		s.refuse(m, declined)
	default: // BYE and NOTIFY belong to dialogs
		s.refuse(m, noTransaction)
	}
}

func (s *Stack) receiveACK(m *message) {
	s.mu.Lock()
	tx := s.servers[m.serverKey(methodInvite)]
	l := s.dialogs[dialogKey{m.callID, m.toTag}]
	s.mu.Unlock()
	switch {
	case tx != nil && tx.ack():
	case l != nil:
		l.acknowledged(m)
	}
	// Any other is the ACK of a stateless answer.
}

// refuse answers a request without keeping any state of it (RFC 3261 section
// 8.2.7): a retransmission gets the same answer, tag included.
func (s *Stack) refuse(m *message, f *fault) {
	s.count.response(f.status, false)
	_ = s.write(s.refusal(m, f), m.replyTo()) // the peer will ask again
}

func (s *Stack) refusal(m *message, f *fault) []byte {
	b := s.appendResponse(make([]byte, 0, 768), m, f.status, f.phrase, s.statelessTag(m))
	return appendBody(append(b, f.extra...), nil)
}

// registered answers a REGISTER: there is no registrar, but there is a limit (T5).
func (s *Stack) registered(m *message) {
	wait, limited := s.cfg.Register(m.src.Addr())
	switch {
	case wait > 0:
		// Nothing is kept of it: after an outage all phones come at once, and must not take
		// the transactions that calls need. Repeated it may find room.
		s.refuse(m, tooMany(wait))
	case limited:
		tx, ok := s.serve(m, nil)
		if !ok {
			s.refuse(m, overloaded)
			return
		}
		tx.respond(notAllowed.status, s.refusal(m, notAllowed))
	default:
		s.refuse(m, notAllowed)
	}
}

// tooMany has a peer wait, an hour at most: by then the limit may be another.
func tooMany(wait time.Duration) *fault {
	seconds := (min(wait, time.Hour) + time.Second - 1) / time.Second
	return &fault{status: 503, phrase: "Service Unavailable", extra: "Retry-After: " + strconv.Itoa(int(seconds)) + "\r\n"}
}

// tagSeed makes the tags of stateless answers unguessable.
var tagSeed = maphash.MakeSeed()

func (s *Stack) statelessTag(m *message) string {
	var h maphash.Hash
	h.SetSeed(tagSeed)
	for _, part := range [...]string{m.callID, m.fromTag, m.via.Branch} {
		_, _ = h.WriteString(part)
		_ = h.WriteByte(0)
	}
	return strconv.FormatUint(h.Sum64(), 36)
}
