package conformance

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// TestRandomStreams: whatever comes, both engines send, count and report the same. A
// failure is cut down to the shortest one, and its seed is printed.
func TestRandomStreams(t *testing.T) {
	rigs := map[string]*rig{}
	for _, name := range []string{call.EngineKernel, call.EngineUserspace} {
		n := newNetwork(t)
		rigs[name] = n.rig(t, n.open(t, name))
	}
	defer func() {
		for _, r := range rigs {
			r.t = t
		}
	}()
	generation := uint32(0)
	rapid.Check(t, func(rt *rapid.T) {
		flows := drawFlows(rt)
		generation++ // a check knows nothing of what an earlier one learned
		for i := range flows {
			flows[i].Latch.Generation = generation
		}
		packets := drawPackets(rt)
		outcomes := map[string]outcome{}
		for name, r := range rigs {
			r.t = rt // a failure is the check's
			outcomes[name] = r.play(flows, packets)
		}
		compare(rt, outcomes[call.EngineKernel], outcomes[call.EngineUserspace])
	})
}

// outcome is what came of a check, without what depends on time.
type outcome struct {
	arrived []string
	left    ways
	stats   []call.FlowStats
	events  map[call.FlowKey][]string
}

// play runs packets through flows, which it takes out again.
func (r *rig) play(flows []call.Flow, packets []drawn) outcome {
	r.t.Helper()
	r.settle()
	r.seen, r.reports = nil, nil
	before, marked := r.left(), r.marked
	r.install(flows...)
	for _, p := range packets {
		f := flows[p.to]
		src := f.Remote
		if p.stranger {
			src = elsewhere(platform, 6000)
		}
		r.sendFrom(src, f, p.bytes)
	}
	r.barrier()
	o := outcome{left: ways{}, events: map[call.FlowKey][]string{}}
	// Media and its control may overtake each other, the packets of one may not.
	slices.SortStableFunc(r.seen, func(a, b seen) int { return cmp.Or(a.src.Compare(b.src), a.dst.Compare(b.dst)) })
	for _, s := range r.seen {
		o.arrived = append(o.arrived, fmt.Sprintf("%v to %v, mark %d: %x", s.src, s.dst, s.tos>>2, s.payload))
	}
	after := r.left()
	for w, n := range after {
		if n -= before[w]; n > 0 {
			o.left[w] = n
		}
	}
	for _, realm := range []uint16{platform, carrier} {
		forwarded := way{realm, call.ExitForwarded}
		if o.left[forwarded] -= (r.marked - marked) / 2; o.left[forwarded] == 0 {
			delete(o.left, forwarded)
		}
	}
	o.stats = r.remove(flows...)
	for i := range o.stats {
		o.stats[i] = timeless(o.stats[i])
	}
	for _, e := range r.reports {
		// Refusals are told once a minute, and copies of reports by their own clock.
		if e.Kind != call.MediaRefused && e.Kind != call.MediaReport {
			o.events[e.Key] = append(o.events[e.Key], described([]call.MediaEvent{e})[0])
		}
	}
	return o
}

func compare(t *rapid.T, kernel, userspace outcome) {
	t.Helper()
	for i := range max(len(kernel.arrived), len(userspace.arrived)) {
		var k, u string
		if i < len(kernel.arrived) {
			k = kernel.arrived[i]
		}
		if i < len(userspace.arrived) {
			u = userspace.arrived[i]
		}
		if k != u {
			t.Fatalf("arrival %d:\n   kernel %s\nuserspace %s", i+1, k, u)
		}
	}
	if !maps.Equal(kernel.left, userspace.left) {
		t.Errorf("packets left by realm and reason:\n   kernel %v\nuserspace %v", kernel.left, userspace.left)
	}
	for i := range kernel.stats {
		if kernel.stats[i] != userspace.stats[i] {
			t.Errorf("flow to %v:\n   kernel %+v\nuserspace %+v", kernel.stats[i].Key.Local, kernel.stats[i], userspace.stats[i])
		}
		key := kernel.stats[i].Key
		if !slices.Equal(kernel.events[key], userspace.events[key]) {
			t.Errorf("events of %v:\n   kernel %v\nuserspace %v", key.Local, kernel.events[key], userspace.events[key])
		}
	}
}

// drawn is a packet to one of the flows.
type drawn struct {
	to       int
	stranger bool
	bytes    []byte
}

