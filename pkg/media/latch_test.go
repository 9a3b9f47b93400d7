package media_test

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/media"
)

// Where the callee's media really comes from, and its RTCP.
var natRTP, natRTCP = netip.MustParseAddrPort("198.18.0.7:61000"), netip.MustParseAddrPort("198.18.0.7:61007")

// behindNAT are the terms of a trunk whose peer is behind NAT.
func behindNAT() media.Terms {
	return media.Terms{Latch: media.LatchTerms{
		Window: 5 * time.Second, Allowed: []netip.Prefix{netip.MustParsePrefix("198.18.0.0/24")}, Described: true,
	}}
}

// latch makes the engine learn the source of a flow, and say so.
func (b *bench) latch(key call.FlowKey, source netip.AddrPort) {
	b.engine.learn(key, source)
	b.told(key, source)
}

// told makes the engine say that it learned the source of a flow.
func (b *bench) told(key call.FlowKey, source netip.AddrPort) {
	b.engine.events <- call.MediaEvent{Kind: call.MediaLatched, Key: key, Source: source, At: time.Now()}
	synctest.Wait()
}

// calleeFlows are the flows of what the callee sends.
func (k *talk) calleeFlows() (rtp, rtcp call.Flow) {
	k.engine.mu.Lock()
	defer k.engine.mu.Unlock()
	for _, f := range k.engine.flows {
		if f.Key.Realm == 2 && f.RTCP {
			rtcp = f
		} else if f.Key.Realm == 2 {
			rtp = f
		}
	}
	return rtp, rtcp
}

// TestStrictByDefault: without a word of it nothing is ever learned (M7).
func TestStrictByDefault(t *testing.T) {
	k := newBench(t).open()
	k.established()
	for _, f := range k.engine.flows {
		if f.Latch.Window != 0 || f.Latch.Allowed != nil {
			t.Errorf("%+v", f)
		}
	}
}

// TestLatch: the engine may learn the source of the trunk's side for the window, from the
// trunk's networks and the described address; what it learned is where media goes (M7).
func TestLatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run()
		k := b.openWith(media.Terms{}, behindNAT())
		k.established()
		rtp, rtcp := k.calleeFlows()
		want := call.Latch{Window: 5 * time.Second, Allowed: []netip.Prefix{
			netip.MustParsePrefix(calleeAddr + "/32"), netip.MustParsePrefix("198.18.0.0/24"),
		}}
		for _, f := range []call.Flow{rtp, rtcp} {
			want.Generation = f.Latch.Generation
			if diff := cmp.Diff(want, f.Latch, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
				t.Errorf("RTCP %t (-want +got)\n%s", f.RTCP, diff)
			}
		}
		if b.engine.from(t, callerRTP).Latch.Window != 0 {
			t.Error("the caller's source can be learned")
		}

		b.latch(rtp.Key, natRTP)
		learned, _ := k.calleeFlows()
		if learned.Remote != natRTP || learned.Latch.Window != 0 || b.engine.from(t, callerRTP).Dest != natRTP {
			t.Errorf("learned %+v, back to %v", learned, b.engine.from(t, callerRTP).Dest)
		}
		// RTCP comes from a mapping of its own.
		if _, f := k.calleeFlows(); f.Remote.String() != calleeRTCP || b.engine.from(t, callerRTCP).Dest.String() != calleeRTCP {
			t.Errorf("RTCP moved along: %+v", f)
		}
		b.latch(rtcp.Key, natRTCP)
		if _, f := k.calleeFlows(); f.Remote != natRTCP || f.Latch.Window != 0 || b.engine.from(t, callerRTCP).Dest != natRTCP {
			t.Errorf("RTCP: learned %+v, back to %v", f, b.engine.from(t, callerRTCP).Dest)
		}
		if _, egress, err := k.Media(); err != nil || egress.Remote != natRTP {
			t.Errorf("the record says %v, %v", egress.Remote, err)
		}
	})
}

