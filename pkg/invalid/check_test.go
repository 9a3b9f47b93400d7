package invalid

import (
	"strings"
	"testing"
)

func TestErr(t *testing.T) {
	var l List
	if err := l.Err(); err != nil {
		t.Fatalf("no finding, but %v", err)
	}
	l.Add("name", "give one", "is missing")
	l.Under("part", List{{Key: "[0]", Problem: "is odd"}, {Key: "x", Problem: "is even"}, {Problem: "is empty"}})
	const want = "name: is missing; give one\npart[0]: is odd\npart.x: is even\npart: is empty"
	if got := l.Err().Error(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestName(t *testing.T) {
	for _, name := range []string{"a", "carrier-a", "gw1.example_com", "9", strings.Repeat("x", 63)} {
		var l List
		if l.Name("name", name); l != nil {
			t.Errorf("%q: %v", name, l.Err())
		}
	}
	for _, name := range []string{"", "-a", ".a", "a b", "a/b", "ä", "\"", strings.Repeat("x", 64)} {
		var l List
		if l.Name("name", name); len(l) != 1 {
			t.Errorf("%q: %d findings, want 1", name, len(l))
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"interface", "vlan", "address", "sip_port", "dscp"}
	for word, want := range map[string]string{
		"vlann": "vlan", "valn": "vlan", "VLAN": "vlan", "adress": "address", "sip-port": "sip_port", "port": "",
		"codecs": "", "": "", "mtu": "", strings.Repeat("vlan", 100_000): "",
	} {
		if got := Nearest(word, known); got != want {
			t.Errorf("Nearest(%.20q) = %q, want %q", word, got, want)
		}
	}
}

func TestOneOf(t *testing.T) {
	for value, want := range map[string]string{
		"carrier": "",
		"carier":  `kind: "carier" is not known here; did you mean "carrier"?`,
		"x":       `kind: "x" is not known here; give one of platform, carrier`,
		"":        `kind: is missing; give one of platform, carrier`,
	} {
		var l List
		l.OneOf("kind", value, "platform", "carrier")
		got := ""
		if len(l) > 0 {
			got = l[0].Error()
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", value, got, want)
		}
	}
}
