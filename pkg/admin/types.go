package admin

import (
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// States of the daemon.
const (
	// Running takes new calls.
	Running = "running"
	// Draining refuses new calls and waits for the last one (H6).
	Draining = "draining"
)

// Status is the daemon at a glance.
type Status struct {
	Node    string `json:"node"`
	Version string `json:"version"`
	// Started is when the daemon came up; UptimeMS is the time since, in milliseconds.
	Started  time.Time `json:"started"`
	UptimeMS int64     `json:"uptime_ms"`
	// State is Running or Draining.
	State string `json:"state"`
	// Engine moves the media; EngineReason says why it is not the kernel's, or is empty.
	Engine       call.EngineStats `json:"engine"`
	EngineReason string           `json:"engine_reason,omitempty"`
	Calls        Calls            `json:"calls"`
	Resources    Resources        `json:"resources"`
}

// Calls counts calls since start, but for Active, which is now. Total counts each call
// as it comes in, Answered when it is answered, Failed when it has ended without.
type Calls struct {
	Active   int    `json:"active"`
	Total    uint64 `json:"total"`
	Answered uint64 `json:"answered"`
	Failed   uint64 `json:"failed"`
}

// Resources are what calls take and give back: with no call all but the first two
// are zero once port quarantine and SIP's timers have passed.
type Resources struct {
	Goroutines int `json:"goroutines"`
	OpenFDs    int `json:"open_fds"`
	// PortsInUse are RTP port pairs, those in quarantine not counted.
	PortsInUse int `json:"ports_in_use"`
	// Flows installed in the engine.
	Flows int `json:"flows"`
	// Transactions are SIP transactions of all realms.
	Transactions int `json:"transactions"`
}

// TrunkStatus is one trunk.
type TrunkStatus struct {
	Name  string `json:"name"`
	Realm string `json:"realm"`
	// Kind is "platform" or "carrier".
	Kind string `json:"kind"`
	// State is a word, e.g. "in-service".
	State string `json:"state"`
	// MaxCalls limits both directions together; 0 is no limit.
	MaxCalls int            `json:"max_calls"`
	In       TrunkDirection `json:"in"`
	Out      TrunkDirection `json:"out"`
}

// TrunkDirection counts a trunk's calls of one direction: In comes from the trunk, Out
// goes to it. Active is now, the others are since start.
type TrunkDirection struct {
	Active   int    `json:"active"`
	Attempts uint64 `json:"attempts"`
	Answers  uint64 `json:"answers"`
	Failures uint64 `json:"failures"`
}

// Version is what runs.
type Version struct {
	Version string `json:"version"`
	// Commit is the revision that the binary was built from, or empty.
	Commit string `json:"commit,omitempty"`
	// Go is the compiler's version; Kernel is the release of the running kernel.
	Go     string `json:"go"`
	Kernel string `json:"kernel"`
}

// fault is the body of an error.
type fault struct {
	Error string `json:"error"`
}