// TestRelatch: what was learned is learned for good; only another address in the SDP lets the
// engine learn again. A repeated answer, an equal re-INVITE, hold and codecs do not (M7, S7).
func TestRelatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run()
		k := b.openWith(media.Terms{}, behindNAT())
		k.offer(call.Ingress, caller)
		k.answer(call.Egress, callee) // 183
		rtp, _ := k.calleeFlows()
		b.latch(rtp.Key, natRTP)

		still := func(what string) {
			t.Helper()
			rtp, _ := k.calleeFlows()
			if rtp.Remote != natRTP || rtp.Latch.Window != 0 || b.engine.from(t, callerRTP).Dest != natRTP {
				t.Errorf("%s: %+v, back to %v", what, rtp, b.engine.from(t, callerRTP).Dest)
			}
		}
		k.answer(call.Egress, callee) // 200
		still("the answer again")
		k.established()
		still("an equal re-INVITE")
		k.offer(call.Egress, callee)
		k.answer(call.Ingress, caller)
		still("an equal re-INVITE from the other side")
		k.offer(call.Egress, strings.Replace(callee, "c=IN IP4 "+calleeAddr, "c=IN IP4 0.0.0.0", 1))
		k.answer(call.Ingress, caller)
		k.offer(call.Egress, callee)
		k.answer(call.Ingress, caller)
		still("hold and resume")
		k.offer(call.Ingress, strings.Replace(caller, "40000", "44000", 1))
		k.answer(call.Egress, callee)
		if f, _ := k.calleeFlows(); f.Remote != natRTP || f.Latch.Window != 0 {
			t.Errorf("the other side moved: %+v", f)
		}

		k.offer(call.Egress, strings.Replace(callee, "50000", "52000", 1))
		k.answer(call.Ingress, caller)
		moved, _ := k.calleeFlows()
		if moved.Remote.String() != calleeAddr+":52000" || moved.Latch.Window == 0 || moved.Latch.Generation == rtp.Latch.Generation || b.engine.from(t, callerRTP).Dest != moved.Remote {
			t.Errorf("moved: %+v, back to %v", moved, b.engine.from(t, callerRTP).Dest)
		}
	})
}

// TestAnswerOpensTheWindow: each answer lets the source be learned anew where it was not
// learned yet, whatever the answer says of it: a callee behind NAT may be silent until it has
// picked up. One that sends from where it is described to be is learned, too (M7, S5).
func TestAnswerOpensTheWindow(t *testing.T) {
	described := netip.MustParseAddrPort(calleeRTP)
	for name, again := range map[string]func(*talk){
		"200 with the same SDP": func(k *talk) { k.answer(call.Egress, callee) },
		"200 without SDP":       func(k *talk) { k.answer(call.Egress, "") },
		"re-INVITE":             func(k *talk) { k.established() },
		"re-INVITE of the other side": func(k *talk) {
			k.offer(call.Egress, callee)
			k.answer(call.Ingress, caller)
		},
		"hold": func(k *talk) {
			k.offer(call.Egress, strings.Replace(callee, "c=IN IP4 "+calleeAddr, "c=IN IP4 0.0.0.0", 1))
			k.answer(call.Ingress, caller)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.run()
				k := b.openWith(media.Terms{}, behindNAT())
				k.established()
				rtp, rtcp := k.calleeFlows()
				again(k)
				rtpAgain, rtcpAgain := k.calleeFlows()
				if rtpAgain.Latch.Generation == rtp.Latch.Generation || rtcpAgain.Latch.Generation == rtcp.Latch.Generation {
					t.Errorf("the windows were not opened: %+v %+v", rtpAgain.Latch, rtcpAgain.Latch)
				}
				b.latch(rtp.Key, described)
				again(k)
				if f, _ := k.calleeFlows(); f.Remote != described || f.Latch.Window != 0 {
					t.Errorf("learned %v, and others may be: %+v", described, f)
				}
				if _, f := k.calleeFlows(); f.Latch.Generation == rtcpAgain.Latch.Generation {
					t.Errorf("RTCP has not come yet, and its window was not opened: %+v", f)
				}
			})
		})
	}
}

// TestLearnedOverTries: the caller's source stays the learned one when the call goes on to
// another trunk (M7, T7).
func TestLearnedOverTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run()
		k := b.openWith(behindNAT(), media.Terms{})
		k.established()
		b.latch(b.engine.from(t, callerRTP).Key, natRTP)
		if err := k.SetEgress("outside3", media.Terms{}); err != nil {
			t.Fatal(err)
		}
		k.established()
		if f := b.engine.from(t, natRTP.String()); f.Latch.Window != 0 || b.engine.from(t, calleeRTP).Dest != natRTP {
			t.Errorf("%+v, back to %v", f, b.engine.from(t, calleeRTP).Dest)
		}
	})
}

