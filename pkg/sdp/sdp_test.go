package sdp

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-sbc/tandem/pkg/call"
)

var (
	pcma   = call.Codec{Type: 8, Name: "PCMA", ClockRate: 8000, Channels: 1}
	pcmu   = call.Codec{Type: 0, Name: "PCMU", ClockRate: 8000, Channels: 1}
	events = call.Codec{Type: 101, Name: "telephone-event", ClockRate: 8000, Channels: 1, Params: "0-15"}
)

func audio(rtp, rtcp string, codecs ...call.Codec) call.Stream {
	return call.Stream{
		Media: "audio", Proto: "RTP/AVP", Codecs: codecs,
		RTP: netip.MustParseAddrPort(rtp), RTCP: netip.MustParseAddrPort(rtcp),
	}
}

func refused(media, proto string, formats ...string) call.Stream {
	return call.Stream{Media: media, Proto: proto, Formats: formats, Refused: true}
}

// compare ignores Formats of carried streams: Codecs says the same.
var compare = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Transformer("formats", func(s call.Stream) map[string]any {
		if !s.Refused {
			s.Formats = nil
		}
		return map[string]any{
			"m": []string{s.Media, s.Proto}, "formats": strings.Join(s.Formats, " "), "refused": s.Refused, "rtp": s.RTP, "rtcp": s.RTCP, "mux": s.Mux,
			"direction": s.Direction, "codecs": s.Codecs, "ptime": []int{s.PTime, s.MaxPTime},
		}
	}),
}

func body(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "peers", name+".sdp"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestParsePeers reads what peers send, tidy or not (M4, M5, M10, S7).
func TestParsePeers(t *testing.T) {
	with := func(s call.Stream, change func(*call.Stream)) call.Stream { change(&s); return s }
	tests := []struct {
		name     string
		want     []call.Stream
		setAside int
	}{
		{"plain", []call.Stream{with(audio("198.51.100.10:20000", "198.51.100.10:20001", pcma, pcmu, events), func(s *call.Stream) { s.PTime = 20 })}, 0},
		{"platform", []call.Stream{with(audio("198.51.100.20:30100", "198.51.100.20:30101",
			call.Codec{Type: 96, Name: "opus", ClockRate: 48000, Channels: 2, Params: "useinbandfec=1; maxaveragebitrate=32000"},
			pcma, pcmu,
			call.Codec{Type: 9, Name: "G722", ClockRate: 8000, Channels: 1},
			call.Codec{Type: 18, Name: "G729", ClockRate: 8000, Channels: 1, Params: "annexb=no"},
			call.Codec{Type: 101, Name: "telephone-event", ClockRate: 8000, Channels: 1, Params: "0-16"},
		), func(s *call.Stream) { s.MaxPTime, s.Mux = 40, true })}, 0},
		// Everything in it that pion/sdp would reject the whole body for.
		{"untidy", []call.Stream{audio("198.51.100.30:40000", "198.51.100.30:40001", pcma,
			call.Codec{Type: 96, Name: "telephone-event", ClockRate: 8000, Channels: 1})}, 2},
		{"bare-newlines", []call.Stream{audio("198.51.100.60:43000", "198.51.100.60:43001", pcma)}, 7},
		{"fax", []call.Stream{refused("image", "udptl", "t38")}, 1},
		{"audio-and-fax", []call.Stream{
			refused("image", "udptl", "t38"),
			audio("198.51.100.40:41002", "198.51.100.40:41003", pcma),
			refused("video", "RTP/AVP", "97"),
		}, 2},
		{"secure-first", []call.Stream{
			refused("audio", "RTP/SAVP", "8"),
			audio("198.51.100.50:42002", "198.51.100.50:42003", pcma),
			refused("audio", "RTP/AVP", "0"),
		}, 2},
		{"old-hold", []call.Stream{audio("0.0.0.0:20000", "0.0.0.0:20001", pcma)}, 0},
		{"session-direction", []call.Stream{with(audio("198.51.100.11:20000", "198.51.100.11:20007", pcma),
			func(s *call.Stream) { s.Direction = call.Inactive })}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, err := Parse(body(t, tt.name))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, d.Streams, compare); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if len(d.SetAside) != tt.setAside {
				t.Errorf("set aside %d, want %d: %q", len(d.SetAside), tt.setAside, d.SetAside)
			}
		})
	}
}

