package scenarios

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/cdr"
)

// await is "await ringing|answered|calls N" or "await TRUNK STATE [PATTERN]".
func (s *stage) await(_ *testscript.TestScript, args []string) error {
	if len(args) < 2 || len(args) > 3 {
		return errUsage
	}
	if n, err := strconv.Atoi(args[1]); err == nil {
		return s.awaitCalls(args[0], n)
	}
	reason, err := regexp.Compile(strings.Join(args[2:], ""))
	if err != nil {
		return err
	}
	return s.awaitTrunk(args[0], args[1], reason)
}

// awaitCalls waits until n calls are in a state, or until there were at least so many.
func (s *stage) awaitCalls(state string, n int) error {
	return s.until(fmt.Sprintf("%d calls (%s)", n, state), func(ctx context.Context) (string, error) {
		have, enough := 0, func(have int) bool { return have == n }
		if state == "calls" {
			status, err := s.api.Status(ctx)
			if err != nil {
				return "", err
			}
			have, enough = int(status.Calls.Total), func(have int) bool { return have >= n }
		} else {
			calls, err := s.api.Calls(ctx)
			if err != nil {
				return "", err
			}
			for _, c := range calls {
				if c.State == call.State(state) {
					have++
				}
			}
		}
		if !enough(have) {
			return fmt.Sprintf("there are %d", have), nil
		}
		return "", nil
	})
}

func (s *stage) awaitTrunk(name, state string, reason *regexp.Regexp) error {
	return s.until(fmt.Sprintf("trunk %s to be %s (%s)", name, state, reason), func(ctx context.Context) (string, error) {
		trunks, err := s.api.Trunks(ctx)
		if err != nil {
			return "", err
		}
		for _, t := range trunks {
			if t.Name != name {
				continue
			}
			if t.State != state || !reason.MatchString(t.Reason) {
				return fmt.Sprintf("it is %s: %s", t.State, t.Reason), nil
			}
			return "", nil
		}
		return "there is no such trunk", nil
	})
}

// records is "records N".
func (s *stage) records(ts *testscript.TestScript, args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	var lines []string
	err = s.until(fmt.Sprintf("%d records", n), func(context.Context) (string, error) {
		lines = nil
		err := cdr.Read(s.CDRFile(), func(r call.Record) error {
			lines = append(lines, line(r))
			return nil
		})
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		if err == nil && len(lines) < s.told+n {
			return fmt.Sprintf("there are %d", len(lines)-s.told), nil
		}
		return "", err
	})
	if err != nil {
		return err
	}
	if have := len(lines) - s.told; have != n {
		return fmt.Errorf("there are %d records, want %d", have, n)
	}
	_, err = fmt.Fprintln(ts.Stdout(), strings.Join(lines[s.told:], "\n"))
	s.told = len(lines)
	return err
}

// line is what counts of a record.
func line(r call.Record) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %d %d by %s", r.Cause.Code, r.Cause.SIP, r.Cause.Q850, r.Cause.By)
	if r.Egress.Trunk != "" {
		fmt.Fprintf(&b, " via %s", r.Egress.Trunk)
	}
	if len(r.Attempts) > 0 {
		b.WriteString(" tried")
	}
	for _, a := range r.Attempts {
		fmt.Fprintf(&b, " %s=%s,%d", a.Trunk, a.Cause.Code, a.Cause.SIP)
	}
	return b.String()
}
