package realm

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// Where the kernel says which ports it gives to sockets that ask for none.
const (
	localPortRange     = "/proc/sys/net/ipv4/ip_local_port_range"
	localReservedPorts = "/proc/sys/net/ipv4/ip_local_reserved_ports"
)

// LocalPorts are the ports that the kernel gives to sockets that ask for none. A media
// port among them can be another program's: then its answers are taken for media.
type LocalPorts struct {
	Range    call.PortRange
	reserved []call.PortRange
}

// ReadLocalPorts reads them for the network namespace of the process.
func ReadLocalPorts() (LocalPorts, error) {
	ports, err := os.ReadFile(localPortRange)
	if err != nil {
		return LocalPorts{}, fmt.Errorf("local port range: %w", err)
	}
	reserved, err := os.ReadFile(localReservedPorts)
	if err != nil {
		return LocalPorts{}, fmt.Errorf("reserved ports: %w", err)
	}
	return parseLocalPorts(string(ports), string(reserved))
}

// parseLocalPorts reads "32768\t60999" and "8080,16384-24575".
func parseLocalPorts(ports, reserved string) (LocalPorts, error) {
	var l LocalPorts
	if err := l.Range.UnmarshalText([]byte(strings.Join(strings.Fields(ports), "-"))); err != nil {
		return LocalPorts{}, fmt.Errorf("local port range: %w", err)
	}
	for _, part := range strings.FieldsFunc(reserved, func(r rune) bool { return r == ',' || r == '\n' }) {
		if !strings.Contains(part, "-") {
			part += "-" + part
		}
		var r call.PortRange
		if err := r.UnmarshalText([]byte(part)); err != nil {
			return LocalPorts{}, fmt.Errorf("reserved ports: %w", err)
		}
		l.reserved = append(l.reserved, r)
	}
	return l, nil
}

// Clash counts the ports of r that any program may be given.
func (l LocalPorts) Clash(r call.PortRange) int {
	n := 0
	for port := max(int(r.First), int(l.Range.First)); port <= min(int(r.Last), int(l.Range.Last)); port++ {
		if !l.isReserved(uint16(port)) {
			n++
		}
	}
	return n
}

func (l LocalPorts) isReserved(port uint16) bool {
	return slices.ContainsFunc(l.reserved, func(r call.PortRange) bool { return r.Contains(port) })
}
