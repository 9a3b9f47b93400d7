// Package config reads the config file: YAML into each package's own Config, all
// checked, and everything that is wrong reported at once with its file, line and key.
package config

import (
	"time"

	"github.com/tandem-sbc/tandem/pkg/admin"
	"github.com/tandem-sbc/tandem/pkg/admit"
	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/cdr"
	"github.com/tandem-sbc/tandem/pkg/ipsec"
	"github.com/tandem-sbc/tandem/pkg/metrics"
	"github.com/tandem-sbc/tandem/pkg/realm"
	"github.com/tandem-sbc/tandem/pkg/route"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

//go:generate go run ./internal/docgen ../../docs

// Config is the whole file. The struct tags are its grammar and its reference: yaml
// is the key, doc the meaning, range and enum what is allowed, required what has no
// default. docs/config.md and docs/config.schema.json are generated from them.
type Config struct {
	Node      string              `yaml:"node" json:"node" required:"true" doc:"Name of this gateway, for records and logs, and on all that it makes of the kernel: a host has one of a name at a time."`
	Engine    string              `yaml:"engine" json:"engine" enum:"auto,kernel,userspace" doc:"What moves media: the kernel (XDP), sockets in user space, or auto: the kernel if it can, else user space, said loudly."`
	MaxCalls  int                 `yaml:"max_calls" json:"max_calls" range:"1-262144" doc:"Most calls at once on the whole gateway. The kernel engine's maps are allocated for it at start; docs/architecture.md says how much memory that is."`
	Emergency []string            `yaml:"emergency" json:"emergency" reload:"hot" doc:"Called numbers, in quotes and as they are after normalisation, whose calls no max_calls and no max_rate holds up."`
	Pins      string              `yaml:"pins" json:"pins" doc:"Folder on bpffs where the kernel engine keeps its program, maps and flows when the daemon ends, so that the next one goes on with them: auto is /sys/fs/bpf/tdm-NODE (dots of the node's name as dashes), none keeps nothing. tandemd --unload clears it."`
	Drain     time.Duration       `yaml:"drain" json:"drain" reload:"hot" range:"0s-24h" doc:"How long a stopping gateway waits for its calls before it hangs them up."`
	Log       Log                 `yaml:"log" json:"log" doc:"Log, to standard error."`
	Guard     admit.GuardConfig   `yaml:"guard" json:"guard" doc:"What the kernel engine drops at the wire. Targets of trunks are known peers and exempt."`
	Realms    []realm.Config      `yaml:"realms" json:"realms" required:"true" doc:"Network attachments, one address each."`
	Tunnels   []ipsec.Config      `yaml:"tunnels" json:"tunnels" doc:"IPsec tunnels of realms. A realm with one sends and takes nothing but by its tunnels."`
	IPsec     IPsec               `yaml:"ipsec" json:"ipsec" doc:"What all tunnels have in common."`
	Trunks    []trunk.Config      `yaml:"trunks" json:"trunks" reload:"hot" required:"true" doc:"SIP peers."`
	Groups    []trunk.GroupConfig `yaml:"groups" json:"groups" reload:"hot" doc:"Sets of trunks that can stand in for each other."`
	Routes    []route.Config      `yaml:"routes" json:"routes" reload:"hot" required:"true" items:"5000" doc:"Dial plan: the first route that matches a call wins. A call that none matches gets 503."`
	Media     Media               `yaml:"media" json:"media" doc:"RTP ports."`
	Admin     admin.Config        `yaml:"admin" json:"admin" doc:"The API that the tandem command speaks."`
	Metrics   metrics.Config      `yaml:"metrics" json:"metrics" doc:"Prometheus metrics."`
	CDR       cdr.Config          `yaml:"cdr" json:"cdr" doc:"Call detail records."`
}

// Log says what is logged, and how.
type Log struct {
	Level  string `yaml:"level" json:"level" enum:"debug,info,warn,error" doc:"Least severity that is logged."`
	Format string `yaml:"format" json:"format" enum:"auto,human,json" doc:"Form of a line; auto is human on a terminal and json otherwise."`
}

// Media is what the media plane has in common over all realms.
type Media struct {
	Quarantine time.Duration `yaml:"quarantine" json:"quarantine" range:"0s-10m" doc:"How long an RTP port rests after a call, so that late packets of one call never reach the next."`
}

// IPsec is what the tunnels of all realms have in common.
type IPsec struct {
	Run    string `yaml:"run" json:"run" doc:"Absolute path of the folder for the sockets, configs and logs of the IKE daemons, of which each tunnelled realm has one. It is made if it is missing."`
	Charon string `yaml:"charon" json:"charon" doc:"Absolute path of strongSwan's IKE daemon, charon-systemd of 5.9 or later. Only tunnels with keying ike need it."`
}

// SetDefaults fills in what the file may leave out.
func (c *Config) SetDefaults() {
	c.Engine = call.EngineAuto
	c.MaxCalls = 16384
	c.Pins = pinsAuto
	c.Drain = 30 * time.Second
	c.Log = Log{Level: "info", Format: "auto"}
	c.Media = Media{Quarantine: 5 * time.Second} // M9
	c.IPsec = IPsec{Run: ipsec.DefaultRun, Charon: ipsec.DefaultCharon}
	c.Guard.SetDefaults()
	c.Admin.SetDefaults()
	c.Metrics.SetDefaults()
	c.CDR.SetDefaults()
}
