package ipsec

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var us, them = netip.MustParseAddr("10.60.0.1"), netip.MustParseAddr("10.50.0.10")

// reply is the answer to request seq of id.
func reply(id, seq uint16) []byte {
	b := echoRequest(id, seq, them, us)
	b[20] = echoReplyType
	b[22], b[23] = 0, 0
	binary.BigEndian.PutUint16(b[22:], checksum(b[20:]))
	return b
}

func TestParseEchoReply(t *testing.T) {
	if seq, ok := parseEchoReply(reply(7, 300), 7, us, them); !ok || seq != 300 {
		t.Errorf("reply: seq %d, %v", seq, ok)
	}
	options := append(append([]byte{}, reply(7, 300)[:20]...), 1, 1, 1, 1)
	options = append(options, reply(7, 300)[20:]...)
	options[0], options[3] = 0x46, byte(len(options))
	if seq, ok := parseEchoReply(options, 7, us, them); !ok || seq != 300 {
		t.Errorf("reply with IP options: seq %d, %v", seq, ok)
	}
	if seq, ok := parseEchoReply(append(reply(7, 300), 9, 9), 7, us, them); !ok || seq != 300 {
		t.Errorf("reply with padding behind it: seq %d, %v", seq, ok)
	}
	for name, change := range map[string]func(b []byte){
		"version 6":          func(b []byte) { b[0] = 0x65 },
		"short header":       func(b []byte) { b[0] = 0x44 },
		"long header":        func(b []byte) { b[0] = 0x4f },
		"cut short":          func(b []byte) { b[3] = 29 },
		"length 0":           func(b []byte) { b[3] = 0 },
		"first fragment":     func(b []byte) { b[6] = 0x20 },
		"later fragment":     func(b []byte) { b[7] = 1 },
		"UDP":                func(b []byte) { b[9] = 17 },
		"of somebody else":   func(b []byte) { b[15]++ },
		"to somebody else":   func(b []byte) { b[19]++ },
		"a request":          func(b []byte) { b[20] = 8; b[22] -= 8 },
		"code 1":             func(b []byte) { b[21] = 1; b[23]-- },
		"checksum":           func(b []byte) { b[22]++ },
		"of another process": func(b []byte) { b[25]++; b[23]-- },
	} {
		b := reply(7, 300)
		change(b)
		if seq, ok := parseEchoReply(b, 7, us, them); ok {
			t.Errorf("%s: taken as the reply to %d", name, seq)
		}
	}
	for n := range len(reply(7, 300)) {
		if _, ok := parseEchoReply(reply(7, 300)[:n], 7, us, them); ok {
			t.Errorf("%d bytes are taken for a reply", n)
		}
	}
}

func FuzzParseEchoReply(f *testing.F) {
	f.Add(reply(7, 300))
	f.Add([]byte{0x4f})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, ok := parseEchoReply(b, 7, us, them); ok && (len(b) < 28 || netip.AddrFrom4([4]byte(b[12:16])) != them) {
			t.Errorf("%x is taken for a reply", b)
		}
	})
}

func newTestMonitor(mustAnswer bool) *monitor {
	return newMonitor("tdmnone", us, them, 300*time.Millisecond, 3, mustAnswer)
}

// Nobody knows whether the first target of a trunk answers echo requests: its silence proves
// nothing until it has. An address that was given for the purpose has to answer.
func TestMonitorSilence(t *testing.T) {
	for name, c := range map[string]struct{ mustAnswer, answersFirst, alive bool }{
		"never answered":         {false, false, true},
		"answered before":        {false, true, false},
		"given, never answered":  {true, false, false},
		"given, answered before": {true, true, false},
	} {
		m := newTestMonitor(c.mustAnswer)
		m.request(epoch)
		if c.answersFirst {
			m.answer(1, epoch)
		}
		if !m.alive() {
			t.Errorf("%s: dead from the start", name)
		}
		for range 10 {
			m.request(epoch)
		}
		if m.alive() != c.alive {
			t.Errorf("%s, then 10 requests without an answer: alive is %v", name, m.alive())
		}
		m.answer(uint16(m.sent), epoch)
		if !m.alive() || m.status().Missed != 0 {
			t.Errorf("%s: after an answer alive is %v, missed %d", name, m.alive(), m.status().Missed)
		}
	}
}

