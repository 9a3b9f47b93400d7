// Command tandem-lab runs Tandem in a network of its own on this machine: a platform,
// two carriers and the gateway between them, in network namespaces.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/tests/netlab"
)

func main() {
	// Until the clean-up is through, further signals change nothing.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	os.Exit(run(ctx, os.Stdout, os.Stderr, os.Args[1:]))
}

// run is the whole command: 0 is success, 1 a failure, 2 a wrong command line.
func run(ctx context.Context, stdout, stderr io.Writer, args []string) int {
	started := false
	root := &cobra.Command{
		Use:               "tandem-lab",
		Short:             "Run Tandem in a lab of network namespaces",
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRun:  func(*cobra.Command, []string) { started = true },
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.AddCommand(demoCommand(), benchCommand(), upCommand(), downCommand(), vmCommand())
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	if err := root.ExecuteContext(ctx); err != nil {
		var code exitCode
		if errors.As(err, &code) {
			return int(code)
		}
		fmt.Fprintf(stderr, "tandem-lab: %v\n", err)
		if !started {
			return 2
		}
		return 1
	}
	return 0
}

func downCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Remove what labs that were killed have left behind",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			removed, err := sweep(cmd.OutOrStdout())
			if err == nil && !removed {
				fmt.Fprintln(cmd.OutOrStdout(), "nothing to remove")
			}
			return err
		},
	}
}

// sweep removes stale labs and says which.
func sweep(out io.Writer) (removed bool, err error) {
	stale, err := netlab.Sweep()
	for _, id := range stale {
		fmt.Fprintf(out, "removed what lab %s had left behind\n", id)
	}
	return len(stale) > 0, err
}

// daemonFlag adds --daemon: the tandemd to run, by default the one beside this program.
func daemonFlag(cmd *cobra.Command) *string {
	path := "tandemd"
	if self, err := os.Executable(); err == nil {
		path = filepath.Join(filepath.Dir(self), "tandemd")
	}
	return cmd.Flags().String("daemon", path, "the tandemd to run")
}

// engine is the value of --engine.
type engine string

func (e *engine) String() string { return string(*e) }
func (e *engine) Type() string   { return "engine" }

func (e *engine) Set(value string) error {
	switch value {
	case call.EngineAuto, call.EngineKernel, call.EngineUserspace:
		*e = engine(value)
		return nil
	}
	return fmt.Errorf("want %s, %s or %s", call.EngineAuto, call.EngineKernel, call.EngineUserspace)
}

func engineFlag(cmd *cobra.Command) *engine {
	e := engine(call.EngineAuto)
	cmd.Flags().Var(&e, "engine", "what moves the media: auto, kernel or userspace")
	return &e
}
