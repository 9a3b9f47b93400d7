package ipsec

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/strongswan/govici/vici"
	"golang.org/x/sys/unix"
)

const (
	// requestTimeout bounds every request that charon answers at once.
	requestTimeout = 5 * time.Second
	// dialTimeout bounds a connection with its subscriptions.
	dialTimeout = 2 * requestTimeout
	// maxPacket is charon's own bound on a VICI packet (VICI_MESSAGE_SIZE_MAX).
	maxPacket = 512 << 10
	// maxItems bounds what one listing may stream, maxLine what is kept of a log line.
	maxItems = 4096
	maxLine  = 1024
)

// errOversized ends a connection on which a packet above maxPacket is announced.
var errOversized = errors.New("VICI packet is larger than charon may send")

// errTruncated is of a listing that may be without its last items.
var errTruncated = errors.New("list-sas: more security associations than can be read")

// client is a connection to one charon, for one goroutine.
//
// Listings are read as events that the connection has subscribed to, not by govici's
// CallStreaming: that takes replies and events from two channels, and so may take a
// listing for ended with its last items unread, which here would be a tunnel taken
// for down (v0.8.0).
type client struct {
	session *vici.Session
	items   chan vici.Event
	// pid is the process that listens on the socket.
	pid int
}

// listings are the events that requests of client.list are answered by.
var listings = []string{"list-sa", "control-log"}

// notices are the events that charon is watched by.
var notices = []string{"ike-updown", "child-updown", "ike-rekey", "child-rekey", "log"}

// dial connects to the charon behind a socket and subscribes to events.
func dial(ctx context.Context, socket string, events []string) (*client, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c := &client{items: make(chan vici.Event, maxItems)}
	bounded := &boundedConn{}
	session, err := vici.NewSession(vici.WithSocketPath(socket), vici.WithDialContext(
		func(_ context.Context, network, addr string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			if c.pid, err = peer(conn); err != nil {
				return nil, errors.Join(err, conn.Close())
			}
			bounded.Conn = conn
			bounded.deaf.Store(true)
			return bounded, nil
		}))
	if err != nil {
		return nil, fmt.Errorf("connect to charon: %w", err)
	}
	c.session = session
	session.NotifyEvents(c.items)
	// Subscribe takes no context.
	watched := context.AfterFunc(ctx, func() { bounded.Close() })
	err = session.Subscribe(events...)
	if !watched() {
		err = errors.Join(ctx.Err(), err)
	}
	if err != nil {
		session.Close()
		return nil, fmt.Errorf("subscribe to events of charon: %w", err)
	}
	bounded.deaf.Store(false)
	return c, nil
}

func (c *client) close() error { return c.session.Close() }

// silent is true for the errors of a charon that does not answer; one whose queue of connections
// is full (EAGAIN of connect) does not either.
func silent(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, unix.EAGAIN)
}

// peer is the process at the other end of a Unix socket (SO_PEERCRED).
func peer(conn net.Conn) (int, error) {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, fmt.Errorf("%T is no Unix socket", conn)
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, fmt.Errorf("process behind charon's socket: %w", credErr)
	}
	return int(cred.Pid), nil
}

// call makes a request that has one reply.
func (c *client) call(ctx context.Context, command string, in *vici.Message) (*vici.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	reply, err := c.session.Call(ctx, command, in)
	switch {
	case err != nil && reply != nil:
		return nil, refusal{fmt.Errorf("%s: %w", command, err)}
	case err != nil:
		return nil, fmt.Errorf("%s: %w", command, err)
	}
	return reply, nil
}

// refusal is an error that charon has answered with: it is well, and does not want that.
type refusal struct{ error }

// Unwrap implements what errors.Is needs.
func (r refusal) Unwrap() error { return r.error }

// sas lists the security associations.
func (c *client) sas(ctx context.Context) ([]ikeSA, error) {
	c.drain()
	if _, err := c.call(ctx, "list-sas", nil); err != nil {
		return nil, err
	}
	events := c.drain()
	if len(events) == cap(c.items) {
		return nil, errTruncated
	}
	var sas []ikeSA
	for _, e := range events {
		if e.Name == "list-sa" {
			sas = append(sas, parseIKEs(e.Message)...)
		}
	}
	return sas, nil
}

// drain takes what has arrived. All items of a listing are there when its reply is:
// one goroutine reads both, in the order in which charon sends them.
func (c *client) drain() []vici.Event {
	var events []vici.Event
	for {
		select {
		case e, ok := <-c.items:
			if !ok {
				return events
			}
			events = append(events, e)
		default:
			return events
		}
	}
}

