package header

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/tandem-sbc/tandem/pkg/call"
)

func TestParseAddress(t *testing.T) {
	for _, tc := range []struct {
		in                   string
		display, uri, params string
		ok                   bool
	}{
		{`<sip:a@b>`, "", "sip:a@b", "", true},
		{`sip:a@b;tag=1`, "", "sip:a@b", ";tag=1", true}, // without brackets the parameter is the header's
		{`"A \"B\" \\" <sip:a@b;x=y>;tag=1`, `A "B" \`, "sip:a@b;x=y", ";tag=1", true},
		{`caller<sip:a@b>`, "caller", "sip:a@b", "", true},
		{`A. B. C <sip:a@b> ; tag = 1 ; q = "x;y,z"`, "A. B. C", "sip:a@b", `; tag = 1 ; q = "x;y,z"`, true},
		{`<tel:+49-30-1;phone-context=x>`, "", "tel:+49-30-1;phone-context=x", "", true},
		{`<isbn:2983792873>`, "", "isbn:2983792873", "", true}, // RFC 4475 section 3.3.4
		{`Bell, Alexander <sip:a@b>`, "", "", "", false},
		{`"Mr. J. User <sip:a@b>`, "", "", "", false},
		{`< sip:a@b >`, "", "", "", false},
		{`<sip:a@b`, "", "", "", false},
		{`<>`, "", "", "", false},
		{``, "", "", "", false},
		{`<sip:a@b>;;`, "", "", "", false},
		{`<sip:a@b>;tag=`, "", "", "", false},
		{`<sip:a@b>;tag="x`, "", "", "", false},
		{`sip:a@b?Route=%3Csip:c%3E`, "", "", "", false}, // section 3.1.2.13
		{`<sip:a@b>, <sip:c@d>`, "", "", "", false},
		{`<sip:a@b>,`, "", "", "", false},
		{`"x" sip:a@b`, "", "", "", false},
	} {
		a, err := ParseAddress(tc.in)
		if (err == nil) != tc.ok || err != nil && !errors.Is(err, ErrSyntax) {
			t.Errorf("%s: error %v", tc.in, err)
		}
		if tc.ok && (a.Display != tc.display || a.URI != tc.uri || a.Params != tc.params) {
			t.Errorf("%s: got %+v", tc.in, a)
		}
	}
	if a, _ := ParseAddress(`<sip:a@b>; TAG = "x y"`); a.Tag() != "x y" {
		t.Errorf("tag %q", a.Tag())
	}
}

func TestNextAddress(t *testing.T) {
	var got []string
	list := `"A, B" <sip:a@b;x=1>;q=0.1 , <sip:c,d@e> ,sip:f@g`
	for list != "" {
		a, rest, err := NextAddress(list)
		if err != nil {
			t.Fatal(err)
		}
		got, list = append(got, a.URI), rest
	}
	if fmt.Sprint(got) != "[sip:a@b;x=1 sip:c,d@e sip:f@g]" {
		t.Errorf("got %q", got)
	}
}

func TestParseURI(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want URI
		num  string
		ok   bool
	}{
		{"sip:b", URI{Scheme: "sip", Host: "b"}, "", true},
		{"SIP:a:pw@b:5060;lr;x=y?H=v", URI{Scheme: "sip", User: "a", Host: "b", Port: 5060, Params: ";lr;x=y", Headers: "?H=v"}, "a", true},
		{"sip:+49%2030;npdi=yes@b", URI{Scheme: "sip", User: "+49%2030;npdi=yes", Host: "b"}, "+49 30", true},
		{"sip:user;par=u%40example.net@example.com", URI{Scheme: "sip", User: "user;par=u%40example.net", Host: "example.com"}, "user", true},
		{"sips:a@[2001:db8::1]:5061", URI{Scheme: "sips", User: "a", Host: "[2001:db8::1]", Port: 5061}, "a", true},
		{"tel:+4930;phone-context=x", URI{Scheme: "tel", User: "+4930", Params: ";phone-context=x"}, "+4930", true},
		{"soap.beep://192.0.2.103:3002", URI{Scheme: "soap.beep"}, "", true},
		{"sip:", URI{}, "", false},
		{"sip:@b", URI{}, "", false},
		{"sip:a@", URI{}, "", false},
		{"sip:a@b:", URI{}, "", false},
		{"sip:a@b:0", URI{}, "", false},
		{"sip:a@b:65536", URI{}, "", false},
		{"sip:a@b c", URI{}, "", false},
		{"sip:a@b\r\nX: y", URI{}, "", false},
		{"sip:a%4@b", URI{}, "", false},
		{"sip:a@b;;lr", URI{}, "", false},
		{"sip:a@b;x=%zz", URI{}, "", false},
		{"sip:a@b@c", URI{}, "", false},
		{"sip:a@[::1", URI{}, "", false},
		{"<sip:a@b>", URI{}, "", false},
		{"1sip:a@b", URI{}, "", false},
		{"no scheme", URI{}, "", false},
	} {
		u, err := ParseURI(tc.in)
		if (err == nil) != tc.ok {
			t.Errorf("%q: error %v", tc.in, err)
		} else if tc.ok && (u != tc.want || u.Number() != tc.num) {
			t.Errorf("%q: got %+v, number %q", tc.in, u, u.Number())
		}
	}
}

