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
	// Realms are the realms' names by number, which begins at 1: the first is realm 1 of
	// the engine's exits.
	Realms []string `json:"realms"`
	// Kernel is what the kernel engine has in the kernel; left out for the other one.
	Kernel    *Kernel   `json:"kernel,omitempty"`
	Calls     Calls     `json:"calls"`
	Resources Resources `json:"resources"`
}

// Kernel is the kernel engine's side of the system.
type Kernel struct {
	// ABI numbers the layout of the maps; a daemon of another one migrates the flows.
	ABI int `json:"abi"`
	// Pins is the folder on bpffs that outlives the daemon, or empty if nothing does.
	Pins string `json:"pins,omitempty"`
	// Adopted counts the flows of a former process that went on at start.
	Adopted     int          `json:"adopted"`
	Attachments []Attachment `json:"attachments"`
}

// Attachment is a device that the program is attached to.
type Attachment struct {
	Device string `json:"device"`
	// Hook is "xdp", "tcx" or "clsact".
	Hook string `json:"hook"`
	// Mode of XDP is "native" or "generic"; empty for the other hooks.
	Mode string `json:"mode,omitempty"`
	// Pinned means that the program stays when the daemon ends.
	Pinned bool `json:"pinned"`
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
