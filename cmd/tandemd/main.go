// Command tandemd is the gateway's daemon: it reads one config and carries calls until it
// is told to stop. The kernel engine's programs stay for the next one; --unload removes them.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/tandem-sbc/tandem/pkg/app"
	"github.com/tandem-sbc/tandem/pkg/config"
)

var version = "unknown" // set by the build

func main() { os.Exit(run()) }

func run() int {
	file := flag.String("config", "/etc/tandem/tandem.yaml", "the config `file`")
	unload := flag.Bool("unload", false, "take away what a daemon with this config left in the kernel, and end")
	printVersion := flag.Bool("version", false, "print the version and end")
	flag.Parse()
	if *printVersion {
		fmt.Println("tandemd", version)
		return 0
	}
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "tandemd: unexpected argument %q: name the config with --config\n", flag.Arg(0))
		return 2
	}

	cfg, err := config.Load(*file)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if *unload {
		err = app.Unload(cfg, os.Stdout)
	} else {
		signals := make(chan os.Signal, 2)
		signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
		err = app.Run(context.Background(), cfg, func() (*config.Config, error) { return config.Load(*file) }, version, signals)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "tandemd: %v\n", err)
		return 1
	}
	return 0
}