// TestParseRefusesInPlace: media that must not or cannot be sent to is refused, and
// the description as such stays good.
func TestParseRefusesInPlace(t *testing.T) {
	const offer = "v=0\r\no=- 1 1 IN IP4 198.51.100.1\r\ns=-\r\nc=IN IP4 198.51.100.1\r\nt=0 0\r\nm=audio 20000 RTP/AVP 8\r\n"
	for name, change := range map[string][2]string{
		"port 0":              {"20000", "0"},
		"port above 65535":    {"20000", "65536"},
		"port that is a word": {"20000", "high"},
		"well-known port":     {"20000", "53"},
		"multicast":           {"c=IN IP4 198.51.100.1", "c=IN IP4 239.1.2.3/127"},
		"broadcast":           {"c=IN IP4 198.51.100.1", "c=IN IP4 255.255.255.255"},
		"this network":        {"c=IN IP4 198.51.100.1", "c=IN IP4 0.1.2.3"},
		"IPv6":                {"c=IN IP4 198.51.100.1", "c=IN IP6 2001:db8::1"},
		"mapped IPv6":         {"c=IN IP4 198.51.100.1", "c=IN IP6 ::ffff:198.51.100.1"},
		"host name":           {"c=IN IP4 198.51.100.1", "c=IN IP4 media.example.com"},
		"no c=":               {"c=IN IP4 198.51.100.1\r\n", ""},
		"ATM":                 {"c=IN IP4 198.51.100.1", "c=ATM NSAP 47.00"},
		"unknown dynamic":     {"RTP/AVP 8", "RTP/AVP 96"},
		"SRTP":                {"RTP/AVP", "RTP/SAVP"},
		"feedback profile":    {"RTP/AVP", "RTP/AVPF"},
		"TCP":                 {"RTP/AVP", "TCP/RTP/AVP"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(offer, change[0], change[1], 1)
			if text == offer {
				t.Fatal("nothing changed")
			}
			d, err := Parse([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if len(d.Streams) != 1 || d.Audio() != nil {
				t.Errorf("got %+v, want one refused stream", d.Streams)
			}
		})
	}
}

// TestClockRates: what no engine can reckon with is set aside before anyone is invited (M4).
func TestClockRates(t *testing.T) {
	for rate, good := range map[string]bool{
		"0": false, "999": false, "1000": true, "1000000": true, "1000001": false, "4294967296": false, "-1": false,
	} {
		d, err := Parse([]byte("v=0\r\no=- 1 1 IN IP4 198.51.100.1\r\ns=-\r\nc=IN IP4 198.51.100.1\r\nt=0 0\r\n" +
			"m=audio 20000 RTP/AVP 96\r\na=rtpmap:96 speex/" + rate + "\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		if carried := d.Audio() != nil; carried != good || (len(d.SetAside) == 0) != good {
			t.Errorf("%s Hz: carried %t, set aside %q", rate, carried, d.SetAside)
		}
	}
}

func TestParseBad(t *testing.T) {
	const head = "v=0\r\no=- 1 1 IN IP4 198.51.100.1\r\ns=-\r\nt=0 0\r\n"
	for name, text := range map[string]string{
		"empty":              "",
		"only line ends":     "\r\n\r\n",
		"no v=":              strings.TrimPrefix(head, "v=0\r\n"),
		"version 1":          "v=1\r\n",
		"not SDP":            "<xml/>",
		"NUL":                head + "a=\x00\r\n",
		"m= without formats": head + "m=audio 20000 RTP/AVP\r\n",
		"control in m=":      head + "m=audio 20000 RTP/AVP 8\x01\r\n",
		"too long":           head + strings.Repeat("a=x\r\n", MaxBody/5),
		"too many streams":   head + strings.Repeat("m=audio 0 RTP/AVP 8\r\n", MaxStreams+1),
		"too many formats":   head + "m=audio 20000 RTP/AVP" + strings.Repeat(" 8", MaxFormats+1) + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			if d, err := Parse([]byte(text)); !errors.Is(err, ErrSyntax) {
				t.Errorf("got %+v, %v; want ErrSyntax", d, err)
			}
		})
	}
}

