// Command tandem shows a running gateway and checks config files.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"
)

var version = "unknown" // set by the build

func main() { os.Exit(mainStatus()) }

func mainStatus() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends what does not look at ctx, e.g. reading a pipe
	return run(ctx, env{
		stdout: os.Stdout, stderr: os.Stderr, terminal: term.IsTerminal(int(os.Stdout.Fd())), getenv: os.Getenv, now: time.Now, version: version,
	}, os.Args[1:])
}

// env is the world as a command sees it, so that whole commands run in tests.
type env struct {
	stdout, stderr io.Writer
	// terminal says that stdout is one, whose cursor may be moved.
	terminal bool
	getenv   func(string) string
	now      func() time.Time
	// refresh is the time between two looks of --watch; 0 is a second.
	refresh time.Duration
	version string
}
