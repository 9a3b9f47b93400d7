package ipsec

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// Defaults of Options.
const (
	DefaultRun    = "/run/tandem/ipsec"
	DefaultCharon = "/usr/sbin/charon-systemd"
)

// Tunnel is one tunnel with what the kernel knows it by.
type Tunnel struct {
	Config
	// Device is the xfrm interface, IfID its id: the tunnel's rank in its realm, 1 is the primary.
	Device string
	IfID   uint32
}

// Realm is one tunnelled realm.
type Realm struct {
	Name string
	// Namespace is the path of the network namespace of the tunnels' outer side.
	Namespace string
	// Inner is the realm's own address, the local traffic selector.
	Inner netip.Addr
	// Monitor is whom monitors with "auto" ask: the realm's first trunk's first target, which may
	// become another one; zero is nobody yet. Nil is nobody at all.
	Monitor func() netip.Addr
	// ReturnAfter is how long a better tunnel must have been up before traffic returns to it.
	ReturnAfter time.Duration
	// Active is the tunnel that the routes lead by at the start; empty is none.
	Active string
	// Tunnels in the order of their rank.
	Tunnels []Tunnel
}

// State is which tunnel a realm's traffic leaves by.
type State struct {
	// Active is the tunnel's name; empty is none.
	Active string
	// Reason says in a sentence why there is none; empty if there is one.
	Reason string
}

// Options of a Supervisor.
type Options struct {
	// Node is the name of this node.
	Node string
	// Run is the folder of charon's sockets, configs and logs; empty is DefaultRun.
	Run string
	// Charon is strongSwan's IKE daemon; empty is DefaultCharon.
	Charon string
	Realms []Realm
	// Changed is called at each change of a realm's state, one call at a time, and once at the
	// start. May be nil.
	Changed func(realm string, s State)
	Log     *slog.Logger
}

// Supervisor keeps the tunnels of all realms. What it leaves behind when Run ends goes on
// working: charons are processes of their own, and the kernel has the keys.
type Supervisor struct {
	keepers []*keeper
	// changes makes calls of Options.Changed one at a time.
	changes sync.Mutex
	// running is closed while Run is.
	running chan struct{}
}

// New prepares the supervision; nothing is touched before Run.
func New(o Options) (*Supervisor, error) {
	if o.Run == "" {
		o.Run = DefaultRun
	}
	if o.Charon == "" {
		o.Charon = DefaultCharon
	}
	s := &Supervisor{running: make(chan struct{})}
	for _, r := range o.Realms {
		if len(r.Tunnels) == 0 {
			return nil, fmt.Errorf("realm %s has no tunnel", r.Name)
		}
		c, err := newCharon(o.Run, o.Node, r.Name, r.Namespace, o.Charon)
		if err != nil {
			return nil, fmt.Errorf("realm %s: %w", r.Name, err)
		}
		s.keepers = append(s.keepers, newKeeper(r, c, o.Log, func(state State) {
			if o.Changed == nil {
				return
			}
			s.changes.Lock()
			defer s.changes.Unlock()
			o.Changed(r.Name, state)
		}))
	}
	return s, nil
}

// Run keeps the tunnels until ctx ends, and leaves them as they are then. It runs once.
func (s *Supervisor) Run(ctx context.Context) error {
	close(s.running)
	var keepers sync.WaitGroup
	for _, k := range s.keepers {
		keepers.Go(func() { k.run(ctx) })
	}
	keepers.Wait()
	return nil
}

// Status is all tunnels, in the order of the realms and of their ranks.
func (s *Supervisor) Status() []call.Tunnel {
	var list []call.Tunnel
	for _, k := range s.keepers {
		k.mu.Lock()
		list = append(list, k.status...)
		k.mu.Unlock()
	}
	return list
}

// Reload reads secrets, certificates and manual keys again, and loads what has changed. The
// error names the tunnels whose new credentials cannot be used; these go on with the old ones.
func (s *Supervisor) Reload(ctx context.Context) error {
	select {
	case <-s.running:
	default:
		return errors.New("tunnels are not supervised yet")
	}
	errs := make([]error, len(s.keepers))
	var keepers sync.WaitGroup
	for i, k := range s.keepers {
		keepers.Go(func() {
			if err := k.reload(ctx); err != nil {
				errs[i] = fmt.Errorf("realm %s: %w", k.realm.Name, err)
			}
		})
	}
	keepers.Wait()
	return errors.Join(errs...)
}
