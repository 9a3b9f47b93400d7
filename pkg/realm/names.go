package realm

import (
	"fmt"
	"hash/fnv"
	"path/filepath"
	"strconv"
	"strings"
)

// namespaceFolder is where iproute2 keeps named network namespaces.
const namespaceFolder = "/run/netns"

// hashDigits is how much of a name's hash tells shortened names apart.
const hashDigits = 4

// VRFName is the VRF of a realm: "tdm-" and its name, shortened to what Linux allows.
func VRFName(realm string) string { return deviceName("tdm-", realm) }

// TunnelDevice is the xfrm interface of a realm's tunnel; rank 1 is the primary's.
func TunnelDevice(realm string, rank int) string {
	return deviceName("tdx"+strconv.Itoa(rank)+"-", realm)
}

// deviceName shortens a name that is too long to its beginning and a hash of it all, so
// that it depends on nothing but the name. ValidateAll refuses two realms that come out the same.
func deviceName(prefix, name string) string {
	room := maxInterface - len(prefix)
	if len(name) <= room {
		return prefix + name
	}
	hash := fnv.New32a()
	hash.Write([]byte(name))
	digest := fmt.Sprintf("%08x", hash.Sum32())[:hashDigits]
	return prefix + name[:room-hashDigits-1] + "-" + digest
}

// NamespaceName is the network namespace of the outer side of a realm's tunnels, as
// `ip netns` shows it.
func NamespaceName(node, realm string) string { return "tdm-" + node + "-" + realm }

// NamespacePath is the file of that namespace.
func NamespacePath(node, realm string) string {
	return filepath.Join(namespaceFolder, NamespaceName(node, realm))
}

// mark is the alias of a device of ours: it says whose it is.
type mark struct{ node, realm, tunnel string }

// String is "tandem NODE REALM", and the tunnel if there is one.
func (m mark) String() string {
	text := "tandem " + m.node + " " + m.realm
	if m.tunnel != "" {
		text += " " + m.tunnel
	}
	return text
}

// parseMark reads an alias; ok is false if it is not ours.
func parseMark(alias string) (m mark, ok bool) {
	words := strings.Split(alias, " ")
	if len(words) < 3 || len(words) > 4 || words[0] != "tandem" || words[1] == "" || words[2] == "" {
		return mark{}, false
	}
	m = mark{node: words[1], realm: words[2]}
	if len(words) == 4 {
		if m.tunnel = words[3]; m.tunnel == "" {
			return mark{}, false
		}
	}
	return m, true
}
