package relay

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/g711"
)

// TestPayloadTypes: what was agreed on gets the number of the other side, with its marker;
// nothing else gets through (M4, M5).
func TestPayloadTypes(t *testing.T) {
	d := newDoor(t, call.Flow{Remote: alice, Payloads: []call.Payload{
		{In: 96, Out: 111}, {In: 101, Out: 96, Treatment: call.TelephoneEvent}, {In: 13, Out: 13},
	}})
	for _, tt := range []struct{ in, marker, out uint8 }{
		{96, 0, 111}, {96, markerBit, 111 | markerBit}, {101, markerBit, 96 | markerBit}, {13, 0, 13},
	} {
		packet := stream{payloadType: tt.in, marker: tt.marker, payload: []byte("audio")}.packet()
		want := bytes.Clone(packet)
		want[1] = tt.out
		d.want(alice, packet, exitForwarded)
		if diff := cmp.Diff(want, packet); diff != "" {
			t.Errorf("type %d (-want +got):\n%s", tt.in, diff)
		}
	}
	d.want(alice, rtp(1), exitPayloadType)
	d.want(alice, stream{payloadType: 111}.packet(), exitPayloadType)
	if s := d.f.snapshot(); s.OutOfPolicy != 2 || s.Packets != 4 {
		t.Errorf("%d out of policy, %d counted; want 2, 4", s.OutOfPolicy, s.Packets)
	}
}

// TestPayloadTypesAll: an empty list lets every type through as it is.
func TestPayloadTypesAll(t *testing.T) {
	d := newDoor(t, call.Flow{Remote: alice})
	for pt := range uint8(64) { // above begins RTCP, with the marker
		packet := stream{payloadType: pt, marker: markerBit}.packet()
		want := bytes.Clone(packet)
		d.want(alice, packet, exitForwarded)
		if !bytes.Equal(packet, want) {
			t.Errorf("type %d left as % x", pt, packet)
		}
	}
}

// TestG711: every byte of the payload is converted, wherever it begins and ends, and no
// byte of a header or of the padding (M14).
func TestG711(t *testing.T) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	extension := []byte{0xbe, 0xde, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8}
	for name, s := range map[string]stream{
		"plain":                {payload: all},
		"one byte":             {payload: all[9:10]},
		"no payload":           {},
		"CSRCs":                {csrcs: 15, payload: all},
		"extension":            {extension: extension, payload: all},
		"empty extension":      {extension: []byte{1, 2, 0, 0}, payload: all},
		"padding":              {payload: all, padding: 4},
		"padding alone":        {padding: 8},
		"all of it":            {csrcs: 2, extension: extension, payload: all, padding: 255},
		"marker, other fields": {marker: markerBit, seq: 0xffff, timestamp: 1 << 31, ssrc: 7, payload: all},
	} {
		for _, law := range []struct {
			call.Payload
			table *[256]byte
		}{
			{call.Payload{In: 8, Out: 0, Treatment: call.ALawToULaw}, &g711.ALawToULaw},
			{call.Payload{In: 0, Out: 8, Treatment: call.ULawToALaw}, &g711.ULawToALaw},
		} {
			d := newDoor(t, call.Flow{Remote: alice, Payloads: []call.Payload{law.Payload}})
			s.payloadType = law.In
			packet := s.packet()
			out := s
			out.payloadType = law.Out
			out.payload = make([]byte, len(s.payload))
			for i, octet := range s.payload {
				out.payload[i] = law.table[octet]
			}
			d.want(alice, packet, exitForwarded)
			if diff := cmp.Diff(out.packet(), packet); diff != "" {
				t.Errorf("%s, type %d to %d (-want +got):\n%s", name, law.In, law.Out, diff)
			}
		}
	}
}

// TestG711OfBrokenHeaders: where the payload is cannot be told, so it is not sent in the
// name of another law (M14).
func TestG711OfBrokenHeaders(t *testing.T) {
	for name, s := range map[string]stream{
		"extension cut":            {extension: []byte{0xbe, 0xde}},
		"extension beyond the end": {extension: []byte{0xbe, 0xde, 0xff, 0xff, 1, 2, 3, 4}},
		"more padding than packet": {payload: []byte{1, 2, 3}, padding: 1},
	} {
		d := newDoor(t, call.Flow{Remote: alice, Payloads: []call.Payload{{In: 8, Out: 0, Treatment: call.ALawToULaw}}})
		s.payloadType = 8
		packet := s.packet()
		if s.padding > 0 {
			packet[len(packet)-1] = 5
		}
		if x := d.take(alice, packet); x != exitNotRTP {
			t.Errorf("%s: %s, want %s", name, exitNames[x].Reason, exitNames[exitNotRTP].Reason)
		}
	}
}

// FuzzGates: whatever comes in, the length stays, and the RTP header but for the payload type.
func FuzzGates(f *testing.F) {
	f.Add(rtp(1))
	f.Add(receiverReport())
	f.Add([]byte{0xbf, 101, 0xff})
	f.Add(stream{payloadType: 101, csrcs: 15, extension: []byte{0, 0, 0, 0}, padding: 3, payload: []byte{9, 0, 0, 0}}.packet())
	f.Fuzz(func(t *testing.T, data []byte) {
		d := newDoor(t, call.Flow{Remote: alice, ClockRate: 8000, Payloads: []call.Payload{
			{In: 8, Out: 0, Treatment: call.ALawToULaw}, {In: 0, Out: 8, Treatment: call.ULawToALaw},
			{In: 101, Out: 96, Treatment: call.TelephoneEvent},
		}})
		packet := bytes.Clone(data)
		x := d.take(alice, packet)
		if x != exitForwarded {
			if !bytes.Equal(packet, data) {
				t.Errorf("%s, and changed to % x", exitNames[x].Reason, packet)
			}
			return
		}
		if packet[0] != data[0] || packet[1]&markerBit != data[1]&markerBit || !bytes.Equal(packet[2:8], data[2:8]) {
			t.Errorf("header % x became % x", data[:8], packet[:8])
		}
	})
}
