package app

import (
	"context"
	"io"
	"net/netip"
	"time"

	"github.com/tandem-sbc/tandem/pkg/admin"
	"github.com/tandem-sbc/tandem/pkg/b2bua"
	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/cdr"
	"github.com/tandem-sbc/tandem/pkg/datapath"
	"github.com/tandem-sbc/tandem/pkg/ipsec"
	"github.com/tandem-sbc/tandem/pkg/media"
	"github.com/tandem-sbc/tandem/pkg/metrics"
	"github.com/tandem-sbc/tandem/pkg/realm"
)

// flushTimeout bounds the writing of the last records at the end.
const flushTimeout = 10 * time.Second

// engine is a media engine as the daemon holds it.
type engine interface {
	media.Engine
	io.Closer
	Stats() (call.EngineStats, error)
}

// kernelSide is what the daemon tells the kernel's engine, and asks it.
type kernelSide interface {
	// Relist replaces who is known and who is denied; Update follows the realms' devices.
	Relist(realms []datapath.Realm, deny []netip.Prefix) error
	Update(realms []datapath.Realm) error
	Attachments() []datapath.Attachment
}

// parts of the daemon that others ask.
type parts struct {
	engine engine
	// kernel is the engine if it is the kernel's, else nil; adopted are the flows of a former
	// process that it found there.
	kernel  kernelSide
	adopted []call.FlowKey
	media   *media.Media
	records *cdr.Writer
	ended   *metrics.Ended
	gateway *b2bua.Gateway
	stacks  *stacks
	// networkList are the realms as networks makes them; bells ring when one has changed.
	networkList []realm.Network
	// locked says that nobody else is this node.
	locked   bool
	networks *realm.Networks
	bells    bells
	// renamed is told when DNS leads a trunk elsewhere.
	renamed chan struct{}
	// tunnels is nil if no realm has any.
	tunnels *ipsec.Supervisor
	outages *outages
}

// build opens everything in the order in which one part needs the other. What it
// opened before an error is closed by the caller.
func (d *daemon) build() ([]task, error) {
	tasks, err := d.buildNetworks()
	if err != nil {
		return nil, err
	}
	d.checkPorts()
	first, err := newPlan(d.cfg, nil)
	if err != nil {
		return nil, err
	}
	d.plan.Store(first)
	attached := d.networks.Attachments()
	tasks = append(tasks, d.buildNames(attached)...)
	engine, err := d.buildEngine(attached)
	if err != nil {
		return nil, err
	}
	tasks = append(tasks, engine...)
	d.media, err = media.New(media.Config{
		Realms: mediaRealms(d.cfg.Realms), Quarantine: d.cfg.Media.Quarantine, Engine: d.engine, Adopted: d.adopted, Log: d.log,
	})
	if err != nil {
		return nil, err
	}
	tasks = append(tasks, task{"media events", d.media.Run}, task{"leaks", d.watchLeaks})

	if d.records, err = cdr.Open(d.cfg.CDR, d.log); err != nil {
		return nil, err
	}
	d.onClose("call records", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
		defer cancel()
		return d.records.Close(ctx)
	})

	d.ended = metrics.NewEnded()
	d.stacks = newStacks()
	d.gateway = b2bua.New(b2bua.Config{
		Node: d.cfg.Node, Engine: d.engineName, MaxCalls: d.cfg.MaxCalls,
		Plan:  d.callPlan,
		Media: d.media, Dialer: d.stacks, Records: recorder{d.records, d.ended}, Log: d.log,
	})
	tunnels, err := d.buildTunnels()
	if err != nil {
		return nil, err
	}
	tasks = append(tasks, tunnels...)
	tasks = append(tasks, task{"trunks", d.superviseTrunks}, task{"weights of trunks", d.adaptTrunks}, task{"former trunks", d.followLeavers})
	for i, n := range d.networkList {
		stack, err := d.buildStack(n, attached[i])
		if err != nil {
			return nil, err
		}
		tasks = append(tasks, stack)
	}
	return d.buildSight(tasks)
}

// recorder keeps a call's record and counts it among the ended ones.
type recorder struct {
	*cdr.Writer
	ended *metrics.Ended
}

// Write implements b2bua.Recorder.
func (r recorder) Write(rec call.Record) {
	r.ended.Observe(rec)
	r.Writer.Write(rec)
}

// checkPorts warns of media ports that the kernel may give to any program.
func (d *daemon) checkPorts() {
	local, err := realm.ReadLocalPorts()
	if err != nil {
		d.log.Warn("it is not known which ports the kernel gives to other programs", "error", err)
		return
	}
	for _, r := range d.cfg.Realms {
		if n := local.Clash(r.MediaPorts); n > 0 {
			d.log.Warn("media ports may be given to other programs: move them out of net.ipv4.ip_local_port_range, "+
				"or put them into net.ipv4.ip_local_reserved_ports",
				"realm", r.Name, "media_ports", r.MediaPorts.String(), "ip_local_port_range", local.Range.String(), "ports", n)
		}
	}
}

// buildSight adds what shows the daemon to people and to Prometheus.
func (d *daemon) buildSight(tasks []task) ([]task, error) {
	server, err := admin.New(d.cfg.Admin, d.adminSources())
	if err != nil {
		return nil, err
	}
	d.onClose("admin API", server.Close)
	tasks = append(tasks, task{"admin API", server.Run})
	if d.cfg.Metrics.Address != "" {
		exporter, err := metrics.Listen(d.cfg.Metrics, d.metricsSources())
		if err != nil {
			return nil, err
		}
		d.onClose("metrics", exporter.Close)
		tasks = append(tasks, task{"metrics", exporter.Run})
	}
	return tasks, nil
}

func mediaRealms(realms []realm.Config) []media.Realm {
	list := make([]media.Realm, len(realms))
	for i, r := range realms {
		list[i] = media.Realm{Name: r.Name, Number: realmNumber(i), Addr: r.Address.Addr(), Ports: r.MediaPorts, DSCP: r.DSCP}
	}
	return list
}

// realmNumber is a realm's number in flow keys: its place in the config, from 1, so
// that the zero value is no realm.
func realmNumber(index int) uint16 { return uint16(index + 1) }
