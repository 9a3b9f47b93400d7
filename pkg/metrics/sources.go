package metrics

import (
	"log/slog"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// Sources are what a scrape reads. A nil function leaves its metrics out.
type Sources struct {
	Node, Version string
	// Realms are the realms' names by number, which begins at 1.
	Realms []string
	Engine func() (call.EngineStats, error)
	// Attachments are where the kernel engine's program is.
	Attachments func() []Attachment
	Calls       func() Calls
	Trunks      func() []Trunk
	// Groups has the members of all groups.
	Groups func() []GroupMember
	// Networks are the realms' networks (N9), Tunnels all tunnels of all realms (I7).
	Networks func() []call.Realm
	Tunnels  func() []call.Tunnel
	// Media may give some trunks' values and an error for the rest.
	Media func() ([]TrunkMedia, error)
	// Ended has the distribution of ended calls' media; nil leaves it out.
	Ended *Ended
	SIP   func() []SIP
	// PortsInUse counts RTP port pairs, those in quarantine not counted.
	PortsInUse func() int
	CDR        func() CDR
	// Draining turns /healthz to 503: a load balancer shall send no new calls.
	Draining func() bool
	// Log takes what goes wrong in a scrape; nil discards it.
	Log *slog.Logger
}

// Calls counts calls since start; Active is now.
type Calls struct {
	Active                  int
	Total, Answered, Failed uint64
}

// Trunk is one trunk with its directions apart: In comes from it, Out goes to it.
type Trunk struct {
	Name, Realm, Kind string
	// InService means that new calls may go to it.
	InService bool
	// State is one of trunkStates, Changes how often it was another.
	State   string
	Changes uint64
	// MaxCalls limits both directions together; 0 is no limit.
	MaxCalls int
	// MaxRate limits new calls of each direction, in calls a second; 0 is no limit.
	MaxRate float64
	In, Out TrunkDirection
	Targets []TrunkTarget
}

// TrunkDirection counts since start; Active is now.
type TrunkDirection struct {
	Active                      int
	Attempts, Answers, Failures uint64
	// Outcomes counts what became of attempts, by one of outcomes.
	Outcomes map[string]uint64
	// Refused counts calls that got no slot, by reason.
	Refused map[string]uint64
	Recent  TrunkRecent
}

// TrunkRecent is what happened in the trunk's health_window.
type TrunkRecent struct {
	// Decided attempts are those whose outcome is known. Without any, ASR and NER have no
	// meaning; they are ratios, 0-1.
	Decided  uint32
	ASR, NER float64
	// PDD and ACD are means in seconds; 0 is none.
	PDD, ACD float64
}

// TrunkTarget is one address of a peer: what the config has, or DNS, at most 64 a trunk.
type TrunkTarget struct {
	Address string
	// Alive targets may get calls.
	Alive bool
	// RoundTrip of the last probe that was answered, in seconds; 0 is none.
	RoundTrip float64
	// Failures of probes since start.
	Failures uint64
}

// GroupMember is a trunk in a group.
type GroupMember struct {
	Group, Trunk string
	// Share of the group's first choices that the member gets now, 0-1; 0 where the strategy does
	// not go by weights.
	Share float64
	// Multiplier is what an adaptive group makes of the weight, 0.1-1; 1 changes nothing.
	Multiplier float64
}

// TrunkMedia is what the peers of one trunk sent in calls that were answered, early media included.
type TrunkMedia struct {
	Trunk, Realm string
	// Counters are since start, live calls included.
	Counters MediaCounters
	// Live has one value for each leg that is up.
	Live []LegQuality
}

// LegQuality is how a leg sounds now; see call.Media for the values, of which 0 is not known.
type LegQuality struct{ MOS, JitterMS, RTTMS float64 }

// MediaCounters add up the counters of call.Media.
type MediaCounters struct {
	Packets, Bytes, Lost, Reordered, Duplicated, Refused, OutOfPolicy, RemoteLost uint64
}

// Attachment is a device that the kernel engine's program is attached to.
type Attachment struct {
	// Mode is "native" or "generic"; Hook is "xdp", "tcx" or "clsact".
	Device, Mode, Hook string
}

// InOut is a pair of counters since start.
type InOut struct{ In, Out uint64 }

// SIP is what one realm's stack counted since start.
type SIP struct {
	Realm string
	// Requests by method: a bounded set of words, never what a peer wrote.
	Requests map[string]InOut
	// Responses by class, 1 to 6; index 0 is not used.
	Responses       [7]InOut
	Retransmissions InOut
	// UnknownSources counts datagrams dropped unread; ParseErrors malformed messages;
	// Strays well-formed ones that belong to nothing; Oversize sent ones above 1300
	// bytes; SendErrors and ReadErrors what the kernel refused.
	UnknownSources, ParseErrors, Strays, Oversize, SendErrors, ReadErrors uint64
	// Legs and Transactions are alive now.
	Legs, Transactions int
}

// CDR counts call detail records since start; Queued is now.
type CDR struct {
	Written, WriteErrors, Dropped uint64
	Queued                        int
	// Causes counts ended calls by the code of their cause: a bounded set of words.
	Causes map[string]uint64
}
