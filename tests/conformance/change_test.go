package conformance

import (
	"bytes"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// TestChange: flows are put in, changed under traffic, and taken out (M1, S7).
func TestChange(t *testing.T) {
	hold(t,
		rule{"M1 removal returns the last counters", func(t *testing.T, r *rig) {
			f, back := up(), down()
			r.install(f, back)
			r.send(f, numbered(1, 2, 5, 4)...)
			r.sendFrom(elsewhere(platform, 5), f, speech(1))
			r.send(back, speech(1))
			stats := r.remove(back, f)
			if len(stats) != 2 {
				t.Fatalf("%s: %d counters for 2 flows", r.name, len(stats))
			}
			want := counted(numbered(1, 2, 5, 4)...)
			want.Lost, want.Reordered, want.Refused, want.Remote = 1, 1, 1, f.Remote
			r.compare(f, stats[1], want)
			want = counted(speech(1))
			want.Remote = back.Remote
			r.compare(back, stats[0], want)
		}},
		rule{"M1 a removed flow passes nothing", func(t *testing.T, r *rig) {
			f := up()
			r.install(f, down())
			r.send(f, speech(1))
			r.arrive(by(f, speech(1)))
			r.remove(f)
			r.send(f, speech(2)) // a socket is there in user space: the opposite flow leaves by it
			r.arrive()
			r.exits(ways{{platform, call.ExitForwarded}: 1, {platform, call.ExitNoFlow}: 1})
			r.compare(f, r.remove(f)[0], call.FlowStats{}) // there is none any more
		}},
		rule{"M1 a flow put in again begins at zero", func(t *testing.T, r *rig) {
			f := up()
			r.install(f)
			r.send(f, numbered(7, 9)...)
			r.remove(f)
			r.install(f)
			r.stats(f, call.FlowStats{})
			r.send(f, numbered(100)...)
			r.arrive(by(f, numbered(7, 9, 100)...))
			r.stats(f, counted(speech(100)))
			r.events(started(f), started(f))
		}},
		rule{"M1 an unknown flow counts nothing", func(t *testing.T, r *rig) {
			r.install(up())
			r.stats(down(), call.FlowStats{})
		}},
		rule{"S7 an update keeps the counters", func(t *testing.T, r *rig) {
			f := up()
			f.Payloads = []call.Payload{{In: pcma, Out: pcma}, {In: events, Out: events, Treatment: call.TelephoneEvent}}
			r.install(f)
			p := key{event: 4, seq: 1, ssrc: ssrc, pt: events}.press(1)
			r.send(f, p...)
			r.send(f, numbered(9, 8)...)
			r.send(f, []byte("noise"))
			r.sendFrom(elsewhere(platform, 5), f, speech(1))
			r.settle()
			before, err := r.engine.Snapshot([]call.FlowKey{f.Key})
			if err != nil {
				t.Fatal(err)
			}
			f.Dest, f.DSCP = elsewhere(carrier, 41000), 8
			r.install(f)
			want := counted(append(p, numbered(9, 8)...)...)
			want.Lost, want.Reordered, want.Refused, want.OutOfPolicy, want.Digits = 2, 1, 1, 1, 1
			after := r.stats(f, want)
			if before[0].Gap != after.Gap || before[0].Jitter != after.Jitter || before[0].First.Sub(after.First).Abs() > clockTolerance {
				t.Errorf("%s: before the update\n     %+v\nafter %+v", r.name, before[0], after)
			}
			r.seen = nil
			r.send(f, speech(10))
			r.barrier()
			if len(r.seen) == 0 || r.seen[len(r.seen)-1].dst != f.Dest || r.seen[len(r.seen)-1].tos>>2 != 8 {
				t.Errorf("%s: after the update arrived %+v", r.name, r.seen)
			}
		}},
		rule{"S7 updates drop nothing under traffic", func(t *testing.T, r *rig) {
			const packets, pace = 1500, time.Millisecond
			f := up()
			r.install(f)
			done := make(chan error, 1)
			go func() {
				begin := time.Now()
				for i := range packets {
					time.Sleep(time.Until(begin.Add(time.Duration(i) * pace)))
					d := datagram{src: f.Remote, dst: f.Key.Local, ttl: firstTTL, payload: speech(uint16(i))}
					if err := r.net.taps[platform].send(d); err != nil {
						done <- err
						return
					}
				}
				done <- nil
			}()
			marks, updates := map[uint8]bool{}, 0
			for sending := true; sending; {
				changed := f
				changed.DSCP = []uint8{46, 34, 10}[updates%3]
				changed.Payloads = [][]call.Payload{nil, {{In: pcma, Out: pcma}}}[updates%2]
				if err := r.do(func() error { return r.engine.Install([]call.Flow{changed}) }); err != nil {
					t.Fatal(err)
				}
				updates++
				select {
				case err := <-done:
					if err != nil {
						t.Fatal(err)
					}
					sending = false
				case <-time.After(5 * time.Millisecond):
				}
			}
			r.sent += packets
			r.barrier()
			if len(r.seen) != packets {
				t.Fatalf("%s: %d of %d packets arrived over %d updates", r.name, len(r.seen), packets, updates)
			}
			for i, s := range r.seen {
				if !bytes.Equal(s.payload, speech(uint16(i))) {
					t.Fatalf("%s: packet %d is not what was sent: %x", r.name, i, s.payload)
				}
				marks[s.tos>>2] = true
			}
			if len(marks) != 3 {
				t.Errorf("%s: marks of %d updates: %v, want all three", r.name, updates, marks)
			}
			want := call.FlowStats{Packets: packets, Bytes: packets * 172, SSRC: ssrc}
			r.stats(f, want)
		}},
		rule{"M1 all flows of a call or none", func(t *testing.T, r *rig) {
			f, bad := up(), down()
			bad.OutRealm = 9
			if err := r.do(func() error { return r.engine.Install([]call.Flow{f, bad}) }); err == nil {
				t.Fatalf("%s: a realm that is not there was taken", r.name)
			}
			r.nowhere(platform, datagram{src: f.Remote, dst: f.Key.Local, ttl: firstTTL, payload: speech(1)})
			r.arrive()
			r.stats(f, call.FlowStats{})
		}},
		rule{"M1 flows and packets of an engine", func(t *testing.T, r *rig) {
			r.install(up(), down(), controlOf(up()), controlOf(down()))
			r.send(up(), numbered(1, 2, 3)...)
			r.settle()
			flows, there, here := uint64(4), uint64(3), uint64(0)
			if !r.kernel() {
				there, here = here, there
			}
			stats := r.engineStats()
			if stats.Engine != r.name || uint64(stats.Flows) != flows ||
				stats.KernelPackets-r.before.KernelPackets != there || stats.UserspacePackets-r.before.UserspacePackets != here {
				t.Errorf("%s: %+v, before %+v, want 4 flows and 3 packets more", r.name, stats, r.before)
			}
			r.remove(up(), down(), controlOf(up()), controlOf(down()))
			if left := r.engineStats().Flows; left != 0 {
				t.Errorf("%s: %d flows are left", r.name, left)
			}
		}},
	)
}
