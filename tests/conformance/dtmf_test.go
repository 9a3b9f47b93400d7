package conformance

import (
	"slices"
	"testing"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// TestDigits: a key pressed is reported once, whatever its packets are (M5, RFC 4733).
func TestDigits(t *testing.T) {
	talking := func() call.Flow {
		f := up()
		f.Payloads = []call.Payload{
			{In: pcma, Out: pcma}, {In: events, Out: 96, Treatment: call.TelephoneEvent},
		}
		return f
	}
	// told sends packets, and asserts what arrives, what is counted, and the keys reported.
	told := func(r *rig, f call.Flow, packets [][]byte, digits ...uint8) {
		r.t.Helper()
		r.install(f)
		r.send(f, packets...)
		want := slices.Clone(packets)
		for i, p := range want {
			if p[1]&0x7f == events {
				want[i] = ofType(p, 96, p[1]&0x80 != 0)
			}
		}
		r.arrive(by(f, want...))
		stats := counted(packets...)
		stats.Digits = uint64(len(digits))
		r.stats(f, stats)
		reports := []call.MediaEvent{started(f)}
		for _, d := range digits {
			reports = append(reports, digit(f, d))
		}
		r.events(reports...)
	}
	one := key{event: 1, timestamp: 8000, seq: 1, ssrc: ssrc, pt: events}
	hold(t,
		rule{"M5 one key: its first packet, its updates, its end three times", func(t *testing.T, r *rig) {
			told(r, talking(), one.press(5), 1)
		}},
		rule{"M5 all sixteen", func(t *testing.T, r *rig) {
			var packets [][]byte
			var want []uint8
			for event := range uint8(16) {
				k := key{event: event, timestamp: 1600 * uint32(event), seq: 6 * uint16(event), ssrc: ssrc, pt: events}
				packets = append(packets, k.press(2)...)
				want = append(want, event)
			}
			told(r, talking(), packets, want...)
		}},
		rule{"M5 the same key twice", func(t *testing.T, r *rig) {
			again := one
			again.timestamp, again.seq = one.timestamp+800, one.seq+5
			told(r, talking(), append(one.press(1), again.press(1)...), 1, 1)
		}},
		rule{"M5 between speech", func(t *testing.T, r *rig) {
			packets := append(numbered(1, 2), key{event: 11, timestamp: 480, seq: 3, ssrc: ssrc, pt: events}.press(1)...)
			told(r, talking(), append(packets, numbered(8, 9)...), 11)
		}},
		rule{"M5 only the end comes", func(t *testing.T, r *rig) {
			told(r, talking(), one.press(3)[4:], 1)
		}},
		rule{"M5 duplicated and late packets of a key", func(t *testing.T, r *rig) {
			p := one.press(3)
			f := talking()
			r.install(f)
			r.send(f, p[0], p[0], p[2], p[1], p[3], p[4], p[4], p[5], p[6])
			r.events(started(f), digit(f, 1))
		}},
		rule{"M5 a long key goes on in segments", func(t *testing.T, r *rig) {
			packets := append(one.press(1)[:2], key{event: 1, timestamp: one.timestamp + 0xffff, seq: 3, ssrc: ssrc, pt: events}.press(1)[1:]...)
			// press has its first packet with the marker: a segment has none.
			for i, p := range packets[2:] {
				packets[2+i] = rtp{pt: events, seq: uint16(3 + i), timestamp: one.timestamp + 0xffff, ssrc: ssrc, payload: p[12:]}.bytes()
			}
			third := rtp{pt: events, seq: uint16(1 + len(packets)), timestamp: one.timestamp + 2*0xffff, ssrc: ssrc, payload: []byte{1, 0x8a, 1, 0}}.bytes()
			told(r, talking(), append(packets, third), 1)
		}},
		rule{"M5 another key at the time of a segment is a key", func(t *testing.T, r *rig) {
			two := key{event: 2, timestamp: one.timestamp + 0xffff, seq: one.seq + 5, ssrc: ssrc, pt: events}
			told(r, talking(), append(one.press(1), two.press(1)...), 1, 2)
		}},
		rule{"M5 segments over the wrap of timestamps", func(t *testing.T, r *rig) {
			first := key{event: 5, timestamp: 0xffff_f000, seq: 1, ssrc: ssrc, pt: events}
			var next uint32 = 0xefff // 0xffff_f000 + 0xffff
			told(r, talking(), [][]byte{
				first.packet(0, false), rtp{pt: events, seq: 2, timestamp: next, ssrc: ssrc, payload: []byte{5, 0x8a, 1, 0}}.bytes(),
			}, 5)
		}},
		rule{"M5 a key at timestamp 0", func(t *testing.T, r *rig) {
			zero := one
			zero.timestamp = 0
			told(r, talking(), zero.press(1), 1)
		}},
		rule{"M5 another source's key at the same time is a key", func(t *testing.T, r *rig) {
			f, other := talking(), one
			other.ssrc = ssrc + 1
			r.install(f)
			r.send(f, one.press(1)...)
			r.send(f, other.press(1)...)
			r.events(
				started(f), digit(f, 1),
				call.MediaEvent{Key: f.Key, Kind: call.MediaSSRC, Source: f.Remote, SSRC: other.ssrc}, digit(f, 1),
			)
		}},
		rule{"M5 events above 15 pass unreported", func(t *testing.T, r *rig) {
			flash := one
			flash.event = 16
			tone := key{event: 66, timestamp: 16000, seq: 6, ssrc: ssrc, pt: events}
			told(r, talking(), append(flash.press(1), tone.press(1)...))
		}},
		rule{"M5 too short for an event", func(t *testing.T, r *rig) {
			told(r, talking(), [][]byte{
				rtp{pt: events, seq: 1, ssrc: ssrc, payload: []byte{1, 10, 0}}.bytes(), rtp{pt: events, seq: 2, ssrc: ssrc}.bytes(),
			})
		}},
		rule{"M5 behind CSRCs and an extension", func(t *testing.T, r *rig) {
			told(r, talking(), [][]byte{rtp{
				pt: events, marker: true, seq: 1, timestamp: 160, ssrc: ssrc, csrc: []uint32{0x0c0c0c0c, 0x0d0d0d0d},
				extension: []byte("\x03\x03\x03\x03\x04\x04\x04\x04"), payload: []byte{9, 10, 0, 160},
			}.bytes()}, 9)
		}},
		rule{"M5 a type that is not for events is not looked into", func(t *testing.T, r *rig) {
			f := talking()
			f.Payloads[1].Treatment = call.AsIs
			told(r, f, one.press(1))
		}},
		rule{"M5 what is refused or held is no key", func(t *testing.T, r *rig) {
			f := talking()
			held := f
			held.Hold = true
			r.install(held)
			r.sendFrom(elsewhere(platform, 4000), held, one.press(1)...)
			r.send(held, key{event: 2, timestamp: 99, seq: 1, ssrc: ssrc, pt: events}.packet(0, false))
			r.install(f)
			r.send(f, key{event: 3, timestamp: 999, seq: 2, ssrc: ssrc, pt: events}.packet(0, false))
			r.events(refused(f, elsewhere(platform, 4000)), started(f), digit(f, 3))
		}},
		rule{"M5 an update does not repeat a key", func(t *testing.T, r *rig) {
			f := talking()
			r.install(f)
			p := one.press(2)
			r.send(f, p[:2]...)
			f.DSCP = 8
			r.install(f)
			r.send(f, p[2:]...)
			r.events(started(f), digit(f, 1))
		}},
		rule{"M5 keys of both sides", func(t *testing.T, r *rig) {
			f, back := talking(), down()
			back.Payloads = []call.Payload{{In: 96, Out: events, Treatment: call.TelephoneEvent}}
			r.install(f, back)
			answer := one
			answer.pt, answer.event = 96, 10
			r.send(f, one.press(1)...)
			r.send(back, answer.press(1)...)
			r.events(started(f), digit(f, 1), started(back), digit(back, 10))
		}},
	)
}
