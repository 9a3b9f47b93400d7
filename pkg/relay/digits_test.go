package relay

import (
	"testing"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// dtmf is a packet of a key at its time, as many are sent while it is held.
func dtmf(event uint8, timestamp uint32) stream {
	return stream{payloadType: 101, timestamp: timestamp, ssrc: 1, payload: []byte{event, 10, 0, 160}}
}

// TestDigitsOncePerKey: keys are told apart by the RTP timestamp of their beginning,
// however many packets of them come, and are lost (M5, RFC 4733).
func TestDigitsOncePerKey(t *testing.T) {
	other := dtmf(1, 800)
	other.ssrc = 2
	extended := dtmf(5, 800)
	extended.csrcs, extended.extension = 3, []byte{0xbe, 0xde, 0, 1, 9, 9, 9, 9}
	cut, padded := dtmf(5, 800), dtmf(5, 800)
	cut.payload = cut.payload[:3]
	padded.payload, padded.padding = padded.payload[:2], 2
	for name, tt := range map[string]struct {
		packets []stream
		digits  []uint8
	}{
		"updates and three ends":     {[]stream{dtmf(5, 800), dtmf(5, 800), dtmf(5, 800), dtmf(5, 800)}, []uint8{5}},
		"the same key twice":         {[]stream{dtmf(5, 800), dtmf(5, 800), dtmf(5, 4000), dtmf(5, 4000)}, []uint8{5, 5}},
		"all keys":                   {[]stream{dtmf(0, 1), dtmf(9, 2), dtmf(10, 3), dtmf(11, 4), dtmf(15, 5)}, []uint8{0, 9, 10, 11, 15}},
		"no keys: flash, fax tones":  {[]stream{dtmf(16, 1), dtmf(32, 2), dtmf(255, 3)}, nil},
		"held for minutes":           {[]stream{dtmf(5, 800), dtmf(5, 800+0xffff), dtmf(5, 800+2*0xffff)}, []uint8{5}},
		"held over the wrap":         {[]stream{dtmf(5, 0xfffffff0), dtmf(5, 0xffef)}, []uint8{5}},
		"another key so much later":  {[]stream{dtmf(5, 800), dtmf(6, 800+0xffff)}, []uint8{5, 6}},
		"another source":             {[]stream{dtmf(1, 800), other}, []uint8{1, 1}},
		"timestamp 0 is a timestamp": {[]stream{dtmf(0, 0), dtmf(0, 0)}, []uint8{0}},
		"behind CSRCs and extension": {[]stream{extended}, []uint8{5}},
		"too short":                  {[]stream{cut, padded, {payloadType: 101}}, nil},
		"audio is no key":            {[]stream{{payloadType: 8, payload: []byte{5, 10, 0, 160}}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDoor(t, call.Flow{Remote: alice, Payloads: []call.Payload{
				{In: 8, Out: 8}, {In: 101, Out: 101, Treatment: call.TelephoneEvent}}})
			for _, s := range tt.packets {
				d.want(alice, s.packet(), exitForwarded)
			}
			var want []call.MediaEvent
			for _, digit := range tt.digits {
				want = append(want, call.MediaEvent{Key: d.f.key, Kind: call.MediaDigit, Source: alice, Digit: digit})
			}
			got := kinds(events(d.e), call.MediaDigit)
			if len(got) != len(want) {
				t.Fatalf("%d keys, want %d", len(got), len(want))
			}
			for i := range want {
				if got[i].Digit != want[i].Digit || got[i].Key != want[i].Key || got[i].Source != want[i].Source {
					t.Errorf("key %d is %+v, want %+v", i, got[i], want[i])
				}
			}
			if s := d.f.snapshot(); s.Digits != uint64(len(want)) {
				t.Errorf("counted %d, want %d", s.Digits, len(want))
			}
		})
	}
}
