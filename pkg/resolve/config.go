// Package resolve finds the targets of trunks that are names: DNS per realm, by RFC
// 3263 (T9). It says which targets there are and in which order the peer wants them;
// which of them are alive is for the health of trunks.
package resolve

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/tandem-sbc/tandem/pkg/invalid"
)

const (
	// maxServers bounds how long a question may take while all of them are dead.
	maxServers = 4
	// serverPort of DNS (RFC 1035 section 4.2).
	serverPort = 53

	shortestTimeout = 100 * time.Millisecond
	longestTimeout  = 10 * time.Second
	mostAttempts    = 5
	shortestStale   = time.Minute
	longestStale    = 365 * 24 * time.Hour
)

// Config is the DNS of one realm.
type Config struct {
	Servers  []string      `yaml:"servers" json:"servers,omitempty" doc:"IPv4 addresses of the DNS servers, with a port if it is not 53, at most 4. They are asked from the realm's address, through the realm's device. Left out, the servers of /etc/resolv.conf are asked, the host's way and not through the realm."`
	Timeout  time.Duration `yaml:"timeout" json:"timeout" range:"100ms-10s" doc:"How long a server has for an answer before the next one is asked."`
	Attempts int           `yaml:"attempts" json:"attempts" range:"1-5" doc:"How often all servers are asked in turn before a look-up has failed."`
	// MaxStale bounds what RFC 8767 calls serving stale data.
	MaxStale time.Duration `yaml:"max_stale" json:"max_stale" range:"0s-8760h" doc:"How long the last known targets go on being used beyond their TTL while no server answers, at least 1m; 0s is for good. A server that says that there are none is an answer, and ends it."`
}

// SetDefaults fills in what the config may leave out.
func (c *Config) SetDefaults() {
	c.Timeout = 2 * time.Second
	c.Attempts = 2
}

// Validate checks the keys by themselves.
func (c Config) Validate() invalid.List {
	var l invalid.List
	if len(c.Servers) > maxServers {
		l.Add("servers", fmt.Sprintf("give at most %d", maxServers), "has %d entries", len(c.Servers))
	}
	seen := make(map[netip.AddrPort]bool)
	for i, text := range c.Servers {
		key := fmt.Sprintf("servers[%d]", i)
		server, err := parseServer(text)
		switch {
		case err != nil:
			l.Add(key, "write it like 192.0.2.53, or 192.0.2.53:5353 for another port than 53", "%q is no IPv4 address of a server", text)
		case seen[server]:
			l.Add(key, "leave it out", "%s is listed twice", server)
		}
		seen[server] = true
	}
	if c.Timeout < shortestTimeout || c.Timeout > longestTimeout {
		l.Add("timeout", "give 100ms to 10s", "%s is out of range", c.Timeout)
	}
	l.Between("attempts", c.Attempts, 1, mostAttempts)
	if c.MaxStale != 0 && (c.MaxStale < shortestStale || c.MaxStale > longestStale) {
		l.Add("max_stale", "give 1m to 8760h, or 0s for good", "%s is out of range", c.MaxStale)
	}
	return l
}

// parseServer reads "ADDRESS" or "ADDRESS:PORT".
func parseServer(text string) (netip.AddrPort, error) {
	if !strings.Contains(text, ":") {
		text = fmt.Sprintf("%s:%d", text, serverPort)
	}
	server, err := netip.ParseAddrPort(text)
	if err == nil && (!isHost(server.Addr()) || server.Port() == 0) {
		err = fmt.Errorf("%s is no server", server)
	}
	return server, err
}

// isHost reports whether an address can be that of one IPv4 host.
func isHost(a netip.Addr) bool {
	return a.Is4() && !a.IsUnspecified() && !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// resolvConf reads the servers of a file in the form of resolv.conf(5).
func resolvConf(text string) []netip.AddrPort {
	var servers []netip.AddrPort
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" || len(servers) == maxServers {
			continue
		}
		if addr, err := netip.ParseAddr(fields[1]); err == nil && !slices.Contains(servers, netip.AddrPortFrom(addr, serverPort)) {
			servers = append(servers, netip.AddrPortFrom(addr, serverPort))
		}
	}
	return servers
}
