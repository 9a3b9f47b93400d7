package app

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/config"
	"github.com/tandem-sbc/tandem/pkg/datapath"
	"github.com/tandem-sbc/tandem/pkg/realm"
	"github.com/tandem-sbc/tandem/pkg/relay"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

// buildEngine opens the kernel engine, or the user-space one where the config asks
// for it or, with "auto", the kernel cannot; the latter is said once, loudly.
func (d *daemon) buildEngine(attached []realm.Attachment) ([]task, error) {
	if d.cfg.Engine != call.EngineUserspace {
		tasks, err := d.buildKernelEngine(attached)
		if err == nil {
			return tasks, nil
		}
		// A device that is taken is not a kernel that cannot: two gateways would share it.
		if d.cfg.Engine == call.EngineKernel || errors.Is(err, datapath.ErrBusy) {
			return nil, fmt.Errorf("kernel media engine: %w", err)
		}
		d.engineReason = err.Error()
		d.log.Error("MEDIA RUNS IN USER SPACE: the kernel engine cannot be used, so every packet costs system calls", "reason", d.engineReason)
	} else {
		d.engineReason = "the config says engine: userspace"
	}
	if err := d.clearKernel(attached); err != nil {
		return nil, err
	}
	return nil, d.buildRelay(attached)
}

func (d *daemon) buildKernelEngine(attached []realm.Attachment) ([]task, error) {
	if err := datapath.Supported(); err != nil {
		return nil, err
	}
	neighbours, err := realm.NewNeighbours(d.networkList, d.log)
	if err != nil {
		return nil, err
	}
	e, err := datapath.Open(datapath.Config{
		Realms: kernelRealms(d.cfg, d.trunks(), attached), MaxCalls: d.cfg.MaxCalls, NextHops: neighbours, Guard: datapath.Guard(d.cfg.Guard),
		Pins: d.cfg.PinFolder(), Log: d.log,
	})
	if err != nil {
		return nil, err
	}
	d.engine, d.engineName, d.kernel = e, call.EngineKernel, e
	d.onClose("kernel media engine", e.Close)
	if d.adopted = e.Adopted(); len(d.adopted) > 0 {
		d.log.Warn("calls of a former process are unknown, but their media goes on until it falls silent", "flows", len(d.adopted))
	}
	return []task{{"neighbours", neighbours.Run}, {"devices", d.followDevices}}, nil
}

// kernelRealms are the realms as the kernel engine needs to know them.
func kernelRealms(cfg *config.Config, trunks *trunk.Table, attached []realm.Attachment) []datapath.Realm {
	realms := make([]datapath.Realm, len(cfg.Realms))
	for i, r := range cfg.Realms {
		realms[i] = datapath.Realm{
			Number: realmNumber(i), Points: points(attached[i]),
			Addr: r.Address.Addr(), Media: r.MediaPorts, SIPPort: r.SIPPort, Peers: trunks.Peers(r.Name),
			Room: 2 * trunks.MorePeers(r.Name), // those that have left by DNS are known for a while
		}
	}
	return realms
}

func points(at realm.Attachment) []datapath.Point {
	list := make([]datapath.Point, len(at.Points))
	for i, p := range at.Points {
		list[i] = datapath.Point(p)
	}
	return list
}

// clearKernel takes away what a former process with the kernel engine left in the kernel:
// its programs would drop all media that they have no flow for, before our sockets see it. Those
// that belong to pins of another name, or that this process cannot see, are an error.
func (d *daemon) clearKernel(attached []realm.Attachment) error {
	if pins := d.cfg.PinFolder(); pins != "" {
		found, err := datapath.Unload(pins)
		switch {
		case errors.Is(err, datapath.ErrNoBPFFS), errors.Is(err, fs.ErrPermission): // the devices tell
			d.log.Info("it cannot be seen whether a former process left something in the kernel", "pins", pins, "reason", err)
		case err != nil:
			return fmt.Errorf("clear %s, whose programs would drop the media of the user-space engine: %w", pins, err)
		case found:
			d.log.Warn("programs and flows of a former process were taken out of the kernel", "pins", pins)
		}
	}
	var ifindexes []int
	for _, a := range attached {
		for _, p := range a.Points {
			ifindexes = append(ifindexes, p.Ifindex)
		}
	}
	there, err := datapath.Attached(ifindexes...)
	if errors.Is(err, fs.ErrPermission) {
		d.log.Warn("it cannot be seen whether a program drops the media of the user-space engine", "reason", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for programs of the kernel engine: %w", err)
	}
	if len(there) > 0 {
		return fmt.Errorf("a program of the kernel engine is attached to %s (%s) and would drop the media of the user-space engine: "+
			"take it away with \"tandemd --unload\" and the config that it was started with, or with \"rm -r\" of its pins below /sys/fs/bpf",
			there[0].Device, there[0].Hook)
	}
	return nil
}

func (d *daemon) buildRelay(attached []realm.Attachment) error {
	realms := make([]relay.Realm, len(d.cfg.Realms))
	for i, a := range attached {
		realms[i] = relay.Realm{Number: realmNumber(i), Device: a.Device}
	}
	e, err := relay.New(relay.Config{Realms: realms, Log: d.log})
	if err != nil {
		return fmt.Errorf("user-space media engine: %w", err)
	}
	d.engine, d.engineName = e, call.EngineUserspace
	d.onClose("user-space media engine", e.Close)
	return nil
}
