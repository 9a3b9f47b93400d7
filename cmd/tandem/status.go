package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tandem-sbc/tandem/pkg/admin"
)

func (c *cli) status() *cobra.Command {
	return reader(c, "status", "The gateway at a glance", (*admin.Client).Status, c.showStatus)
}

func (c *cli) showStatus(s admin.Status) error {
	engine := s.Engine.Engine
	if s.EngineReason != "" {
		engine += " (" + s.EngineReason + ")"
	}
	t := newTable(c.stdout)
	t.row("node", s.Node)
	t.row("version", s.Version)
	t.row("state", s.State)
	t.row("up", shortDuration(time.Duration(s.UptimeMS)*time.Millisecond))
	t.row("engine", engine)
	if s.Kernel != nil {
		showKernel(t, *s.Kernel)
	}
	t.row("calls", fmt.Sprintf("%d active, %d total, %d answered, %d failed", s.Calls.Active, s.Calls.Total, s.Calls.Answered, s.Calls.Failed))
	t.row("packets", fmt.Sprintf("%d in the kernel, %d in user space", s.Engine.KernelPackets, s.Engine.UserspacePackets))
	for _, x := range s.Engine.Exits {
		// Those forwarded are in the line above; reasons that never came up are noise.
		if x.Verdict != "forward" && x.Packets > 0 {
			t.row("", fmt.Sprintf("%d to %s: %s%s", x.Packets, x.Verdict, x.Reason, ofRealm(s.Realms, x.Realm)))
		}
	}
	t.row("events", fmt.Sprintf("%d lost", s.Engine.EventsLost))
	r := s.Resources
	t.row("resources", fmt.Sprintf("%d flows, %d port pairs, %d transactions, %d goroutines, %d file descriptors",
		r.Flows, r.PortsInUse, r.Transactions, r.Goroutines, r.OpenFDs))
	return t.flush()
}

func showKernel(t table, k admin.Kernel) {
	var devices []string
	hooks := make(map[string][]string)
	for _, a := range k.Attachments {
		if hooks[a.Device] == nil {
			devices = append(devices, a.Device)
		}
		hooks[a.Device] = append(hooks[a.Device], strings.TrimSpace(a.Hook+" "+a.Mode))
	}
	for i, device := range devices {
		name := ""
		if i == 0 {
			name = "attached"
		}
		t.row(name, device+": "+strings.Join(hooks[device], ", "))
	}
	pins := k.Pins
	if pins == "" {
		pins = "none: media stops with the daemon"
	}
	t.row("pins", fmt.Sprintf("%s (ABI %d, %d flows adopted)", pins, k.ABI, k.Adopted))
}

// ofRealm names the realm of an exit, if it is of one.
func ofRealm(realms []string, number uint16) string {
	if i := int(number) - 1; i >= 0 && i < len(realms) {
		return " (" + realms[i] + ")"
	}
	return ""
}

// versions is what runs here and, if it answers, there.
type versions struct {
	Client admin.Version  `json:"client"`
	Daemon *admin.Version `json:"daemon"`
}

func (c *cli) versionOf() *cobra.Command {
	get := func(api *admin.Client, ctx context.Context) (versions, error) {
		v := versions{Client: admin.ThisVersion(c.version)}
		daemon, err := api.Version(ctx)
		switch {
		case err == nil:
			v.Daemon = &daemon
		case !errors.Is(err, admin.ErrNotRunning) && !errors.Is(err, admin.ErrNotAllowed):
			return v, err
		}
		return v, nil
	}
	return reader(c, "version", "Versions of this command and of the daemon, if it runs", get, c.showVersions)
}

func (c *cli) showVersions(v versions) error {
	t := newTable(c.stdout)
	t.row("tandem", v.Client.Version, v.Client.Go, "Linux "+v.Client.Kernel)
	if v.Daemon == nil {
		t.row("tandemd", "does not answer on "+c.socket)
	} else {
		t.row("tandemd", v.Daemon.Version, v.Daemon.Go, "Linux "+v.Daemon.Kernel)
	}
	return t.flush()
}
