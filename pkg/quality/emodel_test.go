package quality

import (
	"math"
	"testing"
	"time"
)

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if math.IsNaN(got) || math.Abs(got-want) > tolerance {
		t.Errorf("%s: %.3f, want %.3f within %v", what, got, want, tolerance)
	}
}

// TestDefaultR: "a rating factor of R = 93.2" (G.107 section 7.7), which is a MOS of 4.41 (M11).
func TestDefaultR(t *testing.T) {
	r := Defaults().R()
	near(t, "R", r, 93.2, 0.05)
	near(t, "MOS", MOS(r), 4.41, 0.005)
}

// TestMOSOfR holds the conversion to the lower limits of the categories in G.107 Table
// B.1 (and G.109), which have two digits, and to its ends.
func TestMOSOfR(t *testing.T) {
	for _, c := range []struct {
		name   string
		r, mos float64
	}{
		{"very satisfied", 90, 4.34},
		{"satisfied", 80, 4.03},
		{"some dissatisfied", 70, 3.60},
		{"many dissatisfied", 60, 3.10},
		{"nearly all dissatisfied", 50, 2.58},
		{"the end of the scale", 100, 4.5},
		{"beyond it", 129, 4.5},
		{"nothing", 0, 1},
		{"less than nothing", -20, 1},
		{"where the polynomial dips below 1", 3, 1},
	} {
		near(t, c.name, MOS(c.r), c.mos, 0.0075)
	}
}

// TestDelay holds Id to the approximation that Cole and Rosenbluth derived from G.107's
// defaults ("Voice over IP performance monitoring", ACM CCR 31(2), 2001):
// Id = 0.024 d + 0.11 (d - 177.3) above 177.3 ms. It has a kink where G.107 has a curve.
func TestDelay(t *testing.T) {
	for _, d := range []float64{0, 25, 50, 100, 150, 177.3, 200, 225, 250, 275, 300} {
		p := Defaults()
		p.T, p.Tr, p.Ta = d, 2*d, d
		near(t, "Id", Defaults().R()-p.R(), 0.024*d+0.11*max(0, d-177.3), 1)
	}
}

// TestDelayWithoutEcho: G.107 equations 7-27 and 7-28 alone. X is 1 at 200 ms and 2 at
// 400 ms, so Idd is 25 (2^(1/6) - 3 (1+3^-6)^(1/6) + 2) and 25 (65^(1/6) - 3 (1+(2/3)^6)^(1/6) + 2).
func TestDelayWithoutEcho(t *testing.T) {
	for _, c := range []struct{ ta, idd float64 }{{0, 0}, {100, 0}, {200, 3.044}, {400, 24.07}} {
		near(t, "Idd", tooLong(c.ta), c.idd, 0.005)
	}
}

// TestEchoThatIsHeard: less TELR and WEPL, and longer delay, are worse, as is sidetone
// outside of what section 7.4 calls normal.
func TestEchoThatIsHeard(t *testing.T) {
	delayed := func(change func(*Parameters)) float64 {
		p := Defaults()
		p.T, p.Tr, p.Ta = 50, 100, 50
		change(&p)
		return p.R()
	}
	plain := delayed(func(*Parameters) {})
	for name, change := range map[string]func(*Parameters){
		"talker echo":   func(p *Parameters) { p.TELR = 45 },
		"listener echo": func(p *Parameters) { p.WEPL = 20 },
		"low sidetone":  func(p *Parameters) { p.STMR = 5 },
		"high sidetone": func(p *Parameters) { p.STMR = 25 },
		"circuit noise": func(p *Parameters) { p.Nc = -50 },
		"room noise":    func(p *Parameters) { p.Pr = 60 },
		"quantizing":    func(p *Parameters) { p.QDU = 7 },
		"too loud":      func(p *Parameters) { p.SLR = 0 },
	} {
		if r := delayed(change); !(r < plain-0.5) {
			t.Errorf("%s: R %.2f, %.2f without", name, r, plain)
		}
	}
	if r := delayed(func(p *Parameters) { p.A = 5 }); math.Abs(r-plain-5) > 1e-9 {
		t.Errorf("an advantage of 5: R %.2f, %.2f without", r, plain)
	}
}