// A cut shows with the request lost+1 after the last one with an answer: within lost+1 intervals.
func TestMonitorNoticesInTime(t *testing.T) {
	m := newTestMonitor(false)
	var now time.Time
	for range 70_000 { // over the end of 16 bits
		now = now.Add(m.interval)
		m.answer(m.request(now), now.Add(40*time.Millisecond))
		if got := m.status(); !m.alive() || got.Missed != 0 || got.RTTMS != 40 {
			t.Fatalf("request %d was answered: %+v", m.sent, got)
		}
	}
	for i := range m.lost + 1 {
		if !m.alive() {
			t.Fatalf("given up after %d requests", i)
		}
		m.request(now)
	}
	if m.alive() {
		t.Errorf("alive after %d intervals without an answer", m.lost+1)
	}
}

// A path that is slower than the interval is not dead: answers come all the same.
func TestMonitorTakesLateAnswers(t *testing.T) {
	m := newTestMonitor(true)
	m.request(epoch)
	m.request(epoch.Add(m.interval))
	for i := range 100 {
		if m.request(epoch.Add(time.Duration(i+2) * m.interval)); !m.alive() {
			t.Fatalf("dead after %d requests, missed %d", m.sent, m.status().Missed)
		}
		m.answer(uint16(m.sent-2), epoch)
	}
	before := m.status()
	m.answer(uint16(m.sent-remembered), epoch)
	m.answer(uint16(m.sent+1), epoch)
	if m.status() != before {
		t.Errorf("answers to requests never sent or long gone changed %+v to %+v", before, m.status())
	}
}

// Whatever is lost and late: dead means that the last requests had no answer, at least as many as
// configured, and an answer to the last one always means alive.
func TestMonitorProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMonitor("tdmnone", us, them, time.Second, rapid.IntRange(1, 5).Draw(t, "lost"), rapid.Bool().Draw(t, "must answer"))
		last := uint64(0)
		for range rapid.IntRange(1, 50).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "answer") && m.sent > 0 {
				number := rapid.Uint64Range(1, m.sent).Draw(t, "number")
				m.answer(uint16(number), epoch)
				last = max(last, number)
			} else {
				m.request(epoch)
			}
			if m.missed < 0 || uint64(m.missed) > m.sent {
				t.Fatalf("missed %d of %d", m.missed, m.sent)
			}
			if !m.alive() && int(m.sent-last) < m.lost {
				t.Fatalf("dead, with %d of %d answered", last, m.sent)
			}
			if last == m.sent && !m.alive() {
				t.Fatal("dead, with the last one answered")
			}
		}
	})
}

// T9: the target may be a name's, which DNS leads elsewhere. Of another one nothing is known; as
// long as DNS says nothing, the last one is asked, or nobody.
func TestMonitorFollowsItsTarget(t *testing.T) {
	m := newMonitor("tdmnone", us, netip.Addr{}, 300*time.Millisecond, 3, false)
	now := netip.Addr{}
	m.whom = func() netip.Addr { return now }
	if m.aim(nil) || !m.alive() {
		t.Error("it asks nobody, or takes that for silence")
	}
	now = them
	if !m.aim(nil) || m.status().Target != them {
		t.Errorf("DNS has answered: %+v", m.status())
	}
	m.answer(m.request(epoch), epoch)
	for range 10 {
		m.request(epoch)
	}
	changes := 0
	if m.alive() || !m.aim(func() { changes++ }) || changes > 0 {
		t.Error("silence is forgotten while the target is the same")
	}
	now = netip.Addr{}
	if _, moved := m.moved(); moved || !m.aim(nil) || m.status().Target != them {
		t.Errorf("DNS has nobody any more: %+v", m.status())
	}
	now = them.Next()
	if _, moved := m.moved(); !moved || !m.aim(func() { changes++ }) || changes != 1 {
		t.Errorf("the new target is asked, and told of %d times", changes)
	}
	if s := m.status(); !m.alive() || s.Answers || s.Missed != 0 || s.Target != them.Next() {
		t.Errorf("the new target is blamed for the former's silence: %+v", s)
	}
}