func TestParseAtTheBounds(t *testing.T) {
	text := "v=0\r\n" + strings.Repeat("m=image 0 udptl t38\r\n", MaxStreams)
	if d, err := Parse([]byte(text)); err != nil || len(d.Streams) != MaxStreams || len(d.SetAside) != maxSetAside {
		t.Errorf("got %d streams, %d remarks, %v", len(d.Streams), len(d.SetAside), err)
	}
}

// TestBuild: what is written is the allow list, in order, and nothing else (S18).
func TestBuild(t *testing.T) {
	d := call.MediaDesc{Streams: []call.Stream{
		audio("192.0.2.2:16384", "192.0.2.2:16385",
			call.Codec{Type: 96, Name: "opus", ClockRate: 48000, Channels: 2, Params: "useinbandfec=1"}, pcma, events),
		refused("image", "udptl", "t38"),
	}}
	d.Streams[0].PTime, d.Streams[0].MaxPTime, d.Streams[0].Direction, d.Streams[0].Mux = 20, 40, call.SendOnly, true
	got := string(Build(d, Origin{SessionID: 1<<63 - 1, Version: 7, Addr: netip.MustParseAddr("192.0.2.2")}))
	want := strings.ReplaceAll(`v=0
o=- 9223372036854775807 7 IN IP4 192.0.2.2
s=-
c=IN IP4 192.0.2.2
t=0 0
m=audio 16384 RTP/AVP 96 8 101
a=rtpmap:96 opus/48000/2
a=fmtp:96 useinbandfec=1
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-15
a=ptime:20
a=maxptime:40
a=sendonly
a=rtcp-mux
m=image 0 udptl t38
`, "\n", "\r\n")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestBuildAddresses: a stream's own c= and a=rtcp are written only where they say
// something (RFC 3605).
func TestBuildAddresses(t *testing.T) {
	const ours = "192.0.2.2"
	tests := map[string]struct {
		rtp, rtcp string
		has       string
		hasNot    string
	}{
		"usual":          {ours + ":16384", ours + ":16385", "", "a=rtcp"},
		"other port":     {ours + ":16384", ours + ":16390", "a=rtcp:16390\r\n", "IN IP4 192.0.2.3"},
		"other address":  {ours + ":16384", "192.0.2.3:16385", "a=rtcp:16385 IN IP4 192.0.2.3\r\n", ""},
		"hold":           {"0.0.0.0:16384", "0.0.0.0:16385", "m=audio 16384 RTP/AVP 8\r\nc=IN IP4 0.0.0.0\r\n", "a=rtcp"},
		"the last port":  {ours + ":65535", "", "m=audio 65535 ", "a=rtcp"},
		"own connection": {"192.0.2.9:16384", "192.0.2.9:16385", "c=IN IP4 192.0.2.9\r\n", "a=rtcp"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := call.Stream{Media: "audio", Proto: "RTP/AVP", Codecs: []call.Codec{pcma}, RTP: netip.MustParseAddrPort(tt.rtp)}
			if tt.rtcp != "" {
				s.RTCP = netip.MustParseAddrPort(tt.rtcp)
			}
			got := string(Build(call.MediaDesc{Streams: []call.Stream{s}}, Origin{Addr: netip.MustParseAddr(ours)}))
			if !strings.Contains(got, tt.has) || tt.hasNot != "" && strings.Contains(got, tt.hasNot) {
				t.Errorf("want %q and not %q in:\n%s", tt.has, tt.hasNot, got)
			}
		})
	}
}
