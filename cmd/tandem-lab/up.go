package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tandem-sbc/tandem/tests/netlab"
)

// stopGrace is what the daemon gets to drain and end in the lab.
const stopGrace = 20 * time.Second

func upCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Bring the lab up and keep it until Ctrl-C",
		Args:  cobra.NoArgs,
	}
	daemon, engine := daemonFlag(cmd), engineFlag(cmd)
	tunnels := cmd.Flags().Bool("tunnels", false, "the demo's network: carriers on VLANs behind tunnels (needs a kernel that has them; `tandem-lab vm` brings one)")
	router := cmd.Flags().Bool("router", false, "a plain router in the gateway's place, to try peers against each other")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *tunnels {
			return upTunnels(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), *daemon, string(*engine))
		}
		if *router {
			*daemon = ""
		}
		return up(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), *daemon, string(*engine))
	}
	return cmd
}

// up runs the lab until ctx ends; without a daemon the gateway is a router.
func up(ctx context.Context, out, log io.Writer, daemon, engine string) (err error) {
	if _, err := sweep(out); err != nil {
		return err
	}
	lab, err := netlab.Up(ctx, netlab.Default(daemon == ""))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()

	ended := make(<-chan struct{})
	var gateway *netlab.Daemon
	if daemon != "" {
		gateway, err = lab.StartGateway(ctx, daemon, netlab.GatewayOptions{Engine: engine}, log)
		if err != nil {
			return err
		}
		ended = gateway.Done()
	}
	describe(out, lab, daemon)
	return hold(ctx, out, gateway, ended)
}

// hold keeps a lab up until ctx ends, and then ends its gateway, if there is one.
func hold(ctx context.Context, out io.Writer, gateway *netlab.Daemon, ended <-chan struct{}) error {
	select {
	case <-ctx.Done():
		fmt.Fprintln(out, "\ntaking the lab down")
		if gateway != nil {
			return gateway.Stop(syscall.SIGTERM, stopGrace)
		}
		return nil
	case <-ended:
		return fmt.Errorf("the daemon ended: %w", gateway.Wait())
	}
}

func describe(out io.Writer, lab *netlab.Lab, daemon string) {
	fmt.Fprintf(out, "lab %s is up\n\n", lab.ID())
	for _, r := range netlab.Realms() {
		fmt.Fprintf(out, "  %-10s %-13v — %v gateway (%s)\n", r.Name, r.Peer, r.Gateway, r.Device)
	}
	fmt.Fprintf(out, "\nrun something in a host:\n  ip netns exec %s bash\n", lab.Namespace(netlab.Platform))
	carrier := netlab.RealmOf(netlab.CarrierA)
	target := carrier.Peer
	if daemon != "" {
		target = netlab.RealmOf(netlab.Platform).Gateway
	}
	fmt.Fprintf(out, "\na call from the platform to carrier-a (each in a terminal of its own):\n")
	fmt.Fprintf(out, "  ip netns exec %s sipp -sn uas -i %v\n", lab.Namespace(netlab.CarrierA), carrier.Peer)
	fmt.Fprintf(out, "  ip netns exec %s sipp -sn uac -i %v -s %s123 -m 1 %v\n",
		lab.Namespace(netlab.Platform), netlab.RealmOf(netlab.Platform).Peer, netlab.PrefixA, target)
	if daemon != "" {
		fmt.Fprintf(out, "\nsee what the gateway sees:\n  %s --socket %s status\n", filepath.Join(filepath.Dir(daemon), "tandem"), lab.AdminSocket())
		fmt.Fprintf(out, "\nits config and records are in %s\n", lab.Dir())
	}
	fmt.Fprintln(out, "\nCtrl-C takes it all down")
}

// upTunnels runs the lab of carriers behind tunnels until ctx ends.
func upTunnels(ctx context.Context, out, log io.Writer, daemon, engine string) (err error) {
	if _, err := sweep(out); err != nil {
		return err
	}
	lack, err := netlab.TunnelsLack()
	if err != nil {
		return err
	}
	if len(lack) > 0 {
		return fmt.Errorf("this machine lacks %s: try `tandem-lab vm bin/tandem-lab up --tunnels`", strings.Join(lack, ", "))
	}
	sites := carrierSites()
	lab, err := upCarriers(ctx, sites)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	gateway, err := lab.StartTrunkGateway(ctx, daemon, netlab.TrunkOptions{Sites: sites, Engine: engine}, log)
	if err != nil {
		return err
	}
	describeCarriers(out, lab, sites)
	fmt.Fprintf(out, "\nsee what the gateway sees:\n  %s --socket %s tunnels\n", filepath.Join(filepath.Dir(daemon), "tandem"), lab.AdminSocket())
	fmt.Fprintf(out, "\nits config and records are in %s\n\nCtrl-C takes it all down\n", lab.Dir())
	return hold(ctx, out, gateway, gateway.Done())
}

// describeCarriers says who is where.
func describeCarriers(out io.Writer, lab *netlab.Lab, sites []netlab.Site) {
	fmt.Fprintf(out, "lab %s: the gateway's trunk carries\n", lab.ID())
	for _, s := range sites {
		if len(s.Uplinks) == 0 {
			fmt.Fprintf(out, "  %-10s %-11v — %-12v on VLAN %d, in clear\n", s.Name, s.Peer, s.Gateway, s.VLAN)
		}
		for _, u := range s.Uplinks {
			fmt.Fprintf(out, "  %-10s %-11v — %-12v on VLAN %d, in tunnel %s from %v to %v\n",
				s.Name, s.Peer, s.Gateway, u.VLAN, u.Name, u.Gateway.Addr(), u.Peer.Addr())
		}
	}
}
