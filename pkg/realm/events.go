package realm

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	// refreshInterval is no longer than the kernel's delay_first_probe_time (5 s): frames that
	// XDP sends do not tell the kernel that a neighbour is in use, so we do, and it asks
	// the neighbour as soon as the entry is no longer fresh.
	refreshInterval = 5 * time.Second
	// resubscribeDelay spaces attempts after netlink ended a subscription.
	resubscribeDelay = 100 * time.Millisecond
	// eventBuffer holds about 1,000 events, in bytes; more at once cost a full reading.
	eventBuffer = 1 << 20
	// flushDelay bounds how long route events that come in a row are taken in together, so
	// that a destination is looked up once for many.
	flushDelay = 20 * time.Millisecond
)

// errShort means that a message lacks its fixed part.
var errShort = errors.New("message is too short")

// Run follows the kernel's events until ctx is done.
func (n *Neighbours) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := n.subscribe(ctx); err != nil {
			n.log.Warn("netlink events interrupted: reading everything again", "error", err)
			select {
			case <-time.After(resubscribeDelay):
			case <-ctx.Done():
			}
		}
	}
	return nil
}

// subscribe is one subscription, from a full reading to its end. One socket for all kinds
// of events keeps them in the kernel's order.
func (n *Neighbours) subscribe(ctx context.Context) error {
	socket, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE,
		unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_NEXTHOP, unix.RTNLGRP_NEIGH)
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	messages, ended := make(chan syscall.NetlinkMessage, 256), make(chan error, 1)
	go func() { ended <- receive(socket, messages) }()
	defer func() {
		socket.Close()
		for range messages { // until the reader has seen it
		}
	}()
	if err := socket.SetReceiveBufferSize(eventBuffer, true); err != nil {
		return fmt.Errorf("event buffer: %w", err)
	}
	for i := range n.realms {
		if err := n.relink(i, false); err != nil {
			return err
		}
	}
	n.flush()
	flushed := time.Now()
	tick := time.NewTicker(n.refreshInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			n.refresh()
		case m, ok := <-messages:
			if !ok {
				return <-ended
			}
			if err := n.take(&m); err != nil {
				return err
			}
			if len(messages) > 0 && time.Since(flushed) < flushDelay {
				continue
			}
		}
		n.flush()
		flushed = time.Now()
	}
}

// receive hands over the kernel's messages until the socket is closed or has lost some.
func receive(socket *nl.NetlinkSocket, to chan<- syscall.NetlinkMessage) error {
	defer close(to)
	for {
		messages, from, err := socket.Receive()
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		if from.Pid != nl.PidKernel {
			continue
		}
		for _, m := range messages {
			to <- m
		}
	}
}

// take takes in one event.
func (n *Neighbours) take(m *syscall.NetlinkMessage) error {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return n.link(m.Data)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return n.address(m.Data)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return n.route(m.Data)
	case unix.RTM_NEWRULE, unix.RTM_DELRULE, unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP:
		n.doubtRoutes(everywhere)
		return nil
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		return n.entry(m.Data, m.Header.Type == unix.RTM_DELNEIGH)
	default:
		return nil
	}
}
