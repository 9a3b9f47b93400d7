package sipua

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// PeerKind says what the source address of a datagram is to the realm.
type PeerKind uint8

// Kinds of peers. A datagram of an unknown one is counted and dropped unread.
const (
	PeerUnknown PeerKind = iota
	PeerPlatform
	PeerCarrier
)

// Handler takes inbound calls.
type Handler interface {
	// Invite owns the leg of a new inbound INVITE, on a goroutine of its own that
	// the Stack waits for, and returns when the call is over. A leg that is still
	// alive then is ended with 500 or BYE.
	Invite(leg call.Leg, invite call.Invite)
}

// Config of one realm's stack.
type Config struct {
	// Realm is the name for logs.
	Realm string
	// Listen is the realm's own IPv4 address and SIP port: it goes into Via and
	// Contact, so it must not be unspecified. Port 0 takes a free one (for tests).
	Listen netip.AddrPort
	// Device binds the socket to a network device or VRF; empty does not.
	Device string
	// DSCP of everything sent, 0-63 (M3).
	DSCP uint8
	// Priority of everything sent, 0-7 (SO_PRIORITY): VLAN devices map it to 802.1p (N1).
	Priority uint8
	// UserAgent is the value of User-Agent and Server; empty leaves them out.
	UserAgent string
	// Peer admits a source address (S13). It is called for each datagram, so it
	// has to be fast, and from several goroutines.
	Peer func(netip.Addr) PeerKind
	// Register, unless nil, says how long the source of a REGISTER has to wait with it, 0 if
	// it may come now (T5). It is called once for a request that may come, however often that
	// is repeated, and each time for one that may not. limited is false for a source that may
	// send any number.
	Register func(netip.Addr) (wait time.Duration, limited bool)
	// Handler takes inbound INVITEs.
	Handler Handler
	Log     *slog.Logger
}

// ErrConfig is wrapped by what Listen says about a Config that cannot work.
var ErrConfig = errors.New("sipua: bad config")

func (c *Config) check() error {
	switch {
	case !c.Listen.Addr().Is4() || c.Listen.Addr().IsUnspecified():
		return fmt.Errorf("%w: listen address %s is not an IPv4 address of this host", ErrConfig, c.Listen.Addr())
	case c.DSCP > 63:
		return fmt.Errorf("%w: dscp %d is above 63", ErrConfig, c.DSCP)
	case c.Priority > 7:
		return fmt.Errorf("%w: priority %d is above 7", ErrConfig, c.Priority)
	case c.Peer == nil || c.Handler == nil || c.Log == nil:
		return fmt.Errorf("%w: Peer, Handler and Log are needed", ErrConfig)
	}
	return nil
}
