package conformance

import (
	"bytes"
	"slices"
	"testing"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// The conversions of ITU-T G.711 (11/88), tables 3 and 4, by the decoder output value
// numbers of the two laws; an entry is the number of the other law. mu-80 and A-80 are as
// Note 3 wants them, not as in the tables that circulate as corrected. They are written out
// here so that the engines are not held against a table of their own.
var (
	toALaw = [128]byte{ // table 3, of mu-law 0-127; numbers of A-law are from 1
		1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8,
		9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24,
		25, 27, 29, 31, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44,
		46, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62,
		64, 65, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76, 77, 78, 79,
		81, 82, 83, 84, 85, 86, 87, 88, 89, 90, 91, 92, 93, 94, 95, 96,
		97, 98, 99, 100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111, 112,
		113, 114, 115, 116, 117, 118, 119, 120, 121, 122, 123, 124, 125, 126, 127, 128,
	}
	toULaw = [128]byte{ // table 4, of A-law 1-128; numbers of mu-law are from 0
		1, 3, 5, 7, 9, 11, 13, 15, 16, 17, 18, 19, 20, 21, 22, 23,
		24, 25, 26, 27, 28, 29, 30, 31, 32, 32, 33, 33, 34, 34, 35, 35,
		36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 48, 49, 49,
		50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63, 64, 64,
		65, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76, 77, 78, 79, 79,
		80, 81, 82, 83, 84, 85, 86, 87, 88, 89, 90, 91, 92, 93, 94, 95,
		96, 97, 98, 99, 100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111,
		112, 113, 114, 115, 116, 117, 118, 119, 120, 121, 122, 123, 124, 125, 126, 127,
	}
)

// On the wire A-law has its even bits inverted (0x55), mu-law all; bit 0x80 is the sign.

func aToU(b byte) byte {
	sign := b & 0x80
	return ^(toULaw[(b^0x55)&0x7f])&0x7f | sign
}

func uToA(b byte) byte {
	sign := b & 0x80
	return ((toALaw[^b&0x7f]-1)^0x55)&0x7f | sign
}

func converted(payload []byte, f func(byte) byte) []byte {
	out := make([]byte, len(payload))
	for i, b := range payload {
		out[i] = f(b)
	}
	return out
}

// TestG711: a call between A-law and mu-law is converted byte for byte (M14).
func TestG711(t *testing.T) {
	var all []byte
	for b := range 256 {
		all = append(all, byte(b))
	}
	for _, law := range []struct {
		name      string
		in, out   uint8
		treatment call.Treatment
		want      func(byte) byte
	}{
		{"A-law to mu-law", pcma, pcmu, call.ALawToULaw, aToU},
		{"mu-law to A-law", pcmu, pcma, call.ULawToALaw, uToA},
	} {
		between := func() call.Flow {
			f := up()
			f.Payloads = []call.Payload{
				{In: law.in, Out: law.out, Treatment: law.treatment},
				{In: comfortNoise, Out: comfortNoise},
				{In: events, Out: 96, Treatment: call.TelephoneEvent},
			}
			return f
		}
		// through sends packets of the one law and asserts that they arrive in the other.
		through := func(r *rig, packets ...rtp) {
			r.t.Helper()
			f := between()
			r.install(f)
			var sent, want [][]byte
			for i, p := range packets {
				p.pt, p.seq, p.ssrc = law.in, uint16(i), ssrc
				sent = append(sent, p.bytes())
				p.pt, p.payload = law.out, converted(p.payload, law.want)
				want = append(want, p.bytes())
			}
			r.send(f, sent...)
			r.arrive(by(f, want...))
			r.stats(f, counted(sent...))
		}
		t.Run(law.name, func(t *testing.T) {
			hold(t,
				rule{"M14 all 256 values", func(t *testing.T, r *rig) {
					through(r, rtp{payload: all}, rtp{payload: slices.Concat(all[1:], all[:1])}, rtp{payload: bytes.Repeat([]byte{law.in}, 160), marker: true})
				}},
				rule{"M14 every length", func(t *testing.T, r *rig) {
					var packets []rtp
					for _, size := range []int{
						0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 40, 63, 64, 65, 79, 80, 81, 127, 128, 159, 160, 161, 239, 240, 320, 479, 480, 1023, 1460,
					} {
						packets = append(packets, rtp{payload: bytes.Repeat(all, 6)[:size]})
					}
					through(r, packets...)
				}},
				rule{"M14 behind CSRCs and a header extension", func(t *testing.T, r *rig) {
					var packets []rtp
					for csrcs := range 16 {
						for _, words := range []int{-1, 0, 1, 2, 5} {
							p := rtp{csrc: make([]uint32, csrcs), payload: all[:161-csrcs]}
							if words >= 0 {
								p.extension = bytes.Repeat([]byte{0x55, 0xaa, 0, 0xff}, words)
							}
							packets = append(packets, p)
						}
					}
					through(r, packets...)
				}},
				rule{"M14 padding is left alone", func(t *testing.T, r *rig) {
					through(r,
						rtp{payload: all[:160], padding: 4}, rtp{payload: all[:159], padding: 1}, rtp{payload: all, padding: 255},
						rtp{padding: 8}, rtp{payload: all[:80], padding: 16, csrc: []uint32{1}, extension: []byte("abcd")},
					)
				}},
				rule{"M14 comfort noise and events go along unconverted", func(t *testing.T, r *rig) {
					f := between()
					r.install(f)
					noise := rtp{pt: comfortNoise, seq: 2, timestamp: 160, ssrc: ssrc, payload: []byte{0x40, 0x80, 0x0d}}
					press := key{event: 7, timestamp: 320, seq: 3, ssrc: ssrc, pt: events}
					voice := rtp{pt: law.in, seq: 1, ssrc: ssrc, payload: all}
					there := voice
					there.pt, there.payload = law.out, converted(all, law.want)
					r.send(f, voice.bytes(), noise.bytes(), press.packet(0, false))
					r.arrive(by(f, there.bytes(), noise.bytes(), ofType(press.packet(0, false), 96, true)))
					r.events(started(f), digit(f, 7))
				}},
				rule{"M14 the other law is not let in", func(t *testing.T, r *rig) {
					f := between()
					r.install(f)
					r.send(f, rtp{pt: law.out, seq: 1, ssrc: ssrc, payload: all}.bytes())
					r.arrive()
					r.stats(f, call.FlowStats{OutOfPolicy: 1})
				}},
			)
		})
	}
}
