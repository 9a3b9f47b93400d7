package ipsec

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// unit is the template that runs charons where systemd runs: the daemon's own unit may
// then be stopped without them.
const unit = "tandem-charon@.service"

// unitInstalled is true where systemd runs and has the template.
func unitInstalled() bool {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return false
	}
	for _, folder := range []string{
		"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system",
	} {
		if _, err := os.Stat(filepath.Join(folder, unit)); err == nil {
			return true
		}
	}
	return false
}

func (c *charon) unit() string { return strings.Replace(unit, "@", "@"+c.instance, 1) }

func (c *charon) startUnit(ctx context.Context) error { return systemctl(ctx, "restart", c.unit()) }

func (c *charon) stopUnit(ctx context.Context) error { return systemctl(ctx, "stop", c.unit()) }

func systemctl(ctx context.Context, verb, unit string) error {
	out, err := exec.CommandContext(ctx, "systemctl", verb, unit).CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl %s %s: %w: %s", verb, unit, err, clip(strings.TrimSpace(string(out))))
	}
	return nil
}

// escape is a path as the name of a unit's instance, as systemd-escape --path has it
// (systemd.unit(5), "String escaping for inclusion in unit names"): %I turns it back.
func escape(path string) string {
	var b strings.Builder
	for i := range len(path) {
		switch c := path[i]; {
		case c == '/':
			b.WriteByte('-')
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == ':', c == '_', c == '.' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}
