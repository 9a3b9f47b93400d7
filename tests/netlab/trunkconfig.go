package netlab

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"
)

// PrefixC goes to carrier-c in the trunk topology.
const PrefixC = "+4940"

// Identities in the tunnels of the trunk topology, and what the two sides share unless a
// config says otherwise.
const (
	GatewayID    = "gateway.tandem.test"
	SharedSecret = "a secret of the lab, 32 octets.."
)

// PeerID is a tunnelled site's identity.
func PeerID(site string) string { return site + ".carrier.test" }

// TrunkOptions vary the config of the trunk topology's gateway. Lines are YAML, by the name
// of what they belong to; a key that the lab has a value for is overruled, and left out if the
// line is "key:".
type TrunkOptions struct {
	// Sites that the gateway has realms for.
	Sites []Site
	// Engine is "auto" (default), "kernel" or "userspace".
	Engine string
	// Realms, Tunnels, Trunks and IKE (by tunnel) are more lines.
	Realms, Tunnels, Trunks, IKE map[string][]string
	// Routes stand before the lab's own.
	Routes []string
	// Metrics is the address for Prometheus; empty means off.
	Metrics string
	// LogLevel is "info" unless set.
	LogLevel string
}

var trunkTemplate = template.Must(template.New("trunk").Parse(`# The gateway of the trunk topology.
node: {{.ID}}
engine: {{.Engine}}
max_calls: 256
pins: {{.Pins}}
drain: 5s
log: {level: {{.LogLevel}}, format: auto}
ipsec: {run: {{.Run}}, charon: {{.Charon}}}
realms:
{{- range .RealmList}}
  - name: {{.Name}}
{{- range .Lines}}
    {{.}}
{{- end}}
{{- end}}
{{- with .TunnelList}}
tunnels:
{{- range .}}
  - name: {{.Name}}
{{- range .Lines}}
    {{.}}
{{- end}}
{{- end}}
{{- end}}
trunks:
{{- range .TrunkList}}
  - name: {{.Name}}
{{- range .Lines}}
    {{.}}
{{- end}}
{{- end}}
{{- if .Group}}
groups:
  - {name: carriers, trunks: [{{.Group}}], strategy: priority}
{{- end}}
routes:
{{- range .RouteList}}
  - {{.}}
{{- end}}
media: {quarantine: 1s}
admin: {socket: {{.Socket}}}
metrics: {address: "{{.Metrics}}"}
cdr: {file: {{.CDR}}, max_size_mb: 100, keep: 2}
`))

// item is one of a list of the config.
type item struct {
	Name  string
	Lines []string
}

// overrule puts lines into others, in the place of those with the same key. One that is only
// the key takes it away.
func overrule(lines, with []string) []string {
	lines = slices.Clone(lines)
	for _, line := range with {
		key, value, _ := strings.Cut(line, ":")
		lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, key+":") })
		if value != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// IPsecRun is where the gateway's charons have their sockets.
func (l *Lab) IPsecRun() string { return filepath.Join(l.dir, "ipsec") }

// SecretFile writes a file that only root may read and returns its path.
func (l *Lab) SecretFile(name, content string) (string, error) {
	path := filepath.Join(l.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return "", fmt.Errorf("secret: %w", err)
	}
	return path, nil
}

// TrunkConfig is the YAML for the gateway of the trunk topology. What is called with PrefixA,
// PrefixB and PrefixC goes to the carrier of that letter, from the platform and from other
// carriers; other numbers go to the group of carriers, in order, from the platform, and to
// the platform from carriers.
func (l *Lab) TrunkConfig(o TrunkOptions) ([]byte, error) {
	secret, err := l.SecretFile("psk", SharedSecret+"\n")
	if err != nil {
		return nil, err
	}
	o.Engine, o.LogLevel = cmp.Or(o.Engine, "auto"), cmp.Or(o.LogLevel, "info")
	var realms, tunnels, trunks []item
	var group []string
	for _, s := range o.Sites {
		realms = append(realms, item{s.Name, overrule(s.realmLines(), o.Realms[s.Name])})
		trunks = append(trunks, item{s.Name, overrule(s.trunkLines(), o.Trunks[s.Name])})
		if s.Name != Platform {
			group = append(group, s.Name)
		}
		for _, u := range s.Uplinks {
			ike := overrule([]string{
				"auth: psk", "psk: file:" + secret, "local_id: " + GatewayID, "remote_id: " + PeerID(s.Name),
				"dpd_delay: 2s", "dpd_tries: 2", "dpd_timeout: 1s",
			}, o.IKE[u.Name])
			lines := overrule(u.tunnelLines(s), append([]string{"ike: {" + strings.Join(ike, ", ") + "}"}, o.Tunnels[u.Name]...))
			if slices.Contains(lines, "keying: manual") {
				lines = overrule(lines, []string{"ike:"})
			}
			tunnels = append(tunnels, item{u.Name, lines})
		}
	}
	var out bytes.Buffer
	err = trunkTemplate.Execute(&out, struct {
		TrunkOptions
		ID, Pins, Run, Charon, Socket, CDR, Group string
		RealmList, TunnelList, TrunkList          []item
		RouteList                                 []string
	}{
		o, l.id, l.Pins(), l.IPsecRun(), charonBinary, l.AdminSocket(), l.CDRFile(), strings.Join(group, ", "),
		realms, tunnels, trunks, append(slices.Clone(o.Routes), routes(group, o.Sites)...),
	})
	if err != nil {
		return nil, fmt.Errorf("gateway config: %w", err)
	}
	return out.Bytes(), nil
}

