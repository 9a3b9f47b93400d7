package conformance

import (
	"net/netip"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// TestSource: only the agreed source is let in, and nobody else is told anything (M7).
func TestSource(t *testing.T) {
	hold(t,
		rule{"M7 RTCP is strict by its own port", func(t *testing.T, r *rig) {
			f := controlOf(up())
			r.install(up(), f)
			r.sendFrom(up().Remote, f, receiverReport(9))
			r.send(f, receiverReport(1))
			r.arrive(by(f, receiverReport(1)))
			want := counted(receiverReport(1))
			want.Refused = 1
			r.stats(f, want)
		}},
		rule{"M7 no remote, nobody", func(t *testing.T, r *rig) {
			for _, remote := range []netip.AddrPort{{}, at(platform, 0)} {
				f := up()
				f.Remote = remote
				r.install(f)
				r.sendFrom(at(platform, platformMedia), f, speech(1))
			}
			r.arrive()
			r.stats(up(), call.FlowStats{Refused: 2})
			r.exits(ways{{platform, call.ExitSourceRefused}: 2})
		}},
		rule{"M7 refused before looked at", func(t *testing.T, r *rig) {
			r.install(up())
			r.sendFrom(elsewhere(platform, 4000), up(), []byte("x"), ofType(speech(1), 99, false), receiverReport(1))
			r.arrive()
			r.stats(up(), call.FlowStats{Refused: 3})
			r.exits(ways{{platform, call.ExitSourceRefused}: 3})
		}},
		rule{"S7 an update moves the source", func(t *testing.T, r *rig) {
			f := up()
			r.install(f)
			r.send(f, speech(1))
			moved := f
			moved.Remote = elsewhere(platform, 31000)
			r.install(moved)
			r.send(f, speech(2))
			r.send(moved, speech(3))
			r.arrive(by(f, speech(1), speech(3)))
			want := counted(speech(1), speech(3))
			want.Refused, want.Lost = 1, 1
			r.stats(f, want)
		}},
	)
}

// TestRefusals: who is not let in is reported once, however much he sends (M7).
func TestRefusals(t *testing.T) {
	holdAnew(t,
		rule{"M7 strict", func(t *testing.T, r *rig) {
			f := up()
			r.install(f, down())
			r.sendFrom(at(platform, platformMedia+2), f, speech(10))
			r.sendFrom(elsewhere(platform, platformMedia), f, speech(11))
			r.send(f, speech(1))
			r.arrive(by(f, speech(1)))
			want := counted(speech(1))
			want.Refused = 2
			r.stats(f, want)
			r.stats(down(), call.FlowStats{})
			r.exits(ways{{platform, call.ExitSourceRefused}: 2, {platform, call.ExitForwarded}: 1})
			r.events(
				refused(f, at(platform, platformMedia+2)), refused(f, elsewhere(platform, platformMedia)), started(f),
			)
		}},
		rule{"M7 a spray is one event", func(t *testing.T, r *rig) {
			f, other := up(), pair(nearPort+2, farPort+2)[0]
			r.install(f, other, down())
			const rounds, ports = 3, 60
			sprayer := elsewhere(platform, 6000)
			for round := range uint16(rounds) {
				for port := range uint16(ports) {
					// From another port each time, as tools do.
					d := datagram{
						src: netip.AddrPortFrom(sprayer.Addr(), sprayer.Port()+port), ttl: firstTTL, payload: speech(round),
						dst: netip.AddrPortFrom(f.Key.Local.Addr(), nearPort+port),
					}
					if d.dst == f.Key.Local || d.dst == other.Key.Local {
						r.put(platform, d)
						r.settle() // the event names the first port tried: ports have no order in user space
					} else {
						r.nowhere(platform, d)
					}
				}
			}
			r.arrive()
			r.stats(f, call.FlowStats{Refused: rounds})
			r.stats(other, call.FlowStats{Refused: rounds})
			want := ways{{platform, call.ExitSourceRefused}: 2 * rounds}
			if r.kernel() {
				want[way{platform, call.ExitNoFlow}] = (ports - 2) * rounds
			}
			r.exits(want)
			r.events(refused(f, sprayer))
		}},
		rule{"M7 each source and realm is an event", func(t *testing.T, r *rig) {
			r.install(up(), down())
			for range 5 {
				r.sendFrom(elsewhere(platform, 6000), up(), speech(1))
				r.sendFrom(at(platform, 6000), up(), speech(1))
				r.sendFrom(elsewhere(carrier, 6000), down(), speech(1))
			}
			r.events(
				refused(up(), elsewhere(platform, 6000)), refused(up(), at(platform, 6000)),
				refused(down(), elsewhere(carrier, 6000)),
			)
		}},
	)
}

// The latch of the tests. A window of minutes does not end by itself in a slow test.
const (
	openWindow  = 5 * time.Minute
	shortWindow = 500 * time.Millisecond
)

// latching is up, whose source may be learned from the platform's network.
func latching(window time.Duration, allowed ...netip.Prefix) call.Flow {
	f := up()
	if allowed == nil {
		allowed = []netip.Prefix{netip.PrefixFrom(realms[platform].peer, prefixBits).Masked()}
	}
	f.Latch = call.Latch{Window: window, Generation: 1, Allowed: allowed}
	return f
}

// Where else than it says the platform's peer may send from.
var natted, second = at(platform, 31000), elsewhere(platform, 32000)

// over waits until a window that began with the last Install has ended.
func over() { time.Sleep(shortWindow + 50*time.Millisecond) }

// TestLatch: what a flow may learn of its source, and when (M7).
func TestLatch(t *testing.T) {
	hold(t,
		rule{"M7 the opposite flow stays as it is until told", func(t *testing.T, r *rig) {
			f, back := latching(openWindow), down()
			r.install(f, back)
			r.sendFrom(natted, f, speech(1))
			r.settle()
			r.send(back, speech(50))
			r.arrive(by(f, speech(1)), by(back, speech(50)))
			told := back
			told.Dest = natted
			f.Remote = natted
			r.install(f, told)
			r.send(told, speech(51))
			r.sendFrom(natted, f, speech(2))
			r.arrive(by(f, speech(2)), by(told, speech(51)))
		}},
		rule{"M7 without a remote the latch still learns", func(t *testing.T, r *rig) {
			f := latching(openWindow)
			f.Remote = netip.AddrPort{}
			r.install(f)
			r.sendFrom(natted, f, speech(1))
			r.arrive(by(f, speech(1)))
			want := counted(speech(1))
			want.Remote = natted
			r.stats(f, want)
		}},
		rule{"M7 who is let in is told at each change, and at last", func(t *testing.T, r *rig) {
			f := latching(openWindow)
			f.Payloads = []call.Payload{{In: pcma, Out: pcma}}
			want := call.FlowStats{}
			is := func(remote netip.AddrPort) {
				t.Helper()
				want.Remote = remote
				r.stats(f, want)
			}
			r.install(f)
			is(f.Remote) // the window is open
			r.sendFrom(natted, f, speech(1))
			want = counted(speech(1))
			is(natted)
			f.DSCP = 10
			r.install(f)
			is(natted) // the same generation, and no packet since
			f.Latch.Generation++
			r.install(f)
			is(f.Remote)
			r.sendFrom(second, f, speech(2))
			want = counted(numbered(1, 2)...)
			is(second)
			strict := f
			strict.Latch = call.Latch{}
			r.install(strict)
			is(f.Remote)
			r.install(f)
			r.sendFrom(second, f, speech(3))
			want = counted(numbered(1, 2, 3)...)
			want.Remote = second
			r.compare(f, r.remove(f)[0], want)
		}},
		rule{"M7 only from the allowed prefixes", func(t *testing.T, r *rig) {
			single := netip.PrefixFrom(second.Addr(), 32)
			half := netip.MustParsePrefix("10.91.0.128/25")
			f := latching(openWindow, half, single)
			r.install(f)
			r.sendFrom(natted, f, speech(1))
			r.sendFrom(netip.MustParseAddrPort("10.91.0.127:32000"), f, speech(2))
			r.sendFrom(second, f, speech(3))
			r.arrive(by(f, speech(3)))
			want := counted(speech(3))
			want.Refused, want.Remote = 2, second
			r.stats(f, want)
		}},
		rule{"M7 each of eight prefixes counts", func(t *testing.T, r *rig) {
			f := latching(openWindow)
			f.Latch.Allowed = nil
			for i := range byte(call.MaxPrefixes) {
				f.Latch.Allowed = append(f.Latch.Allowed, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 91, 0, 100 + i}), 32))
			}
			for i, p := range f.Latch.Allowed {
				f.Latch.Generation++
				r.install(f)
				r.sendFrom(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 91, 0, 99}), 5000), f, speech(uint16(i)))
				r.sendFrom(netip.AddrPortFrom(p.Addr(), 5000), f, speech(uint16(i)))
				r.arrive(by(f, speech(uint16(i))))
			}
		}},
		rule{"M7 all addresses if so allowed", func(t *testing.T, r *rig) {
			f := latching(openWindow, netip.PrefixFrom(netip.IPv4Unspecified(), 0))
			r.install(f)
			r.sendFrom(second, f, speech(1))
			r.arrive(by(f, speech(1)))
		}},
		rule{"M7 a telephone-event teaches as speech does", func(t *testing.T, r *rig) {
			f := latching(openWindow)
			f.Payloads = []call.Payload{{In: pcma, Out: pcma}, {In: events, Out: events, Treatment: call.TelephoneEvent}}
			r.install(f)
			packet := key{event: 1, seq: 1, ssrc: ssrc, pt: events}.packet(0, false)
			r.sendFrom(natted, f, packet)
			r.arrive(by(f, packet))
		}},
		rule{"M7 an RTCP flow learns from RTCP", func(t *testing.T, r *rig) {
			f := controlOf(latching(openWindow))
			r.install(f)
			r.sendFrom(second, f, speech(1), receiverReport(1)[:7], append([]byte{0x40}, receiverReport(1)[1:]...))
			r.sendFrom(natted, f, receiverReport(1))
			r.sendFrom(second, f, receiverReport(2))
			r.arrive(by(f, receiverReport(1)))
			want := counted(receiverReport(1))
			want.Refused, want.Remote = 4, natted
			r.stats(f, want)
		}},
		rule{"M7 what was learned outlives the window", func(t *testing.T, r *rig) {
			f := latching(shortWindow)
			r.install(f)
			r.sendFrom(natted, f, speech(1))
			r.settle()
			over()
			r.sendFrom(natted, f, speech(2))
			r.arrive(by(f, numbered(1, 2)...))
		}},
		rule{"M7 the same generation keeps what was learned", func(t *testing.T, r *rig) {
			f := latching(openWindow)
			r.install(f)
			r.sendFrom(natted, f, speech(1))
			r.settle()
			f.DSCP = 10
			r.install(f)
			r.sendFrom(second, f, speech(2))
			r.send(f, speech(3))
			r.sendFrom(natted, f, speech(4))
			r.arrive(by(up(), speech(1)), by(f, speech(4)))
			want := counted(speech(1), speech(4))
			want.Refused, want.Lost, want.Remote = 2, 2, natted
			r.stats(f, want)
		}},
		rule{"M7 the same generation does not prolong the window", func(t *testing.T, r *rig) {
			f := latching(shortWindow)
			r.install(f)
			time.Sleep(shortWindow / 2)
			r.install(f)
			time.Sleep(shortWindow/2 + 50*time.Millisecond)
			r.sendFrom(natted, f, speech(1))
			r.send(f, speech(2))
			r.arrive(by(f, speech(2)))
		}},
		rule{"M7 another generation opens the window again", func(t *testing.T, r *rig) {
			f := latching(shortWindow)
			r.install(f)
			over()
			f.Latch.Generation++
			f.Latch.Window = openWindow
			r.install(f)
			r.sendFrom(natted, f, speech(1))
			r.arrive(by(f, speech(1)))
		}},
		rule{"M7 another generation without a window is strict", func(t *testing.T, r *rig) {
			f := latching(openWindow)
			r.install(f)
			r.sendFrom(natted, f, speech(1))
			r.settle()
			f.Latch = call.Latch{Generation: 2}
			r.install(f)
			r.sendFrom(natted, f, speech(2))
			r.send(f, speech(3))
			r.arrive(by(f, speech(1), speech(3)))
		}},
		rule{"M7 a removed flow forgets", func(t *testing.T, r *rig) {
			f := latching(openWindow)
			r.install(f)
			r.sendFrom(natted, f, speech(1))
			r.settle()
			r.remove(f)
			f.Latch = call.Latch{}
			r.install(f)
			r.sendFrom(natted, f, speech(2))
			r.send(f, speech(3))
			r.arrive(by(f, speech(1), speech(3)))
			want := counted(speech(3))
			want.Refused = 1
			r.stats(f, want)
		}},
		rule{"M7 a sprayer wins nothing before, during or after", func(t *testing.T, r *rig) {
			f := latching(shortWindow, netip.PrefixFrom(natted.Addr(), 32))
			spray := func() {
				r.sendFrom(second, f, speech(1), speech(2), speech(3))
				r.sendFrom(elsewhere(carrier, 6000), down(), speech(1), speech(2), speech(3))
			}
			r.install(f, down())
			spray()
			r.sendFrom(natted, f, speech(10))
			spray()
			over()
			spray()
			r.sendFrom(natted, f, speech(11))
			r.send(down(), speech(12))
			r.arrive(by(f, numbered(10, 11)...), by(down(), speech(12)))
			want := counted(numbered(10, 11)...)
			want.Refused, want.Remote = 9, natted
			r.stats(f, want)
			want = counted(speech(12))
			want.Refused = 9
			r.stats(down(), want)
		}},
	)
}

