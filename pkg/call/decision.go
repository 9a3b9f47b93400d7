package call

import "time"

// Query is a call that nobody makes: what would become of it (T12)?
type Query struct {
	// Trunk is where it would come from.
	Trunk string `json:"trunk"`
	// From and To are the calling and the called number as the trunk would send them.
	From string `json:"from"`
	To   string `json:"to"`
	// ToHeader is the number of the To header; empty is that of To.
	ToHeader string   `json:"to_header,omitempty"`
	Headers  []Header `json:"headers,omitempty"`
	// At is when it would come; zero is now.
	At time.Time `json:"at,omitzero"`
}

// Outcomes of a Decision.
const (
	// Routed goes to Group or Trunk.
	Routed = "routed"
	// NoRoute is refused with 503, since no route takes it.
	NoRoute = "no-route"
	// IncompleteNumber is refused with 484, since the trunk demands a number of E.164.
	IncompleteNumber = "incomplete-number"
	// UnknownTrunk is none: there is no such trunk to come from.
	UnknownTrunk = "unknown-trunk"
)

// Decision is what would become of a call, step by step.
type Decision struct {
	Outcome string `json:"outcome"`
	// Route took the call, for Group or Trunk: one of both, unless Outcome is another than Routed.
	Route string `json:"route,omitempty"`
	Group string `json:"group,omitempty"`
	Trunk string `json:"trunk,omitempty"`
	// Called and Caller are the numbers as they would go out, or as routes saw them.
	Called string `json:"called"`
	Caller string `json:"caller"`
	Steps  []Step `json:"steps"`
	// Candidates are the trunks that would be tried, in their order, and behind them those
	// that would be passed over.
	Candidates []Candidate `json:"candidates"`
}

// Step is one of a Decision.
type Step struct {
	// Subject is what is looked at, e.g. "called number" or "route germany".
	Subject string `json:"subject"`
	// Result is a word or two, e.g. "taken" or "passed over".
	Result string `json:"result"`
	// Reason says why in words.
	Reason string `json:"reason"`
}

// Candidate is a trunk that a call may be tried on.
type Candidate struct {
	Trunk string `json:"trunk"`
	// Group that it is a member of: the route's or one of its fallbacks; empty if the route
	// names the trunk.
	Group string `json:"group,omitempty"`
	// State of the trunk, e.g. "in-service".
	State string `json:"state"`
	// Offered means that the call would be tried there if the ones before fail.
	Offered bool `json:"offered"`
	// Reason says why the state is what it is, or why the trunk would be passed over.
	Reason string `json:"reason,omitempty"`
}
