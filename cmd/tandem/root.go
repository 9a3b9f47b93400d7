package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/tandem-sbc/tandem/pkg/admin"
)

// Exit statuses.
const (
	exitOK      = 0
	exitFailure = 1 // a finding, or a daemon that does not answer
	exitUsage   = 2
)

const (
	socketEnv     = "TANDEM_SOCKET"
	defaultSocket = "/run/tandem/admin.sock"
)

// errFindings is a failure that has been told already.
var errFindings = errors.New("findings were printed")

// failure is what a command that was understood ended with; other errors are of usage.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

// run executes one command line and returns its exit status.
func run(ctx context.Context, e env, args []string) int {
	root := newRoot(e)
	root.SetArgs(args)
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	err := root.ExecuteContext(ctx)
	var failed failure
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errFindings):
		return exitFailure
	case errors.As(err, &failed):
		fmt.Fprintf(e.stderr, "tandem: %v\n", failed.error)
		return exitFailure
	default:
		fmt.Fprintf(e.stderr, "tandem: %v\nSee tandem --help.\n", err)
		return exitUsage
	}
}

// cli is what the commands share.
type cli struct {
	env
	json   bool
	socket string
}

// newRoot lists the commands. Nouns read the running daemon; of the verbs check works on a file, and
// reload on the daemon.
func newRoot(e env) *cobra.Command {
	c := &cli{env: e}
	root := &cobra.Command{
		Use:           "tandem",
		Short:         "Show and steer a running Tandem gateway, and check its config",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.DisableDefaultCmd = true
	flags := root.PersistentFlags()
	flags.BoolVar(&c.json, "json", false, "print JSON for programs")
	socket := e.getenv(socketEnv)
	if socket == "" {
		socket = defaultSocket
	}
	flags.StringVar(&c.socket, "socket", socket, "the daemon's admin `socket`; "+socketEnv+" sets the default")

	root.AddCommand(c.check(), c.status(), c.calls(), c.trunks(), c.groups(), c.tunnels(), c.realms(), c.route(), c.reload(), c.versionOf())
	return root
}

// reader makes a command that asks the daemon for one thing and shows it.
func reader[T any](c *cli, use, short string, get func(*admin.Client, context.Context) (T, error), show func(T) error) *cobra.Command {
	return &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			value, err := ask(cmd.Context(), c, get)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(value)
			}
			return show(value)
		},
	}
}

// list is what a command shows of things that have names: all in a table, or everything of one.
type list[T any] struct {
	// noun is what one is called, for people; use is the command.
	noun, use string
	get       func(*admin.Client, context.Context) ([]T, error)
	name      func(T) string
	all       func([]T) error
	one       func(T) error
}

// lister makes a command that shows a list, or the one that its argument names.
func lister[T any](c *cli, use, short string, l list[T]) *cobra.Command {
	l.use = use
	return &cobra.Command{
		Use:   use + " [NAME]",
		Short: short,
		Args:  cobra.MaximumNArgs(1),
		RunE:  func(cmd *cobra.Command, args []string) error { return l.show(cmd.Context(), c, args) },
	}
}

// show prints all, or the one that args name.
func (l list[T]) show(ctx context.Context, c *cli, args []string) error {
	items, err := ask(ctx, c, l.get)
	if err != nil {
		return err
	}
	if len(args) == 0 {
		if c.json {
			return c.printJSON(items)
		}
		return l.all(items)
	}
	i := slices.IndexFunc(items, func(item T) bool { return l.name(item) == args[0] })
	if i < 0 {
		return failure{fmt.Errorf("there is no %s %q; see tandem %s", l.noun, args[0], l.use)}
	}
	if c.json {
		return c.printJSON(items[i])
	}
	return l.one(items[i])
}

// ask has the daemon do one thing.
func ask[T any](ctx context.Context, c *cli, get func(*admin.Client, context.Context) (T, error)) (T, error) {
	value, err := get(admin.NewClient(c.socket), ctx)
	if errors.Is(err, admin.ErrNotRunning) {
		err = fmt.Errorf("%w, or name its socket (admin.socket of its config) with --socket", err)
	}
	if err != nil {
		return value, failure{err}
	}
	return value, nil
}

func (c *cli) printJSON(value any) error {
	e := json.NewEncoder(c.stdout)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(value); err != nil {
		return failure{fmt.Errorf("write JSON: %w", err)}
	}
	return nil
}