// TestPacketLoss holds Ie,eff to what G.113 Appendix I gave as measured Ie under random
// loss before G.107 had Bpl (02/2001, Tables I.2 and I.3), to which the Bpl were fitted.
func TestPacketLoss(t *testing.T) {
	for _, c := range []struct {
		codec     string
		ie        map[float64]float64
		tolerance float64
	}{
		{"G729", map[float64]float64{0: 11, 0.5: 13, 1: 15, 1.5: 17, 2: 19, 3: 23, 4: 26, 8: 36, 16: 49}, 0.6},
		{"G723", map[float64]float64{0: 15, 0.5: 17, 1: 19, 1.5: 22, 2: 24, 3: 27, 4: 32, 8: 41, 16: 55}, 1.2},
		{"PCMA", map[float64]float64{0: 0, 1: 5, 2: 7, 3: 10, 5: 15, 7: 20, 10: 25}, 2.2},
	} {
		for loss, want := range c.ie {
			lossy, _ := Path{Codec: c.codec, Loss: loss / 100}.R()
			near(t, c.codec, Defaults().R()-lossy, want, c.tolerance)
		}
	}
}

// TestBurstsAreWorse: equation 7-29 divides only the loss below the line.
func TestBurstsAreWorse(t *testing.T) {
	random, _ := Path{Codec: "G729", Loss: 0.04}.R()
	bursts, _ := Path{Codec: "G729", Loss: 0.04, BurstRatio: 2}.R()
	near(t, "random", Defaults().R()-random, 11+84*4./23, 1e-9)
	near(t, "bursts of twice the length", Defaults().R()-bursts, 11+84*4./21, 1e-9)
}

// TestPathIsTheModel: what a Path leaves out of the computation changes nothing that
// anybody could see.
func TestPathIsTheModel(t *testing.T) {
	for d := time.Duration(0); d <= 800*time.Millisecond; d += 7 * time.Millisecond {
		for loss := 0.0; loss <= 1; loss += 0.05 {
			p := Defaults()
			p.Ta = milliseconds(d)
			p.T, p.Tr = p.Ta, 2*p.Ta
			p.Ie, p.Bpl, p.Ppl = 11, 19, 100*loss
			got, _ := Path{Codec: "g729", Delay: d, Loss: loss}.R()
			near(t, "R", got, p.R(), 1e-3)
		}
	}
}

// TestImpossiblePath: numbers that cannot be do no harm.
func TestImpossiblePath(t *testing.T) {
	for _, p := range []Path{
		{Codec: "PCMA", Loss: 7},
		{Codec: "PCMA", Loss: -1, Delay: -time.Hour, BurstRatio: -3},
		{Codec: "PCMA", Delay: math.MaxInt64, Loss: 1},
		{Codec: "PCMA", Loss: math.Inf(1), BurstRatio: math.Inf(1)},
	} {
		if mos := p.MOS(); !(mos >= 1 && mos <= 4.5) {
			t.Errorf("%+v: %v", p, mos)
		}
	}
}

// TestCodecs: a MOS for those with published values, in any spelling, and none for the
// others: wide-band ones are on another scale (G.107.1).
func TestCodecs(t *testing.T) {
	for _, c := range []struct {
		codec string
		mos   float64
	}{
		{"PCMA", 4.41}, {"pcmu", 4.41}, {"G729", 4.10}, {"G723", 3.95}, {"GSM-EFR", 4.28}, {"GSM", 3.75}, {"G726-32", 4.22},
		{"G722", 0}, {"opus", 0}, {"AMR-WB", 0}, {"AMR", 0}, {"iLBC", 0}, {"telephone-event", 0}, {"", 0},
	} {
		near(t, c.codec, Path{Codec: c.codec}.MOS(), c.mos, 0.02)
	}
	for _, c := range codecs {
		if c.Bpl < unpublishedBpl || c.Ie < 0 || c.Ie > 50 || c.Delay <= 0 {
			t.Errorf("%+v", c)
		}
	}
}
