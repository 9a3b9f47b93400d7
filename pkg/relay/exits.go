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
	exitSourceRefused
	exitTooLong
	exitNotRTP
	exitNotRTCP
	exitPayloadType
	exitHold
	exitSendFailed
	numExits
)

// exitNames are package call's where the kernel engine has the exit too.
var exitNames = [numExits]call.Exit{
	exitForwarded:     {Reason: call.ExitForwarded, Verdict: "forward"},
	exitNoFlow:        {Reason: call.ExitNoFlow, Verdict: "drop"},
	exitSourceRefused: {Reason: call.ExitSourceRefused, Verdict: "drop"},
	exitTooLong:       {Reason: "too-long", Verdict: "drop"},
	exitNotRTP:        {Reason: call.ExitNotRTP, Verdict: "drop"},
	exitNotRTCP:       {Reason: call.ExitNotRTCP, Verdict: "drop"},
	exitPayloadType:   {Reason: call.ExitPayloadType, Verdict: "drop"},
	exitHold:          {Reason: call.ExitHold, Verdict: "drop"},
	exitSendFailed:    {Reason: "send-failed", Verdict: "drop"},
}

// tally counts the packets of one batch by how they left, so that sockets share a
// counter once per batch and not once per packet.
type tally [numExits]uint64

// exits counts the packets that came in by one realm by how they left.
type exits [numExits]atomic.Uint64

func (c *exits) add(t *tally) {
	for i, n := range t {
		if n > 0 {
			c[i].Add(n)
		}
	}
}

func (c *exits) list(realm uint16) []call.Exit {
	list := exitNames
	for i := range list {
		list[i].Realm, list[i].Packets = realm, c[i].Load()
	}
	return list[:]
}
