// Package scenarios tells what issue 5 asks of trunks as stories: each file of testdata is
// one, a testscript with the config it is about. Real SIPp peers in network namespaces call
// each other through a real tandemd, and what counts is what packet captures saw at the
// peers. It needs root and bin/ (make build).
//
// The peers are the carriers alpha, altona, aurich and ahlen (all in the realm carrier-a), beta
// and bravo (both in carrier-b), and on the side of the contact centre platform, which calls,
// plaza and pier; a config has the address of one as $alpha. Besides testscript's own, these are
// the commands:
//
//	realm NAME LINE             gives a realm of the config a further line; before gateway
//	repeat FIRST LAST FILE      prints FILE, each line with "<n>" once for each number
//	check FILE                  has tandem check read the config that gateway would start with
//	gateway FILE [within D]     starts the gateway with the trunks, groups and routes of FILE
//	reload [--dry-run] FILE     has it take FILE in their place, by tandem reload
//	drain                       sends it SIGTERM
//	ended                       waits until it has ended
//	tandem ARG...               runs the tandem command against it
//	shows PATTERN ARG...        runs it again and again until its output matches
//
//	peer NAME BEHAVIOUR         makes a peer behave so from now on:
//	  answer [after D]            rings and answers
//	  late D                      gives no response for D, then answers
//	  ring                        rings until it is cancelled
//	  trying                      says 100 and nothing more until it is cancelled
//	  reject CODE [HEADER]        refuses
//	  ring-then CODE [HEADER]     rings, then refuses
//	  early-then CODE [HEADER]    says 183 with early media, then refuses
//	  redirect                    says 302
//	  silent                      takes all and says nothing
//	  dead                        is not there: its host says "port unreachable"
//	cable HOST out|in           pulls the cable of platform, carrier-a or carrier-b, or plugs it in
//	routed NETWORK PEER         has the gateway's host send a network's packets by a peer, who
//	                            takes them and does nothing with them
//	dns NAME PEER...            has the DNS of carrier-a answer so; without peers: nothing, to
//	                            nobody, until the next word
//	srv NAME [PEER PRIORITY WEIGHT]...
//	                            the same with SRV records for SIP over UDP
//
//	call N [OPTION]...          calls PREFIX1, PREFIX2, ... from the platform:
//	  rate R                      so many a second
//	  from PEER                   from another peer
//	  to PREFIX                   to numbers that begin so
//	  number NUMBER               to this number always
//	  seen PREFIX                 these are the numbers as the called peers see them
//	  meant NUMBER                To has this number, whatever the Request-URI has
//	  by NUMBER                   From has this number
//	  with HEADER                 the INVITE has this header besides
//	  hold D                      hangs up D after the answer
//	  cancel D                    gives up D after the call if nothing rings
//	  as WORD                     goes on in the background
//	done WORD                   waits for the calls of that word
//
// What follows is about the calls that were waited for last:
//
//	results STATUS:N...         what the caller was told, all of it
//	refusal HEADER PATTERN      every refusal that the caller got has such a header
//	received PEER HEADER PATTERN
//	                            every INVITE that a peer got has such a header, or Request-URI
//	shares PEER:N...            who answered, all of it; N may be + for some, or as 4-6
//	tries PEER:N...             who got an INVITE, all of it
//	hangups PEER:N...           who got a BYE, all of it
//	landed                      prints each number and who answered it
//	steady                      each caller was told one address for its media, all along
//	rings within D              the caller heard ringing so soon after its INVITE (p99)
//	fails within D              the caller was refused so soon after its INVITE (p99)
//
// And about the gateway:
//
//	await ringing|answered N    waits until so many calls are in that state
//	await calls N               waits until so many calls have come since the start
//	await TRUNK STATE [PATTERN] waits until a trunk is in a state, for a reason
//	scrape                      prints its metrics
//	metric NAME [LABEL=VALUE]... N
//	                            waits until its metrics of that name and those labels add up to N
//	records N                   waits for so many records that were not printed yet, and prints
//	                            them: "CODE SIP Q850 by WHO via TRUNK tried TRUNK=CODE,SIP ..."
//
// Every story ends with a look at the gateway: no call and no slot of a trunk is left.
package scenarios

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tandem-sbc/tandem/pkg/admin"
	"github.com/tandem-sbc/tandem/tests/netlab"
)

// patience is how long a story waits for what has to come; that of the gateway's end is its
// config's drain besides.
const patience = 30 * time.Second

// One story at a time: some of them measure.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "1"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// T2-T14: how calls find their way through the trunks of a group.
func TestStories(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("network namespaces need root: use `make test`")
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		Setup:               setUp,
		RequireExplicitExec: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"realm":    command((*stage).moreOfRealm),
			"gateway":  command((*stage).startGateway),
			"repeat":   command((*stage).repeat),
			"check":    command((*stage).check),
			"reload":   command((*stage).reload),
			"drain":    command((*stage).drain),
			"ended":    command((*stage).ended),
			"tandem":   command((*stage).tandem),
			"shows":    command((*stage).shows),
			"peer":     command((*stage).peer),
			"cable":    command((*stage).cable),
			"routed":   command((*stage).routed),
			"dns":      command((*stage).dns),
			"srv":      command((*stage).srv),
			"call":     command((*stage).call),
			"done":     command((*stage).done),
			"results":  command((*stage).results),
			"refusal":  command((*stage).refusal),
			"received": command((*stage).received),
			"shares":   command((*stage).shares),
			"tries":    command((*stage).tries),
			"hangups":  command((*stage).hangups),
			"landed":   command((*stage).landed),
			"steady":   command((*stage).steady),
			"rings":    command((*stage).rings),
			"fails":    command((*stage).fails),
			"await":    command((*stage).await),
			"scrape":   command((*stage).scrape),
			"metric":   command((*stage).metric),
			"records":  command((*stage).records),
		},
	})
}

