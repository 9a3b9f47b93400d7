package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tandem-sbc/tandem/pkg/admin"
	"github.com/tandem-sbc/tandem/pkg/config"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(configEnv); path != "" {
		os.Exit(runDaemon(path))
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if err := os.Remove(filepath.Join(lockFolder, testNode+".lock")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		os.Exit(code)
	}))
}

// testNode is no other's: a node has one daemon at a time on a host.
var testNode = fmt.Sprintf("tdmapp%d", os.Getpid())

// loopback is a gateway on lo that needs no rights.
func loopback(t *testing.T, device string) *config.Config {
	t.Helper()
	dir := t.TempDir()
	cfg, err := config.Parse("test.yaml", fmt.Appendf(nil, `
node: %s
engine: userspace
drain: 5s
log: {level: error, format: json}
realms:
  - {name: here, network: existing, interface: %s, address: 127.0.0.1/8, sip_port: 25060, media_ports: 17000-17099}
trunks:
  - {name: peer, realm: here, kind: carrier, targets: [127.0.0.9]}
routes:
  - {name: all, trunk: peer}
metrics: {address: ""}
admin: {socket: %s/admin.sock}
cdr: {file: %s/cdr.jsonl}
`, testNode, device, dir, dir))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// H6: an idle daemon ends at the first SIGTERM, without an error and without remains.
func TestStartsAndStops(t *testing.T) {
	cfg := loopback(t, "lo")
	signals := make(chan os.Signal, 1)
	ended := make(chan error, 1)
	go func() { ended <- Run(t.Context(), cfg, nil, "v0", signals) }()

	api := admin.NewClient(cfg.Admin.Socket)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		status, err := api.Status(ctx)
		if err == nil {
			if status.State != admin.Running || status.Version != "v0" || status.EngineReason == "" {
				t.Errorf("status %+v", status)
			}
			break
		}
		select {
		case err := <-ended:
			t.Fatalf("the daemon ended: %v", err)
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal(err)
		}
	}
	signals <- syscall.SIGTERM
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(cfg.Admin.Socket); !os.IsNotExist(err) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

// What is missing is named with its remedy, and what was opened before is closed again.
func TestCannotStart(t *testing.T) {
	t.Run("no such interface", func(t *testing.T) {
		err := Run(t.Context(), loopback(t, "tdmnone"), nil, "v0", nil)
		if err == nil || !strings.Contains(err.Error(), "realm here") || !strings.Contains(err.Error(), "ip link") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("the admin socket's folder is missing", func(t *testing.T) {
		cfg := loopback(t, "lo")
		cfg.Admin.Socket = filepath.Join(t.TempDir(), "none", "admin.sock")
		// Twice: the first attempt must have given the SIP port and the record file back.
		for range 2 {
			err := Run(t.Context(), cfg, nil, "v0", nil)
			if err == nil || !strings.Contains(err.Error(), cfg.Admin.Socket) {
				t.Errorf("error %v", err)
			}
		}
	})
}

func TestLogFormat(t *testing.T) {
	for format, want := range map[string]string{"json": `{"time"`, "auto": `{"time"`, "human": "time="} {
		var out bytes.Buffer
		log, err := newLogger(config.Log{Level: "info", Format: format}, &out)
		if err != nil {
			t.Fatal(err)
		}
		log.Debug("not this")
		log.Info("this")
		if !strings.HasPrefix(out.String(), want) || strings.Contains(out.String(), "not this") {
			t.Errorf("format %s gives %q", format, out.String())
		}
	}
	if _, err := newLogger(config.Log{Level: "loud"}, &bytes.Buffer{}); err == nil {
		t.Error("an unknown level is taken")
	}
}

// An error that goes on is told once, and again when it is another or has been away.
func TestLastError(t *testing.T) {
	busy, gone := errors.New("busy"), errors.New("gone")
	var told lastError
	for i, step := range []struct {
		err  error
		want bool
	}{{nil, false}, {busy, true}, {busy, false}, {gone, true}, {nil, false}, {gone, true}} {
		if got := told.changes(step.err); got != step.want {
			t.Errorf("step %d, %v: told is %t", i, step.err, got)
		}
	}
}
