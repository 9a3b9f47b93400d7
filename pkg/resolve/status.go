package resolve

import (
	"fmt"
	"time"
)

// State says what a target's set is worth.
type State string

// States of targets.
const (
	Fixed   State = "fixed"   // an address: nothing to look up
	Pending State = "pending" // no answer yet
	Known   State = "known"   // as DNS has it
	Stale   State = "stale"   // DNS does not answer: the last known targets are used
	Expired State = "expired" // DNS has not answered for longer than max_stale
	Denied  State = "denied"  // DNS answers that there are no targets
)

// Status is what is known of a target that is watched.
type Status struct {
	Target    string    `json:"target"`
	Transport Transport `json:"transport"`
	State     State     `json:"state"`
	// Since is when the state began.
	Since time.Time `json:"since"`
	// Answered is when DNS answered last, Expires until when that holds.
	Answered time.Time `json:"answered,omitzero"`
	Expires  time.Time `json:"expires,omitzero"`
	// Error says why targets, or some of them, are not known.
	Error     string     `json:"error,omitzero"`
	Endpoints []Endpoint `json:"endpoints,omitempty"`
}

// String is the status in words.
func (s Status) String() string {
	because := ""
	if s.Error != "" {
		because = ": " + s.Error
	}
	age := time.Since(s.Answered).Round(time.Second)
	switch s.State {
	case Fixed:
		return "an address"
	case Pending:
		return "no DNS answer yet" + because
	case Known:
		if because != "" {
			return "some targets are not known" + because
		}
		return fmt.Sprintf("%d targets by DNS, %s ago", len(s.Endpoints), age)
	case Stale:
		return fmt.Sprintf("last known targets, of %s ago%s", age, because)
	case Expired:
		return fmt.Sprintf("no DNS answer for %s, longer than max_stale%s", age, because)
	default:
		return "DNS has no targets" + because
	}
}