func (s Site) realmLines() []string {
	vlan := s.VLAN
	if len(s.Uplinks) > 0 {
		vlan = s.Uplinks[0].VLAN
	}
	return []string{
		"interface: " + TrunkDevice, fmt.Sprintf("vlan: %d", vlan), fmt.Sprintf("address: %v", s.Gateway),
		fmt.Sprintf("media_ports: %d-%d", s.FirstPort, s.LastPort), fmt.Sprintf("dscp: %d", MediaDSCP), fmt.Sprintf("sip_dscp: %d", SIPDSCP),
	}
}

func (s Site) trunkLines() []string {
	kind := "carrier"
	if s.Name == Platform {
		kind = "platform"
	}
	// Where there is no tunnel nobody has to wait for an answer. SIPp counts what it is asked
	// as a call, so that a callee is asked when its tunnel is up and hardly ever after that.
	probe := "probe: none"
	if len(s.Uplinks) > 0 {
		probe = "probe_interval: 10m"
	}
	return []string{
		"realm: " + s.Name, "kind: " + kind, "transport: udp",
		fmt.Sprintf("targets: [%q]", netip.AddrPortFrom(s.Peer, 5060)), "ring_timeout: " + (10 * time.Second).String(), probe,
		"no_response: 5s", // an emulated machine may take longer than the default for a first word
	}
}

func (u Uplink) tunnelLines(s Site) []string {
	return []string{
		"realm: " + s.Name, "interface: " + TrunkDevice, fmt.Sprintf("vlan: %d", u.VLAN),
		fmt.Sprintf("local: %v", u.Gateway), fmt.Sprintf("remote: %v", u.Peer.Addr()), fmt.Sprintf("networks: [%v]", CarrierNetwork),
	}
}

func routes(carriers []string, sites []Site) []string {
	var lines []string
	for _, to := range []struct{ carrier, prefix string }{{CarrierA, PrefixA}, {CarrierB, PrefixB}, {CarrierC, PrefixC}} {
		var from []string
		for _, s := range sites {
			if s.Name != to.carrier {
				from = append(from, s.Name)
			}
		}
		if slices.Contains(carriers, to.carrier) && len(from) > 0 {
			lines = append(lines, fmt.Sprintf("{name: to-%s, from: [%s], prefix: %q, trunk: %s}", to.carrier, strings.Join(from, ", "), to.prefix, to.carrier))
		}
	}
	if slices.ContainsFunc(sites, func(s Site) bool { return s.Name == Platform }) {
		lines = append(lines, "{name: to-carriers, from: [platform], group: carriers}",
			fmt.Sprintf("{name: to-platform, from: [%s], trunk: platform}", strings.Join(carriers, ", ")))
	} else {
		lines = append(lines, "{name: to-carriers, group: carriers}")
	}
	return lines
}

// StartTrunkGateway is [Lab.StartGateway] for the trunk topology.
func (l *Lab) StartTrunkGateway(ctx context.Context, binary string, o TrunkOptions, log io.Writer) (*Daemon, error) {
	config, err := l.TrunkConfig(o)
	if err != nil {
		return nil, err
	}
	return l.StartDaemon(ctx, binary, config, log)
}

// Unload runs the daemon once more, after its end, to take away all that it has left in the
// kernel and what it has left running.
func (d *Daemon) Unload(ctx context.Context) (said string, err error) {
	select {
	case <-d.Done():
	default:
		return "", errors.New("the daemon runs still")
	}
	var out bytes.Buffer
	p := d.lab.Command(ctx, d.host, d.cmd.Path, "--unload", "--config", d.Config)
	p.Stdout, p.Stderr = &out, &out
	if err := p.Run(); err != nil {
		return "", fmt.Errorf("tandemd --unload: %w: %s", err, out.Bytes())
	}
	return out.String(), nil
}
