package sipua

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// tortureDir is where sipgo keeps the messages of RFC 4475.
func tortureDir(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/emiago/sipgo").Output()
	if err != nil {
		t.Fatalf("finding sipgo's module: %v", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "sip", "testdata", "torture")
}

// Outcomes other than a final status.
const (
	invited = "invited" // becomes a leg
	stray   = "stray"   // a well-formed response that belongs to nothing
	silent  = "silent"  // malformed, and there is nobody or no need to answer
)

// TestTorture sends the 50 messages of RFC 4475 and expects what it asks for of a
// user agent server (S19). Where it leaves a choice, ours is said.
func TestTorture(t *testing.T) {
	outcomes := map[string]string{
		// 3.1.1 Valid messages.
		"wsinv":      "481", // has a To tag: inside a dialog that we do not know
		"intmeth":    "501",
		"esc01":      invited,
		"escnull":    "405", // no registrar here (S3)
		"esc02":      "501", // RE%47IST%45R is not REGISTER
		"lwsdisp":    "200",
		"longreq":    invited,
		"dblreq":     "405", // the second request in the datagram is not looked at
		"semiuri":    "200",
		"transports": "200",
		"mpart01":    "405", // MESSAGE (S3)
		"unreason":   stray,
		"noreason":   stray,
		// 3.1.2 Invalid messages.
		"badinv01":   "400",
		"clerr":      "400",
		"ncl":        "400",
		"scalar02":   "400",
		"scalarlg":   silent,
		"quotbal":    "400",
		"ltgtruri":   "400", // strict: no guess at what was meant
		"lwsruri":    "400",
		"lwsstart":   "400",
		"trws":       "400",
		"escruri":    "400",
		"baddate":    invited, // we do not use Date: it may be ignored
		"regbadct":   "400",
		"badaspec":   "400",
		"baddn":      "400",
		"badvers":    "505",
		"mismatch01": "400",
		"mismatch02": "501",
		"bigcode":    silent,
		// 3.2 Transaction layer.
		"badbranch": "400",
		// 3.3 Application layer.
		"insuf":    "400",
		"unkscm":   "416",
		"novelsc":  "416",
		"unksm2":   "405", // read without fault; only a registrar would look at the schemes
		"bext01":   "420",
		"invut":    "415",
		"regaut01": "405",
		"multi01":  "400",
		"mcl01":    "400",
		"bcast":    stray, // two Vias: not for us
		"zeromf":   "200", // we are where it was to go
		"cparam01": "405",
		"cparam02": "405",
		"regescrt": "405",
		"sdp01":    "406",
		// 3.4 Backward compatibility.
		"inv2543": invited,
		// Of an older draft: no version, no Via, a line that is no header.
		"test": silent,
	}
	files, err := filepath.Glob(filepath.Join(tortureDir(t), "*", "*.dat"))
	if err != nil || len(files) != 50 || len(outcomes) != 50 {
		t.Fatalf("%d messages and %d outcomes, want 50 (%v)", len(files), len(outcomes), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".dat")
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s, sent := deaf(t)
			s.receive(data, netip.MustParseAddrPort("127.0.0.2:5070"))
			if got := outcome(s, sent()); got != outcomes[name] {
				t.Errorf("got %s, want %s", got, outcomes[name])
			}
		})
	}
}

// TestTortureExtensions checks what the answers of section 3.3 have to say.
func TestTortureExtensions(t *testing.T) {
	for name, want := range map[string]string{
		"bext01":  "Unsupported: nothingSupportsThis, nothingSupportsThisEither\r\n",
		"invut":   "Accept: application/sdp\r\n",
		"intmeth": "Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, INFO, REFER, NOTIFY\r\n",
		"escnull": "Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, INFO, REFER, NOTIFY\r\n",
	} {
		dir := "invalid"
		if name == "intmeth" || name == "escnull" {
			dir = "valid"
		}
		data, err := os.ReadFile(filepath.Join(tortureDir(t), dir, name+".dat"))
		if err != nil {
			t.Fatal(err)
		}
		s, sent := deaf(t)
		s.receive(data, netip.MustParseAddrPort("127.0.0.2:5070"))
		if got := sent(); len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("%s: answer %q lacks %q", name, got, want)
		}
	}
}

// outcome tells what became of one datagram.
func outcome(s *Stack, sent []string) string {
	for _, text := range slices.Backward(sent) {
		if code := text[8:11]; code != "100" {
			return code
		}
	}
	st := s.Stats()
	switch {
	case st.Legs == 1:
		return invited
	case st.ParseErrors == 1 && len(sent) == 0:
		return silent
	case st.Strays == 1 && len(sent) == 0:
		return stray
	}
	return "undefined: " + strconv.Itoa(len(sent)) + " messages"
}

// deaf returns a stack that is not run: messages are given to receive, and what it
// sends is kept.
func deaf(t testing.TB) (s *Stack, sent func() []string) {
	t.Helper()
	release := make(chan struct{})
	s, err := Listen(Config{
		Realm: "test", Listen: netip.MustParseAddrPort("127.0.0.1:0"),
		Peer:    func(netip.Addr) PeerKind { return PeerCarrier },
		Handler: handler(func(call.Leg, call.Invite) { <-release }),
		Log:     quiet,
	})
	if err != nil {
		t.Fatal(err)
	}
	var (
		mu  sync.Mutex
		out []string
	)
	s.transmit = func(b []byte, _ netip.AddrPort) error {
		mu.Lock()
		defer mu.Unlock()
		out = append(out, string(b))
		return nil
	}
	t.Cleanup(func() {
		close(release)
		s.calls.Wait()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(out)
	}
}