// What is escaped on the way out is read back as it was; nothing that could end the
// user part gets through.
func TestAppendUser(t *testing.T) {
	for in, want := range map[string]string{
		"+4930": "+4930", "*31#1": "*31%231", "a@b;c>\r\n": "a%40b%3Bc%3E%0D%0A", "ü": "%C3%BC", "\x00": "%00",
	} {
		if got := string(AppendUser(nil, in)); got != want || Unescape(got) != in {
			t.Errorf("%q: %q, back %q", in, got, Unescape(got))
		}
	}
	if got := Unescape("100%,%4"); got != "100%,%4" {
		t.Errorf("got %q", got)
	}
}

func TestVia(t *testing.T) {
	src := netip.MustParseAddrPort("192.0.2.9:7777")
	for _, tc := range []struct{ in, echo, reply, rest string }{
		{"SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK1", "SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK1", "192.0.2.9:5060", ""},
		{"SIP/2.0/UDP 10.0.0.1:5080;branch=z9hG4bK1", "SIP/2.0/UDP 10.0.0.1:5080;branch=z9hG4bK1;received=192.0.2.9", "192.0.2.9:5080", ""},
		{"SIP/2.0/UDP h;rport;branch=b", "SIP/2.0/UDP h;rport=7777;branch=b;received=192.0.2.9", "192.0.2.9:7777", ""},
		{"SIP/2.0/UDP h;branch=b;rport", "SIP/2.0/UDP h;branch=b;rport=7777;received=192.0.2.9", "192.0.2.9:7777", ""},
		{"SIP  /   2.0 /UDP h : 5061 ; branch = z9 , SIP/2.0/TCP i", "SIP  /   2.0 /UDP h : 5061 ; branch = z9;received=192.0.2.9", "192.0.2.9:5061", "SIP/2.0/TCP i"},
		{"SIP/2.0/UDP [2001:db8::9:1];branch=b", "SIP/2.0/UDP [2001:db8::9:1];branch=b;received=192.0.2.9", "192.0.2.9:5060", ""},
	} {
		v, err := ParseVia(tc.in)
		if err != nil {
			t.Errorf("%s: %v", tc.in, err)
			continue
		}
		if got := string(v.AppendEcho(nil, src)); got != tc.echo {
			t.Errorf("%s: echo %q", tc.in, got)
		}
		if got := v.ReplyTo(src).String(); got != tc.reply || v.Rest != tc.rest {
			t.Errorf("%s: reply to %s, rest %q", tc.in, got, v.Rest)
		}
	}
	for _, in := range []string{"", "SIP/2.0/UDP", "SIP/2.0/UDP ", "HTTP/1.1/UDP h", "SIP/2.0/UDP h;;", "SIP/2.0/UDP h;x=\"", "SIP/2.0/UDP h,", "SIP/2.0/UDP h:x", "SIP/2.0 h"} {
		if _, err := ParseVia(in); !errors.Is(err, ErrSyntax) {
			t.Errorf("%q: error %v", in, err)
		}
	}
}

func TestQ850(t *testing.T) {
	for in, want := range map[string]int{
		"": 0, "Q.850;cause=16": 16, `SIP ;cause=600 ;text="Busy, everywhere", q.850 ; cause = "17"`: 17,
		"Q.850;cause=0": 0, "Q.850;cause=128": 0, "Q.850;cause=x": 0, "Q.850": 0, ";;,": 0,
	} {
		if got := Q850(in); got != want {
			t.Errorf("%q: %d, want %d", in, got, want)
		}
	}
}

