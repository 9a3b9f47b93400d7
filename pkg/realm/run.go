package realm

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/call"
)

const (
	// passInterval is how long a change may stay that the kernel does not tell: of most kernel
	// parameters, of a namespace's name.
	passInterval = 5 * time.Second
	// settleDelay is how long events are gathered after the first one.
	settleDelay = 100 * time.Millisecond
)

// Run mends what others change until ctx is done: soon after the kernel's events, and every
// 5 s whatever they say. It calls the watcher.
func (n *Networks) Run(ctx context.Context) error {
	e := &listeners{events: make(chan struct{}, 1), open: make(map[*space]*nl.NetlinkSocket)}
	defer e.close()
	n.notify()
	for ctx.Err() == nil {
		n.listen(e)
		if err := n.pass(); err != nil {
			n.log.Error("networks cannot be kept as the config wants them", "error", err)
		}
		n.wait(ctx, e)
	}
	return nil
}

// wait returns when it is time for a pass.
func (n *Networks) wait(ctx context.Context, e *listeners) {
	late := time.NewTimer(passInterval)
	defer late.Stop()
	var settled <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-late.C:
			return
		case <-settled:
			return
		case <-n.retry:
			return
		case <-n.changed:
			n.notify()
		case <-e.events:
			if settled == nil {
				settled = time.After(settleDelay)
			}
		}
	}
}

// notify tells the watcher of realms that have changed.
func (n *Networks) notify() {
	var list []call.Realm
	n.mu.Lock()
	for _, k := range n.realms {
		if k.notified != k.version {
			k.notified = k.version
			list = append(list, k.status(n.node))
		}
	}
	n.mu.Unlock()
	if n.watcher == nil {
		return
	}
	for _, r := range list {
		n.watcher(r)
	}
}

// listen follows the events of home and of all namespaces that there are by now.
func (n *Networks) listen(e *listeners) {
	all := []uint{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV4_NETCONF}
	spaces := map[*space]func(*syscall.NetlinkMessage) bool{n.home: n.concerned.by}
	n.mu.Lock()
	for _, k := range n.realms {
		if k.outer != nil {
			spaces[k.outer] = func(*syscall.NetlinkMessage) bool { return true }
		}
	}
	n.mu.Unlock()
	for s, matters := range spaces {
		if err := e.listen(s, all, matters); err != nil {
			n.log.Warn("network events not followed: looking every "+passInterval.String(), "namespace", s.file.Name(), "error", err)
		}
	}
}

// listeners follow the events of namespaces.
type listeners struct {
	events chan struct{}
	mu     sync.Mutex
	open   map[*space]*nl.NetlinkSocket
	wait   sync.WaitGroup
}

// listen follows a namespace's events unless that is done already.
func (e *listeners) listen(s *space, groups []uint, matters func(*syscall.NetlinkMessage) bool) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.open[s] != nil {
		return nil
	}
	var socket *nl.NetlinkSocket
	err := s.do(func() (err error) {
		socket, err = nl.Subscribe(unix.NETLINK_ROUTE, groups...)
		return err
	})
	if err != nil {
		return err
	}
	err = socket.SetReceiveBufferSize(eventBuffer, true)
	if errors.Is(err, unix.EPERM) { // who only looks may do without the privilege
		err = socket.SetReceiveBufferSize(eventBuffer, false)
	}
	if err != nil {
		socket.Close()
		return err
	}
	e.open[s] = socket
	e.wait.Add(1)
	go func() {
		defer e.wait.Done()
		e.follow(socket, matters)
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.open[s] == socket {
			delete(e.open, s) // the next pass listens again
			socket.Close()
		}
	}()
	return nil
}

// follow hands on that something happened until the socket is closed or broken.
func (e *listeners) follow(socket *nl.NetlinkSocket, matters func(*syscall.NetlinkMessage) bool) {
	for {
		messages, from, err := socket.Receive()
		if err != nil && !errors.Is(err, unix.ENOBUFS) { // some were lost: the pass sees it all
			return
		}
		if err == nil && from.Pid != nl.PidKernel {
			continue
		}
		happened := err != nil
		for i := range messages {
			happened = happened || matters(&messages[i])
		}
		if !happened {
			continue
		}
		signal(e.events)
	}
}

func (e *listeners) close() {
	e.mu.Lock()
	for s, socket := range e.open {
		delete(e.open, s)
		socket.Close()
	}
	e.mu.Unlock()
	e.wait.Wait()
}

// concerned tells which of a namespace's events matter: a host may have a million routes, and
// containers that come and go.
type concerned struct {
	mu      sync.Mutex
	names   map[string]bool
	indexes map[uint32]bool
	tables  map[uint32]bool
}

// devicesOfInterest are the devices at home that realms want, and their tables.
func (n *Networks) devicesOfInterest() (names map[string]bool, tables map[uint32]bool) {
	names, tables = make(map[string]bool), make(map[uint32]bool)
	for _, k := range n.realms {
		names[k.Device()] = true
		for _, c := range k.places() {
			names[c.Interface] = true
		}
		if !k.managed() {
			continue
		}
		tables[uint32(k.table())] = true
		for _, c := range k.claims() {
			names[c.device] = true
		}
	}
	return names, tables
}

func (c *concerned) set(home *space, names map[string]bool, tables map[uint32]bool) {
	indexes := make(map[uint32]bool)
	for name := range names {
		if d := home.devices[name]; d != nil {
			indexes[uint32(d.index)] = true
		}
	}
	c.mu.Lock()
	c.names, c.indexes, c.tables = names, indexes, tables
	c.mu.Unlock()
}

// by reports whether an event matters; what cannot be read does.
func (c *concerned) by(m *syscall.NetlinkMessage) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		index, name, err := parseLink(m.Data)
		return err != nil || c.indexes[index] || c.names[name]
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		a, err := parseAddress(m.Data)
		return err != nil || c.indexes[uint32(a.index)]
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		r, err := parseRoute(m.Data)
		return err != nil || c.tables[uint32(r.table)] || r.proto == protocol
	default:
		return true
	}
}