// TestGenerations: a call does not begin with a generation of the call before it at the same
// port, whose flow would keep whom it has learned (M7, M9).
func TestGenerations(t *testing.T) {
	b := newBench(t)
	seen := map[uint32]bool{}
	for range 3 {
		k := b.openWith(media.Terms{}, behindNAT())
		k.established()
		f, _ := k.calleeFlows()
		seen[f.Latch.Generation] = true
		k.Close()
	}
	if len(seen) != 3 {
		t.Errorf("3 calls had the generations %v", seen)
	}
}

// TestLatchedUnsendable: an engine that fails to send to a learned source is asked again, and
// the log says so once (M7).
func TestLatchedUnsendable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		b := newBenchOn(t, newFakeEngine(), media.Config{Log: slog.New(slog.NewTextHandler(&log, nil))},
			call.PortRange{First: 16384, Last: 16403})
		b.run()
		k := b.openWith(media.Terms{}, behindNAT())
		k.established()
		rtp, _ := k.calleeFlows()
		b.engine.refuse(errEngine, nil)
		b.latch(rtp.Key, natRTP)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := strings.Count(log.String(), "not sent to yet"); n != 1 {
			t.Errorf("said %d times:\n%s", n, &log)
		}
		b.engine.refuse(nil, nil)
		time.Sleep(time.Second + time.Millisecond)
		synctest.Wait()
		if f := b.engine.from(t, callerRTP); f.Dest != natRTP {
			t.Errorf("sent to %v", f.Dest)
		}
	})
}

// TestLatchedMux: with rtcp-mux RTCP has no source of its own to learn, it follows (M2, M7).
func TestLatchedMux(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run()
		k := b.openWith(media.Terms{}, behindNAT())
		k.offer(call.Egress, callee+muxLine)
		k.answer(call.Ingress, caller)
		rtp, _ := k.calleeFlows()
		b.latch(rtp.Key, natRTP)
		rtp, rtcp := k.calleeFlows()
		if rtp.Remote != natRTP || rtcp.Remote != natRTP || rtcp.Latch.Window != 0 || b.engine.from(t, callerRTCP).Dest != natRTP {
			t.Errorf("RTP %+v\nRTCP %+v, back to %v", rtp, rtcp, b.engine.from(t, callerRTCP).Dest)
		}
	})
}

// TestLatchedTooLate: what the engine learned of a call that has ended, or of a try that
// has failed, is nobody's.
func TestLatchedTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run()
		k := b.openWith(media.Terms{}, behindNAT())
		k.established()
		rtp, _ := k.calleeFlows()
		if err := k.SetEgress("outside3", behindNAT()); err != nil {
			t.Fatal(err)
		}
		installs := b.engine.installs
		b.told(rtp.Key, natRTP)
		k.Close()
		b.told(rtp.Key, natRTP)
		if b.engine.installs != installs {
			t.Error("flows were installed for a side that is gone")
		}
	})
}

// TestLatchedBeforeMove: what was learned of a place that the peer has left since, by a
// re-INVITE that overtook the event, is not taken for the new one's (M7).
func TestLatchedBeforeMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run()
		k := b.openWith(media.Terms{}, behindNAT())
		k.established()
		rtp, _ := k.calleeFlows()
		b.engine.learn(rtp.Key, natRTP)
		k.offer(call.Egress, strings.Replace(callee, "50000", "52000", 1))
		k.answer(call.Ingress, caller)
		b.told(rtp.Key, natRTP)
		const moved = calleeAddr + ":52000"
		if f, _ := k.calleeFlows(); f.Remote.String() != moved || b.engine.from(t, callerRTP).Dest.String() != moved {
			t.Errorf("%+v, back to %v", f, b.engine.from(t, callerRTP).Dest)
		}

		// The new place's own is what counts, whatever the event says.
		natted := netip.MustParseAddrPort("198.18.0.8:62000")
		b.engine.learn(rtp.Key, natted)
		b.told(rtp.Key, natRTP)
		if f, _ := k.calleeFlows(); f.Remote != natted || b.engine.from(t, callerRTP).Dest != natted {
			t.Errorf("%+v, back to %v", f, b.engine.from(t, callerRTP).Dest)
		}
	})
}

