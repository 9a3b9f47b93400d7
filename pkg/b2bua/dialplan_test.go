package b2bua

import (
	"strings"
	"testing"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/route"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

// T12, S20: a trunk that demands E.164 hears 484 if it does not give it; others do not.
func TestDemandE164(t *testing.T) {
	for _, row := range []struct {
		name       string
		demand     bool
		number, to string
		told       int
	}{
		{"neither has it", true, "030123456", "030123456", 484},
		{"To has it", true, "030123456", "+4930123456", 0},
		{"the Request-URI has it", true, "+4930123456", "anything", 0},
		{"not demanded", false, "030123456", "030123456", 503},
		{"an emergency call is let through", true, "112", "112", 0},
		{"so whatever number of E.164 To has", true, "112", "+33140506070", 0},
		{"and if To alone has the emergency number", true, "agent7", "+49112", 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			callee := newFakeLeg("callee", carrierPeer)
			b := newBenchOf(t, func(c *trunk.Configs, r *[]route.Config) {
				c.Trunks[0].DemandE164, c.Emergency = row.demand, []string{"112", "+49112"}
				*r = append(*r, route.Config{Name: "emergency", Prefix: "112", Trunk: "carrier"})
			}, callee)
			caller := newFakeLeg("caller", platformPeer)
			go func() {
				b.Invite("inside", caller, call.Invite{Number: row.number, To: call.Party{User: row.to}, MaxForwards: 70, Body: []byte(callerSDP)})
				b.done <- struct{}{}
			}()
			if row.told == 0 {
				b.dials(t, carrierPeer)
				refuse(callee, call.Rejection{Code: 486})
				told(t, caller, 486)
				b.record(t)
				return
			}
			told(t, caller, row.told)
			if rec := b.record(t); row.told == 484 && (rec.Cause.Code != "no-e164-number" || rec.Cause.Q850 != 28) {
				t.Errorf("cause %+v", rec.Cause)
			}
		})
	}
}

// T12: the route's translation is what goes out, on all numbers; a withheld caller stays so.
func TestNumbersAreTranslated(t *testing.T) {
	for _, anonymous := range []bool{false, true} {
		callee := newFakeLeg("callee", carrierPeer)
		b := newBenchOf(t, func(c *trunk.Configs, r *[]route.Config) {
			c.Trunks[0].CountryCode, c.Trunks[0].NationalPrefix, c.Trunks[0].InternationalPrefix = "49", "0", "00"
			(*r)[0].Translate.Called = []route.Rule{{Strip: 3, Add: "0049"}}
			(*r)[0].Translate.Caller = []route.Rule{{Strip: 1}}
		}, callee)
		caller := newFakeLeg("caller", platformPeer)
		invite := call.Invite{
			Number: "030123456", To: call.Party{User: "030123456"}, From: call.Party{User: "08912345", Anonymous: anonymous},
			Asserted: &call.Party{User: "+49892"}, MaxForwards: 70, Body: []byte(callerSDP),
		}
		go func() {
			b.Invite("inside", caller, invite)
			b.done <- struct{}{}
		}()
		d := b.dials(t, carrierPeer)
		from := "498912345"
		if anonymous {
			from = "08912345"
		}
		if i := d.invite; i.Number != "004930123456" || i.To.User != "004930123456" || i.Asserted.User != "49892" || i.From.User != from {
			t.Errorf("number %q to %q from %q asserted %q", i.Number, i.To.User, i.From.User, i.Asserted.User)
		}
		if invite.Asserted.User != "+49892" {
			t.Error("the caller's own identity was changed")
		}
		refuse(callee, call.Rejection{Code: 486})
		told(t, caller, 486)
		if rec := b.record(t); rec.To != "030123456" {
			t.Errorf("the record has %q for what was dialled", rec.To)
		}
	}
}

// T12: a route may go by a header that is not carried on.
func TestRouteByHeader(t *testing.T) {
	callee := newFakeLeg("callee", backupPeer)
	b := newBenchOf(t, func(_ *trunk.Configs, r *[]route.Config) {
		*r = append([]route.Config{{Name: "campaign", Header: route.Header{Name: "X-Campaign", Regexp: "^autumn$"}, Trunk: "backup"}}, *r...)
	}, callee)
	caller := newFakeLeg("caller", platformPeer)
	field := func(name string) string { return map[string]string{"x-campaign": "autumn"}[strings.ToLower(name)] }
	go func() {
		b.Invite("inside", caller, call.Invite{Number: "+4930123456", Field: field, MaxForwards: 70, Body: []byte(callerSDP)})
		b.done <- struct{}{}
	}()
	if d := b.dials(t, backupPeer); d.invite.Field != nil || len(d.invite.Headers) != 0 {
		t.Error("the header was carried on")
	}
	refuse(callee, call.Rejection{Code: 486})
	told(t, caller, 486)
	b.record(t)
}

// Reload: a call keeps the plan that it began with, and the next one goes by the new one.
func TestPlanIsSwappedBetweenCalls(t *testing.T) {
	first, second, third := newFakeLeg("first", carrierPeer), newFakeLeg("second", backupPeer), newFakeLeg("third", secondPeer)
	b := newBench(t, first, second, third)
	running := b.call(callerSDP)
	b.dials(t, carrierPeer)

	configs, routes := testConfigs()
	configs.Trunks[1].Targets = []string{secondPeer}
	configs.Trunks = configs.Trunks[:2] // the backup is gone
	configs.Groups[0].Trunks = []string{"carrier"}
	table, err := trunk.New(configs, b.trunks)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := route.New(routes)
	if err != nil {
		t.Fatal(err)
	}
	b.plan.Store(&Plan{Trunks: table, Routes: plan})

	refuse(first, call.Rejection{Code: 503})
	b.dials(t, backupPeer)
	second.emit(call.Accepted{Body: []byte(calledSDP)})
	running.expect(t, "accept")
	if list, err := b.Media(); err != nil || len(list) != 2 {
		t.Errorf("media of %d trunks, want those of the plan: %v", len(list), err)
	}

	fresh := b.call(callerSDP)
	b.dials(t, secondPeer)
	refuse(third, call.Rejection{Code: 486})
	told(t, fresh, 486)
	<-b.records
	<-b.done
	bye(running)
	if rec := b.record(t); rec.Egress.Trunk != "backup" || rec.Cause.Code != "normal-clearing" {
		t.Errorf("record %+v", rec)
	}
}
