package ipsec

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The path of a socket has a bound (unix(7)), and names have not.
func TestFolders(t *testing.T) {
	long := strings.Repeat("n", 63)
	c, err := newCharon(DefaultRun, long, long, "/run/netns/x", DefaultCharon)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(c.socket()); n > maxSocket {
		t.Errorf("%s has %d characters", c.socket(), n)
	}
	if short(long) == short(long[:62]+"m") {
		t.Error("two names have one folder")
	}
	if got := short("carrier-a"); got != "carrier-a" {
		t.Errorf("short name is %s", got)
	}
	if _, err := newCharon("/"+strings.Repeat("d", 100), "gw", "carrier-a", "/run/netns/x", DefaultCharon); err == nil || !strings.Contains(err.Error(), "ipsec.run") {
		t.Errorf("error %v, want one with the remedy", err)
	}
}

// The instance's name is what systemd-escape makes of the folder's.
func TestUnitName(t *testing.T) {
	c, err := newCharon(DefaultRun, "gw1", "carrier-a", "/run/netns/x", DefaultCharon)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.unit(); got != `tandem-charon@gw1-carrier\x2da.service` {
		t.Errorf("unit %s", got)
	}
	if got := escape(".a_b.c:d"); got != `\x2ea_b.c:d` {
		t.Errorf("escaped %s", got)
	}
	c, err = newCharon("/tmp/run", "gw1", "carrier-a", "/run/netns/x", DefaultCharon)
	if err != nil || c.instance != "" {
		t.Errorf("instance %q, %v: the unit knows one folder alone", c.instance, err)
	}
}

// A number alone is no process: it may be another's by now.
func TestProcesses(t *testing.T) {
	own, err := lookUp(os.Getpid())
	if err != nil || own.pid != os.Getpid() || own.started == 0 {
		t.Fatalf("%v, %v", own, err)
	}
	if again, err := parseProcess(own.String()); err != nil || again != own {
		t.Errorf("%v, %v, want %v", again, err, own)
	}
	for _, bad := range []string{"", "1 1", "-5 3", "x 1", "12", "12 y", "99999999999 1"} {
		if p, err := parseProcess(bad); err == nil {
			t.Errorf("%q is %v", bad, p)
		}
	}
	c := charon{folder: t.TempDir()}
	if err := errors.Join(c.found(os.Getpid()), c.keep()); err != nil {
		t.Fatal(err)
	}
	if !c.running() {
		t.Error("we are not running")
	}
	// We are in the file, and are no charon: nobody may send us a signal.
	c = charon{folder: c.folder}
	if c.running() {
		t.Error("taken for a charon")
	}
	c.process = process{own.pid, own.started + 1}
	if c.running() {
		t.Error("taken for a process of another time")
	}
}

func FuzzParseProcess(f *testing.F) {
	f.Add("123 456\n")
	f.Add("0 0")
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := parseProcess(s); err == nil && p.pid < 2 {
			t.Errorf("%q is process %d", s, p.pid)
		}
	})
}

// Files of charon are for root alone, and its settings are those of the tunnels.
func TestPrepare(t *testing.T) {
	c := &charon{folder: filepath.Join(t.TempDir(), "gw", "carrier-a"), namespace: "/run/netns/tdm"}
	ike := validConfig().IKE
	if err := os.MkdirAll(c.folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.file(logFile), make([]byte, maxLog+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.prepare(ike); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(c.folder); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, err := os.Stat(c.file(logFile)); !os.IsNotExist(err) {
		t.Errorf("the long log is still in use: %v", err)
	}
	if target, err := os.Readlink(c.file(namespaceLink)); err != nil || target != c.namespace {
		t.Errorf("namespace %s, %v", target, err)
	}
	for _, name := range []string{settingsFile, environmentFile} {
		if info, err := os.Stat(c.file(name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	b, err := os.ReadFile(c.file(settingsFile))
	if err != nil {
		t.Fatal(err)
	}
	contains(t, string(b), "install_routes = no", "install_virtual_ip = no", "retransmit_base = 1\n", "retransmit_tries = 3\n",
		"retransmit_timeout = 2.000\n", "unix://"+c.socket(), "default = 1\n")
	if strings.Contains(string(b), "include") {
		t.Error("other files are read")
	}
}

func TestSweepWithoutCharons(t *testing.T) {
	if n, err := Sweep(filepath.Join(t.TempDir(), "none"), "gw", nil); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	run := t.TempDir()
	for _, realm := range []string{"kept", "gone"} {
		if err := os.MkdirAll(filepath.Join(run, "gw", realm), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	if n, err := Sweep(run, "gw", []string{"kept"}); n != 1 || err != nil || time.Since(start) > time.Second {
		t.Errorf("%d, %v after %s", n, err, time.Since(start))
	}
	if _, err := os.Stat(filepath.Join(run, "gw", "kept")); err != nil {
		t.Error(err)
	}
}
