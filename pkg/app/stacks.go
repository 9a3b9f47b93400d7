package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/b2bua"
	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/realm"
	"github.com/tandem-sbc/tandem/pkg/sipua"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

// listenAgain is the longest pause between two attempts to open the SIP socket of a realm
// whose network was not there at first.
const listenAgain = 2 * time.Second

// errNoStack means that a realm's network has not been there yet.
var errNoStack = errors.New("the realm's network is not there")

// stacks are the SIP user agents of the realms that are there; together they dial and
// probe. Realms come as their networks do, and stay.
type stacks struct {
	mu      sync.RWMutex
	byRealm map[string]*sipua.Stack
}

func newStacks() *stacks { return &stacks{byRealm: make(map[string]*sipua.Stack)} }

func (s *stacks) add(realm string, stack *sipua.Stack) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byRealm[realm] = stack
}

func (s *stacks) of(realm string) (*sipua.Stack, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	stack := s.byRealm[realm]
	if stack == nil {
		return nil, fmt.Errorf("realm %s: %w", realm, errNoStack)
	}
	return stack, nil
}

func (s *stacks) all() map[string]*sipua.Stack {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return maps.Clone(s.byRealm)
}

// Dial implements b2bua.Dialer.
func (s *stacks) Dial(target call.Target, invite call.Invite) (call.Leg, error) {
	stack, err := s.of(target.Realm)
	if err != nil {
		return nil, err
	}
	return stack.Dial(target, invite)
}

// Probe implements trunk.Prober.
func (s *stacks) Probe(ctx context.Context, realm string, target netip.AddrPort) (trunk.Answer, error) {
	stack, err := s.of(realm)
	if err != nil {
		return trunk.Answer{}, err
	}
	answer, err := stack.Options(ctx, target)
	return trunk.Answer(answer), err
}

// buildStack opens the SIP socket of a realm, now or, if its network is not there, as soon
// as it is.
func (d *daemon) buildStack(n realm.Network, at realm.Attachment) (task, error) {
	stack, err := d.listen(n, at.Device)
	// A device or an address that is missing may come; a port that is taken stays so.
	if err != nil && isThere(at) && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return task{}, err
	}
	if err != nil {
		d.log.Warn("SIP waits for the realm's network", "realm", n.Name, "error", err)
	} else {
		d.onClose("SIP of realm "+n.Name, stack.Close) // for a stack that never ran
	}
	return task{"SIP of realm " + n.Name, func(ctx context.Context) error {
		d.awaitNames(ctx, n.Name)
		var told lastError
		told.changes(err)
		for stack == nil {
			select {
			case <-ctx.Done():
				return nil
			case <-d.bells.realms[n.Name]:
			case <-time.After(listenAgain):
			}
			if stack, err = d.listen(n, at.Device); err == nil {
				d.log.Info("SIP of the realm is up", "realm", n.Name)
			} else if told.changes(err) {
				d.log.Warn("SIP of the realm is still not up", "realm", n.Name, "error", err)
			}
		}
		return d.serveSIP(ctx, stack, n.Name)
	}}, nil
}

// serveSIP runs a realm's stack, and has its socket follow the realm's device.
func (d *daemon) serveSIP(ctx context.Context, stack *sipua.Stack, realm string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return stack.Run(ctx) })
	group.Go(func() error {
		var told lastError
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-d.bells.realms[realm]:
			}
			moved, err := stack.Rebind()
			if moved {
				d.log.Info("SIP has moved to the device that was made in the place of the realm's", "realm", realm)
			}
			if told.changes(err) {
				d.log.Warn("SIP is not on the realm's device", "realm", realm, "error", err)
			}
		}
	})
	return group.Wait()
}

func (d *daemon) listen(n realm.Network, device string) (*sipua.Stack, error) {
	stack, err := sipua.Listen(sipua.Config{
		Realm: n.Name, Listen: n.SIPAddr(), Device: device, DSCP: n.SIPDSCP, Priority: n.SIPPCP, UserAgent: "Tandem/" + d.version,
		Peer: d.peerKind(n.Name), Register: d.registers(n.Name), Handler: ingress{n.Name, d.gateway}, Log: d.log.With("realm", n.Name),
	})
	if err != nil {
		return nil, err
	}
	d.stacks.add(n.Name, stack)
	return stack, nil
}

// ingress hands a realm's calls to the gateway with the realm's name.
type ingress struct {
	realm   string
	gateway *b2bua.Gateway
}

// Invite implements sipua.Handler.
func (i ingress) Invite(leg call.Leg, invite call.Invite) { i.gateway.Invite(i.realm, leg, invite) }

// trunkOf is the trunk that has a source, in the config or still with calls; nil is none.
func (d *daemon) trunkOf(realm string, src netip.Addr) *trunk.Trunk {
	if t := d.trunks().ByPeer(realm, src); t != nil {
		return t
	}
	return d.leaving.of(realm, src)
}

// registers holds REGISTER requests to the limit of their trunk (T5).
func (d *daemon) registers(realm string) func(netip.Addr) (time.Duration, bool) {
	return func(src netip.Addr) (wait time.Duration, limited bool) {
		t := d.trunkOf(realm, src)
		if t == nil || !t.LimitsRegister() {
			return 0, false
		}
		wait, _ = t.Register(time.Now())
		return wait, true
	}
}

// peerKind admits the sources that are trunks of the realm.
func (d *daemon) peerKind(realm string) func(netip.Addr) sipua.PeerKind {
	return func(src netip.Addr) sipua.PeerKind {
		t := d.trunkOf(realm, src)
		switch {
		case t == nil:
			return sipua.PeerUnknown
		case t.Kind() == trunk.Platform:
			return sipua.PeerPlatform
		default:
			return sipua.PeerCarrier
		}
	}
}
