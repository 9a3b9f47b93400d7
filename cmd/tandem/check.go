package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tandem-sbc/tandem/pkg/config"
)

func (c *cli) check() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Check a config file; findings are FILE:LINE: key: problem; remedy",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			cfg, err := config.Load(args[0])
			var wrong *config.Errors
			if err != nil && !errors.As(err, &wrong) {
				return failure{err}
			}
			if c.json {
				return c.checkJSON(wrong)
			}
			if wrong != nil {
				fmt.Fprintln(c.stderr, wrong)
				return errFindings
			}
			_, err = fmt.Fprintf(c.stdout, "%s: ok: realms %d, trunks %d, groups %d, routes %d\n",
				args[0], len(cfg.Realms), len(cfg.Trunks), len(cfg.Groups), len(cfg.Routes))
			return printed(err)
		},
	}
}

// checkJSON prints the list of findings, which is empty for a good file.
func (c *cli) checkJSON(wrong *config.Errors) error {
	if wrong == nil {
		return c.printJSON([]config.Finding{})
	}
	if err := c.printJSON(wrong.Findings); err != nil {
		return err
	}
	return errFindings
}
