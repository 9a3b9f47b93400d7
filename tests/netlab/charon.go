package netlab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/vishvananda/netlink"
)

// charonBinary and swanctl are Debian's charon-systemd and strongswan-swanctl.
const (
	charonBinary = "/usr/sbin/charon-systemd"
	swanctl      = "swanctl"
)

// Charon is a host's strongSwan: the peer of the gateway's. It only answers; what it loads is
// as on any other machine, through swanctl.
type Charon struct {
	// Settings are more lines of its strongswan.conf, to be set before Start.
	Settings []string

	lab     *Lab
	host    string
	dir     string
	process *Process
}

// Connection is what a site's charon accepts. Zero values of what has no other default are
// the lab's: AES-256-GCM, SHA-384 and ECP-384.
type Connection struct {
	Name string
	// Local and Remote are the outer addresses, as the site sees them, LocalID and RemoteID
	// the identities.
	Local, Remote     netip.Addr
	LocalID, RemoteID string
	// LocalNetwork and RemoteNetwork are what the tunnel is for; it may be narrowed.
	LocalNetwork, RemoteNetwork netip.Prefix
	// IfID is that of the xfrm interface.
	IfID uint32
	// Proposals and ESPProposals in strongSwan's words.
	Proposals, ESPProposals string
	// Secret is the pre-shared key; without one the two sides show certificates, this one
	// the [Charon.Certificate] of that name.
	Secret      string
	Certificate string
	// Child and IKE are more lines of the two sections.
	IKE, Child []string
}

var strongswanConf = template.Must(template.New("strongswan.conf").Parse(`charon-systemd {
  load_modular = no
  load = random nonce openssl gcm pem pkcs1 pkcs8 pubkey x509 revocation constraints hmac kdf kernel-netlink socket-default vici updown drbg
  install_routes = no
  install_virtual_ip = no
  replay_window = 256
{{- range .Settings}}
  {{.}}
{{- end}}
  plugins {
    vici {
      socket = unix://{{.Dir}}/charon.vici
    }
  }
  filelog {
    f {
      path = {{.Dir}}/charon.log
      flush_line = yes
      default = 1
      time_format = %T
    }
  }
}
swanctl {
  load = pem pkcs1 pkcs8 x509 random openssl
}
`))

var swanctlConf = template.Must(template.New("swanctl.conf").Parse(`connections {
{{- range .}}
  {{.Name}} {
    version = 2
    mobike = no
    local_addrs = {{.Local}}
    remote_addrs = {{.Remote}}
    proposals = {{.Proposals}}
    rekey_time = 0
    if_id_in = {{.IfID}}
    if_id_out = {{.IfID}}
{{- range .IKE}}
    {{.}}
{{- end}}
    local {
{{- if .Secret}}
      auth = psk
{{- else}}
      auth = pubkey
      certs = {{.Certificate}}.pem
{{- end}}
      id = {{.LocalID}}
    }
    remote {
{{- if .Secret}}
      auth = psk
{{- else}}
      auth = pubkey
      cacerts = {{.Certificate}}-ca.pem
{{- end}}
      id = {{.RemoteID}}
    }
    children {
      inner {
        mode = tunnel
        local_ts = {{.LocalNetwork}}
        remote_ts = {{.RemoteNetwork}}
        esp_proposals = {{.ESPProposals}}
        rekey_time = 0
        copy_dscp = out
{{- range .Child}}
        {{.}}
{{- end}}
      }
    }
  }
{{- end}}
}
secrets {
{{- range .}}
{{- if .Secret}}
  ike-{{.Name}} {
    id-1 = {{.LocalID}}
    id-2 = {{.RemoteID}}
    secret = "{{.Secret}}"
  }
{{- end}}
{{- end}}
}
`))

// Charon prepares a host's strongSwan.
func (l *Lab) Charon(host string) (*Charon, error) {
	c := &Charon{lab: l, host: host, dir: filepath.Join(l.dir, "charon-"+host)}
	// swanctl looks for files in these folders of SWANCTL_DIR.
	for _, folder := range []string{"x509", "x509ca", "private"} {
		if err := os.MkdirAll(filepath.Join(c.dir, folder), 0o700); err != nil {
			return nil, fmt.Errorf("charon of %s: %w", host, err)
		}
	}
	return c, nil
}

