package app

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/config"
	"github.com/tandem-sbc/tandem/pkg/realm"
)

// ErrRunning means that a daemon of the same node has the realms' networks.
var ErrRunning = errors.New("a gateway of this node is running")

// lockNetworks takes the realms' networks for this process: two that mend the same objects,
// or one that removes what the other uses, would never come to rest. The lock goes with the
// process. Without managed realms there is nothing to lock.
func lockNetworks(cfg *config.Config) (unlock func() error, err error) {
	if !slices.ContainsFunc(cfg.Realms, func(r realm.Config) bool { return r.Network == realm.Managed }) {
		return func() error { return nil }, nil
	}
	if err := os.MkdirAll(cfg.IPsec.Run, 0o755); err != nil {
		return nil, fmt.Errorf("lock of the networks: %w", err)
	}
	// The file stays: to remove it would let a third process in between.
	path := filepath.Join(cfg.IPsec.Run, cfg.Node+".lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock of the networks: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("%w: it has locked %s; stop it first, or give each its own node", ErrRunning, path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f.Close, nil
}
