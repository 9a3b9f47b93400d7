package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tandem-sbc/tandem/pkg/config"
	"github.com/tandem-sbc/tandem/pkg/datapath"
)

// errNoFile means that the daemon cannot know what has changed.
var errNoFile = errors.New("the daemon was not started with a config file that it could read again")

// reload reads the config file again and takes over what needs no restart: all of it or,
// with an error, nothing. A dry run only tells what would change. One runs at a time.
func (d *daemon) reload(dry bool) ([]config.Change, error) {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	if d.reread == nil {
		return nil, errNoFile
	}
	file, err := d.reread()
	if err != nil {
		return nil, err
	}
	former := d.plan.Load()
	changes := config.Diff(former.cfg, file)
	next := config.Merge(former.cfg, file)
	if err := next.Validate().Err(); err != nil {
		return nil, fmt.Errorf("what could change now does not fit with what takes a restart; restart the gateway, or change less at once: %w", err)
	}
	p, err := newPlan(next, former)
	if err != nil || dry {
		return changes, err
	}
	d.tell(changes)
	if slices.ContainsFunc(changes, func(c config.Change) bool { return c.Effect != config.Restart }) {
		err = d.replace(former, p)
	}
	return changes, err
}

// tell logs what a reload is about to change, and what it cannot.
func (d *daemon) tell(changes []config.Change) {
	if len(changes) == 0 {
		d.log.Info("reload: the config has not changed")
	}
	for _, c := range changes {
		if c.Effect == config.Restart {
			d.log.Warn("reload: this waits for a restart", "change", c.String())
			continue
		}
		d.log.Info("reload: this changes now", "change", c.String())
	}
}

// newNamesTimeout bounds how long a reload waits for the names that it brings. What DNS says later
// counts as soon as it does.
const newNamesTimeout = 2 * time.Second

// replace has new calls go by the next plan.
func (d *daemon) replace(former, next *plan) error {
	ctx, cancel := context.WithTimeout(context.Background(), newNamesTimeout)
	defer cancel()
	next.trunks.Await(ctx) // or a trunk would have no targets until DNS has answered
	// New peers are known before their calls are, those that leave until theirs have ended.
	end := d.leaving.begin(former.trunks, next.trunks, time.Now())
	if err := d.relist(next); err != nil {
		end()
		next.trunks.Drop()
		return fmt.Errorf("nothing was changed: kernel media engine: %w", err)
	}
	d.plan.Store(next)
	next.trunks.Adopt()
	d.bells.changed()
	d.log.Info("reload: new calls go by the changed config; running calls keep what they began with",
		"trunks", len(next.cfg.Trunks), "groups", len(next.cfg.Groups), "routes", len(next.cfg.Routes))
	return nil
}

// realmsNow are the realms as the kernel engine needs to know them now.
func (d *daemon) realmsNow(p *plan) []datapath.Realm {
	realms := kernelRealms(p.cfg, p.trunks, d.networks.Attachments())
	for i := range realms {
		for _, addr := range d.leaving.in(p.cfg.Realms[i].Name) {
			if !slices.Contains(realms[i].Peers, addr) {
				realms[i].Peers = append(realms[i].Peers, addr)
			}
		}
	}
	return realms
}

// relist tells the kernel engine, if that is the one, who is known and who is denied.
func (d *daemon) relist(p *plan) error {
	if d.kernel == nil {
		return nil
	}
	d.listing.Lock()
	defer d.listing.Unlock()
	return d.kernel.Relist(d.realmsNow(p), p.cfg.Guard.Deny)
}

// update tells the kernel engine where the realms are.
func (d *daemon) update() error {
	d.listing.Lock()
	defer d.listing.Unlock()
	return d.kernel.Update(d.realmsNow(d.plan.Load()))
}

// secretsTimeout bounds how long a SIGHUP keeps other signals waiting.
const secretsTimeout = 20 * time.Second

// hup does what a SIGHUP asks for: the config is reloaded, and secrets, certificates and
// manual keys are read anew.
func (d *daemon) hup(ctx context.Context) {
	if _, err := d.reload(false); err != nil {
		d.log.Error("reload: the gateway goes on with the config that it had", "error", err)
	}
	d.log.Info("reading secrets, certificates and keys anew")
	if d.tunnels == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, secretsTimeout)
	defer cancel()
	if err := d.tunnels.Reload(ctx); err != nil {
		d.log.Error("tunnels go on with what they had", "error", err)
	}
}
