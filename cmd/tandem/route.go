package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/tandem-sbc/tandem/pkg/admin"
	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/config"
	"github.com/tandem-sbc/tandem/pkg/explain"
	"github.com/tandem-sbc/tandem/pkg/number"
	"github.com/tandem-sbc/tandem/pkg/route"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

// timeForms are what --at reads, those without a zone as local time.
var timeForms = []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04"}

func (c *cli) route() *cobra.Command {
	var trunkName, toHeader, at, file string
	var headers []string
	cmd := &cobra.Command{
		Use:   "route FROM TO --trunk NAME",
		Short: "What would become of a call, step by step, without placing it",
		Long: `What would become of a call from the number FROM to the number TO that comes in on a
trunk: how the numbers are read, each route with the reason for or against it, and the
trunks that would be tried. No call is placed. FROM is '' for a caller who withholds the
number. Exit status is 0 if a route takes the call, else 1.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := call.Query{Trunk: trunkName, From: number.FromURI(args[0]), To: number.FromURI(args[1]), ToHeader: number.FromURI(toHeader)}
			if err := c.readQuery(&q, headers, at); err != nil {
				return err
			}
			d, err := c.decide(cmd.Context(), q, file)
			if err != nil {
				return err
			}
			return c.showDecision(d)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&trunkName, "trunk", "", "`trunk` that the call comes from")
	flags.StringVar(&toHeader, "to-header", "", "`number` of the To header, if it is another than TO")
	flags.StringArrayVar(&headers, "header", nil, "`'Name: value'` of a header of the INVITE, as often as there are some")
	flags.StringVar(&at, "at", "", "`time` of the call, e.g. 2026-03-01T18:00 or with a zone 2026-03-01T18:00:00+01:00; now if left out")
	flags.StringVar(&file, "config", "", "config `file` to go by, in place of the running daemon")
	_ = cmd.MarkFlagRequired("trunk") // it is there
	return cmd
}

func (c *cli) readQuery(q *call.Query, headers []string, at string) error {
	for _, text := range headers {
		h, err := admin.ParseHeader(text)
		if err != nil {
			return err
		}
		q.Headers = append(q.Headers, h)
	}
	if at == "" {
		return nil
	}
	for _, form := range timeForms {
		if t, err := time.ParseInLocation(form, at, time.Local); err == nil {
			q.At = t
			return nil
		}
	}
	return fmt.Errorf("%q is no time; write it like 2026-03-01T18:00 or 2026-03-01T18:00:00+01:00", at)
}

// decide asks the daemon, or goes by a file if one is named.
func (c *cli) decide(ctx context.Context, q call.Query, file string) (call.Decision, error) {
	if file == "" {
		return ask(ctx, c, func(api *admin.Client, ctx context.Context) (call.Decision, error) { return api.Route(ctx, q) })
	}
	cfg, err := config.Load(file)
	if wrong := (*config.Errors)(nil); errors.As(err, &wrong) {
		fmt.Fprintln(c.stderr, wrong)
		return call.Decision{}, errFindings
	} else if err != nil {
		return call.Decision{}, failure{err}
	}
	trunks, err := trunk.New(trunk.Configs{Trunks: cfg.Trunks, Groups: cfg.Groups, Emergency: cfg.Emergency}, nil)
	if err != nil {
		return call.Decision{}, failure{err}
	}
	routes, err := route.New(cfg.Routes)
	if err != nil {
		return call.Decision{}, failure{err}
	}
	if q.At.IsZero() {
		q.At = c.now()
	}
	d := explain.Call(trunks, routes, q)
	for i := range d.Candidates {
		// How a trunk is that the file does not keep out of service, the daemon alone knows.
		if one := &d.Candidates[i]; one.Offered {
			one.State, one.Reason = "", ""
		}
	}
	return d, nil
}

func (c *cli) showDecision(d call.Decision) error {
	if c.json {
		if err := c.printJSON(d); err != nil {
			return err
		}
	} else if err := c.printDecision(d); err != nil {
		return err
	}
	if d.Outcome != call.Routed {
		return errFindings
	}
	return nil
}

func (c *cli) printDecision(d call.Decision) error {
	t := newTable(c.stdout)
	for _, s := range d.Steps {
		t.row(s.Subject, s.Result, s.Reason)
	}
	if err := t.flush(); err != nil || d.Outcome != call.Routed {
		return err
	}
	way := "group " + d.Group
	if d.Group == "" {
		way = "trunk " + d.Trunk
	}
	words := harmless(fmt.Sprintf("The call goes to %s: called number %s, calling number %s.", way, orNobody(d.Called), orNobody(d.Caller)))
	if _, err := fmt.Fprintf(c.stdout, "\n%s\n\n", words); err != nil {
		return printed(err)
	}
	t = newTable(c.stdout)
	t.row("TRY", "TRUNK", "GROUP", "STATE", "REASON")
	for i, one := range d.Candidates {
		try := "-"
		if one.Offered {
			try = strconv.Itoa(i + 1)
		}
		t.row(try, one.Trunk, one.Group, one.State, one.Reason)
	}
	return t.flush()
}

// orNobody is a number as a sentence has it.
func orNobody(number string) string {
	if number == "" {
		return "none"
	}
	return number
}
