package tunnels

import (
	"strings"
	"testing"

	"github.com/tandem-sbc/tandem/tests/netlab"
)

// watch captures the inner side of sites until its result is called: one log a site.
func (l *lab) watch(t *testing.T, sites ...string) func() []*netlab.Log {
	t.Helper()
	captures := map[string][]*netlab.Capture{}
	for _, site := range sites {
		devices := []string{netlab.PeerDevice}
		if n := len(l.site(site).Uplinks); n > 0 {
			devices = nil
			for i := range n {
				devices = append(devices, netlab.TunnelDevice(i))
			}
		}
		for _, device := range devices {
			c, err := l.Capture(site, device)
			if err != nil {
				t.Fatal(err)
			}
			captures[site] = append(captures[site], c)
		}
	}
	return func() []*netlab.Log {
		t.Helper()
		var logs []*netlab.Log
		for _, site := range sites {
			var parts []*netlab.Log
			for _, c := range captures[site] {
				parts = append(parts, stopped(t, c))
			}
			logs = append(logs, netlab.Merge(parts...))
		}
		return logs
	}
}

func stopped(t *testing.T, c *netlab.Capture) *netlab.Log {
	t.Helper()
	log, err := c.Stop()
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// tap counts every frame on the gateway's trunk.
func (l *lab) tap(t *testing.T) *netlab.Capture {
	t.Helper()
	c, err := l.CaptureWire(netlab.Switch, netlab.TrunkPort)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// onlyIPsec fails for each frame on a tunnelled VLAN that is not ESP, IKE or ARP, and for
// each frame on any other VLAN but those given.
func (l *lab) onlyIPsec(t *testing.T, census netlab.Census) {
	t.Helper()
	known := map[uint16]bool{}
	for _, s := range l.sites {
		if len(s.Uplinks) == 0 {
			known[s.VLAN] = true
		}
		for _, u := range s.Uplinks {
			known[u.VLAN] = true
			if left := census.Without(u.VLAN, netlab.FrameESP, netlab.FrameIKE, netlab.FrameARP, netlab.FrameControl); len(left) > 0 {
				t.Errorf("VLAN %d of %s has more than ESP, IKE and ARP:\n%s", u.VLAN, s.Name, strings.Join(left, "\n"))
			}
		}
	}
	for f, n := range census {
		if !known[f.VLAN] && f.Kind != netlab.FrameControl {
			t.Errorf("%d frames on a VLAN that nobody has: %v", n, f)
		}
	}
}

// media follows all streams of the calls seen and fails unless all arrived as sent.
func media(t *testing.T, want int, logs ...*netlab.Log) netlab.MediaReport {
	t.Helper()
	seen := netlab.Calls(logs...)
	answered := 0
	for _, c := range seen {
		if c.Callee() != nil {
			answered++
		}
	}
	if answered != want {
		t.Errorf("%d calls were answered, want %d", answered, want)
	}
	report := netlab.CompareMedia(seen, logs...)
	if !report.Clean() {
		t.Errorf("media did not come through: %d sent, %d received, %d lost, %d altered, %d duplicated, %d foreign, %d bad checksums: %s",
			report.Sent, report.Received, report.Lost, report.Altered, report.Duplicated, report.Foreign, report.BadChecksums,
			strings.Join(report.Problems, "\n"))
	}
	if report.Sent == 0 {
		t.Error("no media was sent")
	}
	return report
}
