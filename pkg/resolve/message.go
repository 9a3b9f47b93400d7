package resolve

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// maxMessage bounds an answer over TCP: a few hundred records.
	maxMessage = 16 << 10
	// maxDatagram is what an answer over UDP may have without fragments on common paths.
	maxDatagram = 1232
	// maxRecords bounds what of an answer is looked at.
	maxRecords = 512
	// maxAliases bounds a chain of CNAME records.
	maxAliases = 8

	// TTLs are kept in bounds: a short one would make us ask all the time, a long one
	// keep what was changed long ago.
	shortestTTL = 5 * time.Second
	longestTTL  = time.Hour
)

var (
	// errForeign means that a message is not the answer to our question.
	errForeign = errors.New("not an answer to what was asked")
	// errTruncated means that the answer is longer than a datagram.
	errTruncated = errors.New("the answer is truncated")
	errAliases   = fmt.Errorf("more than %d aliases", maxAliases)
)

// rcodeError is a server's refusal to answer (RFC 1035 section 4.1.1).
type rcodeError struct{ code dnsmessage.RCode }

func (e rcodeError) Error() string {
	return "the server says " + strings.TrimPrefix(e.code.String(), "RCode")
}

// question is what is asked: the records of one type of a name in lower case, with its
// final dot.
type question struct {
	name string
	kind dnsmessage.Type
}

// answer is what a server says. No records, and no alias to go on with, means that there
// are none.
type answer struct {
	records []record
	ttl     time.Duration // of the shortest-lived record that was used
	alias   string        // where the chain of aliases ended
	aliases int
	denied  bool // the name does not exist
}

// record is an A record or, with a host, an SRV record.
type record struct {
	addr             netip.Addr
	host             string
	port             uint16
	priority, weight uint16
}

// pack writes the question as a message.
func (q question) pack(id uint16, edns bool) ([]byte, error) {
	name, err := dnsmessage.NewName(q.name)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", q.name, err)
	}
	msg := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: name, Type: q.kind, Class: dnsmessage.ClassINET}},
	}
	if edns { // RFC 6891
		opt := dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(".")}, Body: &dnsmessage.OPTResource{}}
		if err := opt.Header.SetEDNS0(maxDatagram, dnsmessage.RCodeSuccess, false); err != nil {
			return nil, fmt.Errorf("EDNS: %w", err)
		}
		msg.Additionals = []dnsmessage.Resource{opt}
	}
	packed, err := msg.Pack()
	if err != nil {
		return nil, fmt.Errorf("%q: %w", q.name, err)
	}
	return packed, nil
}

// parse reads the answer to a question. Only the answer section counts, and in it only
// what belongs to the name that was asked or to its aliases (RFC 5452 section 6).
func (q question) parse(msg []byte, id uint16) (answer, error) {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || !h.Response || h.ID != id || h.OpCode != 0 {
		return answer{}, errForeign
	}
	questions, err := p.AllQuestions()
	// Servers that do not know EDNS may leave the question out of their error.
	isRefusal := len(questions) == 0 && (h.RCode == dnsmessage.RCodeFormatError || h.RCode == dnsmessage.RCodeNotImplemented)
	if err != nil || !isRefusal && (len(questions) != 1 || !q.is(questions[0])) {
		return answer{}, errForeign
	}
	switch {
	case h.Truncated:
		return answer{}, errTruncated
	case h.RCode != dnsmessage.RCodeSuccess && h.RCode != dnsmessage.RCodeNameError:
		return answer{}, rcodeError{h.RCode}
	}
	s, err := readSection(&p, q.kind)
	if err != nil {
		return answer{}, fmt.Errorf("bad answer: %w", err)
	}
	a, err := s.follow(q.name)
	a.denied = h.RCode == dnsmessage.RCodeNameError
	return a, err
}

func (q question) is(asked dnsmessage.Question) bool {
	return asked.Type == q.kind && asked.Class == dnsmessage.ClassINET && canonical(asked.Name) == q.name
}

// canonical is how names are compared: case does not count (RFC 4343).
func canonical(n dnsmessage.Name) string { return strings.ToLower(n.String()) }

// isPlain keeps names that nobody uses out of questions, logs and terminals.
func isPlain(name string) bool { return len(name) > 1 && strings.Trim(name, nameLetters+".") == "" }

// section is the answer section by owner.
type section struct {
	records map[string][]record
	aliases map[string]string
	ttl     map[string]time.Duration
}

func readSection(p *dnsmessage.Parser, kind dnsmessage.Type) (section, error) {
	s := section{make(map[string][]record), make(map[string]string), make(map[string]time.Duration)}
	for range maxRecords {
		h, err := p.AnswerHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return s, nil
		}
		if err != nil {
			return s, err
		}
		if err := s.read(p, h, kind); err != nil {
			return s, err
		}
	}
	return s, nil
}

// read takes the record at hand.
func (s section) read(p *dnsmessage.Parser, h dnsmessage.ResourceHeader, kind dnsmessage.Type) error {
	owner := canonical(h.Name)
	switch {
	case h.Class != dnsmessage.ClassINET:
		return p.SkipAnswer()
	case h.Type == dnsmessage.TypeCNAME:
		r, err := p.CNAMEResource()
		if err != nil {
			return err
		}
		alias := canonical(r.CNAME)
		if !isPlain(alias) {
			return fmt.Errorf("%q is no alias for a host", alias)
		}
		s.aliases[owner] = alias
	case h.Type == dnsmessage.TypeA && kind == dnsmessage.TypeA:
		r, err := p.AResource()
		if err != nil {
			return err
		}
		if addr := netip.AddrFrom4(r.A); isHost(addr) {
			s.records[owner] = append(s.records[owner], record{addr: addr})
		}
	case h.Type == dnsmessage.TypeSRV && kind == dnsmessage.TypeSRV:
		r, err := p.SRVResource()
		if err != nil {
			return err
		}
		s.records[owner] = append(s.records[owner], record{host: canonical(r.Target), port: r.Port, priority: r.Priority, weight: r.Weight})
	default:
		return p.SkipAnswer()
	}
	s.shorten(owner, h.TTL)
	return nil
}

// shorten notes the TTL of an owner's record. One with the top bit set is 0 (RFC 2181
// section 8).
func (s section) shorten(owner string, seconds uint32) {
	if int32(seconds) < 0 {
		seconds = 0
	}
	ttl := min(max(time.Duration(seconds)*time.Second, shortestTTL), longestTTL)
	if before, found := s.ttl[owner]; !found || ttl < before {
		s.ttl[owner] = ttl
	}
}

// follow goes from a name along its aliases to the records.
func (s section) follow(name string) (answer, error) {
	a := answer{ttl: longestTTL, alias: name}
	for {
		if ttl, found := s.ttl[a.alias]; found {
			a.ttl = min(a.ttl, ttl)
		}
		a.records = s.records[a.alias]
		next, found := s.aliases[a.alias]
		if len(a.records) > 0 || !found {
			return a, nil
		}
		if a.aliases++; a.aliases > maxAliases {
			return answer{}, errAliases
		}
		a.alias = next
	}
}
