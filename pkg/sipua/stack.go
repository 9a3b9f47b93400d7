package sipua

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// Errors of the package; all may be tested for with errors.Is.
var (
	// ErrClosed: the stack has been closed.
	ErrClosed = errors.New("sipua: closed")
	// ErrBusy: there are too many transactions or legs; nothing was sent.
	ErrBusy = errors.New("sipua: too many transactions")
	// ErrPending: an INVITE of either side is still unanswered or not acknowledged,
	// so that another one may not be sent (RFC 3261 section 14.1). A peer would hear 491.
	ErrPending = errors.New("sipua: another INVITE is pending")
	// ErrNotPending: there is nothing to answer or to acknowledge, or not any more.
	ErrNotPending = errors.New("sipua: no INVITE is pending")
	// ErrUnreachable: the kernel has no route to the target. It is wrapped together with the
	// syscall.Errno.
	ErrUnreachable = errors.New("sipua: no way to")
	// ErrNoResponse: no final response came within 64*T1 (RFC 3261 section 17.1.2.2, timer F).
	ErrNoResponse = errors.New("sipua: no response")
	// ErrTransport: the target's transport is not one of the stack's.
	ErrTransport = errors.New("sipua: unsupported transport")
)

// Bounds of a stack's memory: beyond them a request is answered with 503.
const (
	maxTransactions = 262144
	maxDialogs      = 65536
)

// Stack is the SIP user agent of one realm.
type Stack struct {
	cfg  Config
	conn *net.UDPConn
	// transmit hands one message to the transport.
	transmit func(b []byte, to netip.AddrPort) error
	addr     netip.AddrPort
	// host and hostPort are addr as it is written in headers.
	host, hostPort string
	// agent is a User-Agent or Server value, with its line end, or empty.
	agent string
	count counters

	mu      sync.Mutex
	closed  bool // no transaction and no goroutine starts any more
	ending  bool // no call starts any more
	servers map[serverKey]*serverTx
	merges  map[mergeKey]*serverTx
	clients map[clientKey]*clientTx
	dialogs map[dialogKey]*leg

	quit     chan struct{}  // closed with closed
	calls    sync.WaitGroup // goroutines of the Handler
	internal sync.WaitGroup // all others
}

// Listen binds the realm's socket. The stack serves it once Run is called.
func Listen(cfg Config) (*Stack, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	conn, err := listenUDP(&cfg)
	if err != nil {
		return nil, err
	}
	addr := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	s := &Stack{
		cfg: cfg, conn: conn, addr: addr, host: addr.Addr().String(), hostPort: addr.String(),
		count:   counters{methods: methodCounters()},
		servers: make(map[serverKey]*serverTx),
		merges:  make(map[mergeKey]*serverTx),
		clients: make(map[clientKey]*clientTx),
		dialogs: make(map[dialogKey]*leg),
		quit:    make(chan struct{}),
	}
	if s.transmit, err = sender(conn); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if cfg.UserAgent != "" {
		s.agent = cfg.UserAgent + "\r\n"
	}
	return s, nil
}

// Addr is where the stack listens.
func (s *Stack) Addr() netip.AddrPort { return s.addr }

// Run serves until ctx is done; then it ends the legs that are left (BYE, CANCEL
// or 503, sent once), waits for the Handler's goroutines and its own, and closes
// the socket. It returns nil then. A stack runs once.
func (s *Stack) Run(ctx context.Context) error {
	s.internal.Go(s.read)
	<-ctx.Done()
	s.mu.Lock()
	s.ending = true
	legs := make([]*leg, 0, len(s.dialogs))
	for _, l := range s.dialogs {
		legs = append(legs, l)
	}
	s.mu.Unlock()
	for _, l := range legs {
		l.shutdown()
	}
	s.calls.Wait()
	return s.Close()
}

// Close ends everything at once, without a word to the peers. It is for a stack
// that is not run; Run calls it by itself.
func (s *Stack) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed, s.ending = true, true
	close(s.quit)
	servers, clients := s.servers, s.clients
	s.servers, s.clients = map[serverKey]*serverTx{}, map[clientKey]*clientTx{}
	s.mu.Unlock()
	err := s.conn.Close()
	for _, tx := range servers {
		tx.fsm.Terminate()
	}
	for _, tx := range clients {
		tx.fsm.Terminate()
	}
	s.internal.Wait()
	return err
}

// spawn runs f on a goroutine that the stack waits for; false if it is closed.
func (s *Stack) spawn(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.internal.Go(f)
	return true
}

// after runs f after d, unless the stack is closed by then.
func (s *Stack) after(d time.Duration, f func()) *time.Timer {
	return time.AfterFunc(d, func() {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return
		}
		s.internal.Add(1)
		s.mu.Unlock()
		defer s.internal.Done()
		f()
	})
}

// Dial sends an INVITE to the target and returns its leg; what comes of it is told
// by the leg's events. An error means that nothing was sent.
func (s *Stack) Dial(target call.Target, invite call.Invite) (call.Leg, error) {
	if target.Transport != "" && target.Transport != "udp" {
		return nil, ErrTransport
	}
	return s.dial(target.Addr, &invite)
}
