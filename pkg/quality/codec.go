package quality

import (
	"strings"
	"time"
)

// Codec is what the E-model needs to know of a codec.
type Codec struct {
	// Name is the encoding name as registered (RFC 3551 and others): "PCMA".
	Name string
	// Ie is the equipment impairment factor, Bpl the packet-loss robustness factor.
	Ie, Bpl float64
	// Delay is what sender and receiver add at usual packet sizes: one packet and the
	// look-ahead (ITU-T G.114 Annex A).
	Delay time.Duration
}

// unpublishedBpl is G.107's default (Table 3). It stands in for codecs whose Ie is
// published and whose Bpl is not; no published Bpl is lower, so loss counts rather too much.
const unpublishedBpl = 4.3

// codecs are narrow-band ones with values in ITU-T G.113 Appendix I: Ie by Table I.1,
// Ie and Bpl under random loss by Table I.4.
//
// G.711 is taken with packet loss concealment (G.711 Appendix I: Bpl 25.1; without it is
// 4.3), because there is hardly a phone or gateway left that has none, and which ones
// have cannot be seen from outside. G.729 and G.723.1 are taken with their silence
// suppression, which is what SDP means unless it says annexb=no or annexa=no, and at
// G.723.1's higher rate.
//
// Not here, so not known: iLBC and AMR, for which the ITU has published nothing (AMR at
// 12.2 kbit/s is close to GSM-EFR, but G.113 does not say so), and the wide-band codecs
// G.722, AMR-WB and Opus. Those belong to G.107.1, whose scale ends at 129 instead of
// 93.2 and whose MOS must not be compared with this one; for G.722 under loss and for
// Opus at all it has no values either.
var codecs = []Codec{
	{"PCMA", 0, 25.1, 20 * time.Millisecond},
	{"PCMU", 0, 25.1, 20 * time.Millisecond},
	{"G729", 11, 19, 25 * time.Millisecond},
	{"G723", 15, 16.1, 37500 * time.Microsecond},
	{"GSM-EFR", 5, 10, 20 * time.Millisecond},
	{"GSM", 20, unpublishedBpl, 20 * time.Millisecond},
	{"G726-40", 2, unpublishedBpl, 20 * time.Millisecond},
	{"G726-32", 7, unpublishedBpl, 20 * time.Millisecond},
	{"G726-24", 25, unpublishedBpl, 20 * time.Millisecond},
	{"G726-16", 50, unpublishedBpl, 20 * time.Millisecond},
	{"G728", 7, unpublishedBpl, 20 * time.Millisecond},
}

// FindCodec looks a codec up by its encoding name, in any spelling. It is false if the
// E-model has no values for it.
func FindCodec(name string) (Codec, bool) {
	for _, c := range codecs {
		if strings.EqualFold(c.Name, name) {
			return c, true
		}
	}
	return Codec{}, false
}