// TestLatchEvents: what is told of a source that is learned, and of those that are not (M7).
func TestLatchEvents(t *testing.T) {
	holdAnew(t,
		rule{"M7 the first allowed source is it for good", func(t *testing.T, r *rig) {
			f := latching(openWindow)
			r.install(f, down())
			r.sendFrom(natted, f, numbered(1, 2)...)
			r.sendFrom(second, f, speech(3))
			r.send(f, speech(4)) // what was agreed on is refused now, too
			r.sendFrom(natted, f, speech(5))
			r.arrive(by(f, numbered(1, 2, 5)...))
			want := counted(numbered(1, 2, 5)...)
			want.Refused, want.Lost, want.Remote = 2, 2, natted
			r.stats(f, want)
			r.exits(ways{{platform, call.ExitSourceRefused}: 2, {platform, call.ExitForwarded}: 3})
			start := started(f)
			start.Source = natted
			r.events(latched(f, natted), start, refused(f, second), refused(f, f.Remote))
		}},
		rule{"M7 the remote itself locks", func(t *testing.T, r *rig) {
			f := latching(openWindow)
			r.install(f)
			r.send(f, speech(1))
			r.sendFrom(natted, f, speech(2))
			r.arrive(by(f, speech(1)))
			want := counted(speech(1))
			want.Refused = 1
			r.stats(f, want)
			r.events(latched(f, f.Remote), started(f), refused(f, natted))
		}},
		rule{"M7 nothing is learned from what is not this stream", func(t *testing.T, r *rig) {
			f := latching(openWindow)
			f.Payloads = []call.Payload{{In: pcma, Out: pcma}, {In: events, Out: events, Treatment: call.TelephoneEvent}}
			r.install(f)
			cut := rtp{pt: pcma, ssrc: ssrc, csrc: []uint32{1, 2}}.bytes()
			implausible := map[string][]byte{
				"version 1":                append([]byte{0x40}, speech(1)[1:]...),
				"a payload type of others": ofType(speech(1), pcmu, false),
				"too short":                speech(1)[:11],
				"CSRCs cut":                cut[:len(cut)-1],
				"RTCP":                     receiverReport(1),
				"empty":                    {},
			}
			for _, packet := range implausible {
				r.sendFrom(second, f, packet)
			}
			r.arrive()
			r.stats(f, call.FlowStats{Refused: uint64(len(implausible))})
			r.exits(ways{{platform, call.ExitSourceRefused}: uint64(len(implausible))})
			r.sendFrom(natted, f, speech(1)) // it could have been learned
			r.arrive(by(f, speech(1)))
			r.events(refused(f, second), latched(f, natted), call.MediaEvent{Key: f.Key, Kind: call.MediaStarted, Source: natted})
		}},
		rule{"M7 nothing is learned after the window", func(t *testing.T, r *rig) {
			f := latching(shortWindow)
			r.install(f)
			over()
			r.sendFrom(natted, f, speech(1))
			r.send(f, speech(2))
			r.sendFrom(natted, f, speech(3))
			r.arrive(by(f, speech(2)))
			want := counted(speech(2))
			want.Refused = 2
			r.stats(f, want)
			r.events(refused(f, natted), started(f))
		}},
		rule{"M7 another generation begins anew", func(t *testing.T, r *rig) {
			f := latching(openWindow)
			r.install(f)
			r.sendFrom(natted, f, speech(1))
			r.settle()
			f.Latch.Generation++
			r.install(f)
			r.sendFrom(second, f, speech(2))
			r.sendFrom(natted, f, speech(3))
			r.arrive(by(f, numbered(1, 2)...))
			want := counted(numbered(1, 2)...)
			want.Refused, want.Remote = 1, second
			r.stats(f, want)
			start := started(f)
			start.Source = natted
			r.events(latched(f, natted), start, latched(f, second), refused(f, natted))
		}},
	)
}
