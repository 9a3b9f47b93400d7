package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/tandem-sbc/tandem/tests/vmlab"
)

// demoInMachine runs the demo in a virtual machine, whose kernel has what this one lacks, and
// brings its result out.
func demoInMachine(ctx context.Context, cmd *cobra.Command, d *demo, out string) (err error) {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	daemon, err := filepath.Abs(d.daemon)
	if err != nil {
		return err
	}
	// Beside the program, since that folder is the machine's too.
	result, err := os.CreateTemp(filepath.Dir(self), ".demo-*.json")
	if err != nil {
		return fmt.Errorf("result: %w", err)
	}
	defer func() { err = errors.Join(err, result.Close(), removeIfThere(result.Name())) }()
	args := []string{
		self, "demo", "--daemon", daemon, "--engine", d.engine, "--out", result.Name(), "--written", out, "--calls", strconv.Itoa(d.calls),
		"--rate", strconv.FormatFloat(d.rate, 'f', -1, 64), "--live=" + strconv.FormatBool(d.live),
	}
	code, err := vmlab.Run(ctx, vmlab.Options{
		Command: args, Share: filepath.Dir(self), Dir: filepath.Dir(self),
		Stdout: cmd.OutOrStdout(), Stderr: cmd.ErrOrStderr(), Progress: cmd.ErrOrStderr(),
	})
	if err != nil {
		return fmt.Errorf("the demo's virtual machine: %w", err)
	}
	// A run that failed has a result, too, if it came that far.
	data, err := os.ReadFile(result.Name())
	switch {
	case errors.Is(err, os.ErrNotExist):
		err = nil
	case err == nil && len(data) > 0:
		err = writeResult(out, data)
	}
	if err == nil && code != 0 {
		return exitCode(code) // the demo has said why
	}
	return err
}

// removeIfThere removes a file.
func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
