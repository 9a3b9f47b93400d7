package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tandem-sbc/tandem/pkg/admin"
)

// effectRestart is the effect of a change that a reload does not make.
const effectRestart = "restart"

// maxShows is how often changes are shown before the file is left to whoever writes it.
const maxShows = 3

func (c *cli) reload() *cobra.Command {
	var dry bool
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Have the daemon read its config file again, and show what that changes",
		Long: `Have the daemon read its config file again. What that changes is shown first, and then done:
hot counts at once for new calls, drain takes no new calls and has the running ones end by
themselves, restart waits until the daemon is started again. A config with a mistake changes
nothing, and neither does one that is changed again between the two: its changes are shown anew.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case c.json: // a program reads what was done, in one document
				r, err := c.askReload(cmd.Context(), dry)
				if err != nil {
					return err
				}
				return c.printJSON(r)
			case dry:
				_, err := c.showChanges(cmd.Context(), "dry run: nothing was changed; %d would change now, %d would wait for a restart\n")
				return err
			}
			return c.showAndReload(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only show what would change")
	return cmd
}

func (c *cli) askReload(ctx context.Context, dry bool) (admin.Reload, error) {
	return ask(ctx, c, func(api *admin.Client, ctx context.Context) (admin.Reload, error) { return api.Reload(ctx, dry) })
}

// showAndReload applies what it has shown, and nothing else.
func (c *cli) showAndReload(ctx context.Context) error {
	for show := 1; ; show++ {
		shown, err := c.showChanges(ctx, "")
		if err != nil || len(shown.Changes) == 0 {
			return err
		}
		done, err := ask(ctx, c, func(api *admin.Client, ctx context.Context) (admin.Reload, error) {
			return api.Apply(ctx, shown.Fingerprint)
		})
		switch {
		case errors.Is(err, admin.ErrConfigMoved) && show < maxShows:
			if _, err := fmt.Fprint(c.stdout, "nothing was changed: the config is another by now, with these changes:\n"); err != nil {
				return printed(err)
			}
		case err != nil:
			return err
		default:
			now, waiting := effects(done.Changes)
			_, err := fmt.Fprintf(c.stdout, "%d changed now, %d wait for a restart\n", now, waiting)
			return printed(err)
		}
	}
}

// showChanges prints what a reload would do, and below it how much that is.
func (c *cli) showChanges(ctx context.Context, sum string) (admin.Reload, error) {
	r, err := c.askReload(ctx, true)
	if err != nil {
		return r, err
	}
	var b strings.Builder
	for _, change := range r.Changes {
		fmt.Fprintln(&b, harmless(change.Text))
	}
	switch now, waiting := effects(r.Changes); {
	case len(r.Changes) == 0:
		fmt.Fprintln(&b, "the config has not changed")
	case sum != "":
		fmt.Fprintf(&b, sum, now, waiting)
	}
	_, err = fmt.Fprint(c.stdout, b.String())
	return r, printed(err)
}

// effects counts the changes that a reload makes, and those that wait for a restart.
func effects(changes []admin.Change) (now, waiting int) {
	for _, change := range changes {
		if change.Effect == effectRestart {
			waiting++
		}
	}
	return len(changes) - waiting, waiting
}
