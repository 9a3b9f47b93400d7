package relay

import (
	"net/netip"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// maxPacket is the longest datagram that is forwarded, in bytes of UDP payload.
// Audio and RTCP stay far below it.
const maxPacket = 2048

// packet is a datagram on its way through the gates, which change data in place.
type packet struct {
	data []byte
	from netip.AddrPort
	at   time.Time
	// tooLong means that data is cut off.
	tooLong bool

	// What the gates have found: RTCP, or RTP of what payload.
	rtcp    bool
	payload call.Payload
}

func (p *packet) event(key call.FlowKey, kind call.MediaEventKind) call.MediaEvent {
	return call.MediaEvent{Key: key, Kind: kind, At: p.at, Source: p.from}
}
