package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/tandem-sbc/tandem/tests/netlab"
)

// carrierSites are what the demo and the lab of tunnels have: a platform and two carriers with
// the same addresses, each behind its tunnel on its VLAN, the first with a backup.
func carrierSites() []netlab.Site {
	return []netlab.Site{netlab.SiteOf(netlab.Platform), netlab.SiteOf(netlab.CarrierA), netlab.SiteOf(netlab.CarrierB)}
}

// upCarriers makes the network of the sites, with a strongSwan at each tunnelled one that
// accepts the gateway.
func upCarriers(ctx context.Context, sites []netlab.Site) (_ *netlab.Lab, err error) {
	lab, err := netlab.Up(ctx, netlab.Trunked(sites))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lab.Close())
		}
	}()
	for _, s := range sites {
		if len(s.Uplinks) == 0 {
			continue
		}
		if err := lab.Terminate(s); err != nil {
			return nil, err
		}
		peer, err := lab.Charon(s.Name)
		if err != nil {
			return nil, err
		}
		if err := peer.Start(ctx); err != nil {
			return nil, err
		}
		if err := peer.Load(ctx, s.Connections()...); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, peer.Log())
		}
	}
	return lab, nil
}

// innerDevices are the interfaces of a site that calls pass in clear.
func innerDevices(s netlab.Site) []string {
	if len(s.Uplinks) == 0 {
		return []string{netlab.PeerDevice}
	}
	devices := make([]string, len(s.Uplinks))
	for i := range devices {
		devices[i] = netlab.TunnelDevice(i)
	}
	return devices
}
