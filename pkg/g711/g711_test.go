package g711_test

import (
	"math"
	"slices"
	"testing"

	"github.com/tandem-sbc/tandem/pkg/g711"
)

// The laws by Tables 1 and 2 of G.711: the level of decoder output value number n, in
// units of the table: 4096 is the overload point of A-law, 8159 that of mu-law.

// alawLevel is of n 1 to 128.
func alawLevel(n int) float64 {
	segment, step := (n-1)>>4, (n-1)&15
	if segment == 0 {
		return float64(2*step + 1)
	}
	return float64((2*step + 33) << (segment - 1))
}

// ulawLevel is of n 0 to 127.
func ulawLevel(n int) float64 {
	segment, step := n>>4, n&15
	return float64((2*step+33)<<segment - 33)
}

// perALaw is how many mu-law units an A-law unit is: a full-scale sine has +3.14 dBm0 in
// A-law and +3.17 dBm0 in mu-law (G.711 section 5).
var perALaw = 8159.0 / 4096 * math.Pow(10, (3.14-3.17)/20)

// Octets as on the wire, positive: sign bit 1.
func alawOctet(n int) byte { return byte(n-1) ^ 0xd5 }
func ulawOctet(n int) byte { return byte(n) ^ 0xff }

// nearest is which of first to last has the level, by least distance.
func nearest(level float64, first, last int, of func(int) float64) int {
	best := first
	for n := first; n <= last; n++ {
		if math.Abs(of(n)-level) < math.Abs(of(best)-level) {
			best = n
		}
	}
	return best
}

// TestTablesAreNearestLevel holds the tables (M14) to the levels of both laws: the
// nearest one of the other law everywhere, with the two exceptions that Note 3 to
// Tables 3 and 4 states, mu-80 to to mu-79.
func TestTablesAreNearestLevel(t *testing.T) {
	for n := range 128 {
		want := nearest(ulawLevel(n)/perALaw, 1, 128, alawLevel)
		if n == 80 {
			if want != 80 {
				t.Fatalf("mu-80 is nearest to A-%d: the Recommendation says A-80", want)
			}
			want = 81
		}
		if got := g711.ULawToALaw[ulawOctet(n)]; got != alawOctet(want) {
			t.Errorf("mu-%d: octet %#02x, want %#02x (A-%d)", n, got, alawOctet(want), want)
		}
	}
	for n := 1; n <= 128; n++ {
		want := nearest(alawLevel(n)*perALaw, 0, 127, ulawLevel)
		if n == 80 {
			if want != 80 {
				t.Fatalf("A-80 is nearest to mu-%d: the Recommendation says mu-80", want)
			}
			want = 79
		}
		if got := g711.ALawToULaw[alawOctet(n)]; got != ulawOctet(want) {
			t.Errorf("A-%d: octet %#02x, want %#02x (mu-%d)", n, got, ulawOctet(want), want)
		}
	}
}

// TestPolarity: a negative octet becomes what the positive one does, negative.
func TestPolarity(t *testing.T) {
	for octet := range 128 {
		if g711.ALawToULaw[octet]|0x80 != g711.ALawToULaw[octet|0x80] || g711.ALawToULaw[octet]&0x80 != 0 {
			t.Errorf("A-law %#02x and %#02x become %#02x and %#02x",
				octet, octet|0x80, g711.ALawToULaw[octet], g711.ALawToULaw[octet|0x80])
		}
		if g711.ULawToALaw[octet]|0x80 != g711.ULawToALaw[octet|0x80] || g711.ULawToALaw[octet]&0x80 != 0 {
			t.Errorf("mu-law %#02x and %#02x become %#02x and %#02x",
				octet, octet|0x80, g711.ULawToALaw[octet], g711.ULawToALaw[octet|0x80])
		}
	}
}

// TestTransparency: bits 1 to 7 survive A-mu-A (Note 3), so that what an octet carries
// there besides speech does. Of mu-A-mu the eight octets of the lowest levels lose a step.
func TestTransparency(t *testing.T) {
	for octet := range 256 {
		if back := g711.ULawToALaw[g711.ALawToULaw[octet]]; back&^1 != byte(octet)&^1 {
			t.Errorf("A-law %#02x comes back as %#02x: more than bit 8 changed", octet, back)
		}
	}
	var changed []int
	for n := range 128 {
		if back := g711.ALawToULaw[g711.ULawToALaw[ulawOctet(n)]]; back != ulawOctet(n) {
			changed = append(changed, n)
		}
	}
	if want := []int{0, 2, 4, 6, 8, 10, 12, 14}; !slices.Equal(changed, want) {
		t.Errorf("mu-A-mu changes value numbers %v, want %v", changed, want)
	}
}

// TestIdle: the octets of silence, known from any trace.
func TestIdle(t *testing.T) {
	for _, c := range []struct {
		name       string
		alaw, ulaw byte
		table      *[256]byte
	}{
		{"positive zero of A-law", 0xd5, 0xfe, &g711.ALawToULaw},
		{"negative zero of A-law", 0x55, 0x7e, &g711.ALawToULaw},
		{"positive zero of mu-law", 0xd5, 0xff, &g711.ULawToALaw},
		{"negative zero of mu-law", 0x55, 0x7f, &g711.ULawToALaw},
		{"positive full scale", 0xaa, 0x80, &g711.ALawToULaw},
		{"negative full scale", 0x2a, 0x00, &g711.ALawToULaw},
	} {
		in, want := []byte{c.alaw, c.alaw}, c.ulaw
		if c.table == &g711.ULawToALaw {
			in, want = []byte{c.ulaw, c.ulaw}, c.alaw
		}
		g711.Convert(in, c.table)
		if in[0] != want || in[1] != want {
			t.Errorf("%s: % x, want %#02x twice", c.name, in, want)
		}
	}
}

func BenchmarkConvert(b *testing.B) {
	payload := make([]byte, 160)
	b.SetBytes(int64(len(payload)))
	for b.Loop() {
		g711.Convert(payload, &g711.ALawToULaw)
	}
}
