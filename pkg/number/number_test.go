package number

import (
	"errors"
	"strings"
	"testing"
)

var (
	germany = Plan{"49", "0", "00"}
	italy   = Plan{"39", "", "00"}
	america = Plan{"1", "1", "011"}
	plain   = Plan{"49", "0", ""} // country code first, without a plus
)

// T12: what a trunk dials in its country's way becomes E.164 before routes see it.
func TestNormalise(t *testing.T) {
	for _, row := range []struct {
		name       string
		plan       Plan
		user, want string
	}{
		{"international as it should be", germany, "+493012345", "+493012345"},
		{"visual separators are no part of a number", germany, "+49-(30)-123.45", "+493012345"},
		{"national", germany, "03012345", "+493012345"},
		{"national with separators", germany, "(030) 12345", "(030) 12345"}, // a space is no separator of RFC 3966
		{"national with dashes", germany, "(030)12-345", "+493012345"},
		{"international", germany, "004312345678", "+4312345678"},
		{"parameters of a telephone-subscriber", germany, "+493012345;ext=12;phone-context=x", "+493012345"},
		{"subscriber number: its area is not known", germany, "12345678", "12345678"},
		{"emergency", germany, "112", "112"},
		{"harmonised services", germany, "115", "115"},
		{"a code behind the national prefix", germany, "0115", "0115"},
		{"service code", germany, "*31#", "*31#"},
		{"service code before a number", germany, "*31#030123456", "*31#030123456"},
		{"too long for E.164", germany, "0301234567890123456", "0301234567890123456"},
		{"no country code begins with 0", germany, "000301234567", "000301234567"},
		{"a name", germany, "alice", "alice"},
		{"a name with dots", germany, "alice.b-c", "alice.b-c"},
		{"withheld", germany, "anonymous", "anonymous"},
		{"nothing", germany, "", ""},
		{"nothing but signs", germany, "+-()", "+-()"},
		{"plus within", germany, "49+30", "49+30"},
		{"no trunk prefix: the zero is the number's", italy, "0612345678", "+390612345678"},
		{"no trunk prefix: mobile", italy, "3331234567", "+393331234567"},
		{"no trunk prefix: emergency stays", italy, "112", "112"},
		{"no trunk prefix: international", italy, "004930123456", "+4930123456"},
		{"longer prefix first", america, "0114930123456", "+4930123456"},
		{"prefix is the country code's digit", america, "12125551234", "+12125551234"},
		{"ten digits say nothing of long distance", america, "2125551234", "2125551234"},
		{"emergency begins with the national prefix", america, "112", "112"},
		{"country code without a plus", plain, "493012345", "+493012345"},
		{"country code without a plus: national", plain, "03012345", "+493012345"},
		{"country code without a plus: emergency", plain, "110", "110"},
		{"nothing known", Plan{}, "03012345", "03012345"},
		{"nothing known, separators", Plan{}, "030-12345", "03012345"},
		{"nothing known, prefixes", Plan{"", "0", "00"}, "004912345678", "004912345678"},
	} {
		if got := row.plan.Normalise(row.user); got != row.want {
			t.Errorf("%s: %q becomes %q, want %q", row.name, row.user, got, row.want)
		}
	}
}

// A call costs the look at its number and nothing else.
func TestNormaliseAllocatesNothing(t *testing.T) {
	for _, user := range []string{"+493012345", "112", "alice"} {
		if n := testing.AllocsPerRun(100, func() { germany.Normalise(user) }); n != 0 {
			t.Errorf("%s: %.0f allocations", user, n)
		}
	}
}

// ITU-T E.164 section 6.2.1, RFC 3966 section 5.1.4.
func TestIsE164(t *testing.T) {
	for number, want := range map[string]bool{
		"+493012345": true, "+112": true, "+123456789012345": true,
		"": false, "+": false, "+49": false, "+1234567890123456": false, "493012345": false, "+0493012345": false,
		"+49a3012345": false, "++493012345": false, "+49-30": false, " +49301": false, "+٤٩٣٠": false,
	} {
		if IsE164(number) != want {
			t.Errorf("%q: want %t", number, want)
		}
	}
}

// T12, S20: one of both is enough, and the record says what is wrong with each.
func TestRequire(t *testing.T) {
	for _, row := range []struct{ uri, to, want string }{
		{"+493012345", "", ""},
		{"trunk", "+493012345", ""},
		{"", "", "Neither Request-URI nor To has a number of E.164: there is no number."},
		{"030123", "030123", `Neither Request-URI nor To has a number of E.164: "030123" does not begin with +.`},
		{"trunk", "+49", `Neither Request-URI nor To has a number of E.164: in the Request-URI "trunk" is not made of digits, in To "+49" has fewer than 3 digits.`},
		{"+0301234", "+1234567890123456", `Neither Request-URI nor To has a number of E.164: in the Request-URI "+0301234" begins with 0, and no country code does, in To "+1234567890123456" has more than 15 digits.`},
	} {
		got, err := "", Require(row.uri, row.to)
		var incomplete *Incomplete
		if errors.As(err, &incomplete) {
			got = incomplete.Error()
		}
		if got != row.want || (err != nil) != (incomplete != nil) {
			t.Errorf("%q and %q: %q, want %q", row.uri, row.to, got, row.want)
		}
	}
	if text := Require(strings.Repeat("x", 10_000), "").Error(); len(text) > 300 {
		t.Errorf("what a peer wrote is quoted at %d bytes", len(text))
	}
}

func TestFromURI(t *testing.T) {
	for text, want := range map[string]string{
		"+493012345": "+493012345", " 112 ": "112", "tel:+49-30-12345": "+49-30-12345", "tel:112;phone-context=+49": "112",
		"sip:+493012345@gw.example.com;user=phone": "+493012345", "sips:%2B4930@[::1]:5061": "+4930", "SIP:a%20b:secret@h": "a b",
		`"Bob" <sip:+4930;npdi@h>;tag=1`: "+4930", "<tel:+4930>": "+4930", "100%": "100%", "%zz": "%zz", "": "", "<": "",
	} {
		if got := FromURI(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// Whatever a peer writes: normalising twice is normalising once, nothing grows by more than
// the plus and a country code, and what says it is E.164 is.
func FuzzNormalise(f *testing.F) {
	for _, user := range []string{"", "+493012345", "03012345", "0049-30", "tel:+1;x", "sip:%2B49@h", "*31#", "alice", "\xff%00", "+" + strings.Repeat("9", 40)} {
		f.Add(user, "49", "0", "00")
	}
	f.Add("12125551234", "1", "1", "011")
	f.Add("0612345678", "39", "", "00")
	f.Add("493012345", "49", "0", "")
	f.Fuzz(func(t *testing.T, user, country, national, international string) {
		p := Plan{country, national, international}
		once := p.Normalise(FromURI(user))
		if twice := p.Normalise(once); isPlan(p) && twice != once {
			t.Errorf("%+v: %q becomes %q, and that becomes %q", p, user, once, twice)
		}
		if len(once) > len(user)+1+len(country) {
			t.Errorf("%+v: %q becomes %q", p, user, once)
		}
		if err := Require(once, ""); (err == nil) != IsE164(once) {
			t.Errorf("%q: %v", once, err)
		}
		if number, ok := clean(once); ok && number != once {
			t.Errorf("%q is not clean: %q", once, number)
		}
	})
}

// isPlan is what package trunk accepts.
func isPlan(p Plan) bool { return allDigits(p.CountryCode + p.NationalPrefix + p.InternationalPrefix) }
