package app

import (
	"fmt"
	"time"

	"github.com/tandem-sbc/tandem/pkg/admin"
	"github.com/tandem-sbc/tandem/pkg/config"
	"github.com/tandem-sbc/tandem/pkg/metrics"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

// trunkStatus is what the API shows of all trunks, those that have left and still have
// calls behind the others.
func (d *daemon) trunkStatus() []admin.TrunkStatus {
	table := d.trunks()
	var list []admin.TrunkStatus
	for _, t := range table.All() {
		list = append(list, adminTrunk(t))
	}
	for _, t := range d.leaving.removed(table) {
		s := adminTrunk(t)
		s.Removed, s.State, s.Reason = true, trunk.Draining, "the config does not have it any more; its running calls end by themselves"
		list = append(list, s)
	}
	return list
}

func adminTrunk(t *trunk.Trunk) admin.TrunkStatus {
	s, h := t.Status(), t.Health()
	a := admin.TrunkStatus{
		Name: s.Name, Realm: s.Realm, Kind: s.Kind, State: s.State, Reason: s.Reason, Since: s.Since,
		Admin: h.Admin, Share: h.Share, Changes: h.Changes,
		MaxCalls: s.MaxCalls, MaxRate: s.MaxRate.String(), In: adminDirection(s.In), Out: adminDirection(s.Out), Names: namesOf(s), RefusedTargets: s.Refused,
	}
	for _, at := range h.Targets {
		a.Targets = append(a.Targets, admin.TrunkTarget{
			Address: at.Address, State: at.State, Reason: at.Reason, Since: at.Since,
			Probes: at.Probes, Failures: at.Failures, RoundTripMS: at.RoundTrip.Seconds() * 1000, Next: at.Next,
		})
	}
	return a
}

// namesOf are the targets that are looked up.
func namesOf(s trunk.Status) []admin.TrunkName {
	var list []admin.TrunkName
	for _, n := range s.Names {
		list = append(list, admin.TrunkName{Target: n.Target, State: string(n.State), Text: n.String()})
	}
	return list
}

func adminDirection(s trunk.DirectionStat) admin.TrunkDirection {
	return admin.TrunkDirection{
		Active: s.Active, Attempts: s.Attempts, Answers: s.Answers, Failures: s.Failures, Outcomes: s.Outcomes, Refused: s.Refused,
		Recent: admin.TrunkWindow(s.Window),
	}
}

func (d *daemon) groupStatus() []admin.GroupStatus {
	var list []admin.GroupStatus
	for _, g := range d.trunks().Groups() {
		a := admin.GroupStatus{Name: g.Name, Strategy: g.Strategy, Adaptive: g.Adaptive, Fallback: g.Fallback}
		for _, m := range g.Members {
			a.Members = append(a.Members, admin.GroupMember(m))
		}
		list = append(list, a)
	}
	return list
}

// setTrunk does what an operator wants of a trunk. It holds over reloads until the config
// says something else than it did.
func (d *daemon) setTrunk(name, state string) (admin.TrunkStatus, error) {
	t := d.trunks().Trunk(name)
	if t == nil {
		return admin.TrunkStatus{}, fmt.Errorf("trunk %.63q: %w", name, admin.ErrUnknownTrunk)
	}
	if err := t.Administer(state); err != nil {
		return admin.TrunkStatus{}, err
	}
	d.log.Info("an operator changed the state of a trunk", "trunk", name, "state", state)
	return adminTrunk(t), nil
}

// adminReload has a reload in the API's words.
func (d *daemon) adminReload(o admin.ReloadOrder) (admin.Reload, error) {
	changes, fingerprint, err := d.reload(o.DryRun, o.Fingerprint)
	return admin.Reload{Changes: adminChanges(changes), Fingerprint: fingerprint}, err
}

func adminChanges(changes []config.Change) []admin.Change {
	list := make([]admin.Change, len(changes))
	for i, c := range changes {
		list[i] = admin.Change{Path: c.Path, Old: c.Old, New: c.New, Effect: c.Effect, Text: c.String()}
	}
	return list
}

// trunkMetrics are for Prometheus, of the trunks in the config alone.
func (d *daemon) trunkMetrics() []metrics.Trunk {
	var list []metrics.Trunk
	for _, t := range d.trunks().All() {
		s, h := t.Status(), t.Health()
		m := metrics.Trunk{
			Name: s.Name, Realm: s.Realm, Kind: s.Kind, InService: t.InService(), State: s.State, Changes: h.Changes,
			MaxCalls: s.MaxCalls, In: trunkDirection(s.In), Out: trunkDirection(s.Out),
		}
		if every := s.MaxRate.Every(); every > 0 {
			m.MaxRate = 1 / every.Seconds()
		}
		for _, at := range h.Targets {
			m.Targets = append(m.Targets, metrics.TrunkTarget{
				Address: at.Address.String(), Alive: at.State != trunk.OutOfService, RoundTrip: at.RoundTrip.Seconds(), Failures: at.Failures,
			})
		}
		list = append(list, m)
	}
	return list
}

// groupMetrics are what the members of each group get.
func (d *daemon) groupMetrics() []metrics.GroupMember {
	var list []metrics.GroupMember
	for _, g := range d.trunks().Groups() {
		for _, m := range g.Members {
			list = append(list, metrics.GroupMember{Group: g.Name, Trunk: m.Trunk, Share: m.Share / 100, Multiplier: float64(m.Multiplier) / 1000})
		}
	}
	return list
}

func trunkDirection(s trunk.DirectionStat) metrics.TrunkDirection {
	d := metrics.TrunkDirection{Active: s.Active, Attempts: s.Attempts, Answers: s.Answers, Failures: s.Failures, Outcomes: s.Outcomes, Refused: s.Refused}
	for _, n := range s.Window.Classes {
		d.Recent.Decided += n
	}
	d.Recent.ASR, d.Recent.NER = s.Window.ASR/100, s.Window.NER/100
	d.Recent.PDD, d.Recent.ACD = seconds(s.Window.PDDMS), seconds(s.Window.ACDMS)
	return d
}

func seconds(ms float64) float64 { return ms / float64(time.Second/time.Millisecond) }
