package netlab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A site answers by the tunnel that it hears the gateway on, the primary first: hearing is a
// packet within heardWithin.
const (
	heardWithin = 700 * time.Millisecond
	heardEvery  = 100 * time.Millisecond
)

// carrierMTU of a site's tunnels.
const carrierMTU = 1300

// Terminate makes a tunnelled site's inner side: an xfrm interface per uplink, with the place
// of the uplink plus one as its interface id, and a route to the gateway by one of them. Until
// the lab is closed the route follows what is heard, as a carrier's router does that tracks
// its tunnels. Each interface is in a VRF, so that an echo request is answered by the tunnel
// it came from.
func (l *Lab) Terminate(s Site) error {
	h, err := netlink.NewHandleAt(l.hosts[s.Name])
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	err = func() error {
		if err := l.Do(s.Name, carrierSysctls); err != nil {
			return err
		}
		for i := range s.Uplinks {
			if err := addTunnel(h, s, i); err != nil {
				return fmt.Errorf("tunnel %s: %w", s.Uplinks[i].Name, err)
			}
		}
		return routeBy(h, s, 0)
	}()
	if err != nil {
		h.Close()
		return fmt.Errorf("site %s: %w", s.Name, err)
	}
	l.follow(func(ctx context.Context) {
		defer h.Close()
		follow(ctx, h, s)
	})
	return nil
}

// carrierSysctls let sockets of the host be reached by all its VRFs.
func carrierSysctls() error {
	var errs []error
	for path, value := range map[string]string{
		"net/ipv4/udp_l3mdev_accept":      "1",
		"net/ipv4/tcp_l3mdev_accept":      "1",
		"net/ipv4/raw_l3mdev_accept":      "1",
		"net/ipv4/conf/all/rp_filter":     "0",
		"net/ipv4/conf/default/rp_filter": "0",
	} {
		errs = append(errs, os.WriteFile("/proc/sys/"+path, []byte(value), 0))
	}
	return errors.Join(errs...)
}

func addTunnel(h *netlink.Handle, s Site, uplink int) error {
	outer, err := h.LinkByName(Device(uplink))
	if err != nil {
		return err
	}
	table := uint32(1000 + uplink)
	vrf := &netlink.Vrf{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("vrf%d", uplink)}, Table: table}
	x := &netlink.Xfrmi{
		LinkAttrs: netlink.LinkAttrs{Name: TunnelDevice(uplink), ParentIndex: outer.Attrs().Index, MTU: carrierMTU},
		Ifid:      uint32(uplink + 1),
	}
	for _, link := range []netlink.Link{vrf, x} {
		if err := h.LinkAdd(link); err != nil {
			return fmt.Errorf("%s: %w", link.Attrs().Name, err)
		}
	}
	if err := h.LinkSetMaster(x, vrf); err != nil {
		return fmt.Errorf("into its VRF: %w", err)
	}
	for _, link := range []netlink.Link{vrf, x} {
		if err := h.LinkSetUp(link); err != nil {
			return fmt.Errorf("%s up: %w", link.Attrs().Name, err)
		}
	}
	return replaceRoute(h, s, uplink, int(table))
}

// routeBy sends what the site's own sockets send by an uplink.
func routeBy(h *netlink.Handle, s Site, uplink int) error {
	return replaceRoute(h, s, uplink, unix.RT_TABLE_MAIN)
}

func replaceRoute(h *netlink.Handle, s Site, uplink, table int) error {
	device, err := h.LinkByName(TunnelDevice(uplink))
	if err != nil {
		return err
	}
	err = h.RouteReplace(&netlink.Route{
		LinkIndex: device.Attrs().Index, Dst: ipNet(netip.PrefixFrom(s.Gateway.Addr(), 32)), Src: s.Peer.AsSlice(),
		Scope: netlink.SCOPE_LINK, Table: table,
	})
	if err != nil {
		return fmt.Errorf("route to %v: %w", s.Gateway.Addr(), err)
	}
	return nil
}

// follow keeps the route of a site on the tunnel that the gateway is heard on.
func follow(ctx context.Context, h *netlink.Handle, s Site) {
	tick := time.NewTicker(heardEvery)
	defer tick.Stop()
	heard, packets, current := make([]time.Time, len(s.Uplinks)), make([]uint64, len(s.Uplinks)), 0
	for {
		var now time.Time
		select {
		case <-ctx.Done():
			return
		case now = <-tick.C:
		}
		for i := range s.Uplinks {
			link, err := h.LinkByName(TunnelDevice(i))
			if err != nil || link.Attrs().Statistics == nil {
				continue // somebody took it away: not heard
			}
			if n := link.Attrs().Statistics.RxPackets; n != packets[i] {
				packets[i], heard[i] = n, now
			}
		}
		for i := range s.Uplinks {
			if now.Sub(heard[i]) > heardWithin {
				continue
			}
			if i != current && routeBy(h, s, i) == nil {
				current = i
			}
			break
		}
	}
}
