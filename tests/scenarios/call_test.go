package scenarios

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tandem-sbc/tandem/tests/netlab"
)

// run is a number of calls by one SIPp, with captures at all peers.
type run struct {
	calls  int
	from   place
	prefix string
	// only means that all call the prefix as it is. The others see it as seen.
	only     bool
	seen     string
	sipp     *agent
	cancel   context.CancelFunc
	captures []*netlab.Capture
	// Known when it was waited for: the caller's legs, and what each of the others sent and got.
	legs []netlab.Leg
	got  map[string][]netlab.Message
	// told is every final refusal that the caller got, media where it was told to send RTP, by
	// Call-ID.
	told  []netlab.Message
	media map[string]map[netip.AddrPort]bool
}

// longest that the calls of one command may take.
const longest = 2 * time.Minute

// defaultCaller is who calls unless a story says otherwise.
const defaultCaller = "+4940111"

// call is "call N [rate R] [hold D | cancel D] [from PEER] [to PREFIX | number NUMBER] [seen PREFIX]
// [meant NUMBER] [by NUMBER] [with HEADER]... [as WORD]".
func (s *stage) call(_ *testscript.TestScript, args []string) error {
	if len(args)%2 == 0 {
		return errUsage
	}
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	r := &run{calls: n, from: places["platform"], prefix: "+4930"}
	rate, word, after, behave := "10", "", time.Duration(0), caller
	dial := dialled{by: defaultCaller}
	for option := range slices.Chunk(args[1:], 2) {
		switch option[0] {
		case "rate":
			rate = option[1]
		case "hold", "cancel":
			if after, err = time.ParseDuration(option[1]); err != nil {
				return err
			}
			if option[0] == "cancel" {
				behave = giver
			}
		case "from":
			var known bool
			if r.from, known = places[option[1]]; !known {
				return errUsage
			}
		case "to":
			r.prefix = option[1]
		case "number":
			r.prefix, r.only = option[1], true
		case "seen":
			r.seen = option[1]
		case "meant":
			dial.to = option[1]
		case "by":
			dial.by = option[1]
		case "with":
			dial.headers = append(dial.headers, option[1])
		case "as":
			word = option[1]
		default:
			return errUsage
		}
	}
	dial.user, r.seen = r.user(), cmp.Or(r.seen, r.prefix)
	dial.to = cmp.Or(dial.to, dial.user)
	s.runs[word] = r // found there by close, if the story ends here
	if err := s.begin(r, rate, behave(dial, after)); err != nil || word != "" {
		return err
	}
	return s.finish(word)
}

// user is whom SIPp calls.
func (r *run) user() string {
	if r.only {
		return r.prefix
	}
	return r.prefix + "[call_number]"
}

// begin starts a run.
func (s *stage) begin(r *run, rate, xml string) error {
	for _, realm := range netlab.Realms() {
		c, err := s.Capture(realm.Name, netlab.PeerDevice)
		if err != nil {
			return err
		}
		r.captures = append(r.captures, c)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), longest)
	r.cancel = cancel
	s.port++
	var err error
	r.sipp, err = s.sipp(ctx, r.from, s.port, xml,
		"-r", rate, "-m", strconv.Itoa(r.calls), "-l", strconv.Itoa(r.calls),
		netip.AddrPortFrom(netlab.RealmOf(r.from.host).Gateway, sipPort).String())
	return err
}

// done is "done WORD".
func (s *stage) done(_ *testscript.TestScript, args []string) error {
	if len(args) != 1 || s.runs[args[0]] == nil {
		return errUsage
	}
	return s.finish(args[0])
}

// end stops what is left of a run.
func (r *run) end() {
	if r.cancel != nil {
		r.cancel()
	}
	for _, c := range r.captures {
		_, _ = c.Stop() // what it saw does not count any more
	}
}

