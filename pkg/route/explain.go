package route

import (
	"fmt"
	"strings"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/number"
)

// Results of steps.
const (
	taken       = "taken"
	passedOver  = "passed over"
	asItIs      = "as it is"
	normalised  = "normalised"
	translated  = "translated"
	demanded    = "demanded"
	refused     = "refused"
	notFollowed = "left out"
)

// Explain says what Route does with a request, and why: the numbers as routes see them,
// each route in turn up to the one that takes the call, and the numbers on the way out.
func (t *Table) Explain(r Request) call.Decision {
	a := r.attempt()
	d := call.Decision{Outcome: call.NoRoute, Called: a.called, Caller: a.caller}
	step := func(subject, result, reason string, args ...any) {
		d.Steps = append(d.Steps, call.Step{Subject: subject, Result: result, Reason: fmt.Sprintf(reason, args...)})
	}
	explainNumber(step, "called number", r.Plan, r.Called)
	explainNumber(step, "calling number", r.Plan, r.Caller)
	if err := r.Incomplete(); err != nil {
		step("E.164", refused, "trunk %s has to give a number of E.164. %s The answer is 484.", r.Trunk, err)
		d.Outcome = call.IncompleteNumber
		return d
	}
	if r.DemandE164 {
		step("E.164", demanded, "%s", explainDemand(a))
	}
	for i := range t.entries {
		e := &t.entries[i]
		if why := e.objection(&a); why != "" {
			step("route "+e.name, passedOver, "%s", why)
			continue
		}
		step("route "+e.name, taken, "%s", e.merits(&a))
		m := e.match(&a)
		explainRules(step, "called number", e.calledRules, a.called)
		explainRules(step, "calling number", e.callerRules, a.caller)
		d.Outcome, d.Route, d.Group, d.Trunk, d.Called, d.Caller = call.Routed, m.Route, m.Group, m.Trunk, m.Called, m.Caller
		return d
	}
	step("routes", refused, "none of %d takes the call. The answer is 503.", len(t.entries))
	return d
}

type stepper func(subject, result, reason string, args ...any)

func explainNumber(step stepper, subject string, p number.Plan, user string) {
	made := p.Normalise(user)
	switch {
	case user == "":
		step(subject, asItIs, "there is none")
	case made != user:
		step(subject, normalised, "%.80q becomes %.80q (%s)", user, made, planText(p))
	case number.IsE164(user):
		step(subject, asItIs, "%q is a number of E.164", user)
	case p.CountryCode == "":
		step(subject, asItIs, "%.80q is none of E.164, and the trunk has no country_code", user)
	default:
		step(subject, asItIs, "%.80q is no number that is dialled in the trunk's plan (%s)", user, planText(p))
	}
}

func planText(p number.Plan) string {
	if p.CountryCode == "" {
		return "separators and parameters"
	}
	return fmt.Sprintf("country code %s, national prefix %q, international prefix %q", p.CountryCode, p.NationalPrefix, p.InternationalPrefix)
}

func explainDemand(a attempt) string {
	if a.called == a.Plan.Normalise(a.Request.Called) {
		return "the Request-URI has a number of E.164"
	}
	return fmt.Sprintf("the Request-URI has none, so that To's counts: %q", a.called)
}

func explainRules(step stepper, subject string, rules []rule, user string) {
	for i := range rules {
		r := &rules[i]
		made := r.apply(user)
		switch {
		case made != user:
			step(subject, translated, "%.80q becomes %.80q: %s", user, made, r)
		default:
			step(subject, notFollowed, "%.80q stays: %s changes nothing, or would leave nothing or more than %d characters", user, r, maxNumber)
		}
		user = made
	}
}

// objection is why the route does not take a call, or empty if it does.
func (e *entry) objection(a *attempt) string {
	switch {
	case !e.comesFrom(a.Trunk):
		return fmt.Sprintf("the call comes from %s, not from %s", a.Trunk, oneOf(e.from))
	case !e.called.matches(a.called):
		return e.called.objection("called", a.called)
	case !e.caller.matches(a.caller):
		return e.caller.objection("calling", a.caller)
	case !e.hasHeader(a):
		if value := a.value(e.header); value != "" {
			return fmt.Sprintf("header %s is %.80q and does not match %q", e.header, value, e.value.text())
		}
		return fmt.Sprintf("there is no header %s", e.header)
	case e.hours != nil:
		return e.hours.objection(a.when())
	}
	return ""
}

// merits are why the route takes a call, all of them.
func (e *entry) merits(a *attempt) string {
	var fits []string
	if len(e.from) > 0 {
		fits = append(fits, "the call comes from "+a.Trunk)
	}
	fits = append(fits, e.called.merits("called", a.called)...)
	fits = append(fits, e.caller.merits("calling", a.caller)...)
	if e.header != "" {
		fits = append(fits, fmt.Sprintf("header %s is %.80q", e.header, a.value(e.header)))
	}
	if e.hours != nil {
		fits = append(fits, fmt.Sprintf("%s is within %s", e.hours.clock(a.when()), e.hours.text))
	}
	switch {
	case e.standby && len(fits) == 0:
		return "it is a default route, and no other takes the call"
	case e.standby:
		return "it is a default route, no other takes the call, and " + strings.Join(fits, ", ")
	case len(fits) == 0:
		return "it takes any call"
	}
	return strings.Join(fits, ", ")
}

func oneOf(names []string) string {
	if last := len(names) - 1; last > 0 {
		return strings.Join(names[:last], ", ") + " or " + names[last]
	}
	return names[0]
}
