package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tandem-sbc/tandem/pkg/admin"
	"github.com/tandem-sbc/tandem/pkg/call"
)

// keyingIKE is the keying of tunnels whose keys are negotiated.
const keyingIKE = "ike"

func (c *cli) tunnels() *cobra.Command {
	return lister(c, "tunnels", "IPsec tunnels with their state and traffic, or everything of one", list[call.Tunnel]{
		noun: "tunnel", get: (*admin.Client).Tunnels, name: func(t call.Tunnel) string { return t.Name },
		all: c.showTunnels, one: c.showTunnel,
	})
}

// showTunnels prints a line per tunnel, those of a realm by rank. Age is that of the
// state; IKE is the group in use; in and out are what was decrypted and encrypted.
func (c *cli) showTunnels(tunnels []call.Tunnel) error {
	t := newTable(c.stdout)
	t.row("TUNNEL", "REALM", "STATE", "ACTIVE", "AGE", "REMOTE", "IKE", "REKEYS", "IN", "OUT", "ERRORS")
	var why reasons
	for _, n := range tunnels {
		t.row(n.Name, n.Realm, n.State, yes(n.Active), c.age(n.Since), n.Remote.String(), group(n),
			count(n.IKERekeys+n.ChildRekeys+n.KeyChanges), size(n.In.Bytes), size(n.Out.Bytes), count(sum(n.Errors)))
		why.add(n.Name, fmt.Sprintf("%s (%s)", n.State, n.Cause), reason(n))
	}
	return t.flush(why...)
}

// reason is the sentence without the names that stand beside it already.
func reason(t call.Tunnel) string {
	return strings.TrimPrefix(t.Reason, fmt.Sprintf("realm %s, tunnel %s: ", t.Realm, t.Name))
}

func yes(is bool) string {
	if is {
		return "yes"
	}
	return "no"
}

// group is the last part of the IKE proposal. The others hardly ever differ, and the
// whole is too long for a column.
func group(t call.Tunnel) string {
	if t.Keying != keyingIKE {
		return t.Keying
	}
	return t.IKE[strings.LastIndex(t.IKE, "/")+1:]
}

// showTunnel prints all that is known of one, a line each.
func (c *cli) showTunnel(n call.Tunnel) error {
	t := newTable(c.stdout)
	t.row("tunnel", n.Name)
	t.row("realm", fmt.Sprintf("%s, rank %d (%s)", n.Realm, n.Rank, role(n.Rank)))
	t.row("state", lasting(n.State, c.age(n.Since)))
	if n.Reason != "" {
		t.row("reason", reason(n))
	}
	if n.Cause != "" {
		t.row("cause", n.Cause)
	}
	t.row("active", map[bool]string{true: "yes: the realm's traffic leaves by it", false: "no"}[n.Active])
	t.row("device", n.Device)
	t.row("outer", fmt.Sprintf("%s to %s", n.Local, n.Remote))
	t.row("keying", n.Keying)
	if n.Keying == keyingIKE {
		t.row("ike", negotiated(n.IKE, c.age(n.Established)))
	}
	t.row("esp", n.ESP)
	t.row("rekeys", orNone(tally(map[string]uint64{"ike": n.IKERekeys, "child": n.ChildRekeys, "manual": n.KeyChanges})))
	t.row("in", traffic(n.In))
	t.row("out", traffic(n.Out))
	t.row("dropped", orNone(tally(n.Errors)))
	t.row("failures", orNone(tally(n.Failures)))
	t.row("dpd failures", count(n.DPDFailures))
	t.row("monitor", watched(n.Monitor))
	return t.flush()
}

func role(rank int) string {
	if rank == 1 {
		return "primary"
	}
	return "backup"
}

// lasting is a state and how long it has been one.
func lasting(state, age string) string {
	if state == "" || age == "" {
		return state
	}
	return state + " for " + age
}

// negotiated is a proposal in use and how long ago it came into use.
func negotiated(proposal, age string) string {
	if proposal == "" || age == "" {
		return proposal
	}
	return proposal + ", " + age + " old"
}

func traffic(n call.TunnelTraffic) string {
	return fmt.Sprintf("%d packets, %s", n.Packets, size(n.Bytes))
}

func orNone(tally string) string {
	if tally == "" {
		return "none"
	}
	return tally
}

// watched says what the echo requests through a tunnel say.
func watched(m *call.TunnelMonitor) string {
	switch {
	case m == nil:
		return "none"
	case !m.Answers:
		return fmt.Sprintf("%s has never answered: its silence proves nothing", m.Target)
	case m.Missed > 0:
		return fmt.Sprintf("%s: the last %d requests had no answer", m.Target, m.Missed)
	}
	return fmt.Sprintf("%s answers in %.1f ms", m.Target, m.RTTMS)
}
