package app

import (
	"fmt"

	"github.com/tandem-sbc/tandem/pkg/admin"
	"github.com/tandem-sbc/tandem/pkg/b2bua"
	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/datapath"
	"github.com/tandem-sbc/tandem/pkg/explain"
	"github.com/tandem-sbc/tandem/pkg/metrics"
	"github.com/tandem-sbc/tandem/pkg/sipua"
)

// adminSources are what the API shows.
func (d *daemon) adminSources() admin.Sources {
	return admin.Sources{
		Version: d.version,
		Started: d.started,
		Status:  d.status,
		Calls:   d.gateway.Calls,
		Trunks:  d.trunkStatus, Groups: d.groupStatus, SetTrunk: d.setTrunk, Reload: d.adminReload,
		Route: func(q call.Query) call.Decision {
			p := d.plan.Load()
			return explain.Call(p.trunks, p.routes, q)
		},
		Realms:  d.realmStatus,
		Tunnels: d.tunnelStatus,
		Log:     d.log,
	}
}

func (d *daemon) status() (admin.Status, error) {
	engine, err := d.engine.Stats()
	if err != nil {
		return admin.Status{}, fmt.Errorf("media engine: %w", err)
	}
	totals := d.gateway.Totals()
	s := admin.Status{
		Node: d.cfg.Node, State: admin.Running, Engine: engine, EngineReason: d.engineReason, Realms: d.realmNames(), Kernel: d.kernelStatus(),
		Calls: admin.Calls{
			Active: totals.Active, Total: uint64(totals.Total), Answered: uint64(totals.Answered), Failed: uint64(totals.Failed),
		},
		Resources: admin.Resources{PortsInUse: d.media.PortsInUse(), Flows: engine.Flows},
	}
	if d.gateway.Draining() {
		s.State = admin.Draining
	}
	for _, stack := range d.stacks.all() {
		s.Resources.Transactions += stack.Stats().Transactions
	}
	return s, nil
}

// kernelStatus is nil for the user-space engine.
func (d *daemon) kernelStatus() *admin.Kernel {
	if d.kernel == nil {
		return nil
	}
	k := &admin.Kernel{ABI: datapath.ABI, Adopted: len(d.adopted)}
	for _, a := range d.kernel.Attachments() {
		k.Attachments = append(k.Attachments, admin.Attachment{Device: a.Device, Hook: a.Hook, Mode: a.Mode, Pinned: a.Pinned})
		if a.Pinned {
			k.Pins = d.cfg.PinFolder()
		}
	}
	return k
}

// realmNames are in the order of realmNumber.
func (d *daemon) realmNames() []string {
	names := make([]string, len(d.cfg.Realms))
	for i, r := range d.cfg.Realms {
		names[i] = r.Name
	}
	return names
}

// metricsSources are what Prometheus scrapes.
func (d *daemon) metricsSources() metrics.Sources {
	return metrics.Sources{
		Node: d.cfg.Node, Version: d.version, Realms: d.realmNames(),
		Engine: d.engine.Stats,
		Attachments: func() []metrics.Attachment {
			if d.kernel == nil {
				return nil
			}
			var list []metrics.Attachment
			for _, a := range d.kernel.Attachments() {
				list = append(list, metrics.Attachment{Device: a.Device, Hook: a.Hook, Mode: a.Mode})
			}
			return list
		},
		Media: func() ([]metrics.TrunkMedia, error) { return trunkMedia(d.gateway) },
		Ended: d.ended,
		Calls: func() metrics.Calls {
			t := d.gateway.Totals()
			return metrics.Calls{Active: t.Active, Total: uint64(t.Total), Answered: uint64(t.Answered), Failed: uint64(t.Failed)}
		},
		Trunks: d.trunkMetrics, Groups: d.groupMetrics,
		SIP: func() []metrics.SIP {
			var list []metrics.SIP
			all := d.stacks.all()
			for _, r := range d.cfg.Realms {
				if stack := all[r.Name]; stack != nil {
					list = append(list, sipMetrics(r.Name, stack.Stats()))
				}
			}
			return list
		},
		PortsInUse: d.media.PortsInUse,
		Networks:   d.realmStatus,
		Tunnels:    d.tunnelStatus,
		CDR: func() metrics.CDR {
			s := d.records.Stats()
			return metrics.CDR{Written: s.Written, WriteErrors: s.WriteErrors, Dropped: s.Dropped, Queued: s.Queued, Causes: s.Causes}
		},
		Draining: d.gateway.Draining,
		Log:      d.log,
	}
}

func trunkMedia(gateway *b2bua.Gateway) ([]metrics.TrunkMedia, error) {
	trunks, err := gateway.Media()
	list := make([]metrics.TrunkMedia, len(trunks))
	for i, t := range trunks {
		live := make([]metrics.LegQuality, len(t.Live))
		for j, leg := range t.Live {
			live[j] = metrics.LegQuality(leg)
		}
		list[i] = metrics.TrunkMedia{Trunk: t.Trunk, Realm: t.Realm, Counters: metrics.MediaCounters(t.Counters), Live: live}
	}
	return list, err
}

func sipMetrics(realm string, s sipua.Stats) metrics.SIP {
	m := metrics.SIP{
		Realm: realm, Requests: make(map[string]metrics.InOut, len(s.Requests)),
		Retransmissions: metrics.InOut(s.Retransmissions),
		UnknownSources:  s.UnknownSources, ParseErrors: s.ParseErrors, Strays: s.Strays, Oversize: s.Oversize,
		SendErrors: s.SendErrors, ReadErrors: s.ReadErrors,
		Legs: s.Legs, Transactions: s.Transactions,
	}
	for method, c := range s.Requests {
		m.Requests[method] = metrics.InOut(c)
	}
	for class, c := range s.Responses {
		m.Responses[class] = metrics.InOut(c)
	}
	return m
}
