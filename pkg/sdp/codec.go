package sdp

import (
	"strconv"
	"strings"

	pion "github.com/pion/sdp/v3"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// static are the payload types that have a meaning without an rtpmap (RFC 3551
// table 4; G722's clock is 8000 there by an old mistake that all keep to).
var static = map[uint8]call.Codec{
	0:  {Type: 0, Name: "PCMU", ClockRate: 8000, Channels: 1},
	3:  {Type: 3, Name: "GSM", ClockRate: 8000, Channels: 1},
	4:  {Type: 4, Name: "G723", ClockRate: 8000, Channels: 1},
	5:  {Type: 5, Name: "DVI4", ClockRate: 8000, Channels: 1},
	6:  {Type: 6, Name: "DVI4", ClockRate: 16000, Channels: 1},
	7:  {Type: 7, Name: "LPC", ClockRate: 8000, Channels: 1},
	8:  {Type: 8, Name: "PCMA", ClockRate: 8000, Channels: 1},
	9:  {Type: 9, Name: "G722", ClockRate: 8000, Channels: 1},
	10: {Type: 10, Name: "L16", ClockRate: 44100, Channels: 2},
	11: {Type: 11, Name: "L16", ClockRate: 44100, Channels: 1},
	12: {Type: 12, Name: "QCELP", ClockRate: 8000, Channels: 1},
	13: {Type: 13, Name: "CN", ClockRate: 8000, Channels: 1},
	14: {Type: 14, Name: "MPA", ClockRate: 90000, Channels: 1},
	15: {Type: 15, Name: "G728", ClockRate: 8000, Channels: 1},
	16: {Type: 16, Name: "DVI4", ClockRate: 11025, Channels: 1},
	17: {Type: 17, Name: "DVI4", ClockRate: 22050, Channels: 1},
	18: {Type: 18, Name: "G729", ClockRate: 8000, Channels: 1},
}

// registered gives names their registered spelling: peers write them in any case.
var registered = func() map[string]string {
	names := map[string]string{}
	for _, name := range []string{"opus", "telephone-event", "AMR", "AMR-WB", "EVS", "iLBC", "speex", "G726-32", "G7221", "red"} {
		names[strings.ToLower(name)] = name
	}
	for _, c := range static {
		names[strings.ToLower(c.Name)] = c.Name
	}
	return names
}()

// codecs reads the formats of an m= line in their order.
func (t *tidied) codecs(m *pion.MediaDescription) []call.Codec {
	maps, params := map[uint8]string{}, map[uint8]string{}
	for _, a := range m.Attributes {
		var into map[uint8]string
		switch a.Key {
		case "rtpmap":
			into = maps
		case "fmtp":
			into = params
		default:
			continue
		}
		format, value, _ := strings.Cut(strings.TrimLeft(a.Value, " "), " ")
		pt, ok := payloadType(format)
		if !ok {
			t.remark("a=" + a.Key + " of something that is not a payload type")
			continue
		}
		if _, twice := into[pt]; twice {
			t.remark("a second a=" + a.Key + " of a payload type")
			continue
		}
		into[pt] = strings.TrimSpace(value)
	}

	var codecs []call.Codec
	var seen [128]bool
	for _, format := range m.MediaName.Formats {
		pt, ok := payloadType(format)
		if !ok || seen[pt] {
			t.remark("a format that is no payload type, or one named twice")
			continue
		}
		seen[pt] = true
		c, ok := static[pt]
		if mapping, mapped := maps[pt]; mapped {
			if read, good := rtpmap(mapping); good {
				c, ok = read, true
			} else {
				t.remark("a=rtpmap that cannot be read, or whose clock rate is not from 1000 to 1000000 Hz")
			}
		}
		if !ok {
			t.remark("payload type " + strconv.Itoa(int(pt)) + " without a meaning")
			continue
		}
		c.Type, c.Params = pt, params[pt]
		codecs = append(codecs, c)
	}
	return codecs
}

// Bounds of a clock rate in Hz. Both engines refuse what is beyond, and would do so only
// after the callee has answered.
const (
	minClockRate = 1000
	maxClockRate = 1_000_000
)

// rtpmap reads "name/clock[/channels]".
func rtpmap(value string) (call.Codec, bool) {
	name, rest, ok := strings.Cut(value, "/")
	if !ok || name == "" || !visible(name) {
		return call.Codec{}, false
	}
	clock, channels, _ := strings.Cut(rest, "/")
	rate, err := strconv.ParseUint(clock, 10, 32)
	if err != nil || rate < minClockRate || rate > maxClockRate {
		return call.Codec{}, false
	}
	c := call.Codec{Name: name, ClockRate: uint32(rate), Channels: 1}
	if known, ok := registered[strings.ToLower(name)]; ok {
		c.Name = known
	}
	if n, err := strconv.ParseUint(channels, 10, 8); err == nil && n > 0 {
		c.Channels = uint8(n)
	}
	return c, true
}

func payloadType(token string) (uint8, bool) {
	pt, err := strconv.ParseUint(token, 10, 8)
	return uint8(pt), err == nil && pt <= 127
}