// TestLatchedUntold: a lost event costs a second of speech, not the call's (M7).
func TestLatchedUntold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run()
		k := b.openWith(media.Terms{}, behindNAT())
		k.established()
		rtp, rtcp := k.calleeFlows()
		b.engine.learn(rtp.Key, natRTP)
		b.engine.learn(rtcp.Key, natRTCP)
		time.Sleep(time.Second + time.Millisecond)
		synctest.Wait()
		if f, _ := k.calleeFlows(); f.Remote != natRTP || b.engine.from(t, callerRTP).Dest != natRTP {
			t.Errorf("%+v, back to %v", f, b.engine.from(t, callerRTP).Dest)
		}
		if _, f := k.calleeFlows(); f.Remote != natRTCP || b.engine.from(t, callerRTCP).Dest != natRTCP {
			t.Errorf("RTCP: %+v, back to %v", f, b.engine.from(t, callerRTCP).Dest)
		}
		installs := b.engine.installs
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if b.engine.installs != installs {
			t.Errorf("flows installed %d times more for nothing", b.engine.installs-installs)
		}
	})
}

// TestLatchedUnknown: an engine that cannot say who it learned is asked again (M7).
func TestLatchedUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run()
		k := b.openWith(media.Terms{}, behindNAT())
		k.established()
		rtp, _ := k.calleeFlows()
		broken := func(err error) {
			b.engine.mu.Lock()
			defer b.engine.mu.Unlock()
			b.engine.unreadable = err
		}
		broken(errEngine)
		b.latch(rtp.Key, natRTP)
		if f := b.engine.from(t, callerRTP); f.Dest.String() != calleeRTP {
			t.Errorf("sent to %v, which nobody knows of", f.Dest)
		}
		broken(nil)
		time.Sleep(time.Second + time.Millisecond)
		synctest.Wait()
		if f := b.engine.from(t, callerRTP); f.Dest != natRTP {
			t.Errorf("sent to %v", f.Dest)
		}
	})
}

// TestLatchedForgery: no packet makes us send to our own ports, where it would go in
// circles, or to a well-known one; the log says so once (M7, M9).
func TestLatchedForgery(t *testing.T) {
	for name, source := range map[string]string{"our own port": inside + ":16384", "DNS": "198.18.0.9:53"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				b := newBenchOn(t, newFakeEngine(), media.Config{Log: slog.New(slog.NewTextHandler(&log, nil))},
					call.PortRange{First: 16384, Last: 16403})
				b.run()
				k := b.openWith(media.Terms{}, behindNAT())
				k.established()
				rtp, _ := k.calleeFlows()
				b.latch(rtp.Key, netip.MustParseAddrPort(source))
				time.Sleep(10 * time.Second)
				synctest.Wait()
				if n := strings.Count(log.String(), "learned media source not sent to"); n != 1 {
					t.Errorf("said %d times:\n%s", n, &log)
				}
				if f := b.engine.from(t, callerRTP); f.Dest.String() != calleeRTP {
					t.Errorf("sent to %v", f.Dest)
				}
			})
		})
	}
}

// TestLatchTerms: what an engine can take of a trunk's prefixes, the described one first.
func TestLatchTerms(t *testing.T) {
	terms := media.Terms{Latch: media.LatchTerms{Window: time.Second}}
	k := newBench(t).openWith(media.Terms{}, terms)
	k.established()
	if f, _ := k.calleeFlows(); f.Latch.Window != 0 {
		t.Errorf("nobody to learn from, and yet %+v", f.Latch)
	}
	for i := range byte(12) {
		terms.Latch.Allowed = append(terms.Latch.Allowed, netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, 0, i}), 32))
	}
	terms.Latch.Described = true
	k = newBench(t).openWith(media.Terms{}, terms)
	k.established()
	if f, _ := k.calleeFlows(); len(f.Latch.Allowed) != call.MaxPrefixes || f.Latch.Allowed[0].Addr().String() != calleeAddr {
		t.Errorf("%v", f.Latch.Allowed)
	}
}
