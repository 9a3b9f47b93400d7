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

// exitNames are package call's where the kernel engine has the exit too.
var exitNames = [numExits]call.Exit{
	exitForwarded:     {Reason: call.ExitForwarded, Verdict: "forward"},
	exitNoFlow:        {Reason: call.ExitNoFlow, Verdict: "drop"},
	exitTooLong:       {Reason: "too-long", Verdict: "drop"},
	exitSourceRefused: {Reason: call.ExitSourceRefused, Verdict: "drop"},
	exitNotRTP:        {Reason: call.ExitNotRTP, Verdict: "drop"},
	exitNotRTCP:       {Reason: call.ExitNotRTCP, Verdict: "drop"},
	exitHold:          {Reason: call.ExitHold, Verdict: "drop"},
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
