package scenarios

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tandem-sbc/tandem/tests/dnsd"
	"github.com/tandem-sbc/tandem/tests/netlab"
)

// nameServer is the DNS of carrier-a, at alpha's address whoever else is there.
type nameServer struct {
	*dnsd.Server
	// zone has the records of each name that a story has told of.
	zone map[string][]string
}

// ttl of all records in seconds. The gateway keeps them for 5 s at least.
const ttl = 1

// dns is "dns NAME PEER...".
func (s *stage) dns(_ *testscript.TestScript, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	if len(args) == 1 {
		return s.answer("", nil)
	}
	var records []string
	for _, word := range args[1:] {
		at, ok := places[word]
		if !ok {
			return errUsage
		}
		records = append(records, fmt.Sprintf("%s. %d IN A %s", args[0], ttl, at.addr))
	}
	return s.answer(args[0], records)
}

// srv is "srv NAME [PEER PRIORITY WEIGHT]...".
func (s *stage) srv(_ *testscript.TestScript, args []string) error {
	if len(args) < 4 || len(args)%3 != 1 {
		return errUsage
	}
	var records []string
	for record := range slices.Chunk(args[1:], 3) {
		at, ok := places[record[0]]
		if !ok {
			return errUsage
		}
		for _, number := range record[1:] {
			if _, err := strconv.ParseUint(number, 10, 16); err != nil {
				return err
			}
		}
		host := record[0] + "." + args[0]
		records = append(records,
			fmt.Sprintf("_sip._udp.%s. %d IN SRV %s %s %d %s.", args[0], ttl, record[1], record[2], sipPort, host),
			fmt.Sprintf("%s. %d IN A %s", host, ttl, at.addr))
	}
	return s.answer(args[0], records)
}

// answer has the DNS say something of a name, or nothing of any as long as there are no records.
func (s *stage) answer(name string, records []string) error {
	if s.names == nil {
		names, err := s.serveNames()
		if err != nil {
			return err
		}
		s.names = names
	}
	s.names.Mute(records == nil)
	if records == nil {
		return nil
	}
	s.names.zone[name] = records
	return s.names.Replace(slices.Concat(slices.Collect(maps.Values(s.names.zone))...)...)
}

func (s *stage) serveNames() (*nameServer, error) {
	at := places["alpha"]
	var conn net.PacketConn
	err := s.Do(at.host, func() (err error) {
		conn, err = net.ListenPacket("udp4", netip.AddrPortFrom(at.addr, 53).String())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("DNS of %s: %w", netlab.CarrierA, err)
	}
	return &nameServer{dnsd.Start(conn), make(map[string][]string)}, nil
}

func (n *nameServer) close() {
	if n != nil {
		_ = n.Close() // the story is over
	}
}
