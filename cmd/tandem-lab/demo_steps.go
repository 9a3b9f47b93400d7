package main

import (
	"context"
	"fmt"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/tests/netlab"
)

// ready waits until all tunnels are up and all trunks in service.
func (d *demo) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for start := time.Now(); ; {
		left, err := d.missing(ctx)
		if err != nil {
			return err
		}
		if left == "" {
			fmt.Fprintf(d.out, "all tunnels are up and all trunks in service after %.1f s\n", time.Since(start).Seconds())
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", left, ctx.Err())
		case <-tick.C:
		}
	}
}

// missing says what keeps the gateway from its first call, or nothing.
func (d *demo) missing(ctx context.Context) (string, error) {
	tunnels, err := d.api.Tunnels(ctx)
	if err != nil {
		return "", err
	}
	for _, t := range tunnels {
		if t.State != call.TunnelUp {
			return fmt.Sprintf("tunnel %s is %s: %s", t.Name, t.State, t.Reason), nil
		}
	}
	trunks, err := d.api.Trunks(ctx)
	if err != nil {
		return "", err
	}
	for _, t := range trunks {
		if t.State != "in-service" {
			return fmt.Sprintf("trunk %s is %s: %s", t.Name, t.State, t.Reason), nil
		}
	}
	return "", nil
}

// cutPrimary makes the primary tunnel of carrier-a lose everything.
func (d *demo) cutPrimary() error {
	d.cut = time.Now()
	if err := d.lab.Cut(netlab.CarrierA, netlab.Device(0)); err != nil {
		return err
	}
	d.view.note("%4.0f s  CUT: the cable of tunnel %s loses every packet", time.Since(d.started).Seconds(), primary().Name)
	return nil
}

// mendPrimary lets its packets pass again.
func (d *demo) mendPrimary() error {
	if err := d.lab.Mend(netlab.CarrierA, netlab.Device(0)); err != nil {
		return err
	}
	d.mended = time.Now()
	d.view.note("%4.0f s  MENDED: the cable of tunnel %s", time.Since(d.started).Seconds(), primary().Name)
	return nil
}

// primary is the tunnel that is cut.
func primary() netlab.Uplink { return netlab.SiteOf(netlab.CarrierA).Uplinks[0] }
