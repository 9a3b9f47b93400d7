package vmlab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Kernels are the series that machines can boot: the one that the product ships with, and
// the oldest that it supports.
var Kernels = []string{"6.12", "6.1"}

// DefaultMemory of a machine, in QEMU's notation.
const DefaultMemory = "2G"

// Options say what runs in which machine.
type Options struct {
	// Kernel is one of [Kernels], "" the first of them.
	Kernel string
	// Memory of the machine in QEMU's notation, "" is [DefaultMemory].
	Memory string
	// Share is the folder that the machine sees at its own path, to read and write; ""
	// is the Go module around Dir. Of a command elsewhere, its folder is shared too.
	Share string
	// Dir is the command's working directory, in Share; "" is the caller's.
	Dir string
	// Command and its arguments. Without a slash it is looked for in the machine's PATH.
	Command []string
	// Env is added to what the command gets of the caller's environment: GO* and TANDEM_*.
	Env []string
	// Stdout and Stderr get the command's output as it comes. If both are the same, the
	// order of what is written to them stays.
	Stdout, Stderr io.Writer
	// Progress gets a line about each thing that takes long; nil is nowhere.
	Progress io.Writer
	// Console gets the messages of the machine's kernel; nil is nowhere.
	Console io.Writer
}

// Run boots a machine, runs the command in it as root and returns its exit code, or 128
// and the number of the signal that ended it. It is an error when there is no exit code:
// the machine did not boot, its kernel crashed, ctx ended (then [context.Cause] is in the
// error). The machine is gone when Run returns.
func Run(ctx context.Context, o Options) (exitCode int, err error) {
	if err := o.complete(); err != nil {
		return 0, err
	}
	shares, err := o.shares()
	if err != nil {
		return 0, err
	}
	assets, err := prepare(ctx, o.Progress)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, assets.Close()) }()

	dir, remove, err := newFolder()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	control := filepath.Join(dir, "control")
	if err := writeControl(control, o, shares); err != nil {
		return 0, fmt.Errorf("telling the machine what to run: %w", err)
	}

	m := machine{options: o, assets: assets, dir: dir, control: control, shares: shares}
	if hardware() {
		code, err := m.run(ctx, "kvm")
		if !errors.Is(err, errNotBooted) || ctx.Err() != nil {
			return code, err
		}
		fmt.Fprintln(o.Progress, "tandem vm: KVM does not boot the kernel, emulating instead")
	}
	return m.run(ctx, "tcg,thread=multi")
}

// complete puts in the defaults and refuses what cannot be.
func (o *Options) complete() error {
	if len(o.Command) == 0 {
		return errors.New("no command for the machine")
	}
	if o.Kernel == "" {
		o.Kernel = Kernels[0]
	}
	if !slices.Contains(Kernels, o.Kernel) {
		return fmt.Errorf("no kernel %q: want one of %s", o.Kernel, strings.Join(Kernels, ", "))
	}
	if o.Memory == "" {
		o.Memory = DefaultMemory
	}
	for _, w := range []*io.Writer{&o.Stdout, &o.Stderr, &o.Progress, &o.Console} {
		if *w == nil {
			*w = io.Discard
		}
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return err
	}
	o.Dir = dir
	if o.Share == "" {
		o.Share, err = moduleRoot(o.Dir)
	} else {
		o.Share, err = filepath.Abs(o.Share)
	}
	return err
}

// moduleRoot is the folder of the go.mod that dir belongs to.
func moduleRoot(dir string) (string, error) {
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("no go.mod in %s or above: say which folder to share", dir)
		}
	}
}
