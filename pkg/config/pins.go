package config

import (
	"path/filepath"
	"strings"

	"github.com/tandem-sbc/tandem/pkg/invalid"
)

// Words for Pins besides a path.
const (
	pinsAuto = "auto"
	pinsNone = "none"
)

// bpffs is where systemd mounts the BPF file system.
const bpffs = "/sys/fs/bpf"

// PinFolder is where the kernel engine keeps what outlives the daemon; empty means that
// nothing does.
func (c *Config) PinFolder() string {
	switch c.Pins {
	case "", pinsNone:
		return ""
	case pinsAuto:
		// bpffs keeps names with a dot for itself (bpf_lookup in kernel/bpf/inode.c).
		return filepath.Join(bpffs, "tdm-"+strings.ReplaceAll(c.Node, ".", "-"))
	}
	return c.Pins
}

func validatePins(l *invalid.List, pins string) {
	const remedy = "give auto, none, or a folder on bpffs, e.g. /sys/fs/bpf/tdm-gw1"
	switch {
	case pins == "" || pins == pinsNone || pins == pinsAuto:
	case !filepath.IsAbs(pins) || filepath.Clean(pins) != pins || strings.ContainsRune(pins, 0):
		l.Add("pins", remedy, "%q is not an absolute path", pins)
	case pins == bpffs || pins == "/":
		l.Add("pins", "name a folder in it, e.g. /sys/fs/bpf/tdm-gw1", "%s holds what other programs pin too", pins)
	case strings.Contains(filepath.Base(pins), "."):
		l.Add("pins", "write it without", "bpffs allows no dot in the name %q", filepath.Base(pins))
	}
}
