package resolve

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// maxForeign is how many datagrams that are no answer to the question are overlooked.
// More of them are somebody who guesses, whom TCP shuts out (RFC 5452 section 9).
const maxForeign = 16

var (
	errNoServers = errors.New("no DNS server is known: give the realm's dns.servers")
	errFlood     = fmt.Errorf("more than %d datagrams that answer nothing", maxForeign)
)

// client asks the servers.
type client struct {
	cfg        Config
	control    func(network, address string, c syscall.RawConn) error
	local      netip.Addr
	resolvConf string
	// first is the server that answered last: a dead one costs its timeout once.
	first atomic.Uint32
}

// server is one of the config's, which is asked through the realm, or one of the host's.
type server struct {
	addr   netip.AddrPort
	isHost bool
}

// servers are read anew each time where they are the host's: they may change.
func (c *client) servers() ([]server, error) {
	var list []server
	for _, text := range c.cfg.Servers {
		if addr, err := parseServer(text); err == nil {
			list = append(list, server{addr: addr})
		}
	}
	if len(list) > 0 {
		return list, nil
	}
	f, err := os.Open(c.resolvConf)
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", errNoServers, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", errNoServers, err)
	}
	for _, addr := range resolvConf(string(text)) {
		list = append(list, server{addr, true})
	}
	if len(list) == 0 {
		return nil, errNoServers
	}
	return list, nil
}

// ask asks each server in turn until one answers: with records, or that there are none.
func (c *client) ask(ctx context.Context, q question) (answer, error) {
	servers, err := c.servers()
	if err != nil {
		return answer{}, err
	}
	first := int(c.first.Load())
	for i := range c.cfg.Attempts * len(servers) {
		at := (first + i) % len(servers)
		a, askErr := c.exchange(ctx, servers[at], q)
		if askErr == nil {
			c.first.Store(uint32(at))
			return a, nil
		}
		err = fmt.Errorf("%s %s: %w", q.name, servers[at].addr, askErr)
		if ctx.Err() != nil {
			break
		}
	}
	return answer{}, err
}

// exchange asks one server: by UDP, and by TCP for what UDP cannot carry.
func (c *client) exchange(ctx context.Context, s server, q question) (answer, error) {
	a, err := c.udp(ctx, s, q, true)
	if refused := (rcodeError{}); errors.As(err, &refused) &&
		(refused.code == dnsmessage.RCodeFormatError || refused.code == dnsmessage.RCodeNotImplemented) {
		a, err = c.udp(ctx, s, q, false) // it may not know EDNS (RFC 6891 section 7)
	}
	if errors.Is(err, errTruncated) || errors.Is(err, errFlood) {
		return c.tcp(ctx, s, q)
	}
	return a, err
}

// udp asks from a new socket, whose port the kernel draws; being connected it takes
// nothing from other addresses than the server's.
func (c *client) udp(ctx context.Context, s server, q question, edns bool) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	conn, err := c.dial(ctx, "udp", s)
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	id, msg, err := q.ask(edns)
	if err != nil {
		return answer{}, err
	}
	if _, err := conn.Write(msg); err != nil {
		return answer{}, err
	}
	buf := make([]byte, maxMessage)
	for range maxForeign {
		n, err := conn.Read(buf)
		if err != nil {
			return answer{}, err
		}
		a, err := q.parse(buf[:n], id)
		if !errors.Is(err, errForeign) {
			return a, err
		}
	}
	return answer{}, errFlood
}

// tcp asks with a length before each message (RFC 1035 section 4.2.2).
func (c *client) tcp(ctx context.Context, s server, q question) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	conn, err := c.dial(ctx, "tcp", s)
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	id, msg, err := q.ask(true)
	if err != nil {
		return answer{}, err
	}
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...)); err != nil {
		return answer{}, err
	}
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return answer{}, err
	}
	n := binary.BigEndian.Uint16(length[:])
	if n > maxMessage {
		return answer{}, fmt.Errorf("the answer has %d bytes, more than %d", n, maxMessage)
	}
	reply := make([]byte, n)
	if _, err := io.ReadFull(conn, reply); err != nil {
		return answer{}, err
	}
	return q.parse(reply, id)
}

// ask writes the question under an id that nobody can foresee (RFC 5452 section 9.2).
func (q question) ask(edns bool) (id uint16, msg []byte, err error) {
	var random [2]byte
	_, _ = rand.Read(random[:]) // never fails
	id = binary.BigEndian.Uint16(random[:])
	msg, err = q.pack(id, edns)
	return id, msg, err
}

// dial opens a socket to a server that ends with ctx: from the realm to the config's
// servers, as any program would to the host's.
func (c *client) dial(ctx context.Context, network string, s server) (net.Conn, error) {
	var d net.Dialer
	if !s.isHost {
		d.Control = c.control
		d.LocalAddr = c.localAddr(network)
	}
	conn, err := d.DialContext(ctx, network, s.addr.String())
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(c.cfg.Timeout)); err != nil {
		conn.Close()
		return nil, err
	}
	return cancelled{conn, context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })}, nil
}

// cancelled is a connection on which nobody waits any more once its context has ended.
type cancelled struct {
	net.Conn
	release func() bool
}

// Close implements net.Conn.
func (c cancelled) Close() error {
	c.release()
	return c.Conn.Close()
}

func (c *client) localAddr(network string) net.Addr {
	switch {
	case !c.local.IsValid():
		return nil
	case network == "tcp":
		return net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.local, 0))
	default:
		return net.UDPAddrFromAddrPort(netip.AddrPortFrom(c.local, 0))
	}
}
