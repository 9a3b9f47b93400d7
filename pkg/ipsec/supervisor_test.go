package ipsec

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// I1, I2, I6: a tunnel comes up with the algorithms of the config, carries traffic and counts it.
func TestTunnelComesUp(t *testing.T) {
	l := newIKELab(t)
	tunnel := l.tunnel()
	l.startPeer(tunnel)
	l.loadPeer(l.mirrored(tunnel))
	s := l.supervise(tunnel)
	up := s.await("up", 20*time.Second, isUp)
	esp := "AES_GCM_16-256/ECP_384/ESN"
	if strings.Contains(s.log.String(), "strongSwan is too old") {
		esp = "AES_GCM_16-256/ESN"
	}
	if up.IKE != "AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_384" || up.ESP != esp {
		t.Errorf("proposals %q and %q", up.IKE, up.ESP)
	}
	if !up.Active || up.Cause != "" || up.Reason != "" || up.Established.IsZero() || up.Rank != 1 {
		t.Errorf("status %+v", up)
	}
	stream := l.stream()
	s.await("traffic is counted", 15*time.Second, func(c call.Tunnel) bool { return c.In.Packets >= 20 && c.Out.Packets >= 20 })
	if sent, lost := stream.end(); len(lost) > 0 {
		t.Errorf("of %d packets %d are lost: %v", sent, len(lost), lost)
	}
	if want := []State{{Active: "primary"}}; !slices.Equal(s.states[len(s.states)-1:], want) {
		t.Errorf("states %+v, want the last to be %+v", s.states, want)
	}
}
