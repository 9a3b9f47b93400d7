package call

import (
	"net/netip"
	"time"
)

// Media is what one side of a call sent, as the engine counted it.
type Media struct {
	Local  netip.AddrPort `json:"local"`
	Remote netip.AddrPort `json:"remote"`
	// Codec is the first codec of the answer, e.g. "PCMA/8000".
	Codec string `json:"codec"`
	// Packets are RTP alone; Bytes has RTCP that came among them, too.
	Packets   uint64 `json:"packets"`
	Bytes     uint64 `json:"bytes"`
	Lost      uint64 `json:"lost"`
	Reordered uint64 `json:"reordered"`
	Refused   uint64 `json:"refused"`
	// Duplicated, OutOfPolicy, Digits, SSRCChanges: see FlowStats.
	Duplicated  uint64 `json:"duplicated"`
	OutOfPolicy uint64 `json:"out_of_policy"`
	Digits      uint64 `json:"digits"`
	SSRCChanges uint64 `json:"ssrc_changes"`
	// JitterMS is in milliseconds.
	JitterMS float64 `json:"jitter_ms"`
	// GapMS is the longest time between two packets in a row, in milliseconds.
	GapMS float64 `json:"gap_ms"`
	// First and Last are when packets came; left out if none did.
	First time.Time `json:"first,omitzero"`
	Last  time.Time `json:"last,omitzero"`
	// RemoteLost and RemoteJitterMS are what this side's peer reports of the stream that
	// it gets from us (RTCP, RFC 3550 section 6.4.1); zero without reports.
	RemoteLost     uint64  `json:"remote_lost"`
	RemoteJitterMS float64 `json:"remote_jitter_ms"`
	// RTTMS is the round trip between us and this side's peer, from its reports, in
	// milliseconds; 0 is not known.
	RTTMS float64 `json:"rtt_ms"`
	// MOS is the listening quality of what this side sent, as the E-model estimates it
	// from loss, jitter, delay and codec (ITU-T G.107): 1 to 4.5; 0 is not known, for
	// want of packets or because the codec has no published values (M11).
	MOS float64 `json:"mos"`
}

// LossRatio is lost of expected packets, 0 to 1; 0 without packets. A packet that came
// again was expected once.
func (m Media) LossRatio() float64 {
	if m.Lost == 0 {
		return 0
	}
	return float64(m.Lost) / float64(m.Lost+m.Packets-min(m.Duplicated, m.Packets))
}

// LegRecord is one leg of a call, live or ended.
type LegRecord struct {
	Trunk  string         `json:"trunk"`
	Realm  string         `json:"realm"`
	CallID string         `json:"call_id"`
	Local  netip.AddrPort `json:"local"`
	Remote netip.AddrPort `json:"remote"`
	Media  Media          `json:"media"`
}

// Attempt is one try of an egress trunk that did not carry the call.
type Attempt struct {
	Trunk string `json:"trunk"`
	// Target of the trunk that was tried.
	Target netip.AddrPort `json:"target,omitzero"`
	Cause  Cause          `json:"cause"`
	// DurationMS is in milliseconds.
	DurationMS int64 `json:"duration_ms"`
}

// State of a call.
type State string

// The states of a call, in order.
const (
	Routing  State = "routing"
	Ringing  State = "ringing"
	Answered State = "answered"
	Ending   State = "ending"
)

// Info is a live call as seen from outside.
type Info struct {
	ID      ID        `json:"id"`
	State   State     `json:"state"`
	From    string    `json:"from"`
	To      string    `json:"to"`
	Started time.Time `json:"started"`
	// Answered is zero until the call is.
	Answered time.Time `json:"answered,omitzero"`
	Ingress  LegRecord `json:"ingress"`
	Egress   LegRecord `json:"egress"`
}

// Record is the call detail record, written once when a call has ended (O3).
type Record struct {
	ID   ID     `json:"id"`
	Node string `json:"node"`
	From string `json:"from"`
	To   string `json:"to"`
	// Times are RFC 3339 with milliseconds; zero ones are left out.
	Started  time.Time `json:"started"`
	Rang     time.Time `json:"rang,omitzero"`
	Answered time.Time `json:"answered,omitzero"`
	Ended    time.Time `json:"ended"`
	// SetupMS is from INVITE to ringing or answer, DurationMS from answer to end, in milliseconds.
	SetupMS    int64     `json:"setup_ms"`
	DurationMS int64     `json:"duration_ms"`
	Cause      Cause     `json:"cause"`
	Ingress    LegRecord `json:"ingress"`
	Egress     LegRecord `json:"egress"`
	Attempts   []Attempt `json:"attempts,omitempty"`
	// Engine that carried the media, or empty.
	Engine string `json:"engine,omitempty"`
}
