package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tandem-sbc/tandem/pkg/admin"
	"github.com/tandem-sbc/tandem/pkg/call"
)

func (c *cli) realms() *cobra.Command {
	return lister(c, "realms", "Realms' networks, or everything that one wants of the kernel against what is there", list[call.Realm]{
		noun: "realm", get: (*admin.Client).Realms, name: func(r call.Realm) string { return r.Name },
		all: c.showRealms, one: c.showRealm,
	})
}

// showRealms prints a line per realm. Drift are the objects that are not as wanted, of
// all; leaks the packets that had no business there.
func (c *cli) showRealms(realms []call.Realm) error {
	t := newTable(c.stdout)
	t.row("REALM", "STATE", "AGE", "VRF", "ADDRESS", "TUNNEL", "DRIFT", "REPAIRS", "LEAKS")
	var why reasons
	for _, r := range realms {
		t.row(r.Name, r.State, c.age(r.Since), r.VRF, r.Address.String(), exitOf(r), drift(r), count(r.Repairs), count(sum(r.Leaks)))
		why.add(r.Name, r.State, r.Reason)
	}
	return t.flush(why...)
}

// exitOf is the tunnel that a realm's traffic leaves by. A realm whose tunnels are all
// down is not mistaken for one that has none.
func exitOf(r call.Realm) string {
	switch {
	case r.Tunnel != "":
		return r.Tunnel
	case r.Namespace != "":
		return "NONE UP"
	}
	return ""
}

func drift(r call.Realm) string {
	off := 0
	for _, o := range r.Objects {
		if o.State != call.ObjectOK {
			off++
		}
	}
	switch {
	case len(r.Objects) == 0:
		return ""
	case off == 0:
		return "0"
	}
	return fmt.Sprintf("%d of %d", off, len(r.Objects))
}

// showRealm prints all that is known of one, and each of its objects. What one is
// instead of what it should be stands below it, so that a difference can be seen.
func (c *cli) showRealm(r call.Realm) error {
	t := newTable(c.stdout)
	t.row("realm", fmt.Sprintf("%s, number %d", r.Name, r.Number))
	t.row("state", lasting(r.State, c.age(r.Since)))
	if r.Reason != "" {
		t.row("reason", r.Reason)
	}
	t.row("network", r.Network)
	t.row("address", r.Address.String())
	if r.VRF != "" {
		t.row("vrf", fmt.Sprintf("%s, table %d", r.VRF, r.Table))
	}
	if r.Namespace != "" {
		t.row("namespace", r.Namespace)
		t.row("tunnel", exitOf(r))
	}
	t.row("repairs", count(r.Repairs))
	t.row("leaks", orNone(tally(r.Leaks)))
	if err := t.flush(); err != nil || len(r.Objects) == 0 {
		return err
	}
	if _, err := fmt.Fprintln(c.stdout); err != nil {
		return printed(err)
	}
	t = newTable(c.stdout)
	t.row("KIND", "NAME", "STATE", "WANT")
	for _, o := range r.Objects {
		t.row(o.Kind, o.Name, o.State, o.Want)
		if o.State == call.ObjectOK {
			continue
		}
		if o.Have != "" {
			t.row("", " ", "  has", o.Have)
		}
		if o.Problem != "" {
			t.row("", " ", "  problem", o.Problem)
		}
	}
	return t.flush()
}