// names reads a reply's list of names, such as get-conns'.
func (c *client) names(ctx context.Context, command, key string) ([]string, error) {
	reply, err := c.call(ctx, command, nil)
	if err != nil {
		return nil, err
	}
	return list(reply, key), nil
}

// terminate ends an IKE_SA ("ike-id") or a CHILD_SA ("child-id") without waiting for
// the peer; with force it does not even wait in the background.
func (c *client) terminate(ctx context.Context, kind, id string, force bool) error {
	in, err := message("timeout", "-1", "loglevel", "-1", kind, id)
	if err != nil {
		return err
	}
	if force {
		if err := in.Set("force", "yes"); err != nil {
			return err
		}
	}
	_, err = c.call(ctx, "terminate", in)
	return err
}

// initiate makes one attempt at a tunnel, on a connection of its own since it takes as
// long as it takes. It returns what charon said about it.
func initiate(ctx context.Context, socket, tunnel string, timeout time.Duration) (lines []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout+requestTimeout)
	defer cancel()
	c, err := dial(ctx, socket, []string{"control-log"})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	in, err := message("ike", tunnel, "child", tunnel, "timeout", strconv.FormatInt(timeout.Milliseconds(), 10), "loglevel", "1")
	if err != nil {
		return nil, err
	}
	_, err = c.session.Call(ctx, "initiate", in)
	for _, e := range c.drain() {
		if line := text(e.Message, "msg"); e.Name == "control-log" && line != "" {
			lines = append(lines, line)
		}
	}
	return lines, err
}

// message makes a flat message of keys and values.
func message(pairs ...any) (*vici.Message, error) {
	m := vici.NewMessage()
	for i := 0; i+1 < len(pairs); i += 2 {
		key, ok := pairs[i].(string)
		if !ok {
			return nil, fmt.Errorf("VICI key %v is no text", pairs[i])
		}
		if err := m.Set(key, pairs[i+1]); err != nil {
			return nil, fmt.Errorf("VICI message, %s: %w", key, err)
		}
	}
	return m, nil
}

// packetEvent is the type of an event's packet, its first byte.
const packetEvent = 7

// boundedConn refuses to read a packet that is larger than charon may send: govici
// takes its four bytes of length at their word.
type boundedConn struct {
	net.Conn
	// deaf is true while events are dropped: govici's Subscribe waits for its confirmation with a
	// lock that the delivery of an event takes, and so would wait for ever (v0.8.0).
	deaf   atomic.Bool
	header [5]byte
	// pending are bytes of header still to be delivered, body counts those behind it.
	pending []byte
	body    int
}

// Read implements net.Conn.
func (b *boundedConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(b.pending) == 0 && b.body == 0 {
		if err := b.next(); err != nil {
			return 0, err
		}
	}
	if len(b.pending) > 0 {
		n := copy(p, b.pending)
		b.pending = b.pending[n:]
		return n, nil
	}
	n, err := b.Conn.Read(p[:min(len(p), b.body)])
	b.body -= n
	return n, err
}

// next reads the length of the next packet and its type. An event that nobody is to hear leaves
// nothing to deliver.
func (b *boundedConn) next() error {
	length, kind := b.header[:4], b.header[4:]
	if _, err := io.ReadFull(b.Conn, length); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(length)
	if size > maxPacket {
		return errOversized
	}
	if size == 0 {
		b.pending = length
		return nil
	}
	if _, err := io.ReadFull(b.Conn, kind); err != nil {
		return err
	}
	if kind[0] == packetEvent && b.deaf.Load() {
		_, err := io.CopyN(io.Discard, b.Conn, int64(size)-1)
		return err
	}
	b.pending, b.body = b.header[:], int(size)-1
	return nil
}

// ikeSA is an IKE_SA as list-sas has it.
type ikeSA struct {
	// Name is the connection's, ID what terminate takes.
	Name, ID string
	State    string
	// Initiator and Responder are the SPIs, in hexadecimal.
	Initiator, Responder string
	// Ours is true if we are the initiator.
	Ours bool
	// NAT is true if one of the two sides is behind one.
	NAT bool
	// Age is since it was established.
	Age time.Duration
	// Proposal is what was agreed on, e.g. "AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_384".
	Proposal string
	Children []childSA
}

