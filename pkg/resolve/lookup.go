package resolve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sync/errgroup"
)

const (
	// longestLookup bounds all questions about one name together.
	longestLookup = time.Minute
	// longestLack is how long a host of an SRV record is believed to have no address. It has no
	// TTL of its own, and the SRV records' may be long.
	longestLack = time.Minute
	// maxQuestions bounds how many hosts of one SRV name are asked about at once.
	maxQuestions = 8
)

var (
	errNoSuchName = errors.New("the name does not exist")
	errNoAddress  = errors.New("the name has no IPv4 address")
	errWithdrawn  = errors.New("the peer says by SRV that it does not offer this service here")
)

// asker answers a question: client.ask, or a test.
type asker func(context.Context, question) (answer, error)

// found is what DNS says about a target.
type found struct {
	set Set
	ttl time.Duration
	// denied says why there are no targets: DNS has answered, and there are none.
	denied error
	// missing says what is not known of a set that has targets nevertheless.
	missing error
}

// find asks about a target (RFC 3263 section 4.2): by SRV if it has no port, and by
// addresses if it has one or there is no SRV record. An error means that DNS has not
// answered. last has the addresses of hosts about which alone it has not.
func (ask asker) find(ctx context.Context, t Target, via Transport, last Set) (found, error) {
	ctx, cancel := context.WithTimeout(ctx, longestLookup)
	defer cancel()
	name := t.Host + "."
	if t.Port != 0 {
		return ask.findHost(ctx, name, t.Port)
	}
	srv, err := ask.chase(ctx, question{via.service() + name, dnsmessage.TypeSRV})
	switch {
	case err != nil:
		return found{}, err
	case len(srv.records) == 0:
		return ask.findHost(ctx, name, via.port())
	case len(srv.records) == 1 && srv.records[0].host == ".": // RFC 2782, "Target"
		return found{denied: errWithdrawn}, nil
	}
	return ask.findHosts(ctx, srv, last)
}

// findHost asks for the addresses of a name that has no SRV record.
func (ask asker) findHost(ctx context.Context, name string, port uint16) (found, error) {
	a, err := ask.chase(ctx, question{name, dnsmessage.TypeA})
	switch {
	case err != nil:
		return found{}, err
	case a.denied:
		return found{denied: errNoSuchName}, nil
	case len(a.records) == 0:
		return found{denied: errNoAddress}, nil
	}
	return found{set: newSet(endpoints(record{host: name, port: port}, a.records)), ttl: a.ttl}, nil
}

// findHosts asks for the addresses of all hosts of SRV records. The additional section
// could have them, but need not have all.
func (ask asker) findHosts(ctx context.Context, srv answer, last Set) (found, error) {
	records := usable(srv.records)
	hosts := hostsOf(records)
	answers, errs := make([]answer, len(hosts)), make([]error, len(hosts))
	var g errgroup.Group
	g.SetLimit(maxQuestions)
	for i, host := range hosts {
		g.Go(func() error {
			answers[i], errs[i] = ask.chase(ctx, question{host, dnsmessage.TypeA})
			return nil // one host without an answer does not end the others' questions
		})
	}
	_ = g.Wait()

	f := found{ttl: srv.ttl, missing: errors.Join(errs...)}
	var all []Endpoint
	for _, r := range records {
		i := slices.Index(hosts, r.host)
		if errs[i] != nil {
			all = append(all, last.of(r)...)
			continue
		}
		f.ttl = min(f.ttl, answers[i].ttl)
		if len(answers[i].records) == 0 {
			f.ttl = min(f.ttl, longestLack)
		}
		all = append(all, endpoints(r, answers[i].records)...)
	}
	f.set = newSet(all)
	switch {
	case f.set.Len() > 0:
		return f, nil
	case f.missing != nil:
		return found{}, f.missing
	}
	return found{denied: fmt.Errorf("%w: no host of its SRV records has one", errNoAddress)}, nil
}

// usable leaves out records that no call could go to, and keeps those that the peer
// prefers if there are more than a set takes.
func usable(records []record) []record {
	records = slices.DeleteFunc(slices.Clone(records), func(r record) bool {
		_, err := parseName(r.host)
		return r.port == 0 || err != nil
	})
	slices.SortStableFunc(records, func(a, b record) int {
		return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(a.host, b.host), cmp.Compare(a.port, b.port))
	})
	return records[:min(len(records), maxEndpoints)]
}

func hostsOf(records []record) []string {
	var hosts []string
	for _, r := range records {
		if !slices.Contains(hosts, r.host) {
			hosts = append(hosts, r.host)
		}
	}
	return hosts
}

// endpoints are the addresses of an SRV record's host.
func endpoints(r record, addresses []record) []Endpoint {
	list := make([]Endpoint, len(addresses))
	for i, a := range addresses {
		list[i] = r.endpoint(a)
	}
	return list
}

func (r record) endpoint(a record) Endpoint {
	return Endpoint{Addr: netip.AddrPortFrom(a.addr, r.port), Host: strings.TrimSuffix(r.host, "."), Priority: r.priority, Weight: r.weight}
}

// of are the endpoints that a record's host had before.
func (s Set) of(r record) []Endpoint {
	var list []Endpoint
	for _, e := range s.endpoints {
		if now := r.endpoint(record{addr: e.Addr.Addr()}); e.Host == now.Host && !slices.Contains(list, now) {
			list = append(list, now)
		}
	}
	return list
}

// chase asks, and asks again where an alias led out of what the server knows.
func (ask asker) chase(ctx context.Context, q question) (answer, error) {
	ttl, aliases := longestTTL, 0
	for {
		a, err := ask(ctx, q)
		if err != nil {
			return answer{}, err
		}
		a.ttl = min(a.ttl, ttl)
		aliases += a.aliases
		if len(a.records) > 0 || a.denied || a.alias == q.name {
			return a, nil
		}
		if aliases > maxAliases {
			return answer{}, fmt.Errorf("%s: %w", q.name, errAliases)
		}
		q.name, ttl = a.alias, a.ttl
	}
}