// reporter is what *testing.T has beyond testscript.T.
type reporter interface {
	testscript.T
	Context() context.Context
	Errorf(format string, args ...any)
	Logf(format string, args ...any)
	Failed() bool
}

// stage is where one story takes place.
type stage struct {
	*netlab.Lab
	t reporter
	// realms are further lines of the realms' config.
	realms map[string][]string
	daemon *netlab.Daemon
	api    *admin.Client
	peers  map[string]*peer
	names  *nameServer
	// runs are those that go on, by word; last is what was waited for last, seen the Call-IDs of
	// all that were.
	runs map[string]*run
	last *run
	seen map[string]bool
	// port is the next one of a caller, told the records that were printed.
	port uint16
	told int
}

type stageKey struct{}

func setUp(env *testscript.Env) error {
	t, ok := env.T().(reporter)
	if !ok {
		return errors.New("stories run under go test only")
	}
	lab, err := netlab.Up(t.Context(), netlab.Default(false))
	if err != nil {
		return err
	}
	s := &stage{
		Lab: lab, t: t, realms: make(map[string][]string), peers: make(map[string]*peer),
		runs: make(map[string]*run), last: new(run), seen: make(map[string]bool), port: 5070,
	}
	env.Values[stageKey{}] = s
	env.Defer(s.close)
	for name, at := range places {
		if err := s.settle(name, at); err != nil {
			return err
		}
	}
	return nil
}

// settle gives a peer its address, if that is not its host's own.
func (s *stage) settle(name string, at place) error {
	if at.addr == netlab.RealmOf(at.host).Peer {
		return nil
	}
	ip := s.Command(s.t.Context(), at.host, "ip", "address", "add", at.addr.String()+"/24", "dev", netlab.PeerDevice)
	if err := ip.Run(); err != nil {
		return fmt.Errorf("address of %s: %w", name, err)
	}
	return nil
}

func (s *stage) close() {
	// A story that has failed may well leave calls behind.
	if s.daemon != nil && !s.t.Failed() && s.daemon.ExitCode() < 0 {
		if err := s.until("nothing is left of the calls", s.leftovers); err != nil {
			s.t.Errorf("%v", err)
		}
	}
	if s.t.Failed() && s.daemon != nil {
		s.t.Logf("the daemon said:\n%s", s.daemon.Said())
	}
	for _, r := range s.runs {
		r.end()
	}
	s.names.close()
	for _, p := range s.peers {
		p.leave(false)
	}
	if err := s.Lab.Close(); err != nil {
		s.t.Errorf("the lab left something behind: %v", err)
	}
}

// leftovers names what calls have left in the gateway.
func (s *stage) leftovers(ctx context.Context) (string, error) {
	status, err := s.api.Status(ctx)
	if err != nil {
		return "", err
	}
	var left []string
	if n := status.Calls.Active; n > 0 {
		left = append(left, fmt.Sprintf("%d calls", n))
	}
	if n := status.Resources.PortsInUse; n > 0 {
		left = append(left, fmt.Sprintf("%d ports", n))
	}
	trunks, err := s.api.Trunks(ctx)
	for _, t := range trunks {
		if n := t.In.Active + t.Out.Active; n > 0 {
			left = append(left, fmt.Sprintf("%d slots of %s", n, t.Name))
		}
	}
	return strings.Join(left, ", "), err
}

// until asks again and again until nothing is left to wait for; left says what is.
func (s *stage) until(what string, left func(context.Context) (string, error)) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last string
	for {
		still, err := left(ctx)
		switch {
		case err == nil && still == "":
			return nil
		case err == nil:
			last = still
		case ctx.Err() == nil:
			last = err.Error()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waited in vain for %s: %s", what, last)
		}
	}
}

// command makes a method of the stage a command of testscript. It prints what the method
// returns.
func command(run func(*stage, *testscript.TestScript, []string) error) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		err := run(ts.Value(stageKey{}).(*stage), ts, args)
		switch {
		case neg && err == nil:
			ts.Fatalf("it succeeded, and must not")
		case neg:
			ts.Logf("as it should: %v", err)
		default:
			ts.Check(err)
		}
	}
}

// errUsage is a slip of a story's author.
var errUsage = errors.New("the story does not use the command as the package's comment says")

// place is where a peer is.
type place struct {
	host string
	addr netip.Addr
}

// places of the peers: the first of each realm has its host's own address.
var places = map[string]place{
	"platform": {netlab.Platform, netlab.RealmOf(netlab.Platform).Peer},
	"plaza":    {netlab.Platform, netlab.RealmOf(netlab.Platform).Peer.Next()},
	"pier":     {netlab.Platform, netlab.RealmOf(netlab.Platform).Peer.Next().Next()},
	"alpha":    {netlab.CarrierA, netlab.RealmOf(netlab.CarrierA).Peer},
	"altona":   {netlab.CarrierA, netlab.RealmOf(netlab.CarrierA).Peer.Next()},
	"aurich":   {netlab.CarrierA, netlab.RealmOf(netlab.CarrierA).Peer.Next().Next()},
	"ahlen":    {netlab.CarrierA, netlab.RealmOf(netlab.CarrierA).Peer.Next().Next().Next()},
	"beta":     {netlab.CarrierB, netlab.RealmOf(netlab.CarrierB).Peer},
	"bravo":    {netlab.CarrierB, netlab.RealmOf(netlab.CarrierB).Peer.Next()},
}

// binary is one of those that `make build` makes.
func binary(name string) (string, error) {
	path, err := filepath.Abs(filepath.Join("../../bin", name))
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%w: use `make test`, or `make build` first", err)
	}
	return path, nil
}
