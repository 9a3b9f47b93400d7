package b2bua

import (
	"github.com/tandem-sbc/tandem/pkg/media"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

// dtmf are a trunk's words for how keys travel (M5).
var dtmf = map[string]media.DTMF{trunk.DTMFEvents: media.Events, trunk.DTMFInband: media.Inband, trunk.DTMFNone: media.None}

// terms are what a trunk asks of the media on its side.
func terms(t *trunk.Trunk) media.Terms {
	prefixes, explicit := t.MediaPrefixes()
	return media.Terms{
		Codecs:     t.Codecs(),
		DTMF:       dtmf[t.DTMF()],
		EventType:  t.DTMFPayloadType(),
		Latch:      media.LatchTerms{Window: t.LatchWindow(), Allowed: prefixes, Described: !explicit},
		Idle:       t.IdleTimeout(),
		IdleOneWay: t.IdleTimeoutOneWay(),
	}
}
