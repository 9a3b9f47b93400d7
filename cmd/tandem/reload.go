package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tandem-sbc/tandem/pkg/admin"
)

// effectRestart is the effect of a change that a reload does not make.
const effectRestart = "restart"

func (c *cli) reload() *cobra.Command {
	var dry bool
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Have the daemon read its config file again, and show what that changes",
		Long: `Have the daemon read its config file again, and show what that changes. hot counts at
once for new calls, drain takes no new calls and has the running ones end by themselves,
restart waits until the daemon is started again. A config with a mistake changes nothing.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := ask(cmd.Context(), c, func(api *admin.Client, ctx context.Context) (admin.Reload, error) { return api.Reload(ctx, dry) })
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(r)
			}
			return c.showReload(r)
		},
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only show what would change")
	return cmd
}

func (c *cli) showReload(r admin.Reload) error {
	var b strings.Builder
	waiting := 0
	for _, change := range r.Changes {
		fmt.Fprintln(&b, harmless(change.Text))
		if change.Effect == effectRestart {
			waiting++
		}
	}
	now := len(r.Changes) - waiting
	switch {
	case len(r.Changes) == 0:
		fmt.Fprintln(&b, "the config has not changed")
	case r.DryRun:
		fmt.Fprintf(&b, "dry run: nothing was changed; %d would change now, %d would wait for a restart\n", now, waiting)
	default:
		fmt.Fprintf(&b, "%d changed now, %d wait for a restart\n", now, waiting)
	}
	_, err := fmt.Fprint(c.stdout, b.String())
	return printed(err)
}
