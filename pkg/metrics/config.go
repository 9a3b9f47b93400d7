package metrics

import (
	"net/netip"

	"github.com/tandem-sbc/tandem/pkg/invalid"
)

// Config says where Prometheus reads.
type Config struct {
	Address string `yaml:"address" json:"address" doc:"Address and port that /metrics and /healthz are served on, on the management network; empty is off."`
}

// SetDefaults fills in what the config may leave out.
func (c *Config) SetDefaults() { c.Address = "127.0.0.1:9464" }

// Validate checks the config; keys are its own.
func (c Config) Validate() invalid.List {
	var l invalid.List
	if c.Address == "" {
		return l
	}
	switch a, err := netip.ParseAddrPort(c.Address); {
	case err != nil:
		l.Add("address", "write it like 127.0.0.1:9464, or \"\" for none", "%q is not an address with a port", c.Address)
	case a.Port() == 0:
		l.Add("address", "give a port from 1 to 65535", "%q has no port", c.Address)
	}
	return l
}
