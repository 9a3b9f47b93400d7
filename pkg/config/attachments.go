package config

import (
	"fmt"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/invalid"
	"github.com/tandem-sbc/tandem/pkg/realm"
)

// attachment is a realm's place on the wire: that of a clear realm, or the outer side of
// one of its tunnels.
type attachment struct {
	realm string
	// key of the interface in the file, and who is there, for people.
	key, owner string
	// device carries the packets; service, if there is one, is the device of the service
	// tag below it.
	device, service string
	managed         bool
}

// attachments are in the order of the file.
func (c *Config) attachments() []attachment {
	var list []attachment
	add := func(r realm.Config, key, owner string) {
		if r.Interface == "" {
			return // said where it is missing
		}
		a := attachment{realm: r.Name, key: key, owner: owner, device: r.Device(), managed: r.Network != realm.Existing}
		if r.OuterVLAN != 0 {
			a.service = fmt.Sprintf("%s.%d", r.Interface, r.OuterVLAN)
		}
		list = append(list, a)
	}
	for i, r := range c.Realms {
		if len(c.TunnelsOf(r.Name)) == 0 {
			add(r, fmt.Sprintf("realms[%d].interface", i), fmt.Sprintf("realm %q", r.Name))
		}
	}
	for i, t := range c.Tunnels {
		if t.Interface == "" {
			r, _ := c.realm(t.Realm)
			t.Interface, t.VLAN, t.OuterVLAN = r.Interface, r.VLAN, r.OuterVLAN
		}
		side := realm.Config{Name: t.Realm, Network: realm.Managed, Interface: t.Interface, VLAN: t.VLAN, OuterVLAN: t.OuterVLAN}
		add(side, fmt.Sprintf("tunnels[%d].interface", i), fmt.Sprintf("tunnel %q", t.Name))
	}
	return list
}

// validateAttachments keeps realms apart on the wire, as far as one of two is somebody
// else's network: managed ones know of each other.
func (c *Config) validateAttachments(l *invalid.List) {
	list := c.attachments()
	for i, a := range list {
		for _, o := range list[:i] {
			if problem, remedy := c.clash(a, o); problem != "" {
				l.Add(a.key, remedy, "%s", problem)
				break
			}
		}
	}
}

// clash says why two attachments cannot both be; the problem is empty if they can. The
// tunnels of one realm may share their outer side.
func (c *Config) clash(a, o attachment) (problem, remedy string) {
	const own = "give each realm an interface or a vlan of its own"
	switch {
	case a.realm == o.realm:
		return "", ""
	case a.device == o.device && a.managed && o.managed:
		return "", "" // realm.ValidateNetworks says so
	case a.device == o.device && (a.managed || o.managed):
		return fmt.Sprintf("%s is %s's already, and a device is in one VRF or namespace alone", a.device, o.owner), own
	case a.device == o.device && c.Engine != call.EngineUserspace:
		return fmt.Sprintf("%s is %s's already, and the kernel engine knows realms by interface and vlan", a.device, o.owner),
			own + ", or set engine: userspace"
	case (a.managed || o.managed) && (a.service == o.device || a.device == o.service):
		return fmt.Sprintf("%s and the service tag of the same number of %s would be one device", a.device, o.owner), "choose another tag"
	}
	return "", ""
}
