package app

import (
	"errors"
	"fmt"
	"io"

	"github.com/tandem-sbc/tandem/pkg/config"
	"github.com/tandem-sbc/tandem/pkg/datapath"
	"github.com/tandem-sbc/tandem/pkg/ipsec"
	"github.com/tandem-sbc/tandem/pkg/realm"
)

// Unload takes away what the daemon of this config has left: what is in the kernel engine's
// pins, IKE daemons with their security associations, and the realms' devices, routes, rules
// and namespaces. It says to out what it did. Nothing there is no error; a daemon that runs is
// one that wraps ErrRunning or datapath.ErrBusy, and pins that cannot be seen one that wraps
// datapath.ErrNoBPFFS.
func Unload(cfg *config.Config, out io.Writer) (err error) {
	unlock, err := lockNode(cfg.Node)
	if err != nil {
		return fmt.Errorf("unload: %w", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if err := unloadEngine(cfg, out); err != nil {
		return err
	}
	daemons, err := ipsec.Sweep(cfg.IPsec.Run, cfg.Node, nil)
	if err != nil {
		return fmt.Errorf("unload: end the IKE daemons: %w", err)
	}
	objects, err := realm.Remove(cfg.Node)
	if err != nil {
		return fmt.Errorf("unload: remove the realms' networks: %w", err)
	}
	if daemons+objects == 0 {
		return nil
	}
	return say(out, "unloaded: %d IKE daemons ended, %d network objects removed\n", daemons, objects)
}

func unloadEngine(cfg *config.Config, out io.Writer) error {
	pins := cfg.PinFolder()
	if pins == "" {
		return say(out, "nothing to unload of the kernel engine: the config's pins is none, so nothing outlives the daemon\n")
	}
	found, err := datapath.Unload(pins)
	if errors.Is(err, datapath.ErrNoBPFFS) {
		return fmt.Errorf("unload: nothing can be seen of what is pinned at %s: run this where the bpffs is mounted, "+
			"with \"nsenter --net\" instead of \"ip netns exec\", which hides it: %w", pins, err)
	}
	if err != nil {
		return fmt.Errorf("unload: %w", err)
	}
	if !found {
		return say(out, "nothing to unload: %s does not exist\n", pins)
	}
	return say(out, "unloaded: programs are detached, flows and maps are gone, %s is removed\n", pins)
}

func say(out io.Writer, format string, args ...any) error {
	if _, err := fmt.Fprintf(out, format, args...); err != nil {
		return fmt.Errorf("unload: %w", err)
	}
	return nil
}
