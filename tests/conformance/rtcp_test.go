package conformance

import (
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// TestRTCP: where control goes, and what is told of it (M2).
func TestRTCP(t *testing.T) {
	muxed := func() (call.Flow, call.Flow) {
		f := up()
		f.Mux = true
		return f, controlOf(f)
	}
	hold(t,
		rule{"M2 multiplexed RTCP belongs to the flow above", func(t *testing.T, r *rig) {
			f, control := muxed()
			control.DSCP = 12
			r.install(f, control)
			r.send(f, speech(1), receiverReport(1), speech(2), senderReport(1))
			r.arrive(by(f, speech(1), speech(2)), by(control, receiverReport(1), senderReport(1)))
			r.stats(f, counted(speech(1), speech(2)))
			r.stats(control, counted(receiverReport(1), senderReport(1)))
			r.exits(ways{{platform, call.ExitForwarded}: 4})
		}},
		rule{"M2 the far side need not multiplex", func(t *testing.T, r *rig) {
			// The carrier's RTCP comes to a port of its own, the platform's among its RTP.
			f, control := muxed()
			back := controlOf(down())
			control.Remote = f.Remote
			back.Dest = f.Remote
			r.install(f, down(), control, back)
			r.send(f, receiverReport(1))
			r.send(back, receiverReport(2))
			r.arrive(by(control, receiverReport(1)), by(back, receiverReport(2)))
		}},
		rule{"M2 a stranger's RTCP is refused by the flow that it came to", func(t *testing.T, r *rig) {
			f, control := muxed()
			r.install(f, control)
			r.sendFrom(control.Remote, f, receiverReport(1))
			r.arrive()
			r.stats(f, call.FlowStats{Refused: 1})
			r.stats(control, call.FlowStats{})
		}},
		rule{"M2 multiplexed RTCP without a flow above is dropped", func(t *testing.T, r *rig) {
			f, _ := muxed()
			r.install(f)
			r.send(f, receiverReport(1), speech(1))
			r.arrive(by(f, speech(1)))
			r.stats(f, counted(speech(1)))
			r.exits(ways{{platform, call.ExitNoFlow}: 1, {platform, call.ExitForwarded}: 1})
		}},
		rule{"M2 multiplexed RTCP is held with the flow above", func(t *testing.T, r *rig) {
			f, control := muxed()
			held := control
			held.Hold = true
			r.install(f, held)
			r.send(f, receiverReport(1), speech(1))
			r.arrive(by(f, speech(1)))
			r.stats(control, counted(receiverReport(1)))
			r.exits(ways{{platform, call.ExitHold}: 1, {platform, call.ExitForwarded}: 1})
		}},
		rule{"M2 multiplexed RTCP is reported by the flow above", func(t *testing.T, r *rig) {
			f, control := muxed()
			r.install(f, control)
			r.send(f, receiverReport(1))
			start, copied := started(control), report(control, receiverReport(1))
			start.Source, copied.Source = f.Remote, f.Remote
			r.arrive(by(control, receiverReport(1)))
			r.events(start, copied)
		}},
		rule{"M2 RTCP among RTP passes without being asked for", func(t *testing.T, r *rig) {
			f, control := up(), controlOf(up())
			f.Payloads = []call.Payload{{In: pcma, Out: pcma}}
			r.install(f, control)
			r.send(f, speech(1), receiverReport(1), speech(2))
			r.arrive(by(f, speech(1), receiverReport(1), speech(2)))
			want := counted(speech(1), receiverReport(1), speech(2))
			want.Control = 1
			r.stats(f, want)
			r.stats(control, call.FlowStats{})
			r.exits(ways{{platform, call.ExitForwarded}: 3})
		}},
		rule{"M2 RTCP types begin at 192 and end at 223", func(t *testing.T, r *rig) {
			f, control := muxed()
			r.install(f, control)
			rtp := [][]byte{ofType(speech(1), 191, false), ofType(speech(2), 224, false)}
			rtcp := [][]byte{ofType(receiverReport(1), 192, false), ofType(receiverReport(2), 223, false)}
			r.send(f, rtp...)
			r.send(f, rtcp...)
			r.arrive(by(f, rtp...), by(control, rtcp...))
		}},
		rule{"M2 M11 a report is copied", func(t *testing.T, r *rig) {
			control := controlOf(up())
			r.install(control)
			r.send(control, senderReport(3))
			r.events(started(control), report(control, senderReport(3)))
			r.lost(0)
		}},
		rule{"M2 M11 a report is copied up to a bound", func(t *testing.T, r *rig) {
			control := controlOf(up())
			r.install(control)
			long := append(senderReport(31), make([]byte, 500)...)
			r.send(control, long)
			r.arrive(by(control, long))
			r.events(started(control), report(control, long[:call.MaxReport]))
		}},
		rule{"M2 M11 reports are bounded by time, and the rest is counted", func(t *testing.T, r *rig) {
			const packets = 30
			control := controlOf(up())
			r.install(control)
			begin := time.Now()
			for i := range byte(packets) {
				r.send(control, receiverReport(i))
			}
			r.barrier()
			atMost := 1 + int(time.Since(begin)/call.ReportGap)
			copied := r.copies(control)
			if len(copied) == 0 || len(copied) > atMost {
				t.Errorf("%s: %d copies in %v, want 1 to %d", r.name, len(copied), time.Since(begin), atMost)
			}
			r.lost(uint64(packets - len(copied)))
			// When the time is over, the next is copied.
			time.Sleep(call.ReportGap)
			r.send(control, receiverReport(200))
			r.barrier()
			again := r.copies(control)
			if len(again) != len(copied)+1 || again[len(again)-1].Packet[7] != 200 {
				t.Errorf("%s: copies after a pause: %v", r.name, described(again))
			}
			want := call.FlowStats{Packets: packets + 1, Bytes: (packets + 1) * 8}
			r.stats(control, want)
		}},
		rule{"M2 each flow has a bound of its own", func(t *testing.T, r *rig) {
			there, back := controlOf(up()), controlOf(down())
			r.install(there, back)
			r.send(there, receiverReport(1))
			r.send(back, receiverReport(2))
			r.events(started(there), report(there, receiverReport(1)), started(back), report(back, receiverReport(2)))
		}},
		rule{"M2 refused RTCP is not copied", func(t *testing.T, r *rig) {
			control := controlOf(up())
			r.install(control)
			r.sendFrom(elsewhere(platform, 5), control, receiverReport(1))
			r.events(refused(control, elsewhere(platform, 5)))
		}},
	)
}

// report is the copy of an RTCP packet.
func report(f call.Flow, packet []byte) call.MediaEvent {
	return call.MediaEvent{Key: f.Key, Kind: call.MediaReport, Source: f.Remote, Packet: packet}
}

// copies are the reports of a flow so far.
func (r *rig) copies(f call.Flow) []call.MediaEvent {
	var copies []call.MediaEvent
	for _, e := range r.reports {
		if e.Kind == call.MediaReport && e.Key == f.Key {
			copies = append(copies, e)
		}
	}
	return copies
}

// lost asserts how many events the engine says it did not deliver.
func (r *rig) lost(want uint64) {
	r.t.Helper()
	if got := r.engineStats().EventsLost - r.before.EventsLost; got != want {
		r.t.Errorf("%s: %d events lost, want %d", r.name, got, want)
	}
}
