package conformance

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// TestForward: what is let in leaves byte for byte, by the flow's source and destination.
func TestForward(t *testing.T) {
	hold(t,
		rule{"M1 M3 RTP both ways", func(t *testing.T, r *rig) {
			r.install(up(), down())
			there, back := numbered(1, 2, 3, 4, 5), numbered(100, 101, 102)
			r.send(up(), there...)
			r.send(down(), back...)
			r.arrive(by(up(), there...), by(down(), back...))
			r.stats(up(), counted(there...))
			r.stats(down(), counted(back...))
			r.exits(ways{{platform, call.ExitForwarded}: 5, {carrier, call.ExitForwarded}: 3})
			r.events(started(up()), started(down()))
		}},
		rule{"M2 M3 RTCP both ways on ports of its own", func(t *testing.T, r *rig) {
			there, back := controlOf(up()), controlOf(down())
			r.install(up(), down(), there, back)
			r.send(there, receiverReport(1))
			r.send(back, senderReport(1))
			r.arrive(by(there, receiverReport(1)), by(back, senderReport(1)))
			r.stats(there, counted(receiverReport(1)))
			r.stats(back, counted(senderReport(1)))
			r.stats(up(), call.FlowStats{})
		}},
		rule{"M1 a socket at the far end takes it", func(t *testing.T, r *rig) {
			var phone *net.UDPConn
			if err := r.net.lab.Do(realms[carrier].host, func() (err error) {
				phone, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(up().Dest))
				return err
			}); err != nil {
				t.Fatal(err)
			}
			defer phone.Close()
			if err := phone.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			r.install(up())
			r.send(up(), speech(1))
			buf := make([]byte, 2048)
			n, from, err := phone.ReadFromUDPAddrPort(buf)
			if err != nil || from != up().Source || !bytes.Equal(buf[:n], speech(1)) {
				t.Errorf("%s: the socket read %x from %v: %v", r.name, buf[:n], from, err)
			}
		}},
		rule{"M3 the flow's mark replaces the sender's", func(t *testing.T, r *rig) {
			for i, dscp := range []uint8{0, 1, 46, 63} {
				f := up()
				f.DSCP = dscp
				r.install(f)
				packet := speech(uint16(i))
				r.put(platform, datagram{src: f.Remote, dst: f.Key.Local, tos: 18 << 2, ttl: firstTTL, payload: packet})
				r.arrive(by(f, packet))
			}
		}},
		rule{"M3 congestion is not hidden", func(t *testing.T, r *rig) {
			r.install(up())
			for _, ecn := range []uint8{0, 1, 2, 3} {
				r.put(platform, datagram{src: up().Remote, dst: up().Key.Local, tos: ecn, ttl: firstTTL, payload: speech(uint16(ecn))})
			}
			r.barrier()
			if len(r.seen) != 4 {
				t.Fatalf("%s: %d packets arrived, want 4", r.name, len(r.seen))
			}
			for ecn, s := range r.seen {
				if s.tos != 46<<2|uint8(ecn) {
					t.Errorf("%s: sent with ECN %d, arrived with %d", r.name, ecn, s.tos&3)
				}
			}
		}},
		rule{"M1 a checksum of 0 is taken", func(t *testing.T, r *rig) {
			r.install(up())
			r.put(platform, datagram{src: up().Remote, dst: up().Key.Local, ttl: firstTTL, unsummed: true, payload: speech(1)})
			r.barrier()
			// A socket cannot see that there was none, and makes one; the kernel leaves it out.
			if len(r.seen) != 1 || r.seen[0].unsummed != r.kernel() || !bytes.Equal(r.seen[0].payload, speech(1)) {
				t.Errorf("%s: arrived: %+v", r.name, r.seen)
			}
		}},
		rule{"M1 every length", func(t *testing.T, r *rig) {
			r.install(up())
			var sent [][]byte
			for i, size := range []int{0, 1, 2, 3, 79, 80, 159, 160, 161, 320, 1000, 1459, 1460} {
				sent = append(sent, rtp{pt: pcma, seq: uint16(i), ssrc: ssrc, payload: bytes.Repeat([]byte{byte(i)}, size)}.bytes())
			}
			r.send(up(), sent...)
			r.arrive(by(up(), sent...))
			r.stats(up(), counted(sent...))
		}},
		rule{"M1 header extension, CSRCs and padding", func(t *testing.T, r *rig) {
			r.install(up())
			whole := rtp{
				pt: pcma, seq: 7, timestamp: 1 << 31, ssrc: ssrc, csrc: []uint32{1, 2, 3}, extension: []byte("abcdefgh"),
				payload: []byte("speech"), padding: 6, marker: true,
			}.bytes()
			r.send(up(), whole)
			r.arrive(by(up(), whole))
		}},
		rule{"M1 nothing but RTP", func(t *testing.T, r *rig) {
			r.install(up())
			cut := rtp{pt: pcma, seq: 9, ssrc: ssrc, csrc: []uint32{1, 2}}.bytes()
			odd := [][]byte{
				{}, {0x80}, speech(1)[:7], speech(1)[:11], cut[:len(cut)-1], receiverReport(1)[:7],
				append([]byte{0x40}, speech(1)[1:]...), append([]byte{0xc0}, speech(1)[1:]...), []byte("OPTIONS sip:a@b SIP/2.0\r\n"),
			}
			r.send(up(), odd...)
			r.send(up(), speech(2)[:12], cut)
			r.arrive(by(up(), speech(2)[:12], cut))
			want := counted(speech(2)[:12], cut)
			want.OutOfPolicy, want.Lost = uint64(len(odd)), 6
			r.stats(up(), want)
			r.exits(ways{{platform, call.ExitNotRTP}: uint64(len(odd)), {platform, call.ExitForwarded}: 2})
		}},
		rule{"M2 nothing but RTCP", func(t *testing.T, r *rig) {
			f := controlOf(up())
			r.install(f)
			odd := [][]byte{{}, receiverReport(1)[:7], speech(1), ofType(receiverReport(1), 191, false), ofType(receiverReport(1), 224, false),
				append([]byte{0x40}, receiverReport(1)[1:]...)}
			good := [][]byte{receiverReport(1), ofType(receiverReport(2), 192, false), ofType(receiverReport(3), 223, false)}
			r.send(f, odd...)
			r.send(f, good...)
			r.arrive(by(f, good...))
			want := counted(good...)
			want.OutOfPolicy = uint64(len(odd))
			r.stats(f, want)
			r.exits(ways{{platform, call.ExitNotRTCP}: uint64(len(odd)), {platform, call.ExitForwarded}: 3})
		}},
		rule{"M1 a port without a flow is silent", func(t *testing.T, r *rig) {
			r.install(up())
			free := netip.AddrPortFrom(realms[platform].gateway, nearPort+100)
			r.nowhere(platform, datagram{src: up().Remote, dst: free, ttl: firstTTL, payload: speech(1)})
			r.nowhere(platform, datagram{src: up().Remote, dst: free, ttl: firstTTL, payload: speech(2)})
			r.arrive()
			r.stats(up(), call.FlowStats{})
			if r.kernel() {
				r.exits(ways{{platform, call.ExitNoFlow}: 2})
				r.events(call.MediaEvent{Key: call.FlowKey{Realm: platform, Local: free}, Kind: call.MediaRefused, Source: up().Remote})
			}
		}},
		rule{"M1 the port of one direction is no flow for the other", func(t *testing.T, r *rig) {
			r.install(up())
			r.send(down(), speech(1)) // a socket is there in user space
			r.send(up(), speech(2))
			r.arrive(by(up(), speech(2)))
			r.exits(ways{{carrier, call.ExitNoFlow}: 1, {platform, call.ExitForwarded}: 1})
		}},
		rule{"S7 hold counts and sends nothing", func(t *testing.T, r *rig) {
			f := up()
			r.install(f)
			r.send(f, speech(1))
			held := f
			held.Hold = true
			r.install(held)
			r.send(f, numbered(2, 3, 4)...)
			r.arrive(by(f, speech(1)))
			r.install(f)
			r.send(f, speech(5))
			r.arrive(by(f, speech(5)))
			r.stats(f, counted(numbered(1, 2, 3, 4, 5)...))
			r.exits(ways{{platform, call.ExitHold}: 3, {platform, call.ExitForwarded}: 2})
			r.events(started(f))
		}},
		rule{"S7 a flow held from the start needs no destination", func(t *testing.T, r *rig) {
			f := up()
			f.Hold, f.Dest = true, netip.AddrPort{}
			r.install(f)
			r.send(f, numbered(1, 2)...)
			r.arrive()
			r.stats(f, counted(numbered(1, 2)...))
			r.events(started(f))
		}},
	)
}

