package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tandem-sbc/tandem/tests/vmlab"
)

// What "vm" exits with when the command has no exit code of its own, as timeout(1) does.
const (
	exitTimeout     = 124
	exitFailure     = 125
	exitInterrupted = 128 + int(syscall.SIGINT)
)

// exitCode ends the program with that status and no further words.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func vmCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "vm [flags] COMMAND [ARGUMENT...]",
		Short: "Run a command in a virtual machine whose kernel has VLAN, VRF and IPsec",
		Long: `Run a command as root in a virtual machine whose kernel has VLAN, VRF and IPsec.

The machine sees the Go module around the working directory at its own path, to read and
write. The command gets GO* and TANDEM_* of the environment; its output and its exit code
are those of "vm". 124 is the end of the time limit, 125 a machine that failed.

Tests run in it with: CGO_ENABLED=0 go test -exec "$PWD/bin/tandem-lab vm" ./pkg/realm`,
		Args: cobra.MinimumNArgs(1),
	}
	flags := cmd.Flags()
	// What follows COMMAND is the command's.
	flags.SetInterspersed(false)
	kernel := flags.String("kernel", vmlab.Kernels[0], "series of the kernel: "+strings.Join(vmlab.Kernels, " or "))
	memory := flags.String("memory", vmlab.DefaultMemory, "memory of the machine")
	timeout := flags.Duration("timeout", 15*time.Minute, "time limit, the machine's boot included")
	share := flags.String("share", "", "the folder to share (default: the Go module around the working directory)")
	console := flags.String("console", "", "a file for what the machine's kernel says")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		o := vmlab.Options{
			Kernel: *kernel, Memory: *memory, Share: *share, Command: args,
			Stdout: cmd.OutOrStdout(), Stderr: cmd.ErrOrStderr(), Progress: cmd.ErrOrStderr(),
		}
		if *console != "" {
			f, err := os.Create(*console)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, f.Close()) }()
			o.Console = f
		}
		// What go test sends to a test that is over its time.
		ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGQUIT)
		defer stop()
		ctx, cancel := context.WithTimeoutCause(ctx, *timeout, fmt.Errorf("no end within %v: %w", *timeout, context.DeadlineExceeded))
		defer cancel()
		code, err := vmlab.Run(ctx, o)
		if err != nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "tandem-lab vm: %v\n", err)
			code = failureCode(err)
		}
		if code != 0 {
			return exitCode(code)
		}
		return nil
	}
	return cmd
}

// failureCode is for a machine that has brought no exit code.
func failureCode(err error) int {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return exitTimeout
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	return exitFailure
}