// finish waits for a run and reads its captures.
func (s *stage) finish(word string) error {
	r := s.runs[word]
	delete(s.runs, word)
	defer r.end()
	// SIPp fails for a call that does not go as its scenario has it: without a final response,
	// or without one to its BYE.
	errs := []error{r.sipp.wait()}
	var caller *netlab.Log
	var others []*netlab.Log
	for _, c := range r.captures {
		log, err := c.Stop()
		errs = append(errs, err)
		if log.Host == r.from.host {
			caller = log
		} else {
			others = append(others, log)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	r.read(caller, others, s.seen)
	if len(r.legs) != r.calls {
		return fmt.Errorf("%d calls were made, want %d", len(r.legs), r.calls)
	}
	s.last = r
	return nil
}

// mine reports whether a number is one that the run calls, written with its prefix or as seen.
func (r *run) mine(number, prefix string) bool {
	rest, ok := strings.CutPrefix(number, prefix)
	return ok && strings.Trim(rest, "0123456789") == "" && (rest == "") == r.only
}

// read takes what concerns the run from the captures. What was seen before is of another run
// that has called the same numbers, and adds nothing.
func (r *run) read(caller *netlab.Log, others []*netlab.Log, seen map[string]bool) {
	ids := make(map[string]bool)
	for _, c := range netlab.Calls(caller) {
		if r.mine(c.Number, r.prefix) && !seen[c.Caller.CallID] {
			r.legs = append(r.legs, c.Caller)
			ids[c.Caller.CallID] = true
		}
	}
	r.readCaller(caller, ids)
	r.got = make(map[string][]netlab.Message)
	for _, log := range others {
		maps.Copy(ids, r.readOther(log, seen))
	}
	maps.Copy(seen, ids)
}

// readCaller takes what the callers were told.
func (r *run) readCaller(log *netlab.Log, ids map[string]bool) {
	refused := make(map[string]bool)
	r.media = make(map[string]map[netip.AddrPort]bool)
	for _, m := range log.Messages {
		if m.Out || m.Method != "INVITE" || !ids[m.CallID] {
			continue
		}
		if m.Status >= 300 && !refused[m.CallID] {
			refused[m.CallID] = true
			r.told = append(r.told, m)
		}
		if addr, ok := netlab.AudioAddr(m.Body()); ok {
			if r.media[m.CallID] == nil {
				r.media[m.CallID] = make(map[netip.AddrPort]bool)
			}
			r.media[m.CallID][addr] = true
		}
	}
}

// readOther sorts the messages of the run's calls by peer, and returns their Call-IDs.
func (r *run) readOther(log *netlab.Log, seen map[string]bool) map[string]bool {
	ids := make(map[string]bool)
	for _, m := range log.Messages {
		if isInvite(m) && r.mine(m.Number, r.seen) && !seen[m.CallID] {
			ids[m.CallID] = true
		}
	}
	for name, at := range places {
		for _, m := range log.Messages {
			if ids[m.CallID] && (m.Src.Addr() == at.addr || m.Dst.Addr() == at.addr) {
				r.got[name] = append(r.got[name], m)
			}
		}
	}
	return ids
}

// tally compares counts with what a story wants, written as in "alpha:5", "alpha:4-6" or "alpha:+".
func tally(want []string, got map[string]int) error {
	wanted := make(map[string]int)
	for _, w := range want {
		key, count, _ := strings.Cut(w, ":")
		if count == "+" && got[key] > 0 {
			wanted[key] = got[key]
			continue
		}
		first, last, isRange := strings.Cut(count, "-")
		n, err := strconv.Atoi(first)
		most := n
		if isRange && err == nil {
			most, err = strconv.Atoi(last)
		}
		if err != nil || got[key] < n || got[key] > most {
			return fmt.Errorf("got %v, want %s", got, w)
		}
		wanted[key] = got[key]
	}
	for _, keys := range []map[string]int{wanted, got} {
		for key := range keys {
			if wanted[key] != got[key] {
				return fmt.Errorf("got %v, want %v", got, wanted)
			}
		}
	}
	return nil
}

// results is "results STATUS:N...".
func (s *stage) results(_ *testscript.TestScript, args []string) error {
	got := make(map[string]int)
	for _, leg := range s.last.legs {
		got[strconv.Itoa(leg.Status)]++
	}
	return tally(args, got)
}

// tries is "tries PEER:N...".
func (s *stage) tries(_ *testscript.TestScript, args []string) error {
	return tally(args, s.last.count(isInvite))
}

// shares is "shares PEER:N...".
func (s *stage) shares(_ *testscript.TestScript, args []string) error {
	return tally(args, s.last.count(isAnswer))
}

// hangups is "hangups PEER:N...".
func (s *stage) hangups(_ *testscript.TestScript, args []string) error {
	return tally(args, s.last.count(func(m netlab.Message) bool { return m.Method == "BYE" && m.Status == 0 }))
}

func isInvite(m netlab.Message) bool { return m.Method == "INVITE" && m.Status == 0 }

func isAnswer(m netlab.Message) bool { return m.Method == "INVITE" && m.Status/100 == 2 }

// count is how many dialogs each peer has with such a message.
func (r *run) count(meant func(netlab.Message) bool) map[string]int {
	got := make(map[string]int)
	for name, messages := range r.got {
		got[name] = len(dialogs(messages, meant))
	}
	return got
}

// dialogs are the Call-IDs of the messages that are meant.
func dialogs(messages []netlab.Message, meant func(netlab.Message) bool) map[string]bool {
	ids := make(map[string]bool)
	for _, m := range messages {
		if meant(m) {
			ids[m.CallID] = true
		}
	}
	return ids
}

// landed prints who answered each number.
func (s *stage) landed(ts *testscript.TestScript, args []string) error {
	if len(args) != 0 {
		return errUsage
	}
	var lines []string
	for name, messages := range s.last.got {
		answered := dialogs(messages, isAnswer)
		for _, m := range messages {
			if isInvite(m) && answered[m.CallID] {
				lines = append(lines, m.Number+" "+name)
			}
		}
	}
	slices.Sort(lines)
	_, err := fmt.Fprintln(ts.Stdout(), strings.Join(slices.Compact(lines), "\n"))
	return err
}

// steady is "steady".
func (s *stage) steady(_ *testscript.TestScript, args []string) error {
	if len(args) != 0 {
		return errUsage
	}
	for _, leg := range s.last.legs {
		if told := s.last.media[leg.CallID]; len(told) != 1 {
			return fmt.Errorf("the caller of %s was told %d addresses for its media: %v", leg.Number, len(told), slices.Collect(maps.Keys(told)))
		}
	}
	return nil
}

// refusal is "refusal HEADER PATTERN".
func (s *stage) refusal(_ *testscript.TestScript, args []string) error {
	if len(args) != 2 {
		return errUsage
	}
	if len(s.last.told) == 0 {
		return errors.New("no call was refused")
	}
	return allHave(s.last.told, args[0], args[1])
}

// received is "received PEER HEADER PATTERN".
func (s *stage) received(_ *testscript.TestScript, args []string) error {
	if len(args) != 3 || !places[args[0]].addr.IsValid() {
		return errUsage
	}
	invites := slices.DeleteFunc(slices.Clone(s.last.got[args[0]]), func(m netlab.Message) bool { return !isInvite(m) })
	if len(invites) == 0 {
		return fmt.Errorf("%s got no INVITE", args[0])
	}
	return allHave(invites, args[1], args[2])
}

// allHave looks for a header in messages. "Request-URI" is that of requests.
func allHave(messages []netlab.Message, header, pattern string) error {
	before, after := regexp.QuoteMeta(header)+`:\s*`, `\s*`
	if header == "Request-URI" {
		before, after = `[A-Z]+ `, ` SIP/2\.0`
	}
	line, err := regexp.Compile(`(?im)^` + before + `(?:` + pattern + `)` + after + `$`)
	if err != nil {
		return err
	}
	for _, m := range messages {
		if head, _, _ := strings.Cut(string(m.Raw), "\r\n\r\n"); !line.MatchString(strings.ReplaceAll(head, "\r", "")) {
			return fmt.Errorf("there is no %s like %q in\n%s", header, pattern, head)
		}
	}
	return nil
}

// rings is "rings within D".
func (s *stage) rings(ts *testscript.TestScript, args []string) error {
	return s.within(ts, args, "ringing", func(leg netlab.Leg) time.Time { return leg.Rang })
}

// fails is "fails within D".
func (s *stage) fails(ts *testscript.TestScript, args []string) error {
	refused := make(map[string]time.Time)
	for _, m := range s.last.told {
		refused[m.CallID] = m.Time
	}
	return s.within(ts, args, "the refusal", func(leg netlab.Leg) time.Time { return refused[leg.CallID] })
}

// within looks at how long after its INVITE each caller heard of something.
func (s *stage) within(ts *testscript.TestScript, args []string, what string, at func(netlab.Leg) time.Time) error {
	if len(args) != 2 || args[0] != "within" {
		return errUsage
	}
	limit, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	var took []time.Duration
	for _, leg := range s.last.legs {
		heard := at(leg)
		if heard.IsZero() {
			return fmt.Errorf("the caller of %s did not hear %s", leg.Number, what)
		}
		took = append(took, heard.Sub(leg.Invited))
	}
	if len(took) == 0 {
		return errUsage
	}
	slices.Sort(took)
	rank := func(percent int) time.Duration { return took[(len(took)*percent+99)/100-1].Round(time.Millisecond) }
	ts.Logf("%s of %d calls: p50 %v, p99 %v, longest %v", what, len(took), rank(50), rank(99), rank(100))
	if rank(99) > limit {
		return fmt.Errorf("%s took %v (p99), want at most %v", what, rank(99), limit)
	}
	return nil
}
