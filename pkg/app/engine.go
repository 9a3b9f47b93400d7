package app

import (
	"errors"
	"fmt"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/datapath"
	"github.com/tandem-sbc/tandem/pkg/realm"
	"github.com/tandem-sbc/tandem/pkg/relay"
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
	return nil, d.buildRelay()
}

func (d *daemon) buildKernelEngine(attached []realm.Attachment) ([]task, error) {
	if err := datapath.Supported(); err != nil {
		return nil, err
	}
	neighbours, err := realm.NewNeighbours(d.cfg.Realms, d.log)
	if err != nil {
		return nil, err
	}
	realms := make([]datapath.Realm, len(d.cfg.Realms))
	for i, r := range d.cfg.Realms {
		realms[i] = datapath.Realm{
			Number: realmNumber(i), Ifindex: attached[i].Ifindex, VLAN: r.VLAN, Media: r.MediaPorts, Addr: r.Address.Addr(),
		}
	}
	e, err := datapath.Open(datapath.Config{Realms: realms, MaxCalls: d.cfg.MaxCalls, NextHops: neighbours, Log: d.log})
	if err != nil {
		return nil, err
	}
	d.engine, d.engineName = e, call.EngineKernel
	d.onClose("kernel media engine", e.Close)
	return []task{{"neighbours", neighbours.Run}}, nil
}

func (d *daemon) buildRelay() error {
	realms := make([]relay.Realm, len(d.cfg.Realms))
	for i, r := range d.cfg.Realms {
		realms[i] = relay.Realm{Number: realmNumber(i), Device: r.Device()}
	}
	e, err := relay.New(relay.Config{Realms: realms, Log: d.log})
	if err != nil {
		return fmt.Errorf("user-space media engine: %w", err)
	}
	d.engine, d.engineName = e, call.EngineUserspace
	d.onClose("user-space media engine", e.Close)
	return nil
}