// Start runs charon, with nothing loaded: it answers NO_PROPOSAL_CHOSEN to everybody until
// [Charon.Load].
func (c *Charon) Start(ctx context.Context) error {
	var conf bytes.Buffer
	if err := strongswanConf.Execute(&conf, struct {
		Dir      string
		Settings []string
	}{c.dir, c.Settings}); err != nil {
		return fmt.Errorf("charon of %s: %w", c.host, err)
	}
	if err := os.WriteFile(filepath.Join(c.dir, "strongswan.conf"), conf.Bytes(), 0o600); err != nil {
		return fmt.Errorf("charon of %s: %w", c.host, err)
	}
	if err := os.Remove(c.socket()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("charon of %s: %w", c.host, err)
	}
	// Only the lab's Close, Stop and Kill end it.
	c.process = c.lab.Command(context.WithoutCancel(ctx), c.host, charonBinary)
	c.process.Env = c.environment()
	said := &tail{}
	c.process.Stdout, c.process.Stderr = said, said
	if err := c.process.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(c.socket()); err == nil {
			return nil
		}
		select {
		case <-c.process.Done():
			return fmt.Errorf("charon of %s ended at its start: %w: %s", c.host, c.process.Wait(), said)
		case <-ctx.Done():
			return fmt.Errorf("charon of %s does not listen: %w: %s", c.host, ctx.Err(), said)
		case <-tick.C:
		}
	}
}

func (c *Charon) socket() string { return filepath.Join(c.dir, "charon.vici") }

func (c *Charon) environment() []string {
	return []string{
		"STRONGSWAN_CONF=" + filepath.Join(c.dir, "strongswan.conf"), "SWANCTL_DIR=" + c.dir,
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C",
	}
}

// Certificate gives charon a certificate with its key, and the authority that it trusts with
// it, all PEM, under a name.
func (c *Charon) Certificate(name string, certificate, key, authority []byte) error {
	for file, data := range map[string][]byte{
		"x509/" + name + ".pem": certificate, "private/" + name + ".pem": key, "x509ca/" + name + "-ca.pem": authority,
	} {
		if err := os.WriteFile(filepath.Join(c.dir, file), data, 0o600); err != nil {
			return fmt.Errorf("charon of %s: %w", c.host, err)
		}
	}
	return nil
}

// Load makes the connections those that charon knows; the ones that it had and that are not
// among them are unloaded.
func (c *Charon) Load(ctx context.Context, connections ...Connection) error {
	for i := range connections {
		if connections[i].Proposals == "" {
			connections[i].Proposals = "aes256gcm16-prfsha384-ecp384"
		}
		if connections[i].ESPProposals == "" {
			connections[i].ESPProposals = "aes256gcm16-ecp384-esn,aes256gcm16-ecp384,aes256gcm16-esn,aes256gcm16"
		}
	}
	var conf bytes.Buffer
	if err := swanctlConf.Execute(&conf, connections); err != nil {
		return fmt.Errorf("charon of %s: %w", c.host, err)
	}
	if err := os.WriteFile(filepath.Join(c.dir, "swanctl.conf"), conf.Bytes(), 0o600); err != nil {
		return fmt.Errorf("charon of %s: %w", c.host, err)
	}
	_, err := c.swanctl(ctx, "--load-all", "--noprompt", "--file", filepath.Join(c.dir, "swanctl.conf"))
	return err
}

// ListSAs is what `swanctl --list-sas` prints.
func (c *Charon) ListSAs(ctx context.Context) (string, error) { return c.swanctl(ctx, "--list-sas") }

func (c *Charon) swanctl(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	var out bytes.Buffer
	p := c.lab.Command(ctx, c.host, swanctl, append(args, "--uri", "unix://"+c.socket())...)
	p.Env = c.environment()
	p.Stdout, p.Stderr = &out, &out
	if err := p.Run(); err != nil {
		return "", fmt.Errorf("swanctl %s in %s: %w: %s", args[0], c.host, err, out.Bytes())
	}
	return out.String(), nil
}

// Kill ends charon at once. Its security associations stay in the kernel and carry traffic.
func (c *Charon) Kill() error {
	if err := c.process.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-c.process.Done()
	return nil
}

// Stop ends charon in good order: it tells its peers, and takes its associations away.
func (c *Charon) Stop() error { return c.process.Stop(syscall.SIGTERM, 10*time.Second) }

// Forget empties the host's tables of associations and policies, as a reboot does.
func (c *Charon) Forget() error {
	h, err := netlink.NewHandleAt(c.lab.hosts[c.host])
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer h.Close()
	if err := errors.Join(h.XfrmStateFlush(0), h.XfrmPolicyFlush()); err != nil {
		return fmt.Errorf("forgetting the tunnels of %s: %w", c.host, err)
	}
	return nil
}

// Log is what charon has written.
func (c *Charon) Log() string {
	data, err := os.ReadFile(filepath.Join(c.dir, "charon.log"))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(data))
}
