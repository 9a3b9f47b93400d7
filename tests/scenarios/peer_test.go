package scenarios

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tandem-sbc/tandem/tests/netlab"
)

// peer is one that is called, and behaves in a certain way.
type peer struct {
	// sipp is nil for one that is silent or dead.
	sipp *agent
	// socket takes what comes to one that is silent.
	socket net.PacketConn
}

// ringing is how long a callee rings before it says how it ends.
const ringing = 100 * time.Millisecond

// peer is "peer NAME BEHAVIOUR".
func (s *stage) peer(_ *testscript.TestScript, args []string) error {
	if len(args) < 2 {
		return errUsage
	}
	at, ok := places[args[0]]
	if !ok {
		return errUsage
	}
	if was := s.peers[args[0]]; was != nil {
		was.leave(args[1] != "dead")
	}
	p := &peer{}
	s.peers[args[0]] = p
	switch args[1] {
	case "dead":
		return nil
	case "silent":
		return s.Do(at.host, func() (err error) {
			p.socket, err = net.ListenPacket("udp4", netip.AddrPortFrom(at.addr, sipPort).String())
			return err
		})
	}
	xml, err := behaviour(args[1], args[2:])
	if err != nil {
		return err
	}
	p.sipp, err = s.sipp(s.t.Context(), at, sipPort, xml)
	if err != nil {
		return err
	}
	return s.listening(at, p.sipp)
}

// behaviour is the scenario of a callee.
func behaviour(word string, args []string) (string, error) {
	switch word {
	case "answer":
		after := time.Duration(0)
		if len(args) == 2 && args[0] == "after" {
			var err error
			if after, err = time.ParseDuration(args[1]); err != nil {
				return "", err
			}
		} else if len(args) != 0 {
			return "", errUsage
		}
		return callee(response(180, false), pause(after), answers()), nil
	case "late":
		if len(args) != 1 {
			return "", errUsage
		}
		after, err := time.ParseDuration(args[0])
		return callee(pause(after), answers()), err
	case "ring":
		return callee(response(180, false), cancelled()), nil
	case "trying":
		return callee(message(false, false, "SIP/2.0 100 Trying", "[last_Via:]", "[last_From:]", "[last_To:]", "[last_Call-ID:]", "[last_CSeq:]"),
			cancelled()), nil
	case "redirect":
		return callee(refuses(302, "Contact: <sip:elsewhere@192.0.2.1>")), nil
	case "reject", "ring-then", "early-then":
		if len(args) == 0 {
			return "", errUsage
		}
		status, err := strconv.Atoi(args[0])
		if err != nil {
			return "", err
		}
		var before string
		switch word {
		case "ring-then":
			before = response(180, false) + pause(ringing)
		case "early-then":
			before = response(183, true) + pause(ringing)
		}
		return callee(before, refuses(status, args[1:]...)), nil
	}
	return "", errUsage
}

// finishing is how long a peer may take to finish its calls when it is to behave otherwise.
const finishing = time.Second

// leave ends the peer: at once, or when its calls are done. How it ends is no matter.
func (p *peer) leave(orderly bool) {
	if p.socket != nil {
		_ = p.socket.Close()
	}
	if p.sipp == nil {
		return
	}
	if orderly {
		// SIPp's "finish and exit": until then it takes no new calls, and does not say so.
		_ = p.sipp.Stop(syscall.SIGUSR1, finishing)
	}
	_ = p.sipp.Stop(syscall.SIGKILL, finishing)
}

// sipPort of the peers; mediaPort is what they name in their descriptions. There is no media,
// but SIPp binds some ports from there on.
const (
	sipPort   = 5060
	mediaPort = 40000
)

// agent is a SIPp process.
type agent struct {
	*netlab.Process
	// said is what it printed; read it only when the process is done.
	said *bytes.Buffer
}

// wait returns when it has ended by itself.
func (a *agent) wait() error {
	if err := a.Wait(); err != nil {
		return fmt.Errorf("sipp: %w: %s", err, bytes.TrimSpace(a.said.Bytes()[max(0, a.said.Len()-2000):]))
	}
	return nil
}

// sipp runs SIPp at a place.
func (s *stage) sipp(ctx context.Context, at place, port uint16, xml string, args ...string) (*agent, error) {
	dir, err := os.MkdirTemp(s.Dir(), "sipp-*")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "scenario.xml"), []byte(xml), 0o644); err != nil {
		return nil, err
	}
	p := s.Command(ctx, at.host, "sipp", append([]string{
		"-sf", "scenario.xml", "-nostdin", "-i", at.addr.String(), "-p", strconv.Itoa(int(port)),
		"-mi", at.addr.String(), "-mp", strconv.Itoa(mediaPort + 10*int(port-sipPort)),
		"-buff_size", strconv.Itoa(4 << 20), "-max_recv_loops", "1000", "-timer_resol", "1",
	}, args...)...)
	a := &agent{p, new(bytes.Buffer)}
	a.Dir, a.Stdout, a.Stderr = dir, a.said, a.said
	return a, a.Start()
}

// listening waits until a callee has its socket.
func (s *stage) listening(at place, callee *agent) error {
	// The kernel's own list: an attempt to bind the port would be in SIPp's way.
	addr := at.addr.As4()
	want := fmt.Appendf(nil, "%02X%02X%02X%02X:%04X", addr[3], addr[2], addr[1], addr[0], sipPort)
	return s.until("SIPp to listen", func(context.Context) (string, error) {
		var table []byte
		err := s.Do(at.host, func() (err error) {
			table, err = os.ReadFile("/proc/thread-self/net/udp")
			return err
		})
		select {
		case <-callee.Done():
			return "", errors.Join(err, callee.wait())
		default:
		}
		if err == nil && !bytes.Contains(table, want) {
			return "it does not", nil
		}
		return "", err
	})
}

// cable is "cable HOST out|in".
func (s *stage) cable(_ *testscript.TestScript, args []string) error {
	if len(args) != 2 || netlab.RealmOf(args[0]).Name == "" {
		return errUsage
	}
	state := map[string]string{"out": "down", "in": "up"}[args[1]]
	if _, err := s.ip(args[0], "link", "set", netlab.PeerDevice, state); err != nil || state == "down" {
		return err
	}
	// The kernel takes up to a second until an end that is up sends anything.
	return s.until("the cable to carry", func(context.Context) (string, error) {
		shown, err := s.ip(args[0], "link", "show", netlab.PeerDevice)
		if err == nil && !strings.Contains(shown, "state UP") {
			return shown, nil
		}
		return "", err
	})
}

// routed is "routed NETWORK PEER".
func (s *stage) routed(_ *testscript.TestScript, args []string) error {
	if len(args) != 2 || !places[args[1]].addr.IsValid() {
		return errUsage
	}
	_, err := s.ip(netlab.Gateway, "route", "add", args[0], "via", places[args[1]].addr.String())
	return err
}

// ip runs "ip" in a host and returns what it printed.
func (s *stage) ip(host string, args ...string) (string, error) {
	var out bytes.Buffer
	p := s.Command(s.t.Context(), host, "ip", args...)
	p.Stdout, p.Stderr = &out, &out
	if err := p.Run(); err != nil {
		return "", fmt.Errorf("ip %v in %s: %w: %s", args, host, err, out.Bytes())
	}
	return out.String(), nil
}