// TestPayloadTypes: packets have the type that the far side agreed on, or do not pass (M5, M14).
func TestPayloadTypes(t *testing.T) {
	agreed := func() call.Flow {
		f := up()
		f.Payloads = []call.Payload{{In: pcma, Out: pcma}, {In: 97, Out: 112}, {In: 96, Out: 127}, {In: 127, Out: 96}, {In: 100, Out: pcmu}}
		return f
	}
	hold(t,
		rule{"M5 types are mapped, the marker stays", func(t *testing.T, r *rig) {
			f := agreed()
			r.install(f)
			var sent, want [][]byte
			for i, p := range f.Payloads {
				for j, marker := range []bool{false, true} {
					packet := speech(uint16(2*i + j))
					sent = append(sent, ofType(packet, p.In, marker))
					want = append(want, ofType(packet, p.Out, marker))
				}
			}
			r.send(f, sent...)
			r.arrive(by(f, want...))
			r.stats(f, counted(sent...))
		}},
		rule{"M4 what was not agreed on is dropped", func(t *testing.T, r *rig) {
			f := agreed()
			r.install(f)
			r.send(f, speech(1), ofType(speech(2), pcmu, false), ofType(speech(3), 112, true), ofType(speech(4), comfortNoise, false), speech(5))
			r.arrive(by(f, speech(1), speech(5)))
			want := counted(speech(1), speech(5))
			want.OutOfPolicy, want.Lost = 3, 0 // they came, so they are not lost
			r.stats(f, want)
			r.exits(ways{{platform, call.ExitPayloadType}: 3, {platform, call.ExitForwarded}: 2})
			r.events(started(f))
		}},
		rule{"M4 refused packets alone start nothing", func(t *testing.T, r *rig) {
			f := agreed()
			r.install(f)
			r.send(f, ofType(speech(1), pcmu, false))
			r.arrive()
			r.stats(f, call.FlowStats{OutOfPolicy: 1})
			r.events()
		}},
		rule{"M4 no list lets every type in as it is", func(t *testing.T, r *rig) {
			r.install(up())
			var sent [][]byte
			for pt := range uint8(128) {
				if pt >= 64 && pt < 96 { // with the marker these are RTCP (RFC 5761)
					continue
				}
				sent = append(sent, ofType(speech(uint16(2*pt)), pt, false), ofType(speech(uint16(2*pt)+1), pt, true))
			}
			r.send(up(), sent...)
			r.arrive(by(up(), sent...))
		}},
		rule{"M5 a list of as many types as an offer has", func(t *testing.T, r *rig) {
			f := up()
			for i := range uint8(8) {
				f.Payloads = append(f.Payloads, call.Payload{In: 96 + i, Out: 127 - i})
			}
			r.install(f)
			var sent, want [][]byte
			for i := range uint8(8) {
				sent = append(sent, ofType(speech(uint16(i)), 96+i, false))
				want = append(want, ofType(speech(uint16(i)), 127-i, false))
			}
			r.send(f, sent...)
			r.arrive(by(f, want...))
		}},
		rule{"M5 a changed list holds from the next packet on", func(t *testing.T, r *rig) {
			f := agreed()
			r.install(f)
			r.send(f, ofType(speech(1), 97, false))
			f.Payloads = []call.Payload{{In: 97, Out: 98}}
			r.install(f)
			r.send(f, ofType(speech(2), 97, false), speech(3))
			r.arrive(by(f, ofType(speech(1), 112, false), ofType(speech(2), 98, false)))
			want := counted(speech(1), speech(2))
			want.OutOfPolicy = 1
			r.stats(f, want)
		}},
	)
}
