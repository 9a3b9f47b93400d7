package ipsec

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// stubborn is a charon that has a connection and an SA of a former tunnel, and refuses some requests.
type stubborn struct {
	mu       sync.Mutex
	refuses  []string
	requests []string
}

func (s *stubborn) answer(conn net.Conn, command string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, command)
	var events, reply []byte
	switch {
	case slices.Contains(s.refuses, command):
		reply = append(keyValue("success", "no"), keyValue("errmsg", "not now")...)
	case command == "get-conns":
		reply = append([]byte{viciList, 5}, "conns"...)
		reply = append(append(reply, viciItem, 0, 6), "former"...)
		reply = append(reply, viciListEnd)
	case command == "list-sas":
		body := append([]byte{viciStart, 6}, "former"...)
		body = append(append(body, keyValue("uniqueid", "7")...), viciEnd)
		events = packet(viciEvent, "list-sa", body)
	}
	_, _ = conn.Write(append(events, packet(viciResponse, "", reply)...))
}

func (s *stubborn) set(refuses ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuses, s.requests = refuses, nil
}

func (s *stubborn) asked(command string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, r := range s.requests {
		if r == command {
			n++
		}
	}
	return n
}

// stubbornKeeper is connected to a charon in our own namespace, whose folder cannot be written.
func stubbornKeeper(t *testing.T, s *stubborn) (*keeper, *logBuffer) {
	t.Helper()
	k, log := testKeeper(t), &logBuffer{}
	k.log = slog.New(slog.NewTextHandler(log, nil))
	k.charon.folder, k.charon.namespace = filepath.Join(t.TempDir(), "full"), "/proc/self/ns/net"
	if err := k.charon.found(os.Getpid()); err != nil {
		t.Fatal(err)
	}
	k.client, k.watcher = connected(t, serve(t, s.answer)), connected(t, serve(t, s.answer))
	return k, log
}

// Files that cannot be written and requests that are refused take no tunnel down, and are told once.
func TestListingInSpiteOfRefusals(t *testing.T) {
	s := &stubborn{refuses: []string{"unload-conn"}}
	k, log := stubbornKeeper(t, s)
	for range 3 {
		if sas, err := k.ask(t.Context(), time.Now()); err != nil || len(sas) != 1 || !k.stale {
			t.Fatalf("%+v, %v; stale is %v", sas, err, k.stale)
		}
	}
	if n := strings.Count(log.String(), "not in line with the config"); n != 1 {
		t.Errorf("told %d times:\n%s", n, log)
	}
}

// SAs that are to be ended stay on the list until they were.
func TestRetireIsTriedAgain(t *testing.T) {
	s := &stubborn{refuses: []string{"terminate"}}
	k, _ := stubbornKeeper(t, s)
	if err := k.update(t.Context(), time.Now()); err == nil || !slices.Equal(k.replaced, []string{"former"}) {
		t.Fatalf("%v to be ended, error %v", k.replaced, err)
	}
	// What else is refused does not keep them.
	s.set("unload-conn")
	if err := k.update(t.Context(), time.Now()); err == nil || len(k.replaced) != 0 || s.asked("terminate") != 1 {
		t.Errorf("%v to be ended after %d requests, error %v", k.replaced, s.asked("terminate"), err)
	}
}

// What is wrong with manual keys is not charon's to forget.
func TestLoadLeavesManualTunnels(t *testing.T) {
	k, _ := stubbornKeeper(t, &stubborn{})
	wrong := errors.New("line 1")
	k.tunnels = append(k.tunnels, &tunnel{Tunnel: Tunnel{Config: Config{Name: "other", Keying: Manual}}, blocked: wrong})
	if err := k.update(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if got := k.tunnels[1].blocked; !errors.Is(got, wrong) {
		t.Errorf("blocked by %v", got)
	}
	k.tunnels[0].blocked = nil
	if k.reviewDue(time.Now()) {
		t.Error("charon is asked for the sake of manual keys")
	}
}

// A look at the kernel that fails says nothing about a manual tunnel; several in a row do.
func TestManualLookThatFails(t *testing.T) {
	k := testKeeper(t)
	file := filepath.Join(t.TempDir(), "namespace")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	x, now := k.tunnels[0], time.Unix(1e9, 0)
	x.manual = newManual(x.Tunnel, us, file, k.log)
	x.manual.wanted = []stateID{{}}
	x.move(true, now)
	for range maxUnread {
		if k.lookManual(t.Context(), x, now); x.state != call.TunnelUp {
			t.Fatalf("%s after a look that failed", x.state)
		}
	}
	if k.lookManual(t.Context(), x, now); x.state == call.TunnelUp {
		t.Errorf("%s after %d looks that failed", x.state, maxUnread+1)
	}
}

// Nothing is ended while policies cannot be pointed to the SA that stays.
func TestSupersedeWaits(t *testing.T) {
	young, old := childOf("2", time.Minute), childOf("1", time.Hour)
	old.In, old.Out = 1001, 2001
	rekeyed := old
	rekeyed.ID, rekeyed.State = "0", "REKEYED"
	for name, c := range map[string]struct {
		sas    []ikeSA
		states func(*tunnel) []state
	}{
		"the kernel has no such SA": {[]ikeSA{ikeOf("1", "a", time.Hour, old, young)}, func(*tunnel) []state { return nil }},
		"keys change":               {[]ikeSA{ikeOf("1", "a", time.Hour, old, young, rekeyed)}, kernelOf},
	} {
		t.Run(name, func(t *testing.T) {
			log := &logBuffer{}
			k := testKeeper(t)
			k.log = slog.New(slog.NewTextHandler(log, nil))
			x := k.tunnels[0]
			stays, superfluous := settle(carrying(x.Name, "", c.sas))
			x.take(stays, time.Now())
			// The namespace is missing, and that would be told.
			if k.supersede(t.Context(), x, superfluous, c.sas, c.states(x), time.Now()); len(superfluous) != 1 || log.String() != "" {
				t.Errorf("%d superfluous, log %s", len(superfluous), log)
			}
		})
	}
}
