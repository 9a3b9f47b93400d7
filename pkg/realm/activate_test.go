package realm

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/tests/netspace"
)

// hereNetworks are those of realms in a namespace.
func hereNetworks(t *testing.T, s *netspace.Space, list ...Network) *Networks {
	t.Helper()
	return networksIn(t, s, testNode(), slog.DiscardHandler, list...)
}

// TestActivateAgain: a change of tunnel that fails is tried again at once, not with the next pass
// that is due.
func TestActivateAgain(t *testing.T) {
	n := hereNetworks(t, netspace.New(t), twoRealms()...)
	if err := n.Activate(carrier, "main"); err == nil {
		t.Fatal("routes by an interface that does not exist")
	}
	began := time.Now()
	n.wait(context.Background(), &listeners{})
	if waited := time.Since(began); waited >= passInterval {
		t.Errorf("the next pass began after %v", waited)
	}
}

// TestActivateWithoutBackup: without the interface of the backup traffic moves to the primary all
// the same, and that is no error.
func TestActivateWithoutBackup(t *testing.T) {
	s := netspace.New(t)
	main := TunnelDevice(carrier, 1)
	s.IP(t, "link add "+main+" type veth peer name tdmpeer")
	s.IP(t, "link set "+main+" up")
	s.IP(t, "addr add 10.60.0.1/32 dev lo")
	n := hereNetworks(t, s, twoRealms()...)
	if err := n.Activate(carrier, "main"); err != nil {
		t.Error(err)
	}
	if got := s.IP(t, "route show table 12000"); !strings.Contains(got, "10.50.0.0/24 dev "+main) {
		t.Errorf("routes: %s", got)
	}
	if err := n.Activate(carrier, "backup"); err == nil {
		t.Error("routes by an interface that does not exist")
	}
}
