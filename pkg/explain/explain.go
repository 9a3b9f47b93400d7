// Package explain says what would become of a call without making one: how its numbers are
// read, which route takes it, and which trunks would be tried (T12).
package explain

import (
	"fmt"
	"strings"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/number"
	"github.com/tandem-sbc/tandem/pkg/route"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

// Call follows a call through the tables as they are now. It takes nobody's turn.
func Call(trunks *trunk.Table, routes *route.Table, q call.Query) call.Decision {
	from := trunks.Trunk(q.Trunk)
	if from == nil {
		return call.Decision{Outcome: call.UnknownTrunk, Steps: []call.Step{{
			Subject: "ingress trunk", Result: "unknown", Reason: fmt.Sprintf("there is no trunk %.80q", q.Trunk),
		}}, Candidates: []call.Candidate{}}
	}
	r, emergency := request(from, q).Urgent(trunks.Emergency)
	d := routes.Explain(r)
	if emergency {
		d.Steps = append([]call.Step{{
			Subject: "called number", Result: "emergency", Reason: "no max_calls, no max_rate and no demand for E.164 holds the call up",
		}}, d.Steps...)
	}
	d.Candidates = candidates(trunks, d, r.Number())
	return d
}

func request(from *trunk.Trunk, q call.Query) route.Request {
	r := route.Request{
		Trunk: q.Trunk, Plan: number.Plan(from.Numbering()), DemandE164: from.DemandE164(),
		Called: q.To, Caller: q.From, To: q.ToHeader, At: q.At,
		Headers: func(name string) string { return value(q.Headers, name) },
	}
	if r.To == "" {
		r.To = q.To
	}
	return r
}

// value of a header; several of one name are one with commas between (RFC 3261 section 7.3.1).
func value(headers []call.Header, name string) string {
	var values []string
	for _, h := range headers {
		if strings.EqualFold(h.Name, name) {
			values = append(values, h.Value)
		}
	}
	return strings.Join(values, ", ")
}

// candidates are asked for by the number before its translation, as by a call.
func candidates(trunks *trunk.Table, d call.Decision, number string) []call.Candidate {
	list := []call.Candidate{}
	if d.Outcome != call.Routed {
		return list
	}
	order := trunks.OrderTrunk(d.Trunk, number)
	if d.Group != "" {
		order = trunks.Order(d.Group, number)
	}
	for _, c := range order {
		state := c.Trunk.Condition()
		one := call.Candidate{Trunk: c.Trunk.Name(), Group: c.Group, State: state.State, Reason: state.Reason}
		switch {
		case c.Tries > 0:
			one.Reason = fmt.Sprintf("the group has %d tries, which those before it use up", c.Tries)
		case c.Why == trunk.NotRefused:
			one.Offered = true
		case one.Reason == "":
			one.Reason = c.Why.String()
		}
		list = append(list, one)
	}
	return list
}
