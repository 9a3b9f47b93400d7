package scenarios

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tandem-sbc/tandem/pkg/admin"
	"github.com/tandem-sbc/tandem/tests/netlab"
)

// frame is the part of the config that stories are not about.
var frame = template.Must(template.New("gateway").Parse(`node: {{.Node}}
engine: auto
pins: none
realms:
{{- range .Realms}}
  - name: {{.Name}}
    network: existing
    interface: {{.Device}}
    address: {{.Gateway}}/{{.Prefix.Bits}}
    media_ports: {{.FirstPort}}-{{.LastPort}}
{{- range index $.More .Name}}
    {{.}}
{{- end}}
{{- end}}
media: {quarantine: 1s}
admin: {socket: {{.Socket}}}
metrics: {address: "{{.Metrics}}"}
cdr: {file: {{.CDR}}, max_size_mb: 100, keep: 2}
`))

// config puts the frame in front of a story's file, with the peers' addresses in both.
func (s *stage) config(ts *testscript.TestScript, file string) ([]byte, error) {
	var out bytes.Buffer
	err := frame.Execute(&out, struct {
		Node                 string
		Realms               []netlab.Realm
		More                 map[string][]string
		Socket, CDR, Metrics string
	}{s.ID(), netlab.Realms(), s.realms, s.AdminSocket(), s.CDRFile(), metricsAddress})
	if err != nil {
		return nil, err
	}
	out.WriteString(ts.ReadFile(file))
	return []byte(os.Expand(out.String(), func(name string) string {
		if at, ok := places[name]; ok {
			return at.addr.String()
		}
		return "${" + name + "}" // of a regular expression
	})), nil
}

// moreOfRealm is "realm NAME LINE".
func (s *stage) moreOfRealm(_ *testscript.TestScript, args []string) error {
	if len(args) != 2 || netlab.RealmOf(args[0]).Name == "" {
		return errUsage
	}
	s.realms[args[0]] = append(s.realms[args[0]], args[1])
	return nil
}

// startGateway is "gateway FILE [within D]".
func (s *stage) startGateway(ts *testscript.TestScript, args []string) error {
	limit := patience
	switch {
	case len(args) == 3 && args[1] == "within":
		var err error
		if limit, err = time.ParseDuration(args[2]); err != nil {
			return err
		}
	case len(args) != 1:
		return errUsage
	}
	config, err := s.config(ts, args[0])
	if err != nil {
		return err
	}
	program, err := binary("tandemd")
	if err != nil {
		return err
	}
	begun := time.Now()
	if s.daemon, err = s.StartDaemon(s.t.Context(), program, config, nil); err != nil {
		return err
	}
	s.api = admin.NewClient(s.daemon.Socket)
	err = s.until("the gateway to run", func(ctx context.Context) (string, error) {
		status, err := s.api.Status(ctx)
		if err == nil && status.State != admin.Running {
			return "it is " + status.State, nil
		}
		return "", err
	})
	if took := time.Since(begun).Round(time.Millisecond); err == nil && took > limit {
		return fmt.Errorf("the gateway runs after %v, want at most %v", took, limit)
	}
	return err
}

// check is "check FILE".
func (s *stage) check(ts *testscript.TestScript, args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	config, err := s.config(ts, args[0])
	if err != nil {
		return err
	}
	file := filepath.Join(s.Dir(), "checked.yaml")
	if err := os.WriteFile(file, config, 0o644); err != nil {
		return err
	}
	return s.tandem(ts, []string{"check", file})
}

// repeat is "repeat FIRST LAST FILE".
func (s *stage) repeat(ts *testscript.TestScript, args []string) error {
	if len(args) != 3 {
		return errUsage
	}
	first, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	last, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	var out strings.Builder
	for text := range strings.Lines(ts.ReadFile(args[2])) {
		if !strings.Contains(text, "<n>") {
			out.WriteString(text)
			continue
		}
		for n := first; n <= last; n++ {
			out.WriteString(strings.ReplaceAll(text, "<n>", strconv.Itoa(n)))
		}
	}
	_, err = io.WriteString(ts.Stdout(), out.String())
	return err
}

// reload is "reload [--dry-run] FILE".
func (s *stage) reload(ts *testscript.TestScript, args []string) error {
	if len(args) < 1 || len(args) > 2 {
		return errUsage
	}
	config, err := s.config(ts, args[len(args)-1])
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.daemon.Config, config, 0o644); err != nil {
		return err
	}
	return s.tandem(ts, append([]string{"reload"}, args[:len(args)-1]...))
}

// drain is the SIGTERM of whoever stops the gateway.
func (s *stage) drain(_ *testscript.TestScript, args []string) error {
	if len(args) != 0 {
		return errUsage
	}
	if err := s.daemon.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return s.until("the gateway to drain", func(ctx context.Context) (string, error) {
		status, err := s.api.Status(ctx)
		if err == nil && status.State != admin.Draining {
			return "it is " + status.State, nil
		}
		return "", err
	})
}

// ended waits until the gateway has ended by itself.
func (s *stage) ended(_ *testscript.TestScript, args []string) error {
	if len(args) != 0 {
		return errUsage
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-s.daemon.Done():
		return s.daemon.Wait()
	case <-timer.C:
		return fmt.Errorf("the gateway has not ended within %v", patience)
	}
}

// tandem is "tandem ARG...".
func (s *stage) tandem(ts *testscript.TestScript, args []string) error {
	return s.ask(s.t.Context(), ts.Stdout(), ts.Stderr(), args)
}

// shows is "shows PATTERN ARG...".
func (s *stage) shows(_ *testscript.TestScript, args []string) error {
	if len(args) < 2 {
		return errUsage
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	if err != nil {
		return err
	}
	return s.until(fmt.Sprintf("tandem %s to show %q", strings.Join(args[1:], " "), pattern), func(ctx context.Context) (string, error) {
		var out bytes.Buffer
		err := s.ask(ctx, &out, &out, args[1:])
		if err == nil && pattern.Match(out.Bytes()) {
			return "", nil
		}
		return "it shows\n" + out.String(), err
	})
}

// ask runs the tandem command against the gateway.
func (s *stage) ask(ctx context.Context, stdout, stderr io.Writer, args []string) error {
	program, err := binary("tandem")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	p := s.Command(ctx, netlab.Gateway, program, args...)
	p.Env = slices.Concat(os.Environ(), []string{"TANDEM_SOCKET=" + s.AdminSocket()})
	p.Stdout, p.Stderr = stdout, stderr
	if err := p.Run(); err != nil {
		return fmt.Errorf("tandem %s: %w", strings.Join(args, " "), err)
	}
	return nil
}
