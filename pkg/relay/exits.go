package relay

import (
	"sync/atomic"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// exit is one way a packet leaves the relay.
type exit uint8

const (
	exitForwarded exit = iota
	exitNoFlow
	exitTooLong
	exitSourceRefused
	exitNotRTP
	exitNotRTCP
	exitHold
	exitSendFailed
	numExits
)

// exitNames are those of the kernel engine where both have the exit.
var exitNames = [numExits]call.Exit{
	exitForwarded:     {Reason: "forwarded", Verdict: "forward"},
	exitNoFlow:        {Reason: "no-flow", Verdict: "drop"},
	exitTooLong:       {Reason: "too-long", Verdict: "drop"},
	exitSourceRefused: {Reason: "source-refused", Verdict: "drop"},
	exitNotRTP:        {Reason: "not-rtp", Verdict: "drop"},
	exitNotRTCP:       {Reason: "not-rtcp", Verdict: "drop"},
	exitHold:          {Reason: "hold", Verdict: "drop"},
	exitSendFailed:    {Reason: "send-failed", Verdict: "drop"},
}

// exits counts packets by how they left.
type exits [numExits]atomic.Uint64

func (c *exits) list() []call.Exit {
	list := exitNames
	for i := range list {
		list[i].Packets = c[i].Load()
	}
	return list[:]
}
