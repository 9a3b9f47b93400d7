package netlab

import (
	"bytes"
	"cmp"
	"fmt"
	"path/filepath"
	"text/template"
	"time"
)

// What the default topology's gateway does with a called number: PrefixA goes to
// carrier-a, PrefixB to carrier-b, any other to the group of both. What a carrier
// sends goes to the platform.
const (
	PrefixA        = "+4989"
	PrefixB        = "+4930"
	PrefixPlatform = "+1317"
)

// DSCP values that the gateway of [GatewayConfig] marks.
const (
	MediaDSCP = 46 // EF, RFC 3246
	SIPDSCP   = 24 // CS3
)

// GatewayOptions vary the gateway's config; the zero value is the lab's default.
type GatewayOptions struct {
	// Engine is "auto" (default), "kernel" or "userspace".
	Engine string
	// MaxCalls sizes the media plane; default 4096.
	MaxCalls int
	// TrunkCalls limits each trunk; 0 means no limit.
	TrunkCalls int
	// RingTimeout per attempt; default 30 s.
	RingTimeout time.Duration
	// Drain at SIGTERM; default 5 s.
	Drain time.Duration
	// Quarantine of media ports; default 1 s.
	Quarantine time.Duration
	// Metrics is the address for Prometheus; empty means off.
	Metrics string
	// LogLevel is "info" unless set.
	LogLevel string
	// Strategy of the group of both carriers; default "round_robin".
	Strategy string
	// Trunks are more lines of a trunk's config, by its name: "media_source: latch". Without
	// "probe: options" peers are not asked whether they are there: most play a part that knows
	// of no OPTIONS.
	Trunks map[string][]string
	// Pins is the config's pins; default is the lab's own directory, "none" is none.
	Pins string
	// Guard is the config's guard, e.g. "{sip_per_second: 20}"; empty is its default.
	Guard string
}

var gatewayTemplate = template.Must(template.New("gateway").Parse(`# The lab's gateway: one platform, two carriers.
node: {{.ID}}
engine: {{.Engine}}
max_calls: {{.MaxCalls}}
pins: {{.Pins}}
drain: {{.Drain}}
{{- with .Guard}}
guard: {{.}}
{{- end}}
log: {level: {{.LogLevel}}, format: auto}
realms:
{{- range .Realms}}
  - name: {{.Name}}
    network: existing
    interface: {{.Device}}
    address: {{.Gateway}}/{{.Prefix.Bits}}
    sip_port: 5060
    sip_dscp: {{$.SIPDSCP}}
    media_ports: {{.FirstPort}}-{{.LastPort}}
    dscp: {{$.MediaDSCP}}
{{- end}}
trunks:
{{- range .Realms}}
  - name: {{.Name}}
    realm: {{.Name}}
    kind: {{if eq .Name "platform"}}platform{{else}}carrier{{end}}
    transport: udp
    targets: ["{{.Peer}}:5060"]
    max_calls: {{$.TrunkCalls}}
    ring_timeout: {{$.RingTimeout}}
{{- range index $.Trunks .Name}}
    {{.}}
{{- end}}
{{- end}}
groups:
  - {name: carriers, trunks: [carrier-a, carrier-b], strategy: {{.Strategy}}}
routes:
  - {name: to-carrier-a, from: [platform], prefix: "{{.PrefixA}}", trunk: carrier-a}
  - {name: to-carrier-b, from: [platform], prefix: "{{.PrefixB}}", trunk: carrier-b}
  - {name: to-carriers, from: [platform], group: carriers}
  - {name: to-platform, from: [carrier-a, carrier-b], trunk: platform}
media: {quarantine: {{.Quarantine}}}
admin: {socket: {{.Socket}}}
metrics: {address: "{{.Metrics}}"}
cdr: {file: {{.CDR}}, max_size_mb: 100, keep: 2}
`))

// AdminSocket is where the gateway of [Lab.GatewayConfig] listens, and CDRFile where it
// writes its records.
func (l *Lab) AdminSocket() string { return filepath.Join(l.dir, "admin.sock") }

// CDRFile is the gateway's record file.
func (l *Lab) CDRFile() string { return filepath.Join(l.dir, "cdr.jsonl") }

// Pins is where the gateway's kernel engine keeps its program and flows; it goes with the lab.
func (l *Lab) Pins() string { return filepath.Join(bpffs, l.id) }

// GatewayConfig is the YAML for the gateway of the default topology.
func (l *Lab) GatewayConfig(o GatewayOptions) ([]byte, error) {
	o.Engine = cmp.Or(o.Engine, "auto")
	o.MaxCalls = cmp.Or(o.MaxCalls, 4096)
	o.RingTimeout = cmp.Or(o.RingTimeout, 30*time.Second)
	o.Drain = cmp.Or(o.Drain, 5*time.Second)
	o.Quarantine = cmp.Or(o.Quarantine, time.Second)
	o.LogLevel = cmp.Or(o.LogLevel, "info")
	o.Strategy = cmp.Or(o.Strategy, "round_robin")
	o.Pins = cmp.Or(o.Pins, l.Pins())
	trunks := make(map[string][]string)
	for _, r := range Realms() {
		trunks[r.Name] = overrule([]string{"probe: none"}, o.Trunks[r.Name])
	}
	o.Trunks = trunks
	var out bytes.Buffer
	err := gatewayTemplate.Execute(&out, struct {
		GatewayOptions
		Realms                        []Realm
		ID                            string
		PrefixA, PrefixB, Socket, CDR string
		MediaDSCP, SIPDSCP            int
	}{o, Realms(), l.id, PrefixA, PrefixB, l.AdminSocket(), l.CDRFile(), MediaDSCP, SIPDSCP})
	if err != nil {
		return nil, fmt.Errorf("gateway config: %w", err)
	}
	return out.Bytes(), nil
}