// childSA is a CHILD_SA of list-sas.
type childSA struct {
	Name, ID string
	State    string
	In, Out  uint32
	IfID     uint32
	Age      time.Duration
	Proposal string
}

// States of SAs that matter here; charon has more.
const (
	ikeConnecting  = "CONNECTING"
	ikeEstablished = "ESTABLISHED"
	childInstalled = "INSTALLED"
)

// answered is true if the peer has said anything.
func (s ikeSA) answered() bool { return strings.Trim(s.Responder, "0") != "" }

// parseIKEs reads one list-sa event, or an ike-updown one: sections by connection.
func parseIKEs(m *vici.Message) []ikeSA {
	var sas []ikeSA
	for _, s := range sections(m) {
		sa := ikeSA{
			Name: clip(s.name), ID: text(s.body, "uniqueid"), State: text(s.body, "state"),
			Initiator: text(s.body, "initiator-spi"), Responder: text(s.body, "responder-spi"),
			Ours: text(s.body, "initiator") == "yes",
			NAT:  text(s.body, "nat-local") == "yes" || text(s.body, "nat-remote") == "yes",
			Age:  seconds(s.body, "established"),
			Proposal: proposal(s.body, "encr-alg", "encr-keysize", "integ-alg", "integ-keysize") +
				proposal(s.body, "prf-alg", "") + proposal(s.body, "dh-group", ""),
		}
		sa.Proposal = strings.TrimPrefix(sa.Proposal, "/")
		for _, c := range sections(section(s.body, "child-sas")) {
			child := childSA{
				Name: text(c.body, "name"), ID: text(c.body, "uniqueid"), State: text(c.body, "state"),
				In: hexNumber(c.body, "spi-in"), Out: hexNumber(c.body, "spi-out"), IfID: hexNumber(c.body, "if-id-in"),
				Age: seconds(c.body, "install-time"),
				Proposal: proposal(c.body, "encr-alg", "encr-keysize", "integ-alg", "integ-keysize") +
					proposal(c.body, "dh-group", ""),
			}
			if text(c.body, "esn") == "1" {
				child.Proposal += "/ESN"
			}
			child.Proposal = strings.TrimPrefix(child.Proposal, "/")
			sa.Children = append(sa.Children, child)
		}
		sas = append(sas, sa)
	}
	return sas
}

// proposal is "/ALGORITHM-KEYSIZE" of each pair of keys that is there.
func proposal(m *vici.Message, pairs ...string) string {
	var b strings.Builder
	for i := 0; i+1 < len(pairs); i += 2 {
		if algorithm := text(m, pairs[i]); algorithm != "" {
			b.WriteString("/" + algorithm)
			if size := text(m, pairs[i+1]); size != "" {
				b.WriteString("-" + size)
			}
		}
	}
	return b.String()
}

type named struct {
	name string
	body *vici.Message
}

// sections are the parts of m that are sections, at most maxItems.
func sections(m *vici.Message) []named {
	if m == nil {
		return nil
	}
	var parts []named
	for _, key := range m.Keys() {
		if body := section(m, key); body != nil && len(parts) < maxItems {
			parts = append(parts, named{key, body})
		}
	}
	return parts
}

func section(m *vici.Message, key string) *vici.Message {
	if m == nil {
		return nil
	}
	s, _ := m.Get(key).(*vici.Message) // another kind counts as none
	return s
}

// text is a value as clipped text; empty if there is none.
func text(m *vici.Message, key string) string {
	if m == nil || key == "" {
		return ""
	}
	s, _ := m.Get(key).(string)
	return clip(s)
}

// clip bounds what is kept of a text, and leaves nothing in it that could forge a line of a log.
func clip(s string) string {
	if len(s) > maxLine {
		s = s[:maxLine]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

func list(m *vici.Message, key string) []string {
	if m == nil {
		return nil
	}
	l, _ := m.Get(key).([]string)
	return l[:min(len(l), maxItems)]
}

// seconds reads a whole number of seconds; nonsense is 0, and nobody is older than a year.
func seconds(m *vici.Message, key string) time.Duration {
	n, err := strconv.ParseUint(text(m, key), 10, 32)
	if err != nil {
		return 0
	}
	return time.Duration(min(n, 365*24*3600)) * time.Second
}

// hexNumber reads a 32-bit number in hexadecimal; nonsense is 0, which no SPI and no if_id is.
func hexNumber(m *vici.Message, key string) uint32 {
	n, err := strconv.ParseUint(strings.TrimPrefix(text(m, key), "0x"), 16, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}