// Who calls (S12): P-Asserted-Identity before Remote-Party-ID, From beside them;
// privacy by any of the three.
func TestReadIdentity(t *testing.T) {
	for name, tc := range map[string]struct {
		from, asserted, remote, privacy string
		want                            call.Party
		wantAsserted                    *call.Party
	}{
		"From only":         {from: `"A" <sip:1@x>`, want: call.Party{Display: "A", User: "1"}},
		"asserted":          {from: "<sip:1@x>", asserted: `"A" <sip:+2@x>, <tel:+3>`, want: call.Party{User: "1"}, wantAsserted: &call.Party{Display: "A", User: "+2"}},
		"tel only":          {from: "<sip:1@x>", asserted: `<isbn:9>, <tel:+3>`, want: call.Party{User: "1"}, wantAsserted: &call.Party{User: "+3"}},
		"asserted rubbish":  {from: "<sip:1@x>", asserted: `<<`, want: call.Party{User: "1"}},
		"remote":            {from: "<sip:1@x>", remote: `<sip:4@x>;party=calling`, want: call.Party{User: "1"}, wantAsserted: &call.Party{User: "4"}},
		"remote is called":  {from: "<sip:1@x>", remote: `<sip:4@x>;party=called`, want: call.Party{User: "1"}},
		"asserted wins":     {from: "<sip:1@x>", asserted: "<sip:2@x>", remote: `<sip:4@x>`, want: call.Party{User: "1"}, wantAsserted: &call.Party{User: "2"}},
		"anonymous From":    {from: `"Anonymous" <sip:anonymous@anonymous.invalid>`, want: call.Party{Display: "anonymous", User: "anonymous", Anonymous: true}},
		"privacy id":        {from: `"A" <sip:1@x>`, asserted: "<sip:2@x>", privacy: "id;critical", want: call.Party{Display: "anonymous", User: "anonymous", Anonymous: true}, wantAsserted: &call.Party{User: "2", Anonymous: true}},
		"privacy none":      {from: `<sip:1@x>`, privacy: "none", want: call.Party{User: "1"}},
		"remote is private": {from: `<sip:1@x>`, remote: `<sip:4@x>;privacy=full;screen=yes`, want: call.Party{Display: "anonymous", User: "anonymous", Anonymous: true}, wantAsserted: &call.Party{User: "4", Anonymous: true}},
	} {
		from, err := ParseAddress(tc.from)
		if err != nil {
			t.Fatal(err)
		}
		id := ReadIdentity(from, Address{URI: "sip:called@x"}, tc.asserted, tc.remote, tc.privacy)
		if id.From != tc.want || id.To.User != "called" || id.Privacy != tc.privacy {
			t.Errorf("%s: %+v", name, id)
		}
		if (id.Asserted == nil) != (tc.wantAsserted == nil) || id.Asserted != nil && *id.Asserted != *tc.wantAsserted {
			t.Errorf("%s: asserted %+v", name, id.Asserted)
		}
	}
}

func TestAppendParty(t *testing.T) {
	p := call.Party{Display: "A \"B\\\"\r\nX: y\xff", User: "+1>"}
	if got := string(AppendParty(nil, p, "192.0.2.1")); got != `"A \"B\\\"X: y" <sip:+1%3E@192.0.2.1>` {
		t.Errorf("got %s", got)
	}
	if got := string(AppendParty(nil, call.Party{}, "192.0.2.1")); got != "<sip:192.0.2.1>" {
		t.Errorf("got %s", got)
	}
	p.Anonymous = true
	if got := string(AppendFrom(nil, p, "192.0.2.1")); got != AnonymousFrom {
		t.Errorf("got %s", got)
	}
}

// S15 and S18: UUI and the conversation id go on as they are, a diversion without
// its host, anything else not at all.
func TestCarry(t *testing.T) {
	var got []call.Header
	got = Carry(got, "user-TO-user", "00;encoding=hex")
	got = Carry(got, "X-Inin-Cnv", "1-2-3")
	got = Carry(got, "Via", "SIP/2.0/UDP secret")
	got = Carry(got, "User-to-User", "bad\x00")
	got = Carry(got, "User-to-User", fmt.Sprintf("%02000d", 1))
	got = Carry(got, "Diversion", `"@nobody.invalid" <sip:+49@10.1.2.3:5060;x=y>;reason=user-busy;counter=1;host=secret, <tel:+50>, <http:x>`)
	host := "192.0.2.1"
	want := []string{
		"User-to-User: 00;encoding=hex", "x-inin-cnv: 1-2-3",
		`Diversion: "@nobody.invalid" <sip:+49@192.0.2.1>;reason=user-busy;counter=1`, "Diversion: <sip:+50@192.0.2.1>",
	}
	if len(got) != len(want) {
		t.Fatalf("got %+v", got)
	}
	for i, h := range got {
		if line := h.Name + ": " + CarriedValue(h, host); line != want[i] {
			t.Errorf("got  %s\nwant %s", line, want[i])
		}
	}
	for range 20 {
		got = Carry(got, "User-to-User", "00")
	}
	if len(got) != maxCarried {
		t.Errorf("%d carried", len(got))
	}
}

func TestPhrase(t *testing.T) {
	long := ""
	for range 100 {
		long += "ü"
	}
	for in, want := range map[string]string{"OK": "OK", "a\r\nX: y": "aX: y", "\xff\x01": "", long: long[:128]} {
		if got := Phrase(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}
