package netlab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// startTimeout bounds how long the daemon may take until its API answers; an emulated
// machine needs most of it.
const startTimeout = 120 * time.Second

// Daemon is a tandemd that runs in the gateway's host.
type Daemon struct {
	*Process
	// Socket is the path of its admin API, Config that of its config.
	Socket, Config string

	log *tail
}

// StartGateway writes the config, runs the daemon with it in the gateway's host, and
// returns when its admin socket takes connections. Its log goes to log too, if that is
// not nil. A daemon that ends instead is an error that ends with what it said.
func (l *Lab) StartGateway(ctx context.Context, binary string, o GatewayOptions, log io.Writer) (*Daemon, error) {
	config, err := l.GatewayConfig(o)
	if err != nil {
		return nil, err
	}
	return l.StartDaemon(ctx, binary, config, log)
}

// StartDaemon is [Lab.StartGateway] with a config that is ready.
func (l *Lab) StartDaemon(ctx context.Context, binary string, config []byte, log io.Writer) (*Daemon, error) {
	file := filepath.Join(l.dir, "tandem.yaml")
	if err := os.WriteFile(file, config, 0o644); err != nil {
		return nil, fmt.Errorf("gateway config: %w", err)
	}
	// The daemon outlives ctx's end by its drain: the lab's Close, not the context, kills it.
	p := l.Command(context.WithoutCancel(ctx), Gateway, binary, "--config", file)
	said := &tail{next: log}
	p.Stdout, p.Stderr = said, said
	if err := p.Start(); err != nil {
		return nil, err
	}
	d := &Daemon{Process: p, Socket: l.AdminSocket(), Config: file, log: said}
	if err := d.ready(ctx); err != nil {
		return nil, errors.Join(err, p.Stop(syscall.SIGKILL, time.Second))
	}
	return d, nil
}

func (d *Daemon) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", d.Socket)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-d.Done():
			return fmt.Errorf("the daemon ended at its start: %w\n%s", d.Wait(), d.Said())
		case <-ctx.Done():
			return fmt.Errorf("the daemon's API is not there (%w): %w\n%s", err, ctx.Err(), d.Said())
		case <-tick.C:
		}
	}
}

// Said is the end of what the daemon has logged.
func (d *Daemon) Said() string { return d.log.String() }

// tail passes on what is written to it, if there is anybody, and keeps the end.
type tail struct {
	next io.Writer

	mu   sync.Mutex
	kept []byte
}

const tailSize = 16 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - tailSize; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	if t.next != nil {
		return t.next.Write(p)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.kept))
}