// drawFlows is RTP and, for some, the RTCP flow above it.
func drawFlows(t *rapid.T) []call.Flow {
	f := up()
	f.DSCP = uint8(rapid.IntRange(0, 63).Draw(t, "dscp"))
	f.ClockRate = rapid.SampledFrom([]uint32{0, 8000, 48000}).Draw(t, "clock")
	f.Hold = rapid.IntRange(0, 9).Draw(t, "hold") == 0
	f.Mux = rapid.Bool().Draw(t, "mux")
	f.Payloads = rapid.SampledFrom([][]call.Payload{
		nil,
		{{In: pcma, Out: pcma}, {In: events, Out: 96, Treatment: call.TelephoneEvent}},
		{
			{In: pcma, Out: pcmu, Treatment: call.ALawToULaw}, {In: comfortNoise, Out: comfortNoise},
			{In: events, Out: events, Treatment: call.TelephoneEvent},
		},
		{{In: pcmu, Out: pcma, Treatment: call.ULawToALaw}, {In: events, Out: 127, Treatment: call.TelephoneEvent}},
	}).Draw(t, "payloads")
	if rapid.Bool().Draw(t, "latch") {
		f.Latch = latching(openWindow).Latch
	}
	flows := []call.Flow{f}
	if rapid.Bool().Draw(t, "control") {
		flows = append(flows, controlOf(f))
	}
	return flows
}

// drawPackets is a stream as it may come over a bad network from a bad peer. All goes to
// the RTP flow: the two ports of user space have no order between them.
func drawPackets(t *rapid.T) []drawn {
	seq := uint16(rapid.SampledFrom([]int{0, 1, 100, 32767, 65500, 65535}).Draw(t, "first"))
	by, clock, pressed := uint32(ssrc), uint32(0), uint32(0)
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) drawn {
		p := rtp{payload: rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "payload")}
		p.pt = rapid.SampledFrom([]uint8{pcma, pcma, pcma, pcma, pcmu, comfortNoise, events, 99}).Draw(t, "type")
		p.marker = rapid.IntRange(0, 9).Draw(t, "marker") == 0
		step := rapid.SampledFrom([]int{1, 1, 1, 1, 1, 2, 0, -1, -2, 3, -63, -64, 64, -99, -100, 99, 2999, 3000, 30000}).Draw(t, "step")
		seq += uint16(step)
		clock += rapid.SampledFrom([]uint32{160, 160, 160, 0, 480, 1 << 31}).Draw(t, "ticks")
		if rapid.IntRange(0, 29).Draw(t, "ssrc") == 0 {
			by ^= 0xffff
		}
		p.seq, p.ssrc, p.timestamp = seq, by, clock
		if p.pt == events {
			if rapid.IntRange(0, 3).Draw(t, "key") == 0 {
				pressed = rapid.SampledFrom([]uint32{clock, pressed + 0xffff}).Draw(t, "pressed")
			}
			p.timestamp = pressed
			if len(p.payload) > 0 {
				p.payload[0] %= 20
			}
		}
		if rapid.IntRange(0, 9).Draw(t, "csrc") == 0 {
			p.csrc = make([]uint32, rapid.IntRange(1, 15).Draw(t, "csrcs"))
		}
		if rapid.IntRange(0, 9).Draw(t, "extension") == 0 {
			p.extension = make([]byte, 4*rapid.IntRange(0, 4).Draw(t, "words"))
		}
		if rapid.IntRange(0, 9).Draw(t, "padding") == 0 {
			p.padding = uint8(rapid.IntRange(1, 40).Draw(t, "pad"))
		}
		d := drawn{bytes: p.bytes(), stranger: rapid.IntRange(0, 9).Draw(t, "stranger") == 0}
		switch rapid.IntRange(0, 19).Draw(t, "kind") {
		case 0:
			d.bytes = receiverReport(byte(seq))
		case 1:
			d.bytes = senderReport(rapid.IntRange(0, 3).Draw(t, "blocks"))
		case 2:
			d.bytes = d.bytes[:rapid.IntRange(0, len(d.bytes)).Draw(t, "cut")]
		case 3:
			d.bytes[0] = rapid.Byte().Draw(t, "version")
		case 4:
			d.bytes = rapid.SliceOfN(rapid.Byte(), 0, 60).Draw(t, "noise")
		}
		return d
	}), 1, 80).Draw(t, "packets")
}
